"""Stored values to grey levels, each worked by hand; none may be black without a word."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)
from test_dicom import make_lut, write_dicom

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.elements import get_integer, get_items, get_words, name_element
from vae_aug.ingest.dicom.image import read_dicom
from vae_aug.ingest.dicom.values import StoredBits, place_bits

CASES = Path(__file__).resolve().parent.parent.parent / "shared" / "cases" / "field"


def put(dataset, tag, vr, value):
    """Set an element without the checks of a writer."""
    dataset[tag] = pydicom.DataElement(tag, vr, value, validation_mode=pydicom.config.IGNORE)


def write_cells(
    path, cells, bits, *, photometric="MONOCHROME2", syntax=ExplicitVRLittleEndian, elements=()
):
    """Write cells `[H, W]`, unsigned, of (allocated, stored, high bit, representation).

    Elements are (tag, VR, value), so that any of them can be written in a wrong VR.
    """
    allocated, stored, high, representation = bits
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    cells = np.asarray(cells).astype(f"{order}u{allocated // 8}")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(
        path,
        {},
        file_meta=meta,
        preamble=bytes(128),
        is_implicit_VR=syntax == ImplicitVRLittleEndian,
        is_little_endian=order == "<",
    )
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = cells.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, stored, high
    dataset.PixelRepresentation = representation
    dataset.add_new(0x7FE00010, "OW", cells.tobytes() + b"\0" * (cells.nbytes % 2))
    for tag, vr, value in elements:
        put(dataset, tag, vr, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def read_levels(path, *args, bits=8, **kwargs):
    return read_dicom(path, *args, bits=bits, **kwargs).pixels[..., 0].ravel().tolist()


def test_elements_are_named_by_tag_and_keyword():
    assert name_element("PixelPaddingValue") == "(0028,0120) Pixel Padding Value"
    assert name_element("FloatPixelPaddingValue") == "(0028,0122) Float Pixel Padding Value"


# The twelve bits 1000 0011 0000 are 0x830: 2096, or signed 2096 - 4096 = -2000.
@pytest.mark.parametrize(
    ("bits", "cell", "value"),
    [
        ((16, 12, 11, 0), 0x0830, 2096),
        ((16, 12, 11, 1), 0x0830, -2000),  # the sign is not repeated above the value
        ((16, 12, 11, 1), 0xF830, -2000),  # it is
        ((16, 12, 11, 0), 0xF830, 2096),  # an overlay lies above the value
        ((16, 12, 11, 1), 0x5830, -2000),
        ((16, 12, 15, 0), 0x8300, 2096),  # High Bit 15: four unused bits below the value
        ((16, 12, 15, 0), 0x830F, 2096),  # in which an overlay lies
        ((16, 12, 15, 1), 0x8305, -2000),
        ((16, 12, 13, 1), 0xE0C3, -2000),  # 0x830 << 2 = 0x20C0, overlays on both sides
        ((8, 6, 5, 1), 0b11_10_0000, -32),
        ((8, 6, 7, 0), 0b10_0000_11, 32),
        ((32, 20, 19, 1), 0xFFF80000, -(2**19)),
        ((32, 32, 31, 1), 0x80000000, -(2**31)),
        ((32, 32, 31, 0), 0x80000000, 2**31),
        ((16, 2, 1, 1), 0xFFFE, -2),
    ],
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_values_are_taken_out_of_their_cells(tmp_path, bits, cell, value, syntax):
    """Seen from 100 levels below the value to 155 above it, the value is level 100."""
    if syntax == RLELossless and bits[0] == 32:
        pytest.skip("the encoder takes 16 bits")
    path = tmp_path / "a.dcm"
    native = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    write_cells(path, [[cell, cell]], bits, syntax=native)
    if syntax == RLELossless:
        dataset = pydicom.dcmread(path)
        dataset.BitsStored, dataset.HighBit = bits[0], bits[0] - 1  # the encoder cuts to these
        dataset.compress(RLELossless, encoding_plugin="pydicom")
        dataset.BitsStored, dataset.HighBit = bits[1:3]
        dataset.save_as(path)
    # LINEAR: (x - (c - 0.5)) / (w - 1) + 0.5 with c = value + 28 and w = 256: 127.5 - 27.5 = 100.
    assert read_levels(path, (value + 28, 256)) == [100, 100]


def test_bits_are_placed_without_a_copy_of_what_is_right():
    cells = np.array([[0xF830]], np.uint16)
    assert place_bits(cells, StoredBits(16, 15, False)) is cells
    assert place_bits(cells.view(np.int16), StoredBits(12, 11, True)).tolist() == [[-2000]]


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ((16, 17, 16, 0), r"\(0028,0101\) Bits Stored must be 1 to 16; got 17"),
        ((16, 0, 0, 0), r"\(0028,0101\) Bits Stored is missing or 0"),
        ((16, 12, 10, 0), r"\(0028,0102\) High Bit must be 11 to 15 for 12 of 16 bits; got 10"),
        ((16, 12, 16, 0), r"\(0028,0102\) High Bit must be 11 to 15"),
        ((16, 12, 11, 2), r"\(0028,0103\) Pixel Representation must be 0 to 1; got 2"),
        ((24, 24, 23, 0), r"\(0028,0100\) Bits Allocated must be 1, 8, 16, 32 or 64; got 24"),
    ],
)
def test_bits_that_contradict_each_other_are_named(tmp_path, bits, message):
    write_cells(tmp_path / "a.dcm", [[1, 2]], (16, 16, 15, 0))
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(DicomError, match=message):
        read_dicom(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("BitsStored", r"\(0028,0101\) Bits Stored is missing"),
        ("PixelRepresentation", r"\(0028,0103\) Pixel Representation is missing"),
        ("SamplesPerPixel", r"\(0028,0002\) Samples per Pixel is missing"),
        ("BitsAllocated", r"\(0028,0100\) Bits Allocated is missing"),
        ("PhotometricInterpretation", r"\(0028,0004\) Photometric Interpretation is missing"),
    ],
)
@pytest.mark.parametrize("is_empty", [False, True])
def test_missing_elements_are_named(tmp_path, keyword, message, is_empty):
    dataset = pydicom.dcmread(write_cells(tmp_path / "a.dcm", [[1, 2]], (16, 16, 15, 0)))
    dataset[keyword].value = None
    if not is_empty:
        delattr(dataset, keyword)
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(DicomError, match=message):
        read_dicom(tmp_path / "a.dcm")


def test_a_missing_high_bit_is_one_less_than_the_bits_stored(tmp_path):
    dataset = pydicom.dcmread(write_cells(tmp_path / "a.dcm", [[0, 0xF0FF]], (16, 8, 7, 0)))
    del dataset.HighBit
    dataset.save_as(tmp_path / "a.dcm")
    assert read_levels(tmp_path / "a.dcm", (128, 256)) == [0, 255]


@pytest.mark.parametrize("swap", [False, True])
def test_frames_of_one_bit_a_pixel_begin_within_bytes(tmp_path, swap):
    """Frames of 11 pixels: the fourth begins at bit 33 and reaches into a third byte."""
    pixels = np.random.default_rng(3).integers(0, 2, (9, 1, 11), np.uint8)
    data = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    data += b"\0" * (len(data) % 2)
    if swap:
        data = np.frombuffer(data, "<u2").astype(">u2").tobytes()
    write_cells(
        tmp_path / "a.dcm",
        np.zeros((1, 11)),
        (8, 8, 7, 0),
        syntax=ExplicitVRBigEndian if swap else ExplicitVRLittleEndian,
        elements=[
            *((0x00280100, "US", 1), (0x00280101, "US", 1), (0x00280102, "US", 0)),
            *((0x00280008, "IS", 9), (0x7FE00010, "OW", data)),
        ],
    )
    for frame, expected in enumerate(pixels):
        image = read_dicom(tmp_path / "a.dcm", (0.5, 1), frame=frame)
        np.testing.assert_array_equal(image.pixels[..., 0], expected * 255)


def write_float(path, stored, **elements):
    dataset = write_dicom(path, np.zeros(stored.shape, np.uint16))
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.BitsAllocated = 8 * stored.itemsize
    keyword = "FloatPixelData" if stored.itemsize == 4 else "DoubleFloatPixelData"
    setattr(dataset, keyword, stored.tobytes())
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


@pytest.mark.parametrize(("kind", "prefix"), [(np.float32, "Float"), (np.float64, "DoubleFloat")])
def test_floating_point_values(tmp_path, kind, prefix):
    """Padding has elements of its own, and what is no number is black; 0.5 is half of 0 to 1."""
    stored = np.array([[-1e6, -5.5, 0, 0.5, 1, np.nan, np.inf]], kind)
    padding = {f"{prefix}PixelPaddingValue": -1e6, f"{prefix}PixelPaddingRangeLimit": -5.5}
    write_float(tmp_path / "a.dcm", stored, **padding)
    assert read_levels(tmp_path / "a.dcm") == [0, 0, 0, 128, 255, 0, 0]


def test_floating_point_beyond_all_numbers_is_named(tmp_path):
    write_float(tmp_path / "a.dcm", np.array([[1e300, 1.0]]), RescaleSlope=1e10, RescaleIntercept=0)
    with pytest.raises(
        DicomError, match=r"\(0028,1053\) Rescale Slope 1e\+10 .*beyond all numbers"
    ):
        read_dicom(tmp_path / "a.dcm")


# Pixel Padding Value -2000 in the ways that files have it; pixels -2000, 0, 50, 100. Without the
# padding, 0 to 100 is shown: 0, 127.5 -> 128, 255; with it, -2000 to 100 would be.
SHOWN = [0, 0, 128, 255]


@pytest.mark.parametrize(
    ("bits", "element"),
    [
        ((16, 16, 15, 1), ("SS", -2000)),
        ((16, 16, 15, 1), ("US", 63536)),  # 65536 - 2000
        ((16, 12, 11, 1), ("SS", -2000)),
        ((16, 12, 11, 1), ("US", 63536)),
        ((16, 12, 11, 1), ("US", 2096)),  # 4096 - 2000, the sign not repeated
        ((16, 12, 11, 1), ("SS", 2096)),
        ((16, 14, 13, 1), ("US", 14384)),  # 16384 - 2000
        ((32, 24, 23, 1), ("US", 63536)),  # two bytes are all that the element has
        ((16, 16, 15, 1), ("SL", -2000)),
        ((16, 16, 15, 1), ("UN", b"\x30\xf8")),
        ((16, 16, 15, 1), ("OW", b"\x30\xf8")),
        ((16, 16, 15, 1), ("US", [63536, 7])),
    ],
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_padding_of_signed_pixels(tmp_path, bits, element, syntax):
    if syntax == ImplicitVRLittleEndian and element[0] == "SL":
        pytest.skip("4 bytes without a VR are two numbers")
    cells = np.array([[-2000, 0, 50, 100]]) % 2 ** bits[0]
    path = tmp_path / "a.dcm"
    write_cells(path, cells, bits, syntax=syntax, elements=[(0x00280120, *element)])
    assert read_levels(path) == SHOWN


@pytest.mark.parametrize(
    ("bits", "elements", "expected"),
    [
        # Unsigned pixels 63536, 0, 50, 100: -2000 written as SS has the same 16 bits.
        ((16, 16, 15, 0), [("SS", -2000)], SHOWN),
        # From -2010 to -1990, the limit in the other VR, and the other way round.
        ((16, 16, 15, 1), [("US", 63526), ("SS", -1990)], SHOWN),
        ((16, 16, 15, 1), [("SS", -1990), ("US", 63526)], SHOWN),
        # Beyond 12 bits, so that no pixel can have it: -2000 to 100, (0 + 2000) / 2100 is 243.
        ((16, 12, 11, 1), [("SS", -32768)], [0, 243, 249, 255]),
        # From there to -2000, it reaches into the stored range.
        ((16, 12, 11, 1), [("SS", -32768), ("SS", -2000)], SHOWN),
        # Empty, and a limit without a value: no padding.
        ((16, 16, 15, 1), [("SS", None)], [0, 243, 249, 255]),
        ((16, 16, 15, 1), [("SS", None), ("SS", -2000)], [0, 243, 249, 255]),
        ((16, 16, 15, 1), [("SS", -2000), ("SS", None)], SHOWN),
    ],
)
def test_padding_and_its_limit(tmp_path, bits, elements, expected):
    cells = np.array([[-2000, 0, 50, 100]]) % 2 ** bits[0]
    tags = (0x00280120, 0x00280121)
    written = [(tag, *element) for tag, element in zip(tags, elements, strict=False)]
    write_cells(tmp_path / "a.dcm", cells, bits, elements=written)
    assert read_levels(tmp_path / "a.dcm") == expected


@pytest.mark.parametrize(("value", "expected"), [(128, 0), (-128, 0), (65408, 0)])
def test_padding_of_8_signed_bits(tmp_path, value, expected):
    """-128 is 0x80: as one byte 128, as a word with its sign 0xFF80, 65408."""
    element = (0x00280120, "SS" if value < 0 else "US", value)
    write_cells(tmp_path / "a.dcm", [[0x80, 0, 127]], (8, 8, 7, 1), elements=[element])
    assert read_levels(tmp_path / "a.dcm") == [expected, 0, 255]


def test_padding_that_is_no_number_is_named(tmp_path):
    element = (0x00280120, "UL", 2**20)
    write_cells(tmp_path / "a.dcm", [[0, 1]], (16, 16, 15, 0), elements=[element])
    with pytest.raises(DicomError, match=r"\(0028,0120\) Pixel Padding Value must hold"):
        read_dicom(tmp_path / "a.dcm")


SLOPE, INTERCEPT, CENTER, WIDTH = 0x00281053, 0x00281052, 0x00281050, 0x00281051


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        # (x - 127.5) / 255 + 0.5 of 0, 51, 255 are the pixels themselves.
        ([], [0, 51, 255]),
        ([(SLOPE, "DS", ""), (INTERCEPT, "DS", "")], [0, 51, 255]),
        ([(SLOPE, "DS", "1"), (INTERCEPT, "DS", "")], [0, 51, 255]),
        ([(SLOPE, "DS", "2")], [0, 102, 255]),
        ([(INTERCEPT, "DS", "100")], [100, 151, 255]),
        ([(SLOPE, "DS", ""), (INTERCEPT, "DS", "100")], [100, 151, 255]),
        ([(SLOPE, "DS", "-1"), (INTERCEPT, "DS", "255")], [255, 204, 0]),
        ([(SLOPE, "DS", " 2.0 "), (INTERCEPT, "DS", "1e1")], [10, 112, 255]),
        ([(SLOPE, "DS", ["2", "3"])], [0, 102, 255]),
    ],
)
def test_slope_and_intercept(tmp_path, elements, expected):
    write_cells(tmp_path / "a.dcm", [[0, 51, 255]], (16, 16, 15, 0), elements=elements)
    assert read_levels(tmp_path / "a.dcm", (128, 256)) == expected


def write_text(path, tag, text):
    """Write an element whose text pydicom itself would not."""
    write_cells(path, [[0, 51, 255]], (16, 16, 15, 0), elements=[(tag, "LO", text)])
    head = tag.to_bytes(4, "little")[2:] + tag.to_bytes(4, "little")[:2]
    data = path.read_bytes()
    assert data.count(head + b"LO") == 1
    path.write_bytes(data.replace(head + b"LO", head + b"DS"))


@pytest.mark.parametrize(
    ("tag", "text", "message"),
    [
        (SLOPE, "0", r"\(0028,1053\) Rescale Slope must be a number other than 0; got 0\."),
        (SLOPE, "nan", r"\(0028,1053\) Rescale Slope must be a finite number; got nan\."),
        (INTERCEPT, "inf", r"\(0028,1052\) Rescale Intercept must be a finite number; got inf\."),
        (SLOPE, "1,5", r"\(0028,1053\) Rescale Slope "),
        (INTERCEPT, "DOE^JANE", r"\(0028,1052\) Rescale Intercept "),
    ],
)
def test_slope_and_intercept_that_are_no_numbers_are_named(tmp_path, tag, text, message):
    write_text(tmp_path / "a.dcm", tag, text)
    with pytest.raises(DicomError, match=message) as caught:
        read_dicom(tmp_path / "a.dcm")
    assert "DOE" not in str(caught.value)


@pytest.mark.parametrize(
    ("center", "width", "function", "expected"),
    [
        ("128", "256", "", [0, 51, 255]),
        ("nan\\128", "256\\256", "", [0, 51, 255]),  # the first that can be applied
        ("5\\128", "0\\256", "", [0, 51, 255]),
        ("\\128", "9\\256", "", [0, 51, 255]),  # the first center is empty
        ("5\\128", "0.5\\256", "LINEAR", [0, 51, 255]),
        ("128\\9", "256", "", [0, 51, 255]),  # one width for two centers
        ("127.5", "255", "LINEAR_EXACT", [0, 51, 255]),
        ("51", "0.5", "LINEAR_EXACT", [0, 128, 255]),
        ("51", "1", "", [0, 255, 255]),  # a threshold at 50.5
        ("51", "0.001", "SIGMOID", [0, 128, 255]),
        ("128", "", "", [0, 51, 255]),  # no window: from 0 to 255
        ("", "256", "", [0, 51, 255]),
        ("", "", "", [0, 51, 255]),
        ("128", "256", " linear ", [0, 51, 255]),
    ],
)
def test_windows(tmp_path, center, width, function, expected):
    elements = [
        (CENTER, "DS", center.split("\\")),
        (WIDTH, "DS", width.split("\\")),
        (0x00281056, "CS", function),
    ]
    path = tmp_path / "a.dcm"
    dataset = pydicom.dcmread(write_cells(path, [[0, 51, 255]], (16, 16, 15, 0)))
    for tag, vr, value in elements:
        put(dataset, tag, vr, value)
    dataset.save_as(path)
    assert read_levels(path) == expected


@pytest.mark.parametrize(
    ("center", "width", "function", "message"),
    [
        ("40", "0.5", "", r"\(0028,1051\) Window Width must be at least 1; got 0\.5; pass window="),
        ("40", "0", "", r"\(0028,1051\) Window Width must be at least 1; got 0; "),
        ("40", "-5", "", r"\(0028,1051\) Window Width must be at least 1; got -5; "),
        ("40", "0", "SIGMOID", r"\(0028,1051\) Window Width must be above 0; got 0; "),
        ("40", "-1", "LINEAR_EXACT", r"\(0028,1051\) Window Width must be above 0; got -1; "),
        ("nan", "400", "", r"\(0028,1050\) Window Center must be a finite number; got nan; "),
        ("40", "inf", "", r"\(0028,1051\) Window Width must be a finite number; got inf; "),
        ("40", "400", "CUBIC", r"\(0028,1056\) VOI LUT Function must be LINEAR or .*got another; "),
    ],
)
def test_windows_that_cannot_be_applied_are_named(tmp_path, center, width, function, message):
    path = tmp_path / "a.dcm"
    dataset = pydicom.dcmread(write_cells(path, [[0, 51, 255]], (16, 16, 15, 0)))
    for tag, vr, value in (
        (CENTER, "DS", center),
        (WIDTH, "DS", width),
        (0x00281056, "CS", function),
    ):
        put(dataset, tag, vr, value)
    dataset.save_as(path)
    with pytest.raises(DicomError, match=message):
        read_dicom(path)
    assert read_levels(path, "full") == [0, 51, 255]


def make_item(descriptor=None, data=None, descriptor_vr="US", data_vr="US"):
    item = pydicom.Dataset()
    if descriptor is not None:
        put(item, 0x00283002, descriptor_vr, descriptor)
    if data is not None:
        put(item, 0x00283006, data_vr, data)
    return item


def write_lut(path, cells, items, bits=(16, 16, 15, 0), *, elements=(), **kwargs):
    sequence = pydicom.Sequence(items if isinstance(items, list) else [items])
    elements = [(0x00283010, "SQ", sequence), *elements]
    return write_cells(path, np.asarray(cells) % 2 ** bits[0], bits, elements=elements, **kwargs)


CT = [(SLOPE, "DS", "1"), (INTERCEPT, "DS", "-1024")]
TABLE = [10, 20, 30, 200]


@pytest.mark.parametrize(
    ("cells", "item", "bits", "elements"),
    [
        # The first of four values mapped is -2. Unsigned pixels less 1024 may be negative, so it
        # is signed, whatever its VR; 65534 is 65536 - 2.
        ([1022, 1023, 1024, 9999], make_item([4, 65534, 8], TABLE), (16, 12, 11, 0), CT),
        ([1022, 1023, 1024, 9999], make_item([4, -2, 8], TABLE, "SS"), (16, 16, 15, 0), CT),
        # Signed pixels, no rescale.
        ([-2, -1, 0, 99], make_item([4, 65534, 8], TABLE), (16, 16, 15, 1), []),
        # A slope below 0: 0 - x.
        (
            [2, 1, 0, 0],
            make_item([3, 65534, 8], [10, 20, 30]),
            (16, 8, 7, 0),
            [(SLOPE, "DS", "-1")],
        ),
        # Signed pixels that the intercept lifts: -2048 + 2048 is 0, so 40000 stays 40000.
        (
            [-2048, 0, 1, 2047],
            make_item([2, 2048, 8], [10, 20]),
            (16, 12, 11, 1),
            [(INTERCEPT, "DS", "2048")],
        ),
        # Unsigned: 40000, also where SS made it 40000 - 65536.
        ([40000, 40001, 40002, 65535], make_item([4, 40000, 8], TABLE), (16, 16, 15, 0), []),
        ([40000, 40001, 40002, 65535], make_item([4, -25536, 8], TABLE, "SS"), (16, 16, 15, 0), []),
    ],
)
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_first_value_of_a_voi_lut_is_signed_by_the_rescaled_range(
    tmp_path, cells, item, bits, elements, syntax
):
    write_lut(tmp_path / "a.dcm", [cells], item, bits, elements=elements, syntax=syntax)
    expected = {2: [10, 10, 20, 20], 3: [10, 20, 30, 30]}.get(item.LUTDescriptor[0], TABLE)
    assert read_levels(tmp_path / "a.dcm") == expected


WORDS = np.array(TABLE, "<u2")


@pytest.mark.parametrize(
    "item",
    [
        make_item([4, 0, 8], WORDS.tobytes(), data_vr="OW"),  # an entry a word
        make_item([4, 0, 8], bytes(TABLE), data_vr="OW"),  # two entries a word
        make_item([4, 0, 8], [10 + 256 * 20, 30 + 256 * 200]),
        make_item([4, 0, 8], [*TABLE, 7, 7]),  # more than stated
        make_item([4, 0, 8], WORDS.tobytes(), data_vr="UN"),
        make_item([4, 0, 16], [v * 257 for v in TABLE]),
        make_item([4, 0, 16], [v * 257 - 65536 * (v > 127) for v in TABLE], data_vr="SS"),
        make_item([4, 0, 12], [round(v * 4095 / 255) for v in TABLE]),
    ],
)
def test_entries_of_a_voi_lut(tmp_path, item):
    write_lut(tmp_path / "a.dcm", [[0, 1, 2, 9]], item)
    assert read_levels(tmp_path / "a.dcm") == TABLE


def test_entries_in_big_endian(tmp_path):
    for index, data in enumerate((WORDS.astype(">u2").tobytes(), bytes([20, 10, 200, 30]))):
        path = tmp_path / f"{index}.dcm"
        item = make_item([4, 0, 8], data, data_vr="OW")
        write_lut(path, [[0, 1, 2, 9]], item, syntax=ExplicitVRBigEndian)
        assert read_levels(path) == TABLE


def test_no_entries_mean_65536(tmp_path):
    data = np.arange(65536, dtype="<u2").tobytes()
    write_lut(tmp_path / "a.dcm", [[0, 257, 65535]], make_item([0, 0, 16], data, data_vr="OW"))
    assert read_levels(tmp_path / "a.dcm") == [0, 1, 255]


def test_a_lut_of_one_entry(tmp_path):
    write_lut(tmp_path / "a.dcm", [[0, 9]], make_item([1, 5, 8], 77))
    assert read_levels(tmp_path / "a.dcm") == [77, 77]


BAD = {
    "descriptor": (make_item([4, 0], TABLE), r"\(0028,3002\) LUT Descriptor must have 3 values"),
    "no descriptor": (make_item(None, TABLE), r"\(0028,3002\) LUT Descriptor must have 3 values"),
    "no bits": (make_item([4, 0, 0], TABLE), r"\(0028,3002\) LUT Descriptor must tell 8 to 16"),
    "32 bits": (make_item([4, 0, 32], TABLE), r"\(0028,3002\) LUT Descriptor must tell 8 to 16"),
    "short": (make_item([5, 0, 16], TABLE), r"\(0028,3006\) LUT Data must have 5 entries; got 4"),
    "no data": (make_item([4, 0, 8]), r"\(0028,3006\) LUT Data must have 4 entries; got 0"),
    "absurd": (make_item([0, 0, 16], TABLE), r"\(0028,3006\) LUT Data must have 65536 entries"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_voi_lut_leaves_the_window(tmp_path, name):
    item, message = BAD[name]
    window = [(CENTER, "DS", "128"), (WIDTH, "DS", "256")]
    write_lut(tmp_path / "a.dcm", [[0, 51, 255]], item, elements=window)
    assert read_levels(tmp_path / "a.dcm") == [0, 51, 255]
    write_lut(tmp_path / "b.dcm", [[0, 51, 255]], item)
    with pytest.raises(DicomError, match=message + ".*pass window='full'"):
        read_dicom(tmp_path / "b.dcm")
    assert read_levels(tmp_path / "b.dcm", "full") == [0, 51, 255]
    # The next table is as good as the next window.
    write_lut(tmp_path / "c.dcm", [[0, 1, 2, 9]], [item, make_item([4, 0, 8], TABLE)])
    assert read_levels(tmp_path / "c.dcm") == TABLE


@pytest.mark.parametrize("items", [[], [pydicom.Dataset()], [make_item([], [])]])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_an_empty_voi_lut_is_none(tmp_path, items, syntax):
    write_lut(tmp_path / "a.dcm", [[0, 51, 255]], items, syntax=syntax)
    assert read_levels(tmp_path / "a.dcm") == [0, 51, 255]
    window = [(CENTER, "DS", "51"), (WIDTH, "DS", "1")]
    write_lut(tmp_path / "a.dcm", [[0, 51, 255]], items, syntax=syntax, elements=window)
    assert read_levels(tmp_path / "a.dcm") == [0, 255, 255]


@pytest.mark.parametrize(
    ("bits", "first", "cells"),
    [
        ((16, 16, 15, 0), 65534, [65534, 65535, 65535]),  # unsigned by Pixel Representation
        ((16, 16, 15, 1), 65534, [-2, -1, 0]),
        ((16, 12, 11, 1), 4094, [-2, -1, 0]),  # 4096 - 2
    ],
)
def test_first_value_of_a_modality_lut_is_signed_as_pixels_are(tmp_path, bits, first, cells):
    """Entries 0, 51, 255 of 16 bits become modality values, which are never negative."""
    sequence = pydicom.Sequence([make_item([3, first, 16], [0, 51, 255])])
    cells = np.array([cells]) % 2**16
    elements = [(0x00283000, "SQ", sequence)]
    write_cells(tmp_path / "a.dcm", cells, bits, elements=elements)
    expected = [0, 51, 51] if bits[3] == 0 else [0, 51, 255]
    assert read_levels(tmp_path / "a.dcm", (128, 256)) == expected


def test_an_empty_modality_lut_leaves_the_rescale_and_a_damaged_one_is_named(tmp_path):
    write_cells(
        tmp_path / "a.dcm",
        [[0, 51]],
        (16, 16, 15, 0),
        elements=[(0x00283000, "SQ", pydicom.Sequence([pydicom.Dataset()])), (SLOPE, "DS", "2")],
    )
    assert read_levels(tmp_path / "a.dcm", (128, 256)) == [0, 102]
    sequence = pydicom.Sequence([make_item([9, 0, 16], [0, 1])])
    write_cells(
        tmp_path / "b.dcm", [[0, 1]], (16, 16, 15, 0), elements=[(0x00283000, "SQ", sequence)]
    )
    with pytest.raises(DicomError, match=r"\(0028,3006\) LUT Data must have 9 entries; got 2\.$"):
        read_dicom(tmp_path / "b.dcm", (128, 256))


def test_tables_of_functional_groups_are_read(tmp_path):
    dataset = write_dicom(tmp_path / "a.dcm", np.array([[0, 1, 2, 9]], np.uint16))
    groups, voi = pydicom.Dataset(), pydicom.Dataset()
    voi.VOILUTSequence = [make_item([4, 0, 8], WORDS.tobytes(), data_vr="OW")]
    groups.FrameVOILUTSequence = [voi]
    dataset.SharedFunctionalGroupsSequence = [groups]
    dataset.save_as(tmp_path / "a.dcm")
    assert read_levels(tmp_path / "a.dcm") == TABLE


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"PlanarConfiguration": None}, r"\(0028,0006\) Planar Configuration is missing"),
        ({"PlanarConfiguration": 2}, r"\(0028,0006\) Planar Configuration must be 0 to 1; got 2"),
        ({"PixelRepresentation": 1}, r"\(0028,0103\) Pixel Representation must be 0 for colour"),
        ({"SamplesPerPixel": 4}, r"\(0028,0002\) Samples per Pixel must be 3 for RGB; got 4"),
    ],
)
def test_colour_that_contradicts_itself_is_named(tmp_path, elements, message):
    values = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, **elements}
    data = bytes(range(6))
    write_dicom(
        tmp_path / "a.dcm",
        np.zeros((1, 2), np.uint8),
        bits_stored=8,
        photometric="RGB",
        **values,
        PixelData=data,
    )
    with pytest.raises(DicomError, match=message):
        read_dicom(tmp_path / "a.dcm")


def test_colour_of_12_bits_in_16(tmp_path):
    """4095 is white, and overlay bits above are left out; 2048 / 4095 * 255 is 127.53."""
    samples = np.array([[0xF000 + 4095, 2048, 0]], np.uint16)
    write_dicom(
        tmp_path / "a.dcm",
        np.zeros((1, 1), np.uint16),
        photometric="RGB",
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        PixelData=samples.tobytes(),
    )
    assert read_dicom(tmp_path / "a.dcm", bits=8).pixels.ravel().tolist() == [255, 128, 0]


@pytest.mark.parametrize("length", [8, 12])
def test_subsampled_colour_of_whole_samples_is_refused(tmp_path, length):
    write_dicom(
        tmp_path / "a.dcm",
        np.zeros((1, 4), np.uint8),
        bits_stored=8,
        photometric="YBR_FULL_422",
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        PixelData=bytes([128] * length),
    )
    if length == 8:
        assert read_dicom(tmp_path / "a.dcm").pixels.ravel().tolist() == [128] * 4
        return
    with pytest.raises(DicomError, match=r"\(0028,0004\) Photometric Interpretation is YBR_FULL_4"):
        read_dicom(tmp_path / "a.dcm")


@pytest.mark.parametrize("spacing", [["0.5", ""], ["0", "1"], ["0.5"], ["nan", "1"]])
def test_a_spacing_that_is_none_stops_no_image(tmp_path, spacing):
    path = tmp_path / "a.dcm"
    dataset = pydicom.dcmread(write_cells(path, [[0, 255]], (16, 16, 15, 0)))
    put(dataset, 0x00280030, "DS", spacing)
    dataset.save_as(path)
    assert read_dicom(path).pixel_spacing_mm is None


def test_elements_of_other_vrs():
    item = pydicom.Dataset()
    item.add_new(0x00280120, "US", [1, 65535])
    assert get_words(item, "PixelPaddingValue").tolist() == [1, 65535]
    assert get_words(item, "PixelPaddingRangeLimit").size == 0
    item.add_new(0x00280010, "US", [3, 4])
    with pytest.raises(DicomError, match=r"\(0028,0010\) Rows must be one whole number"):
        get_integer(item, "Rows")
    assert list(get_items(item, "VOILUTSequence")) == []


def show(values, low, high):
    """Levels of a LINEAR_EXACT window between two values, in exact fractions of the standard."""
    return np.floor(np.clip((values - low) / (high - low), 0, 1) * 255 + 0.5)


def make_combinations(count):
    """Yield (bits, padding VR, slope, intercept) in a seeded order."""
    bits = [
        (allocated, stored, high, sign)
        for allocated in (8, 16, 32)
        for stored in {2, 7, 8, 10, 12, 15, 16, 24, 32}
        if stored <= allocated
        for high in {stored - 1, (stored - 1 + allocated) // 2, allocated - 1}
        for sign in (0, 1)
    ]
    slopes, intercepts = (None, "", "1", "2.5", "-0.5"), (None, "", "0", "-1024", "7.25")
    everything = list(itertools.product(bits, (None, "US", "SS"), slopes, intercepts))
    random.Random(27).shuffle(everything)
    return everything[:count]


def test_many_combinations_against_whole_numbers(tmp_path):
    """Each value is put into its cell bit by bit, with noise in the other bits, and read back.

    The expected level is (slope * value + intercept) between the lowest and the highest of those
    that are no padding.
    """
    path, rng = tmp_path / "a.dcm", np.random.default_rng(27)
    for bits, padding_vr, slope, intercept in make_combinations(700):
        allocated, stored, high, sign = bits
        low = -(2 ** (stored - 1)) if sign else 0
        values = rng.integers(low, low + 2**stored, 12)
        unused = ~((2**stored - 1) << (high - stored + 1)) & (2**allocated - 1)
        noise = rng.integers(0, 2**allocated, 12) & unused
        cells = ((values % 2**stored) << (high - stored + 1)) | noise
        elements = [
            (tag, "DS", text)
            for tag, text in ((SLOPE, slope), (INTERCEPT, intercept))
            if text is not None
        ]
        padding = np.zeros(12, bool)
        if padding_vr and -(2**15) <= values[0] < 2 ** (15 if sign else 16):
            word = int(values[0]) % 2**16
            word -= 2**16 if padding_vr == "SS" and word >= 2**15 else 0
            elements.append((0x00280120, padding_vr, word))
            padding = values == values[0]
        shown = float(slope or 1) * values + float(intercept or 0)
        within = shown[~padding] if not padding.all() else np.zeros(1)
        span = max(within.max() - within.min(), 1e-9)
        expected = show(shown, within.min(), within.min() + span)
        expected[padding] = 0
        write_cells(path, cells[None], bits, elements=elements)
        found = read_levels(path)
        assert found == expected.tolist(), (bits, padding_vr, slope, intercept)


@pytest.fixture
def cases():
    if not CASES.is_dir():
        pytest.skip(f"no cases: {CASES} is not a folder")
    return CASES


def test_case_padding_of_the_wrong_vr(cases):
    folder = cases / "08-dicom-padding-wrong-vr"
    right, wrong = (read_dicom(folder / f"ctpad_{vr}" / "a.dcm").pixels for vr in ("ss", "us"))
    np.testing.assert_array_equal(right, wrong)
    assert {0, 62529, 65535} <= set(np.unique(wrong).tolist())
    # -2000 is padding; 0, 50, 100 of 100.
    assert read_levels(folder / "pad_us.dcm", bits=16) == [0, 0, 32768, 65535]


def test_case_voi_lut_with_a_negative_first_value(cases):
    folder = cases / "10-dicom-voi-lut-negative-start"
    pixels = read_dicom(folder / "voict" / "a.dcm", bits=8).pixels[0, :, 0]
    np.testing.assert_array_equal(pixels, np.arange(0, 1024, 16) // 8)
    assert read_levels(folder / "voi_sneg.dcm") == [0, 85, 170, 255]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # (x - 127.5) / 255 + 0.5, and with center 50 and width 101 (x - 49.5) / 100 + 0.5.
        ("resc_empty.dcm", [0, 128, 255]),
        ("resc_half.dcm", [0, 128, 255]),
        # 0.005, 0.505 and 1.005 of 255: 1.275, 128.775, 255.
        ("voi_empty.dcm", [1, 129, 255]),
    ],
)
def test_case_empty_elements(cases, name, expected):
    assert read_levels(cases / "12-dicom-empty-rescale-or-voi-lut" / name) == expected


def test_tables_of_the_older_tests_agree():
    """The table of `test_dicom` is written in US, without a VR to doubt."""
    (item,) = make_lut((4, 1000, 8), (10, 20, 30, 200))
    assert get_words(item, "LUTDescriptor").tolist() == [4, 1000, 8]
