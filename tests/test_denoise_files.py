from __future__ import annotations

import json
import os
import shutil

import cv2
import numpy as np
import pydicom
import pytest
import tensorflow as tf
from fake_vae import FakeVAE
from PIL import Image, TiffImagePlugin
from pydicom.data import get_testdata_file
from test_cli import run
from test_dicom import write_dicom

from vae_aug.atomic import lock_folder
from vae_aug.augment.transform import VAEAugment
from vae_aug.codecs.extent import Extent
from vae_aug.codecs.images import read_image, write_image
from vae_aug.config import ModelConfig
from vae_aug.errors import CheckpointError, DicomError, VAEAugError
from vae_aug.extras.denoise_files import denoise_files
from vae_aug.model.vae import VAE

SIZE = 32  # of the fake network, whose reconstruction is half the grey value
RNG = np.random.default_rng(0)


class Unchanged(FakeVAE):
    digest = "0123456789abcdef0000"

    def vary(self, images, noise, *, mode, factor, alone=False):
        return images, images


def make_noise(channels=1, dtype=np.uint8, height=SIZE, width=SIZE):
    top = np.iinfo(dtype).max
    return RNG.integers(0, top, (height, width, channels), dtype, endpoint=True)


def halve(array):
    """Half of every value; NumPy and TensorFlow round halves to even alike."""
    return np.rint(array * 0.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_the_reconstruction_in_its_own_depth_and_channels(tmp_path, dtype, channels):
    array = np.repeat(make_noise(dtype=dtype), channels, axis=-1)
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in/a.png", array)
    report = denoise_files(tmp_path / "in", tmp_path / "out", FakeVAE(), strict=True)
    assert (report.written, report.kept, report.ignored, report.failed) == (1, 0, 0, ())
    result = read_image(tmp_path / "out/a.png")
    assert result.dtype == dtype and result.shape == array.shape
    np.testing.assert_allclose(result, halve(array), atol=1)


@pytest.mark.parametrize("size", [(37, 53), (5, 7), (1, 1)])
def test_a_network_of_native_resolution_sees_every_pixel(tmp_path, size):
    array = make_noise(3, np.uint16, *size)
    write_image(tmp_path / "a.png", array)
    denoise_files(tmp_path / "a.png", tmp_path / "out", FakeVAE(profile="ladder"), strict=True)
    result = read_image(tmp_path / "out/a.png").astype(float)
    luminance = [0.299, 0.587, 0.114]
    inside = ((result > 0) & (result < 65535)).all(axis=-1)  # else a channel was cut
    np.testing.assert_allclose(
        (result @ luminance)[inside], (array @ luminance)[inside] / 2, atol=1
    )


def test_files_go_through_the_transform(tmp_path):
    array = make_noise(height=20, width=47)
    write_image(tmp_path / "a.png", array)
    denoise_files(tmp_path / "a.png", tmp_path / "out", FakeVAE())
    expected = VAEAugment(FakeVAE(), mode="denoise")(array).numpy()
    np.testing.assert_array_equal(read_image(tmp_path / "out/a.png"), expected)


def test_colour_keeps_the_differences_between_channels(tmp_path):
    base = make_noise().astype(int) // 4 + 100
    array = (base + np.array([0, 20, 50])).astype(np.uint8)
    write_image(tmp_path / "a.png", array)
    denoise_files(tmp_path / "a.png", tmp_path / "out", FakeVAE())
    result = read_image(tmp_path / "out/a.png").astype(int)
    assert np.abs(np.diff(result, axis=-1) - [20, 30]).max() <= 1
    luminance = [0.299, 0.587, 0.114]
    np.testing.assert_allclose(result @ luminance, (array @ luminance) / 2, atol=1)


@pytest.mark.parametrize(("mode", "grey"), [("LA", "L"), ("RGBA", "RGB")])
def test_alpha_is_copied(tmp_path, mode, grey):
    source = Image.fromarray(make_noise(3)).convert(grey).convert(mode)
    alpha = Image.fromarray(make_noise()[..., 0])
    source.putalpha(alpha)
    source.save(tmp_path / "a.png")
    denoise_files(tmp_path / "a.png", tmp_path / "out", FakeVAE())
    with Image.open(tmp_path / "out/a.png") as result:
        assert result.mode == mode
        np.testing.assert_array_equal(result.getchannel("A"), alpha)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_jpeg_stays_jpeg_of_quality_95(tmp_path, mode, channels):
    ramp = np.linspace(0, 255, 40).astype(np.uint8)
    Image.fromarray(np.tile(ramp, (30, 1))).convert(mode).save(tmp_path / "a.JPG", "JPEG")
    denoise_files(tmp_path / "a.JPG", tmp_path / "out", Unchanged())
    with Image.open(tmp_path / "out/a.JPG") as result:
        assert result.format == "JPEG" and result.mode == mode
        peer = Image.new("L", (8, 8))
        peer.save(tmp_path / "peer.jpg", quality=95)
        with Image.open(tmp_path / "peer.jpg") as peer:
            assert result.quantization[0] == peer.quantization[0]
    before, after = (
        read_image(p).astype(int) for p in (tmp_path / "a.JPG", tmp_path / "out/a.JPG")
    )
    assert after.shape == (30, 40, channels)
    assert np.abs(before - after).mean() < 6  # the network sees 32 of the 40 columns
    assert (after == after[..., :1]).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_orientation_is_kept_and_other_metadata_are_not(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "DOE^JANE"
    Image.new("L", (16, 8)).save(tmp_path / name, exif=exif)
    denoise_files(tmp_path / name, tmp_path / "out", FakeVAE())
    with Image.open(tmp_path / "out" / name) as result:
        assert result.size == (16, 8) and result.getexif()[0x0112] == 6
    assert read_image(tmp_path / "out" / name).shape == (16, 8, 1)  # as it is shown
    assert b"DOE" not in (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_RLE.dcm"])
def test_dicom_becomes_a_derived_object(tmp_path, name):
    path = shutil.copy(get_testdata_file(name), tmp_path)
    denoise_files(path, tmp_path / "out", FakeVAE(image_size=128), strict=True)
    source, result = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "out" / name)
    assert result.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert result.PatientID == source.PatientID
    assert "vae_aug" in result.DerivationDescription and "fake" in result.DerivationDescription
    assert result.pixel_array.shape == source.pixel_array.shape
    assert result.pixel_array.mean() < source.pixel_array.mean()


def test_a_network_that_changes_nothing_keeps_every_stored_value(tmp_path):
    stored = RNG.integers(0, 4096, (SIZE, SIZE)).astype(np.uint16)
    elements = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40}
    write_dicom(tmp_path / "a.dcm", stored, WindowWidth=400, **elements)
    denoise_files(tmp_path / "a.dcm", tmp_path / "out", Unchanged())
    result = pydicom.dcmread(tmp_path / "out/a.dcm")
    np.testing.assert_array_equal(result.pixel_array, stored)


def test_dicom_by_hand_over_the_whole_range(tmp_path):
    """Without a window the picture is 0 at the darkest and 1 at the brightest value."""
    stored = np.repeat(np.array([[1000, 3000]], np.uint16), SIZE // 2, axis=1)
    write_dicom(tmp_path / "a.dcm", np.repeat(stored, SIZE, axis=0))
    denoise_files(tmp_path / "a.dcm", tmp_path / "out", FakeVAE())
    result = pydicom.dcmread(tmp_path / "out/a.dcm").pixel_array
    # Black stays black; white becomes 0.5, half way between 1000 and 3000.
    np.testing.assert_array_equal(result[0, [0, -1]], [1000, 2000])


def test_dicom_as_png(tmp_path):
    (tmp_path / "in").mkdir()
    stored = RNG.integers(0, 4096, (SIZE, SIZE)).astype(np.uint16)
    for name in ("a.dcm", "1.2.840.1", "IM0001"):
        write_dicom(tmp_path / "in" / name, stored)
    report = denoise_files(tmp_path / "in", tmp_path / "out", FakeVAE(), dicom_as="png")
    assert report.written == 3
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["1.2.840.1.png", "IM0001.png", "a.png"]
    result = read_image(tmp_path / "out/a.png")
    assert result.dtype == np.uint16 and result.shape == (SIZE, SIZE, 1)


@pytest.fixture
def folder(tmp_path):
    """Two good images, one in a subfolder, and four files that are none."""
    source = tmp_path / "in"
    (source / "deep/er").mkdir(parents=True)
    write_image(source / "a.png", make_noise())
    write_dicom(source / "deep/er/IM0", make_noise()[..., 0], bits_stored=8)
    (source / "broken.png").write_bytes((source / "a.png").read_bytes()[:100])
    (source / "empty.dcm").write_bytes(b"")
    (source / "notes.txt").write_text("no image")
    shutil.copy(get_testdata_file("DICOMDIR"), source)
    (source / ".hidden.png").write_text("no image")
    return source


def test_bad_files_are_named_and_the_others_done(folder, tmp_path):
    calls = []
    report = denoise_files(
        folder, tmp_path / "out", FakeVAE(), progress=lambda *counts: calls.append(counts)
    )
    assert (report.written, report.kept, report.ignored) == (2, 0, 2)
    assert dict(report.failed) == {
        "broken.png": "the PNG data are damaged or cut short",
        "empty.dcm": "not a DICOM file (no DICM prefix)",
    }
    found = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.*"))
    assert [path.as_posix() for path in found] == ["a.png"]
    assert (tmp_path / "out/deep/er/IM0").is_file()
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert json.loads(json.dumps(report.to_dict()))["failed"][0][0] == "broken.png"


def test_strict_raises_and_names_the_file(folder, tmp_path):
    with pytest.raises(VAEAugError, match=r"broken\.png: the PNG data are damaged"):
        denoise_files(folder, tmp_path / "out", FakeVAE(), strict=True)
    (folder / "broken.png").unlink()
    with pytest.raises(DicomError, match=r"empty\.dcm: not a DICOM file"):
        denoise_files(folder, tmp_path / "out", FakeVAE(), strict=True)


def test_a_second_run_keeps_what_is_there(folder, tmp_path):
    out = tmp_path / "out"
    denoise_files(folder, out, FakeVAE())
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    calls = []
    report = denoise_files(folder, out, FakeVAE(), progress=lambda *c: calls.append(c))
    assert (report.written, report.kept, len(report.failed)) == (0, 2, 2)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert calls == [(3, 4), (4, 4)]


@pytest.mark.parametrize("name", ["a.png", "b.jpg", "c.dcm"])
def test_an_output_cut_short_is_made_again(tmp_path, name):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    if name == "c.dcm":
        write_dicom(source / name, make_noise()[..., 0], bits_stored=8)
    else:
        write_image(source / name, make_noise())
    denoise_files(source, out, FakeVAE())
    whole = (out / name).read_bytes()
    (out / name).write_bytes(whole[:-40])
    assert denoise_files(source, out, FakeVAE()).written == 1
    assert (out / name).read_bytes() == whole


def test_outputs_of_another_origin_are_neither_kept_nor_replaced(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write_image(source / "a.png", make_noise())
    denoise_files(source, out, FakeVAE())
    with pytest.raises(VAEAugError, match=r"a\.png: exists, and was not denoised with this"):
        denoise_files(source, out, Unchanged())
    shutil.copy(source / "a.png", out / "a.png")
    with pytest.raises(VAEAugError, match=r"Give another folder, or delete it"):
        denoise_files(source, out, FakeVAE())
    assert (out / "a.png").read_bytes() == (source / "a.png").read_bytes()


def test_another_window_is_another_output(tmp_path):
    write_dicom(tmp_path / "a.dcm", make_noise()[..., 0], bits_stored=8)
    for window in ("full", (100, 50)):
        folder = tmp_path / str(window)
        denoise_files(tmp_path / "a.dcm", folder, FakeVAE(), window=window)
    with pytest.raises(VAEAugError, match="this checkpoint, window and strength"):
        denoise_files(tmp_path / "a.dcm", tmp_path / "full", FakeVAE(), window="lung")


def test_another_strength_is_another_output(tmp_path):
    rows, columns = np.mgrid[:48, :48]
    smooth = np.uint8(60 + rows + columns)[..., None]  # without noise, so nothing is to be done
    write_image(tmp_path / "a.png", smooth)
    made = {}
    for strength in ("auto", 0.5, 1):
        denoise_files(tmp_path / "a.png", tmp_path / str(strength), FakeVAE(), strength=strength)
        made[strength] = read_image(tmp_path / str(strength) / "a.png").astype(float)
    np.testing.assert_allclose(made[1], halve(smooth), atol=1)
    np.testing.assert_allclose(made[0.5], 0.75 * smooth, atol=1)
    again = {"ckpt": FakeVAE(), "strength": 0.5}
    assert denoise_files(tmp_path / "a.png", tmp_path / "0.5", **again).kept == 1
    for strength in (1, "auto", 0.25):
        with pytest.raises(VAEAugError, match="this checkpoint, window and strength"):
            denoise_files(tmp_path / "a.png", tmp_path / "0.5", FakeVAE(), strength=strength)
    for strength in (-0.1, 1.5, "all"):
        with pytest.raises((ValueError, TypeError), match="strength"):
            denoise_files(tmp_path / "a.png", tmp_path / "out", FakeVAE(), strength=strength)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_shows_values_of_12_bits_and_they_stay_in_the_file(tmp_path, name, channels):
    array = np.repeat(make_noise(dtype=np.uint16) % 4000 + 96, channels, axis=-1)
    array[0, 0], array[0, 1] = 50, 65535  # below black and above white
    write_deep(tmp_path / name, array)
    # By the formula of DICOM, 100 is black and 4,000 is white.
    report = denoise_files(
        tmp_path / name, tmp_path / "out", FakeVAE(), window=(2050.5, 3901), strict=True
    )
    result = read_image(tmp_path / "out" / name).astype(int)
    assert result.shape == array.shape
    outside = (array < 100) | (array > 4000)
    assert outside[0, :2].all() and 2 < outside.sum() < outside.size / 4
    np.testing.assert_array_equal(result[outside], array[outside])
    inside = array[~outside].astype(int)
    np.testing.assert_allclose(result[~outside], 100 + (inside - 100) / 2, atol=0.51)
    assert report.extent == Extent(1)
    again = denoise_files(tmp_path / name, tmp_path / "out", FakeVAE(), window="2050.5,3901")
    assert (again.written, again.kept) == (0, 1)
    for window in (None, (2050.5, 390)):
        with pytest.raises(VAEAugError, match="this checkpoint, window and strength"):
            denoise_files(tmp_path / name, tmp_path / "out", FakeVAE(), window=window)


def write_deep(path, array):
    """Write 16 bits of grey or colour by OpenCV, which has blue first; here channels are equal."""
    assert cv2.imwrite(str(path), array)


def test_full_shows_each_file_by_its_own_values(tmp_path):
    (tmp_path / "in").mkdir()
    array = np.full((SIZE, SIZE, 1), 1000, np.uint16)
    array[:, SIZE // 2 :] = 3000
    write_image(tmp_path / "in/a.png", array)
    write_image(tmp_path / "in/b.png", np.full_like(array, 1000))  # nothing to be seen
    denoise_files(tmp_path / "in", tmp_path / "out", FakeVAE(), window="full", strict=True)
    assert read_image(tmp_path / "out/a.png")[0, [0, -1], 0].tolist() == [1000, 2000]
    assert (read_image(tmp_path / "out/b.png") == 1000).all()


def test_a_window_is_nothing_to_8_bits_and_a_preset_is_none_for_16(tmp_path):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in/8.png", make_noise())
    write_image(tmp_path / "in/16.png", make_noise(dtype=np.uint16))
    for window in ("auto", "lung"):
        folder = tmp_path / window
        report = denoise_files(tmp_path / "in", folder, FakeVAE(), window=window)
    ((name, reason),) = report.failed
    assert name == "16.png" and "424,1500 if they are Hounsfield units + 1024" in reason
    first, second = (read_image(tmp_path / window / "8.png") for window in ("auto", "lung"))
    np.testing.assert_array_equal(first, second)


def test_files_that_the_network_sees_nearly_black_are_told_of(tmp_path):
    (tmp_path / "in").mkdir()
    array = np.tile(np.arange(4096, dtype=np.uint16), 2).reshape(64, 128, 1)
    write_image(tmp_path / "in/a.png", array)
    write_deep(tmp_path / "in/b.tif", array)
    write_dicom(tmp_path / "in/c.dcm", array[..., 0])
    write_image(tmp_path / "in/d.png", (array >> 4).astype(np.uint8))
    extent = denoise_files(tmp_path / "in", tmp_path / "out", FakeVAE(), strict=True).extent
    assert extent == Extent(3, 2, 0, 4095)
    assert "again into another folder with --window 2048,4096," in extent.describe("denoise")
    result = run("denoise", tmp_path / "in", tmp_path / "out", "--window", "hot")
    assert "window must be" in result.stderr
    window = {"window": extent.window, "strict": True}
    assert denoise_files(tmp_path / "in", tmp_path / "new", FakeVAE(), **window).extent == Extent(3)


def test_tiff_is_turned_and_loses_its_tags(tmp_path):
    array = make_noise(3, height=8, width=16)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274], tags[270] = 6, "DOE^JANE"
    Image.fromarray(array).save(tmp_path / "a.tif", tiffinfo=tags)
    denoise_files(tmp_path / "a.tif", tmp_path / "out", Unchanged(profile="ladder"))
    with Image.open(tmp_path / "out/a.tif") as result:
        np.testing.assert_array_equal(result, np.rot90(array, -1))
    data = (tmp_path / "out/a.tif").read_bytes()
    assert b"DOE" not in data and b"fake" not in data and data.endswith(b"0123456789abcdef")


def test_an_interrupted_run_leaves_whole_files_and_is_taken_up(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in "abc":
        write_image(source / f"{name}.png", make_noise())

    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        denoise_files(source, out, FakeVAE(), progress=interrupt)
    assert sorted(os.listdir(out)) == ["a.png", "b.png"]
    report = denoise_files(source, out, FakeVAE())
    assert (report.written, report.kept) == (1, 2)


def test_an_output_inside_of_the_source_is_no_source(tmp_path):
    write_image(tmp_path / "a.png", make_noise())
    for kept in (0, 1):
        report = denoise_files(tmp_path, tmp_path / "out", FakeVAE())
        assert (report.written, report.kept) == (1 - kept, kept)


def test_sources_are_never_replaced(tmp_path):
    write_image(tmp_path / "a.png", make_noise())
    before = (tmp_path / "a.png").read_bytes()
    for source in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(ValueError, match="is a source; give another folder"):
            denoise_files(source, tmp_path, FakeVAE())
    with pytest.raises(ValueError, match="is a source"):
        denoise_files(tmp_path / "a.png", tmp_path / "a.png", FakeVAE())
    assert (tmp_path / "a.png").read_bytes() == before


def test_two_sources_of_one_name(tmp_path):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in/a.png", make_noise())
    write_dicom(tmp_path / "in/a.dcm", make_noise()[..., 0], bits_stored=8)
    with pytest.raises(VAEAugError, match=r"a\.png and a\.dcm would both become a\.png"):
        denoise_files(tmp_path / "in", tmp_path / "out", FakeVAE(), dicom_as="png")
    assert not (tmp_path / "out").exists()


def test_a_single_file_may_be_renamed(tmp_path):
    write_image(tmp_path / "a.png", make_noise())
    denoise_files(tmp_path / "a.png", tmp_path / "new/b.png", FakeVAE())
    assert (tmp_path / "new/b.png").is_file()
    with pytest.raises(ValueError, match=r"b\.jpg: the output is png; its name must end in \.png"):
        denoise_files(tmp_path / "a.png", tmp_path / "b.jpg", FakeVAE())


def test_the_kind_is_told_from_the_content(tmp_path):
    write_image(tmp_path / "real.png", make_noise())
    shutil.copy(tmp_path / "real.png", tmp_path / "misnamed.jpg")
    denoise_files(tmp_path / "misnamed.jpg", tmp_path / "out", FakeVAE())
    assert (tmp_path / "out/misnamed.jpg").read_bytes()[:4] == b"\x89PNG"


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="dicom_as must be one of 'dicom', 'png'"):
        denoise_files(tmp_path, tmp_path / "out", FakeVAE(), dicom_as="jpeg")
    with pytest.raises(ValueError, match="window must be"):
        denoise_files(tmp_path, tmp_path / "out", FakeVAE(), window="liver")
    with pytest.raises(CheckpointError):
        denoise_files(tmp_path, tmp_path / "out", tmp_path / "none.keras")
    with pytest.raises(VAEAugError, match="holds no PNG, JPEG, TIFF or DICOM image"):
        denoise_files(tmp_path, tmp_path / "out", FakeVAE())
    with pytest.raises(VAEAugError, match="no such file or folder"):
        denoise_files(tmp_path / "none", tmp_path / "out", FakeVAE())


def test_a_disk_that_refuses_ends_the_run(tmp_path):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in/a.png", make_noise())
    (tmp_path / "out").write_text("a file where a folder should be")
    with pytest.raises(VAEAugError, match=r"out.*cannot be (read|written) \("):
        denoise_files(tmp_path / "in", tmp_path / "out", FakeVAE())


def test_a_real_network(tmp_path, short_stages):
    tf.keras.utils.set_random_seed(1)
    vae = VAE(ModelConfig(encoder="efficientnet-lite1", image_size=SIZE, latent_dim=8))
    write_image(tmp_path / "a.png", make_noise(dtype=np.uint16, height=50, width=41))
    denoise_files(tmp_path / "a.png", tmp_path / "out", vae)
    result = read_image(tmp_path / "out/a.png")
    assert result.shape == (50, 41, 1) and result.dtype == np.uint16
    # What a pixel is, only the latent vector tells: no noise of one pixel comes through.
    assert np.abs(np.diff(result.astype(int), axis=1)).mean() < 65535 / 20


def test_a_real_ladder(tmp_path, tiny_ladder):
    array = make_noise(dtype=np.uint16, height=50, width=41)
    write_image(tmp_path / "a.png", array)
    write_dicom(tmp_path / "b.dcm", make_noise()[:20, :, 0], bits_stored=8)
    report = denoise_files(tmp_path, tmp_path / "out", tiny_ladder, strict=True)
    assert report.written == 2
    expected = tiny_ladder.reconstruct(array[None] / np.float32(65535))[0]
    np.testing.assert_allclose(read_image(tmp_path / "out/a.png") / 65535, expected, atol=1e-4)
    assert pydicom.dcmread(tmp_path / "out/b.dcm").pixel_array.shape == (20, SIZE)


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in/a.png", make_noise())
    (tmp_path / "out").mkdir()
    left = tmp_path / "out" / ".a.png.0123abcd.tmp"
    others = [tmp_path / "out" / name for name in (".b.png.0123abcd.tmp", ".a.png.original.tmp")]
    for path in (left, *others):
        path.write_bytes(b"half")
    denoise_files(tmp_path / "in", tmp_path / "out", FakeVAE())
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a.png", *(path.name for path in others)}


def test_beside_another_run_nothing_is_removed_and_all_is_written(tmp_path):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in/a.png", make_noise())
    (tmp_path / "out").mkdir()
    writing = tmp_path / "out" / ".a.png.0123abcd.tmp"
    writing.write_bytes(b"half")
    with lock_folder(tmp_path / "out"):
        assert denoise_files(tmp_path / "in", tmp_path / "out", FakeVAE()).written == 1
    assert writing.exists() and (tmp_path / "out" / "a.png").exists()


def test_a_run_that_writes_nothing_leaves_no_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(VAEAugError):
        denoise_files(tmp_path / "in", tmp_path / "out", FakeVAE(), strict=True)
    assert not (tmp_path / "out").exists()
