"""Copies of an image that a source describes differently."""

from __future__ import annotations

import json

import pytest
from corpus.sources import write_image

from vae_aug.ingest.formats.source import DEFAULTS
from vae_aug.ingest.formats.unread import read_with_doubts

NODULE, OTHER = [10, 12, 20, 8], [40, 12, 9, 8]


def write(folder, boxes):
    """Write images with boxes by name in COCO; None does not list one."""
    names = [name for name in boxes if boxes[name] is not None]
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [
            {"image_id": number, "category_id": 1, "bbox": box}
            for number, name in enumerate(names)
            for box in boxes[name]
        ],
        "categories": [{"id": 1, "name": "nodule"}],
    }
    (folder / "train.json").write_text(json.dumps(content))
    for name in boxes:
        if not (folder / name).exists():
            write_image(folder / name)


def read(folder):
    annotations = read_with_doubts("coco", folder, "train", DEFAULTS).annotations
    told = {problem.file for problem in annotations.problems if "copy" in problem.reason}
    states = {image.source_id: image.annotation for image in annotations.images}
    assert told == {name for name, state in states.items() if state == "faulty"}
    return states


@pytest.mark.parametrize(
    ("one", "other", "state"),
    [
        ([NODULE], [OTHER], "faulty"),
        ([NODULE], [], "faulty"),
        ([NODULE, OTHER], [OTHER, NODULE], "complete"),
        ([], [], "complete"),
    ],
)
def test_copies_in_two_folders(tmp_path, one, other, state):
    write(tmp_path, {"images/p1/a.png": one, "images/p2/a.png": other, "images/p1/b.png": []})
    expected = {"images/p1/a.png": state, "images/p2/a.png": state, "images/p1/b.png": "complete"}
    assert read(tmp_path) == expected


def test_images_of_one_name_that_are_no_copies(tmp_path):
    write_image(tmp_path / "images/p1/a.png")
    data = (tmp_path / "images/p1/a.png").read_bytes()
    (tmp_path / "images/p2").mkdir()
    (tmp_path / "images/p2/a.png").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    write(tmp_path, {"images/p1/a.png": [NODULE], "images/p2/a.png": []})
    assert set(read(tmp_path).values()) == {"complete"}


def test_a_copy_of_which_nothing_is_said_contradicts_nothing(tmp_path):
    write(tmp_path, {"images/p1/a.png": [NODULE], "images/p2/a.png": None})
    assert set(read(tmp_path).values()) == {"complete"}
