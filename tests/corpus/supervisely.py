"""Random projects of Supervisely, mutated."""

from __future__ import annotations

import base64
import json
import random
import unicodedata
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from corpus.sources import HEIGHT, WIDTH, XYXY, Truth, write_image

LABELS = ("nodule", "Läsion", "kyste rénal")
NAMES = ("a.png", "Béta.png", "c 3.png", "d.v2.png")


def make(rng: random.Random, folder: Path) -> Truth:
    """Write one project with its images; see the package for what is returned."""
    truth: Truth = {}
    split = rng.random() < 0.3
    for dataset in rng.sample(("train",) if split else ("ds0", "ds1"), 1 if split else 2):
        ann, img = folder / dataset / "ann", folder / dataset / "img"
        ann.mkdir(parents=True)
        img.mkdir()
        for name in rng.sample(NAMES, rng.randint(1, 3)):
            write_image(img / name)
            key = f"{dataset}/img/{name}"
            content, truth[key] = _make_annotation(rng)
            if rng.random() < 0.3:
                rng.choice(_MUTATIONS)(rng, content)
            _write(rng, ann, name, content)
        if rng.random() < 0.2:
            (ann / "gone.png.json").write_text(json.dumps(_make_annotation(rng)[0]))
    if rng.random() < 0.8:
        classes = [{"title": label, "shape": "rectangle"} for label in rng.sample(LABELS, 2)]
        (folder / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))
    return truth


def _make_annotation(rng: random.Random) -> tuple[dict[str, Any], list[tuple[str, XYXY]]]:
    objects, boxes = [], []
    for _ in range(rng.randint(0, 3)):
        label, (box, entry) = rng.choice(LABELS), _make_object(rng)
        boxes.append((label, box))
        objects.append({"classTitle": label, "tags": [], **entry})
    size = {"height": HEIGHT, "width": WIDTH}
    return {"description": "", "tags": [], "size": size, "objects": objects}, boxes


def _make_object(rng: random.Random) -> tuple[XYXY, dict[str, Any]]:
    left, top = rng.randrange(WIDTH - 20), rng.randrange(HEIGHT - 14)
    width, height = rng.randint(3, 18), rng.randint(3, 12)
    box = left, top, left + width, top + height
    match rng.randrange(3):
        case 0:
            corners = [[left, top], [left + width, top + height]]
            rng.shuffle(corners)
            return box, {"geometryType": "rectangle", "points": _list_points(corners)}
        case 1:
            corners = [[left, top], [box[2], top + 1], [box[2] - 1, box[3]]]
            return box, {"geometryType": "polygon", "points": _list_points(corners)}
    mask = cv2.imencode(".png", np.full((height, width), 255, np.uint8))[1].tobytes()
    data = base64.b64encode(zlib.compress(mask)).decode()
    return box, {"geometryType": "bitmap", "bitmap": {"data": data, "origin": [left, top]}}


def _list_points(exterior: list[list[int]]) -> dict[str, Any]:
    return {"exterior": exterior, "interior": []}


def _write(rng: random.Random, ann: Path, name: str, content: dict[str, Any]) -> None:
    keys = rng.sample(list(content), len(content))
    text = json.dumps({key: content[key] for key in keys}, ensure_ascii=rng.random() < 0.5)
    data = text.encode(rng.choice(("utf-8", "utf-8-sig")))
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data))]
    form = rng.choice(("NFC", "NFC", "NFD"))
    name = unicodedata.normalize(form, name) if rng.random() < 0.8 else name.upper()
    if rng.random() < 0.2:
        name = name.rpartition(".")[0]
    if rng.random() < 0.05:
        return
    (ann / f"{name}.json").write_bytes(data)


def _pick(rng: random.Random, content: dict[str, Any]) -> dict[str, Any]:
    return rng.choice(content["objects"] or [{}])


def _lose_key(rng: random.Random, content: dict[str, Any]) -> None:
    target = rng.choice((content, _pick(rng, content)))
    target.pop(rng.choice([*sorted(set(target) - {"description", "tags"}), "description"]), None)


def _break_value(rng: random.Random, content: dict[str, Any]) -> None:
    entry = _pick(rng, content)
    if entry:
        key = rng.choice(("classTitle", "geometryType", "points", "bitmap"))
        if key in entry:
            values = (None, "", [], {}, *(() if key == "classTitle" else ("point", "line")))
            entry[key] = rng.choice(values)


def _break_points(rng: random.Random, content: dict[str, Any]) -> None:
    entry = _pick(rng, content)
    if "points" in entry:
        exterior = entry["points"]["exterior"]
        exterior[0] = rng.choice((None, ["x", 1], [1], [None, 2]))
    if "bitmap" in entry:
        entry["bitmap"]["data"] = rng.choice(("", "????", entry["bitmap"]["data"][5:]))


def _break_objects(rng: random.Random, content: dict[str, Any]) -> None:
    content["objects"] = rng.choice((None, {}, [None, *content["objects"]], "x"))


_MUTATIONS = (_lose_key, _break_value, _break_points, _break_objects)
