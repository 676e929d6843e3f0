"""Images of 16 bits that fill little of their range: found, told of, and brought to grey."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image
from test_cli import run
from test_ingest import write_coco

from vae_aug.codecs.extent import Extent, join_extents, measure_extent
from vae_aug.errors import AnnotationError
from vae_aug.ingest.convert import Conversion, convert_image
from vae_aug.ingest.formats import READERS
from vae_aug.ingest.formats.source import DEFAULTS
from vae_aug.ingest.ingest import ingest
from vae_aug.ingest.items import View
from vae_aug.records.records import read_info, read_records

BOX = [(8, 4, 16, 20, 1)]


def make_values(low, high, seed=0):
    """Make `[40, 80, 1] uint16` in which both ends are there."""
    values = np.random.default_rng(seed).integers(low, high + 1, (40, 80, 1))
    values[0, :2, 0] = low, high
    return values.astype(np.uint16)


def measure(pixels):
    return measure_extent(pixels, windowed=False)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 4095), (0, 4095)),
        ((3, 1023), (0, 1023)),
        ((0, 8191), (0, 8191)),
        ((31744, 35840), (31744, 35840)),
        ((0, 8300), None),
        ((0, 65535), None),
        ((20000, 40000), None),
    ],
)
def test_what_values_fill(values, expected):
    extent = measure(make_values(*values))
    assert extent == (Extent(1, 1, *expected) if expected else Extent(1))


def test_padding_markers_and_hot_pixels_do_not_count():
    values = make_values(31744, 35840)
    values[:10] = 0
    values[-4:, -8:] = 65535
    assert measure(values) == Extent(1, 1, *np.unique(values)[[1, -2]].tolist())
    hot = make_values(0, 4095)
    hot[20, 20] = 60000
    assert measure(hot).narrow and 4080 < measure(hot).high <= 4095


def test_what_has_no_values_is_narrow_and_what_has_8_bits_does_not_count():
    assert measure(np.zeros((4, 4, 1), np.uint16)) == Extent(1, 1)
    assert measure(np.full((4, 4, 3), 65535, np.uint16)) == Extent(1, 1, 65535, 65535)
    assert measure(np.zeros((4, 4, 1), np.uint8)) == Extent()


def test_single_narrow_images_are_not_told_of():
    narrow, wide = measure(make_values(0, 4095)), measure(make_values(0, 60000))
    assert join_extents([narrow, wide]).describe() == join_extents([]).describe() == ""
    joined = join_extents([narrow, measure(make_values(0, 2000)), wide])
    assert joined == Extent(3, 2, 0, 4095)
    assert joined.describe().startswith(
        "WARNING: 2 of 3 images of 16 bits fill little of their range (0 to 4095 of 0 to 65535, "
        "6.2%)"
    )
    assert "--overwrite and --window 2048,4096, the same for every split" in joined.describe()
    windowed = join_extents([measure_extent(make_values(0, 99), windowed=True)])
    assert "another --window (full" in windowed.describe()


def write_source(folder, suffix, low=0, high=4095, names=("A_1", "B_1", "C_1", "D_1")):
    """Write COCO of images of 16 bits of four patients."""
    (folder / "images").mkdir(parents=True)
    for seed, name in enumerate(names):
        path = folder / "images" / f"{name}{suffix}"
        Image.fromarray(make_values(low, high, seed)[..., 0]).save(path)
    return write_coco(folder, {f"{name}{suffix}": BOX for name in names})


@pytest.mark.parametrize(
    ("suffix", "low", "high"),
    [(".png", 0, 4095), (".tif", 0, 1023), (".png", 31700, 35800)],
)
def test_ingest_says_once_which_window_to_take_and_it_makes_values_grey(
    tmp_path, suffix, low, high
):
    source, out = write_source(tmp_path / "in", suffix, low, high), tmp_path / "out"
    command = ("ingest", source, out, "--split-by-patient", "0.5,0.5")
    result = run(*command)
    assert result.exit_code == 0, result.stderr
    (told,) = re.findall(r"WARNING: 4 of 4 images of 16 bits.*", result.stdout)
    assert f"({low} to {high} of 0 to 65535" in told
    dark = next(iter(read_records(out, "train")))["image"].numpy()
    assert (dark.min(), dark.max()) == (low, high), "without a window values stay as stored"
    window = re.search(r"--window (\S+),", told)[1]
    result = run(*command, "--overwrite", "--window", window)
    assert result.exit_code == 0 and "of 16 bits" not in result.stdout
    assert read_info(out).dtype == "uint16"
    for split in "train", "validation":
        for element in read_records(out, split):
            image = element["image"].numpy().astype(float)
            assert image.min() == 0 and image.max() == 65535
    expected = (dark.astype(float) - low) / (high - low) * 65535
    shown = next(iter(read_records(out, "train")))["image"].numpy()
    np.testing.assert_allclose(shown, expected, atol=0.5 + 1e-6)


def test_values_of_records_of_other_tools_are_shown_too(tmp_path):
    ingest(write_source(tmp_path / "in", ".png"), tmp_path / "dark")
    options = {"format": "records", "window": (2048, 4096), "bits": 8}
    report = ingest(tmp_path / "dark", tmp_path / "out", **options)
    assert (
        report.images == 4
        and report.extent == Extent()
        and read_info(tmp_path / "out").dtype == "uint8"
    )
    image = next(iter(read_records(tmp_path / "out", "train")))["image"].numpy()
    assert (image.min(), image.max()) == (0, 255)


def test_full_shows_each_image_by_its_own_values(tmp_path):
    report = ingest(
        write_source(tmp_path / "in", ".png", 500, 900), tmp_path / "out", window="full"
    )
    assert report.extent == Extent(4)
    image = next(iter(read_records(tmp_path / "out", "train")))["image"].numpy()
    assert (image.min(), image.max()) == (0, 65535)


def test_a_window_in_hounsfield_units_is_refused_for_values_of_no_unit(tmp_path):
    source = write_source(tmp_path / "in", ".png")
    with pytest.raises(
        AnnotationError, match=r"e\.g\. 424,1500 if they are Hounsfield units \+ 1024"
    ):
        ingest(source, tmp_path / "out", window="lung")
    assert ingest(source, tmp_path / "out", window=(-600, 1500)).images == 4


def test_images_of_8_bits_stay_as_they_are_under_a_window(tmp_path):
    source = write_coco(tmp_path / "in", {"A_1.png": BOX})
    (image,) = READERS["coco"](source, "train", DEFAULTS).images
    plain, windowed = (
        convert_image(image, Conversion(("lesion", "stone"), None, View(window, None, window)))
        for window in ("auto", (2048.0, 4096.0))
    )
    assert plain.record == windowed.record and plain.extent == Extent()
