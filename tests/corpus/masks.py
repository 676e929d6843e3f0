"""Random data sets with masks, mutated."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from corpus.sources import HEIGHT, NAMES, WIDTH, Truth, write_image

# The places of an image and of its masks.
LAYOUTS = (
    ("images/{}", "masks/{}"),
    ("images/{}", "masks/{}_mask"),
    ("Images/{}", "GT/{}"),
    ("imgs/{}", "labels/{}"),
    ("JPEGImages/{}", "SegmentationClass/{}"),
    ("images/train/{}", "masks/train/{}"),
    ("train/images/{}", "train/masks/{}"),
    ("CXR/{}", "ManualMask/leftMask/{}"),
    ("{}", "{}_mask"),
    ("{}", "{}-seg"),
    ("{}", "{} segmentation"),
    ("p1/{}", "p1/{}_GT"),
    ("p1/{}", "p1/mask_{}"),
)
LABELS = {1: "nodule", 2: "cyst", 3: "7"}
CELL = 16


def make(rng: random.Random, folder: Path) -> Truth:
    """Write one data set; see `tests/corpus`."""
    image, mask = rng.choice(LAYOUTS)
    stems = [Path(name).stem for name in rng.sample(NAMES, rng.randint(1, 4))]
    kind = rng.choice(list(KINDS))
    values = list(LABELS) if kind in ("classes", "palette", "colours") else [255]
    masks = {stem: _make_mask(rng, values) for stem in stems}
    names = KINDS[kind](rng, folder, {mask.format(s): m for s, m in masks.items()})
    truth: Truth = {}
    for stem, pixels in masks.items():
        path = folder / f"{image.format(stem)}{rng.choice(('.png', '.png', '.PNG'))}"
        write_image(path)
        truth[path.relative_to(folder).as_posix()] = _find_boxes(pixels, names)
    return _lose(rng, folder, truth)


def _make_mask(rng: random.Random, values: list[int]) -> np.ndarray:
    """Make rectangles in cells apart, so that each is a region."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cells = [(top, left) for top in range(0, HEIGHT, CELL) for left in range(0, WIDTH, CELL)]
    for top, left in rng.sample(cells, rng.choice((0, 1, 2, 4))):
        rows, columns = rng.randint(5, CELL - 4), rng.randint(5, CELL - 4)
        mask[top + 2 : top + 2 + rows, left + 2 : left + 2 + columns] = rng.choice(values)
    return mask


def _find_boxes(mask: np.ndarray, names: dict[int, str]) -> list[tuple[str, tuple[float, ...]]]:
    boxes = []
    for top in range(0, HEIGHT, CELL):
        for left in range(0, WIDTH, CELL):
            rows, columns = np.nonzero(mask[top : top + CELL, left : left + CELL])
            if len(rows):
                value = int(mask[top + rows[0], left + columns[0]])
                box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                shift = (left, top, left, top)
                xyxy = tuple(float(a + b) for a, b in zip(box, shift, strict=True))
                boxes.append((names[value], xyxy))
    return boxes


Files = dict[str, np.ndarray]
Kind = Callable[[random.Random, Path, Files], dict[int, str]]


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    path.write_bytes(cv2.imencode(path.suffix, stored)[1].tobytes())


def _write_binary(rng: random.Random, folder: Path, files: Files) -> dict[int, str]:
    scale = rng.choice((1, 255, 257 * 255))
    for name, mask in files.items():
        kind = np.uint16 if scale > 255 else np.uint8
        _write(folder / f"{name}.png", (mask > 0).astype(kind) * kind(scale))
    return {255: "object"}


def _write_named(rng: random.Random, folder: Path, files: Files) -> dict[int, str]:
    text = rng.choice(("nodule", "nodule\r\n", "\ufeffnodule\n", "background\nnodule\n"))
    (folder / "classes.txt").write_text(text)
    for name, mask in files.items():
        _write(folder / f"{name}.png", mask)
    return {255: "nodule"}


def _write_soft(rng: random.Random, folder: Path, files: Files) -> dict[int, str]:
    """Write masks with soft edges, which are the true ones at half of white."""
    kind = rng.choice(("blur", "jpeg", "jpeg as png", "antialias"))
    quality = [cv2.IMWRITE_JPEG_QUALITY, rng.choice((75, 90, 95))]
    for name, mask in files.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        jpeg = cv2.imencode(".jpg", mask, quality)[1]
        if kind == "jpeg":
            path.with_suffix(".jpg").write_bytes(jpeg.tobytes())
        elif kind == "jpeg as png":
            _write(path, cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE))
        elif kind == "blur":
            _write(path, cv2.GaussianBlur(mask, (0, 0), rng.choice((0.5, 0.8))))
        else:
            large = cv2.resize(mask, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
            smooth = cv2.GaussianBlur(large, (0, 0), 2)
            _write(path, cv2.resize(smooth, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
    return {255: "object"}


def _write_classes(rng: random.Random, folder: Path, files: Files) -> dict[int, str]:
    scale = rng.choice((1, 60))
    if scale == 1:
        (folder / "classes.txt").write_text("\n".join(LABELS.values()))
    else:
        lines = (f"{scale * value}:{','.join([str(scale * value)] * 3)}::" for value in LABELS)
        (folder / "labelmap.txt").write_text("\n".join(lines))
    for name, mask in files.items():
        _write(folder / f"{name}.png", mask * np.uint8(scale))
    return LABELS if scale == 1 else {value: str(value * scale) for value in LABELS}


COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0)}


def _write_palette(rng: random.Random, folder: Path, files: Files) -> dict[int, str]:
    (folder / "classes.txt").write_text("\n".join(LABELS.values()))
    numbers = list(COLOURS)
    for name, mask in files.items():
        order = rng.sample(numbers, 4) if rng.random() < 0.05 else numbers
        lookup = np.zeros(256, np.uint8)
        lookup[order] = range(4)
        image = Image.fromarray(lookup[mask])
        image.putpalette([part for number in order for part in COLOURS[number]])
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return LABELS


def _write_colours(rng: random.Random, folder: Path, files: Files) -> dict[int, str]:
    lines = [f"{LABELS[v]}:{','.join(map(str, c))}::" for v, c in COLOURS.items() if v]
    header = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    (folder / "labelmap.txt").write_text("\n".join([*header, *lines]))
    table = np.zeros((256, 3), np.uint8)
    table[list(COLOURS)] = list(COLOURS.values())
    for name, mask in files.items():
        _write(folder / f"{name}.png", table[mask])
    return LABELS


KINDS: dict[str, Kind] = {
    "binary": _write_binary,
    "named": _write_named,
    "soft": _write_soft,
    "classes": _write_classes,
    "palette": _write_palette,
    "colours": _write_colours,
}


def _lose(rng: random.Random, folder: Path, truth: Truth) -> Truth:
    """Rename, copy, cut or delete an image or a mask."""
    image = rng.choice(list(truth))
    masks = sorted({p for p in folder.rglob("*.*g")} - {folder / name for name in truth})
    mask, chance = rng.choice(masks), rng.random()
    if chance < 0.08:  # an image of the same stem
        write_image((folder / image).with_suffix(".tiff" if image.endswith("G") else ".jpeg"))
    elif chance < 0.16:
        mask.rename(mask.with_name(unicodedata.normalize("NFD", mask.name)))
    elif chance < 0.24:
        mask.rename(mask.with_name(mask.name.upper()))
    elif chance < 0.32:  # the mask of an image that is missing
        mask.rename(mask.with_name(f"x{mask.name}"))
    elif chance < 0.4:
        (folder / image).unlink()
        del truth[image]
    elif chance < 0.48:
        mask.unlink()
    elif chance < 0.56:
        mask.write_bytes(mask.read_bytes()[: rng.randrange(mask.stat().st_size)])
    elif chance < 0.64:
        _write(mask, np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    return truth
