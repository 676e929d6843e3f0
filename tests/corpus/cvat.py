"""Random exports of CVAT, for images and for video, mutated."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from corpus.sources import (
    HEIGHT,
    LABELS,
    WIDTH,
    XYXY,
    Truth,
    break_number,
    divide,
    make_boxes,
    make_truth,
    rename_on_disk,
    respell,
    spoil_number,
    write_image,
    write_spoilt,
)

SIDES = ("xtl", "ytl", "xbr", "ybr")
Element = tuple[str, dict[str, object], list[Any]]


def make(rng: random.Random, folder: Path) -> Truth:
    """Write one export; see `tests/corpus`."""
    place = rng.choice(("", "images/"))
    if rng.random() < 0.5:
        names, root = _make_images(rng)
        mutations = IMAGE_MUTATIONS
    else:
        names, root = _make_video(rng)
        mutations = VIDEO_MUTATIONS
    truth = {place + name: boxes for name, boxes in names.items()}
    chosen = rng.sample(range(len(mutations)), rng.randint(0, 2))
    for index in sorted(chosen):
        mutations[index](rng, root)
    for name in truth:
        write_image(folder / name)
    if rng.random() < 0.15:
        truth = rename_on_disk(rng, folder, truth, rng.choice(list(truth)))
    declared = rng.random() < 0.5
    head = '<?xml version="1.0" encoding="{encoding}"?>\n' if declared else ""
    space = rng.choice(("", "\n"))
    write_spoilt(rng, folder / "annotations.xml", head + _write(root, space), declared=declared)
    return truth


def _write(element: Element, space: str) -> str:
    tag, attributes, children = element
    if tag == "":
        return str(attributes["text"])
    keys = "".join(
        f" {key}={quoteattr(str(value))}" for key, value in attributes.items() if value is not None
    )
    return f"<{tag}{keys}>{space.join(_write(child, space) for child in children)}</{tag}>"


def _make_text(tag: str, text: object) -> Element:
    return (tag, {}, [("", {"text": text}, [])])


def _make_shape(rng: random.Random, label: str | None, box: XYXY) -> Element:
    left, top, right, bottom = box
    attributes: dict[str, object] = {} if label is None else {"label": label}
    kind = rng.choice(("box", "box", "polygon", "ellipse", "mask"))
    if kind == "box":
        attributes |= zip(SIDES, box, strict=True)
    elif kind == "polygon":
        attributes["points"] = f"{left},{top};{right},{top};{right},{bottom}"
    elif kind == "ellipse":
        center = {"cx": (left + right) / 2, "cy": (top + bottom) / 2}
        attributes |= {**center, "rx": (right - left) / 2, "ry": (bottom - top) / 2}
    else:
        attributes |= {"left": left, "top": top, "width": right - left, "height": bottom - top}
    return (kind, attributes, [])


def _make_images(rng: random.Random) -> tuple[Truth, Element]:
    truth = make_truth(rng)
    images = []
    for number, (name, boxes) in enumerate(truth.items()):
        attributes = {"id": number, "name": name, "width": WIDTH, "height": HEIGHT}
        images.append(("image", attributes, [_make_shape(rng, *entry) for entry in boxes]))
    labels = ("labels", {}, [("label", {}, [_make_text("name", name)]) for name in LABELS])
    meta = ("meta", {}, [("task", {}, [labels])])
    return truth, ("annotations", {}, [_make_text("version", "1.1"), meta, *images])


def _make_video(rng: random.Random) -> tuple[Truth, Element]:
    count, start, step = rng.randint(2, 8), rng.choice((0, 0, 5)), rng.choice((1, 1, 3))
    frames = range(start, start + count * step, step)
    pattern = rng.choice(("frame_{:06d}.png", "frame_{:06d}.png", "{:04d}.png"))
    truth: Truth = {pattern.format(frame): [] for frame in frames}
    tracks = []
    for number, (label, box) in enumerate(make_boxes(rng, least=1)):
        first = rng.randrange(count)
        last = rng.randrange(first, count)
        shapes = []
        for index in range(first, last + 1):
            box = tuple(value + 0.5 * (index > first) for value in box)
            truth[pattern.format(frames[index])].append((label, box))
            state = {"frame": frames[index], "keyframe": 1, "outside": 0, "occluded": 0}
            shapes.append(("box", {**state, **dict(zip(SIDES, box, strict=True))}, []))
        if last + 1 < count or rng.random() < 0.3:
            box = tuple(value + 0.5 for value in box)
            state = {"frame": frames[last] + step, "keyframe": 1, "outside": 1, "occluded": 0}
            shapes.append(("box", {**state, **dict(zip(SIDES, box, strict=True))}, []))
        tracks.append(("track", {"id": number, "label": label}, shapes))
    fields = {"size": count, "mode": "interpolation", "start_frame": start}
    fields |= {"stop_frame": frames[-1], "frame_filter": f"step={step}" if step > 1 else ""}
    task = [_make_text(tag, text) for tag, text in fields.items()]
    meta = ("meta", {}, [("task", {}, task)])
    return truth, ("annotations", {}, [_make_text("version", "1.1"), meta, *tracks])


def _list_parts(root: Element, *tags: str) -> list[Element]:
    return [child for child in root[2] if child[0] in tags]


def _choose_shape(rng: random.Random, root: Element) -> Element:
    shapes = [shape for part in _list_parts(root, "image", "track") for shape in part[2]]
    return rng.choice(shapes) if shapes else ("box", {}, [])


def _choose_track(rng: random.Random, root: Element) -> Element:
    tracks = _list_parts(root, "track")
    return rng.choice(tracks) if tracks else ("track", {}, [])


def _respell_names(rng: random.Random, root: Element) -> None:
    for _, attributes, _ in _list_parts(root, "image"):
        attributes["name"] = respell(rng, str(attributes["name"]))


def _lose_name(rng: random.Random, root: Element) -> None:
    image = rng.choice(_list_parts(root, "image"))
    image[1]["name"] = rng.choice((None, "", "gone.png", "../gone.png", "a.png"))


def _list_image_twice(rng: random.Random, root: Element) -> None:
    tag, attributes, shapes = rng.choice(_list_parts(root, "image"))
    root[2].append((tag, dict(attributes), rng.choice((list(shapes), []))))


def _add_subset(rng: random.Random, root: Element) -> None:
    for _, attributes, _ in _list_parts(root, "image"):
        attributes["subset"] = rng.choice(("Train", "train", "default", ""))


def _change_shape(rng: random.Random, root: Element) -> None:
    for part in _list_parts(root, "image", "track"):
        if part[2] and rng.random() < 0.5:
            index = rng.randrange(len(part[2]))
            kind = rng.choice(("polyline", "points", "cuboid", "skeleton", "tag", "Box", "blob"))
            part[2][index] = (kind, *part[2][index][1:])


def _break_shape(rng: random.Random, root: Element) -> None:
    attributes = _choose_shape(rng, root)[1]
    keys = [key for key in attributes if key not in ("label", "frame", "keyframe", "outside")]
    if keys:
        key = rng.choice(keys)
        attributes[key] = rng.choice((None, break_number(rng), "1;2", "", "1,2;3,4"))


def _respell_numbers(rng: random.Random, root: Element) -> None:
    for part in _list_parts(root, "image", "track"):
        for _, attributes, _ in part[2]:
            for key, value in attributes.items():
                if isinstance(value, float):
                    attributes[key] = spoil_number(rng, value)


def _lose_label(rng: random.Random, root: Element) -> None:
    part = rng.choice(_list_parts(root, "image", "track") or [("track", {}, [])])
    for attributes in (part[1], *(shape[1] for shape in part[2])):
        if "label" in attributes:
            attributes["label"] = rng.choice((None, "", "  "))


def _respell_labels(rng: random.Random, root: Element) -> None:
    for part in _list_parts(root, "image", "track"):
        for attributes in (part[1], *(shape[1] for shape in part[2])):
            if isinstance(label := attributes.get("label"), str):
                attributes["label"] = f" {unicodedata.normalize('NFD', label)} "


def _make_relative(rng: random.Random, root: Element) -> None:
    everywhere = rng.random() < 0.5
    parts = _list_parts(root, "image", "track")
    for part in parts if everywhere else rng.sample(parts, min(1, len(parts))):
        for _, attributes, _ in part[2]:
            for key in attributes.keys() - {"label", "frame", "keyframe", "outside", "occluded"}:
                across = "x" in key or key in ("left", "width")
                attributes[key] = divide(attributes[key], WIDTH if across else HEIGHT)


def _shuffle(rng: random.Random, root: Element) -> None:
    rng.shuffle(root[2])
    for part in _list_parts(root, "image", "track"):
        rng.shuffle(part[2])


def _mix(rng: random.Random, root: Element) -> None:
    root[2].append(
        rng.choice((("track", {"label": "x"}, []), ("image", {"name": "mixed.png"}, [])))
    )


def _rename_root(rng: random.Random, root: Element) -> None:
    part = rng.choice(root[2])
    root[2][root[2].index(part)] = (part[0].upper(), *part[1:])


def _lose_frames(rng: random.Random, root: Element) -> None:
    """Leave out frames of a track behind its first."""
    shapes = _choose_track(rng, root)[2]
    if shapes:
        first = min(range(len(shapes)), key=lambda index: float(shapes[index][1]["frame"]))
        shapes.insert(0, shapes.pop(first))
    del shapes[rng.randint(1, 4) : rng.randint(2, 6)]


def _unmark_keyframes(rng: random.Random, root: Element) -> None:
    for _, attributes, _ in _choose_track(rng, root)[2]:
        attributes["keyframe"] = rng.choice((0, 1, None))


def _break_frame(rng: random.Random, root: Element) -> None:
    _choose_shape(rng, root)[1]["frame"] = rng.choice((None, "x", -1, 10**6, 0.5, "1e400", ""))


def _repeat_frame(rng: random.Random, root: Element) -> None:
    shapes = _choose_track(rng, root)[2]
    if shapes:
        shapes.append(rng.choice(shapes))


def _change_meta(rng: random.Random, root: Element) -> None:
    tasks = [task for meta in _list_parts(root, "meta") for task in meta[2]]
    if not tasks:
        return
    fields = tasks[0][2]
    index = rng.randrange(len(fields))
    texts = ("", "x", 0, 1, 7, "step=2", 10**9, -1)
    fields[index] = _make_text(fields[index][0], rng.choice(texts))


IMAGE_MUTATIONS: tuple[Callable[[random.Random, Element], None], ...] = (
    _respell_names,
    _lose_name,
    _list_image_twice,
    _add_subset,
    _change_shape,
    _break_shape,
    _respell_numbers,
    _lose_label,
    _respell_labels,
    _make_relative,
    _shuffle,
    _mix,
)
VIDEO_MUTATIONS: tuple[Callable[[random.Random, Element], None], ...] = (
    _change_shape,
    _break_shape,
    _respell_numbers,
    _lose_label,
    _respell_labels,
    _make_relative,
    _shuffle,
    _mix,
    _rename_root,
    _lose_frames,
    _unmark_keyframes,
    _break_frame,
    _repeat_frame,
    _change_meta,
)
