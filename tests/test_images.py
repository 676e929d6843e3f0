from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from vae_aug.data import images
from vae_aug.data.images import (
    encode_image,
    encode_png,
    parse_image_header,
    read_encoded,
    read_image,
    read_image_size,
    strip_jpeg_metadata,
    write_image,
)
from vae_aug.errors import VAEAugError


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
    cut = strip_jpeg_metadata(planted[: len(raw) // 2])
    assert cut.startswith(b"\xff\xd8") and cut.endswith(b"\xff\xd9")


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
        "empty.png": (b"", "neither PNG nor JPEG"),
        "short.png": (good[: len(good) // 2], "damaged or cut short"),
        "header.png": (good[:20], "damaged or cut short"),
        "short.jpg": (jpeg[: len(jpeg) // 2], "damaged or cut short"),
        "header.jpg": (jpeg[:30], "header is damaged or cut short"),
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
