"""Folders that sort images by what they show."""

from __future__ import annotations

import pytest
from test_copies import NODULE, write

from vae_aug.ingest.formats.source import DEFAULTS
from vae_aug.ingest.formats.unread import read_with_doubts


def read(folder):
    annotations = read_with_doubts("coco", folder, "train", DEFAULTS).annotations
    told = [problem.file for problem in annotations.problems if "beside" in problem.reason]
    states = {image.source_id: image.annotation for image in annotations.images}
    assert told == [name for name, state in states.items() if state == "faulty"]
    return states


@pytest.mark.parametrize(
    ("nothing", "something"),
    [
        ("normal", "malignant"),  # as BUSI sorts ultrasound, with `benign`
        ("no_tumor", "glioma"),
        ("Healthy", "MS"),
        ("negative", "positive/p1"),
        ("notumor", "glioma"),
        ("NonCOVID", "COVID"),
        ("Normal cases", "Benign cases"),
        ("no_dr_images", "mild"),
    ],
)
def test_no_boxes_beside_a_folder_of_images_without_findings(tmp_path, nothing, something):
    write(
        tmp_path,
        {
            f"images/{nothing}/a.png": [],
            f"images/{something}/b.png": [],
            f"images/{something}/c.png": [NODULE],
            "images/d.png": [],
        },
    )
    assert read(tmp_path) == {
        f"images/{nothing}/a.png": "complete",
        f"images/{something}/b.png": "faulty",
        f"images/{something}/c.png": "complete",
        "images/d.png": "complete",
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("p1", "p2"),
        ("0", "1"),
        ("low_dose", "normal_dose"),
        ("train", "normal"),
        ("malignant", "benign"),
        ("background", "site_a"),
        ("control", "p001"),
    ],
)
def test_other_folders_say_nothing(tmp_path, one, other):
    write(tmp_path, {f"images/{one}/a.png": [], f"images/{other}/b.png": [NODULE]})
    assert set(read(tmp_path).values()) == {"complete"}
