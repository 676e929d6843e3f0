"""Boxes that DICOM segmentations and structured reports give to the images beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_dicom import write_dicom
from test_dicom_regions import (
    make_finding,
    make_frame,
    make_item,
    make_outline,
    make_source,
    write_report,
    write_segmentation,
)
from typer.testing import CliRunner

from vae_aug import cli
from vae_aug.data.annotations.dicom_folder import read_dicom_folder
from vae_aug.data.ingest import ingest
from vae_aug.data.records import read_records

SIZE = (8, 10)
BLANK = np.zeros(SIZE, np.uint16)


def make_mask(top, left, bottom, right):
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def draw_in(uid, **elements):
    """Return the content of an outline that is drawn in an image."""
    reference = make_item(ReferencedSOPInstanceUID=uid, **elements)
    return [make_item(ValueType="IMAGE", ReferencedSOPSequence=[reference])]


@pytest.fixture
def source(tmp_path):
    """Three images, of which one has two frames, a segmentation and a report."""
    folder = tmp_path / "in"
    folder.mkdir()
    for uid in ("1.1", "1.2"):
        write_dicom(folder / f"{uid}.dcm", BLANK, SOPInstanceUID=uid)
    frames = np.concatenate([BLANK, BLANK + 1])
    write_dicom(folder / "1.3.dcm", BLANK, SOPInstanceUID="1.3", NumberOfFrames=2)
    dataset = write_dicom(folder / "1.3.dcm", BLANK, SOPInstanceUID="1.3")
    dataset.NumberOfFrames, dataset.PixelData = 2, frames.tobytes()
    dataset.save_as(folder / "1.3.dcm")
    masks = np.stack([make_mask(1, 2, 4, 6), make_mask(0, 0, 2, 3), make_mask(5, 5, 8, 10)])
    groups = [
        make_frame(1, make_source("1.1")),
        make_frame(2, make_source("1.3", ReferencedFrameNumber=2)),
        make_frame(1, make_source("1.9")),
    ]
    write_segmentation(folder / "seg.dcm", masks, groups)
    outline = make_outline("POLYLINE", [1, 2, 9, 2, 9, 7, 1, 7], draw_in("1.1"))
    late = make_outline("CIRCLE", [4, 4, 4, 6], draw_in("1.2", ReferencedFrameNumber=3))
    write_report(folder / "sr.dcm", [make_finding("Mass"), outline, late])
    write_report(folder / "text.dcm", [make_finding("Mass")])
    write_dicom(folder / "dose.dcm", BLANK, SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2")
    return folder


def list_boxes(annotations):
    return {
        image.source_id: [
            (label, *box) for label, box in zip(image.labels, image.boxes.tolist(), strict=True)
        ]
        for image in annotations.images
    }


def test_boxes_go_to_the_image_and_frame_that_they_are_drawn_in(source):
    found = read_dicom_folder(source)
    assert list_boxes(found) == {
        "1.1": [("nodule", 2, 1, 6, 4), ("Mass", 1, 2, 9, 7)],
        "1.2": [],
        "1.3#0": [],
        "1.3#1": [("rib", 0, 0, 3, 2)],
    }
    assert found.label_names == ("Mass", "nodule", "rib")
    assert found.notes == ("3 boxes are from 2 DICOM segmentations and structured reports",)


def test_what_gives_no_box_is_reported(source):
    problems = [(p.file, p.reason, p.effect) for p in read_dicom_folder(source).problems]
    assert problems == [
        ("dose.dcm", "is neither a segmentation nor a structured report", "skipped"),
        ("text.dcm", "no picture, and no region is drawn in it", "skipped"),
        ("seg.dcm", "region 2: its image is missing", "dropped"),
        ("sr.dcm", "region 1: its image has not that frame", "dropped"),
    ]


def test_records_and_report_hold_the_boxes(source, tmp_path):
    result = CliRunner().invoke(cli.app, ["ingest", str(source), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "3 boxes are from 2 DICOM segmentations and structured reports" in result.stdout
    report = json.loads((tmp_path / "out" / "ingest_train.json").read_bytes())
    assert (report["images"], report["boxes"], report["dropped"]) == (4, 3, 2)
    assert report["class_counts"] == {"Mass": 1, "nodule": 1, "rib": 1}
    assert report["notes"] == ["3 boxes are from 2 DICOM segmentations and structured reports"]
    elements = list(read_records(tmp_path / "out"))
    boxes = elements[0]["objects"]["bbox"].numpy() * [*SIZE, *SIZE]  # yxyx
    np.testing.assert_allclose(boxes, [[1, 2, 4, 6], [2, 1, 7, 9]], atol=1e-5)
    assert [e["objects"]["label"].numpy().tolist() for e in elements] == [[1, 0], [], [], [2]]


def test_an_image_of_another_size_than_its_segmentation_is_left_out(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_dicom(folder / "a.dcm", np.zeros((16, 20), np.uint16), SOPInstanceUID="1.1")
    write_dicom(folder / "b.dcm", BLANK, SOPInstanceUID="1.2")
    masks = make_mask(1, 2, 4, 6)[None]
    write_segmentation(folder / "seg.dcm", masks, [make_frame(1, make_source("1.1"))])
    report = ingest(folder, tmp_path / "out", keep_ids=True)
    assert report.images == 1
    ((file, reason),) = report.skipped
    assert file == "a.dcm" and "8 x 10 pixels (height x width), the image has 16 x 20" in reason
