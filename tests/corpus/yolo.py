"""Random YOLO data sets, mutated."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

from corpus.sources import HEIGHT, LABELS, WIDTH, XYXY, Truth, make_truth, write_image

LAYOUTS = (
    ("images/", "labels/"),
    ("images/train/", "labels/train/"),
    ("train/images/", "train/labels/"),
    ("images/set/images/", "images/set/labels/"),
    ("Images/", "Labels/"),
    ("imgs/", "labels/"),
    ("", ""),
    ("train/", "train/"),
    ("obj_train_data/", "obj_train_data/"),
)


def make(rng: random.Random, folder: Path) -> Truth:
    """Write one data set; see `tests/corpus`."""
    images, labels = rng.choice(LAYOUTS)
    truth = {images + name: boxes for name, boxes in make_truth(rng).items()}
    texts = {
        labels + str(Path(name).with_suffix(".txt").name): _make_lines(rng, boxes)
        for name, boxes in truth.items()
    }
    for name in truth:
        write_image(folder / name)
    if rng.random() < 0.6:
        mutate = rng.choice(LINE_MUTATIONS)
        name = rng.choice(list(texts))
        texts[name] = mutate(rng, texts[name])
    truth, texts = _lose(rng, folder, truth, texts)
    for name, lines in texts.items():
        if lines or rng.random() < 0.8:
            _write(rng, folder / name, lines)
    _write_names(rng, folder, images, list(truth))
    return truth


def _make_lines(rng: random.Random, boxes: list[tuple[str, XYXY]]) -> list[str]:
    """Write boxes or polygons, all of one kind: mixed, they cannot be told apart."""
    digits, is_polygon = rng.choice((8, 10, 17)), rng.random() < 0.2
    lines = []
    for label, (left, top, right, bottom) in boxes:
        box = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
        polygon = [left, top, right, top, right, bottom, left, bottom]
        numbers = polygon if is_polygon else box
        scaled = [n / (WIDTH, HEIGHT)[i % 2] for i, n in enumerate(numbers)]
        lines.append(" ".join([str(LABELS.index(label)), *(f"{n:.{digits}f}" for n in scaled)]))
    return lines


def _write(rng: random.Random, path: Path, lines: list[str]) -> None:
    """Write lines in some encoding; none is cut off, since what is left says less and is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    end = rng.choice(("\n", "\n", "\r\n", "\r", "\n\n"))
    start = rng.choice(("", "", "", "\ufeff"))
    text = start + end.join(lines) + rng.choice(("", end, end + end, " "))
    path.write_bytes(text.encode(rng.choice(("utf-8",) * 6 + ("utf-8-sig", "utf-16", "utf-16-le"))))


def _lose(
    rng: random.Random, folder: Path, truth: Truth, texts: dict[str, list[str]]
) -> tuple[Truth, dict[str, list[str]]]:
    """Rename, copy, or delete images and text files."""
    image, text = rng.choice(list(truth)), rng.choice(list(texts))
    chance = rng.random()
    path = folder / image
    if chance < 0.1:  # an image of the same stem
        write_image(path.with_suffix(".jpg"))
    elif chance < 0.2:  # text files that lose their images
        renamed = rng.choice((f"{text[:-4]}_1.txt", f"other/{Path(text).name}", f"x{text}"))
        texts[renamed] = texts.pop(text)
    elif chance < 0.3:
        texts[rng.choice((unicodedata.normalize("NFD", text), f"{text[:-4]}.TXT"))] = texts.pop(
            text
        )
    elif chance < 0.4:
        path.unlink()
        truth = {name: boxes for name, boxes in truth.items() if name != image}
    elif chance < 0.5:
        renamed = rng.choice((unicodedata.normalize("NFD", path.name), path.stem + ".PNG"))
        path.rename(path.with_name(renamed))
        changed = path.with_name(renamed).relative_to(folder).as_posix()
        truth = {changed if name == image else name: boxes for name, boxes in truth.items()}
    elif chance < 0.55 and truth[image]:  # a second text file, beside the image
        texts.setdefault(str(Path(image).with_suffix(".txt")), ["0 0.5 0.5 0.1 0.1"])
    return truth, texts


def _write_names(rng: random.Random, folder: Path, images: str, names: list[str]) -> None:
    """Write the names of the classes, and perhaps where the images are."""
    kind = rng.choice(("yaml", "yaml", "list", "darknet", "both"))
    classes = "\n".join(LABELS)
    if kind == "darknet":
        (folder / "train.txt").write_text("\n".join(f"data/{name}" for name in names))
        content = "classes = 4\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
        (folder / "obj.data").write_text(content)
        _write(rng, folder / "obj.names", list(LABELS))
    elif kind == "list":
        (folder / rng.choice(("classes.txt", "labels.txt"))).write_text(classes)
    if kind in ("yaml", "both"):
        _write(rng, folder / rng.choice(("data.yaml", "set.yml")), _make_yaml(rng, images))
    if kind == "both":
        (folder / "classes.txt").write_text(classes)


def _make_yaml(rng: random.Random, images: str) -> list[str]:
    listed = json.dumps(list(LABELS), ensure_ascii=False)
    numbered = "\n".join(f"  {i}: {json.dumps(n)}" for i, n in enumerate(LABELS))
    lines = [rng.choice((f"names: {listed}", f"names:\n{numbered}"))]
    places = ("", images, f"../{images}", f"/content/set/{images}", f"[{images or '.'}]", "gone/")
    place = rng.choice(places)
    lines += [f"train: {place}"] * bool(place) + ["val: images/val"] * (rng.random() < 0.3)
    lines += [rng.choice(("nc: 4", "nc: 3", "path: ."))] * (rng.random() < 0.3)
    rng.shuffle(lines)
    return lines


def _change_words(change: Callable[[list[str]], list[str]]) -> Callable[..., list[str]]:
    """Make a mutation of a line of its words."""

    def mutate(rng: random.Random, lines: list[str]) -> list[str]:
        changed = list(lines)
        if lines:
            index = rng.randrange(len(lines))
            changed[index] = " ".join(change(lines[index].split()))
        return changed

    return mutate


def _change_lines(change: Callable[[str], str]) -> Callable[..., list[str]]:
    return lambda rng, lines: [change(line) for line in lines]


FULL_WIDTH = str.maketrans(
    "0123456789.", "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19\uff0e"
)

LINE_MUTATIONS: tuple[Callable[[random.Random, list[str]], list[str]], ...] = (
    _change_lines(lambda line: line.replace(" ", "\t")),
    _change_lines(lambda line: line.replace(" ", "\u00a0")),
    _change_lines(lambda line: line.replace(" ", ",")),
    _change_lines(lambda line: line.replace(" ", ";")),
    _change_lines(lambda line: line.replace(".", ",")),
    _change_lines(lambda line: line.translate(FULL_WIDTH)),
    _change_lines(lambda line: f"{line[0]}.0{line[1:]}"),
    _change_lines(lambda line: f"{line} 0.93"),
    _change_words(lambda words: words[:-1]),
    _change_words(lambda words: [*words[:2], "nan", *words[3:]]),
    _change_words(lambda words: [*words[:2], "-0.2", *words[3:]]),
    _change_words(lambda words: [words[0], "31.5", *words[2:]]),
    _change_words(lambda words: ["9", *words[1:]]),
    _change_words(lambda words: ["-1", *words[1:]]),
    _change_words(lambda words: ["nodule", *words[1:]]),
    _change_words(lambda words: ["#", *words]),
    lambda rng, lines: ["class x y w h", *lines],
    lambda rng, lines: ["", " ", *lines],
    lambda rng, lines: [*lines, *lines[:1]],
    lambda rng, lines: rng.sample(lines, len(lines)),
)
