"""How much of an image comes back: networks and classical filters on the same noisy images."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.atomic import write_atomic
from vae_aug.codecs.extent import Extent, join_extents, measure_extent
from vae_aug.config import check_number, check_value_range
from vae_aug.engines.engine import find_batch_size
from vae_aug.errors import RecordError
from vae_aug.evaluate.classical import Filter, describe_grids, list_methods, tune_filters
from vae_aug.evaluate.metrics import (
    bootstrap_interval,
    choose_groups,
    find_body,
    make_box_mask,
    measure_regions,
)
from vae_aug.evaluate.subset import Subset, space_out
from vae_aug.figures.sheet import Panel, make_panels, write_sheet
from vae_aug.grey import compute_grey, find_range
from vae_aug.letterbox import compute_content, letterbox, letterbox_boxes, unletterbox
from vae_aug.model.network import Network
from vae_aug.records.records import read_info, read_records
from vae_aug.train.corrupt import check_names, corrupt
from vae_aug.version import __version__

REGIONS = ("whole", "body", "boxes")
MEASURES = ("ssim", "psnr", "r2")
INPUT = "input"

_BATCH = 16
DEFAULT_SIZE, _MIN_SIZE = 224, 32
_TUNING_IMAGES = 6
_FIGURE_IMAGES = 4


@dataclasses.dataclass(frozen=True)
class Corruptions:
    """What is done to the images that are to be restored.

    Attributes:
        names: Keys of `vae_aug.train.corrupt.CORRUPTIONS`; one that is named twice counts once.
        keep: Share of the information that each of them leaves, in (0, 1]. 1 measures what the
            methods do to clean images.

    Raises:
        ValueError: If there is no corruption of a name, or the share is out of its range.
    """

    names: Sequence[str] = ("replace", "blend")
    keep: float = 0.4

    def __post_init__(self) -> None:
        check_names(self.names)
        check_number("keep", self.keep, 0, 1, open_low=True)
        object.__setattr__(self, "names", tuple(dict.fromkeys(self.names)))


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over images, and how sure it is.

    Attributes:
        mean: Mean over the images that have a value; NaN if none has.
        low: Lower end of the 95% interval over patients, or over images where fewer than two
            patients are known; NaN for a single one.
        high: Upper end.
        images: Images that have a value, e.g. that have boxes.
    """

    mean: float
    low: float
    high: float
    images: int


@dataclasses.dataclass(frozen=True)
class Row:
    """What one method makes of one corruption, in one region.

    Attributes:
        corruption: A key of `vae_aug.train.corrupt.CORRUPTIONS`.
        method: `"input"` for the noisy image itself, a classical filter, or a network's name.
        region: One of `REGIONS`.
        ssim: Structural similarity, the share restored.
        psnr: In dB.
        r2: Share of variance explained.
    """

    corruption: str
    method: str
    region: str
    ssim: Estimate
    psnr: Estimate
    r2: Estimate


@dataclasses.dataclass(frozen=True)
class DenoisingTable:
    """What `evaluate_denoising` found.

    Attributes:
        rows: One for each corruption, method and region.
        settings: Everything that is needed to understand and repeat it; JSON values.
        extent: What the images that have 16 bits fill of their range, unless their range was given.
    """

    rows: tuple[Row, ...]
    settings: Mapping[str, Any]
    extent: Extent = dataclasses.field(default_factory=Extent)

    def get_row(self, corruption: str, method: str, region: str = "whole") -> Row:
        """Return one row.

        Raises:
            KeyError: If there is none.
        """
        for row in self.rows:
            if (row.corruption, row.method, row.region) == (corruption, method, region):
                return row
        raise KeyError(f"no row for {corruption!r}, {method!r}, {region!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON takes it; NaN becomes None."""
        rows = [
            {**dataclasses.asdict(row), **{m: _to_json(getattr(row, m)) for m in MEASURES}}
            for row in self.rows
        ]
        return {"rows": rows, "settings": dict(self.settings)}

    def to_json(self) -> str:
        """Return the table as a JSON document."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


def evaluate_denoising(
    subset: Subset,
    networks: Mapping[str, Network],
    corruptions: Corruptions | None = None,
    *,
    size: int | None = None,
    value_range: tuple[float, float] | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DenoisingTable:
    """Corrupt images, restore them by every method, and compare.

    Images are seen as a network sees them: grey, letterboxed into a square. The profile `ladder`
    and the filters run on that square as it is. The profile `vector`, where its own square is
    another, gets the noisy image scaled to it and its output is scaled back, which the settings
    say. The noise of an image is the same for every method; it depends on `seed` and the image's
    index in the split.

    Measured are the whole image (without letterbox bars), the body (`find_body` on the clean
    image) and the union of an image's boxes; means are over images. Classical filters are at
    their best, see `vae_aug.evaluate.classical`.

    Args:
        subset: The images.
        networks: Names to networks; may be empty. A name must not be that of another method.
        corruptions: What is done to the images; None for those of `Corruptions()`.
        size: Side of the square in pixels, at least 32; None for the largest `image_size` of the
            networks, that of their training, or 224 without any.
        value_range: Values of black and white, as `VAEAugment` takes them; None for the whole range
            of the images' dtype.
        seed: Of noise and bootstrap.
        out: Folder for `denoising.json` and, for each corruption, `denoising_<name>.png`: clean,
            noisy and restored images with their boxes and errors. None writes nothing.
        progress: Called with (steps done, steps in all).

    Returns:
        The table.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If `value_range` is no pair.
        RecordError: If the records cannot be read or the split is empty.
    """
    if size is not None:
        check_number("size", size, _MIN_SIZE, whole=True)
    taken = sorted({INPUT, "clean", "noisy", *list_methods()} & set(networks))
    if taken:
        raise ValueError(f"a network must not be named {taken[0]!r}, which is another method.")
    if size is None:
        sizes = [network.config.image_size for network in networks.values()]
        size = max(sizes, default=DEFAULT_SIZE)
    if value_range is not None:
        value_range = check_value_range(value_range)
    run = _Run(subset, networks, corruptions or Corruptions(), size, value_range, seed, progress)
    values, figures = run.measure()
    table = DenoisingTable(run.summarize(values), run.describe(), run.extent)
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "denoising.json", table.to_json().encode())
        for corruption, rows in figures.items():
            write_sheet(
                folder / f"denoising_{corruption}.png",
                rows,
                run.describe_figure(corruption),
                label_names=run.label_names,
            )
    return table


@dataclasses.dataclass(frozen=True)
class _Picture:
    """One image as the methods see it.

    Attributes:
        index: In the split.
        clean: `[S, S] float32 in [0, 1]`.
        boxes: `[N, 4] float32`, `rel_yxyx` of the square.
        labels: `[N]`, indices of their labels.
        masks: Regions to masks `[S, S] bool`; None for a whole square.
        extent: What the image fills of its range, unless that was given.
    """

    index: int
    clean: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: dict[str, np.ndarray | None]
    extent: Extent


_Values = dict[tuple[str, str, str], list[dict[str, float]]]
_Figures = dict[str, list[list[Panel]]]


class _Run:
    """One evaluation: which images, which filters, and the loop over both."""

    def __init__(
        self,
        subset: Subset,
        networks: Mapping[str, Network],
        corruptions: Corruptions,
        size: int,
        value_range: tuple[float, float] | None,
        seed: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._dataset = read_records(subset.folder, subset.split, unannotated=True)
        self.label_names = read_info(subset.folder).label_names
        self._subset, self._networks = subset, networks
        self._keep, self._corruptions, self._seed = corruptions.keep, corruptions.names, seed
        self.size = size
        self.extent = Extent()
        self._value_range = value_range
        self._restorers = {name: _make_restorer(vae) for name, vae in networks.items()}
        self._filters: dict[str, Mapping[str, Filter]] = {}
        patients, box_counts = self._scan()
        chosen = space_out(len(patients), subset.limit).tolist()
        self._groups, self._unit = choose_groups([patients[index] for index in chosen])
        self._tuned_on = _spread(chosen, _TUNING_IMAGES)
        with_boxes = [index for index in chosen if box_counts[index]]
        self._shown = _spread(with_boxes or chosen, _FIGURE_IMAGES)
        self._chosen = chosen
        self._progress = progress
        self._done = 0
        self._steps = (len(chosen) + len(self._tuned_on)) * len(corruptions.names)

    def measure(self) -> tuple[_Values, _Figures]:
        """Measure every method on every image, and keep what the figures show."""
        self._tune()
        values: _Values = {}
        figures: _Figures = {name: [] for name in self._corruptions}
        for batch in self._read_batches():
            self.extent = join_extents([self.extent, *(picture.extent for picture in batch)])
            for corruption in self._corruptions:
                noisy = np.stack([self._corrupt(picture, corruption) for picture in batch])
                restored = self._restore(noisy, corruption)
                for position, picture in enumerate(batch):
                    outputs = {name: planes[position] for name, planes in restored.items()}
                    notes = self._add(values, corruption, picture, outputs)
                    if picture.index in self._shown:
                        figures[corruption].append(self._make_row(picture, outputs, notes))
                    self._step()
        return values, figures

    def summarize(self, values: _Values) -> tuple[Row, ...]:
        """Turn the values of images into rows."""
        rows = []
        for (corruption, method, region), measured in values.items():
            estimates = {
                name: _estimate([value[name] for value in measured], self._groups, self._seed)
                for name in MEASURES
            }
            rows.append(Row(corruption, method, region, **estimates))
        return tuple(rows)

    def describe(self) -> dict[str, Any]:
        """Say what was done, as JSON takes it."""
        by_patient = self._unit == "patients"
        return {
            "source": self._subset.folder,
            "split": self._subset.split,
            "images": len(self._chosen),
            "patients": len(set(self._groups)) if by_patient else None,
            "keep": self._keep,
            "corruptions": list(self._corruptions),
            "seed": self._seed,
            "image_size": self.size,
            "value_range": self._value_range and list(self._value_range),
            "regions": {
                "whole": "the image; of one that is not square, without its letterbox bars",
                "body": "largest bright region of the clean image, gaps closed",
                "boxes": "union of an image's boxes; images without boxes do not count",
            },
            "intervals": f"95%, percentile bootstrap, 2000 resamples of {self._unit}; "
            + (
                "an image whose patient is unknown counts as a patient"
                if by_patient
                else "fewer than two patients are known, and images of one are alike"
            ),
            "networks": {name: self._describe_network(vae) for name, vae in self._networks.items()},
            "classical": {
                corruption: {name: chosen.to_dict() for name, chosen in filters.items()}
                for corruption, filters in self._filters.items()
            },
            "classical_chosen_from": describe_grids(),
            "classical_chosen_by": f"mean SSIM over {len(self._tuned_on)} of these very images",
            "versions": _list_versions(),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        }

    def describe_figure(self, corruption: str) -> str:
        """Say in a caption what the figure of a corruption shows; it names no folder."""
        networks = ", ".join(f"{name} ({vae.digest[:12]})" for name, vae in self._networks.items())
        return (
            f"Denoising, noise {corruption}, {self._keep:.0%} of the information left, at "
            f"{self.size} pixels, seed {self._seed}. Networks: {networks or 'none'}. Classical "
            "filters are tuned. Below an image: SSIM to the clean one, of the whole image and of "
            "its boxes."
        )

    def _describe_network(self, vae: Network) -> dict[str, Any]:
        size = vae.config.input_size or self.size
        rescaled = (
            "none"
            if size == self.size
            else f"noisy images scaled from {self.size} to {size} pixels, its output back"
        )
        return {
            "digest": vae.digest,
            "profile": vae.config.profile,
            "image_size": vae.config.image_size,
            "input_size": size,
            "rescaled": rescaled,
        }

    def _scan(self) -> tuple[list[str], list[int]]:
        """Return every image's patient, `""` where none is known, and number of boxes."""
        patients, box_counts = [], []
        for element in self._dataset:
            patients.append(element["image/patient"].numpy().decode())
            box_counts.append(int(element["objects"]["bbox"].shape[0]))
        if not patients:
            raise RecordError(f"{self._subset.folder}: the split {self._subset.split!r} is empty.")
        return patients, box_counts

    def _read(self, indices: Iterable[int]) -> Iterator[_Picture]:
        """Yield the pictures of ascending indices."""
        wanted = set(indices)
        for index, element in enumerate(self._dataset):
            if index in wanted:
                yield _make_picture(index, element, self.size, self._value_range)

    def _read_batches(self) -> Iterator[list[_Picture]]:
        at_once = find_batch_size(self.size, _BATCH)
        batch = []
        for picture in self._read(self._chosen):
            batch.append(picture)
            if len(batch) == at_once:
                yield batch
                batch = []
        if batch:
            yield batch

    def _tune(self) -> None:
        pictures = list(self._read(self._tuned_on))
        for corruption in self._corruptions:
            pairs = [(p.clean, self._corrupt(p, corruption)) for p in pictures]
            self._filters[corruption] = tune_filters(pairs, corruption, self._keep, self._step)

    def _corrupt(self, picture: _Picture, corruption: str) -> np.ndarray:
        seed = [self._seed, picture.index]
        return corrupt(picture.clean[..., None], corruption, self._keep, seed).numpy()[..., 0]

    def _restore(self, noisy: np.ndarray, corruption: str) -> dict[str, np.ndarray]:
        """Apply every method to `[B, S, S]`."""
        restored = {INPUT: noisy}
        for name, chosen in self._filters[corruption].items():
            restored[name] = np.stack([chosen(plane) for plane in noisy])
        for name, restorer in self._restorers.items():
            restored[name] = restorer(noisy[..., None]).numpy()[..., 0]
        return restored

    def _add(
        self, values: _Values, corruption: str, picture: _Picture, outputs: dict[str, np.ndarray]
    ) -> dict[str, str]:
        """Measure every method, and return what its image in a figure says."""
        notes = {}
        for method, output in outputs.items():
            measured = measure_regions(picture.clean, output, picture.masks)
            for region in REGIONS:
                values.setdefault((corruption, method, region), []).append(measured[region])
            similarities = {region: measured[region]["ssim"] for region in ("whole", "boxes")}
            notes[method] = "SSIM " + ", ".join(
                f"{region} {value:.3f}"
                for region, value in similarities.items()
                if math.isfinite(value)
            )
        return notes

    def _make_row(
        self, picture: _Picture, outputs: Mapping[str, np.ndarray], notes: Mapping[str, str]
    ) -> list[Panel]:
        """Make a row of the figure: the clean image, the noisy one, and what methods make of it."""
        planes = {"clean": picture.clean, "noisy": outputs[INPUT], **outputs}
        images = {name: plane[..., None] for name, plane in planes.items() if name != INPUT}
        names = [self.label_names[label] for label in picture.labels]
        notes = {**notes, "noisy": notes[INPUT]}
        panels = make_panels(images, picture.boxes, names, notes)
        # The noise itself would set the scale of all errors.
        panels[1] = dataclasses.replace(panels[1], compared=False)
        return panels

    def _step(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._steps)


def _make_restorer(vae: Network) -> Callable[[np.ndarray], tf.Tensor]:
    """Make the function `[B, S, S, 1]` to `[B, S, S, 1]`, both float32 in [0, 1]."""
    size = vae.config.input_size

    @tf.function(autograph=False, reduce_retracing=True)
    def restore(noisy: tf.Tensor) -> tf.Tensor:
        if size is None:
            return vae.reconstruct(noisy)
        small = letterbox(noisy, size)
        grey = tf.reduce_mean(vae.reconstruct(small), axis=-1, keepdims=True)
        return unletterbox(grey, noisy.shape[1], noisy.shape[2])

    return restore


def _make_picture(
    index: int,
    element: Mapping[str, Any],
    size: int,
    value_range: tuple[float, float] | None,
) -> _Picture:
    """Bring an element to the square, and find its regions."""
    image = element["image"][None]
    height, width = int(image.shape[1]), int(image.shape[2])
    grey = tf.clip_by_value(compute_grey(image, *find_range(image, value_range)), 0.0, 1.0)
    clean = letterbox(grey, size).numpy()[0, ..., 0]
    boxes = letterbox_boxes(element["objects"]["bbox"], height, width, size).numpy()
    top, left, content_height, content_width = (
        int(number) for number in compute_content(height, width, size)
    )
    content = (slice(top, top + content_height), slice(left, left + content_width))
    body = np.zeros((size, size), bool)
    body[content] = find_body(clean[content])
    whole = None
    if height != width:
        whole = np.zeros((size, size), bool)
        whole[content] = True
    masks = {"whole": whole, "body": body, "boxes": make_box_mask(boxes, size, size)}
    labels = element["objects"]["label"].numpy()
    extent = measure_extent(image[0].numpy(), windowed=False) if value_range is None else Extent()
    return _Picture(index, clean, boxes, labels, masks, extent)


def _estimate(values: Sequence[float], groups: Sequence[str], seed: int) -> Estimate:
    usable = [value for value in values if math.isfinite(value)]
    mean = float(np.mean(usable)) if usable else math.nan
    return Estimate(mean, *bootstrap_interval(values, groups, seed=seed), images=len(usable))


def _spread(indices: Sequence[int], count: int) -> list[int]:
    """Choose at most `count`, evenly spaced, in order."""
    return [indices[place] for place in space_out(len(indices), count)]


def _to_json(estimate: Estimate) -> dict[str, float | int | None]:
    values = dataclasses.asdict(estimate)
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def _list_versions() -> dict[str, str]:
    packages = ["tensorflow", "keras", "numpy", "scipy", "scikit-image"]
    if "bm3d" in list_methods():
        packages.append("bm3d")
    return {"vae_aug": __version__, **{p: importlib.metadata.version(p) for p in packages}}
