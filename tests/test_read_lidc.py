"""LIDC-IDRI: XML of four readers beside DICOM files."""

from __future__ import annotations

import dataclasses
import random
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from corpus import lidc as corpus
from corpus.lidc import make_nodule, make_roi, make_xml
from corpus.sources import find_losses
from test_dicom import write_dicom

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.lidc import is_lidc, read_lidc

SERIES = "1.2.3"
OUTLINE = [(10, 14), (20, 12), (30, 15), (22, 20)]
# The pixels of the outline are not the nodule's: columns 11 to 29, rows 13 to 19.
BOX = ("nodule", [11, 13, 30, 20])


def write_slices(folder, count=2, series=SERIES):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        elements = {"SOPInstanceUID": f"{series}.{number}", "SeriesInstanceUID": series}
        elements["ImagePositionPatient"] = [0, 0, -2.5 * number]
        write_dicom(
            folder / f"{number}.dcm", np.zeros((48, 64), np.uint8), bits_stored=8, **elements
        )


def write_xml(folder, *sessions, series=SERIES, file="068.xml"):
    (folder / file).write_text(make_xml(series, list(sessions)))


def make_session(*rois):
    return make_nodule(0, list(rois)) if rois else ""


def summarize(annotations):
    """Return by image what the source says of it, and its labels and boxes."""
    return {
        image.source_id: (
            image.annotation,
            list(zip(image.labels, image.boxes.tolist(), strict=True)),
        )
        for image in annotations.images
    }


def test_the_outlines_of_every_reader(tmp_path):
    write_slices(tmp_path)
    other = [(0, 0), (4, 0), (4, 5), (0, 5)]
    write_xml(
        tmp_path,
        make_session(make_roi("1.2.3.0", OUTLINE)),
        make_session(make_roi("1.2.3.0", OUTLINE), make_roi("1.2.3.0", other)),
        make_session(),
        make_session(),
    )
    found = read_lidc(tmp_path)
    assert summarize(found) == {
        "1.2.3.0": ("complete", [BOX, BOX, ("nodule", [1, 1, 4, 5])]),
        "1.2.3.1": ("complete", []),
    }
    assert found.label_names == ("nodule",)
    assert {image.patient for image in found.images} == {"ID-4711"}
    assert (found.problems, found.notes) == ((), ())


def test_slices_of_other_series_are_unannotated(tmp_path):
    write_slices(tmp_path, count=1)
    write_slices(tmp_path / "scout", count=1, series="1.2.9")
    write_xml(tmp_path, make_session(make_roi("1.2.3.0", OUTLINE)))
    states = {name: state for name, (state, _) in summarize(read_lidc(tmp_path)).items()}
    assert states == {"1.2.3.0": "complete", "1.2.9.0": "none"}


def test_holes_and_marks_of_no_nodules_do_not_count(tmp_path):
    write_slices(tmp_path)
    hole = make_roi("1.2.3.0", [(15, 15), (18, 15), (18, 18)], "FALSE")
    mark = "<nonNodule><imageSOP_UID>1.2.3.1</imageSOP_UID><locus/></nonNodule>"
    write_xml(tmp_path, make_session(make_roi("1.2.3.0", OUTLINE), hole) + mark)
    expected = {"1.2.3.0": ("complete", [BOX]), "1.2.3.1": ("complete", [])}
    assert summarize(read_lidc(tmp_path)) == expected


@pytest.mark.parametrize(
    ("roi", "reason"),
    [
        (make_roi("1.2.3.0", [(10, 12)]), "a nodule below 3 mm is marked by a point"),
        (make_roi("1.2.3.0", [(10, 12), (11, 12), (11, 13)]), "its outline encloses no pixel"),
        (make_roi("1.2.3.0", []), "its outline has no points"),
        (make_roi("1.2.3.0", [("x", 1), (5, 9), (9, 9)]), "are not all numbers"),
        (make_roi("1.2.3.0", OUTLINE, "FALSE"), "has a hole and no outline"),
    ],
)
def test_outlines_without_a_box(tmp_path, roi, reason):
    write_slices(tmp_path)
    write_xml(tmp_path, make_session(make_roi("1.2.3.0", OUTLINE)), make_session(roi))
    found = read_lidc(tmp_path)
    assert summarize(found) == {"1.2.3.0": ("faulty", [BOX]), "1.2.3.1": ("complete", [])}
    assert reason in found.problems[0].reason


def test_an_outline_without_a_slice_spoils_the_series(tmp_path):
    write_slices(tmp_path)
    write_xml(tmp_path, make_session(make_roi("", OUTLINE)))
    states = [state for state, _ in summarize(read_lidc(tmp_path)).values()]
    assert states == ["faulty", "faulty"]


def test_a_missing_slice_spoils_the_one_at_its_place(tmp_path):
    write_slices(tmp_path)
    rois = [make_roi("1.2.3.7", OUTLINE, z=-2.5), make_roi("1.2.3.8", OUTLINE, z=-5.0)]
    write_xml(tmp_path, make_session(*rois))
    found = read_lidc(tmp_path)
    assert summarize(found) == {"1.2.3.0": ("complete", []), "1.2.3.1": ("faulty", [])}
    assert found.notes == ("2 slices of a series that have nodules are missing",)


def test_a_slice_that_the_file_of_another_series_names(tmp_path):
    write_slices(tmp_path)
    write_xml(tmp_path, make_session(make_roi("1.2.3.0", OUTLINE)), series="1.2.4")
    assert summarize(read_lidc(tmp_path)) == {"1.2.3.0": ("faulty", [BOX]), "1.2.3.1": ("none", [])}


@pytest.mark.parametrize(("second", "state"), [(OUTLINE, "complete"), (OUTLINE[1:], "faulty")])
def test_two_files_of_one_series(tmp_path, second, state):
    write_slices(tmp_path)
    write_xml(tmp_path, make_session(make_roi("1.2.3.0", OUTLINE)), file="1.xml")
    write_xml(tmp_path, make_session(make_roi("1.2.3.0", second)), file="2.xml")
    assert {state for state, _ in summarize(read_lidc(tmp_path)).values()} == {state}


def test_a_file_without_readings_says_nothing(tmp_path):
    write_slices(tmp_path)
    write_xml(tmp_path)
    assert {state for state, _ in summarize(read_lidc(tmp_path)).values()} == {"faulty"}


def test_a_file_that_cannot_be_read_spoils_its_folder(tmp_path):
    for name, series in (("p1", "1.2.3"), ("p2", "1.2.4")):
        write_slices(tmp_path / name, count=1, series=series)
        write_xml(tmp_path / name, make_session(), series=series)
    (tmp_path / "p1" / "069.xml").write_text("<LidcReadMessage>")
    found = read_lidc(tmp_path)
    assert summarize(found) == {"1.2.3.0": ("faulty", []), "1.2.4.0": ("complete", [])}
    (tmp_path / "tables").mkdir()
    (tmp_path / "p1" / "069.xml").rename(tmp_path / "tables" / "069.xml")
    found = read_lidc(tmp_path)
    assert {state for state, _ in summarize(found).values()} == {"faulty"}
    assert found.notes == ("an XML file cannot be read, and no DICOM file lies beside it",)


def test_radiographs_are_named(tmp_path):
    write_slices(tmp_path)
    text = make_xml("1.2.9", []).replace("LidcReadMessage", "IdriReadMessage")
    (tmp_path / "cxr.xml").write_text(text)
    (tmp_path / "voc.xml").write_text("<annotation/>")
    with pytest.raises(AnnotationError, match="holds no XML of LIDC-IDRI that describes CT"):
        read_lidc(tmp_path)
    write_xml(tmp_path, make_session(make_roi("1.2.3.0", OUTLINE)))
    found = read_lidc(tmp_path)
    assert summarize(found)["1.2.3.0"] == ("complete", [BOX])
    assert [p.reason for p in found.problems] == [
        "describes radiographs (IdriReadMessage), which are not read",
        "no XML of LIDC-IDRI (LidcReadMessage)",
    ]


def test_several_frames_are_faulty(tmp_path):
    elements = {"SOPInstanceUID": "1.2.3.0", "SeriesInstanceUID": SERIES, "NumberOfFrames": 2}
    write_dicom(
        tmp_path / "a.dcm", np.zeros((96, 64), np.uint8), bits_stored=8, Rows=48, **elements
    )
    write_xml(tmp_path, make_session(make_roi("1.2.3.0", OUTLINE)))
    assert summarize(read_lidc(tmp_path)) == {
        "1.2.3.0#0": ("faulty", []),
        "1.2.3.0#1": ("faulty", []),
    }


def test_what_is_lidc(tmp_path):
    assert is_lidc(ET.fromstring(make_xml(SERIES, [])))
    assert is_lidc(ET.fromstring("<IdriReadMessage/>"))
    assert not is_lidc(ET.fromstring("<annotation/>"))
    with pytest.raises(AnnotationError, match="no such folder"):
        read_lidc(tmp_path / "missing")
    with pytest.raises(AnnotationError, match="holds no DICOM image"):
        read_lidc(tmp_path)


def test_no_box_is_lost_whatever_is_in_a_series(tmp_path):
    read = 0
    for seed in range(100):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth = corpus.make(random.Random(seed), folder)
        try:
            found = read_lidc(folder)
        except AnnotationError:
            continue
        images = tuple(
            dataclasses.replace(image, source_id=image.path.relative_to(folder).as_posix())
            for image in found.images
        )
        assert find_losses(found._replace(images=images), truth) == [], seed
        read += any(image.annotation == "complete" for image in images)
    # The corpus tests something only if most series are read.
    assert read > 50
