"""Random Pascal VOC data sets, mutated."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

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

SIDES = ("xmin", "ymin", "xmax", "ymax")
LAYOUTS = (
    ("JPEGImages/", "Annotations/"),
    ("images/", "annotations/"),
    ("", ""),
    ("jpegimages/", "ANNOTATIONS/"),
    ("VOC2007/JPEGImages/", "VOC2007/Annotations/"),
)


def make(rng: random.Random, folder: Path) -> Truth:
    """Write one data set; see `tests/corpus`."""
    truth = make_truth(rng)
    files = {Path(name).stem: _make_file(rng, name, boxes) for name, boxes in truth.items()}
    for mutate in rng.sample(MUTATIONS, rng.randint(0, 2)):
        mutate(rng, files)
    images, place = rng.choice(LAYOUTS)
    truth = {images + name: boxes for name, boxes in truth.items()}
    for name in truth:
        write_image(folder / name)
    for stem, file in files.items():
        form = unicodedata.normalize(rng.choice(("NFC", "NFC", "NFD")), stem)
        suffix = rng.choice((".xml", ".xml", ".xml", ".XML"))
        declared = rng.random() < 0.5
        text = _write_file(rng, file)
        if declared:
            text = '<?xml version="1.0" encoding="{encoding}"?>\n' + text
        write_spoilt(rng, folder / f"{place}{form}{suffix}", text, declared=declared)
    if rng.random() < 0.2:
        truth = rename_on_disk(rng, folder, truth, rng.choice(list(truth)))
    if rng.random() < 0.1:
        path = folder / rng.choice(list(truth))
        # Whose the file is cannot be told, or is told by its name.
        write_image(path.with_suffix(".jpg"))
        name = path.relative_to(folder)
        truth[name.with_suffix(".jpg").as_posix()] = truth[name.as_posix()]
    return truth


def _make_file(rng: random.Random, name: str, boxes: list[tuple[str, XYXY]]) -> dict[str, Any]:
    return {
        "filename": name,
        "objects": [
            {"name": label, "box": dict(zip(SIDES, map(str, box), strict=True)), "extra": ""}
            for label, box in boxes
        ],
        "template": "<annotation>{}</annotation>",
        "object": "<object>{}</object>",
        "bndbox": "<bndbox>{}</bndbox>",
        "size": f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>",
        "case": str,
    }


def _write_file(rng: random.Random, file: dict[str, Any]) -> str:
    objects = []
    for entry in file["objects"]:
        sides = "".join(f"<{k}>{escape(str(v))}</{k}>" for k, v in entry["box"].items())
        parts = [file["bndbox"].format(sides), f"<name>{escape(str(entry['name']))}</name>"]
        parts.append("<difficult>0</difficult>")
        rng.shuffle(parts)
        objects.append(file["object"].format("".join(parts) + entry["extra"]))
    filename = f"<filename>{escape(str(file['filename']))}</filename>"
    parts = [filename, file["size"], *objects]
    if rng.random() < 0.2:
        rng.shuffle(parts)
    space = rng.choice(("", "\n  ", "\r\n\t"))
    return file["template"].format(space.join(parts))


Files = dict[str, dict[str, Any]]


def _choose(rng: random.Random, files: Files) -> dict[str, Any]:
    file = rng.choice(list(files.values()))
    return rng.choice(file["objects"]) if file["objects"] else {"box": {}, "extra": ""}


def _respell_names(rng: random.Random, files: Files) -> None:
    for file in files.values():
        file["filename"] = respell(rng, file["filename"])


def _name_others(rng: random.Random, files: Files) -> None:
    others = ["gone.png", "../gone.png", "", *(file["filename"] for file in files.values())]
    for file in files.values():
        file["filename"] = rng.choice(others)


def _rename_file(rng: random.Random, files: Files) -> None:
    files["renamed"] = files.pop(rng.choice(list(files)))


def _change_case(rng: random.Random, files: Files) -> None:
    upper = rng.choice((str.upper, str.title))
    for file in files.values():
        for entry in file["objects"]:
            entry["box"] = {upper(key): value for key, value in entry["box"].items()}
        for key in ("template", "object", "bndbox"):
            file[key] = upper(file[key])


def _wrap(rng: random.Random, files: Files) -> None:
    file = rng.choice(list(files.values()))
    file["template"] = rng.choice(
        (
            "<annotations>{}</annotations>",
            "<annotations><annotation>{}</annotation></annotations>",
            '<v:annotation xmlns:v="urn:voc">{}</v:annotation>',
            "<annotation><items>{}</items></annotation>",
            "<annotation><objects>{}</objects></annotation>",
            "<annotation><object><name>x</name>{}</object></annotation>",
            "<other>{}</other>",
        )
    )


def _break_object(rng: random.Random, files: Files) -> None:
    file = rng.choice(list(files.values()))
    file["object"] = rng.choice(
        ("<item>{}</item>", "<object><part>{}</part></object>", "<obj>{}</obj>")
    )


def _break_box(rng: random.Random, files: Files) -> None:
    file = rng.choice(list(files.values()))
    file["bndbox"] = rng.choice(
        ("", "<robndbox>{}</robndbox>", "<polygon>{}</polygon>", "<box>{}</box>")
    )


def _add_to_object(rng: random.Random, files: Files) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
    _choose(rng, files)["extra"] = rng.choice(
        (f"<part><name>x</name>{box}</part>", box, "<name>second</name>", "<polygon/>", "<name/>")
    )


def _break_side(rng: random.Random, files: Files) -> None:
    box = _choose(rng, files)["box"]
    if box:
        side = rng.choice(list(box))
        if rng.random() < 0.5:
            del box[side]
        else:
            box[side] = break_number(rng)


def _respell_numbers(rng: random.Random, files: Files) -> None:
    for file in files.values():
        for entry in file["objects"]:
            box = entry["box"]
            spoilt = {side: _spoil(rng, value) for side, value in box.items()}
            entry["box"] = dict(rng.sample(list(spoilt.items()), len(spoilt)))


def _spoil(rng: random.Random, value: object) -> object:
    try:
        return spoil_number(rng, float(str(value)))
    except ValueError:
        return value


def _lose_label(rng: random.Random, files: Files) -> None:
    _choose(rng, files)["name"] = rng.choice(("", "  "))


def _respell_labels(rng: random.Random, files: Files) -> None:
    for file in files.values():
        for entry in file["objects"]:
            entry["name"] = f"\n {unicodedata.normalize('NFD', entry['name'])} "


def _make_relative(rng: random.Random, files: Files) -> None:
    everywhere = rng.random() < 0.5
    for file in files.values() if everywhere else [rng.choice(list(files.values()))]:
        for entry in file["objects"]:
            for side, value in entry["box"].items():
                size = WIDTH if side.lower()[0] == "x" else HEIGHT
                entry["box"][side] = divide(value, size)


def _lose_size(rng: random.Random, files: Files) -> None:
    for file in files.values():
        file["size"] = rng.choice(("", "<size/>", "<size><width>0</width></size>"))


MUTATIONS: tuple[Callable[[random.Random, Files], None], ...] = (
    _respell_names,
    _name_others,
    _rename_file,
    _change_case,
    _wrap,
    _break_object,
    _break_box,
    _add_to_object,
    _break_side,
    _respell_numbers,
    _lose_label,
    _respell_labels,
    _make_relative,
    _lose_size,
)
