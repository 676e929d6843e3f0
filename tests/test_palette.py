from __future__ import annotations

import numpy as np
import pytest
from test_dicom_values import write_cells

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.image import read_dicom


def write_palette(path, cells, bits, descriptor, channels, *, segmented=False, **kwargs):
    elements = []
    for index, entries in enumerate(channels):
        elements.append((0x00281101 + index, "US", descriptor))
        elements.append((0x00281221 if segmented else 0x00281201, "OW", entries))
        elements[-1] = (elements[-1][0] + index, *elements[-1][1:])
    return write_cells(
        path,
        np.asarray(cells) % 2 ** bits[0],
        bits,
        photometric="PALETTE COLOR",
        elements=elements,
        **kwargs,
    )


@pytest.mark.parametrize(
    ("bits", "descriptor", "cells", "make"),
    [
        ((8, 8, 7, 0), [4, 0, 8], [0, 1, 2, 3], bytes),
        ((8, 8, 7, 0), [4, 0, 8], [0, 1, 2, 3], lambda v: np.array(v, "<u2").tobytes()),
        ((8, 8, 7, 0), [4, 0, 16], [0, 1, 2, 3], lambda v: (np.array(v, "<u2") * 257).tobytes()),
        ((8, 8, 7, 0), [4, 0, 16], [0, 1, 2, 3], bytes),
        # More entries of 8 bits than an index of 8 bits can reach.
        (
            (16, 16, 15, 0),
            [0, 0, 8],
            [0, 300, 2000, 65535],
            lambda v: bytes(
                np.interp(
                    np.arange(65536),
                    [0, 1, 300, 301, 2000, 2001, 65535],
                    [v[0], v[1], v[1], v[2], v[2], v[3], v[3]],
                ).astype(np.uint8)
            ),
        ),
        ((16, 16, 15, 1), [4, 65534, 8], [-2, -1, 0, 1], bytes),
        ((16, 16, 15, 0), [4, 65532, 8], [65532, 65533, 65534, 65535], bytes),
    ],
)
def test_palettes(tmp_path, bits, descriptor, cells, make):
    red, green, blue = [10, 20, 30, 200], [1, 2, 3, 4], [9, 8, 7, 6]
    channels = [make(channel) for channel in (red, green, blue)]
    write_palette(tmp_path / "a.dcm", [cells], bits, descriptor, channels)
    image = read_dicom(tmp_path / "a.dcm", bits=8)
    np.testing.assert_array_equal(image.pixels[0].T, [red, green, blue])


def test_segmented_palette(tmp_path):
    """Discrete 5, 6; linear to 12 in 3 steps: 8, 10, 12; then both again: 5, 6, 8, 10, 12.

    The offset of the indirect segment is 0, in bytes.
    """
    red = bytes([0, 2, 5, 6, 1, 3, 12, 2, 2, 0, 0, 0, 0, 0])
    wide = np.array([0, 2, 5, 6, 1, 3, 12, 2, 2, 0, 0], "<u2")
    expected = [5, 6, 8, 10, 12] * 2
    for bits, entries in ((8, red), (16, wide.tobytes())):
        path = tmp_path / f"{bits}.dcm"
        channels = [entries] * 3
        write_palette(path, [range(10)], (8, 8, 7, 0), [10, 0, bits], channels, segmented=True)
        image = read_dicom(path)
        assert image.pixels.shape == (1, 10, 1)
        np.testing.assert_array_equal(image.pixels[0, :, 0], expected)


@pytest.mark.parametrize(
    "codes",
    [
        [1, 65535, 9] * 9,  # linear without a beginning
        [0, 1, 5, *([1, 65535, 9] * 10_000)],  # grows to 655 million entries
        [0, 1, 5, 2, 65535, 6, 0],  # repeats itself
        [9, 1, 5],
    ],
)
def test_segmented_palettes_that_grow_without_end_are_refused(tmp_path, codes):
    entries = np.array(codes, "<u2").tobytes()
    path = tmp_path / "a.dcm"
    write_palette(path, [[0, 1]], (8, 8, 7, 0), [10, 0, 16], [entries] * 3, segmented=True)
    with pytest.raises(DicomError, match=r"\(0028,1221\)"):
        read_dicom(path)
