"""Splits in which no patient is in two, and a search for what leaks from one to another."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vae_aug.codecs.images import decode_image
from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.source import AnnotatedImage
from vae_aug.records.records import find_records, iterate_examples, read_info
from vae_aug.words import plural

SPLITS = ("train", "validation", "test")
NEAR_BITS = 8
"""Bits of 256 up to which two images are near duplicates, by default."""

_HASH_SIDE = 16
# Hashes compared at once: 2000 x 2000 distances of 4 words are 128 MB.
_BLOCK = 2000


# --- Splitting -------------------------------------------------------------------------------


def check_shares(shares: Sequence[float]) -> tuple[float, ...]:
    """Check the shares of the splits.

    Args:
        shares: Two (train, validation) or three (and test) positive numbers of sum 1.

    Returns:
        The shares.

    Raises:
        ValueError: If they are not.
    """
    shares = tuple(float(share) for share in shares)
    if len(shares) not in (2, 3) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            "shares must be two or three positive numbers of sum 1, as 0.7,0.15,0.15 for train, "
            f"validation and test; got {', '.join(f'{share:g}' for share in shares)}."
        )
    return shares


def split_by_patient(
    images: Sequence[AnnotatedImage], shares: Sequence[float], *, seed: int = 0
) -> list[list[AnnotatedImage]]:
    """Split images so that no patient is in two splits.

    Patients are taken from the largest to the smallest (a tie is broken by the seed), each into
    the split where the squared distance of all splits from their shares grows least. What is
    shared out evenly are the images, those without boxes, and for each label the boxes and the
    images that have it. An image without a patient counts as a patient of its own.

    Args:
        images: The images, in any order: the result depends on the patients alone.
        shares: As `check_shares`.
        seed: Another seed gives another split of the same quality.

    Returns:
        The images of each split, in the order of `images`.

    Raises:
        ValueError: On bad shares.
        AnnotationError: If there are too few patients for every split to have one.
    """
    shares = check_shares(shares)
    groups = _group_by_patient(images)
    keys = list(groups)
    traits = _count_traits(images, groups)
    # As shares of the whole, so that a rare label weighs as much as a common one.
    parts = traits / np.maximum(traits.sum(axis=0), 1)
    order = sorted(range(len(keys)), key=lambda g: (-parts[g].sum(), _shuffle(keys[g], seed)))
    wanted = np.array(shares)[:, None]
    held = np.zeros((len(shares), parts.shape[1]))
    chosen: dict[str, int] = {}
    for group in order:
        growth = ((held + parts[group] - wanted) ** 2 - (held - wanted) ** 2).sum(axis=1)
        chosen[keys[group]] = best = int(np.argmin(growth))
        held[best] += parts[group]
    splits: list[list[AnnotatedImage]] = [[] for _ in shares]
    for image in images:
        splits[chosen[_get_group(image)]].append(image)
    if not all(splits):
        raise AnnotationError(_explain_too_few(images, len(keys), len(shares)))
    return splits


def _explain_too_few(images: Sequence[AnnotatedImage], groups: int, splits: int) -> str:
    if groups == 1 and images[0].patient:
        return (
            "the source has one patient, who must not be in two splits. Leave --split-by-patient "
            "out: all images become train, and vae-aug train holds a tenth of them back to "
            "validate on. Test a detector on other patients."
        )
    return (
        f"the source has {plural(groups, 'patient')}, too few or too uneven for {splits} splits "
        "with a patient in each; give other shares, or fewer."
    )


def describe_patients(images: Sequence[AnnotatedImage]) -> str:
    """Say of how many images no patient is known, so that they are split one by one.

    Args:
        images: The images.

    Returns:
        A sentence, or `""` if every image has a patient.
    """
    unknown = sum(not image.patient for image in images)
    if not unknown:
        return ""
    whose = "no patients" if unknown == len(images) else f"no patient of {plural(unknown, 'image')}"
    return (
        f"WARNING: the source names {whose}: these were split image by image, so that images of "
        "one patient may be in two splits. Name patients in the source (docs/sources.md) and "
        "ingest again, or do not trust what is measured on these splits"
    )


def _get_group(image: AnnotatedImage) -> str:
    return f"patient {image.patient}" if image.patient else f"image {image.source_id}"


def _group_by_patient(images: Sequence[AnnotatedImage]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(_get_group(image), []).append(index)
    return groups


def _count_traits(images: Sequence[AnnotatedImage], groups: dict[str, list[int]]) -> np.ndarray:
    """Count what is shared out, `[groups, 2 + 2 * labels]`."""
    labels = sorted({label for image in images for label in image.labels})
    traits = np.zeros((len(groups), 2 + 2 * len(labels)))
    for row, members in enumerate(groups.values()):
        for image in (images[index] for index in members):
            traits[row, 0] += 1
            traits[row, 1] += not image.labels
            for column, label in enumerate(labels):
                traits[row, 2 + 2 * column] += image.labels.count(label)
                traits[row, 3 + 2 * column] += label in image.labels
    return traits


def _shuffle(key: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {key}".encode("utf-8", "surrogateescape")).digest()


# --- Leaks -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Leak:
    """Something of one split that is in another, too.

    Attributes:
        kind: `"patient"`, `"source_id"` or `"image"` (a near duplicate).
        splits: The two splits.
        key: What is in both: the hash of the patient, the source id, or, for near duplicates,
            the two source ids with `~` between.
    """

    kind: str
    splits: tuple[str, str]
    key: str


@dataclasses.dataclass
class _Held:
    """What a split holds."""

    patients: set[str] = dataclasses.field(default_factory=set)
    source_ids: list[str] = dataclasses.field(default_factory=list)
    hashes: list[np.ndarray] = dataclasses.field(default_factory=list)


def find_leaks(
    directory: str | os.PathLike[str],
    *,
    near_bits: int = NEAR_BITS,
    among: Collection[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Leak, ...]:
    """Search the splits of a folder of records for what is in more than one.

    Patients, source ids, and images that differ in at most `near_bits` of the 256 bits of their
    difference hash are compared between every two splits, whose unannotated images count as their
    own. Images without any structure, whose hash has no bit set, are not compared. Time grows with
    the product of the splits' sizes.

    Args:
        directory: Folder of the data set.
        near_bits: 0 to 256.
        among: Splits of which at least one must be in a pair that is compared; None for all pairs.
        progress: Called with (images read, images in all) after each image.

    Returns:
        What leaks, none if there is but one split.

    Raises:
        ValueError: On another `near_bits`.
        RecordError: If the records cannot be read.
    """
    if not 0 <= near_bits <= 256:
        raise ValueError(f"near_bits must be in [0, 256]; got {near_bits!r}.")
    info = read_info(directory)
    names = info.image_splits
    total = sum(part.examples for part in info.parts.values())
    done = itertools.count(1)

    def count() -> None:
        if progress is not None:
            progress(next(done), total)

    splits = {name: _read_split(Path(directory), name, count) for name in names}
    leaks: list[Leak] = []
    for first, second in itertools.combinations(names, 2):
        if among is None or first in among or second in among:
            leaks += _compare(first, splits[first], second, splits[second], near_bits)
    return tuple(leaks)


def count_leaks(leaks: Sequence[Leak]) -> str:
    """Count leaks by their kind, e.g. `"1 patient, 0 source_ids, 2 images"`."""
    kinds = collections.Counter(leak.kind for leak in leaks)
    return ", ".join(plural(kinds[kind], kind) for kind in ("patient", "source_id", "image"))


def _read_split(directory: Path, name: str, count: Callable[[], None]) -> _Held:
    held = _Held()
    for path in find_records(directory, name, unannotated=True)[0]:
        for _, example in iterate_examples(path):
            feature = example.features.feature
            patient, source_id = (
                b"".join(feature[key].bytes_list.value).decode("utf-8", "replace")
                for key in ("image/patient", "image/source_id")
            )
            held.patients |= {patient} - {""}
            held.source_ids.append(source_id)
            held.hashes.append(
                hash_image(decode_image(feature["image/encoded"].bytes_list.value[0]))
            )
            count()
    return held


def _compare(first: str, one: _Held, second: str, other: _Held, near_bits: int) -> list[Leak]:
    splits = (first, second)
    leaks = [Leak("patient", splits, key) for key in sorted(one.patients & other.patients)]
    same = sorted(set(one.source_ids) & set(other.source_ids))
    leaks += [Leak("source_id", splits, key) for key in same]
    for row, column in find_near(np.array(one.hashes), np.array(other.hashes), near_bits):
        pair = (one.source_ids[row], other.source_ids[column])
        if pair[0] != pair[1]:
            leaks.append(Leak("image", splits, "~".join(pair)))
    return leaks


def hash_image(image: np.ndarray) -> np.ndarray:
    """Hash an image so that images which look alike have hashes that differ in few bits.

    The grey image is averaged down to 16 x 17 pixels; each bit tells whether a pixel is darker
    than its right neighbour (the difference hash). Scale, contrast and JPEG change few bits.

    Args:
        image: `[H, W, C] uint8` or `uint16`.

    Returns:
        `[4] uint64`.
    """
    grey = Image.fromarray(image.astype(np.float32).mean(axis=-1))
    small = np.asarray(grey.resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX))
    # Rounding in the averages must not set bits in a flat area.
    step = 1e-3 * max(float(np.ptp(small)), 1.0)
    return np.packbits(np.diff(small, axis=1) > step).view(np.uint64)


def find_near(one: np.ndarray, other: np.ndarray, near_bits: int) -> list[tuple[int, int]]:
    """Find the pairs of hashes that differ in few bits.

    Args:
        one: `[N, 4] uint64`.
        other: `[M, 4] uint64`.
        near_bits: Most bits that may differ.

    Returns:
        The pairs `(n, m)`, without those of hashes in which no bit is set.
    """
    pairs: list[tuple[int, int]] = []
    for top in range(0, len(one), _BLOCK):
        rows = one[top : top + _BLOCK]
        for left in range(0, len(other), _BLOCK):
            columns = other[left : left + _BLOCK]
            bits = np.bitwise_count(rows[:, None] ^ columns[None]).sum(axis=-1)
            structured = np.logical_and.outer(rows.any(axis=1), columns.any(axis=1))
            near = np.logical_and(bits <= near_bits, structured)
            pairs += [(top + int(r), left + int(c)) for r, c in np.argwhere(near)]
    return pairs
