"""Whether a network puts out images that it was trained on: nearest neighbours, and a verdict.

A sample is suspect if it lies nearer to a training image than nearly all real images do that the
network never saw. What that is worth:

- Samples of a VAE are smooth, and a smooth image is nearer to every image than a sharp one is,
  with no copying at all. So training and held-out images are smoothed until they are as smooth as
  the samples are, and only then compared. A smooth copy is found that way, too.
- Training mirrors images, so a mirrored copy counts as a copy. Copies that are shifted, zoomed or
  show a part of an image are found by their features at best.
- How many samples may lie below the threshold by chance follows from the numbers of images alone,
  if images are independent. Slices of one patient are not: chance does more than is reckoned.
- No sign is no proof. Only so many samples are made, and a network can hold an image that no
  sample shows. How blind the audit is, a control tells: variants of the training images
  themselves. If not even they are suspect, the network's output is too coarse to be told for
  anybody's image, and the verdict says so.

Reference:
    Carlini et al., Extracting Training Data from Diffusion Models (2023), and Meehan, Chaudhuri
    and Dasgupta, A Non-Parametric Test to Detect Data-Copying in Generative Models (2020), for
    distances to training images, judged by other images' distances. Van den Burg and Williams, On
    Memorization in Probabilistic Deep Generative Models (2021), for what they do not show.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vae_aug.atomic import write_atomic
from vae_aug.config import MAX_SEED, check_number
from vae_aug.errors import RecordError
from vae_aug.evaluate.neighbours import (
    Neighbours,
    find_neighbours,
    match_smoothness,
    smooth,
)
from vae_aug.evaluate.preview import describe_network
from vae_aug.evaluate.probe import Probe, Progress, Samples, make_samples
from vae_aug.evaluate.subset import Subset, take_places
from vae_aug.evaluate.verdict import LEVEL, Comparison, compare, judge
from vae_aug.figures.sheet import make_panels, write_sheet
from vae_aug.model.network import Network
from vae_aug.records.records import read_info, read_records
from vae_aug.train.feed import fit
from vae_aug.version import __version__

SAME_IMAGE = 1.0 / 255.0
"""Root mean squared difference, one grey level of 8 bits, below which two images are one."""

STATEMENT = (
    "Reconstructions and samples of patients' images are not anonymous, whatever an audit finds."
)

_LISTED = 8
_SHEET_CELL_PX = 144
_WAYS = {
    "prior": "sampled from the training set's aggregate posterior, without an image",
    "variants": "sampled around held-out images",
    "control": "variants around training images; where they are not suspect, a copy is not either",
    "interpolated": "held-out images, global latent moved towards a sample of the prior",
}


@dataclasses.dataclass(frozen=True)
class Suspect:
    """One sample and the training image it is like. Images go by their place in the split.

    Attributes:
        way: As `Comparison`.
        sample: Its number, which with the seed of the audit repeats it.
        source: Place of the held-out image that it was made of; None for `"prior"`.
        measure: That in which it is the most suspicious.
        nearest: Place of the nearest training image.
        mirrored: Whether it is the mirrored sample that is near.
        distance: To the nearest.
        relative: Distance by the threshold; below 1 for a suspected copy.
        ratio: Distance to the nearest by that to the second nearest.
    """

    way: str
    sample: int
    source: int | None
    measure: str
    nearest: int
    mirrored: bool
    distance: float
    relative: float
    ratio: float


@dataclasses.dataclass(frozen=True)
class Audit:
    """What `audit_memorisation` found. It names no patient, no image and no folder.

    Attributes:
        signs: True for signs of memorisation, False for none, None for too few images to tell.
        verdict: One sentence.
        notes: What has to be known beside it; sentences, `STATEMENT` first.
        comparisons: A row for each way and measure.
        controls: The same for variants made of training images, which should be suspect.
        suspects: The most suspicious samples, whether below the threshold or not.
        smoothing_px: Way to the standard deviation, in pixels of the grid, of the smoothing of
            training and held-out images.
        settings: Everything else that is needed to understand it; JSON values.
    """

    signs: bool | None
    verdict: str
    notes: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    controls: tuple[Comparison, ...]
    suspects: tuple[Suspect, ...]
    smoothing_px: Mapping[str, float]
    settings: Mapping[str, Any]

    def to_json(self) -> str:
        """Return the audit as a JSON document."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"

    def tabulate(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Return headings and rows of text, a row for each comparison and control."""
        headings = (
            *("samples", "measure", "suspects", "share [95%], %", "expected, %", "p"),
            *("identical", "threshold", "distance", "held out", "ratio", "held out"),
        )
        rows = tuple(
            (
                c.way,
                c.measure,
                f"{c.suspects} of {c.samples}",
                f"{100 * c.suspects / c.samples:.1f} "
                f"[{100 * c.share_low:.1f}, {100 * c.share_high:.1f}]",
                f"{100 * c.expected_share:.1f}",
                f"{c.p_value:.2g}",
                str(c.identical),
                f"{c.threshold:.4f}",
                f"{c.median_distance:.4f}",
                f"{c.held_out_median_distance:.4f}",
                f"{c.median_ratio:.2f}",
                f"{c.held_out_median_ratio:.2f}",
            )
            for c in (*self.comparisons, *self.controls)
        )
        return headings, rows


class _Images(NamedTuple):
    """What is kept of a set of images.

    Attributes:
        grids: `[N, G, G] float32 in [0, 1]`.
        places: `[N] int64`, in the order in which the split is read.
        patients: `[N]` hashes, b"" where unknown.
    """

    grids: np.ndarray
    places: np.ndarray
    patients: np.ndarray

    def select(self, wanted: np.ndarray) -> _Images:
        return _Images(*(part[wanted] for part in self))


def audit_memorisation(
    network: Network,
    training: Subset,
    held_out: Subset | None = None,
    *,
    samples: int = 256,
    quantile: float = 0.01,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Make samples and compare them with the images that the network was trained on.

    Samples are the network's own output, without anything of an image put back: `detail=1`, the
    default of `VAEAugment`, returns the patient's own image with a change laid over it, which is
    no copy of a training image but no more anonymous either.

    | way | profile | samples |
    | --- | --- | --- |
    | `prior` | `vector` | z from the aggregate posterior of the training set, decoded |
    | `variants` | both | `mode="sample", factor=1, detail=0`, one of each held-out image |
    | `interpolated` | `ladder` | the same of `mode="interpolate"`, towards such a z |

    A ladder has no sample without an image: its maps of anatomy are read from one. The threshold is
    the distance of the held-out image whose rank is `quantile` among `n + 1`, of the nearest if
    `n` is too small for that; the expected share is rank / (n + 1).

    Args:
        network: The network.
        training: The images that the network was trained on, all of them, at about 50 KB of memory
            each. Copies of those that a limit, at least 2, leaves out are not found.
        held_out: Images of other patients, alike in kind. None for the validation images of those
            folders of `training` that have some, within its limit.
        samples: Most samples of each way; of `"prior"` exactly as many.
        quantile: Share of held-out images below the threshold, in (0, 0.5].
        seed: Of the samples, from 0.
        out: Folder for `audit.json` and `audit.png`, a sheet of the most suspicious samples beside
            their nearest training images. The sheet shows patients' images, small as they are:
            keep it where the records are kept. None writes nothing.
        progress: Called with (images read, made or encoded, such images in all).

    Returns:
        The audit.

    Raises:
        ValueError: If an argument is out of its range, or there is no folder.
        RecordError: If records cannot be read, or fewer than two images are left in a set.
    """
    check_number("samples", samples, 1, whole=True)
    check_number("quantile", quantile, 0.0, 0.5, open_low=True)
    check_number("seed", seed, 0, MAX_SEED, whole=True)
    held_out = held_out or _find_held_out(training)
    for subset in (training, held_out):
        if subset.limit is not None:
            check_number("limit", subset.limit, 2, whole=True)
    train_source, held_out_source = (
        _open(subset, network.config.image_size) for subset in (training, held_out)
    )
    samples_prior = network.config.profile != "ladder"
    ways = ("prior", "variants") if samples_prior else ("variants", "interpolated")
    counts = len(train_source.places), len(held_out_source.places)
    report = Progress(progress, ways, *counts, samples)
    probe = Probe(network, seed)
    sets = _read_sets(train_source, held_out_source, probe, report)
    found = {way: _compare_way(way, probe, sets, samples, quantile, report) for way in ways}
    suspects = [suspect for one in found.values() for suspect in one.suspects]
    suspects = sorted(suspects, key=lambda pair: pair[0].relative)[:_LISTED]
    settings = {
        **sets.describe(),
        "train_split": training.split,
        "held_out_split": held_out.split,
        "samples": samples,
        "quantile": quantile,
        "seed": seed,
        "limit": training.limit,
        "held_out_limit": held_out.limit,
        "level": LEVEL,
        "grid_px": probe.grid,
        "profile": network.config.profile,
        "digest": network.digest,
        "version": __version__,
    }
    audit = _conclude(found, [suspect for suspect, _ in suspects], settings)
    if out is not None:
        _write(Path(out), audit, network, [pictures for _, pictures in suspects])
    report.finish()
    return audit


# --- Images ----------------------------------------------------------------------


class _Source(NamedTuple):
    """A split, the places of its images that are compared, and what messages call it."""

    images: tf.data.Dataset
    places: np.ndarray
    name: str


class _Sets(NamedTuple):
    """The images that samples are made of, and what is kept of them for comparisons.

    Attributes:
        train_images: Squares of the training split, and patients.
        held_out_images: Those of the held-out split.
        training: What is kept of the training images.
        held_out: Of the held-out images that are neither in the training set nor of its patients.
        left_out: Number of the other held-out images.
    """

    train_images: tf.data.Dataset
    held_out_images: tf.data.Dataset
    training: _Images
    held_out: _Images
    left_out: int

    def describe(self) -> dict[str, int]:
        """Count images and patients."""
        return {
            "training_images": len(self.training.grids),
            "training_patients": _count_patients(self.training),
            "held_out_images": len(self.held_out.grids),
            "held_out_patients": _count_patients(self.held_out),
            "held_out_images_left_out": self.left_out,
        }


def _find_held_out(training: Subset) -> Subset:
    """Find the validation images of the folders that have some."""
    split = "validation"
    found = [folder for folder in training.folders if split in read_info(folder).image_splits]
    if not found:
        raise RecordError(
            f"{', '.join(training.folders)}: no split {split!r}; pass records of held-out images."
        )
    return dataclasses.replace(training, records=found, split=split)


def _open(subset: Subset, size: int) -> _Source:
    """Open a split of all folders, one after the other: square `[S, S, 1]` and patient."""

    def prepare(element: dict[str, Any]) -> tuple[tf.Tensor, tf.Tensor]:
        return fit(element, size, box_weight=1.0)[0], element["image/patient"]

    datasets = [
        read_records(folder, subset.split, unannotated=True).map(
            prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        for folder in subset.folders
    ]
    images = functools.reduce(lambda one, other: one.concatenate(other), datasets)
    return _Source(images, subset.choose(images), f"the split {subset.split!r}")


def _read_sets(training: _Source, held_out: _Source, probe: Probe, report: Progress) -> _Sets:
    """Read both sets; of the held-out images those that the network cannot have seen."""
    seen, everything = (_read(source, probe, report) for source in (training, held_out))
    unseen = everything.select(_find_strangers(seen, everything))
    if len(unseen.grids) < 2:
        raise RecordError(
            f"{held_out.name}: at least 2 held-out images are needed that are not in the training "
            f"set, nor of its patients; got {len(unseen.grids)} of {len(everything.grids)}. Pass "
            "records of other patients."
        )
    left_out = len(everything.grids) - len(unseen.grids)
    return _Sets(training.images, held_out.images, seen, unseen, left_out)


def _read(source: _Source, probe: Probe, report: Progress) -> _Images:
    """Read the images that are compared, and keep them small."""
    if len(source.places) < 2:
        raise RecordError(
            f"{source.name}: an audit needs at least 2 images; got {len(source.places)}."
        )
    grids, patients = [], []
    chosen = take_places(source.images, source.places)
    for squares, hashes in chosen.batch(probe.batch).prefetch(1):
        grids.append(probe.shrink(squares).numpy())
        patients.append(hashes.numpy())
        report.advance(len(grids[-1]))
    return _Images(np.concatenate(grids), source.places, np.concatenate(patients).astype(object))


def _find_strangers(training: _Images, held_out: _Images) -> np.ndarray:
    """Tell held-out images that are neither in the training set nor of its patients: `[N] bool`."""
    trained_on = set(training.patients) - {b""}
    distances = find_neighbours(held_out.grids[:, None], training.grids, "pixels").distances
    return np.array(
        [
            patient not in trained_on and distance >= SAME_IMAGE
            for patient, distance in zip(held_out.patients, distances[:, 0], strict=True)
        ]
    )


def _count_patients(images: _Images) -> int:
    return len(set(images.patients) - {b""})


# --- Distances -------------------------------------------------------------------------------


def _find_all(
    sets: Sequence[np.ndarray], references: np.ndarray, probe: Probe, report: Progress
) -> dict[str, list[Neighbours]]:
    """Find neighbours of several sets of grids, in all measures that tell references apart."""
    views = [np.stack([grids, grids[:, :, ::-1]], axis=1) for grids in sets]
    near = {
        measure: [find_neighbours(part, references, measure) for part in views]
        for measure in ("pixels", "correlation")
    }
    features = probe.encode(references, report)
    scale = _compute_scale(features)
    if scale.any():
        told = [
            np.stack([probe.encode(part[:, view], report) for view in range(2)], axis=1) * scale
            for part in views
        ]
        near["features"] = [find_neighbours(part, features * scale, "features") for part in told]
    return near


class _Found(NamedTuple):
    """What was found of the samples of one way; `suspects` with their pictures."""

    rows: list[Comparison]
    controls: list[Comparison]
    suspects: list[tuple[Suspect, dict[str, np.ndarray]]]
    smoothing_px: float


def _compare_way(
    way: str, probe: Probe, sets: _Sets, samples: int, quantile: float, report: Progress
) -> _Found:
    """Make samples in one way and compare them, as smooth as the others, with training images."""
    training, held_out = sets.training, sets.held_out
    made = make_samples(way, probe, sets.held_out_images, held_out.places, samples, report)
    smoothing = match_smoothness(held_out.grids, made.grids)
    compared = [made.grids, smooth(held_out.grids, smoothing)]
    if way == "variants":
        own = make_samples(way, probe, sets.train_images, training.places, samples, report)
        compared.append(own.grids)
    near = _find_all(compared, smooth(training.grids, smoothing), probe, report)
    rows = [compare(way, name, found[0], found[1], quantile) for name, found in near.items()]
    controls = [
        compare("control", name, control, found[1], quantile)
        for name, found in near.items()
        for control in found[2:]
    ]
    suspects = _list_suspects(rows, near, made, training, held_out)
    return _Found(rows, controls, suspects, smoothing)


def _list_suspects(
    rows: Sequence[Comparison],
    found: Mapping[str, Sequence[Neighbours]],
    made: Samples,
    training: _Images,
    held_out: _Images,
) -> list[tuple[Suspect, dict[str, np.ndarray]]]:
    """Describe and picture the samples that are the nearest, relative to a threshold.

    A picture is `[G, G] float32 in [0, 1]`, by heading.
    """
    near = {measure: ours for measure, (ours, *_) in found.items()}
    floor = np.finfo(np.float64).tiny
    relative = np.stack(
        [near[row.measure].distances[:, 0] / max(row.threshold, floor) for row in rows]
    )
    listed = []
    for sample in np.argsort(relative.min(axis=0), kind="stable")[:_LISTED]:
        row = rows[int(np.argmin(relative[:, sample]))]
        neighbours = near[row.measure]
        source = None if made.sources is None else int(made.sources[sample])
        suspect = Suspect(
            way=row.way,
            sample=int(sample),
            source=source,
            measure=row.measure,
            nearest=int(training.places[neighbours.indices[sample, 0]]),
            mirrored=bool(neighbours.views[sample]),
            distance=float(neighbours.distances[sample, 0]),
            relative=float(relative[:, sample].min()),
            ratio=float(neighbours.ratios[sample]),
        )
        pictures = {"sample": made.grids[sample]}
        if source is not None:
            pictures["made of"] = held_out.grids[held_out.places == source][0]
        for measure, shown in near.items():
            grid = training.grids[shown.indices[sample, 0]]
            pictures[f"nearest, {measure}"] = grid[:, ::-1] if shown.views[sample] else grid
        listed.append((suspect, pictures))
    return listed


def _compute_scale(features: np.ndarray) -> np.ndarray:
    """Compute factors that make a distance that of an average, standardised feature: `[d]`.

    Features that are the same for all images count for nothing.
    """
    spread = features.std(axis=0, dtype=np.float64)
    alive = spread > 1e-6
    count = max(int(alive.sum()), 1)
    return np.where(alive, 1.0 / (np.where(alive, spread, 1.0) * math.sqrt(count)), 0.0)


# --- Output ----------------------------------------------------------------------------------


def _conclude(
    found: Mapping[str, _Found], suspects: Sequence[Suspect], settings: Mapping[str, Any]
) -> Audit:
    """Judge what was found of all ways."""
    comparisons = [row for one in found.values() for row in one.rows]
    controls = [row for one in found.values() for row in one.controls]
    signs, verdict = judge(comparisons, controls)
    return Audit(
        signs,
        verdict,
        tuple(_list_notes(tuple(found), settings, comparisons)),
        tuple(comparisons),
        tuple(controls),
        tuple(suspects),
        {way: one.smoothing_px for way, one in found.items()},
        settings,
    )


def _list_notes(
    ways: Sequence[str], settings: Mapping[str, Any], comparisons: Sequence[Comparison]
) -> Iterator[str]:
    """Yield what has to be known beside the verdict."""
    yield STATEMENT
    for way in (*ways, "control"):
        yield f"{way}: {_WAYS[way]}."
    if "prior" not in ways:
        yield (
            "A ladder makes nothing without an image: all samples carry the anatomy of a held-out "
            "image, so none can be a whole copy of a training image."
        )
    yield (
        "Samples are the network's own output (detail=0). With detail=1, as augmentation uses it, "
        "the patient's own image is put back by design."
    )
    if settings["held_out_images_left_out"]:
        yield (
            f"{settings['held_out_images_left_out']} held-out images are in the training set, or "
            "of its patients, and were left out."
        )
    if not settings["training_patients"] or not settings["held_out_patients"]:
        yield (
            "The records name no patients: held-out images may be of patients of the training "
            "set, which lowers the threshold and hides copies."
        )
    if settings["held_out_images"] + 1 < 1 / settings["quantile"]:
        yield (
            f"{settings['held_out_images']} held-out images are too few for a quantile of "
            f"{settings['quantile']:g}: the threshold is the nearest of them, and "
            f"{1 / (settings['held_out_images'] + 1):.1%} of samples are expected below it."
        )
    if settings["limit"] is not None:
        same = settings["limit"] == settings["held_out_limit"]
        yield (
            f"At most {settings['limit']} {'images of each set' if same else 'training images'} "
            "were compared; copies of others are not found."
        )
    if not any(row.measure == "features" for row in comparisons):
        yield "The encoder tells no two training images apart, so features were not compared."


def _write(
    folder: Path, audit: Audit, network: Network, pictures: Sequence[Mapping[str, np.ndarray]]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "audit.json", audit.to_json().encode())
    rows = []
    for suspect, shown in zip(audit.suspects, pictures, strict=True):
        notes = {
            "sample": suspect.way,
            f"nearest, {suspect.measure}": f"{suspect.relative:.2f} of the threshold"
            + (", mirrored" if suspect.mirrored else ""),
        }
        images = {heading: grid[..., None] for heading, grid in shown.items()}
        rows.append(make_panels(images, notes=notes))
    caption = (
        f"Checkpoint {describe_network(network)}, audit with seed {audit.settings['seed']}: the "
        f"most suspicious of {audit.settings['samples']} samples of each way, and the training "
        "images that are nearest to them. Below the measure in which a sample is the most "
        "suspicious: its distance, which is that of a suspected copy below 1. "
        f"{audit.verdict} {STATEMENT}"
    )
    write_sheet(folder / "audit.png", rows, caption, cell_px=_SHEET_CELL_PX)
