from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fake_vae import FakeVAE
from test_dicom import make_groups, write_dicom, write_frames
from test_series import AXIAL, SAGITTAL
from typer.testing import CliRunner

from vae_aug.augment.transform import VAEAugment
from vae_aug.cli import app
from vae_aug.codecs.images import write_image
from vae_aug.errors import AnnotationError
from vae_aug.ingest.dicom.image import read_dicom
from vae_aug.ingest.dicom.stack import stack_neighbours
from vae_aug.ingest.formats.dicom_folder import read_dicom_folder
from vae_aug.ingest.ingest import ingest
from vae_aug.ingest.stacks import Distance, add_neighbours, parse_neighbours
from vae_aug.records.records import read_records

SIZE = (4, 6)
# Black at 0 and white at 2000, so that 1000 is half: 127.5, which rounds to 128.
WINDOW = {"WindowCenter": 1000, "WindowWidth": 2000, "VOILUTFunction": "LINEAR_EXACT"}


def write_slice(path, z, value, *, orientation=AXIAL, series="1.2", size=SIZE, **elements):
    elements = {**WINDOW, "ImageOrientationPatient": orientation, **elements}
    stored = np.full(size, value, np.uint16)
    position = [0, 0, z] if orientation == AXIAL else [z, 0, 0]
    elements = {"ImagePositionPatient": position, "SeriesInstanceUID": series, **elements}
    return write_dicom(path, stored, **elements)


def describe(folder, neighbours):
    """Return what lies before and behind each image of a folder, by the name of its file."""
    images = read_dicom_folder(folder).images
    placed = add_neighbours(images, parse_neighbours(neighbours))
    return {
        image.path.stem: [n.path.stem if n.path else n.state for n in image.item.neighbours]
        for image in placed
    }


@pytest.mark.parametrize("value", [0, -1, 1.5, 101, "0mm", "mm", "5 cm", "1..2", "", "nan", "x"])
def test_bad_distances_are_refused(value):
    with pytest.raises(ValueError, match="neighbours must be 1 to 100 slices or millimetres"):
        parse_neighbours(value)


def test_distances():
    assert parse_neighbours(None) is None
    assert parse_neighbours("2") == parse_neighbours(2) == Distance(2, is_mm=False)
    assert parse_neighbours(" 0.5 mm ") == Distance(0.5, is_mm=True)


def test_neighbours_in_slices(tmp_path):
    """Names are not in the order of the places; one slice of 2 mm is missing behind 8 mm."""
    for name, z in {"c": 2, "a": 4, "e": 6, "b": 8, "d": 12, "f": 14}.items():
        write_slice(tmp_path / f"{name}.dcm", z, 0)
    assert describe(tmp_path, 1) == {
        "c": ["end", "a"],
        "a": ["c", "e"],
        "e": ["a", "b"],
        "b": ["e", "gap"],
        "d": ["gap", "f"],
        "f": ["d", "end"],
    }
    assert describe(tmp_path, 2)["e"] == ["c", "gap"]
    assert describe(tmp_path, 2)["a"] == ["end", "b"]


def test_neighbours_in_millimetres(tmp_path):
    """Slices at 0, 2, ... 10 mm: 3.4 mm is nearest to 4, 5 midway between two, 0.9 to none."""
    for z in range(0, 12, 2):
        write_slice(tmp_path / f"{z:02}.dcm", z, 0)
    assert describe(tmp_path, "3.4mm")["04"] == ["00", "08"]
    assert describe(tmp_path, "3.4mm")["02"] == ["end", "06"]
    assert describe(tmp_path, "5mm")["10"] == ["04", "end"]
    assert set(map(tuple, describe(tmp_path, "0.9mm").values())) == {("thick", "thick")}
    (tmp_path / "06.dcm").unlink()
    assert describe(tmp_path, "2mm")["04"] == ["02", "gap"]
    assert describe(tmp_path, "4mm")["04"] == ["00", "gap"]


def test_series_and_orientations_do_not_mix(tmp_path):
    for z in range(3):
        write_slice(tmp_path / f"a{z}.dcm", z, 0)
        write_slice(tmp_path / f"b{z}.dcm", z, 0, series="1.3")
        write_slice(tmp_path / f"s{z}.dcm", z, 0, orientation=SAGITTAL)
    found = describe(tmp_path, 1)
    assert (found["a1"], found["b1"]) == (["a0", "a2"], ["b0", "b2"])
    # The normal of sagittal slices points to -x, as test_series.py works out.
    assert found["s1"] == ["s2", "s0"]


def test_slices_in_one_place_and_without_place(tmp_path):
    for name, z in (("a", 0), ("b", 1), ("c", 1), ("d", 2)):
        write_slice(tmp_path / f"{name}.dcm", z, 0)
    write_slice(tmp_path / "e.dcm", 0, 0, ImagePositionPatient=None)
    found = describe(tmp_path, 1)
    assert found["b"] == ["a", "d"]
    assert (found["c"], found["e"]) == (["duplicate"] * 2, ["unplaced"] * 2)


def test_frames_of_an_enhanced_object(tmp_path):
    """Frames at 2, 0 and 1 mm; each is shown through the window of the middle one."""
    own = [
        make_groups(PlanePositionSequence={"ImagePositionPatient": [0, 0, z]}) for z in (2, 0, 1)
    ]
    shared = make_groups(
        PlaneOrientationSequence={"ImageOrientationPatient": AXIAL}, FrameVOILUTSequence=WINDOW
    )
    stored = np.stack([np.full(SIZE, value, np.uint16) for value in (2000, 0, 1000)])
    write_frames(
        tmp_path / "a.dcm",
        stored,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=own,
    )
    out = tmp_path / "out"
    report = ingest(
        tmp_path, out, format="dicom", bits=8, neighbours=1, salt="s", unannotated="negative"
    )
    assert report.neighbours == {"end": 2, "found": 4}
    pixels = [element["image"].numpy()[0, 0].tolist() for element in read_records(out, "train")]
    assert pixels == [[128, 255, 255], [0, 0, 128], [0, 128, 255]]


def test_all_three_are_shown_through_the_window_of_the_middle_one(tmp_path):
    """The others have windows, polarity and units of their own: only the last two count."""
    write_slice(tmp_path / "a.dcm", 0, 500, WindowCenter=5000, RescaleSlope=2, RescaleIntercept=0)
    write_slice(tmp_path / "b.dcm", 1, 1000)
    write_slice(tmp_path / "c.dcm", 2, 2500, photometric="MONOCHROME1")
    image = read_dicom(tmp_path / "b.dcm", bits=8)
    (placed,) = [
        item
        for item in add_neighbours(read_dicom_folder(tmp_path).images, Distance(1, is_mm=False))
        if item.path.stem == "b"
    ]
    pixels, states = stack_neighbours(image, placed.item.neighbours)
    assert states == ("found", "found")
    # 500 * 2 is 1000, half; 2500 is cut to white and inverted.
    np.testing.assert_array_equal(pixels, np.broadcast_to([128, 128, 0], (*SIZE, 3)))
    assert pixels.dtype == np.uint8


def test_the_full_range_is_that_of_the_middle_one(tmp_path):
    for z in range(3):
        stored = np.array([[0, 1000 * (z + 1)]], np.uint16)
        place = {"ImagePositionPatient": [0, 0, z], "ImageOrientationPatient": AXIAL}
        write_dicom(tmp_path / f"{z}.dcm", stored, SeriesInstanceUID="1.2", **place)
    out = tmp_path / "out"
    ingest(
        tmp_path,
        out,
        format="dicom",
        window="full",
        bits=8,
        neighbours=1,
        salt="s",
        unannotated="negative",
    )
    middle = list(read_records(out, "train"))[1]["image"].numpy()
    # 1000 of 2000 is half, 3000 of 2000 white.
    np.testing.assert_array_equal(middle, [[[0, 0, 0], [128, 255, 255]]])


def test_records_keep_the_boxes_of_the_middle_one_and_count_what_stands_in(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for z, value in enumerate((0, 1000, 2000)):
        dataset = write_slice(source / f"{z}.dcm", z, value)
        if z == 1:
            (source / f"{dataset.SOPInstanceUID}.xml").write_text(
                "<annotation><size><width>6</width><height>4</height></size><object><name>a</name>"
                "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox>"
                "</object></annotation>"
            )
    write_slice(source / "3.dcm", 3, 500, size=(5, 6))
    write_slice(source / "4.dcm", 4, 500)
    (source / "4.dcm").write_bytes((source / "4.dcm").read_bytes()[:-30])
    report = ingest(
        source, out, format="dicom", bits=8, neighbours=1, salt="s", unannotated="negative"
    )
    assert (report.images, report.boxes, len(report.skipped)) == (4, 1, 1)
    # 2 behind: another size; 3 before: another size, behind: damaged; 0 before: the end.
    assert report.neighbours == {"end": 1, "found": 4, "unfit": 3}
    elements = list(read_records(out, "train"))
    pixels = [element["image"].numpy()[0, 0].tolist() for element in elements]
    assert pixels == [[0, 0, 128], [0, 128, 255], [128, 255, 255], [64, 64, 64]]
    counts = [len(element["objects"]["label"]) for element in elements]
    assert counts == [0, 1, 0, 0]
    for workers in (1, 2):
        again = tmp_path / f"again{workers}"
        options = {
            **{"format": "dicom", "bits": 8, "neighbours": "1mm", "salt": "s"},
            "unannotated": "negative",
        }
        assert ingest(source, again, workers=workers, **options) == report
        assert next(again.glob("*.tfrecord")).read_bytes() == (
            next(out.glob("*.tfrecord")).read_bytes()
        )


def test_colour_keeps_its_channels(tmp_path):
    write_slice(tmp_path / "a.dcm", 0, 0)
    grey = read_dicom(tmp_path / "a.dcm")
    colour = dataclasses.replace(grey, pixels=np.zeros((4, 6, 3), np.uint8), voi=None)
    (placed,) = add_neighbours(read_dicom_folder(tmp_path).images, Distance(1, is_mm=False))
    pixels, states = stack_neighbours(colour, placed.item.neighbours)
    assert pixels is colour.pixels and states == ("unfit", "unfit")


def test_what_is_no_dicom_is_refused(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(AnnotationError, match=r"a\.png: no DICOM file, so it has no neighbours"):
        ingest(tmp_path, tmp_path / "out", format="images", neighbours=1, salt="s")


def test_the_command_prints_the_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_AUG_SALT", "s")
    for z in range(2):
        write_slice(tmp_path / f"{z}.dcm", z, 0)
    arguments = ["ingest", str(tmp_path), str(tmp_path / "out"), "--neighbours", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "neighbours: 2 end, 2 found; the slice itself stands in" in result.output


def test_the_network_sees_a_blend_of_the_slices_and_changes_all_alike():
    """Luminance is 0.299 before + 0.587 slice + 0.114 behind; half of it is taken off each."""
    image = np.broadcast_to(np.float32([0.8, 0.6, 0.4]), (32, 32, 3))
    augment = VAEAugment(FakeVAE(profile="ladder"), mode="denoise", guard="off")
    change = augment({"image": image, "image/source_id": "1"})["image"].numpy() - image
    grey = 0.299 * 0.8 + 0.587 * 0.6 + 0.114 * 0.4
    np.testing.assert_allclose(change, -0.5 * grey, atol=1e-6)


@pytest.mark.real_data
def test_real_series_has_its_neighbours(data_dir):
    folder = data_dir / "lung_ct_dicom"
    images = add_neighbours(read_dicom_folder(folder).images, Distance(1, is_mm=False))
    by_path = {(image.path, image.item.index): image for image in images}
    ends = [image for image in images if "end" in {n.state for n in image.item.neighbours}]
    assert len(images) == 64 and len(ends) == 2
    for image in images:
        before, behind = image.item.neighbours
        if behind.path is not None:
            assert by_path[behind.path, behind.frame].item.neighbours[0].path == image.path
        assert {before.state, behind.state} <= {"found", "end"}
