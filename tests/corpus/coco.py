"""Random COCO data sets, mutated."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus.sources import (
    HEIGHT,
    LABELS,
    WIDTH,
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

Content = dict[str, Any]


def make(rng: random.Random, folder: Path) -> Truth:
    """Write one data set; see `tests/corpus`."""
    place = rng.choice(("", "images/"))
    truth = {place + name: boxes for name, boxes in make_truth(rng).items()}
    content = _make_content(rng, {Path(name).name: boxes for name, boxes in truth.items()})
    chosen = rng.sample(range(len(MUTATIONS)), rng.randint(0, 2))
    for index in sorted(chosen):
        MUTATIONS[index](rng, content)
    for name in truth:
        write_image(folder / name)
    if rng.random() < 0.2:
        truth = rename_on_disk(rng, folder, truth, rng.choice(list(truth)))
    text = json.dumps(content, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1)))
    if rng.random() < 0.05:
        text = text.replace('"images":', '"annotations": [], "images":', 1)
    files = ("train.json", "annotations/train.json") if place else ("train.json",)
    write_spoilt(rng, folder / rng.choice(files), text)
    return truth


def _make_content(rng: random.Random, truth: Truth) -> Content:
    start = rng.choice((0, 1, 100, 2**53))
    images, annotations = [], []
    for position, (name, boxes) in enumerate(truth.items()):
        size = {"width": WIDTH, "height": HEIGHT}
        images.append({"id": start + position, "file_name": name, **size})
        for label, (left, top, right, bottom) in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": start + position,
                    "category_id": LABELS.index(label) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": rng.choice((0, 1, False, "0", None)),
                    "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
                }
            )
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(LABELS)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _choose(rng: random.Random, content: Content) -> dict[str, Any]:
    return rng.choice(content["annotations"]) if content["annotations"] else {}


def _respell_ids(rng: random.Random, content: Content) -> None:
    key, field = rng.choice(
        (("images", "id"), ("annotations", "image_id"), ("annotations", "category_id"))
    )
    spell = rng.choice((str, float, lambda number: f"{number}.0", lambda number: f" {number}"))
    for entry in content[key]:
        if isinstance(entry.get(field), int):
            entry[field] = spell(entry[field])


def _lose_image_id(rng: random.Random, content: Content) -> None:
    _choose(rng, content)["image_id"] = rng.choice((None, 10**6, "", "null", [], -1, "x", 1.5))


def _lose_category_id(rng: random.Random, content: Content) -> None:
    _choose(rng, content)["category_id"] = rng.choice((None, 99, "01", [], True, "nodule"))


def _repeat_entry(rng: random.Random, content: Content) -> None:
    key = rng.choice(("images", "annotations", "categories"))
    if content[key]:
        entry = dict(rng.choice(content[key]))
        if rng.random() < 0.3:
            entry["id"] = str(entry["id"])
        content[key].insert(rng.randint(0, len(content[key])), entry)


def _clash_ids(rng: random.Random, content: Content) -> None:
    key = rng.choice(("images", "annotations", "categories"))
    if len(content[key]) > 1:
        first, second = rng.sample(content[key], 2)
        first["id"] = second["id"]


def _list_image_twice(rng: random.Random, content: Content) -> None:
    entry = dict(rng.choice(content["images"]))
    entry["id"] = 10**7
    content["images"].insert(rng.randint(0, len(content["images"])), entry)


def _break_bbox(rng: random.Random, content: Content) -> None:
    entry = _choose(rng, content)
    bbox = entry.get("bbox", [0, 0, 0, 0])
    broken = list(bbox)
    broken[rng.randrange(4)] = break_number(rng)
    entry["bbox"] = rng.choice((None, [], bbox[:3], [*bbox, 0], str(bbox), {"x": bbox}, broken))
    if rng.random() < 0.5:
        entry["segmentation"] = rng.choice(
            (None, [], {"counts": "x", "size": [HEIGHT, WIDTH]}, [[1, 2, 3]], [[1, 2], 3])
        )


def _respell_numbers(rng: random.Random, content: Content) -> None:
    for entry in content["annotations"]:
        if isinstance(entry["bbox"], list):
            entry["bbox"] = [spoil_number(rng, value) for value in entry["bbox"]]


def _make_relative(rng: random.Random, content: Content) -> None:
    everywhere = rng.random() < 0.5
    for entry in content["annotations"] if everywhere else [_choose(rng, content)]:
        if isinstance(bbox := entry.get("bbox"), list):
            sizes = (WIDTH, HEIGHT, WIDTH, HEIGHT, 1)
            entry["bbox"] = [divide(*pair) for pair in zip(bbox, sizes, strict=False)]


def _respell_names(rng: random.Random, content: Content) -> None:
    for entry in content["images"]:
        entry["file_name"] = respell(rng, entry["file_name"])


def _lose_name(rng: random.Random, content: Content) -> None:
    entry = rng.choice(content["images"])
    entry["file_name"] = rng.choice((None, 3, "", "gone.png", "../gone.png", "a.png", []))


def _lose_list(rng: random.Random, content: Content) -> None:
    key = rng.choice(("annotations", "categories", "images"))
    content[key] = rng.choice((None, {}, "[]", [None]))


def _respell_labels(rng: random.Random, content: Content) -> None:
    form = rng.choice(("NFC", "NFD"))
    for entry in content["categories"]:
        entry["name"] = f" {unicodedata.normalize(form, entry['name'])}\n"


def _shuffle(rng: random.Random, content: Content) -> None:
    for entries in content.values():
        if isinstance(entries, list):
            rng.shuffle(entries)


def _lose_sizes(rng: random.Random, content: Content) -> None:
    for entry in content["images"]:
        entry["width"] = rng.choice((None, 0, "64", -1, "x"))


MUTATIONS: tuple[Callable[[random.Random, Content], None], ...] = (
    _respell_ids,
    _lose_image_id,
    _lose_category_id,
    _break_bbox,
    _clash_ids,
    _repeat_entry,
    _respell_numbers,
    _make_relative,
    _respell_names,
    _lose_name,
    _list_image_twice,
    _shuffle,
    _respell_labels,
    _lose_sizes,
    _lose_list,
)
