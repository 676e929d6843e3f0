"""Images with boxes in a detector's square, read from COCO files or records."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vae_aug.ingest.formats.layout import FileFinder
from vae_aug.letterbox import letterbox, letterbox_boxes
from vae_aug.records.records import read_records
from vae_aug.records.shards import read_info

_PLACED_SIZES = (0.65, 1.0)
"""Sides of an image that is placed at random, as shares of the square's."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """Images in the detector's square.

    Attributes:
        images: `[N, S, S, 1] uint8`.
        boxes: A `[M, 4] float32` for each image, `yxyx` in pixels of the square.
        labels: An `[M] int32` for each image, from 0.
        groups: `[N] int32`, number of the image's patient, or of the image where none is named.
        sites: `[N] str`, where the image was made (hospital, maker of the scanner), or, where the
            source is not asked for that, the stem of the COCO file or the name of the split.
        has_patients: Whether every image names its patient.
        classes: Names of the labels.
    """

    images: np.ndarray
    boxes: list[np.ndarray]
    labels: list[np.ndarray]
    groups: np.ndarray
    sites: np.ndarray
    has_patients: bool
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def take(self, indices: np.ndarray) -> Samples:
        """Return some of the images."""
        return dataclasses.replace(
            self,
            images=self.images[indices],
            boxes=[self.boxes[i] for i in indices],
            labels=[self.labels[i] for i in indices],
            groups=self.groups[indices],
            sites=self.sites[indices],
        )

    def at_sites(self, names: Iterable[str]) -> Samples:
        """Return the images of some sites."""
        return self.take(np.flatnonzero(np.isin(self.sites, list(names))))

    def of_groups(self, groups: np.ndarray) -> Samples:
        """Return the images of some patients."""
        return self.take(np.flatnonzero(np.isin(self.groups, groups)))


@dataclasses.dataclass(frozen=True)
class Source:
    """What is read, and how.

    Attributes:
        files: COCO files whose images lie in their folder or in `images` beside them, or folders
            of records. Patients of one name in several files are one patient.
        size: Side S of the square that images are fitted into, in pixels.
        white: Grey value shown as white; None for the largest of the images' dtype.
        site: `(field, pattern)`: the first group that the regular expression has in this field of
            a COCO image is the image's site. None for the file's stem.
        where: Field of a COCO image to the value that it must have.
        placed: Whether each image is laid at random, but always the same, into its square, on 65%
            to 100% of the side. Sets that were cropped around their lesions need it: a detector
            would learn that the lesion is in the middle.
    """

    files: tuple[str, ...]
    size: int
    white: float | None = None
    site: tuple[str, str] | None = None
    where: Mapping[str, str] = dataclasses.field(default_factory=dict)
    placed: bool = False


@dataclasses.dataclass(frozen=True)
class _Item:
    """One image as it was read: grey `[H, W] float32 in [0, 255]`, boxes `rel_yxyx`."""

    grey: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    patient: str
    site: str


def read_samples(source: Source) -> Samples:
    """Read all files of a source.

    Raises:
        FileNotFoundError: If an image is missing.
        ValueError: If files name different classes, or nothing is left.
    """
    items: list[_Item] = []
    classes: tuple[str, ...] | None = None
    for name in source.files:
        path = Path(name)
        found, names = (_read_records if path.is_dir() else _read_coco)(path, source)
        if classes is not None and names != classes:
            raise ValueError(f"{path} has the classes {names}; the files before it have {classes}.")
        classes = names
        items += found
    if not items:
        raise ValueError(f"{', '.join(source.files)}: no image with {dict(source.where)}.")
    return _make_samples(items, classes or (), source)


def _make_samples(items: Sequence[_Item], classes: tuple[str, ...], source: Source) -> Samples:
    has_patients = all(item.patient for item in items)
    names = [item.patient if has_patients else str(index) for index, item in enumerate(items)]
    squares = [_fit(item, index, source) for index, item in enumerate(items)]
    return Samples(
        images=np.stack([image for image, _ in squares]),
        boxes=[boxes for _, boxes in squares],
        labels=[item.labels for item in items],
        groups=np.unique(names, return_inverse=True)[1].astype(np.int32),
        sites=np.array([item.site for item in items]),
        has_patients=has_patients,
        classes=classes,
    )


def _fit(item: _Item, index: int, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Fit an image and its boxes into the square: `[S, S, 1] uint8`, `[M, 4] float32`."""
    size, top, left = source.size, 0, 0
    inner = size
    if source.placed:
        generator = np.random.default_rng(index)
        inner = round(size * generator.uniform(*_PLACED_SIZES))
        top, left = generator.integers(0, size - inner + 1, 2)
    small = np.asarray(letterbox(item.grey[None, ..., None], inner))[0]
    image = np.zeros((size, size, 1), np.uint8)
    image[top : top + inner, left : left + inner] = np.clip(np.rint(small), 0, 255)
    boxes = inner * letterbox_boxes(item.boxes, *item.grey.shape, inner).numpy()
    return image, (boxes + np.float32([top, left, top, left])).astype(np.float32)


def _to_grey(pixels: np.ndarray, white: float | None) -> np.ndarray:
    """Bring grey values to [0, 255]; channels are averaged."""
    if white is None:
        white = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1.0
    grey = pixels.astype(np.float32)
    if grey.ndim == 3:
        grey = grey.mean(-1)
    return np.clip(grey * (255.0 / white), 0, 255)


def _read_coco(path: Path, source: Source) -> tuple[list[_Item], tuple[str, ...]]:
    coco = json.loads(path.read_text())
    classes = sorted(coco["categories"], key=lambda category: category["id"])
    numbers = {category["id"]: number for number, category in enumerate(classes)}
    marks: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
    for mark in coco["annotations"]:
        marks[mark["image_id"]].append(mark)
    finder = FileFinder((path.parent, path.parent / "images"))
    items = []
    for image in coco["images"]:
        if any(str(image.get(field)) != value for field, value in source.where.items()):
            continue
        file = finder.find(image["file_name"])
        if file is None:
            raise FileNotFoundError(f"{path}: its image {image['file_name']} is not beside it.")
        grey = _to_grey(np.asarray(Image.open(file)), source.white)
        rows = marks[image["id"]]
        items.append(
            _Item(
                grey=grey,
                boxes=_list_corners([row["bbox"] for row in rows], *grey.shape),
                labels=np.array([numbers[row["category_id"]] for row in rows], np.int32),
                patient=str(image.get("patient") or ""),
                site=_find_site(image, source.site, path.stem),
            )
        )
    return items, tuple(category["name"] for category in classes)


def _list_corners(boxes: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """Bring COCO's `xywh` in pixels to `[M, 4] float32 rel_yxyx`."""
    x, y, w, h = np.array(boxes, np.float32).reshape(-1, 4).T
    return np.stack([y / height, x / width, (y + h) / height, (x + w) / width], 1)


def _find_site(image: Mapping[str, Any], site: tuple[str, str] | None, stem: str) -> str:
    if site is None:
        return stem
    match = re.search(site[1], str(image.get(site[0], "")))
    if match is None:
        raise ValueError(f"image {image['id']}: its {site[0]!r} does not have {site[1]!r}.")
    return match[1]


def _read_records(path: Path, source: Source) -> tuple[list[_Item], tuple[str, ...]]:
    """Read all splits of a folder of records; their classes are named by `dataset.json`."""
    info = read_info(path)
    items = [item for split in info.splits for item in _iterate_split(path, split, source)]
    return items, info.label_names


def _iterate_split(path: Path, split: str, source: Source) -> Iterator[_Item]:
    for element in read_records(path, split).as_numpy_iterator():
        yield _Item(
            grey=_to_grey(element["image"], source.white),
            boxes=np.asarray(element["objects"]["bbox"], np.float32),
            labels=np.asarray(element["objects"]["label"], np.int32),
            patient=element["image/patient"].decode(),
            site=split,
        )


def write_coco(samples: Samples, folder: Path) -> None:
    """Write images in the detector's square as a COCO set, without the names of files."""
    folder.mkdir(parents=True, exist_ok=True)
    images, marks = [], []
    for index, image in enumerate(samples.images):
        name = f"{index:06d}.png"
        Image.fromarray(image[..., 0]).save(folder / name)
        size = image.shape[0]
        patient = str(samples.groups[index])
        images.append(
            {"id": index, "file_name": name, "width": size, "height": size, "patient": patient}
        )
        for box, label in zip(samples.boxes[index], samples.labels[index], strict=True):
            top, left, bottom, right = (float(value) for value in box)
            bbox = [left, top, right - left, bottom - top]
            mark = {"id": len(marks) + 1, "image_id": index, "category_id": int(label) + 1}
            marks.append({**mark, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0})
    categories = [{"id": n, "name": name} for n, name in enumerate(samples.classes, start=1)]
    coco = {"images": images, "annotations": marks, "categories": categories}
    (folder / "all.json").write_text(json.dumps(coco))
