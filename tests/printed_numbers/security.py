"""Where the numbers of `SECURITY.md` come from."""

from __future__ import annotations

from collections.abc import Sequence

from printed_numbers import read_results


def _find(name: str, target: str) -> float:
    rows = read_results(name)["attacks"]
    return next(row["auc"] for row in rows if (row["score"], row["target"]) == ("elbo", target))


_VARIATION = "membership-demo-variation.json"

MEASURED: list[tuple[str, Sequence[float]]] = [
    ("others with a chance of {};", [_find(_VARIATION, "checkpoint")]),
    ("of 16 variations that were trained for 400 steps, {};", [_find(_VARIATION, "networks")]),
    (
        "of six of 1,600 steps, {}, and {} by the recipe as it is now",
        [
            read_results(f"variation-leak-1600{jitter}.json")["found"]["auc"]
            for jitter in ("", "-jitter")
        ],
    ),
    ("(16 small networks: {})", [_find("membership-demo.json", "networks")]),
]
GIVEN: list[str] = [
    "under a secret salt, cut to 64 bits",
    "holds 64 random hexadecimal digits",
    "45 CFR 164.514(c)(1) (HIPAA)",
    "It draws 64 bits from the system's source of randomness",
]
