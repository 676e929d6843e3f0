"""Where the numbers of `docs/scale.md` come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.scale import CORES, SHARD, make_tables
from printed_numbers import read_results

_WORKERS = read_results("workers.json")
_TABLES = "\n".join(make_tables(_WORKERS).values())

# What two workers gain, beside one process, in some of the files that `ingest.py` made.
_MEASURED = read_results("ingest.json")["measured"]
_CT, _MR = _MEASURED["CT"], _MEASURED["MR"]
_MANY = read_results("ingest-mr.json")["measured"]["MR"]
_COMPRESSED = read_results("ingest-compressed.json")["measured"]["CT, JPEG 2000"]


def _gain(measured: dict[str, Any], start: str = "") -> float:
    return measured[f"ingest_2_by_ingest_1{start}"]["median"]


MEASURED: list[tuple[str, Sequence[float]]] = [
    # Whole rows, which have no `{}`, since the page must have them as they are.
    *[(row, ()) for row in _TABLES.splitlines() if row and "---" not in row],
    ("images of {} by {} pixels)", [_WORKERS["settings"]["side"]] * 2),
    (
        "two workers were {} times as fast as one process for {} slices of CT, and {} times for {} "
        "of MR, of which one process makes {} a second (`ingest.json`); {} times for {} of MR",
        [
            *(_gain(_CT, "_steady"), _CT["images"]),
            *(_gain(_MR, "_steady"), _MR["images"]),
            _MR["images_a_second"]["ingest_1"]["median"],
            *(_gain(_MANY, "_steady"), _MANY["images"]),
        ],
    ),
    (
        "With that they were {}, {} and {} times as fast, and {} times for {} slices in JPEG 2000",
        [*map(_gain, (_CT, _MR, _MANY, _COMPRESSED)), _COMPRESSED["images"]],
    ),
    ("machines of {} cores, shards of {} images", [CORES, SHARD]),
]
GIVEN: list[str] = [
    "asks again after 30 seconds (`heartbeat_interval_ms` of `WorkerConfig`)",
    "a study has 30 slices",
    "that costs more than 5%",
]
