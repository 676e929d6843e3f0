"""Damaged files are read or refused with a DicomError, and nothing else happens."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vae_aug.data.dicom import read_dicom, read_header
from vae_aug.data.dicom_regions import read_regions
from vae_aug.errors import DicomError

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
