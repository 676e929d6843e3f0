"""Where the numbers of the pages in `docs/checkpoints` come from."""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from printed_numbers import ROOT, read_results

_CARD, _RECIPES = "docs/checkpoints/demo.md", "docs/checkpoints/README.md"


def _read_manifest(name: str) -> Any:
    """Read what a packaged checkpoint says of itself."""
    with zipfile.ZipFile(ROOT / "vae_aug" / "checkpoints" / f"{name}.keras") as archive:
        return json.loads(archive.read("manifest.json"))


def _read_settings(name: str, part: str = "train") -> dict[str, Any]:
    """Read a part of the settings of a training."""
    text = (ROOT / "docs" / "checkpoints" / f"{name}.json").read_text(encoding="utf-8")
    settings: dict[str, Any] = json.loads(text)[part]
    return settings


def _read_constant(path: str, name: str) -> Any:
    """Read a constant of a module whose import takes seconds."""
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise LookupError(f"{path} has no {name}.")


def _list_sizes(name: str) -> list[int]:
    """List steps, images of a step and their side in pixels."""
    train = _read_settings(name)
    return [train["steps"], train["batch_size"], _read_settings(name, "model")["image_size"]]


def _list_percent(*shares: float) -> list[float]:
    return [100 * share for share in shares]


def _list_scores(report: Any, noise: str, region: str) -> Iterator[float]:
    """List SSIM and PSNR of `demo`, then the best ones of the filters."""
    for methods in (("demo",), ("median", "tv", "nlm")):
        for metric in ("ssim", "psnr"):
            yield max(
                row[metric]["mean"]
                for row in report["rows"]
                if (row["corruption"], row["region"]) == (noise, region)
                and row["method"] in methods
            )


def _list_restored() -> Iterator[tuple[str, list[float]]]:
    """List the rows of denoising; where a filter is ahead of `demo`, its SSIM is bold."""
    for noise in ("replace", "blend"):
        for name, region in {"whole image": "whole", "body": "body", "boxes": "boxes"}.items():
            scores = [
                score for report in (_LGG, _KIDNEY) for score in _list_scores(report, noise, region)
            ]
            last = "**{}**, {}" if scores[6] > scores[4] else "{}, {}"
            yield f"| `{noise}` | {name} | {{}}, {{}} | {{}}, {{}} | {{}}, {{}} | {last} |", scores


def _list_varied(name: str) -> list[float]:
    """List what samples of `demo` do to the images of a set."""
    row = read_results("variation.json")["sets"][name]["demo, sample"]
    shares = ("spread_outside", "spread_inside", "beyond", "contrast_median")
    lost = row["contrast_below_half"] * row["boxes"]
    return [*_list_percent(*(row[share] for share in shares)), lost, row["boxes"]]


_DEMO, _VECTOR = _read_manifest("demo"), _read_manifest("vector")
_LGG, _KIDNEY = read_results("denoising-lgg-demo.json"), read_results("denoising-kidney.json")
_STAGES = [_read_settings(f"demo-{stage}") for stage in (1, 2, 5)]
_SIZES = [_list_sizes(f"demo-{stage}") for stage in (1, 2, 5)]
_VARIED = _DEMO["training"]["variation"]
_PAIRS = [
    _read_settings("demo-3", "variation")["steps"],
    _VARIED["config"]["batch_size"],
    _read_settings("demo-4", "variation")["steps"],
]
_CLEAN = [row for row in read_results("weak-noise.json")["rows"] if row["noise"] == "clean"]
_SECONDS_AN_IMAGE = fmean(
    1 / row["images_per_second"]
    for row in read_results("demo-training-5.jsonl")
    if row["kind"] == "train"
)

# Images of the four sets of the first stages. No other result counts the phantoms. The audit was of
# an earlier `demo`, on the same split of kidney CT.
_SLICES = read_results("dicom-files.json")
_STONES = read_results("audit-demo.json")["settings"]["training_images"]
_BRAIN, _LUNG = (_SLICES[name]["count"]["read"] for name in ("mr_brain_dicom", "lung_ct_dicom"))
_PHANTOMS = _VECTOR["fingerprint"]["images"] - _STONES - _BRAIN - _LUNG

# Patients of kidney CT, which `benchmarks/permitted.py` splits, and of heart MR. Those of the other
# sets are the members that `membership-demo.json` attacks `demo` by.
_ALL = read_results("membership-kidney.json")["settings"]["patients"]
_OF_STONES = _ALL - _ALL // _read_constant("benchmarks/permitted.py", "_VALIDATION_SHARE")
(_MEMBERS,) = {
    row["members"]
    for row in read_results("membership-demo.json")["attacks"]
    if row["target"] == "checkpoint"
}
_OF_HEARTS = _VARIED["patients"] - _OF_STONES - _MEMBERS

_SETS = {
    "lgg_flair": "patients, brain MR",
    "ibsi_sts": "limbs and trunk, MR and CT",
    "cheng_brain_t1c": "brain MR with gadolinium",
}

MEASURED: dict[str, list[tuple[str, Sequence[float]]]] = {
    _CARD: [
        ("any size; global latent of {}, latent maps", [_DEMO["model"]["latent_dim"] // 2]),
        (
            "latent maps at strides {}, {}, {} and {} |",
            sorted(
                (
                    int(name.partition("/")[0].removeprefix("level"))
                    for name in _DEMO["variables"]
                    if name.startswith("level") and name.endswith("/posterior/bias")
                ),
                reverse=True,
            ),
        ),
        (
            "first {} to {}% clean, else",
            _list_percent(*(stage["clean_share"] for stage in _STAGES[:2])),
        ),
        ("Poisson-Gaussian noise, {}-{}% left; then", _list_percent(*_STAGES[0]["keep"])),
        ("then {}% clean, else these", _list_percent(_STAGES[2]["clean_share"])),
        ("of few quanta, {}-{}% left |", _list_percent(*_STAGES[2]["keep"])),
        (
            "{} steps of {} at {} x {}, then {} of {} at {} x {}, then {} of {} on all sets",
            [*_SIZES[0], _SIZES[0][2], *_SIZES[1], _SIZES[1][2], *_SIZES[2][:2]],
        ),
        (
            "weights are {} times those before the last stage plus {} times those after it",
            [1 - _DEMO["training"]["share"], _DEMO["training"]["share"]],
        ),
        ("{} steps of {} pairs, then {} with smoother fields", _PAIRS),
        ("standard deviation of windows (strength {})", [_VARIED["strength"]]),
        # Data
        ("kidney-stone-detection-yolo | {} |", [_STONES]),
        ("| {} | CC BY 4.0 | | T1 brain MR", [_OF_STONES]),
        (
            "one volume | {} | {} | {} | public domain",
            # A set of one volume has one patient, as has one of one series.
            [_BRAIN, _BRAIN // _read_constant("benchmarks/permitted.py", "_EVERY"), 1],
        ),
        ("one series | {} | {} | {} | CC BY", [_LUNG, _LUNG, 1]),
        ("two slices of the pydicom wheel | {} | | |", [_PHANTOMS]),
        ("| {} | CC0 |", [_OF_HEARTS]),
        # Figures
        ("Denoising with {}% of the information left", _list_percent(_LGG["settings"]["keep"])),
        (
            "(brain MR, {} images of {} patients)",
            [_LGG["settings"][key] for key in ("images", "patients")],
        ),
        ("of `kidney_stone_ct`, {} images of its test split", [_KIDNEY["settings"]["images"]]),
        *_list_restored(),
        # Both benchmarks read the validation patients of `lgg_flair`.
        ("images of {} patients, brain MR |", [_LGG["settings"]["patients"]]),
        *[
            (f"{end} | {{}} | {{}} | {{}}% | {{}}% | {{}} of {{}} |", _list_varied(name))
            for name, end in _SETS.items()
        ],
        (
            "come back at {} dB, with `adaptive` at {};",
            [fmean(row[way]["psnr"] for row in _CLEAN) for way in ("denoised", "adaptive")],
        ),
        ("Noise of {}% leaves too little", _list_percent(1 - _LGG["settings"]["keep"])),
    ],
    _RECIPES: [
        *[
            (f"| {name} | {{}} | {{}}% / {{}}% |", [images, *_list_percent(*shares)])
            for name, images, *shares in zip(
                ("`kidney_stone_ct`, train", "`mr_brain_dicom`", "`lung_ct_dicom`", "phantoms"),
                (_STONES, _BRAIN, _LUNG, _PHANTOMS),
                _STAGES[0]["source_weights"],
                _read_settings("vector")["source_weights"],
                strict=True,
            )
        ],
        ("`vector` ({} steps of {} images at {} pixels)", _list_sizes("vector")),
        ("first {} steps of {} at {} pixels", _SIZES[0]),
        ("then {} steps of {} at {}:", _SIZES[1]),
        ("{} steps of {} pairs, then {} with smoother fields.", _PAIRS),
        (
            "eight sets, {} images of {} patients",
            [_DEMO["fingerprint"]["images"], _VARIED["patients"]],
        ),
        (
            "{} steps of {} images, with noise of scanners and from {} to {}% left",
            [*_SIZES[2][:2], *_list_percent(*_STAGES[2]["keep"])],
        ),
        (
            "By its log the steps took {} hours.",
            [_SIZES[2][0] * _SIZES[2][1] * _SECONDS_AN_IMAGE / 3600],
        ),
    ],
}

GIVEN: dict[str, list[str]] = {
    _CARD: [
        "variance per image, 1 - SSIM, KL",
        "| CC BY 4.0 |",
        "| CC BY 3.0 |",
        "Samples at factor 1 on patients",
        "`lgg_flair`, 60 images of",
        "`cheng_brain_t1c`, 60 images, brain MR",
        "[ADR 25]",
        "nor gained for certain at 0.5",
    ],
    _RECIPES: ["| CC BY 4.0; Roboflow", "| CC BY 4.0; TCIA", "([ADR 25]"],
}

# What is wrong, or in no result. The card is a part of the checkpoint, so it stays until there is
# another one.
UNVERIFIED: dict[str, list[str]] = {
    _CARD: [
        # Wrong: the shapes in the manifest make 0.76 million.
        "| variation | 0.6 million weights;",
        # Right for the version before, whose `denoising-kidney.json` was replaced.
        "the version before it (0.53 and 0.53)",
        # The data alone tells what single sets hold; `test_licences.py` compares the sums.
        "| 532 | 450 |",
        "T1 MR and CT | | 232 | 28 |",
        "heart MR | | 365 |",
        "from eight repositories | | 251 | 14 |",
        "Stony Brook COVID-19 CT, The Cancer Imaging Archive | | 47 | 9 |",
        "knee MR and head CT | | 74 | 42 |",
        "`ibsi_sts`, 48 images of 7 other patients",
    ],
    _RECIPES: [],
}
