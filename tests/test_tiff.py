"""TIFF files, with tifffile (which scikit-image brings) as the peer that writes and reads them."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image
from test_annotations import HEIGHT, WIDTH
from test_images import TURNED, make_noise

from vae_aug.codecs.images import (
    encode_image,
    read_encoded,
    read_image,
    read_image_size,
    read_orientation,
)
from vae_aug.codecs.tiff import decode_tiff, is_tiff
from vae_aug.errors import VAEAugError
from vae_aug.ingest.formats import read_images, read_masks
from vae_aug.ingest.ingest import ingest
from vae_aug.records.records import read_records


def make_tiff(array, **options):
    file = io.BytesIO()
    options.setdefault("photometric", "rgb" if array.ndim == 3 else "minisblack")
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def make_strip_tiff(strip, *, width, height, samples, bits, compression, **tags):
    """Wrap compressed samples in a little-endian TIFF of one strip."""
    offset = 8 + len(strip)
    values = {256: width, 257: height, 258: offset, 259: compression, 262: 1 if samples == 1 else 2}
    values |= {273: 8, 277: samples, 278: height, 279: len(strip)}
    values |= {int(tag.removeprefix("tag")): value for tag, value in tags.items()}
    directory = b""
    for tag, value in sorted(values.items()):
        if tag == 258 and samples == 3:
            directory += struct.pack("<HHII", tag, 3, 3, value)
        else:
            directory += struct.pack("<HHII", tag, 4, 1, bits if tag == 258 else value)
    depths = struct.pack("<3H", bits, bits, bits)
    head = struct.pack("<2sHI", b"II", 42, offset + len(depths))
    return head + strip + depths + struct.pack("<H", len(values)) + directory + bytes(4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(20, 37), (20, 37, 3)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"compression": "deflate"},
        {"compression": "deflate", "predictor": True, "byteorder": ">"},
        {"compression": "deflate", "tile": (16, 16)},
        {"rowsperstrip": 3},
    ],
)
def test_pixels_are_those_that_tifffile_wrote(tmp_path, dtype, shape, options):
    array = make_noise(shape, dtype)
    path = tmp_path / "a.tif"
    path.write_bytes(make_tiff(array, **options))
    read = read_image(path)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, array.reshape(20, 37, -1))
    assert read_image_size(path) == (20, 37)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_compressed_pixels(compression, dtype, channels):
    """Pillow compresses the samples as one grey row, which no predictor tells from pixels."""
    array = make_noise((9, 12, channels), dtype)
    file = io.BytesIO()
    Image.fromarray(array.reshape(9, -1)).save(file, "TIFF", compression=compression)
    with Image.open(io.BytesIO(file.getvalue())) as image:
        tags = image.tag_v2
        strip = file.getvalue()[tags[273][0] :][: tags[279][0]]
        code = tags[259]
    bits = 8 * array.itemsize
    data = make_strip_tiff(strip, width=12, height=9, samples=channels, bits=bits, compression=code)
    np.testing.assert_array_equal(decode_tiff(data), array)


def test_kinds_of_pixels_become_grey_or_rgb():
    grey = make_noise((6, 8), np.uint8)
    deep = make_noise((6, 8), np.uint16)
    black_and_white = grey > 100

    def save(image):
        file = io.BytesIO()
        image.save(file, "TIFF")
        return decode_tiff(file.getvalue())

    expected = np.where(black_and_white, 255, 0)
    np.testing.assert_array_equal(save(Image.fromarray(black_and_white))[..., 0], expected)
    palette = Image.fromarray(grey).convert("P")
    palette.putpalette([value for level in range(256) for value in (level, 255 - level, 7)])
    coloured = np.stack([grey, 255 - grey, np.full_like(grey, 7)], axis=-1)
    np.testing.assert_array_equal(save(palette), coloured)
    np.testing.assert_array_equal(save(Image.fromarray(coloured).convert("RGBA")), coloured)
    for array in (grey, deep):
        white_is_zero = make_tiff(array, photometric="miniswhite")
        expected = np.iinfo(array.dtype).max - array
        np.testing.assert_array_equal(decode_tiff(white_is_zero)[..., 0], expected)


def make_bomb(height, width, compression=1):
    return make_strip_tiff(
        bytes(64), width=width, height=height, samples=1, bits=8, compression=compression
    )


BIG = "4000 x 6000 pixels; at most 22369621 of 6 bytes are read. Scale it down"


def make_wide_tag():
    data = make_strip_tiff(
        bytes(400_000), width=60, height=60, samples=1, bits=8, compression=1, tag320=8
    )
    entry = struct.pack("<HHI", 320, 4, 1)
    return data.replace(entry, struct.pack("<HHI", 320, 3, 200_000))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"II*\0", "damaged, cut short"),
        (b"MM\0*" + bytes(60), "damaged, cut short"),
        (make_tiff(make_noise((40, 40), np.uint16))[:-900], "damaged, cut short"),
        (make_tiff(make_noise((40, 40, 3), np.uint16), compression="deflate")[:2000], "damaged"),
        (make_bomb(9000, 8000), "9000 x 8000 pixels; at most"),
        (make_bomb(60000, 60000, 5), "declares more than"),
        (
            make_strip_tiff(bytes(9), width=6000, height=4000, samples=3, bits=16, compression=1),
            BIG,
        ),
        (make_tiff(np.zeros((3, 40, 40), np.uint8), photometric="minisblack"), "3 pages"),
        (make_tiff(np.zeros((4, 4), np.float32)), "samples of 32 bits"),
        (make_tiff(np.zeros((4, 4), np.int16)), "SampleFormat 2"),
        (make_tiff(np.zeros((4, 4, 4), np.uint8), photometric="separated"), "mode CMYK"),
        (make_tiff(np.zeros((3, 8, 8), np.uint16), planarconfig="separate"), "plane by plane"),
        (make_bomb(60, 60)[:4] + struct.pack("<I", 2**31), "damaged, cut short"),
        (struct.pack("<2sHIH", b"II", 42, 8, 65535) + bytes(99), "65535 tags; at most 4096"),
        (struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 2**40), "1099511627776 tags; at most"),
        (struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 273, 4, 2**31, 8) + bytes(9), "tag 273 of the"),
        (make_wide_tag(), "tag 320 of the TIFF has 200000 values"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_line(tmp_path, data, message):
    assert is_tiff(data)
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    with pytest.raises(VAEAugError, match=message) as caught:
        read_encoded(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def make_chain(pages, *, last=0):
    """A TIFF whose first page is followed by directories of one tag."""
    data = make_strip_tiff(bytes(600), width=30, height=20, samples=1, bits=8, compression=1)
    parts, position = [data[:-4]], len(data)
    for _ in range(1, pages):
        entry = struct.pack("<HHHII", 1, 256, 4, 1, 30)
        parts.append(struct.pack("<I", position) + entry)
        position += len(entry) + 4
    return b"".join([*parts, struct.pack("<I", last)])


def test_pages_are_counted_to_a_bound():
    with pytest.raises(VAEAugError, match="has 7 pages"):
        decode_tiff(make_chain(7))
    with pytest.raises(VAEAugError, match="more than 1024 pages"):
        decode_tiff(make_chain(100_000))
    one = make_chain(1)
    (first,) = struct.unpack("<I", one[4:8])
    looped = decode_tiff(make_chain(1, last=first))
    np.testing.assert_array_equal(looped, decode_tiff(one))


def test_tags_that_hold_no_pixels_are_not_read():
    """Each of these tags points at the same 4 MB, or beyond the file; Pillow would read them."""
    tags = {f"tag{tag}": 8 for tag in range(40_000, 40_010)}
    data = make_strip_tiff(
        bytes(4_000_000), width=30, height=20, samples=1, bits=8, compression=1, **tags
    )
    for tag in range(40_000, 40_010):
        count = 4_000_000 if tag % 2 else 2**31
        data = data.replace(struct.pack("<HHI", tag, 4, 1), struct.pack("<HHI", tag, 7, count))
    assert decode_tiff(data).shape == (20, 30, 1)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_orientation_turns_the_pixels(tmp_path, orientation, options, dtype, channels):
    letters = np.array([[ord(letter) for letter in row] for row in TURNED[1]], dtype)
    stored = letters if channels == 1 else np.stack([letters, letters + 9, letters * 2], axis=-1)
    expected = np.array([[ord(letter) for letter in row] for row in TURNED[orientation]], dtype)
    path = tmp_path / "a.tif"
    path.write_bytes(make_tiff(stored, extratags=[(274, 3, 1, orientation, True)], **options))
    assert read_orientation(path) == orientation
    read = read_image(path)
    assert (read.dtype, read.shape) == (dtype, (*expected.shape, channels))
    np.testing.assert_array_equal(read[..., 0], expected)
    np.testing.assert_array_equal(read[..., -1], expected if channels == 1 else expected * 2)
    assert read_image_size(path) == expected.shape
    encoded, pixels = read_encoded(path)
    assert encoded == encode_image(read)
    np.testing.assert_array_equal(pixels, read)
    as_stored = read_image(path, exif="ignore")
    np.testing.assert_array_equal(as_stored, stored.reshape(2, 3, channels))
    assert read_image_size(path, exif="ignore") == (2, 3)


@pytest.mark.parametrize("tag", [(274, 3, 1, 0), (274, 3, 1, 9), (274, 4, 1, 6)])
def test_orientation_of_another_kind_is_none(tmp_path, tag):
    array = make_noise((4, 6), np.uint8)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
    extra = [(*tag, True), (700, 1, len(xmp), xmp, True)]
    path = tmp_path / "a.tif"
    path.write_bytes(make_tiff(array, extratags=extra))
    assert read_orientation(path) == 1
    np.testing.assert_array_equal(read_image(path)[..., 0], array)


def test_any_damage_is_a_fault_or_another_image():
    good = make_tiff(make_noise((8, 9, 3), np.uint16), compression="deflate")
    generator = np.random.default_rng(0)
    faults = 0
    for _ in range(300):
        data = bytearray(good)
        for position in generator.integers(4, len(good), 3):
            data[position] = generator.integers(256)
        try:
            decode_tiff(bytes(data))
        except VAEAugError:
            faults += 1
    assert faults > 100


def test_records_hold_the_pixels_and_no_metadata(tmp_path):
    arrays = {"a.tif": make_noise((HEIGHT, WIDTH), np.uint16), "b.TIFF": make_noise((6, 7), "u1")}
    for name, array in arrays.items():
        data = make_tiff(array, description="DOE^JANE", software="DOE^JANE")
        (tmp_path / name).write_bytes(data)
    (tmp_path / "c.tif").write_bytes(
        make_tiff(np.zeros((2, 5, 5), np.uint8), photometric="minisblack")
    )
    assert read_encoded(tmp_path / "a.tif")[0] == encode_image(arrays["a.tif"])
    assert [image.source_id for image in read_images(tmp_path).images] == [*arrays, "c.tif"]
    report = ingest(tmp_path, tmp_path / "out", keep_ids=True, unannotated="negative")
    assert (report.format, report.images) == ("images", 2)
    assert [name for name, _ in report.skipped] == ["c.tif"] and "2 pages" in report.skipped[0][1]
    assert b"DOE^JANE" not in (tmp_path / "out" / "train-00000-of-00001.tfrecord").read_bytes()
    first, second = read_records(tmp_path / "out").as_numpy_iterator()
    np.testing.assert_array_equal(first["image"][..., 0], arrays["a.tif"])
    np.testing.assert_array_equal(second["image"][..., 0], arrays["b.TIFF"].astype("u2") * 257)


def test_masks_may_be_tiff(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:10, 20:26] = 255
    (tmp_path / "a.tif").write_bytes(make_tiff(make_noise((HEIGHT, WIDTH, 3), np.uint8)))
    (tmp_path / "a_mask.tif").write_bytes(make_tiff(mask))
    (image,) = read_masks(tmp_path).images
    report = ingest(tmp_path, tmp_path / "out")
    assert (report.format, report.images, report.boxes) == ("masks", 1, 1)
    assert image.boxes.tolist() == [[20, 5, 26, 10]]
