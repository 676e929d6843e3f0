"""Random projects, JSON files and tables of VIA, mutated."""

from __future__ import annotations

import csv
import io
import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from corpus.sources import HEIGHT, WIDTH, XYXY, Truth, write_image

LABELS = ("nodule", "Läsion", "kyste rénal", "7")
NAMES = ("a.png", "Béta.png", "c 3.png", "d.png")


def make(rng: random.Random, folder: Path) -> Truth:
    """Write one file of VIA with its images; see the package for what is returned."""
    attribute = rng.choice(("class", "label", "Läsion", "name"))
    names = rng.sample(NAMES, rng.randint(1, 4))
    truth: Truth = {name: [] for name in names}
    entries: dict[str, dict[str, Any]] = {}
    checkbox = rng.random() < 0.2
    for name in names:
        write_image(folder / name)
        regions = []
        for _ in range(rng.randint(0, 3)):
            label, (box, shape) = rng.choice(LABELS), _make_shape(rng)
            truth[name].append((label, box))
            value = {label: True, "other": False} if checkbox else label
            attributes = {attribute: value, **({"note": "x"} if attribute != "Läsion" else {})}
            regions.append({"shape_attributes": shape, "region_attributes": attributes})
        entries[f"{name}{100}"] = {
            "filename": name,
            "size": 100,
            "regions": regions,
            "file_attributes": {},
        }
    is_table = rng.random() < 0.4
    for _ in range(rng.choice((0, 0, 1, 2))):
        mutate = rng.choice(_MUTATIONS)
        # A table has no keys that would tell.
        if not (is_table and mutate is _swap_name):
            mutate(rng, entries)
    encoding = rng.choice(("utf-8", "utf-8-sig"))
    if is_table:
        text, name = _write_table(rng, entries), "via.csv"
    else:
        text, name = _write_json(rng, entries), "train.json"
    if rng.random() < 0.15 and len(text) > 1:
        text = _cut(rng, text, name)
    (folder / name).write_bytes(text.encode(encoding))
    return truth


def _make_shape(rng: random.Random) -> tuple[XYXY, dict[str, Any]]:
    left, top = rng.randrange(WIDTH - 20), rng.randrange(HEIGHT - 14)
    width, height = rng.randint(3, 18), rng.randint(3, 12)
    right, bottom = left + width, top + height
    match rng.randrange(4):
        case 0:
            box = left, top, right, bottom
            return box, {"name": "rect", "x": left, "y": top, "width": width, "height": height}
        case 1:
            radius = min(width, height) / 2
            x, y = left + radius, top + radius
            box = left, top, left + 2 * radius, top + 2 * radius
            return box, {"name": "circle", "cx": x, "cy": y, "r": radius}
        case 2:
            shape = {"cx": left + width / 2, "cy": top + height / 2}
            # A quarter turn exchanges the half axes.
            radii = {"rx": height / 2, "ry": width / 2, "theta": np.pi / 2}
            return (left, top, right, bottom), {"name": "ellipse", **shape, **radii}
    xs, ys = [left, right, right - 1, left], [top, top + 1, bottom, bottom]
    return (left, top, right, bottom), {"name": "polygon", "all_points_x": xs, "all_points_y": ys}


def _write_json(rng: random.Random, entries: dict[str, dict[str, Any]]) -> str:
    content: Any = dict(rng.sample(list(entries.items()), len(entries)))
    if rng.random() < 0.3:
        for entry in content.values():
            if isinstance(entry.get("regions"), list):
                entry["regions"] = {str(i): region for i, region in enumerate(entry["regions"])}
    if rng.random() < 0.5:
        content = {"_via_settings": {}, "_via_img_metadata": content, "_via_attributes": {}}
    return json.dumps(content, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1)))


def _write_table(rng: random.Random, entries: dict[str, dict[str, Any]]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator=rng.choice(("\n", "\r\n")))
    start = rng.choice(("", "#"))
    writer.writerow(
        [
            f"{start}filename",
            "file_size",
            "file_attributes",
            "region_count",
            "region_id",
            "region_shape_attributes",
            "region_attributes",
        ]
    )
    for entry in entries.values():
        regions = entry.get("regions")
        regions = regions if isinstance(regions, list) else []
        for number, region in enumerate(regions or [{}]):
            shape, attributes = (
                json.dumps(region.get(key, {})) for key in ("shape_attributes", "region_attributes")
            )
            count = entry.get("count", len(regions))
            first = [entry.get("filename", ""), entry.get("size", ""), "{}", count, number]
            writer.writerow([*first, shape, attributes])
    return stream.getvalue()


def _cut(rng: random.Random, text: str, name: str) -> str:
    """Cut a file in its last line, where a table still counts the regions that are lost."""
    if name == "train.json":
        return text[: rng.randrange(1, len(text))]
    start = text.rstrip().rfind("\n") + 1
    return text[: rng.randrange(start + 1, len(text.rstrip()))] if start else text


# --- Mutations

_Entries = dict[str, dict[str, Any]]


def _pick_region(rng: random.Random, entries: _Entries) -> dict[str, Any] | None:
    lists = [entry["regions"] for entry in entries.values() if isinstance(entry["regions"], list)]
    regions = [region for regions in lists for region in regions if region]
    return rng.choice(regions) if regions else None


def _respell(rng: random.Random, entries: _Entries) -> None:
    change: Callable[[str], str] = rng.choice(
        (
            str.upper,
            lambda name: unicodedata.normalize("NFD", name),
            lambda name: f"images\\{name}",
            lambda name: f"https://server/set/{name}",
            lambda name: f" {name} ",
        )
    )
    for entry in entries.values():
        entry["filename"] = change(str(entry.get("filename", "")))


def _swap_name(rng: random.Random, entries: _Entries) -> None:
    """Give an entry the name of another image, and leave its key."""
    rng.choice(list(entries.values()))["filename"] = rng.choice(NAMES)


def _lose_name(rng: random.Random, entries: _Entries) -> None:
    entry = rng.choice(list(entries.values()))
    entry["filename"] = ""


def _lose_regions(rng: random.Random, entries: _Entries) -> None:
    entry = rng.choice(list(entries.values()))
    entry["count"] = len(entry["regions"]) if isinstance(entry["regions"], list) else 1
    entry["regions"] = rng.choice((None, "x", 3))


def _break_shape(rng: random.Random, entries: _Entries) -> None:
    if (region := _pick_region(rng, entries)) is not None:
        shape = region.setdefault("shape_attributes", {"name": "rect"})
        key = rng.choice(list(shape))
        shape[key] = rng.choice((None, "x", [], {}, "point", "polyline"))


def _break_label(rng: random.Random, entries: _Entries) -> None:
    if (region := _pick_region(rng, entries)) is not None:
        for key in region.get("region_attributes", ()):
            region["region_attributes"][key] = rng.choice(("", None, {}, "undefined", []))


def _lose_part(rng: random.Random, entries: _Entries) -> None:
    if (region := _pick_region(rng, entries)) is not None:
        region.pop(rng.choice(list(region)))


_MUTATIONS = (
    *(_respell, _swap_name, _lose_name, _lose_regions, _break_shape, _break_label, _lose_part),
)
