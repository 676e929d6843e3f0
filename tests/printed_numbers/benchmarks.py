"""Where the numbers of `benchmarks/README.md` come from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from printed_numbers import ROOT, read_results
from vae_aug.config import TrainConfig


def read_settings(path: str) -> dict[str, Any]:
    """Read the settings of a training, which are no results."""
    settings: dict[str, Any] = json.loads((ROOT / path).read_text(encoding="utf-8"))
    return settings


def list_guards() -> list[tuple[str, str, int, float]]:
    """List checkpoint, mode, boxes and ratio of processor time that `guard.py` printed."""
    text = (ROOT / "benchmarks/results/guard-printed.txt").read_text(encoding="utf-8")
    row = r"^(\w+) +(\w+) +(\d+) boxes.+processor time x([\d.]+)"
    found = re.findall(row, text, re.MULTILINE)
    return [(name, mode, int(boxes), float(ratio)) for name, mode, boxes, ratio in found]


def list_ratios(mode: str, *checkpoints: str) -> list[float]:
    """List the ratios that were printed for up to 30 boxes, lowest first."""
    return sorted(
        ratio
        for name, other, boxes, ratio in list_guards()
        if other == mode and name in checkpoints and boxes <= 30
    )


def count_last_step(name: str) -> int:
    """Return the step at which a training ended."""
    step: int = read_results(name)[-1]["step"]
    return step


def list_levels(row: dict[str, Any]) -> list[float]:
    """List the KL of each level of a ladder, or of a vector."""
    return [row[name] for name in sorted(row) if name.startswith("kl_")] or [row["kl"]]


def list_processor_ms(run: dict[str, Any]) -> list[float]:
    """List the medians of decoding, of decoding and the PNG, and of `ingest`."""
    steps = ("decode", "decode_and_encode", "ingest_1")
    return [run["processor_ms_an_image"][step]["median"] for step in steps]


def list_restored(name: str, method: str, corruption: str, region: str = "whole") -> list[float]:
    """List SSIM and PSNR of what a method restores."""
    (row,) = (
        row
        for row in read_results(name)["rows"]
        if (row["method"], row["corruption"], row["region"]) == (method, corruption, region)
    )
    return [row["ssim"]["mean"], row["psnr"]["mean"]]


# --- Table of files ------------------------------------------------------------------------------

_GUARD = read_results("guard.json")["results"]
_MANY = [ratio for *_, boxes, ratio in list_guards() if boxes == 300]
_CORPUS = read_results("ingest-corpus.json")["formats"].values()
_LOADS = {
    tuple(map(int, name.partition(",")[0].split("x")))
    for name in read_results("load.json")["results"]
}
_LGG = read_results("denoising-lgg.json")["settings"]
_SAMPLED = list_ratios("sample", "vector", "demo")
_OF_VECTOR, _OF_DEMO = list_ratios("denoise", "vector"), list_ratios("denoise", "demo")

FILES = [
    (
        "it does, AUC {} in place of {}",
        [
            read_results(f"variation-leak-1600{jitter}.json")["found"]["auc"]
            for jitter in ("-jitter", "")
        ],
    ),
    (
        "at each tenth of {} elements of {} pixels and {} of {}, on TensorFlow and OpenVINO",
        [number for load in sorted(_LOADS, reverse=True) for number in load],
    ),
    (
        "Medians of processor time for {} and {} boxes an image: "
        "{} and {} (`vector`), {} and {} (`demo`) times that without;",
        (
            *(row["boxes"] for row in _GUARD[:2]),
            *(row["processor_time_ratio"]["median"] for row in _GUARD),
        ),
    ),
    (
        "single ratios lie between {} and {} on an idle machine",
        (
            min(row["processor_time_ratio"]["lowest"] for row in _GUARD),
            max(row["processor_time_ratio"]["highest"] for row in _GUARD),
        ),
    ),
    (
        "medians of processor time {} to {} for up to 30 boxes sampled; "
        "{} to {} in `denoise` with `vector`",
        (_SAMPLED[0], _SAMPLED[-1], _OF_VECTOR[0], _OF_VECTOR[-1]),
    ),
    (
        "have to be pasted, and {} to {} with `demo`; {} to {} for 300 boxes",
        (_OF_DEMO[0], _OF_DEMO[-1], min(_MANY), max(_MANY)),
    ),
    (
        "lie from float32 TensorFlow on {} images of brain MR;",
        (read_results("engine-quality.json")["settings"]["images"],),
    ),
    (
        "denoising of {} kidney-stone CT test images",
        (read_results("denoising-kidney.json")["settings"]["images"],),
    ),
    (
        "its denoising of {} images of the {} validation patients",
        (_LGG["images"], _LGG["patients"]),
    ),
    ("on images of its {} validation patients", (_LGG["patients"],)),
    (
        "the packaged networks on the {} images of `denoising-lgg.json`",
        (read_results("denoising-lgg-demo.json")["settings"]["images"],),
    ),
    (
        "restore best after {} steps",
        (read_results("tuning-lgg.json")["settings"]["steps"],),
    ),
    (
        "| {} random, mutated sources of all formats",
        (sum(sum(row["sources"].values()) for row in _CORPUS),),
    ),
    (
        "| {} and {} more steps, which were not packaged",
        (count_last_step("demo-training-6.jsonl"), count_last_step("demo-training-7.jsonl")),
    ),
    (
        "shot noise, at {} and {} pixels; growth",
        tuple(map(float, read_results("variation-speed.json")["sizes"])),
    ),
    ("became of {} damaged DICOM files", (read_results("fuzz-dicom.json")["cases"],)),
]

# --- Audit ---------------------------------------------------------------------------------------

_AUDIT = read_results("audit-demo.json")
_COMPARISON = _AUDIT["comparisons"][0]
_CONTROLS = {row["measure"]: row for row in _AUDIT["controls"]}

AUDIT = [
    (
        "it was). {} outputs, one variant and one interpolation of each of the {} images of the "
        "test split, against the {} training images",
        (
            2 * _COMPARISON["samples"],
            _AUDIT["settings"]["held_out_images"],
            _AUDIT["settings"]["training_images"],
        ),
    ),
    ("one of {} is expected to.", (1 / _COMPARISON["expected_share"],)),
    (
        "Kidney CT was {}% of each batch",
        (100 * read_settings("docs/checkpoints/demo-2.json")["train"]["source_weights"][0],),
    ),
    (
        "{} of {} without a sign still leaves up to {}% (upper end of the {}% interval)",
        (
            _COMPARISON["samples"] - _COMPARISON["suspects"],
            _COMPARISON["samples"],
            100 * _COMPARISON["share_high"],
            100 * (1 - _AUDIT["settings"]["level"]),
        ),
    ),
    ("images of {} x {} pixels. A part", 2 * (_AUDIT["settings"]["grid_px"],)),
    (
        "{} of {} are suspect in pixels, {} in correlation, {} in features",
        (
            _CONTROLS["pixels"]["suspects"],
            _CONTROLS["pixels"]["samples"],
            _CONTROLS["correlation"]["suspects"],
            _CONTROLS["features"]["suspects"],
        ),
    ),
]

# --- Ablation ------------------------------------------------------------------------------------

_ABLATION = read_results("ablation-lgg.json")
_CHANGES = {row["change"]: row for row in _ABLATION["rows"]}
_RECIPE, _UNSTYLED = _CHANGES["recipe"], _CHANGES["no known styles"]

ABLATION = [
    (
        "`ablation-lgg.json`: {} steps of {} images of `lgg_flair` at {} pixels, {} images of",
        (
            _ABLATION["steps"],
            _ABLATION["train"]["batch_size"],
            _ABLATION["model"]["image_size"],
            _ABLATION["validation_images"],
        ),
    ),
    *(
        (
            f"| {change} | {{}} / {{}} | {{}} / {{}} | {', '.join(['{}'] * len(list_levels(row)))} "
            "| {} | {} |",
            (
                *(row[name] for name in ("psnr", "ssim", "psnr_noisy", "ssim_noisy")),
                *list_levels(row),
                100 * row["samples"]["spread_outside"],
                100 * row["samples"]["contrast_kept"],
            ),
        )
        for change, row in _CHANGES.items()
    ),
    (
        "asked to tell, cost {} dB on clean and {} on noisy ones",
        (
            _UNSTYLED["psnr"] - _RECIPE["psnr"],
            _UNSTYLED["psnr_noisy"] - _RECIPE["psnr_noisy"],
        ),
    ),
]

# --- Ingest --------------------------------------------------------------------------------------

_INGESTED = {
    "CT, 512 x 512, uncompressed, {} files": ("ingest.json", "CT"),
    "MR, 384 x 274, uncompressed, {} files": ("ingest.json", "MR"),
    "MR, {} files": ("ingest-mr.json", "MR"),
    "CT as JPEG 2000 Lossless, {} files": ("ingest-compressed.json", "CT, JPEG 2000"),
}
_RUNS = {
    files: read_results(name)["measured"][folder] for files, (name, folder) in _INGESTED.items()
}
_PNG_BY_DECODING = [
    encode / decode - 1
    for decode, encode, _ in (list_processor_ms(run) for run in list(_RUNS.values())[:3])
]
_DECODE, _, _INGEST = list_processor_ms(_RUNS["CT as JPEG 2000 Lossless, {} files"])

INGEST = [
    *(
        (
            f"| {files} | {{}} | {{}} / {{}} / {{}} | {{}} | {{}} |",
            (
                run["images"],
                run["ingest_1_by_decode"]["median"],
                *list_processor_ms(run),
                run["ingest_2_by_ingest_1_steady"]["median"],
                run["ingest_2_by_ingest_1"]["median"],
            ),
        )
        for files, run in _RUNS.items()
    ),
    (
        "the PNG alone costs {} to {} times the decoding",
        (min(_PNG_BY_DECODING), max(_PNG_BY_DECODING)),
    ),
    ("In processor time it has {} of decoding.", (_DECODE / _INGEST,)),
]

# --- Denoising -----------------------------------------------------------------------------------

_VECTOR = read_results("lgg-vector-training.jsonl")
_VALIDATIONS = [row for row in _VECTOR if row["kind"] == "validation"]
_BLEND_TRAINING = read_results("lgg-blend-training.jsonl")
_BLEND_SETTINGS = read_settings("benchmarks/lgg_ladder_blend.json")["train"]
_VECTOR_SETTINGS = read_settings("benchmarks/lgg_vector.json")["train"]
_CEILING = read_results("ceiling-lgg.json")["means"]
_LAST_TRAINED = [
    row["psnr"]
    for row in _VECTOR
    if row["kind"] == "train" and row["step"] > _VECTOR[-1]["step"] - 100
]

DENOISING = [
    (
        "Keep-40, the {} validation patients of `lgg_flair`, networks trained on its {} training",
        (
            _LGG["patients"],
            read_results("detection-lgg-all.json")["rows"][0]["training_groups"],
        ),
    ),
    (
        "| ladder, `replace`: SSIM 0.90, 30 dB | {}, {} dB |",
        list_restored("denoising-lgg.json", "lgg", "replace"),
    ),
    (
        "| ladder, `blend`: SSIM 0.85 | {}, {} dB | the same network",
        list_restored("denoising-lgg.json", "lgg", "blend"),
    ),
    (
        "| {}, {} dB | `lgg_ladder_blend.json`: {} steps of {} from `demo` on `blend` alone, "
        "{}% to {}% left",
        (
            *list_restored("denoising-lgg-blend.json", "lgg-blend", "blend"),
            _BLEND_SETTINGS["steps"],
            _BLEND_SETTINGS["batch_size"],
            *(100 * share for share in _BLEND_SETTINGS["keep"]),
        ),
    ),
    (
        "| vector, `replace`: SSIM 0.75 | {}, {} dB | `lgg_vector.json`, {} steps of {} |",
        (
            _VECTOR[-1]["ssim_noisy"],
            _VECTOR[-1]["psnr_noisy"],
            _VECTOR_SETTINGS["steps"],
            TrainConfig().batch_size,
        ),
    ),
    (
        "no limit: {}, {} dB (`ceiling-lgg.json`)",
        (_CEILING["ssim_whole"], _CEILING["psnr_whole"]),
    ),
    # The log validates on `replace`, which that training does not see.
    ("on `replace` it reaches an SSIM of {}.", (_BLEND_TRAINING[-1]["ssim_noisy"],)),
    (
        "Inside boxes it reaches {},",
        list_restored("denoising-lgg-blend.json", "lgg-blend", "blend", "boxes")[:1],
    ),
    (
        "a clean image no better ({}, {} dB) than a noisy one",
        (_VECTOR[-1]["ssim"], _VECTOR[-1]["psnr"]),
    ),
    (
        "than validation ones ({} to {} dB in the last 100 steps)",
        (min(_LAST_TRAINED), max(_LAST_TRAINED)),
    ),
    (
        f"not stopped gaining: {', '.join(['{}'] * len(_VALIDATIONS))} every {{}} steps",
        (*(row["ssim_noisy"] for row in _VALIDATIONS), _VALIDATIONS[0]["step"]),
    ),
]

MEASURED: list[tuple[str, Sequence[float]]] = [*FILES, *AUDIT, *ABLATION, *INGEST, *DENOISING]

GIVEN: list[str] = [
    "belong to the machine (2 cores, no GPU)",
    "by the plan in [ADR 30]",
    "([ADR 24] )",
    "settings in [ADR 25]",
    "restoration ([ADR 25] )",
    "before [ADR 0016] )",
    "one thing changed at a time, at 96 pixels",
    "from `lgg_ladder.json` at 96 pixels, batches of 16,",
    "Aims: one worker at 0.8 of the speed of pydicom",
    "two workers at 1.7 times one.",
    "an uncompressed file copies 0.2 to 0.5 MB.",
    "So 0.8 cannot be had for such files.",
    "a PNG of 16 shown bits, which compress a little worse than 12 stored ones",
    "Of JPEG 2000, `ingest` asks",
]
