"""The sheet of an ingest: which images it shows, and that it names nobody."""

from __future__ import annotations

import numpy as np

from vae_aug.ingest import picture
from vae_aug.ingest.picture import SheetImages, write_ingest_sheet
from vae_aug.records.records import make_example, write_records

LABELS = ("cyst", "stone")


def make_record(name, labels, patient="", dtype=np.uint8):
    image = np.arange(20 * 30, dtype=dtype).reshape(20, 30, 1)
    boxes = np.tile([0.25, 0.25, 0.5, 0.5], (len(labels), 1))
    return make_example(
        image,
        source_id=name,
        boxes=boxes,
        labels=labels,
        label_names=LABELS,
        patient=patient,
    )


def choose(records):
    """Names of the images that are chosen of records, given as name, labels, patient."""
    images = SheetImages()
    for name, labels, patient in records:
        images.offer(make_record(name, labels, patient), patient)
    parse = picture.parse_example
    return [parse(r)["image/source_id"].numpy().decode() for r in images.records]


def test_images_without_boxes_are_not_shown():
    assert choose([("a", [], ""), ("b", [0], ""), ("c", [], "")]) == ["b"]


def test_the_first_are_shown_where_nothing_tells_them_apart():
    assert choose([(str(n), [0], "") for n in range(20)]) == [str(n) for n in range(8)]


def test_every_patient_is_shown_before_a_second_image_of_one():
    records = [(f"{patient}{n}", [0], patient) for patient in "abcdefgh" for n in range(5)]
    assert choose(records) == [f"{patient}0" for patient in "abcdefgh"]


def test_labels_get_equal_room():
    common = [(f"cyst{n}", [0], f"p{n}") for n in range(30)]
    rare = [(f"stone{n}", [1], "p0") for n in range(6)]
    shown = choose(common + rare)
    assert sum(name.startswith("stone") for name in shown) == 4
    # An image of both counts for the rarer of them.
    assert "both" in choose([*common, ("both", [0, 1], "p0")])


def test_the_sheet_numbers_images_and_names_nobody(tmp_path, monkeypatch):
    records = [make_record("secret-name", [0, 1, 1], "secret-patient", np.uint16)]
    write_records(records, tmp_path, "train", label_names=LABELS)
    images, written = SheetImages(), []
    images.offer(records[0], "secret-patient")
    monkeypatch.setattr(
        picture, "write_sheet", lambda *arguments, **options: written.append(arguments)
    )
    write_ingest_sheet(tmp_path, "train", images, "1 images and 3 boxes, read as coco")
    ((path, rows, caption),) = written
    assert path == tmp_path / "ingest_train.png"
    ((panel,),) = rows
    assert (panel.heading, panel.note) == ("1", "30 x 20 pixels, 1 cyst, 2 stone")
    assert panel.names == ["cyst", "stone", "stone"] and panel.image.dtype == np.uint16
    assert "Split train: 1 images and 3 boxes, read as coco" in caption
    assert "secret" not in caption + panel.heading + panel.note


def test_a_sheet_of_an_earlier_ingest_goes_where_no_image_has_boxes(tmp_path):
    (tmp_path / "ingest_train.png").write_bytes(b"earlier")
    write_ingest_sheet(tmp_path, "train", SheetImages(), "")
    assert not (tmp_path / "ingest_train.png").exists()
