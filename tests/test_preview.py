"""The preview sheet: which images, which noise, which variants."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from fake_vae import BrighteningVAE, FakeVAE

from vae_aug.augment.transform import VAEAugment
from vae_aug.corrupt import corrupt_image
from vae_aug.data.images import read_image
from vae_aug.evaluate.preview import choose_rows, draw_variants, write_preview

BOX = np.array([[0.25, 0.25, 0.5, 0.75]], np.float32)


def make_element(index, boxes=1, dtype=tf.uint8):
    return {
        "image": tf.fill([24, 20, 1], tf.cast(100, dtype)),
        "image/source_id": tf.constant(str(index)),
        "objects": {"bbox": tf.repeat(BOX, boxes, 0), "label": tf.zeros([boxes], tf.int64)},
    }


def make_dataset(box_counts):
    def generate():
        yield from (make_element(index, count) for index, count in enumerate(box_counts))

    signature = {
        "image": tf.TensorSpec((24, 20, 1), tf.uint8),
        "image/source_id": tf.TensorSpec((), tf.string),
        "objects": {
            "bbox": tf.TensorSpec((None, 4), tf.float32),
            "label": tf.TensorSpec((None,), tf.int64),
        },
    }
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


@pytest.mark.parametrize(
    ("box_counts", "count", "expected"),
    [
        ([1, 0, 2, 0, 1, 1], 2, ["0", "5"]),  # the first and the last with a box
        ([0, 1, 0, 1], 5, ["1", "3"]),  # fewer than asked for
        ([0, 0, 0], 2, ["0", "2"]),  # none has a box
        ([1], 3, ["0"]),
    ],
)
def test_rows_are_spread_over_images_with_boxes(box_counts, count, expected):
    chosen = choose_rows(make_dataset(box_counts), count)
    assert [element["image/source_id"].numpy().decode() for element in chosen] == expected


@pytest.mark.parametrize("dtype", [tf.uint8, tf.uint16])
def test_noise_leaves_the_share_that_it_says(dtype):
    image = tf.fill([200, 200, 1], tf.cast(100, dtype))
    noisy = corrupt_image(image, "replace", 0.4, [1, 0])
    assert noisy.dtype == dtype and noisy.shape == image.shape
    # 40 000 pixels, each kept with 0.4: within 5 standard deviations of 0.0025.
    assert np.mean(noisy == image) == pytest.approx(0.4, abs=0.0125)
    np.testing.assert_array_equal(corrupt_image(image, "replace", 1.0, [1, 0]), image)
    np.testing.assert_array_equal(corrupt_image(image, "replace", 0.4, [1, 0]), noisy)
    assert np.any(corrupt_image(image, "replace", 0.4, [2, 0]) != noisy)


def test_variants_differ_from_each_other_and_come_again():
    augment = VAEAugment(FakeVAE(), seed=0, guard="off")
    variants = draw_variants(augment, make_element(0), 3)
    assert variants.shape == (3, 24, 20, 1) and variants.dtype == np.uint8
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.mean(variants[first] != variants[second]) > 0.5
    np.testing.assert_array_equal(draw_variants(augment, make_element(0), 3), variants)
    # The first is what a pass over the data set gives.
    np.testing.assert_array_equal(augment(make_element(0))["image"], variants[0])


def test_the_sheet_shows_what_it_says(tmp_path):
    denoise = VAEAugment(BrighteningVAE(), mode="denoise", seed=0, guard="off")
    elements = [make_element(index, boxes=0) for index in range(2)]
    variants = [np.full((2, 24, 20, 1), 200 + index, np.uint8) for index in range(2)]
    write_preview(tmp_path / "sheet.png", elements, denoise, variants)
    sheet = read_image(tmp_path / "sheet.png")
    # Cells of 192 pixels, 2 apart, under a heading of 16; input, denoised and two samples.
    assert sheet.shape == (16 + 2 * 194, 4 * 194, 3)
    centres = sheet[16 + 96 :: 194, 80::194, 0]
    # The stand-in reconstructs exactly.
    assert centres.tolist() == [[100, 100, 200, 200], [100, 100, 201, 201]]
    write_preview(tmp_path / "noisy.png", elements, denoise, variants, keep=0.4)
    assert read_image(tmp_path / "noisy.png").shape == (16 + 2 * 194, 5 * 194, 3)
