"""The whole path on the embedded images: files, records, transform, TFDS, and what came of it.

Every step that carries boxes is checked: a box that differs in one bit fails the demo.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from vae_aug.atomic import write_atomic
from vae_aug.augment.transform import VAEAugment
from vae_aug.errors import MissingPackageError, VAEAugError
from vae_aug.evaluate.metrics import make_box_mask, psnr, ssim
from vae_aug.evaluate.preview import (
    choose_rows,
    describe_figures,
    describe_transform,
    make_variants,
    show_variants,
)
from vae_aug.figures.sheet import Panel, write_sheet
from vae_aug.ingest.ingest import ingest
from vae_aug.model.checkpoint import load_checkpoint
from vae_aug.phantoms.embedded import Split, write_embedded
from vae_aug.records.records import read_info, read_records
from vae_aug.train.corrupt import corrupt_image
from vae_aug.version import __version__
from vae_aug.words import make_markdown_table, plural

Boxes = dict[str, tuple[bytes, tuple[int, ...]]]
"""Source ids to the boxes' bytes and their labels."""

_KEEP = 0.4
_NOISES = ("replace", "blend")
_ROWS, _SHOWN_ROWS = 4, 2
_DRAWS, _SHOWN_DRAWS = 8, 3
BUILDER = "vae_aug_tfds.med_vae_augmented"
_SUMMARY_NAME, _SHEET_NAME = "summary.md", "sheet.png"


@dataclasses.dataclass(frozen=True)
class DemoReport:
    """What the demo did and measured.

    Attributes:
        images: Images per split.
        boxes: Boxes per split.
        checks: What was compared, to the number of boxes found equal.
        figures: Measured values by name, unit in the name.
        seconds: Time per stage.
    """

    images: Mapping[str, int]
    boxes: Mapping[str, int]
    checks: Mapping[str, int]
    figures: Mapping[str, float]
    seconds: Mapping[str, float]


class _Stages:
    """Names stages to whoever watches and takes their time."""

    def __init__(self, watch: Callable[[str], None] | None) -> None:
        self._watch = watch
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if self._watch is not None:
            self._watch(name)
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def run_demo(
    out: str | os.PathLike[str],
    *,
    checkpoint: str = "demo",
    counts: Mapping[Split, int] | None = None,
    watch: Callable[[str], None] | None = None,
) -> DemoReport:
    """Take the embedded images from files to a TFDS dataset and check every box on the way.

    Leaves in `out`: `source/` (PNG and COCO), `records/`, `tfds/`, `sheet.png` and `summary.md`.
    Run again, it replaces them.

    Args:
        out: The folder; made if missing.
        checkpoint: A checkpoint, or the name of a packaged one.
        counts: Phantoms of each split; None for `vae_aug.phantoms.embedded.DEFAULT_COUNTS`.
        watch: Called with the name of each stage as it begins.

    Returns:
        The report that `summary.md` prints.

    Raises:
        VAEAugError: If a box differs from the source's in any bit, or another step fails.
        OSError: If a file cannot be written.
    """
    out, stage = Path(out), _Stages(watch)
    records = out / "records"
    with stage("write the embedded images as COCO"):
        annotations = write_embedded(out / "source", counts=None if counts is None else {**counts})
    with stage("ingest them as records"):
        # The images are public: readable names serve better here than hashes.
        reports = {
            split: ingest(
                out / "source",
                records,
                format="coco",
                split=split,
                keep_ids=True,
                overwrite=True,
                leak_check=False,
            )
            for split in annotations
        }
        before = {split: _read_boxes(read_records(records, split)) for split in annotations}
        checks = {"COCO -> records": check_source(annotations, before)}
    with stage("load the checkpoint"):
        vae = load_checkpoint(checkpoint)
        sample = VAEAugment(vae, mode="sample", seed=0)
        denoise = VAEAugment(vae, mode="denoise", seed=0)
    figures: dict[str, float] = {}
    with stage("augment through map and apply"):
        train = read_records(records, "train")
        for name, augmented in ("map", train.map(sample)), ("apply", train.apply(sample)):
            began = time.perf_counter()
            after = _read_boxes(augmented)
            figures[f"{name}, images/s with its start"] = len(after) / (time.perf_counter() - began)
            checks[f"records -> {name}"] = _check_equal(name, before["train"], after)
    with stage("build the TFDS dataset and read it back"):
        built = build_dataset(out / "tfds", records, checkpoint)
        for split in annotations:
            after = _read_boxes(built.as_dataset(split=split))
            checks[f"records -> TFDS {split}"] = _check_equal("TFDS", before[split], after)
    with stage("measure and draw"):
        held_out = read_records(records, "validation")
        figures |= _measure_denoising(held_out, denoise)
        rows = choose_rows(held_out, _ROWS)
        variants = [make_variants(sample, element, _DRAWS)[0] for element in rows]
        figures |= _measure_variety(rows, variants)
        label_names = read_info(records).label_names
        _write_sheet(out / _SHEET_NAME, rows[:: _ROWS // _SHOWN_ROWS], sample, denoise, label_names)
    report = DemoReport(
        images={split: report.images for split, report in reports.items()},
        boxes={split: report.boxes for split, report in reports.items()},
        checks=checks,
        figures=figures,
        seconds=stage.seconds,
    )
    write_atomic(out / _SUMMARY_NAME, _format_summary(report, checkpoint, vae.digest).encode())
    return report


# --- Boxes -----------------------------------------------------------------------------------


def _read_boxes(dataset: tf.data.Dataset) -> Boxes:
    """Read the boxes of elements of records, or of examples of the TFDS dataset."""
    boxes: Boxes = {}
    for element in dataset:
        key = "image/source_id" if "image/source_id" in element else "image/id"
        objects = element["objects"]
        labels = tuple(objects["label"].numpy().tolist())
        boxes[element[key].numpy().decode()] = (objects["bbox"].numpy().tobytes(), labels)
    return boxes


def _check_equal(step: str, before: Boxes, after: Boxes) -> int:
    """Return how many boxes there are if all are equal, bit for bit.

    Raises:
        VAEAugError: If an image is missing or new, or a box or label differs.
    """
    differing = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    if differing:
        raise VAEAugError(
            f"boxes differ after {step} in {plural(len(differing), 'image')}, first "
            f"{differing[0]!r}: {_show(before.get(differing[0]))} before, "
            f"{_show(after.get(differing[0]))} after."
        )
    return sum(len(labels) for _, labels in before.values())


def check_source(annotations: Mapping[Split, Path], records: Mapping[Split, Boxes]) -> int:
    """Return how many boxes there are if the records hold those of the COCO files.

    Raises:
        VAEAugError: If they do not.
    """
    return sum(
        _check_equal("ingest", _read_coco(path), records[split])
        for split, path in annotations.items()
    )


def _read_coco(path: Path) -> Boxes:
    """Read a COCO file by the definition of its format, without the package's reader."""
    content = json.loads(path.read_bytes())
    labels = {category["id"]: i for i, category in enumerate(content["categories"])}
    boxes: Boxes = {}
    for image in content["images"]:
        mine = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        corners = np.array(
            [
                (y / image["height"], x / image["width"], (y + h) / image["height"],
                 (x + w) / image["width"])
                for x, y, w, h in (a["bbox"] for a in mine)
            ]
        )  # fmt: skip
        names = tuple(labels[a["category_id"]] for a in mine)
        boxes[f"images/{image['file_name']}"] = (corners.astype(np.float32).tobytes(), names)
    return boxes


def _show(boxes: tuple[bytes, tuple[int, ...]] | None) -> str:
    if boxes is None:
        return "absent"
    return str(np.frombuffer(boxes[0], np.float32).reshape(-1, 4).tolist())


# --- The dataset -----------------------------------------------------------------------------


def build_dataset(data_dir: Path, records: Path, checkpoint: str) -> tfds.core.DatasetBuilder:
    """Build `med_vae_augmented` from the records, and open what is then on disk.

    Raises:
        MissingPackageError: If the builder's package is not installed.
    """
    try:
        # By name: the builder calls this package, and only a demonstration the other way round.
        module = importlib.import_module(BUILDER)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{BUILDER} is not installed; run `pip install -e .` in the repository, or install "
            "the wheel."
        ) from error
    config_class = type(module.Builder.BUILDER_CONFIGS[0])
    config = config_class(name="demo", source=os.fspath(records), checkpoint=checkpoint, seed=0)
    tfds.disable_progress_bar()
    builder = module.Builder(data_dir=data_dir, config=config)
    # The checkpoint may be another one under the same name, so a former build is not reused.
    anew = tfds.download.DownloadConfig(download_mode=tfds.GenerateMode.REUSE_CACHE_IF_EXISTS)
    # TFDS prints of a download, and there is none.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=anew)
    return tfds.builder_from_directory(builder.data_path)


# --- Figures ---------------------------------------------------------------------------------


def _measure_denoising(dataset: tf.data.Dataset, denoise: VAEAugment) -> dict[str, float]:
    """Measure PSNR and SSIM, noisy and denoised, against the clean image."""
    values: dict[str, list[float]] = {}
    for index, element in enumerate(dataset):
        clean = _to_unit(element["image"])
        for noise in _NOISES:
            noisy = corrupt_image(element["image"], noise, _KEEP, [index, 0])
            restored = denoise({**element, "image": noisy})["image"]
            for state, image in ("noisy", _to_unit(noisy)), ("denoised", _to_unit(restored)):
                values.setdefault(f"{noise}, {state}, PSNR dB", []).append(psnr(clean, image))
                values.setdefault(f"{noise}, {state}, SSIM", []).append(ssim(clean, image))
    return {name: float(np.mean(numbers)) for name, numbers in values.items()}


def _measure_variety(
    elements: list[dict[str, Any]], variants: list[np.ndarray]
) -> dict[str, float]:
    """Measure how much variants of an image differ, pixel by pixel, in percent of the range."""
    inside, outside = [], []
    for element, varied in zip(elements, variants, strict=True):
        mask = make_box_mask(element["objects"]["bbox"].numpy(), *varied.shape[1:3])
        spread = 100 * _to_unit(varied).std(axis=0).mean(axis=-1)
        inside.append(spread[mask])
        outside.append(spread[~mask])
    return {
        "spread of samples inside boxes, % of grey range": _mean(inside),
        "spread of samples outside boxes, % of grey range": _mean(outside),
    }


def _write_sheet(
    path: Path,
    elements: Sequence[dict[str, Any]],
    sample: VAEAugment,
    denoise: VAEAugment,
    label_names: Sequence[str],
) -> None:
    """Write a sheet: input, noisy, what is made of that, and samples around the input."""
    rows = []
    for number, element in enumerate(elements):
        noisy = corrupt_image(element["image"], "replace", _KEEP, [number, 0])
        restored = denoise({**element, "image": noisy})["image"]
        first, *samples = show_variants(sample, element, _SHOWN_DRAWS, label_names)
        states = [first]
        for heading, image in (f"{_KEEP:.0%} left", noisy), ("denoised", restored):
            similarity = ssim(_to_unit(element["image"]), _to_unit(image))
            note = f"SSIM to the input {similarity:.3f}"
            # The noise itself would set the scale of all differences.
            compared = image is not noisy
            states.append(
                Panel(image.numpy(), heading, note, first.boxes, first.names, compared=compared)
            )
        rows.append(states + samples)
    caption = (
        f"{describe_transform(sample)} {describe_figures(sample)} Noise: replace, {_KEEP:.0%} of "
        "the pixels left, denoised by mode denoise."
    )
    write_sheet(path, rows, caption, label_names=label_names)


def _to_unit(image: Any) -> np.ndarray:
    """Return an image, or several, as float64 in [0, 1]."""
    array = np.asarray(image)
    return array / np.iinfo(array.dtype).max


def _mean(parts: list[np.ndarray]) -> float:
    values = np.concatenate(parts)
    return float(values.mean()) if values.size else float("nan")


def _format_summary(report: DemoReport, checkpoint: str, digest: str) -> str:
    """Write the report on one page of Markdown."""
    figures = report.figures

    quality = [
        (noise, state, f"{figures[f'{noise}, {state}, PSNR dB']:.1f}",
         f"{figures[f'{noise}, {state}, SSIM']:.3f}")
        for noise in _NOISES for state in ("noisy", "denoised")
    ]  # fmt: skip
    rest = [(name, f"{value:.2f}") for name, value in figures.items() if "PSNR" not in name]
    rest = [(name, value) for name, value in rest if "SSIM" not in name]
    counts = [(split, report.images[split], report.boxes[split]) for split in report.images]
    total = sum(report.seconds.values())
    seconds = [*report.seconds.items(), ("all", total)]
    return f"""# vae_aug {__version__}: demo

Phantoms and the slices that pydicom ships, through records, `VAEAugment` and TFDS, with the
checkpoint `{checkpoint}` (digest `{digest[:16]}`). Phantoms are easier than patients: these
figures show that the parts work together, not how well they do on your images.

![input, {_KEEP:.0%} left, denoised, three samples]({_SHEET_NAME})

## Boxes, compared bit for bit

{make_markdown_table(("step", "boxes equal"), list(report.checks.items()))}

## Denoising of the validation images, {_KEEP:.0%} of the information left

{make_markdown_table(("noise", "image", "PSNR, dB", "SSIM"), quality)}

## Samples and speed

{make_markdown_table(("figure", "value"), rest)}

## Counts

{make_markdown_table(("split", "images", "boxes"), counts)}

## Time

{make_markdown_table(("stage", "s"), [(name, f"{value:.1f}") for name, value in seconds])}
"""
