"""Where the numbers of `README.md` come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from printed_numbers import read_results
from vae_aug.config import ModelConfig
from vae_aug.phantoms.embedded import SPLITS, read_embedded

_LGG, _KIDNEY = read_results("denoising-lgg-demo.json"), read_results("denoising-kidney.json")
_TRAINED, _BLEND = read_results("denoising-lgg.json"), read_results("denoising-lgg-blend.json")
_NOISE, _WEAK = read_results("detection-noise-lgg.json"), read_results("weak-noise.json")
_HOSPITALS = read_results("detection-hospitals.json")
_STONES = read_results("detection-kidney.json")
_COST, _VARIED = read_results("cost.json"), read_results("variation.json")["sets"]
_FIDELITY = [read_results(f"fidelity-{name}.json") for name in ("kidney", "lgg", "bccd")]
_CEILING = read_results("ceiling-lgg.json")["means"]
_VECTOR = read_results("lgg-vector-training.jsonl")[-1]
_LEAK = next(
    [row["auc"], row["auc_low"], row["auc_high"]]
    for row in read_results("membership-demo-variation.json")["attacks"]
    if (row["score"], row["target"]) == ("elbo", "checkpoint")
)
_JITTERED = read_results("variation-leak-1600-jitter.json")
_PLAN = read_results("detection-reports/lgg-variation-classical.json")

_FILTERS = ("median", "tv", "nlm")
_PACKAGED = (*_FILTERS, "vector", "demo")
_WAYS = ("input", "adaptive", "best filter")
_ENGINES = ("tensorflow", "openvino", "openvino-bfloat16")
_VARYING = ("classical", "sample", "classical+sample")
_SETS = ("lgg_flair", "ibsi_sts", "cheng_brain_t1c")
_TESTS = ("DU-val", "FG-train")  # the same hospital, and another


def _score(
    report: Any, noise: str, method: str, metric: str = "ssim", region: str = "whole"
) -> float:
    """Return the mean score of a denoiser."""
    wanted = {"corruption": noise, "method": method, "region": region}
    (row,) = (row for row in report["rows"] if wanted.items() <= row.items())
    return row[metric]["mean"]


def _list_ssim(report: Any, noise: str, *methods: str) -> Iterator[float]:
    """List the SSIM of the whole image and inside boxes, method by method."""
    for method in methods:
        yield _score(report, noise, method)
        yield _score(report, noise, method, region="boxes")


def _won_back(noise: str, *methods: str) -> float:
    """Return the highest percentage of lost mAP50 that a method won back."""
    rows = [row for row in _NOISE["rows"] if row["corruption"] == noise]
    return max(100 * row["won back"]["mean"] for row in rows if row["restored by"] in methods)


def _find_arm(report: Any, test: str, arm: str) -> Any:
    """Find the results of an arm of the former detection benchmark."""
    (row,) = (row for row in report["rows"] if (row["test"], row["arm"]) == (test, arm))
    return row


def _map50(report: Any, test: str, arm: str) -> float:
    """Return the mean mAP50 of an arm."""
    return _find_arm(report, test, arm)["metrics"]["mAP50"]["mean"]


def _gained(test: str) -> Any:
    """Return what samples brought beside classical augmentation."""
    return _find_arm(_HOSPITALS, test, "classical+sample")["against"]["classical"]["mAP50"]


def _lost(plan: str) -> float:
    """Return how many points of mAP50 the primary arm of a plan lost."""
    report = read_results(f"detection-reports/{plan}.json")
    differences = report["tests"][report["plan"]["test"]]["differences"]
    (primary,) = (row for row in differences if row["primary"])
    return -100 * primary["metrics"]["mAP50"]["mean"]


def _acquired(way: str) -> list[float]:
    """List the PSNR of single acquisitions of both scanners."""
    return [row[way]["psnr"] for row in _WEAK["rows"] if row["noise"] == "acquired"]


def _weak(way: str, keep: float, *noises: str) -> list[float]:
    """List the mean PSNR over the sets, noise by noise."""
    rows = [row for row in _WEAK["rows"] if row["keep"] == keep]
    return [fmean(row[way]["psnr"] for row in rows if row["noise"] == noise) for noise in noises]


def _speed(size: str, engine: str) -> list[float]:
    """List how `apply` compares with the published network and with Albumentations."""
    ways = read_results("variation-speed.json")["sizes"][size][f"apply, {engine}"]
    return [ways[f"ratio_to_{other}"]["median"] for other in ("naive", "albumentations")]


def _throughput(*ways: str) -> list[float]:
    """List how ways compare with the published network."""
    results = read_results("throughput.json")["results"]
    return [results[way]["ratio_to_naive"]["median"] for way in ways]


def _cost(encoder: str) -> list[float]:
    """List how long `denoise` and `sample` of a `ladder` take in terms of a `vector`."""
    return [row["ratio"]["median"] for row in _COST["time"] if row["encoder"] == encoder]


_SAMPLED = [_VARIED[name]["demo, sample"] for name in _SETS]
_GUARDED, _AT = max(
    (100 * row["guarded"] / row["boxes"], row["factor"])
    for report in _FIDELITY
    for row in report["rows"]
)
_FILES = {
    name: one["count"] for name, one in read_results("dicom-files.json").items() if "count" in one
}
_BOXES = sum(len(item.boxes) for split in SPLITS for item in read_embedded(split, real=False))

MEASURED: list[tuple[str, Sequence[float]]] = [
    ("of its training above another with a chance of {} ({} to {};", _LEAK),
    (
        "with a chance of {} after {} steps on {} patients",
        [
            _JITTERED["found"]["auc"],
            _JITTERED["settings"]["steps"],
            _JITTERED["patients"] // 2,
        ],
    ),
    # What was gained, and what was not
    (
        "cost a detector {} points of mAP50 in {} of {} planned seeds;"
        " at half of the strength {} point",
        (
            _lost("lgg-variation-classical"),
            _PLAN["done"],
            _PLAN["plan"]["seeds"],
            _lost("lgg-variation-weaker"),
        ),
    ),
    (
        "mAP50 {} against {} on the same hospital and {} against {} on another",
        [_map50(_HOSPITALS, test, arm) for test in _TESTS for arm in ("sample", "classical")],
    ),
    ("any augmentation ({}, {})", [_map50(_HOSPITALS, test, "real") for test in _TESTS]),
    (
        "they brought {} (p = {}) and {} (p = {})",
        [_gained(test)[key] for test in _TESTS for key in ("mean", "p")],
    ),
    (
        "it won back {}% of the mAP50 that the noise takes, that `demo` {}%",
        (_won_back("rician:0.8", *_FILTERS), _won_back("rician:0.8", "demo")),
    ),
    (
        "that `demo` won back {}% (`replace`) and {}% (`blend`)",
        (_won_back("replace:0.4", "demo"), _won_back("blend:0.4", "demo")),
    ),
    *[
        ("the best filter {}% of either", (_won_back(f"{noise}:0.4", *_FILTERS),))
        for noise in ("replace", "blend")
    ],
    ("remembers {} numbers of an image", (ModelConfig(profile="vector").latent_dim // 2,)),
    # Denoising
    (
        "Brain MR: {} images of {} patients",
        [_LGG["settings"][key] for key in ("images", "patients")],
    ),
    (
        "went on from `demo` on {} other patients",
        (read_results("detection-lgg-all.json")["rows"][0]["training_groups"],),
    ),
    ("Kidney CT: {} images of a test split", (_KIDNEY["settings"]["images"],)),
    ("--limit 48` ({});", (_KIDNEY["settings"]["images"],)),
    (
        "| brain MR, `replace` |" + 5 * " {} / {} |" + " **{} / {}** |",
        [*_list_ssim(_LGG, "replace", *_PACKAGED), *_list_ssim(_TRAINED, "replace", "lgg")],
    ),
    (
        "| brain MR, `blend` |" + 5 * " {} / {} |" + " **{} / {}** |",
        [*_list_ssim(_LGG, "blend", *_PACKAGED), *_list_ssim(_TRAINED, "blend", "lgg")],
    ),
    (
        "| kidney CT, `replace` |" + 4 * " {} / {} |" + " **{} / {}** |",
        [*_list_ssim(_KIDNEY, "replace", *_PACKAGED)],
    ),
    (
        "| kidney CT, `blend` | {} / {} | {} / **{}** | {} / {} | {} / {} | **{}** / {} |",
        [*_list_ssim(_KIDNEY, "blend", *_PACKAGED)],
    ),
    # The table of figures, row by row
    ("COCO to TFDS | {} of {} |", (_BOXES, _BOXES)),
    (
        "brain MR with gadolinium | {}%, {}%, {}% of the grey range",
        [100 * one["spread_outside"] for one in _SAMPLED],
    ),
    (
        "median of what is left | {} of {}; {}%, {}%, {}% |",
        (
            sum(one["contrast_below_half"] * one["boxes"] for one in _SAMPLED),
            sum(one["boxes"] for one in _SAMPLED),
            *(100 * one["contrast_median"] for one in _SAMPLED),
        ),
    ),
    (
        "with `adaptive` | {}, {} dB / {}, {} / {}, {} |",
        [*_acquired("input"), *_acquired("denoised"), *_acquired("adaptive")],
    ),
    ("weak noise, {} images of each of three sets", (_WEAK["images"],)),
    (
        "chosen for each image | {}, {} dB / {}, {} / **{}, {}** |",
        [db for way in _WAYS for db in _weak(way, 0.95, "gaussian", "low_dose")],
    ),
    (
        "the same | {}, {}, {}, {} dB / **{}, {}, {}**, {} / {}, {}, {}, **{}** |",
        [
            db
            for way in _WAYS
            for db in _weak(way, 0.9, "gaussian", "rician", "multi_coil", "low_dose")
        ],
    ),
    (
        "trained on brain MR ({} steps), {} other patients, clean / `replace`"
        " | {} dB, {} / {} dB, {} |",
        (
            _VECTOR["step"],
            _LGG["settings"]["patients"],
            *(_VECTOR[key] for key in ("psnr", "ssim", "psnr_noisy", "ssim_noisy")),
        ),
    ),
    (
        "trained on brain MR ({} steps from `demo`), `replace` / `blend`,"
        " {} images of {} other patients | {}, {} dB / {}, {} dB |",
        (
            read_results("lgg-ladder-training.jsonl")[-1]["step"],
            *(_TRAINED["settings"][key] for key in ("images", "patients")),
            *(
                _score(_TRAINED, noise, "lgg", metric)
                for noise in ("replace", "blend")
                for metric in ("ssim", "psnr")
            ),
        ),
    ),
    (
        "for `blend` alone ({} steps from `demo`) | {}, {} dB |",
        (
            read_results("lgg-blend-training.jsonl")[-1]["step"],
            *(_score(_BLEND, "blend", "lgg-blend", metric) for metric in ("ssim", "psnr")),
        ),
    ),
    ("would allow there | {}, {} dB |", [_CEILING[key] for key in ("ssim_whole", "psnr_whole")]),
    (
        "| x{} / x{}; x{} / x{}; on OpenVINO x{} / x{}; x{} / x{} |",
        [
            ratio
            for engine in ("tensorflow", "openvino")
            for size in ("224", "512")
            for ratio in _speed(size, engine)
        ],
    ),
    (
        "on EfficientNet-B1; on Lite1 | {} / {}; {} / {} |",
        [*_cost("efficientnet-b1"), *_cost("efficientnet-lite1")],
    ),
    (
        "at 224 pixels | {} GiB; {} images/s |",
        (
            _COST["peak_megabytes"]["ladder"]["512"] / 1024,
            _COST["training_images_per_second"]["ladder"]["median"],
        ),
    ),
    (
        "in bfloat16 | x{} / x{} / x{} / x{} (without a seed, `apply`: x{} / x{} / x{}) |",
        [
            *_throughput("map, an image at a time"),
            *_throughput(*(f"apply, {engine}" for engine in _ENGINES)),
            *_throughput(*(f"apply, {engine}, without a seed" for engine in _ENGINES)),
        ],
    ),
    (
        "trained on {} patients of one hospital",
        (_find_arm(_HOSPITALS, "DU-val", "real")["training_groups"],),
    ),
    ("real images | {} / {} |", [_map50(_HOSPITALS, test, "real") for test in _TESTS]),
    (
        "sampled by a ladder; both | {} / {}; {} / {}; {} / {}: [no certain gain",
        [_map50(_HOSPITALS, test, arm) for arm in _VARYING for test in _TESTS],
    ),
    ("classical alone] , p = {} and {}, ten seeds", [_gained(test)["p"] for test in _TESTS]),
    (
        "on kidney stones, {} images to train on | {}; {}; {}; {}: no difference",
        (
            _find_arm(_STONES, "test", "real")["training_images"],
            *(_map50(_STONES, "test", arm) for arm in ("real", *_VARYING)),
        ),
    ),
    (
        "by the best classical filter | {}% / {}%; {}% / {}% |",
        [
            _won_back(f"{noise}:0.4", *methods)
            for methods in (("demo",), _FILTERS)
            for noise in ("replace", "blend")
        ],
    ),
    (
        "equal to pydicom's: {} MR, {} CT, {} of {} in many transfer syntaxes,"
        " {} of {} among slides, segmentations and reports, {} of {} of pydicom's own;"
        " the others are refused with a reason | {} of {} read |",
        (
            _FILES["mr_brain_dicom"]["read"],
            _FILES["lung_ct_dicom"]["read"],
            *(
                _FILES[folder][key]
                for folder in ("dicom_syntaxes", "dicom_objects", "pydicom/data/test_files")
                for key in ("read", "files")
            ),
            sum(count["equal_to_pydicom"] for count in _FILES.values()),
            sum(count["read"] for count in _FILES.values()),
        ),
    ),
    (
        "2: {} images of kidney CT, {} of brain MR, {} of blood cells | {} of {}, {} and {};"
        " it acted for at most {}%, at `factor` {} |",
        (
            *(report["settings"]["images"] for report in _FIDELITY),
            sum(row["below"] for report in _FIDELITY for row in report["rows"]),
            *(report["rows"][0]["boxes"] for report in _FIDELITY),
            _GUARDED,
            _AT,
        ),
    ),
]

GIVEN: list[str] = [
    "40% of the information left",
    "phantoms with 60% of their pixels replaced by noise",
    "Python 3.11 or later (",
    "Files of 16 bits often hold values of 12,",
    "In KerasHub 0.32 a batch",
    "bare images, 8 and 16 bit or floating point",
    "strength, from 0; at 1 a sample lies as far",
    "that is put back; 1 keeps small lesions",
    "own strength is sampled; 1 for one strength",
    "Two cores, no GPU, TensorFlow 2.21.",
    "noise in place of 60% of the pixels, `blend` mixes 60% of noise into every pixel",
    "judged by the mean of 23 others",
    "`gaussian` and `low_dose` with 95% left",
    "| stronger, 90% left:",
    "with shot noise, at 224 pixels; at 512 (aimed at: x8 / x3)",
    "in terms of a `vector`, 224 pixels,",
    "peak memory, 512 pixels, `denoise`; training, batches of 16 at 224 pixels",
    "after the guard, all modes of the former `demo`, `factor` 0.5, 1, 2:",
]
