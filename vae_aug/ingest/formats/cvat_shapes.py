"""Boxes of the shapes that CVAT draws."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from vae_aug.ingest.formats.source import Box, parse_number

_NO_AREAS = ("polyline", "points", "cuboid", "skeleton", "tag")


# Sums of what overflows are infinite or no numbers, which `clean_boxes` judges.
@np.errstate(over="ignore", invalid="ignore")
def parse_shape(shape: ET.Element, label: str) -> Box | str:
    """Return the box of a shape; a string tells why it has none.

    A polygon, an ellipse, a mask and a rotated box give their bounding box.

    Args:
        shape: A shape of an image, or of one frame of a track.
        label: Its label, which a track has for all its frames.
    """
    if shape.tag in _NO_AREAS:
        return f"a {shape.tag} is no box"
    if shape.tag not in ("box", "polygon", "ellipse", "mask"):
        return "it is of a kind that is not known"
    if shape.tag == "polygon":
        points = _parse_points(shape.get("points", ""))
        if points is None:
            return "a polygon wants at least 3 points x,y"
        return Box([*points.min(axis=0).tolist(), *points.max(axis=0).tolist()], label)
    return Box(_find_corners(shape), label)


def is_outside(shape: ET.Element) -> bool:
    """Tell whether the shape marks that its object is not in the image."""
    return shape.get("outside", "").strip().lower() in ("1", "true")


def is_rotated(shape: ET.Element) -> bool:
    """Tell whether the sides of a box or the axes of an ellipse lie askew."""
    return parse_number(shape.get("rotation", "0")) != 0


def _parse_points(text: str) -> np.ndarray | None:
    """Return `[N, 2]` of "x,y;x,y;..."; None if there are fewer than 3."""
    pairs = [pair.split(",") for pair in text.split(";") if pair.strip()]
    if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
        return None
    return np.array([[parse_number(value) for value in pair] for pair in pairs])


def _find_corners(shape: ET.Element) -> list[float]:
    """Return `xyxy`, not a number where an attribute is missing or none."""

    def get(*keys: str) -> np.ndarray:
        return np.array([parse_number(shape.get(key)) for key in keys])

    if shape.tag == "mask":
        low, size = get("left", "top"), get("width", "height")
        return [*low.tolist(), *(low + size).tolist()]
    angle = np.deg2rad(parse_number(shape.get("rotation", "0")))
    cos, sin = np.cos(angle), np.sin(angle)
    if shape.tag == "ellipse":
        center, half = get("cx", "cy"), get("rx", "ry")
        spread = np.hypot(half * cos, half[::-1] * sin)
    else:
        low, high = get("xtl", "ytl"), get("xbr", "ybr")
        if not is_rotated(shape):
            # Exact, which the way over the centre is not.
            return [*low.tolist(), *high.tolist()]
        center, half = (low + high) / 2, (high - low) / 2
        spread = half * abs(cos) + half[::-1] * abs(sin)
    return [*(center - spread).tolist(), *(center + spread).tolist()]
