from __future__ import annotations

import numpy as np
import pytest
from test_dicom import RAMP, make_groups, write_dicom, write_frames

from vae_aug.ingest.dicom.image import read_dicom
from vae_aug.ingest.series import find_series_ranges, iterate_series

AXIAL = [1, 0, 0, 0, 1, 0]
SAGITTAL = [0, 1, 0, 0, 0, -1]


def write_slice(path, position, orientation=AXIAL, series="1.2"):
    write_dicom(
        path,
        RAMP,
        ImagePositionPatient=position,
        ImageOrientationPatient=orientation,
        SeriesInstanceUID=series,
    )
    return path


def describe(series):
    return [(item.path.stem, item.position_mm) for item in series.slices]


def test_slices_are_sorted_along_their_normal(tmp_path):
    """The normal of sagittal slices is (0, 1, 0) x (0, 0, -1) = (-1, 0, 0)."""
    for name, z in (("c", 4), ("a", 2), ("b", 0)):
        write_slice(tmp_path / f"{name}.dcm", [7, 8, z])
        write_slice(tmp_path / f"s{name}.dcm", [z, 8, 7], SAGITTAL, "1.3")
    axial, sagittal = iterate_series(sorted(tmp_path.iterdir()))
    assert describe(axial) == [("b", 0), ("a", 2), ("c", 4)]
    assert describe(sagittal) == [("sc", -4), ("sa", -2), ("sb", 0)]
    assert axial.series_instance_uid == "1.2" and axial.spacing_mm == 2
    assert axial.faults == () == sagittal.faults
    assert "1.2" not in repr(axial)


def test_stride(tmp_path):
    paths = [write_slice(tmp_path / f"{z}.dcm", [0, 0, z]) for z in range(5)]
    (series,) = iterate_series(paths, stride=2)
    assert describe(series) == [("0", 0), ("2", 2), ("4", 4)] and series.spacing_mm == 1
    with pytest.raises(ValueError, match="stride must be at least 1; got 0"):
        list(iterate_series(paths, stride=0))


def test_gaps_and_duplicates(tmp_path):
    places = {"a": 0, "b": 1.5, "c": 3, "d": 3, "e": 6}
    paths = [write_slice(tmp_path / f"{name}.dcm", [0, 0, z]) for name, z in places.items()]
    (series,) = iterate_series(paths)
    assert [item.path.stem for item in series.slices] == ["a", "b", "c", "e"]
    assert [(fault.kind, fault.path.stem) for fault in series.faults] == [
        ("duplicate", "d"),
        ("gap", "e"),
    ]
    assert series.faults[1].reason == "is 3 mm behind its neighbour; the others are 1.5 mm apart"


def test_leaning_stack(tmp_path):
    """1 mm aside for each mm along the normal: 45 degrees."""
    paths = [write_slice(tmp_path / f"{z}.dcm", [0, z, z]) for z in range(3)]
    (series,) = iterate_series(paths)
    assert [fault.kind for fault in series.faults] == ["tilt"]
    assert "leans by 45.0 degrees" in series.faults[0].reason


def test_changing_orientation_makes_groups(tmp_path):
    paths = [
        write_slice(tmp_path / "a.dcm", [0, 0, 0]),
        write_slice(tmp_path / "b.dcm", [0, 0, 0], SAGITTAL),
        write_slice(tmp_path / "c.dcm", [0, 0, 1]),
    ]
    axial, sagittal = iterate_series(paths)
    assert [item.path.stem for item in axial.slices] == ["a", "c"]
    assert [item.path.stem for item in sagittal.slices] == ["b"]
    assert sagittal.spacing_mm is None
    assert [fault.kind for series in (axial, sagittal) for fault in series.faults] == ["tilt"] * 2


def test_frames_of_an_enhanced_object(tmp_path):
    own = [
        make_groups(PlanePositionSequence={"ImagePositionPatient": [0, 0, z]}) for z in (2, 0, 1)
    ]
    shared = make_groups(PlaneOrientationSequence={"ImageOrientationPatient": AXIAL})
    write_frames(
        tmp_path / "a.dcm",
        np.zeros((3, 2, 2), np.uint16),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=own,
    )
    (series,) = iterate_series([tmp_path / "a.dcm"])
    assert [item.frame for item in series.slices] == [1, 2, 0]


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({}, r"no (0020,0032) Image Position"),
        (
            {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
            "two unit vectors",
        ),
    ],
)
def test_what_has_no_place_is_reported(tmp_path, elements, reason):
    write_dicom(tmp_path / "a.dcm", RAMP, **elements)
    (series,) = iterate_series([tmp_path / "a.dcm"])
    (fault,) = series.faults
    assert series.slices == () and fault.kind == "unusable" and reason in fault.reason


@pytest.mark.real_data
def test_real_volume_is_even(data_dir):
    paths = sorted((data_dir / "mr_brain_dicom").glob("*.dcm"))[:40]
    (series,) = iterate_series(paths)
    assert len(series.slices) == 40 and series.faults == ()


def write_value(path, stored, slope, modality="PT", series="1.2", **elements):
    """Write a slice of stored values that stand for `slope` times as much."""
    values = {"RescaleSlope": slope, "RescaleIntercept": 0, "SeriesInstanceUID": series}
    write_dicom(path, np.array([stored], np.uint16), Modality=modality, **values, **elements)
    return path


def read_row(path, ranges, window="auto"):
    image = read_dicom(path, window, bits=8, value_range=ranges.get(str(path)))
    return image.pixels[0, :, 0].tolist()


def test_slices_of_a_pet_series_compare(tmp_path):
    """Slices of 0 to 100 and of 0 to 400: 100 is 100 / 400 * 255 = 63.75 in both."""
    weak = write_value(tmp_path / "weak.dcm", [0, 1000], "0.1")
    strong = write_value(tmp_path / "strong.dcm", [0, 250, 1000], "0.4")
    assert read_row(weak, {}) == read_row(strong, {})[::2] == [0, 255]
    ranges = find_series_ranges([weak, strong])
    assert ranges == {str(weak): (0, 400), str(strong): (0, 400)}
    assert read_row(weak, ranges) == [0, 64] and read_row(strong, ranges) == [0, 64, 255]
    assert find_series_ranges([weak, strong], (40, 400)) == {}


def test_padding_and_damage_are_no_part_of_a_range(tmp_path):
    path = write_value(tmp_path / "a.dcm", [5, 10, 4000], "1", PixelPaddingValue=4000)
    empty = write_value(tmp_path / "b.dcm", [4000], "1", PixelPaddingValue=4000)
    (tmp_path / "c.dcm").write_bytes(path.read_bytes()[:300])
    files = [path, empty, tmp_path / "c.dcm", tmp_path / "missing.dcm"]
    assert find_series_ranges(files) == {str(path): (5, 10), str(empty): (5, 10)}


@pytest.mark.parametrize(
    ("modality", "slopes", "elements", "window", "has_range"),
    [
        ("CT", (1, 1), {}, "auto", False),
        ("MR", (2, 2), {}, "auto", False),
        ("MR", (1, 2), {}, "auto", True),
        ("CT", (1, 2), {}, "full", True),
        ("NM", (1, 1), {}, "auto", True),
        # Under "auto" the windows of the files hold.
        ("PT", (1, 2), {"WindowCenter": 40, "WindowWidth": 400}, "auto", False),
        ("PT", (1, 2), {"WindowCenter": 40, "WindowWidth": 400}, "full", True),
        ("PT", (1, 2), {"WindowCenter": 40, "WindowWidth": 400}, "lung", False),
    ],
)
def test_which_series_have_a_range(tmp_path, modality, slopes, elements, window, has_range):
    paths = [
        write_value(tmp_path / f"{index}.dcm", [0, 7], slope, modality, **elements)
        for index, slope in enumerate(slopes)
    ]
    assert bool(find_series_ranges(paths, window)) == has_range


def test_series_and_units_have_ranges_of_their_own(tmp_path):
    paths = [
        write_value(tmp_path / f"{index}.dcm", [0, high], "1", series=series, Units=units)
        for index, (high, series, units) in enumerate(
            [(10, "1.2", "BQML"), (20, "1.3", "BQML"), (30, "1.2", "CNTS"), (40, "", "BQML")]
        )
    ]
    ranges = find_series_ranges(paths)
    assert [ranges.get(str(path)) for path in paths] == [(0, 10), (0, 20), (0, 30), None]


def test_frames_of_one_file_have_one_range(tmp_path):
    """Frames of slope 1 and 3, both of stored values 0 and 10."""
    groups = [
        make_groups(PixelValueTransformationSequence={"RescaleSlope": s, "RescaleIntercept": 0})
        for s in (1, 3)
    ]
    frames = np.array([[[0, 10]], [[0, 10]]], np.uint16)
    path = tmp_path / "a.dcm"
    values = {"Modality": "MR", "SeriesInstanceUID": "1.2"}
    write_frames(path, frames, **values, PerFrameFunctionalGroupsSequence=groups)
    assert find_series_ranges([path]) == {str(path): (0, 30)}
