"""Boxes that DICOM segmentations and structured reports give to the images beside them."""

from __future__ import annotations

import json
import os
import random
import shutil
import time

import numpy as np
import pytest
from conftest import ROOT
from corpus import dicom_folder
from pydicom import dcmread
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
from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.dicom_folder import read_dicom_folder
from vae_aug.ingest.formats.source import ReaderOptions, clean_label
from vae_aug.ingest.ingest import ingest
from vae_aug.records.records import read_records

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


def list_states(annotations):
    return {image.source_id: image.annotation for image in annotations.images}


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
    # Of 1.3 the segmentation is about frame 1 alone; of 1.2 the report names a frame too many.
    assert list_states(found) == {
        "1.1": "complete",
        "1.2": "faulty",
        "1.3#0": "none",
        "1.3#1": "complete",
    }
    assert found.label_names == ("Mass", "nodule", "rib")
    assert found.notes == ("3 boxes are from 2 DICOM segmentations and structured reports",)


def test_what_gives_no_box_is_reported(source):
    problems = [(p.file, p.reason, p.effect) for p in read_dicom_folder(source).problems]
    assert problems == [
        ("dose.dcm", "is neither a segmentation nor a structured report", "skipped"),
        ("seg.dcm", "region 2: its image is missing", "dropped"),
        ("text.dcm", "no picture, and no region is drawn in it", "skipped"),
        ("sr.dcm", "region 1: its image has not that frame", "dropped"),
    ]


def test_records_and_report_hold_the_boxes(source, tmp_path):
    result = CliRunner().invoke(cli.app, ["ingest", str(source), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "3 boxes are from 2 DICOM segmentations and structured reports" in result.stdout
    report = json.loads((tmp_path / "out" / "ingest_train.json").read_bytes())
    assert (report["images"], report["boxes"], report["dropped"]) == (2, 3, 2)
    assert (report["unannotated"], report["faulty"]) == (1, 1)
    assert report["class_counts"] == {"Mass": 1, "nodule": 1, "rib": 1}
    assert report["notes"] == ["3 boxes are from 2 DICOM segmentations and structured reports"]
    elements = list(read_records(tmp_path / "out"))
    boxes = elements[0]["objects"]["bbox"].numpy() * [*SIZE, *SIZE]  # yxyx
    np.testing.assert_allclose(boxes, [[1, 2, 4, 6], [2, 1, 7, 9]], atol=1e-5)
    assert [e["objects"]["label"].numpy().tolist() for e in elements] == [[1, 0], [2]]


def test_an_image_of_another_size_than_its_segmentation_is_left_out(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_dicom(folder / "a.dcm", np.zeros((16, 20), np.uint16), SOPInstanceUID="1.1")
    write_dicom(folder / "b.dcm", BLANK, SOPInstanceUID="1.2")
    masks = make_mask(1, 2, 4, 6)[None]
    write_segmentation(folder / "seg.dcm", masks, [make_frame(1, make_source("1.1"))])
    report = ingest(folder, tmp_path / "out", keep_ids=True)
    assert (report.images, report.unannotated) == (0, 1)
    ((file, reason),) = report.skipped
    assert file == "a.dcm" and "8 x 10 pixels (height x width), the image has 16 x 20" in reason


VOC = (
    "<annotation><filename>{}</filename><size><width>10</width><height>8</height></size>"
    "{}</annotation>"
)
OBJECT = (
    "<object><name>cyst</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax>"
    "</bndbox></object>"
)


@pytest.fixture
def folder(tmp_path):
    """Images 1.1, 1.2 and 1.3 of one study, in files called otherwise."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, uid in (("a", "1.1"), ("b", "1.2"), ("c", "1.3")):
        write_dicom(folder / f"{name}.dcm", BLANK, SOPInstanceUID=uid, StudyInstanceUID="1.0")
    return folder


def cover(*uids):
    """Return what makes a segmentation one of whole images, marked or not."""
    instances = [make_item(ReferencedSOPInstanceUID=uid) for uid in uids]
    return {"ReferencedSeriesSequence": [make_item(ReferencedInstanceSequence=instances)]}


def write_cover(path, *uids, boxed="1.1", **elements):
    """Write a segmentation that is about images, with a box in one."""
    groups = [make_frame(1, make_source(boxed))]
    elements = {"StudyInstanceUID": "1.0"} | cover(*uids) | elements
    write_segmentation(path, make_mask(1, 2, 4, 6)[None], groups, **elements)


def test_a_folder_of_bare_images_has_no_negatives(folder):
    assert list_states(read_dicom_folder(folder)) == dict.fromkeys(("1.1", "1.2", "1.3"), "none")


def test_a_segmentation_says_of_which_images_it_found_nothing(folder):
    write_cover(folder / "seg.dcm", "1.1", "1.2")
    found = read_dicom_folder(folder)
    assert list_states(found) == {"1.1": "complete", "1.2": "complete", "1.3": "none"}
    assert list_boxes(found)["1.1"] == [("nodule", 2, 1, 6, 4)] and not list_boxes(found)["1.2"]


@pytest.mark.parametrize(
    "name", ["annotations/1.1.xml", "a.xml", "a.dcm.xml", "A.XML", "x.xml", "deep/er/1.1.xml"]
)
def test_an_xml_file_is_that_of_a_uid_or_of_a_file(folder, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(VOC.format("C:\\data\\a.dcm", OBJECT))
    found = read_dicom_folder(folder)
    assert list_states(found) == {"1.1": "complete", "1.2": "none", "1.3": "none"}
    assert list_boxes(found)["1.1"] == [("cyst", 1, 2, 5, 6)] and found.label_names == ("cyst",)
    assert not found.problems


def test_a_box_whose_image_is_not_there_may_be_that_of_any(folder):
    (folder / "1.1.xml").write_text(VOC.format("", OBJECT))
    (folder / "9.9.xml").write_text(VOC.format("", OBJECT))
    found = read_dicom_folder(folder)
    assert list_states(found) == {"1.1": "complete", "1.2": "faulty", "1.3": "faulty"}


def test_an_xml_file_behind_a_link_out_of_the_source_is_not_opened(folder, tmp_path):
    (tmp_path / "elsewhere.xml").write_text(VOC.format("", OBJECT))
    (folder / "1.1.xml").symlink_to(tmp_path / "elsewhere.xml")
    found = read_dicom_folder(folder)
    assert list_states(found) == {"1.1": "faulty", "1.2": "none", "1.3": "none"}
    assert "leads out of the source" in found.problems[0].reason
    (folder / "1.1.xml").rename(folder / "9.9.xml")
    assert set(list_states(read_dicom_folder(folder)).values()) == {"faulty"}


@pytest.mark.parametrize(("size", "state"), [(True, "complete"), (False, "faulty")])
def test_an_xml_file_of_an_exported_image_needs_its_size(tmp_path, size, state):
    write_dicom(tmp_path / "a.dcm", BLANK, SOPInstanceUID="1.1")
    text = VOC.format("a.png", OBJECT)
    (tmp_path / "a.xml").write_text(text if size else text.replace("size>", "sizes>"))
    assert list_states(read_dicom_folder(tmp_path)) == {"1.1": state}


def test_a_uid_is_not_cut_at_its_last_point(tmp_path):
    """`1.2.9` without a suffix is not called `1.2`."""
    write_dicom(tmp_path / "1.2.9", BLANK, SOPInstanceUID="1.2.9")
    (tmp_path / "1.2.xml").write_text(VOC.format("", ""))
    found = read_dicom_folder(tmp_path)
    assert list_states(found) == {"1.2.9": "none"}
    assert [p.reason for p in found.problems] == [
        "no DICOM image has this SOP Instance UID or name"
    ]


def test_empty_broken_and_contradicting_xml_files(folder):
    (folder / "1.1.xml").write_text(VOC.format("", ""))
    (folder / "1.2.xml").write_text("<annotation>")
    (folder / "c.xml").write_text(VOC.format("", OBJECT))
    (folder / "1.3.xml").write_text(VOC.format("", ""))
    found = read_dicom_folder(folder)
    assert list_states(found) == {"1.1": "complete", "1.2": "faulty", "1.3": "faulty"}
    assert [(p.file, p.effect) for p in found.problems] == [
        ("1.2.xml", "unread"),
        ("c.xml", "unread"),
    ]


def test_an_xml_file_of_several_frames_is_a_fault_of_each(source):
    (source / "1.3.xml").write_text(VOC.format("", OBJECT))
    found = read_dicom_folder(source)
    states = list_states(found)
    assert (states["1.3#0"], states["1.3#1"]) == ("faulty", "faulty")


@pytest.mark.parametrize("frames", [1, 2])
def test_an_object_that_cannot_be_read_makes_annotated_images_faulty(folder, frames):
    """Cut off in its header, or within its pixels, whose length then fits its frames no more."""
    (folder / "1.2.xml").write_text(VOC.format("", OBJECT))
    write_cover(folder / "seg.dcm", "1.1", "1.2")
    if frames > 1:
        masks = np.stack([make_mask(1, 2, 4, 6)] * 40)
        groups = [make_frame(1, make_source("1.1")) for _ in masks]
        write_segmentation(folder / "seg.dcm", masks, groups, StudyInstanceUID="1.0")
    data = (folder / "seg.dcm").read_bytes()
    (folder / "seg.dcm").write_bytes(data[: len(data) * 3 // 4 if frames == 1 else -200])
    found = read_dicom_folder(folder)
    assert list_states(found)["1.2"] == "faulty" and "complete" not in list_states(found).values()
    assert list_boxes(found)["1.2"] == [("cyst", 1, 2, 5, 6)]


@pytest.mark.parametrize("name", ["masks/a.dcm", "a_mask.dcm", "1-ROI mask images/1-1.dcm"])
def test_a_mask_in_dicom_is_no_image(folder, name):
    write_cover(folder / "seg.dcm", "1.1", "1.2")
    (folder / name).parent.mkdir(exist_ok=True)
    write_dicom(folder / name, BLANK, SOPInstanceUID="1.4", StudyInstanceUID="2.0")
    found = read_dicom_folder(folder)
    assert list_states(found) == {"1.1": "complete", "1.2": "faulty", "1.3": "faulty"}
    assert [problem.file for problem in found.problems] == [name]
    # Where all are called so, it is only a name.
    (folder / "masks").mkdir(exist_ok=True)
    for stem in "abc":
        (folder / f"{stem}.dcm").rename(folder / "masks" / f"{stem}_0.dcm")
    assert list_states(read_dicom_folder(folder))["1.2"] == "complete"


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({0x60003000: b"\0\1"}, "faulty"),
        ({0x60003000: b"\0\0"}, "complete"),
        ({0x601E3000: b"\1\0"}, "faulty"),
        ({0x60000010: 4}, "faulty"),
    ],
)
def test_what_is_drawn_in_an_overlay_is_no_negative(folder, values, state):
    write_cover(folder / "seg.dcm", "1.1", "1.2")
    for name in ("a", "b"):
        dataset = dcmread(folder / f"{name}.dcm")
        for tag, value in values.items():
            dataset.add_new(tag, "OW" if isinstance(value, bytes) else "US", value)
        dataset.save_as(folder / f"{name}.dcm")
    assert list_states(read_dicom_folder(folder)) == {
        "1.1": "complete",
        "1.2": state,
        "1.3": "none",
    }


@pytest.mark.parametrize(
    ("kind", "extra", "name"),
    [
        ("1.2.840.10008.5.1.4.1.1.481.3", {}, "an RT structure set"),
        ("1.2.840.10008.5.1.4.1.1.481.11", {}, "an RT segment annotation"),
        ("1.2.840.10008.5.1.4.1.1.66.2", {}, "a set of fiducials"),
        ("1.2.840.10008.5.1.4.1.1.104.3", {}, "a surface in an STL file"),
        (
            "1.2.840.10008.5.1.4.1.1.11.1",
            {"GraphicAnnotationSequence": [make_item(GraphicLayer="A")]},
            "a presentation state with graphics",
        ),
        ("1.2.840.10008.5.1.4.1.1.91.1", {}, "a set of microscopy annotations"),
        ("1.2.840.10008.5.1.4.1.1.88.59", {}, "a selection of key images"),
    ],
)
def test_marks_that_are_not_read_leave_no_negatives_in_their_study(folder, kind, extra, name):
    write_cover(folder / "seg.dcm", "1.1", "1.2")
    dataset = write_state(folder / "x.dcm", SOPClassUID=kind, **extra)
    found = read_dicom_folder(folder)
    assert list_states(found) == {"1.1": "complete", "1.2": "faulty", "1.3": "faulty"}
    assert [(p.file, p.reason) for p in found.problems] == [("x.dcm", f"{name}, which is not read")]
    assert any(note.startswith(f"{name} is not read") for note in found.notes)
    # Another study is not meant.
    dataset.StudyInstanceUID = "2.0"
    write_dicom(folder / "d.dcm", BLANK, SOPInstanceUID="2.1", StudyInstanceUID="2.0")
    dataset.save_as(folder / "x.dcm")
    assert list_states(read_dicom_folder(folder))["1.2"] == "complete"


def test_an_object_of_images_that_are_not_there_leaves_no_negatives(folder):
    write_cover(folder / "seg.dcm", "1.1", "1.2")
    write_cover(folder / "other.dcm", "9.1", boxed="9.1", SOPInstanceUID="3.1")
    found = read_dicom_folder(folder)
    assert list_states(found) == {"1.1": "complete", "1.2": "faulty", "1.3": "faulty"}


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
LOST = {
    "cut": bytes(100),
    "cut behind its prefix": bytes(128) + b"DICM",
    "cut in its first elements": None,
    "pointer": LFS,
    "empty": b"",
    "link": "gone",
    "link to a folder": "../elsewhere",
    "link out of the source": "../elsewhere/seg.dcm",
}


NAMES = ["seg2.dcm", "SEG0001", "1.2.840.7", "more/seg.IMA", "seg2.dcm.part"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", LOST)
def test_a_file_that_cannot_be_read_may_be_a_segmentation(folder, kind, name, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    write_cover(tmp_path / "elsewhere" / "seg.dcm", "1.1", "1.2")
    write_cover(folder / "seg.dcm", "1.1", "1.2")
    lost, content = folder / name, LOST[kind]
    lost.parent.mkdir(exist_ok=True)
    if isinstance(content, str):
        lost.symlink_to(os.path.relpath(tmp_path / "in" / content, lost.parent))
    else:
        lost.write_bytes((folder / "seg.dcm").read_bytes()[:160] if content is None else content)
    found = read_dicom_folder(folder)
    assert list_states(found) == {"1.1": "complete", "1.2": "faulty", "1.3": "faulty"}
    assert [problem.file for problem in found.problems] == [name]
    assert found.notes[-1].startswith("1 file cannot be read and may be an annotation")


@pytest.mark.parametrize("name", ["seg", "report", "state"])
def test_wherever_an_object_is_cut_it_leaves_no_negative(folder, tmp_path, name):
    path = tmp_path / name
    if name == "seg":
        write_cover(path, "1.2", boxed="1.2", SOPInstanceUID="3.1")
    elif name == "report":
        outline = make_outline("CIRCLE", [4, 4, 4, 6], draw_in("1.2"))
        write_report(path, [make_finding("Mass"), outline])
    else:
        write_state(path, GraphicAnnotationSequence=[make_item(GraphicLayer="A")])
    write_cover(folder / "seg.dcm", "1.1", "1.2")
    data = path.read_bytes()
    for end in range(0, len(data), 7):
        (folder / "x.dcm").write_bytes(data[:end])
        found = read_dicom_folder(folder)
        assert list_states(found)["1.2"] == "faulty" or list_boxes(found)["1.2"], end


def write_state(path, **elements):
    kind = "1.2.840.10008.5.1.4.1.1.11.1"
    dataset = write_dicom(path, BLANK, SOPClassUID=kind, StudyInstanceUID="1.0")
    del dataset.PixelData, dataset.Rows, dataset.Columns
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return dataset


@pytest.mark.parametrize("name", ["all/seg.dcm", "1.2.xml", "val/seg.dcm", "seg.dcm.txt"])
def test_a_file_in_no_folder_of_a_split_may_be_an_annotation(folder, name):
    write_cover(folder / "seg.dcm", "1.1", "1.2")
    (folder / "train").mkdir()
    for path in list(folder.glob("*.dcm")):
        path.rename(folder / "train" / path.name)
    (folder / name).parent.mkdir(exist_ok=True)
    write_cover(folder / name, "1.2", boxed="1.2")
    is_stray = name in ("all/seg.dcm", "1.2.xml")
    if name.endswith(".txt"):
        (folder / name).write_text("(0008,0016) SOP Class UID")
    found = read_dicom_folder(folder)
    assert list_states(found)["1.2"] == ("faulty" if is_stray else "complete")
    assert any("1 DICOM or XML file lies in no folder" in note for note in found.notes) == is_stray


def test_a_presentation_state_without_graphics_marks_nothing(folder):
    write_cover(folder / "seg.dcm", "1.1", "1.2")
    dataset = write_state(folder / "x.dcm", ContentLabel="WINDOW")
    found = read_dicom_folder(folder)
    assert list_states(found) == {"1.1": "complete", "1.2": "complete", "1.3": "none"}
    dataset.add_new(0x60003000, "OW", b"\1\0")  # Overlay Data
    dataset.save_as(folder / "x.dcm")
    assert list_states(read_dicom_folder(folder))["1.2"] == "faulty"


def test_files_that_are_plainly_no_segmentation_doubt_nothing(folder):
    write_cover(folder / "seg.dcm", "1.1", "1.2")
    (folder / "README").write_text("Seven patients.")
    (folder / "notes.txt").symlink_to("gone")
    for name in (".DS_Store", "._seg.dcm", "DICOMDIR", "preview.bin"):
        (folder / name).write_bytes(bytes(100))
    data = (folder / "c.dcm").read_bytes()
    (folder / "c.dcm").write_bytes(data[: data.index(b"CT") + 2])  # its class tells what it is
    (folder / "link").symlink_to(".", target_is_directory=True)
    found = read_dicom_folder(folder)
    assert list_states(found) == {"1.1": "complete", "1.2": "complete"}


def test_images_of_one_uid_and_other_pixels_are_faulty_where_annotated(folder):
    (folder / "1.1.xml").write_text(VOC.format("", OBJECT))
    (folder / "1.2.xml").write_text(VOC.format("", OBJECT))
    shutil.copy(folder / "b.dcm", folder / "copy.dcm")
    write_dicom(folder / "z.dcm", BLANK + 1, SOPInstanceUID="1.1", StudyInstanceUID="1.0")
    states = list_states(read_dicom_folder(folder))
    assert states == {"1.1": "faulty", "1.2": "complete", "1.3": "none"}


def test_annotations_may_lie_apart_from_the_images(folder, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "1.1.xml").write_text(VOC.format("", OBJECT))
    write_cover(tmp_path / "notes" / "seg.dcm", "1.1", "1.2")
    found = read_dicom_folder(tmp_path / "notes", "train", ReaderOptions(images=folder))
    assert list_states(found) == {"1.1": "complete", "1.2": "complete", "1.3": "none"}
    assert len(list_boxes(found)["1.1"]) == 2


def test_pipes_links_and_directories_are_named_and_left_out(folder, tmp_path):
    write_dicom(tmp_path / "secret.dcm", BLANK, SOPInstanceUID="6.6")
    (folder / "link.dcm").symlink_to(tmp_path / "secret.dcm")
    os.mkfifo(folder / "pipe.dcm")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    found = read_dicom_folder(folder)
    assert list(list_states(found)) == ["1.1", "1.2", "1.3"]
    assert [p.file for p in found.problems] == ["link.dcm", "pipe.dcm"]


def test_frames_that_are_not_there_cost_a_file_and_no_time():
    case = ROOT.parent / "shared" / "cases" / "hostile" / "dicom_frames" / "src"
    if not case.is_dir():
        pytest.skip(f"no cases: {case} is not a folder")
    start = time.perf_counter()
    found = read_dicom_folder(case)
    assert time.perf_counter() - start < 5
    assert [image.path.name for image in found.images] == ["ok.dcm"]
    assert [(p.file, p.effect) for p in found.problems] == [("frames.dcm", "skipped")]


@pytest.mark.real_data
def test_real_slices_without_an_xml_file_are_unannotated(data_dir):
    found = read_dicom_folder(data_dir / "lung_ct_dicom")
    states = list(list_states(found).values())
    assert (states.count("complete"), states.count("none"), len(states)) == (11, 53, 64)
    assert sum(len(image.labels) for image in found.images) == 11 and not found.problems


def find_short(found, truth, folder):
    """Return the images that are complete and lack a box of the source."""
    short = []
    for image in found.images:
        key = image.path.relative_to(folder).as_posix()
        key = key if key in truth else f"{key}#{image.item.index}"
        boxes = list(zip(image.labels, map(tuple, image.boxes.tolist()), strict=True))
        if image.annotation == "complete" and any(
            box not in boxes for box in [(clean_label(name), xyxy) for name, xyxy in truth[key]]
        ):
            short.append(key)
    return short


def test_mutated_sources_lose_no_box_without_a_word(tmp_path):
    """Sources of a seeded generator; `complete` is what it must not be called if boxes are lost."""
    states = []
    for seed in range(100):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth = dicom_folder.make(random.Random(seed), folder)
        try:
            found = read_dicom_folder(folder)
        except AnnotationError:
            continue
        assert not find_short(found, truth, folder), seed
        states += list_states(found).values()
    assert min(states.count(state) for state in ("complete", "faulty", "none")) > 20
