"""The network's output on images, as one graph for all transforms."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.augment import change as module
from vae_aug.augment.change import ChangeSettings, change_images
from vae_aug.augment.guard import change_guarded, measure_contrast_ratio
from vae_aug.grey import compute_grey, find_range

SETTINGS = ChangeSettings("paste", 0.9, False, 0.5, True, None)
BOXES = tf.constant([[[0.2, 0.2, 0.7, 0.6]], [[0.0, 0.0, 0.3, 0.3]]])
CHOSEN = tf.constant([True, False])


def make_images(dtype):
    rng = np.random.default_rng(1)
    if dtype == "float32":
        return tf.constant(rng.random((2, 24, 30, 1)), tf.float32)
    return tf.constant(rng.integers(0, np.iinfo(dtype).max, (2, 24, 30, 1)).astype(dtype))


def make_output():
    return tf.random.stateless_uniform([2, 24, 30, 1], [3, 4])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("settings", [SETTINGS, SETTINGS._replace(denoised=True)])
def test_one_graph_does_what_its_parts_do(dtype, settings):
    images, computed = make_images(dtype), make_output()
    changed, told = change_images(images, computed, BOXES, CHOSEN, settings)
    low, high = find_range(images)
    grey = compute_grey(images, low, high)
    wanted = tf.where(CHOSEN[:, None, None, None], computed - 0.5 * grey, 0.0)
    expected, fidelity, guarded = change_guarded(
        images,
        wanted,
        BOXES,
        low,
        high,
        guard="paste",
        min_fidelity=0.9,
        denoised=settings.denoised,
    )
    np.testing.assert_array_equal(changed, expected)
    np.testing.assert_array_equal(changed[1], images[1])
    assert (changed[0].numpy() != images[0].numpy()).any()
    np.testing.assert_allclose(told["fidelity"], fidelity, rtol=1e-5)
    np.testing.assert_array_equal(told["guarded"], guarded)
    contrast = measure_contrast_ratio(grey, compute_grey(expected, low, high), BOXES)
    np.testing.assert_allclose(told["contrast"], contrast, rtol=1e-5)


def test_it_is_traced_once_for_all_sizes_and_then_read(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    traced = []
    guarded = module.change_guarded
    monkeypatch.setattr(
        module, "change_guarded", lambda *a, **k: traced.append(a) or guarded(*a, **k)
    )
    settings = SETTINGS._replace(min_fidelity=0.123)
    for side in (24, 20, 16):
        images = make_images("uint8")[:, :side]
        change_images(images, make_output()[:, :side], BOXES, CHOSEN, settings)
    assert len(traced) == 1
    module.trace_change.cache_clear()  # as in another process
    change_images(make_images("uint8"), make_output(), BOXES, CHOSEN, settings)
    assert len(traced) == 1
    change_images(make_images("uint16"), make_output(), BOXES, CHOSEN, settings)
    assert len(traced) == 2


def test_floats_that_fit_no_range_are_refused():
    images = 1000.0 * make_images("float32")
    with pytest.raises(tf.errors.InvalidArgumentError, match="Pass value_range"):
        change_images(images, make_output(), BOXES, CHOSEN, SETTINGS)


def test_the_static_shape_stays():
    @tf.function(autograph=False)
    def change(images):
        return change_images(images, make_output(), BOXES, CHOSEN, SETTINGS)[0]

    assert change.get_concrete_function(make_images("uint8")).output_shapes == [2, 24, 30, 1]
