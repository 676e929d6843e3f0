"""Where the numbers of `docs/placement.md` come from."""

from __future__ import annotations

from collections.abc import Sequence

from printed_numbers import read_results

throughput = read_results("throughput.json")["results"]
peaks = read_results("growth.json")["tables"]["peak"]["results"]


def read_rate(engine: str) -> float:
    """Read images per second of `apply` with a seed."""
    return throughput[f"apply, {engine}"]["images_per_second"]["median"]


def read_peaks(engine: str) -> list[float]:
    """Read the GiB that eight passes of `vector` peak at, with one arena and with many."""
    return [
        peaks[f"{engine}, vector{arena}"]["all_passes_mib"] / 1024 for arena in (", one arena", "")
    ]


def compare_threads(engine: str) -> list[float]:
    """Read ratios to the network, then rates, of records to batches: with one thread, and as is."""
    one, default = (
        read_results(name)["pipelines"][engine]["records, decode, apply, batch"]
        for name in ("pipeline-one-thread.json", "pipeline.json")
    )
    return [
        found[figure]["median"]
        for figure in ("ratio", "images_per_second")
        for found in (one, default)
    ]


MEASURED: list[tuple[str, Sequence[float]]] = [
    (
        "the same, {} times as fast and less exact",
        [read_rate("openvino-bfloat16") / read_rate("openvino")],
    ),
    (
        "keeps a pass near {} GB",
        [peaks["tensorflow, vector"]["all_passes_mib"] * 2**20 / 1e9],
    ),
    ("a process stood at {} GiB in place of {}", read_peaks("tensorflow")),
    ("On OpenVINO it was {} GiB in place of {}", read_peaks("openvino")),
    (
        "at {} of the speed of the network alone in place of {} in float32 ({} and {} images/s),"
        " and at {} in place of {} in bfloat16 ({} and {})",
        [*compare_threads("openvino"), *compare_threads("openvino-bfloat16")],
    ),
]
GIVEN: list[str] = [
    "with status 134",
    "sides are multiples of 16 (a second, four are kept)",
    "ten images of 224 pixels at a time",
    "[ADR 0007]",
    "[ADR 0009]",
    "[ADR 0011]",
]
