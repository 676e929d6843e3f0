"""What enhanced DICOM objects say of their frames."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from test_dicom import make_groups, write_frames

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom import image
from vae_aug.ingest.dicom.file import read_elements
from vae_aug.ingest.dicom.frames import VALUE_GROUPS, FunctionalGroups
from vae_aug.ingest.dicom.image import read_header

WINDOW = {"WindowCenter": 40, "WindowWidth": 400}


def make_own(slope=1, place=0, **window):
    """Make the groups of a frame; every place is another."""
    groups = {
        "PixelValueTransformationSequence": {"RescaleSlope": slope, "RescaleIntercept": 0},
        "PlanePositionSequence": {"ImagePositionPatient": [0, 0, place]},
    }
    return make_groups(**groups, **({"FrameVOILUTSequence": window} if window else {}))


def open_ended(dataset):
    """Give all sequences and items an undefined length, as many tools write them."""
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                open_ended(item)


def write_own(path, *own, is_open_ended=False, **elements):
    dataset = write_frames(path, np.zeros((len(own), 2, 2), np.uint16), **elements)
    dataset.PerFrameFunctionalGroupsSequence = list(own)
    if is_open_ended:
        open_ended(dataset)
    dataset.save_as(path)
    return path


def list_slopes(path, frames):
    groups = FunctionalGroups(read_elements(path)[0], VALUE_GROUPS)
    return [float(described.RescaleSlope) for described in groups.describe_distinct(frames)]


@pytest.mark.parametrize("is_open_ended", [False, True])
def test_frames_whose_values_are_alike_are_described_once(tmp_path, is_open_ended):
    own = [make_own(slope, place, **WINDOW) for place, slope in enumerate((2, 2, 1, 2, 1, 3))]
    path = write_own(tmp_path / "a.dcm", *own, is_open_ended=is_open_ended)
    assert list_slopes(path, 6) == [2, 1, 3]
    header = read_header(path)
    assert header.rescales == {(1, 0), (2, 0), (3, 0)} and header.has_windows is True


def test_a_header_of_many_frames_looks_at_each_of_few_values_once(tmp_path, monkeypatch):
    path = write_own(tmp_path / "a.dcm", *(make_own(1 + i % 2, i, **WINDOW) for i in range(300)))
    looked_at = []
    get_rescale = image.get_rescale

    def look(dataset):
        looked_at.append(dataset)
        return get_rescale(dataset)

    monkeypatch.setattr(image, "get_rescale", look)
    assert len(read_header(path).rescales) == len(looked_at) == 2


def test_what_all_frames_share_is_looked_at_once(tmp_path):
    dataset = write_frames(tmp_path / "a.dcm", np.zeros((500, 2, 2), np.uint16))
    dataset.SharedFunctionalGroupsSequence = [make_own(4, **WINDOW)]
    dataset.save_as(tmp_path / "a.dcm")
    assert list_slopes(tmp_path / "a.dcm", 500) == [4]
    assert read_header(tmp_path / "a.dcm").rescales == {(4, 0)}


def test_a_frame_goes_before_what_all_share_and_that_before_the_object(tmp_path):
    own = make_groups(PixelValueTransformationSequence={"RescaleSlope": 3})
    shared = make_groups(
        PixelValueTransformationSequence={"RescaleSlope": 2, "RescaleIntercept": -5},
        FrameVOILUTSequence=WINDOW,
    )
    values = {"RescaleSlope": 1, "RescaleIntercept": 7, "WindowCenter": 1, "PixelSpacing": [1, 2]}
    path = write_own(tmp_path / "a.dcm", own, pydicom.Dataset(), **values)
    dataset = pydicom.dcmread(path)
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = FunctionalGroups(dataset)
    found = [groups.describe(frame) for frame in range(2)]
    assert [described.RescaleSlope for described in found] == [3, 2]
    for described in found:
        assert (described.RescaleIntercept, described.WindowCenter) == (-5, 40)
        assert described.PixelSpacing == [1, 2]
        assert "PerFrameFunctionalGroupsSequence" not in described


def test_an_object_without_groups_is_its_own_description(tmp_path):
    dataset = write_frames(tmp_path / "a.dcm", np.zeros((3, 2, 2), np.uint16))
    groups = FunctionalGroups(dataset)
    assert groups.describe(2) is dataset
    assert list(groups.describe_distinct(3)) == [dataset]


def test_frames_without_groups_of_their_own_are_missing_also_if_all_others_are_alike(tmp_path):
    path = write_own(tmp_path / "a.dcm", make_own(), make_own())
    assert list_slopes(path, 2) == [1]
    with pytest.raises(DicomError, match=r"describes 2 frames; frame 2 is missing"):
        list_slopes(path, 3)


def test_values_that_were_changed_in_memory_are_not_taken_for_those_of_the_file(tmp_path):
    dataset = pydicom.dcmread(write_own(tmp_path / "a.dcm", make_own(), make_own(), make_own()))
    second = dataset.PerFrameFunctionalGroupsSequence[1]
    second.PixelValueTransformationSequence[0].RescaleSlope = 9
    slopes = [d.RescaleSlope for d in FunctionalGroups(dataset).describe_distinct(3)]
    assert slopes == [1, 9]


DAMAGED = {"WindowCenter": 40, "WindowWidth": 0}


@pytest.mark.parametrize(
    ("own", "rescales", "has_windows"),
    [
        ([make_own(**WINDOW), make_own(2, **WINDOW)], {(1, 0), (2, 0)}, True),
        ([make_own(**WINDOW), make_own()], {(1, 0)}, False),
        ([make_own(**WINDOW), make_own(**DAMAGED)], {(1, 0)}, None),
        ([make_own(), make_own(**DAMAGED)], {(1, 0)}, False),
        ([make_own(**DAMAGED), make_own()], {(1, 0)}, None),
        ([make_own(**WINDOW), make_own(0, **WINDOW)], set(), None),
    ],
)
def test_a_header_tells_the_values_of_all_frames(tmp_path, own, rescales, has_windows):
    header = read_header(write_own(tmp_path / "a.dcm", *own))
    assert (header.rescales, header.has_windows) == (rescales, has_windows)
    assert header.frames == 2


def test_more_items_than_are_read_are_refused_before_frames_are_described(tmp_path, monkeypatch):
    path = write_own(tmp_path / "a.dcm", *(make_own(place=i) for i in range(50)))
    monkeypatch.setattr("vae_aug.ingest.dicom.elements.MAX_DICOM_ITEMS", 149)
    with pytest.raises(DicomError, match="has 150 items of sequences; at most 149 are read"):
        list_slopes(path, 50)
    monkeypatch.setattr("vae_aug.ingest.dicom.elements.MAX_DICOM_ITEMS", 150)
    assert list_slopes(path, 50) == [1]
