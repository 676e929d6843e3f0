from __future__ import annotations

import struct
from functools import partial
from importlib.util import find_spec

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_windowing, pixel_array
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
    SegmentationStorage,
    generate_uid,
)

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.file import is_dicom
from vae_aug.ingest.dicom.image import WINDOWS, check_window, keep_headers, read_dicom, read_header
from vae_aug.ingest.dicom.values import apply_window


def write_dicom(path, stored, *, bits_stored=12, photometric="MONOCHROME2", **elements):
    """Write stored values `[H, W]`, int16, uint16 or uint8, as an uncompressed CT slice."""
    stored = np.asarray(stored)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.PatientID, dataset.PatientName, dataset.Modality = "ID-4711", "DOE^JANE", "CT"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 * stored.itemsize
    dataset.BitsStored, dataset.HighBit = bits_stored, bits_stored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


RAMP = np.array([[0, 1000, 2000, 3000]], np.uint16)
CT = {"RescaleSlope": 1, "RescaleIntercept": -1024}


def read_pixels(path, *args, **kwargs):
    return read_dicom(path, *args, **kwargs).pixels[..., 0]


def test_full_range_without_a_window(tmp_path):
    write_dicom(tmp_path / "a.dcm", RAMP)
    image = read_dicom(tmp_path / "a.dcm")
    assert image.pixels.shape == (1, 4, 1) and image.pixels.dtype == np.uint16
    # 65535 / 3 = 21845
    np.testing.assert_array_equal(image.pixels[0, :, 0], [0, 21845, 43690, 65535])
    assert image.window is None


def test_window_in_hounsfield_units(tmp_path):
    """Hounsfield -1024, -24, 976, 1976 in (center 476, width 2001): black at -524.5, slope 1/2000.

    The linear function of C.11.2.1.2.1 gives (x - 475.5) / 2000 + 0.5: 0.25025 for -24.
    """
    write_dicom(tmp_path / "a.dcm", RAMP, **CT, WindowCenter=476, WindowWidth=2001)
    image = read_dicom(tmp_path / "a.dcm")
    expected = [0, np.floor(0.25025 * 65535 + 0.5), np.floor(0.75025 * 65535 + 0.5), 65535]
    np.testing.assert_array_equal(image.pixels[0, :, 0], expected)
    assert image.window == (476, 2001)


def test_first_of_several_windows_counts(tmp_path):
    values = {"WindowCenter": [476, 0], "WindowWidth": [2001, 1]}
    write_dicom(tmp_path / "a.dcm", RAMP, **CT, **values)
    assert read_dicom(tmp_path / "a.dcm").window == (476, 2001)


@pytest.mark.parametrize("name", sorted(WINDOWS))
def test_presets_are_windows(tmp_path, name):
    write_dicom(tmp_path / "a.dcm", RAMP, **CT, WindowCenter=1, WindowWidth=2)
    image = read_dicom(tmp_path / "a.dcm", name)
    assert image.window == WINDOWS[name]
    np.testing.assert_array_equal(
        image.pixels, read_dicom(tmp_path / "a.dcm", WINDOWS[name]).pixels
    )


def test_full_ignores_the_window_of_the_file(tmp_path):
    write_dicom(tmp_path / "a.dcm", RAMP, **CT, WindowCenter=0, WindowWidth=1)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.dcm", "full"), RAMP / 3000 * 65535)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_functions_agree_with_pydicom(tmp_path, function):
    values = {"WindowCenter": 300, "WindowWidth": 1400, "VOILUTFunction": function}
    stored = np.arange(0, 4096, 7, dtype=np.uint16).reshape(2, 293)
    dataset = write_dicom(tmp_path / "a.dcm", stored, **CT, **values)
    peer = apply_windowing(apply_modality_lut(stored, dataset), dataset)
    # pydicom scales to the range of the modality values: 12 bits from the intercept on.
    peer = (peer + 1024) / 4095
    read = read_pixels(tmp_path / "a.dcm") / 65535
    np.testing.assert_allclose(read, peer, atol=0.51 / 65535)


def test_width_of_one_is_a_threshold():
    values = np.array([9.0, 9.5, 9.6])
    np.testing.assert_array_equal(apply_window(values, 10, 1), [0, 0, 1])


def test_sigmoid_of_extreme_values_is_finite():
    values = np.array([-1e9, 0, 1e9])
    np.testing.assert_array_equal(apply_window(values, 0, 1, "SIGMOID"), [0, 0.5, 1])


def test_signed_values_and_slope(tmp_path):
    stored = np.array([[-2000, 0, 2000]], np.int16)
    write_dicom(
        tmp_path / "a.dcm", stored, bits_stored=16, RescaleSlope="0.5", RescaleIntercept=100
    )
    # -900, 100, 1100 in (100, 2001): (x - 99.5) / 2000 + 0.5
    read = read_pixels(tmp_path / "a.dcm", (100, 2001)) / 65535
    np.testing.assert_allclose(read, [[0.00025, 0.50025, 1]], atol=0.5 / 65535)


def test_8_bits_stay_8_bits(tmp_path):
    stored = np.array([[0, 51, 255]], np.uint8)
    write_dicom(tmp_path / "a.dcm", stored, bits_stored=8)
    assert read_dicom(tmp_path / "a.dcm").pixels.dtype == np.uint8
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.dcm"), stored)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.dcm", bits=16), stored * np.uint16(257))


def test_12_bits_as_8_on_request(tmp_path):
    write_dicom(tmp_path / "a.dcm", RAMP)
    read = read_pixels(tmp_path / "a.dcm", bits=8)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, [[0, 85, 170, 255]])


@pytest.mark.parametrize("window", ["auto", "full", (476, 2001)])
def test_monochrome1_is_inverted_once(tmp_path, window):
    values = {**CT, "WindowCenter": 500, "WindowWidth": 1900}
    write_dicom(tmp_path / "a.dcm", RAMP, **values)
    write_dicom(tmp_path / "b.dcm", RAMP, photometric="MONOCHROME1", **values)
    sums = read_pixels(tmp_path / "a.dcm", window).astype(int) + read_pixels(
        tmp_path / "b.dcm", window
    )
    # Both round half up, so a value in the middle of two steps gives one more.
    assert np.isin(sums, [65535, 65536]).all()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_stretch_the_range(tmp_path, photometric):
    stored = np.array([[-2000, -2000, 0, 100]], np.int16)
    path = tmp_path / "a.dcm"
    write_dicom(path, stored, bits_stored=16, photometric=photometric, PixelPaddingValue=-2000)
    expected = [0, 0, 65535, 0] if photometric == "MONOCHROME1" else [0, 0, 0, 65535]
    np.testing.assert_array_equal(read_pixels(path, "full"), [expected])


def test_padding_range(tmp_path):
    stored = np.array([[0, 5, 10, 20]], np.uint16)
    values = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 5}
    write_dicom(tmp_path / "a.dcm", stored, **values)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.dcm"), [[0, 0, 0, 65535]])


def test_image_of_one_value_is_black(tmp_path):
    write_dicom(tmp_path / "a.dcm", np.full((2, 2), 7, np.uint16))
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.dcm"), np.zeros((2, 2)))


def make_lut(descriptor, data):
    item = pydicom.Dataset()
    item.add_new(0x00283002, "US", list(descriptor))
    item.add_new(0x00283006, "US", list(data))
    return [item]


def test_voi_lut_goes_before_the_window(tmp_path):
    """Entries for 1000..1003 of 8 bits; values beyond take the first and the last entry."""
    lut = make_lut((4, 1000, 8), (10, 20, 30, 200))
    stored = np.array([[0, 1001, 1002, 4000]], np.uint16)
    values = {"VOILUTSequence": lut, "WindowCenter": 1, "WindowWidth": 2}
    write_dicom(tmp_path / "a.dcm", stored, **values)
    image = read_dicom(tmp_path / "a.dcm", bits=8)
    np.testing.assert_array_equal(image.pixels[0, :, 0], [10, 20, 30, 200])
    assert image.window is None


def test_modality_lut(tmp_path):
    values = {"ModalityLUTSequence": make_lut((3, 0, 16), (0, 5, 50)), "bits_stored": 8}
    write_dicom(tmp_path / "a.dcm", np.array([[0, 1, 2, 9]], np.uint8), **values)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.dcm"), [[0, 26, 255, 255]])


def test_identifiers_and_spacing(tmp_path):
    dataset = write_dicom(tmp_path / "a.dcm", RAMP, PixelSpacing=[0.5, 0.25])
    image, header = read_dicom(tmp_path / "a.dcm"), read_header(tmp_path / "a.dcm")
    uid = dataset.SOPInstanceUID
    assert image.sop_instance_uid == header.sop_instance_uid == uid
    assert image.patient_id == header.patient_id == "ID-4711"
    assert image.pixel_spacing_mm == (0.5, 0.25) and image.modality == "CT"
    assert (header.height, header.width) == (1, 4)
    for text in (repr(image), repr(header)):
        assert "4711" not in text and uid not in text


def test_header_tells_what_the_object_is(tmp_path):
    path = tmp_path / "a.dcm"
    values = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", "Manufacturer": "ACME"}
    frames = np.zeros((7, 1, 4), np.uint16)
    write_frames(path, frames, **values, BurnedInAnnotation="YES")
    header = read_header(path)
    assert (header.series_instance_uid, header.study_instance_uid) == ("1.2.3", "1.2")
    assert (header.modality, header.manufacturer, header.frames) == ("CT", "ACME", 7)
    assert header.sop_class_uid == CTImageStorage
    assert header.burned_in_annotation is True and header.is_image
    write_dicom(path, RAMP, SOPClassUID=SegmentationStorage)
    header = read_header(path)
    assert not header.is_image and header.burned_in_annotation is None and header.frames == 1


def write_frames(path, frames, **elements):
    """Write an enhanced object of frames `[N, H, W] uint16`."""
    write_dicom(path, frames[0], NumberOfFrames=len(frames), **elements)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = frames.tobytes()
    dataset.save_as(path)
    return dataset


def make_groups(**groups):
    """Make an item of functional groups of one item each."""
    item = pydicom.Dataset()
    for keyword, elements in groups.items():
        inner = pydicom.Dataset()
        for name, value in elements.items():
            setattr(inner, name, value)
        setattr(item, keyword, [inner])
    return item


def test_each_frame_has_its_own_values_and_window(tmp_path):
    """Frames 0 and 1 hold 100; with their own rescale 100 and 200, in the window 100..200."""
    window = {"WindowCenter": 150, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT"}
    shared = make_groups(FrameVOILUTSequence=window, PixelMeasuresSequence={"PixelSpacing": [2, 3]})
    own = [
        make_groups(
            PixelValueTransformationSequence={"RescaleSlope": slope, "RescaleIntercept": intercept}
        )
        for slope, intercept in ((1, 0), (2, 0), (1, 50))
    ]
    frames = np.full((3, 2, 2), 100, np.uint16)
    write_frames(
        tmp_path / "a.dcm",
        frames,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=own,
    )
    for frame, expected in enumerate((0, 255, 128)):
        image = read_dicom(tmp_path / "a.dcm", bits=8, frame=frame)
        np.testing.assert_array_equal(image.pixels, np.full((2, 2, 1), expected))
        assert image.pixel_spacing_mm == (2, 3) and image.window == (150, 100)


@pytest.mark.parametrize("syntax", [None, DeflatedExplicitVRLittleEndian, RLELossless])
def test_frames_are_read_by_index(tmp_path, syntax):
    path = tmp_path / "a.dcm"
    frames = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5) * 7
    dataset = write_frames(path, frames)
    if syntax == RLELossless:
        dataset.compress(RLELossless)
    elif syntax is not None:
        dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    for frame, stored in enumerate(frames):
        expected = np.floor((stored - stored.min()) / np.ptp(stored) * 65535 + 0.5)
        np.testing.assert_array_equal(read_pixels(path, frame=frame), expected)
    with pytest.raises(DicomError, match=r"has 3 frames \(0028,0008\); pass frame="):
        read_dicom(path)
    with pytest.raises(DicomError, match=r"has 3 frames \(0028,0008\); got frame 3"):
        read_dicom(path, frame=3)
    with pytest.raises(ValueError, match="frame must be at least 0; got -1"):
        read_dicom(path, frame=-1)


def test_file_that_cannot_hold_its_frames(tmp_path):
    write_dicom(tmp_path / "a.dcm", RAMP, NumberOfFrames=500)
    message = r"\(0028,0008\) Number of Frames is 500, but the pixel data have room for 1\."
    for read in (read_header, partial(read_dicom, frame=0)):
        with pytest.raises(DicomError, match=message):
            read(tmp_path / "a.dcm")


def test_groups_for_too_few_frames(tmp_path):
    frames = np.zeros((2, 2, 2), np.uint16)
    groups = [make_groups(FrameVOILUTSequence={"WindowCenter": 1, "WindowWidth": 2})]
    write_frames(tmp_path / "a.dcm", frames, PerFrameFunctionalGroupsSequence=groups)
    with pytest.raises(DicomError, match=r"\(5200,9230\) describes 1 frames; frame 1 is missing"):
        read_dicom(tmp_path / "a.dcm", frame=1)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE"])
def test_presentation_lut_shape(tmp_path, photometric, shape):
    path = tmp_path / "a.dcm"
    write_dicom(path, RAMP, photometric=photometric, PresentationLUTShape=shape)
    is_inverted = photometric == "MONOCHROME1" or shape == "INVERSE"
    expected = [65535, 43690, 21845, 0] if is_inverted else [0, 21845, 43690, 65535]
    np.testing.assert_array_equal(read_pixels(path), [expected])


COLOUR = np.array([[[10, 20, 30], [0, 128, 255]]], np.uint8)


@pytest.mark.parametrize("planar", [0, 1])
def test_colour(tmp_path, planar):
    path = tmp_path / "a.dcm"
    write_dicom(
        path,
        np.zeros((1, 2), np.uint8),
        bits_stored=8,
        photometric="RGB",
        SamplesPerPixel=3,
        PlanarConfiguration=planar,
        PixelData=(COLOUR.transpose(2, 0, 1) if planar else COLOUR).tobytes(),
    )
    image = read_dicom(path, "lung")
    assert image.window is None and image.pixels.dtype == np.uint8
    np.testing.assert_array_equal(image.pixels, COLOUR)
    np.testing.assert_array_equal(read_dicom(path, bits=16).pixels, COLOUR * np.uint16(257))


def test_colour_without_colour_is_grey(tmp_path):
    path = tmp_path / "a.dcm"
    grey = np.array([[5, 250]], np.uint8)
    values = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "photometric": "RGB"}
    data = np.repeat(grey, 3).tobytes()
    write_dicom(path, grey, bits_stored=8, **values, PixelData=data)
    np.testing.assert_array_equal(read_dicom(path).pixels, grey[..., None])


def test_palette(tmp_path):
    path = tmp_path / "a.dcm"
    values = {}
    for channel, entries in (("Red", (0, 10)), ("Green", (1, 20)), ("Blue", (2, 30))):
        values[f"{channel}PaletteColorLookupTableDescriptor"] = [2, 0, 8]
        values[f"{channel}PaletteColorLookupTableData"] = bytes(entries)
    stored = np.array([[1, 0]], np.uint8)
    write_dicom(path, stored, bits_stored=8, photometric="PALETTE COLOR", **values)
    np.testing.assert_array_equal(read_dicom(path).pixels, [[[10, 20, 30], [0, 1, 2]]])


def test_deflated_bomb_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.dcm"
    dataset = write_dicom(path, np.zeros((256, 256), np.uint16))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    assert read_header(path).height == 256
    monkeypatch.setattr("vae_aug.ingest.dicom.file.MAX_INFLATED_BYTES", 2**16)
    for read in (read_header, read_dicom):
        with pytest.raises(DicomError, match="longer than 65536 bytes when inflated"):
            read(path)


def test_video_is_refused(tmp_path):
    path = tmp_path / "a.dcm"
    dataset = write_dicom(path, RAMP)
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0\0"])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(DicomError, match=r"\(0002,0010\) Transfer Syntax UID, MPEG2 .*convert"):
        read_dicom(path)


def test_missing_decoder_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "a.dcm"
    dataset = write_dicom(path, np.zeros((8, 8), np.uint16))
    dataset.compress(RLELossless)
    dataset.save_as(path)
    decoder = type("Decoder", (), {"is_available": False})
    monkeypatch.setattr("vae_aug.ingest.dicom.frames.get_decoder", lambda syntax: decoder)
    with pytest.raises(DicomError, match=r"pip install 'vae-aug\[dicom\]'"):
        read_dicom(path)


def test_headers_are_kept_within_a_block_alone(tmp_path):
    path = tmp_path / "a.dcm"
    write_dicom(path, RAMP)
    with keep_headers():
        header = read_header(path)
        path.unlink()
        assert read_header(str(path)) is header
    with pytest.raises(DicomError, match="cannot be read"):
        read_header(path)


def test_is_dicom(tmp_path):
    write_dicom(tmp_path / "a.dcm", RAMP)
    (tmp_path / "b.dcm").write_bytes(b"short")
    assert is_dicom(tmp_path / "a.dcm")
    assert not is_dicom(tmp_path / "b.dcm") and not is_dicom(tmp_path / "missing")


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"NumberOfFrames": 500}, r"has 500 frames \(0028,0008\); pass frame="),
        ({"NumberOfFrames": -5}, r"\(0028,0008\) Number of Frames must be at least 1; got -5"),
        ({"photometric": "RGB"}, r"\(0028,0002\) Samples per Pixel must be 3 .* got 1"),
        ({"photometric": "HSV"}, r"\(0028,0004\) Photometric Interpretation .* got another"),
        ({"SOPClassUID": SegmentationStorage}, "no image but an object of Segmentation Storage"),
        ({"Rows": 40000, "Columns": 40000}, "40000 x 40000 pixels; at most"),
        ({"Rows": 0}, r"\(0028,0010\) Rows is missing or 0"),
        ({"Rows": 3}, "damaged or do not fit the header"),
        (
            {"WindowCenter": 1, "WindowWidth": 0},
            r"\(0028,1051\) Window Width .* 1; got 0; pass window='full'",
        ),
        ({"WindowCenter": 1, "WindowWidth": 2, "VOILUTFunction": "X"}, r"\(0028,1056\) VOI LUT Fu"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, elements, message):
    path = tmp_path / "a.dcm"
    write_dicom(path, RAMP, **elements)
    with pytest.raises(DicomError, match=message) as caught:
        read_dicom(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "4711" not in str(caught.value) and "DOE" not in str(caught.value)


def test_files_that_are_no_images(tmp_path):
    dataset = write_dicom(tmp_path / "a.dcm", RAMP)
    del dataset.PixelData
    dataset.save_as(tmp_path / "a.dcm")
    (tmp_path / "text.dcm").write_text("no DICOM at all " * 20)
    (tmp_path / "short.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:200])
    cases = {
        "a.dcm": r"no pixel data \(7FE0,0010\)",
        "text.dcm": "not a DICOM file",
        "short.dcm": "",
        "missing.dcm": "No such file",
    }
    for name, message in cases.items():
        with pytest.raises(DicomError, match=rf"{name}: .*{message}"):
            read_dicom(tmp_path / name)


def test_warnings_of_pydicom_do_not_escape(tmp_path):
    """An empty window and a truncated tail make pydicom warn; pytest makes warnings errors."""
    path = tmp_path / "a.dcm"
    dataset = write_dicom(path, RAMP)
    dataset.PixelData += b"\0" * 6
    dataset.add_new(0x00281050, "DS", "")
    dataset.save_as(path)
    with pytest.warns(UserWarning, match="bytes"):
        _ = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(read_pixels(path), [[0, 21845, 43690, 65535]])


def test_text_is_a_window():
    assert check_window("40, 400") == (40, 400)


@pytest.mark.parametrize(
    "window", ["lungs", "1,2,3", "a,2", (1,), (1, 0.5), (float("nan"), 1), (0, float("inf"))]
)
def test_bad_windows(window):
    with pytest.raises(ValueError, match=r"window must be 'auto', 'full', .*got"):
        check_window(window)


def test_bad_bits(tmp_path):
    with pytest.raises(ValueError, match="bits must be 8, 16 or None; got 12"):
        read_dicom(tmp_path / "a.dcm", bits=12)


def test_slice_that_ships_with_pydicom():
    path = get_testdata_file("CT_small.dcm")
    dataset = pydicom.dcmread(path)
    image = read_dicom(path)
    values = dataset.pixel_array * 1.0 + float(dataset.RescaleIntercept)
    scaled = (values - values.min()) / (values.max() - values.min())
    padding = dataset.pixel_array == dataset.get("PixelPaddingValue")
    assert not padding.any()
    np.testing.assert_allclose(image.pixels[..., 0] / 65535, scaled, atol=0.51 / 65535)


@pytest.mark.real_data
def test_lossless_syntaxes_give_the_same_pixels(data_dir):
    folder = data_dir / "dicom_syntaxes"
    reference = read_pixels(folder / "CTImage.dcm")
    for name in ("BigEndianExplicit", "DeflatedExplicitVRLittleEndian", "LittleEndianImplicit"):
        (path,) = folder.glob(f"CTImage.dcm_{name}*")
        np.testing.assert_array_equal(read_pixels(path), reference)


@pytest.mark.real_data
def test_real_monochrome1(data_dir):
    path = data_dir / "dicom_objects" / "dx_image.dcm"
    stored = pydicom.dcmread(path).pixel_array
    expected = np.floor((1 - np.clip((stored - 127.5) / 255 + 0.5, 0, 1)) * 255 + 0.5)
    np.testing.assert_array_equal(read_pixels(path), expected)


def write_jpeg(path, data, syntax):
    dataset = write_dicom(path, np.zeros((4, 4), np.uint8), bits_stored=8)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate([data])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)


@pytest.mark.parametrize("size", [(4, 5, 1), (4, 4, 3), None])
def test_lossless_jpeg_that_does_not_fit_never_reaches_the_decoder(tmp_path, monkeypatch, size):
    """GDCM ends the process on some of these."""
    header = b"" if size is None else b"\xff\xc3\x00\x0b\x08" + struct.pack(">HHB", *size) + b"abc"
    write_jpeg(tmp_path / "a.dcm", b"\xff\xd8" + header + b"\xff\xd9", JPEGLosslessSV1)
    monkeypatch.setattr("vae_aug.ingest.dicom.frames.pixel_array", None)
    with pytest.raises(DicomError, match=r"JPEG of frame 0 is damaged .* \(4, 4, 1\) rows"):
        read_dicom(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("MR_small_jpeg_ls_lossless.dcm", marks=pytest.mark.slow),
        "MR_small_jp2klossless.dcm",
        "693_J2KI.dcm",
    ],
)
def test_another_decoder_than_gdcm_reads_damaged_files(tmp_path, monkeypatch, name):
    """GDCM ends the process on the first of these, and on some damaged ones of the others."""
    pytest.importorskip("jpeg_ls")
    pytest.importorskip("openjpeg")
    dataset = pydicom.dcmread(get_testdata_file(name))
    coded = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = pydicom.encaps.encapsulate([coded[: len(coded) // 2]])
    dataset.save_as(tmp_path / "a.dcm")
    asked = []

    def record(*args, decoding_plugin, **kwargs):
        asked.append(decoding_plugin)
        return pixel_array(*args, decoding_plugin=decoding_plugin, **kwargs)

    monkeypatch.setattr("vae_aug.ingest.dicom.frames.pixel_array", record)
    with pytest.raises(DicomError, match="are damaged or do not fit the header"):
        read_dicom(tmp_path / "a.dcm")
    assert asked and not {"", "gdcm"} & set(asked)


def test_12_bit_jpeg_names_the_decoder(tmp_path):
    """In the wheel of pydicom; a decoder under the GPL would read it."""
    pytest.importorskip("gdcm")
    if find_spec("libjpeg") is not None:
        pytest.skip("pylibjpeg-libjpeg is installed")
    with pytest.raises(DicomError, match="12 bits only decoders under the GPL read"):
        read_dicom(get_testdata_file("JPGExtended.dcm"))
