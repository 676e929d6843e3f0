"""Where the numbers of `SECURITY.md` come from."""

from __future__ import annotations

from collections.abc import Sequence

from printed_numbers import read_results

_LEAK = next(
    row
    for row in read_results("membership-demo.json")["attacks"]
    if (row["score"], row["target"]) == ("elbo", "networks")
)

MEASURED: list[tuple[str, Sequence[float]]] = [
    ("networks ranked members above others with a chance of {}.", [_LEAK["auc"]])
]
GIVEN: list[str] = [
    "under a secret salt, cut to 64 bits",
    "holds 64 random hexadecimal digits",
    "45 CFR 164.514(c)(1) (HIPAA)",
    "It draws 64 bits from the system's source of randomness",
]
