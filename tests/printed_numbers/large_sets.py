"""Where the numbers of `docs/large-sets.md` come from."""

from __future__ import annotations

from collections.abc import Sequence

from printed_numbers import read_results

_KILLS = read_results("faults.json")["summary"]
_DISKS = read_results("disk-faults.json")["results"]
_FAULTS = ("kills", "lost", "wrong", "left_over")

MEASURED: list[tuple[str, Sequence[float]]] = [
    *[
        (f"| {command} | {{}} | {{}} | {{}} | {{}} |", [found[fault] for fault in _FAULTS])
        for command, found in _KILLS.items()
    ],
    *[
        (f"| {command} | {disk} | {{}} |", [found["status"]])
        for command, disks in _DISKS.items()
        for disk, found in disks.items()
    ],
]
GIVEN: list[str] = [
    "converts images in blocks of 32.",
    "the count of images stands at 0 until the runner is done",
    "`DirectRunner` of Beam 2.77",
    "96 images of 64 pixels",
]
