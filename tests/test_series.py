from __future__ import annotations

import numpy as np
import pytest
from test_dicom import RAMP, make_groups, write_dicom, write_frames

from vae_aug.data.series import iterate_series

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
