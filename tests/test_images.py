from __future__ import annotations

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from PIL import Image, ImageOps

from vae_aug.codecs import images
from vae_aug.codecs.images import (
    clean_encoded,
    decode_image,
    encode_image,
    encode_png,
    parse_image_header,
    read_encoded,
    read_image,
    read_image_size,
    read_orientation,
    write_image,
)
from vae_aug.codecs.jpeg import strip_jpeg_metadata
from vae_aug.codecs.png import strip_png_metadata
from vae_aug.errors import VAEAugError


@pytest.fixture
def cases_dir():
    """The folder of annotated cases that people reported; skips without one."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"no cases: {folder} is not a folder")
    return folder


def make_noise(shape, dtype):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_every_pixel(tmp_path, dtype, channels):
    array = make_noise((7, 5, channels), dtype)
    write_image(tmp_path / "a.png", array)
    read = read_image(tmp_path / "a.png")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, array)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_png_of_another_writer_reads_the_same(tmp_path):
    array = make_noise((6, 9), np.uint16)
    Image.fromarray(array).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], array)


def test_encoding_gives_the_same_bytes():
    array = make_noise((64, 64, 1), np.uint16)
    assert encode_png(array) == encode_png(array.copy())


def test_no_time_goes_into_looking_for_matches():
    # Every row repeats itself, which an encoder that looks for matches would find.
    array = np.tile(make_noise((64, 64), np.uint8), (1, 8))
    assert len(encode_png(array)) > 0.9 * array.size


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("1", 1), ("P", 3)]
)
def test_png_kinds_become_grey_or_rgb(tmp_path, mode, channels):
    Image.new(mode, (4, 3)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (3, 4, channels)


def test_jpeg_decodes_as_in_pillow(tmp_path):
    array = np.repeat(np.linspace(0, 255, 40).astype(np.uint8)[None], 30, axis=0)[..., None]
    write_image(tmp_path / "a.jpg", array)
    with Image.open(tmp_path / "a.jpg") as peer:
        np.testing.assert_array_equal(read_image(tmp_path / "a.jpg")[..., 0], np.asarray(peer))


def make_jpeg(path, *, mode="RGB", **options):
    image = Image.fromarray(make_noise((16, 24), np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x010E] = "DOE^JANE"
    image.save(path, "JPEG", exif=exif, comment=b"DOE^JANE 1970", dpi=(300, 300), **options)


def test_stored_jpeg_has_no_metadata_and_the_same_pixels(tmp_path):
    make_jpeg(tmp_path / "a.jpg", progressive=True, icc_profile=b"DOE^JANE" * 20)
    raw = (tmp_path / "a.jpg").read_bytes()
    encoded, _ = read_encoded(tmp_path / "a.jpg")
    assert b"DOE^JANE" in raw and b"DOE^JANE" not in encoded.encoded
    assert (encoded.format, encoded.height, encoded.width) == ("jpeg", 16, 24)
    decode = tf.io.decode_jpeg
    np.testing.assert_array_equal(decode(encoded.encoded).numpy(), decode(raw).numpy())
    assert strip_jpeg_metadata(encoded.encoded) == encoded.encoded


@pytest.mark.parametrize("progressive", [True, False])
def test_stored_jpeg_has_nothing_between_scans_nor_behind_its_end(tmp_path, progressive):
    make_jpeg(tmp_path / "a.jpg", progressive=progressive)
    raw = (tmp_path / "a.jpg").read_bytes()
    comment = b"\xff\xfe\x00\x0aDOE^JANE"
    # Before every scan a comment and fill bytes, and a second image behind the end.
    planted = raw.replace(b"\xff\xda", comment + b"\xff\xff\xff\xda") + raw + b"DOE^JANE"
    (tmp_path / "b.jpg").write_bytes(planted)
    assert planted.count(comment) == raw.count(b"\xff\xda") >= (2 if progressive else 1)
    encoded = read_encoded(tmp_path / "b.jpg")[0].encoded
    assert encoded == read_encoded(tmp_path / "a.jpg")[0].encoded and b"DOE^JANE" not in encoded
    with pytest.raises(VAEAugError, match="cut short"):
        strip_jpeg_metadata(planted[: len(raw) // 2])


def test_jpeg_of_equal_channels_counts_as_grey(tmp_path):
    make_jpeg(tmp_path / "a.jpg")
    Image.fromarray(make_noise((16, 24, 3), np.uint8)).save(tmp_path / "b.jpg")
    assert read_encoded(tmp_path / "a.jpg")[0].channels == 1
    assert read_encoded(tmp_path / "b.jpg")[0].channels == 3


def test_stored_png_has_no_text(tmp_path):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Patient", "DOE^JANE")
    array = make_noise((5, 6), np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png", pnginfo=info)
    encoded, pixels = read_encoded(tmp_path / "a.png")
    assert encoded == encode_image(array)
    np.testing.assert_array_equal(pixels[..., 0], array)


def test_size_from_the_header(tmp_path):
    make_jpeg(tmp_path / "a.jpg")
    assert read_image_size(tmp_path / "a.jpg") == (16, 24)
    assert parse_image_header(encode_png(np.zeros((2, 3, 3), np.uint16))) == (2, 3, 3, 16)


def make_png_bomb(height, width):
    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def test_bad_files_are_named(tmp_path):
    good = encode_png(make_noise((20, 20, 1), np.uint8))
    make_jpeg(tmp_path / "good.jpg")
    jpeg = (tmp_path / "good.jpg").read_bytes()
    cases = {
        "text.png": (b"no image at all", "neither PNG nor JPEG"),
        "empty.png": (b"", "neither PNG nor JPEG but an empty file"),
        "a.bmp": (b"BM" + bytes(60), "but a BMP; convert"),
        "a.gif": (b"GIF89a", "but a GIF"),
        "a.webp": (b"RIFF\x08\0\0\0WEBPVP8 ", "but a WebP"),
        "a.heic": (b"\0\0\0\x18ftypheic", "but a HEIC"),
        "a.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "but a JPEG 2000"),
        "a.jxl": (b"\xff\x0a\xfa\x1f", "but a JPEG XL"),
        "lfs.png": (b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS"),
        "dicom.png": (bytes(128) + b"DICM", "a DICOM file, where PNG, JPEG or TIFF is expected"),
        "short.png": (good[: len(good) // 2], "damaged or cut short"),
        "header.png": (good[:20], "damaged or cut short"),
        "short.jpg": (jpeg[: len(jpeg) // 2], "damaged or cut short"),
        "header.jpg": (jpeg[:30], "header is damaged or cut short"),
        "huge.jpg": (jpeg.replace(struct.pack(">HH", 16, 24), b"\xff\xdc" * 2, 1), "65500 x 65500"),
        "bomb.png": (make_png_bomb(60000, 60000), "60000 x 60000"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        for read in (read_image, read_encoded):
            with pytest.raises(VAEAugError, match=message) as caught:
                read(tmp_path / name)
            assert str(caught.value).startswith(f"{tmp_path / name}: ")
    with pytest.raises(VAEAugError, match=r"missing\.png: cannot be read \(No such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(VAEAugError, match="neither"):
        read_image_size(tmp_path / "text.png")


def test_bad_arrays():
    with pytest.raises(TypeError, match="uint8 or uint16; got float32"):
        encode_png(np.zeros((2, 2, 1), np.float32))
    for shape in [(2, 2, 2), (2,), (0, 2, 1)]:
        with pytest.raises(ValueError, match=r"shape \[H, W, 1 or 3\]"):
            encode_png(np.zeros(shape, np.uint8))


def test_bad_names(tmp_path):
    with pytest.raises(ValueError, match="JPEG holds 8 bits"):
        write_image(tmp_path / "a.jpg", np.zeros((2, 2, 1), np.uint16))
    with pytest.raises(ValueError, match=r"expected .png, .jpg or .jpeg; got '.tif'"):
        write_image(tmp_path / "a.tif", np.zeros((2, 2, 1), np.uint8))


def test_interrupted_writing_leaves_the_former_file(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", np.zeros((2, 2, 1), np.uint8))
    former = (tmp_path / "a.png").read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        images.write_image(tmp_path / "a.png", np.ones((2, 2, 1), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == former


# What each orientation does to two rows, abc and def (TIFF 6.0, section 8: 6, for example, has its
# first row at the right and its first column at the top).
TURNED = {
    1: ["abc", "def"],
    2: ["cba", "fed"],
    3: ["fed", "cba"],
    4: ["def", "abc"],
    5: ["ad", "be", "cf"],
    6: ["da", "eb", "fc"],
    7: ["fc", "eb", "da"],
    8: ["cf", "be", "ad"],
}


def make_exif(orientation, *, order="<", kind=3, count=1):
    """An EXIF block: the tags Make and Orientation, then the directory of a thumbnail."""
    first = struct.pack(order + "HHHI4s", 2, 271, 2, 4, b"Doe\0")
    first += struct.pack(order + "HHIHH", 274, kind, count, orientation, 0)
    second = struct.pack(order + "HHHIHHI", 1, 274, 3, 1, 8, 0, 0)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + first + struct.pack(order + "I", 8 + len(first) + 4) + second


def plant_exif(data, block):
    """Put an EXIF block into a JPEG, behind two other APP1 segments, or into a PNG."""
    if data.startswith(b"\x89PNG"):
        chunk = b"eXIf" + block
        chunk = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return data[:-12] + chunk + data[-12:]  # behind the pixels, where it may lie too
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="8"/>'
    payloads = (xmp, b"Other\0" + make_exif(4), b"Exif\0\0" + block)
    segments = (b"\xff\xe1" + struct.pack(">H", len(p) + 2) + p for p in payloads)
    return data[:2] + b"".join(segments) + data[2:]


def make_blocks(letters):
    """Rows of letters as squares of 16 pixels, which a JPEG keeps apart."""
    rows = np.array([[(ord(letter) - 96) * 40 for letter in row] for row in letters], np.uint8)
    return np.repeat(np.repeat(rows, 16, axis=0), 16, axis=1)[..., None]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("channels", [1, 3])
def test_exif_turns_the_pixels(tmp_path, suffix, order, orientation, channels):
    path = tmp_path / f"a.{suffix}"
    stored = np.repeat(make_blocks(TURNED[1]), channels, axis=2)
    write_image(path, stored)
    data = path.read_bytes()
    path.write_bytes(plant_exif(data, make_exif(orientation, order=order)))
    assert read_orientation(path) == orientation
    expected = np.repeat(make_blocks(TURNED[orientation]), channels, axis=2)
    read = read_image(path)
    np.testing.assert_allclose(read.astype(int), expected, atol=2)
    assert read_image_size(path) == expected.shape[:2]
    with Image.open(path) as image:
        peer = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read, peer.reshape(expected.shape))

    encoded, pixels = read_encoded(path)
    np.testing.assert_array_equal(pixels, read)
    assert (encoded.height, encoded.width) == expected.shape[:2]
    assert b"Exif" not in encoded.encoded and b"Doe" not in encoded.encoded
    if suffix == "jpg" and orientation == 1:
        assert encoded.encoded == strip_jpeg_metadata(data)
    else:
        assert (encoded.format, encoded.channels) == ("png", 1 if suffix == "jpg" else channels)
        np.testing.assert_array_equal(decode_image(encoded.encoded)[..., 0], read[..., 0])

    as_stored = read_image(path, exif="ignore")
    np.testing.assert_array_equal(as_stored, decode_image(data))
    assert read_image_size(path, exif="ignore") == stored.shape[:2]
    assert read_encoded(path, exif="ignore")[0].format == {"jpg": "jpeg", "png": "png"}[suffix]


@pytest.mark.parametrize(
    "block",
    [
        make_exif(0),
        make_exif(9),
        make_exif(6, kind=4),
        make_exif(6, count=2),
        make_exif(6)[:20],
        make_exif(6)[:4] + b"\xff\xff\xff\x7f" + make_exif(6)[8:],
        b"",
        b"XX" + make_exif(6)[2:],
        make_exif(6).replace(struct.pack("<H", 274), struct.pack("<H", 275), 1),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_damaged_exif_is_no_orientation(tmp_path, suffix, block):
    path = tmp_path / f"a.{suffix}"
    write_image(path, make_blocks(TURNED[1]))
    data = path.read_bytes()
    path.write_bytes(plant_exif(data, block))
    assert read_orientation(path) == 1
    np.testing.assert_array_equal(read_image(path), decode_image(data))


def test_exif_is_applied_or_ignored(tmp_path):
    write_image(tmp_path / "a.png", make_blocks(TURNED[1]))
    with pytest.raises(ValueError, match="'apply' or 'ignore'; got 'on'"):
        read_image(tmp_path / "a.png", exif="on")


@pytest.mark.parametrize(
    ("name", "orientation", "box"),
    [("exif6yolo/images", 6, [36, 40, 44, 60]), ("exif3lm", 3, [4, 36, 24, 44])],
)
def test_a_lesion_lies_where_annotation_tools_show_it(cases_dir, name, orientation, box):
    """Both are stored with the lesion at x 40 to 60, y 4 to 12 of 64 x 48 pixels."""
    path = cases_dir / "field" / "07-exif-orientation" / name / "a.jpg"
    assert read_orientation(path) == orientation
    rows, columns = np.nonzero(read_image(path)[..., 0] > 128)
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box


def make_astronaut_jpeg(**options):
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(skimage.data.astronaut()[180:300, 180:301]))
    image.save(file, "JPEG", quality=85, **options)
    return file.getvalue()


JPEG_OPTIONS = [
    {},
    {"progressive": True},
    {"restart_marker_rows": 2},
    {"optimize": True, "subsampling": 0},
]


@pytest.mark.parametrize("options", JPEG_OPTIONS)
def test_jpeg_cut_anywhere_is_refused(options):
    whole = make_astronaut_jpeg(**options)
    clean_encoded(whole)
    for tenth in range(1, 10):
        cut = whole[: len(whole) * tenth // 10]
        zeros = bytes(len(whole) - len(cut) - 2)
        for data in (cut, cut.rstrip(b"\xff") + b"\xff\xd9", cut + zeros + b"\xff\xd9"):
            with pytest.raises(VAEAugError, match="JPEG"):
                clean_encoded(data)
    # The end of the image is missing, or the last of its data.
    for data in (whole[:-1], whole[:-2], whole[:-40].rstrip(b"\xff") + b"\xff\xd9"):
        with pytest.raises(VAEAugError, match="cut short"):
            clean_encoded(data)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1", None])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (37, 50), (64, 33)])
def test_jpeg_has_the_pixels_that_tensorflow_decodes(subsampling, height, width):
    image = Image.fromarray(skimage.data.astronaut()[180 : 180 + height, 180 : 180 + width])
    options = {"subsampling": subsampling} if subsampling else {"keep_rgb": True}
    for mode in ("RGB", "L"):
        for optimize in (False, True):
            file = io.BytesIO()
            image.convert(mode).save(file, "JPEG", quality=90, optimize=optimize, **options)
            data = file.getvalue()
            np.testing.assert_array_equal(clean_encoded(data)[1], decode_image(data))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_zeros_within_a_jpeg_are_refused(mode):
    """Tables that are not made for the image code no flat block by zeros."""
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).convert(mode).save(file, "JPEG", quality=90)
    whole = file.getvalue()
    start, end = whole.rfind(b"\xff\xda") + 14, len(whole) - 2
    for position in range(start, end - 64, (end - start) // 40):
        data = whole[:position] + bytes(64) + whole[position + 64 :]
        with pytest.raises(VAEAugError, match=r"zeros stand in place|damaged or cut short"):
            clean_encoded(data)


def test_jpeg_without_tables_is_refused():
    whole = make_astronaut_jpeg()
    first = whole.find(b"\xff\xc4")
    with pytest.raises(VAEAugError, match="damaged or cut short"):
        clean_encoded(whole[:first] + whole[whole.rfind(b"\xff\xda") :])


@pytest.mark.parametrize(
    ("depth", "colour_type", "at_most"),
    [
        *((8, 0, "67108864 of 1 byte"), (16, 4, "67108864 of 2 bytes")),
        *((8, 3, "44739242 of 3 bytes"), (8, 6, "44739242 of 3 bytes")),
        (16, 2, "22369621 of 6 bytes"),
    ],
)
def test_size_is_bounded_by_decoded_bytes(depth, colour_type, at_most):
    header = struct.pack(">IIBBBBB", 9000, 8000, depth, colour_type, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + make_chunk(b"IHDR", header) + make_chunk(b"IEND", b"")
    message = f"8000 x 9000 pixels; at most {at_most} are read. Scale it down"
    with pytest.raises(VAEAugError, match=message):
        clean_encoded(data)


def test_jpeg_of_ones_is_refused():
    whole = make_astronaut_jpeg()
    with pytest.raises(VAEAugError, match="cut short"):
        clean_encoded(whole[: len(whole) // 2].rstrip(b"\xff") + b"\xff\0" * 9999 + b"\xff\xd9")


def test_jpeg_without_some_scans_or_restart_markers_is_refused():
    progressive = make_astronaut_jpeg(progressive=True)
    start = progressive.rfind(b"\xff\xda")
    tables = progressive.rfind(b"\xff\xc4", 0, start)
    with pytest.raises(VAEAugError, match="a scan of the JPEG is missing"):
        clean_encoded(progressive[:tables] + b"\xff\xd9")
    restarting = make_astronaut_jpeg(restart_marker_blocks=3)
    for data in (
        restarting.replace(b"\xff\xd2", b"", 1),
        re.sub(rb"\xff[\xd0-\xd7]", b"", restarting),
        restarting.replace(b"\xff\xd1", b"\xff\xd3", 1),
    ):
        with pytest.raises(VAEAugError, match="restart markers of the JPEG are missing"):
            clean_encoded(data)


@pytest.mark.parametrize("options", JPEG_OPTIONS)
def test_whole_jpeg_is_read_whatever_lies_behind_it(options):
    whole = make_astronaut_jpeg(**options)
    expected = clean_encoded(whole)
    for data in (whole + whole, whole + b"garbage" * 9, whole[:-2] + b"\xff\xff\xff\xd9"):
        encoded, pixels = clean_encoded(data)
        assert encoded == expected[0]
        np.testing.assert_array_equal(pixels, expected[1])


@pytest.mark.parametrize("progressive", [True, False])
@pytest.mark.parametrize("optimize", [True, False])
def test_even_jpeg_is_whole(progressive, optimize):
    """Its codes are long runs of zeros if the tables are made for it."""
    for mode, size in (("L", (1000, 999)), ("RGB", (640, 8)), ("L", (1, 1))):
        file = io.BytesIO()
        Image.new(mode, size).save(file, "JPEG", progressive=progressive, optimize=optimize)
        assert not clean_encoded(file.getvalue())[1].any()


def test_jpeg_of_other_processes_is_named():
    whole = make_astronaut_jpeg()
    file = io.BytesIO()
    Image.new("CMYK", (9, 9)).save(file, "JPEG")
    for data, message in (
        (file.getvalue(), "JPEG of CMYK or YCCK"),
        (whole.replace(b"\xff\xc0", b"\xff\xc9", 1), "process SOF9"),
        (whole.replace(b"\xff\xc0", b"\xff\xc3", 1), "process SOF3"),
        (whole.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c"), "JPEG with 12 bits"),
        (whole[:2] + b"\xff\xe0\0\2" * 20_000 + whole[2:], "damaged|more than 16384 segments"),
    ):
        with pytest.raises(VAEAugError, match=message):
            clean_encoded(data)


def test_colours_survive_without_a_thumbnail():
    """JFIF says YCbCr, against which Adobe's RGB does not count: it must stay, thumbnail or not."""
    whole = make_astronaut_jpeg()
    thumbnail = b"\xff\xe0\x00\x13" + whole[6:18] + b"\1\1abc"
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\0"
    encoded, pixels = clean_encoded(whole[:2] + thumbnail + adobe + whole[20:])
    assert b"abc" not in encoded.encoded[:40]
    np.testing.assert_array_equal(decode_image(encoded.encoded), pixels)
    np.testing.assert_array_equal(pixels, decode_image(whole))


def make_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_png(*, rows=20, extra=b"", pixels=None, end=None):
    """A grey PNG of 20 x 30, of which `rows` are there."""
    array = make_noise((rows, 30), np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in array)
    header = make_chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 20, 8, 0, 0, 0, 0))
    body = make_chunk(b"IDAT", zlib.compress(raw)) if pixels is None else pixels
    end = make_chunk(b"IEND", b"") if end is None else end
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + end


def test_damaged_png_is_refused():
    whole = make_png()
    compressed = zlib.compress(b"".join(b"\0" + bytes(30) for _ in range(20)))
    damaged = [
        *(whole[: len(whole) * tenth // 10] for tenth in range(1, 10)),
        whole[:-1],
        make_png(end=b""),
        make_png(rows=19),
        make_png(pixels=make_chunk(b"IDAT", b"")),
        make_png(pixels=b""),
        make_png(pixels=make_chunk(b"IDAT", compressed)[:-4] + bytes(4)),
        make_png(pixels=make_chunk(b"IDAT", compressed[:-4] + bytes(4))),
        whole[:33] + b"\x7f" + whole[34:],
    ]
    for data in damaged:
        with pytest.raises(VAEAugError, match=r"PNG (data|header)"):
            clean_encoded(data)
    for data in (whole, make_png(rows=25), whole + b"junk"):
        np.testing.assert_array_equal(clean_encoded(data)[1], clean_encoded(whole)[1])


def test_png_texts_are_not_inflated():
    """libpng would, one after the other."""
    texts = make_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(7_000_000))) * 3
    texts += make_chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(9)))
    planted = make_png(extra=texts)
    assert strip_png_metadata(planted) == make_png()
    np.testing.assert_array_equal(clean_encoded(planted)[1], clean_encoded(make_png())[1])
    with pytest.raises(VAEAugError, match="more than 131072 chunks"):
        clean_encoded(make_png(extra=make_chunk(b"teSt", b"") * 140_000))


def test_png_of_several_frames_is_refused():
    def animate(frames):
        return make_png(extra=make_chunk(b"acTL", struct.pack(">II", frames, 0)))

    with pytest.raises(VAEAugError, match=r"the PNG has 3 frames \(APNG\)"):
        clean_encoded(animate(3))
    clean_encoded(animate(1))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_png_of_few_bits_is_widened(depth):
    values = np.random.default_rng(0).integers(0, 2**depth, (7, 16), np.uint8)
    bits = np.unpackbits(values[..., None], axis=-1)[..., 8 - depth :].reshape(7, -1)
    raw = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    body = make_chunk(b"IDAT", zlib.compress(raw)) + make_chunk(b"IEND", b"")

    def decode(colour_type, extra=b""):
        header = make_chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 7, depth, colour_type, 0, 0, 0))
        return clean_encoded(b"\x89PNG\r\n\x1a\n" + header + extra + body)[1]

    np.testing.assert_array_equal(decode(0)[..., 0], values * (255 // (2**depth - 1)))
    palette = make_chunk(b"PLTE", bytes(v for i in range(2**depth) for v in (3 * i, 200 - i, 7)))
    expected = np.stack([3 * values, 200 - values, np.full_like(values, 7)], axis=-1)
    np.testing.assert_array_equal(decode(3, palette + make_chunk(b"tRNS", b"\0\x80")), expected)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "folder.png", "device.png"):
        for read in (read_image, read_image_size, read_encoded, read_orientation):
            with pytest.raises(VAEAugError, match="is no regular file"):
                read(tmp_path / name)
