"""Files that look like annotations and that the reader of the source's format does not open."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pytest
from pydicom.uid import RTStructureSetStorage
from test_dicom import write_dicom
from test_dicom_folder import BLANK, write_cover
from test_ingest_truth import BOX, write_images, write_text

from vae_aug.codecs.images import write_image
from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats import READERS
from vae_aug.ingest.formats.detect import detect_format
from vae_aug.ingest.formats.source import ReaderOptions
from vae_aug.ingest.formats.unread import read_with_doubts
from vae_aug.ingest.ingest import ingest

OBJECT = (
    "<object><name>n</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
    "</bndbox></object>"
)
SHAPE = '{"shapes": [{"label": "n", "points": [[1, 2], [9, 9]], "shape_type": "rectangle"}]}'
REGION = {
    "shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 8, "height": 7},
    "region_attributes": {"label": "n"},
}
ARCHIVE = b"PK\5\6" + b"\0" * 18


def read(source, format="auto"):
    """Return how many boxes each annotated image has, and the problems."""
    is_told = format != "auto"
    format, _, _, named = detect_format(source) if format == "auto" else (format, "", "", ())
    options = ReaderOptions()
    found, _ = read_with_doubts(format, source, "train", options, named, is_told=is_told)
    counts = {i.source_id: len(i.labels) for i in found.images if i.annotation == "complete"}
    return counts, [(problem.file, problem.effect) for problem in found.problems]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_source(folder, format):
    """Write three images, of which `a` has a box and the others none."""
    write_images(folder / "images", "a.png", "b.png", "c.png")
    if format == "yolo":
        write_text(folder / "labels" / "a.txt", f"{BOX}\n")
        write_text(folder / "classes.txt", "nodule\n")
    elif format == "masks":
        (folder / "masks").mkdir()
        for name in "abc":
            write_images(folder / "masks", f"{name}.png")
            write_mask(folder / "masks" / f"{name}.png", 255 * (name == "a"))
    else:
        for name in "abc":
            text = f"<annotation>{OBJECT * (name == 'a')}</annotation>"
            write_text(folder / "Annotations" / f"{name}.xml", text)


def write_mask(path, value):
    pixels = np.zeros((48, 64, 1), np.uint8)
    pixels[10:20, 10:20] = value
    path.unlink()
    write_image(path, pixels)


@pytest.mark.parametrize(
    ("format", "name", "content"),
    [
        ("yolo", "json/b.json", SHAPE),
        ("yolo", "old/b.lbl", BOX),
        ("yolo", "old/b.txt.gz", gzip.compress(BOX.encode(), mtime=0)),
        ("yolo", "rois/b.zip", ARCHIVE),
        ("yolo", "b.qpdata", b"\0"),
        ("voc", "Annotations_v2/b.xml", f"<annotation>{OBJECT}</annotation>"),
        ("masks", "images/b.json", SHAPE),
        ("masks", "lesions/b.roi", b"Iout"),
        ("masks", "lesions/b_seg_2.nrrd", b"NRRD0004"),
    ],
)
def test_a_file_of_the_name_of_an_image_leaves_it_in_doubt(tmp_path, format, name, content):
    write_source(tmp_path / "in", format)
    write(tmp_path / "in" / name, content)
    found, problems = read(tmp_path / "in", format)
    assert {key[-5:]: count for key, count in found.items()} == {"a.png": 1, "c.png": 0}
    assert (name, "skipped") in problems


@pytest.mark.parametrize("format", ["yolo", "voc", "masks"])
def test_nothing_else_is_doubted(tmp_path, format):
    folder = tmp_path / "in"
    write_source(folder, format)
    for name in ("README.txt", "meta/b.xmp", "meta/b.pgw", "labels.zip", "dataset.zip"):
        write(folder / name, ARCHIVE)
    (folder / "labels").mkdir(exist_ok=True)  # what labels.zip held
    found, problems = read(folder, format)
    assert sorted(found.values()) == [0, 0, 1] and not problems


@pytest.mark.parametrize("format", ["yolo", "voc"])
def test_an_export_in_two_formats_keeps_what_both_call_negatives(tmp_path, format):
    write_source(tmp_path / "in", "yolo")
    write_source(tmp_path / "in", "voc")
    for name in "bc":
        write(tmp_path / "in" / "labels" / f"{name}.txt", "")
    write(tmp_path / "in" / "json" / "b.json", '{"shapes": [], "imagePath": "b.png"}')
    found, problems = read(tmp_path / "in", format)
    assert sorted(found.values()) == [0, 0, 1] and not problems
    other = {"yolo": f"<annotation>{OBJECT}</annotation>", "voc": BOX}[format]
    name = {"yolo": "Annotations/b.xml", "voc": "labels/b.txt"}[format]
    write(tmp_path / "in" / name, other)
    found, problems = read(tmp_path / "in", format)
    assert sorted(found.values()) == [0, 1] and problems == [(name, "skipped")]


@pytest.mark.parametrize("format", ["yolo", "voc", "masks"])
def test_an_archive_of_annotations_may_be_of_any_image(tmp_path, format):
    write_source(tmp_path / "in", format)
    write(tmp_path / "in" / "labels" / "part_2.zip", ARCHIVE)
    found, problems = read(tmp_path / "in", format)
    assert list(found.values()) == [1] and problems[0] == ("labels/part_2.zip", "skipped")


def test_a_file_is_that_of_the_image_in_its_folder(tmp_path):
    for patient in ("p1", "p2"):
        write_images(tmp_path / "in" / "images" / patient, "1.png", "2.png", "2.5.png")
        for name in ("1", "2", "2.5"):
            text = f"<annotation>{OBJECT * (name == '1')}</annotation>"
            write_text(tmp_path / "in" / "Annotations" / patient / f"{name}.xml", text)
    write(tmp_path / "in" / "images" / "p1" / "2.5.roi", b"Iout")
    found, _ = read(tmp_path / "in")
    empty = {key.removeprefix("images/") for key, count in found.items() if not count}
    assert empty == {"p1/2.png", "p2/2.png", "p2/2.5.png"}


def test_files_of_another_split_do_not_count(tmp_path):
    for split in ("train", "val"):
        write_images(tmp_path / "in" / split, "a.png", "b.png")
        for name in "ab":
            text = f"<annotation>{OBJECT * (name == 'a' or split == 'val')}</annotation>"
            write_text(tmp_path / "in" / split / f"{name}.xml", text)
    assert sorted(read(tmp_path / "in", "voc")[0].values()) == [0, 1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("seg.zip", ARCHIVE),
        ("series.nrrd", b"NRRD0004"),
        ("series.nii.gz", gzip.compress(b"", mtime=0)),
        ("annotations.csv", "a,b\n"),
        ("masks/b.png", b""),
        ("b.json", SHAPE),
    ],
)
def test_beside_dicom_it_may_be_of_what_a_segmentation_left_empty(tmp_path, name, content):
    folder = tmp_path / "in"
    folder.mkdir()
    for stem, uid in (("a", "1.1"), ("b", "1.2")):
        write_dicom(folder / f"{stem}.dcm", BLANK, SOPInstanceUID=uid, StudyInstanceUID="1.0")
    write_cover(folder / "seg.dcm", "1.1", "1.2")
    assert read(folder, "dicom") == ({"1.1": 1, "1.2": 0}, [])
    write(folder / name, content)
    assert read(folder, "dicom") == ({"1.1": 1}, [(name, "skipped")])


def test_what_an_archive_may_mark_becomes_no_negative(tmp_path):
    (tmp_path / "in").mkdir()
    write_dicom(tmp_path / "in" / "a.dcm", BLANK, SOPInstanceUID="1.1", StudyInstanceUID="1.0")
    write(tmp_path / "in" / "rtstruct.zip", ARCHIVE)
    options = {"format": "dicom", "unannotated": "negative"}
    report = ingest(tmp_path / "in", tmp_path / "out", **options)
    assert (report.images, report.faulty) == (0, 1) and "was not read" in report.skipped[0][1]


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("p1/Segmentation.seg.nrrd", 1),
        ("p1/slicer/volume.nrrd", 1),
        ("p1/aseg.mgz", 1),
        ("p1/F.mrk.json", 1),
        ("p1/lesion_mask.npy", 1),
        ("p1/features.npy", 2),
        ("p1/ct.json", 2),
        ("atlas.nrrd", 2),
        ("old/atlas.nrrd", 2),
    ],
)
def test_a_volume_in_the_folder_of_a_patient_leaves_its_slices_in_doubt(tmp_path, name, others):
    nibabel = pytest.importorskip("nibabel")
    random = np.random.default_rng(0)
    for patient in ("p1", "p2", "p3"):
        pixels = random.integers(-500, 900, (8, 7, 1)).astype(np.int16)
        labels = np.full_like(pixels, 0, np.uint8)
        labels[2:4, 3:5] = patient == "p3"
        (tmp_path / "in" / patient).mkdir(parents=True)
        for stem, values in (("ct", pixels), ("ct_seg", labels)):
            volume = nibabel.Nifti1Image(values, np.eye(4))
            nibabel.save(volume, tmp_path / "in" / patient / f"{stem}.nii.gz")
    assert sorted(read(tmp_path / "in")[0].values()) == [0, 0, 1]
    write(tmp_path / "in" / name, b"NRRD0004")
    assert sorted(read(tmp_path / "in")[0].values()) == [0] * others + [1]


def test_a_volume_in_the_folder_of_a_patient_whose_images_have_files_each(tmp_path):
    for patient in ("p1", "p2"):
        for name in "ab":
            write_images(tmp_path / "in" / patient, f"{name}.png")
            text = f"<annotation>{OBJECT * (name == 'a')}</annotation>"
            write_text(tmp_path / "in" / patient / f"{name}.xml", text)
    write(tmp_path / "in" / "p1" / "lesions.seg.nrrd", b"NRRD0004")
    found, problems = read(tmp_path / "in", "voc")
    assert {key: count for key, count in found.items() if not count} == {"p2/b.png": 0}
    assert problems == [("p1/lesions.seg.nrrd", "skipped")]


def test_names_of_volumes(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    pixels = np.random.default_rng(0).integers(-500, 900, (8, 7, 2)).astype(np.int16)
    mask = np.zeros((8, 7, 2), np.uint8)
    mask[2:4, 3:5, 1] = 1
    for name, labels in (("a", mask), ("b", 0 * mask)):
        for folder, values in (("images", pixels), ("labels", labels)):
            (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
            volume = nibabel.Nifti1Image(values, np.eye(4))
            nibabel.save(volume, tmp_path / "in" / folder / f"{name}.nii.gz")
        # A sidecar of BIDS is of no account.
        write_text(tmp_path / "in" / "images" / f"{name}.json", '{"EchoTime": 1}')
    assert sorted(read(tmp_path / "in")[0].values()) == [0, 0, 0, 1]
    write(tmp_path / "in" / "rois" / "b.mitk", ARCHIVE)
    assert sorted(read(tmp_path / "in")[0].values()) == [0, 1]
    (tmp_path / "in" / "rois" / "b.mitk").unlink()
    write(tmp_path / "in" / "rois" / "b.mrk.json", "{}")
    assert sorted(read(tmp_path / "in")[0].values()) == [0, 1]


COCO = {
    "images": [{"id": 1, "file_name": "images/b.png"}, {"id": 2, "file_name": "images/c.png"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 8, 7]}],
    "categories": [{"id": 1, "name": "n"}],
}
CVAT = (
    '<annotations><image id="0" name="images/b.png"><box label="n" xtl="1" ytl="2" xbr="9" '
    'ybr="9"/></image></annotations>'
)


@pytest.mark.parametrize("format", ["yolo", "voc", "masks"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.json", json.dumps(COCO)),
        ("boxes.csv", "filename,xmin,ymin,xmax,ymax,label\nb.png,1,2,9,9,n\nc.png,,,,,\n"),
        ("annotations.xml", CVAT),
        ("via.json", json.dumps({"b": {"filename": "b.png", "regions": [REGION]}})),
    ],
)
def test_annotations_of_another_format_contradict_a_format_that_is_named(
    tmp_path, format, name, content
):
    write_source(tmp_path / "in", format)
    write(tmp_path / "in" / name, content)
    found, problems = read(tmp_path / "in", format)
    assert {key[-5:]: count for key, count in found.items()} == {"a.png": 1, "c.png": 0}
    assert ("images/b.png", "unread") in problems


@pytest.mark.parametrize("format", ["yolo", "labelme"])
def test_a_second_file_of_an_image_elsewhere_leaves_it_in_doubt(tmp_path, format):
    """The reader opens it and finds no image for it, since that has its own."""
    suffix, content, empty, images, folder = {
        "yolo": (".txt", BOX, "", "images", "labels"),
        "labelme": (".json", SHAPE, '{"shapes": [], "imagePath": ""}', "pics", "pics"),
    }[format]
    write_images(tmp_path / "in" / images, "a.png", "b.png", "c.png")
    write(tmp_path / "in" / "classes.txt", "nodule\n")
    for name in "abc":
        write(tmp_path / "in" / folder / f"{name}{suffix}", content if name == "a" else empty)
    write(tmp_path / "in" / "old" / f"b{suffix}", content)
    write(tmp_path / "in" / "old" / f"c{suffix}", empty)
    found, problems = read(tmp_path / "in", format)
    assert found == {f"{images}/a.png": 1, f"{images}/c.png": 0}
    assert [problem for problem in problems if "b" in problem[0][:6]] == [
        (f"old/b{suffix}", "skipped")
    ]


def test_a_file_that_lists_images_is_contradicted_by_files_of_single_images(tmp_path):
    write_source(tmp_path / "in", "voc")
    write(tmp_path / "in" / "train.json", json.dumps(COCO))
    write(tmp_path / "in" / "Annotations" / "c.xml", f"<annotation>{OBJECT}</annotation>")
    assert list(read(tmp_path / "in", "coco")[0]) == ["images/b.png"]


def test_annotations_of_another_format_that_cannot_be_read_leave_no_negatives(tmp_path):
    write_source(tmp_path / "in", "yolo")
    broken = {**COCO, "images": COCO["images"][:1] * 2}
    write(tmp_path / "in" / "train.json", json.dumps(broken))
    found, problems = read(tmp_path / "in", "yolo")
    assert list(found.values()) == [1] and problems == [("train.json", "unread")]
    # One of another split says nothing of this one.
    (tmp_path / "in" / "val").mkdir()
    (tmp_path / "in" / "train.json").rename(tmp_path / "in" / "val" / "instances.json")
    assert len(read(tmp_path / "in", "yolo")[0]) == 3


@pytest.mark.parametrize("format", ["csv", "yolo", "auto"])
@pytest.mark.parametrize("kind", ["segmentation", "structure set", "none"])
def test_dicom_objects_contradict_what_lies_beside_them(tmp_path, format, kind):
    """One of a study that is not read, or a segmentation that marks the image."""
    folder = tmp_path / "in"
    folder.mkdir()
    for stem, uid in (("a", "1.1"), ("b", "1.2")):
        write_dicom(folder / f"{stem}.dcm", BLANK, SOPInstanceUID=uid, StudyInstanceUID="1.0")
    if format == "yolo":
        write(folder / "a.txt", BOX)
        write(folder / "b.txt", "")
        write(folder / "classes.txt", "n\n")
    else:
        rows = "a.dcm,1,2,5,6,n\nb.dcm,,,,,\n"
        write(folder / "boxes.csv", f"filename,xmin,ymin,xmax,ymax,label\n{rows}")
    if kind == "segmentation":
        write_cover(folder / "object", "1.2", boxed="1.2")
    elif kind == "structure set":
        dataset = write_dicom(folder / "object", BLANK, StudyInstanceUID="1.0")
        del dataset.PixelData, dataset.Rows, dataset.Columns
        dataset.SOPClassUID = RTStructureSetStorage
        dataset.save_as(folder / "object")
    found, _ = read(folder, format)
    assert {name: found.get(name) for name in ("a.dcm", "b.dcm")} == {
        "a.dcm": 1,
        "b.dcm": 0 if kind == "none" else None,
    }


def test_voc_files_called_by_uids_are_no_other_format_beside_dicom(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for stem, uid in (("a", "1.1"), ("b", "1.2")):
        write_dicom(folder / f"{stem}.dcm", BLANK, SOPInstanceUID=uid, StudyInstanceUID="1.0")
        write(folder / f"{uid}.xml", f"<annotation>{OBJECT * (stem == 'a')}</annotation>")
    table = "filename,xmin,ymin,xmax,ymax,label\na.dcm,1,2,9,8,n\nb.dcm,,,,,\n"
    write(folder / "train.csv", table)
    assert read(folder, "dicom")[0] == {"1.1": 1, "1.2": 0}


def test_a_file_that_holds_the_uid_of_a_dicom_image_leaves_it_in_doubt(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for stem, uid in (("a", "1.1"), ("b", "1.2"), ("c", "1.23")):
        write_dicom(folder / f"{stem}.dcm", BLANK, SOPInstanceUID=uid, StudyInstanceUID="1.0")
    write_cover(folder / "seg.dcm", "1.1", "1.2", "1.23")
    write(folder / "export.json", '{"datasets": [{"SOPInstanceUID": "1.23", "data": {"x": 3}}]}')
    assert read(folder, "dicom") == ({"1.1": 1, "1.2": 0}, [("export.json", "skipped")])


def test_folders_of_a_thousand_levels_stop_nothing(tmp_path, monkeypatch):
    write_source(tmp_path / "in", "yolo")
    monkeypatch.chdir(tmp_path / "in")
    levels = 1050
    for _ in range(levels):
        os.mkdir("d")
        os.chdir("d")
    try:
        assert len(READERS["yolo"](tmp_path / "in").images) == 3
        for format in ("labelme", "supervisely", "lidc", "nifti"):
            with pytest.raises(AnnotationError, match="holds no"):
                READERS[format](tmp_path / "in")
    finally:
        # Else what removes the folder in the end runs out of stack.
        for _ in range(levels):
            os.chdir("..")
            os.rmdir("d")
