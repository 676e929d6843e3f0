"""The tables of VinDr-CXR, of RSNA's pneumonia challenge, and of DeepLesion."""

from __future__ import annotations

import numpy as np
import pytest
from test_annotation_formats import BLANK, list_boxes
from test_annotations import list_ids, write_images, write_text
from test_dicom import write_dicom

from vae_aug.codecs.images import write_image
from vae_aug.ingest.formats import read_csv
from vae_aug.ingest.formats.detect import detect_format
from vae_aug.ingest.ingest import ingest
from vae_aug.records.records import read_records


def test_vindr_table(tmp_path):
    for name in ("aa", "bb"):
        (tmp_path / "train").mkdir(exist_ok=True)
        write_dicom(tmp_path / "train" / f"{name}.dicom", BLANK)
    rows = (
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
        "aa,Nodule/Mass,8,R1,1,2,3,4",
        "aa,Nodule/Mass,8,R2,1,2,3,5",
        "bb,No finding,14,R1,,,,",
    )
    write_text(tmp_path / "train.csv", "\n".join(rows))
    found = read_csv(tmp_path)
    assert found.label_names == ("Nodule/Mass",)
    assert list_ids(found) == ["train/aa.dicom", "train/bb.dicom"]
    assert [i.boxes.tolist() for i in found.images] == [[[1, 2, 3, 4], [1, 2, 3, 5]], []]
    assert detect_format(tmp_path).format == "csv"


def test_rsna_table(tmp_path):
    (tmp_path / "stage_2_train_images").mkdir()
    for name in ("p1", "p2"):
        write_dicom(tmp_path / "stage_2_train_images" / f"{name}.dcm", BLANK)
    rows = ("patientId,x,y,width,height,Target", "p1,,,,,0", "p2,1.5,2,3,4,1", "p2,0,0,2,1,1")
    write_text(tmp_path / "stage_2_train_labels.csv", "\n".join(rows))
    found = read_csv(tmp_path)
    assert found.label_names == ("opacity",)
    assert [image.patient for image in found.images] == ["p1", "p2"]
    assert [i.boxes.tolist() for i in found.images] == [[], [[1.5, 2, 4.5, 6], [0, 0, 2, 1]]]


def test_deeplesion_table(tmp_path):
    for series in ("000001_01_01", "000002_01_01"):
        write_images(tmp_path / "Images_png" / series, "109.png")
    rows = (
        "File_name,Patient_index,Bounding_boxes,Coarse_lesion_type,Train_Val_Test,Image_size",
        '000001_01_01_109.png,1,"1.5, 2, 10, 12",5,1,"512, 512"',
        '000002_01_01_109.png,2,"3, 4, 5, 6",-1,3,"512, 512"',
    )
    write_text(tmp_path / "DL_info.csv", "\n".join(rows))
    train, test = read_csv(tmp_path, "train"), read_csv(tmp_path, "test")
    assert list_ids(train) == ["Images_png/000001_01_01/109.png"]
    assert list_boxes(train.images[0]) == [("lung", [1.5, 2, 10, 12])]
    assert list_boxes(test.images[0]) == [("lesion", [3, 4, 5, 6])]
    assert (train.images[0].patient, test.images[0].patient) == ("1", "2")


DEEPLESION_COLUMNS = (
    "File_name,Patient_index,Bounding_boxes,Coarse_lesion_type,Possibly_noisy,DICOM_windows,"
    "Train_Val_Test"
)


def write_deeplesion(folder, *rows, values=(-1000, -175, 50, 275, 3000)):
    """Write Hounsfield units + 32768 as one row of pixels for each series that a row names."""
    stored = np.array([values], np.int32) + 32768
    for series in {row[:12] for row in rows}:
        (folder / "Images_png" / series).mkdir(parents=True)
        write_image(folder / "Images_png" / series / "109.png", stored.astype(np.uint16))
    write_text(folder / "DL_info.csv", "\n".join((DEEPLESION_COLUMNS, *rows)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # (x + 175) / 450: 0, 0, half, white, white; 127.5 rounds to 128
        ({"bits": 8}, [0, 0, 128, 255, 255]),
        ({}, [0, 0, 32768, 65535, 65535]),
        # The linear function of PS3.3 C.11.2.1.2.1: (x - 49.5) / 400 + 0.5
        ({"bits": 8, "window": (50, 401)}, [0, 0, 128, 255, 255]),
        # (x - 399.5) / 1799 + 0.5: 46.1, 78.0, 109.9
        ({"bits": 8, "window": "bone"}, [0, 46, 78, 110, 255]),
        # (x + 1000) / 4000 of 255: 52.6, 66.9, 81.3
        ({"bits": 8, "window": "full"}, [0, 53, 67, 81, 255]),
    ],
)
def test_deeplesion_pixels_go_through_a_window(tmp_path, options, expected):
    source, out = tmp_path / "in", tmp_path / "out"
    write_deeplesion(source, '000001_01_01_109.png,1,"0, 0, 2, 1",5,0,"-175, 275",1')
    report = ingest(source, out, salt="s", **options)
    assert (report.format, report.images, report.boxes) == ("csv", 1, 1)
    (element,) = read_records(out, "train")
    assert element["image"].numpy()[0, :, 0].tolist() == expected


@pytest.mark.parametrize("window", ["", "0", "275, -175", "a, b", "1, 2, 3", "nan, 1", "1, inf"])
def test_deeplesion_without_a_usable_window_shows_the_full_range(tmp_path, window):
    source, out = tmp_path / "in", tmp_path / "out"
    write_deeplesion(source, f'000001_01_01_109.png,1,"0, 0, 2, 1",5,0,"{window}",1')
    ingest(source, out, bits=8, salt="s")
    (element,) = read_records(out, "train")
    assert element["image"].numpy()[0, :, 0].tolist() == [0, 53, 67, 81, 255]


def test_deeplesion_noisy_boxes_are_dropped(tmp_path):
    write_deeplesion(
        tmp_path,
        '000001_01_01_109.png,1,"0, 0, 2, 1",5,1,"-175, 275",1',
        '000001_01_01_109.png,1,"1, 0, 3, 1",5,0,"-175, 275",1',
        '000002_01_01_109.png,2,"0, 0, 2, 1",5,1,"-175, 275",1',
    )
    found = read_csv(tmp_path)
    folders = ("000001_01_01", "000002_01_01")
    assert list_ids(found) == [f"Images_png/{folder}/109.png" for folder in folders]
    assert [image.annotation for image in found.images] == ["faulty", "faulty"]
    assert list_boxes(found.images[0]) == [("lung", [1, 0, 3, 1])]
    assert [problem.effect for problem in found.problems] == ["dropped", "dropped"]
    assert "possibly noisy" in found.problems[0].reason


def test_deeplesion_files_of_8_bits_are_grey_already(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    write_deeplesion(source, '000001_01_01_109.png,1,"0, 0, 2, 1",5,0,"-175, 275",1')
    grey = np.array([[0, 1, 128, 254, 255]], np.uint8)
    write_image(source / "Images_png" / "000001_01_01" / "109.png", grey)
    ingest(source, out, salt="s")
    (element,) = read_records(out, "train")
    np.testing.assert_array_equal(element["image"].numpy()[..., 0], grey)


def test_vindr_records_hold_boxes_and_normals(tmp_path):
    """PhysioNet's folders: the table in `annotations/`, the images in `train/`, "ID.dicom"."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    for name in ("aa", "bb"):
        write_dicom(tmp_path / "train" / f"{name}.dicom", BLANK)
    rows = (
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max",
        "aa,R1,Nodule/Mass,1,2,3,4",
        "bb,R1,No finding,,,,",
    )
    table = tmp_path / "annotations" / "annotations_train.csv"
    write_text(table, "\n".join(rows))
    out = tmp_path / "out"
    report = ingest(table, out, salt="s")
    assert (report.format, report.images, report.problems) == ("csv", 2, ())
    assert report.class_counts == {"Nodule/Mass": 1}
    boxed, normal = read_records(out, "train")
    height, width = BLANK.shape
    expected = [[2 / height, 1 / width, 4 / height, 3 / width]]
    np.testing.assert_allclose(boxed["objects"]["bbox"], expected, atol=1e-6)
    assert len(normal["objects"]["label"]) == 0


def test_rsna_records_hold_boxes_and_normals(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "stage_2_train_images").mkdir(parents=True)
    for name in ("p1", "p2"):
        write_dicom(source / "stage_2_train_images" / f"{name}.dcm", BLANK)
    rows = ("patientId,x,y,width,height,Target", "p1,,,,,0", "p2,1.5,2,3,1,1")
    write_text(source / "stage_2_train_labels.csv", "\n".join(rows))
    report = ingest(source, out, salt="s")
    assert (report.format, report.images, report.patients, report.boxes) == ("csv", 2, 2, 1)
    assert report.problems == () and report.scanners == {"other CT": 2}
    normal, boxed = read_records(out, "train")
    height, width = BLANK.shape
    expected = [[2 / height, 1.5 / width, 3 / height, 4.5 / width]]
    np.testing.assert_allclose(boxed["objects"]["bbox"], expected, atol=1e-6)
    assert len(normal["objects"]["label"]) == 0
