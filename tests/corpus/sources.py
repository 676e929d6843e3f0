"""What the corpora of annotation files share: images, spoilt names and files, and the property."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import cv2
import numpy as np

from vae_aug.ingest.formats.source import Annotations, clean_boxes

HEIGHT, WIDTH = 48, 64
LABELS = ("nodule", "kyste rénal", "7", "肿瘤")
NAMES = ("a.png", "b.png", "Röntgen_é.png", "scan 1.png", "IMG.002.png", "10.png", "2.png")

XYXY = tuple[float, float, float, float]
Truth = dict[str, list[tuple[str, XYXY]]]

_PNG = cv2.imencode(".png", np.zeros((HEIGHT, WIDTH), np.uint8))[1].tobytes()


def make_boxes(rng: random.Random, least: int = 0) -> list[tuple[str, XYXY]]:
    """Make labels and `xyxy` in half pixels, at least 2 pixels from the origin."""
    boxes = []
    for _ in range(rng.randint(least, 3)):
        left, top = rng.randrange(4, 2 * WIDTH - 20) / 2, rng.randrange(4, 2 * HEIGHT - 20) / 2
        sides = rng.randint(4, 19) / 2, rng.randint(4, 19) / 2
        boxes.append((rng.choice(LABELS), (left, top, left + sides[0], top + sides[1])))
    return boxes


def make_truth(rng: random.Random, names: tuple[str, ...] = NAMES) -> Truth:
    """Choose names and make boxes, at least one of them."""
    chosen = rng.sample(names, rng.randint(1, 4))
    truth = {name: make_boxes(rng) for name in chosen}
    truth[chosen[0]] = make_boxes(rng, least=1)
    return truth


def write_image(path: Path) -> None:
    """Write an image of `HEIGHT` x `WIDTH`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_PNG)


def respell(rng: random.Random, name: str) -> str:
    """Spell a name as another system would."""
    return rng.choice(
        (
            name,
            unicodedata.normalize("NFD", name),
            name.upper(),
            f"C:\\Users\\me\\set\\{name}",
            f"/home/me/set/{name}",
            f".\\{name}",
            f"./{name}",
            f" {name} ",
        )
    )


def rename_on_disk(rng: random.Random, folder: Path, truth: Truth, name: str) -> Truth:
    """Rename an image as a Mac or a camera does; return the truth with its new name."""
    path = folder / name
    renamed = rng.choice((unicodedata.normalize("NFD", path.name), path.with_suffix(".PNG").name))
    path.rename(path.with_name(renamed))
    changed = path.with_name(renamed).relative_to(folder).as_posix()
    return {changed if key == name else key: boxes for key, boxes in truth.items()}


def spoil_number(rng: random.Random, number: object) -> object:
    """Write a number as other tools do; leave alone what is none."""
    if not isinstance(number, float):
        return number
    return rng.choice((number, str(number), f" {number} ", f"{number:.3f}"))


def divide(number: object, size: int) -> object:
    """Make a number relative, however it is written; leave alone what is none."""
    try:
        return float(number) / size  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return number


def break_number(rng: random.Random) -> object:
    """Make what is no number."""
    return rng.choice((None, "", "NaN", float("nan"), "x", [], {}, "1;2", float("inf"), "12,5"))


def write_spoilt(rng: random.Random, path: Path, text: str, *, declared: bool = False) -> None:
    """Write a text in some encoding, and sometimes cut off, repeated or with other line ends.

    Args:
        rng: Where randomness comes from.
        path: The file.
        text: What to write.
        declared: Whether the text says its encoding, which is then the one named by `{encoding}`.
    """
    encodings = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "gbk")
    encoding = rng.choice(encodings)
    if declared:
        text = text.replace("{encoding}", rng.choice((encoding.removesuffix("-sig"), "utf-8")))
    try:
        data = text.encode(encoding, "xmlcharrefreplace" if declared else "strict")
    except UnicodeEncodeError:
        data = text.encode()
    chance = rng.random()
    if chance < 0.05:
        data = data[: rng.randrange(len(data))]
    elif chance < 0.08 and encoding == "utf-8":
        position = rng.randrange(len(data))
        data = data[:position] + b"\xff\xfe" + data[position:]
    elif chance < 0.1:
        data = data.replace(b"\n", b"\r\n") + rng.choice((b"\n\n", b" ", b"\0", b"}", data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def find_losses(annotations: Annotations, truth: Truth) -> list[str]:
    """Return the images that count as complete without having just the boxes of the truth.

    An image of which a box cannot be used becomes faulty later, so it is passed over.
    """
    losses = []
    for image in annotations.images:
        if image.annotation != "complete":
            continue
        _, usable, faults = clean_boxes(image.boxes, HEIGHT, WIDTH)
        if not usable.all() or any(faults):
            continue
        found = sorted(zip(image.labels, image.boxes.tolist(), strict=True))
        expected = sorted(
            (unicodedata.normalize("NFC", label).strip(), list(box))
            for label, box in truth.get(image.source_id, ())
        )
        alike = [label for label, _ in found] == [label for label, _ in expected]
        boxes = [[box for _, box in entries] for entries in (found, expected)]
        if not alike or not np.allclose(*boxes, atol=0.01):
            losses.append(f"{image.source_id}: {found} for {expected}")
    return losses
