"""Damaged files are read or refused with a DicomError, and nothing else happens."""

from __future__ import annotations

import contextlib
import os
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless
from test_dicom import write_dicom

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.file import is_dicom
from vae_aug.ingest.dicom.image import read_dicom, read_header
from vae_aug.ingest.dicom.regions import read_drawn, read_regions
from vae_aug.ingest.series import iterate_series

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
# A grey image, an enhanced one in colour, a segmentation, a report, a deflated and two compressed.
NAMES = (
    "MR_small.dcm",
    "SC_rgb_rle_2frame.dcm",
    "liver_1frame.dcm",
    "reportsi.dcm",
    "image_dfl.dcm",
    "MR_small_jp2klossless.dcm",
    "SC_rgb_jpeg_lossy_gdcm.dcm",
)
LENGTHS = (b"\xff\xff\xff\xff", b"\xfe\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0")

edits = st.lists(
    st.tuples(st.integers(0, 4000), st.binary(max_size=8) | st.sampled_from(LENGTHS)), max_size=4
)


def damage(data: bytes, edits: list[tuple[int, bytes]], keep: float) -> bytes:
    """Overwrite bytes behind the prefix, and cut the end off."""
    for at, new in edits:
        at = 132 + at % max(len(data) - 132, 1)
        data = data[:at] + new + data[at + len(new) :]
    return data[: int(len(data) * keep)]


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files(tmp_path, name):
    original = (FOLDER / name).read_bytes()
    path = tmp_path / "a.dcm"

    @settings(
        max_examples=50,
        deadline=5000,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(edits=edits, keep=st.just(1.0) | st.floats(0, 1))
    def check(edits, keep):
        path.write_bytes(damage(original, edits, keep))
        for read in (read_header, partial(read_dicom, frame=0), read_regions):
            with contextlib.suppress(DicomError):
                read(path)

    check()


def nest(depth: int) -> bytes:
    """Return sequences within sequences, each of undefined length, without an end."""
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return sequence * depth


@pytest.mark.parametrize("read", [read_header, read_dicom, read_regions])
@pytest.mark.parametrize("depth", [1, 100, 100_000])
def test_sequences_without_end(tmp_path, read, depth):
    data = (FOLDER / "MR_small.dcm").read_bytes()
    at = data.index(b"\x08\x00\x18\x00UI")
    (tmp_path / "a.dcm").write_bytes(data[:at] + nest(depth))
    with pytest.raises(DicomError, match=r"a\.dcm: "):
        read(tmp_path / "a.dcm")


ITEM = b"\xfe\xff\x00\xe0\0\0\0\0"
READERS = [read_header, partial(read_dicom, frame=0), read_drawn]


def put_before(path, element, keyword="Rows"):
    """Write MR_small with an element of the given bytes before another."""
    data = (FOLDER / "MR_small.dcm").read_bytes()
    tag = pydicom.tag.Tag(keyword)
    at = data.index(struct.pack("<HH", tag.group, tag.elem))
    path.write_bytes(data[:at] + element + data[at:])


def test_more_items_than_are_read(tmp_path, monkeypatch):
    """Sequences of stated length are counted before they become objects, others while they do."""
    monkeypatch.setattr("vae_aug.ingest.dicom.file.MAX_DICOM_ITEMS", 100)
    monkeypatch.setattr("vae_aug.ingest.dicom.elements.MAX_DICOM_ITEMS", 100)
    path = tmp_path / "a.dcm"
    open_ended = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + ITEM * 1000
    put_before(path, open_ended + b"\xfe\xff\xdd\xe0\0\0\0\0")
    for read in READERS:
        with pytest.raises(DicomError, match="more than 100 items of sequences"):
            read(path)
    stated = b"\x00\x52\x30\x92SQ\0\0" + struct.pack("<L", 8 * 101) + ITEM * 101
    put_before(path, stated, "PixelData")
    with pytest.raises(DicomError, match="has 101 items of sequences; at most 100"):
        read_dicom(path)


def test_a_million_items_are_counted_in_bytes(tmp_path):
    stated = b"\x00\x52\x30\x92SQ\0\0" + struct.pack("<L", 8 * 10**6) + ITEM * 10**6
    put_before(tmp_path / "a.dcm", stated, "PixelData")
    with pytest.raises(DicomError, match="has 1000000 items of sequences; at most"):
        read_dicom(tmp_path / "a.dcm")


@pytest.mark.parametrize("read", READERS)
def test_pipes_and_folders_are_no_files(tmp_path, read):
    os.mkfifo(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").mkdir()
    for name in ("a.dcm", "b.dcm"):
        assert not is_dicom(tmp_path / name)
        with pytest.raises(DicomError, match=rf"{name}: is no regular file"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (b"1000000 ", "is 1000000, but the pixel data have room for 1"),
        (b"2000000000", "is 2000000000; at most 1048576"),
        (b"99999999999999", "is 99999999999999; at most 1048576"),
        (b"-5", "must be at least 1; got -5"),
        (b"2.5 ", "must be "),
        (b"many", "must be a number|is damaged"),
        (b"2\\3 ", "must be one whole number"),
        (b"1e9 ", "is 1000000000; at most|must be a number|is damaged"),
    ],
)
def test_frames_beyond_the_pixel_data(tmp_path, frames, message):
    element = b"\x28\x00\x08\x00IS" + struct.pack("<H", len(frames)) + frames
    put_before(tmp_path / "a.dcm", element, "Rows")
    for read in (*READERS[:2], lambda path: next(iter(read_frames_of(path)))):
        with pytest.raises(DicomError, match=rf"\(0028,0008\) Number of Frames ({message})"):
            read(tmp_path / "a.dcm")


def read_frames_of(path):
    """Raise what a series says of a file."""
    (series,) = iterate_series([path])
    raise DicomError(series.faults[0].reason)


def write_coded(path, frames, syntax, *, count=1, shape=(4, 4), fragments=None):
    dataset = write_dicom(path, np.zeros(shape, np.uint8), bits_stored=8, NumberOfFrames=count)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate(frames) if fragments is None else fragments
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)


def test_frames_beyond_the_fragments(tmp_path):
    path = tmp_path / "a.dcm"
    write_coded(path, [b"\0" * 64] * 3, RLELossless, count=4)
    with pytest.raises(DicomError, match=r"Number of Frames is 4, .* have only 3 fragments"):
        read_header(path)
    # A table of offsets is no proof, and neither are empty fragments.
    table = b"\xfe\xff\x00\xe0" + struct.pack("<L", 400) + bytes(400)
    write_coded(path, [], RLELossless, count=100, fragments=table + ITEM * 100)
    with pytest.raises(DicomError, match=r"Number of Frames is 100, .* have only 0 fragments"):
        read_header(path)
    write_coded(path, [b"\0" * 64] * 3, RLELossless, count=3)
    assert read_header(path).frames == 3


def make_jpeg(marker, rows, columns, samples=1):
    frame = struct.pack(">BHHB", 8, rows, columns, samples) + bytes(3 * samples)
    return b"\xff\xd8\xff" + marker + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xd9"


def make_jpeg2000(rows, columns, tile=None):
    tile = tile or (columns, rows)
    size = struct.pack(">8LHB", columns, rows, 0, 0, *tile, 0, 0, 1, 7)
    return b"\xff\x4f\xff\x51" + struct.pack(">HH", 41, 0) + size + b"\1\1\xff\xd9"


@pytest.mark.parametrize(
    ("data", "syntax", "message"),
    [
        (make_jpeg(b"\xc0", 60000, 60000), JPEGBaseline8Bit, "60000 x 60000 pixels of 1 samples"),
        (make_jpeg(b"\xc2", 4, 4, 3), JPEGBaseline8Bit, "4 x 4 pixels of 3 samples"),
        (make_jpeg(b"\xf7", 4, 65535), JPEGLSLossless, "4 x 65535 pixels"),
        (make_jpeg2000(2**31, 2**31), JPEG2000Lossless, "2147483648 x 2147483648 pixels"),
        (make_jpeg2000(4, 5), JPEG2000Lossless, "4 x 5 pixels"),
        (bytes(40) + make_jpeg2000(4, 5), JPEG2000, "4 x 5 pixels"),
        (make_jpeg2000(4, 4, (0, 0)), JPEG2000, "damaged or do not fit"),
        (make_jpeg2000(65535, 65535, (1, 1)), JPEG2000, "tiles in one frame"),
    ],
)
def test_a_compressed_frame_of_another_size_never_reaches_a_decoder(
    tmp_path, monkeypatch, data, syntax, message
):
    write_coded(tmp_path / "a.dcm", [data], syntax)
    if "damaged" not in message:
        monkeypatch.setattr("vae_aug.ingest.dicom.frames.pixel_array", None)
    with pytest.raises(DicomError, match=message):
        read_dicom(tmp_path / "a.dcm")


def test_rle_that_grows_without_end(tmp_path):
    header = struct.pack("<16L", 1, 64, *[0] * 14)
    write_coded(tmp_path / "a.dcm", [header + b"\x81\0" * 2**10], RLELossless)
    with pytest.raises(DicomError, match="more than twice the 16 bytes of a frame"):
        read_dicom(tmp_path / "a.dcm")


def test_large_frames_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "a.dcm"
    write_dicom(path, np.zeros((1, 4), np.uint32), bits_stored=32)
    for keyword, value, message in (
        (
            "Rows",
            65535,
            r"declares 65535 x 4 pixels|are damaged or do not fit the header: 16 bytes",
        ),
        ("Columns", 65535, "declares 65535 x 65535 pixels; at most"),
        ("Rows", 1, "are damaged or do not fit the header: 16 bytes, where 262140 are expected"),
    ):
        dataset = pydicom.dcmread(path)
        setattr(dataset, keyword, value)
        dataset.save_as(path)
        with pytest.raises(DicomError, match=message):
            read_dicom(path)
    values = {"BitsAllocated": 64, "BitsStored": 64, "HighBit": 63, "Rows": 8192, "Columns": 8192}
    write_dicom(path, np.zeros((1, 4), np.uint32), **values)
    with pytest.raises(DicomError, match="declares 536870912 bytes a frame; at most 268435456"):
        read_dicom(path)


def test_case_of_a_million_frames():
    folder = Path(__file__).resolve().parents[2] / "shared" / "cases" / "hostile" / "dicom_frames"
    if not folder.is_dir():
        pytest.skip(f"no cases: {folder} is not a folder")
    for read in READERS[:2]:
        with pytest.raises(DicomError, match=r"\(0028,0008\) Number of Frames "):
            read(folder / "src" / "frames.dcm")
    assert read_header(folder / "src" / "ok.dcm").frames == 1
