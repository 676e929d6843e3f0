"""Derived DICOM objects, against the standard and against values worked by hand."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut
from pydicom.uid import ExplicitVRLittleEndian
from test_dicom import write_dicom

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.derived import derive_dicom, read_picture
from vae_aug.ingest.dicom.image import read_dicom

RAMP = np.array([[0, 1000, 2000, 3000]], np.uint16)


def derive(path, change, window=None):
    """Add `change` to the picture and return the derived dataset."""
    picture = read_picture(path, window)
    changed = np.clip(picture.pixels + np.float32(change), 0, 1)
    return pydicom.dcmread(io.BytesIO(derive_dicom(picture, changed, "made lighter")))


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm"])
def test_the_picture_is_what_a_display_shows(name):
    path = get_testdata_file(name)
    shown = read_dicom(path).pixels / 65535
    np.testing.assert_allclose(read_picture(path).pixels, shown, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The pixel data is 8320 bytes long")  # what pydicom calls padded
# Every encoding in which pydicom ships a grey slice that needs no further package.
@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_an_unchanged_picture_keeps_every_stored_value(name):
    path = get_testdata_file(name)
    source, derived = pydicom.dcmread(path), derive(path, 0.0)
    np.testing.assert_array_equal(derived.pixel_array, source.pixel_array)
    assert derived.pixel_array.dtype == source.pixel_array.dtype.newbyteorder("<")
    assert derived.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    for keyword in (
        "PatientName",
        "PatientID",
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        "PixelSpacing",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "SliceThickness",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "RescaleSlope",
        "RescaleIntercept",
        "WindowCenter",
        "WindowWidth",
    ):
        assert derived.get(keyword) == source.get(keyword), keyword


def test_what_it_is_and_where_it_comes_from():
    path = get_testdata_file("CT_small.dcm")
    source, derived = pydicom.dcmread(path), derive(path, 0.1)
    assert derived.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
    assert derived.DerivationDescription == "made lighter"
    (code,) = derived.DerivationCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113087", "DCM")
    (reference,) = derived.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == source.SOPClassUID
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert derived.SOPInstanceUID != source.SOPInstanceUID
    assert derived.SOPInstanceUID == derived.file_meta.MediaStorageSOPInstanceUID
    assert derived.SeriesInstanceUID != source.SeriesInstanceUID
    assert derived.SeriesDescription.endswith("(denoised)")


def test_slices_of_a_series_stay_one_series(tmp_path):
    for name, stored in (("a", RAMP), ("b", RAMP[:, ::-1])):
        write_dicom(tmp_path / name, stored, SeriesInstanceUID="1.2.3", SeriesDescription="x" * 60)
    first, second = (derive(tmp_path / name, 0.1) for name in "ab")
    assert first.SeriesInstanceUID == second.SeriesInstanceUID != "1.2.3"
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert len(first.SeriesDescription) == 64


def test_the_same_change_gives_the_same_bytes_and_another_another_object(tmp_path):
    write_dicom(tmp_path / "a", RAMP)
    picture = read_picture(tmp_path / "a")
    same = [derive_dicom(picture, picture.pixels * 0.5, "d") for _ in range(2)]
    assert same[0] == same[1]
    other = derive_dicom(picture, picture.pixels * 0.25, "d")
    uids = [pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID for data in (same[0], other)]
    assert uids[0] != uids[1]


def test_stored_values_by_hand(tmp_path):
    """Full range 3000 stored values: a change of 0.1 is 300, and never leaves the range."""
    write_dicom(tmp_path / "a", RAMP, RescaleSlope=2, RescaleIntercept=-1024)
    np.testing.assert_array_equal(
        derive(tmp_path / "a", 0.1).pixel_array, [[300, 1300, 2300, 3000]]
    )
    np.testing.assert_array_equal(derive(tmp_path / "a", -0.1).pixel_array, [[0, 700, 1700, 2700]])


def test_what_lies_outside_of_the_window_is_kept(tmp_path):
    """Window of 1001 Hounsfield units, slope 2: 0.1 is 100 units, 50 stored values.

    Centre 976: 475.5 to 1475.5, so only stored 1000 (976 units) is inside.
    """
    elements = {"RescaleSlope": 2, "RescaleIntercept": -1024}
    elements |= {"WindowCenter": 976, "WindowWidth": 1001}
    write_dicom(tmp_path / "a", RAMP, **elements)
    picture = read_picture(tmp_path / "a")
    np.testing.assert_allclose(picture.pixels[..., 0], [[0, 0.5005, 1, 1]], atol=1e-6)
    changed = picture.pixels + np.float32([[[0.02], [0.1], [0.0], [-0.02]]])
    data = derive_dicom(picture, changed, "d")
    derived = pydicom.dcmread(io.BytesIO(data))
    np.testing.assert_array_equal(derived.pixel_array, [[10, 1050, 2000, 2990]])
    assert apply_modality_lut(derived.pixel_array, derived)[0, 1] == 976 + 100


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        # Exact: 500 to 1500 shows 1000 as the middle; a sigmoid counts as no window.
        ({"VOILUTFunction": "LINEAR_EXACT"}, [0, 0.5, 1, 1]),
        ({"VOILUTFunction": "SIGMOID"}, [0, 1 / 3, 2 / 3, 1]),
        ({"VOILUTFunction": "LINEAR", "WindowWidth": 1}, [0, 1 / 3, 2 / 3, 1]),
    ],
)
def test_functions_of_the_window(tmp_path, elements, expected):
    write_dicom(tmp_path / "a", RAMP, **{"WindowCenter": 1000, "WindowWidth": 1000, **elements})
    np.testing.assert_allclose(read_picture(tmp_path / "a").pixels[0, :, 0], expected, atol=1e-6)


def test_inverted_polarity(tmp_path):
    write_dicom(tmp_path / "a", RAMP, photometric="MONOCHROME1")
    assert read_picture(tmp_path / "a").pixels[0, 0] == 1
    derived = derive(tmp_path / "a", 0.1)
    np.testing.assert_array_equal(derived.pixel_array, [[0, 700, 1700, 2700]])
    assert derived.PhotometricInterpretation == "MONOCHROME1"


def test_padding_stays_and_nothing_becomes_padding(tmp_path):
    stored = np.array([[-2000, 10, 20, 30]], np.int16)
    write_dicom(tmp_path / "a", stored, bits_stored=16, PixelPaddingValue=-2000)
    np.testing.assert_array_equal(derive(tmp_path / "a", 0.5).pixel_array, [[-2000, 20, 30, 30]])
    np.testing.assert_array_equal(derive(tmp_path / "a", -1).pixel_array, [[-2000, 10, 10, 10]])


@pytest.mark.parametrize("stored", [np.full((2, 2), 7, np.uint8), np.full((3, 1), 7, np.uint8)])
def test_a_flat_image_and_an_odd_number_of_bytes(tmp_path, stored):
    write_dicom(tmp_path / "a", stored, bits_stored=8)
    np.testing.assert_array_equal(derive(tmp_path / "a", 0.5).pixel_array, stored)


def test_all_padding_is_left_alone(tmp_path):
    write_dicom(tmp_path / "a", RAMP * 0, PixelPaddingValue=0)
    np.testing.assert_array_equal(derive(tmp_path / "a", 0.5).pixel_array, RAMP * 0)


def test_stale_elements_are_gone(tmp_path):
    icon = pydicom.Dataset()
    icon.Rows = 1
    write_dicom(tmp_path / "a", RAMP, LargestImagePixelValue=3000, IconImageSequence=[icon])
    derived = derive(tmp_path / "a", -0.1)
    assert "LargestImagePixelValue" not in derived and "IconImageSequence" not in derived


def test_words_of_a_big_endian_file_are_turned_around():
    """An overlay's words, which pydicom carries as bytes, change their order with the file."""
    source = pydicom.dcmread(get_testdata_file("MR_small_bigendian.dcm"))
    source.add_new(0x60003000, "OW", b"\x01\x02\x03\x04")
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, source)
    path = io.BytesIO(buffer.getvalue())
    picture = read_picture(get_testdata_file("MR_small_bigendian.dcm"))
    picture.dataset.add_new(0x60003000, "OW", pydicom.dcmread(path)[0x60003000].value)
    derived = pydicom.dcmread(io.BytesIO(derive_dicom(picture, picture.pixels, "d")))
    assert derived[0x60003000].value == b"\x02\x01\x04\x03"


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, r"\(0028,1053\) Rescale Slope"),
        ({"BitsAllocated": 32}, r"\(0028,0100\) Bits Allocated must be 8 or 16; got 32"),
    ],
)
def test_what_has_no_way_back_is_refused(tmp_path, elements, message):
    write_dicom(tmp_path / "a", RAMP, **elements)
    with pytest.raises(DicomError, match=message) as caught:
        read_picture(tmp_path / "a")
    assert str(tmp_path / "a") in str(caught.value)


def test_a_modality_lut_is_refused(tmp_path):
    item = pydicom.Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [3, 0, 16], "US"
    item.add_new(0x00283006, "US", [0, 10, 20])
    write_dicom(tmp_path / "a", RAMP, ModalityLUTSequence=[item])
    with pytest.raises(DicomError, match=r"\(0028,3000\) Modality LUT.*written as PNG"):
        read_picture(tmp_path / "a")


def test_the_repr_tells_no_patient(tmp_path):
    write_dicom(tmp_path / "a", RAMP)
    assert "DOE" not in repr(read_picture(tmp_path / "a"))


def test_colour_and_other_files_are_refused():
    for name in ("SC_rgb_small_odd.dcm", "reportsi.dcm", "README.txt"):
        with pytest.raises(DicomError):
            read_picture(get_testdata_file(name))


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"RescaleSlope": 1},
        {"VOILUTSequence": [pydicom.Dataset()]},
        {"WindowCenter": [1, 500.5], "WindowWidth": [0, 1001]},
    ],
)
def test_windows_and_rescales_are_those_of_read_dicom(tmp_path, elements):
    """The window shows 0 to 1000, so that a quarter of it is 250 stored values."""
    path = tmp_path / "a.dcm"
    elements = {"WindowCenter": 500.5, "WindowWidth": 1001, **elements}
    write_dicom(path, np.array([[0, 500, 1000]], np.uint16), **elements)
    shown = read_dicom(path).pixels / 65535
    np.testing.assert_allclose(read_picture(path).pixels, shown, atol=1e-5)
    np.testing.assert_array_equal(derive(path, 0.25).pixel_array, [[250, 750, 1000]])
