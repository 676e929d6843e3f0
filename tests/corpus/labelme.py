"""Random folders of LabelMe files, mutated."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus.sources import (
    HEIGHT,
    WIDTH,
    XYXY,
    Truth,
    break_number,
    divide,
    make_truth,
    rename_on_disk,
    respell,
    spoil_number,
    write_image,
    write_spoilt,
)

# By the name of each image without its suffix.
Contents = dict[str, dict[str, Any]]


def make(rng: random.Random, folder: Path) -> Truth:
    """Write one folder; see `tests/corpus`."""
    truth = make_truth(rng)
    contents = {Path(name).stem: _make_content(rng, name, truth[name]) for name in truth}
    chosen = rng.sample(range(len(MUTATIONS)), rng.randint(0, 2))
    for index in sorted(chosen):
        MUTATIONS[index](rng, contents)
    images, files = rng.choice((("", ""), ("", ""), ("images/", "annotations/"), ("x/", "x/")))
    truth = {images + name: boxes for name, boxes in truth.items()}
    for name in truth:
        write_image(folder / name)
    for stem, content in contents.items():
        text = json.dumps(content, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 2)))
        if rng.random() < 0.03:
            text = text.replace('"shapes":', '"shapes": [], "shapes":', 1)
        suffix = rng.choice((".json", ".json", ".json", ".JSON"))
        form = unicodedata.normalize(rng.choice(("NFC", "NFC", "NFD")), stem)
        write_spoilt(rng, folder / f"{files}{form}{suffix}", text)
    if rng.random() < 0.2:
        truth = rename_on_disk(rng, folder, truth, rng.choice(list(truth)))
    return _add_neighbours(rng, folder, truth)


def _add_neighbours(rng: random.Random, folder: Path, truth: Truth) -> Truth:
    """Lay beside the images what others leave there."""
    name = rng.choice(list(truth))
    path = folder / name
    if rng.random() < 0.1:
        # It cannot be told whose the file is, so neither may be complete without its boxes.
        write_image(path.with_suffix(".jpg"))
        truth[path.with_suffix(".jpg").relative_to(folder).as_posix()] = truth[name]
    if rng.random() < 0.1:
        path.with_name("package.json").write_text("{}")
    if rng.random() < 0.05 and not any(folder.rglob("second.*")):
        path.with_suffix(".json").unlink(missing_ok=True)
    return truth


def _make_content(rng: random.Random, name: str, boxes: list[tuple[str, XYXY]]) -> dict[str, Any]:
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": [_make_shape(rng, label, box) for label, box in boxes],
        "imagePath": name,
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }


def _make_shape(rng: random.Random, label: str, box: XYXY) -> dict[str, Any]:
    left, top, right, bottom = box
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    kind = rng.choice(("rectangle", "rectangle", "polygon", "rotation", "mask", None))
    points = corners
    if kind == "rectangle":
        points = rng.choice((corners, corners[::2], corners[3:0:-2]))
    elif kind == "mask":
        points = [[left, top], [right - 1, bottom - 1]]
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}}


def _choose(rng: random.Random, contents: Contents) -> dict[str, Any]:
    content = rng.choice(list(contents.values()))
    shapes = content["shapes"]
    return rng.choice(shapes) if isinstance(shapes, list) and shapes else {"points": []}


def _respell_names(rng: random.Random, contents: Contents) -> None:
    for content in contents.values():
        content["imagePath"] = respell(rng, str(content["imagePath"]))


def _name_others(rng: random.Random, contents: Contents) -> None:
    others = ["gone.png", "../gone.png", None, 3, "", *(c["imagePath"] for c in contents.values())]
    for content in contents.values():
        content["imagePath"] = rng.choice(others)


def _rename_file(rng: random.Random, contents: Contents) -> None:
    stem = rng.choice(list(contents))
    contents["renamed"] = contents.pop(stem)


def _describe_twice(rng: random.Random, contents: Contents) -> None:
    """Give an image to a second file, which knows nothing of it."""
    content = rng.choice(list(contents.values()))
    contents["second"] = {**content, "shapes": []}


def _break_points(rng: random.Random, contents: Contents) -> None:
    shape = _choose(rng, contents)
    points = shape["points"]
    broken = [[break_number(rng), *point[1:]] for point in points]
    strange = [{"x": point[0], "y": point[1]} for point in points]
    longer = [[*point, 0] for point in points]
    shape["points"] = rng.choice((None, points[:1], broken, strange, longer, str(points), []))


def _change_kind(rng: random.Random, contents: Contents) -> None:
    shape = _choose(rng, contents)
    shape["shape_type"] = rng.choice(("point", "line", "linestrip", "points", "cuboid", "?", 3, []))


def _lose_label(rng: random.Random, contents: Contents) -> None:
    _choose(rng, contents)["label"] = rng.choice((None, "", "  ", [], {}, 1.5))


def _respell_labels(rng: random.Random, contents: Contents) -> None:
    for content in contents.values():
        for shape in content["shapes"] or ():
            if isinstance(label := shape.get("label"), str):
                shape["label"] = f" {unicodedata.normalize('NFD', label)}\n"
                if label == "7":
                    shape["label"] = 7


def _respell_numbers(rng: random.Random, contents: Contents) -> None:
    for content in contents.values():
        for shape in content["shapes"] or ():
            if isinstance(points := shape["points"], list):
                shape["points"] = [
                    [spoil_number(rng, value) for value in p] if isinstance(p, list) else p
                    for p in points
                ]


def _lose_shapes(rng: random.Random, contents: Contents) -> None:
    content = rng.choice(list(contents.values()))
    if content["shapes"]:
        content["shapes"] = rng.choice((None, {}, "x", [None]))


def _make_relative(rng: random.Random, contents: Contents) -> None:
    everywhere = rng.random() < 0.5
    for content in contents.values() if everywhere else [rng.choice(list(contents.values()))]:
        for shape in content["shapes"] if isinstance(content["shapes"], list) else ():
            points = shape.get("points") if isinstance(shape, dict) else None
            # The corners of a mask are whole pixels, to which one is added.
            if isinstance(points, list) and shape.get("shape_type") != "mask":
                shape["points"] = [_divide(point) for point in points]


def _divide(point: object) -> object:
    sizes = (WIDTH, HEIGHT, 1)
    if not isinstance(point, list):
        return point
    return [divide(*pair) for pair in zip(point, sizes, strict=False)]


def _shuffle(rng: random.Random, contents: Contents) -> None:
    for stem, content in list(contents.items()):
        keys = list(content)
        rng.shuffle(keys)
        contents[stem] = {key: content[key] for key in keys}


MUTATIONS: tuple[Callable[[random.Random, Contents], None], ...] = (
    _respell_names,
    _name_others,
    _rename_file,
    _describe_twice,
    _break_points,
    _change_kind,
    _lose_label,
    _respell_labels,
    _respell_numbers,
    _make_relative,
    _shuffle,
    _lose_shapes,
)
