"""The network's output on an image, as one graph for all transforms."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.augment import change as module
from vae_aug.augment.change import ChangeSettings, change_image
from vae_aug.augment.guard import change_guarded, measure_contrast_ratio
from vae_aug.grey import compute_grey, find_range

SETTINGS = ChangeSettings(
    guard="paste",
    min_fidelity=0.9,
    denoised=False,
    adaptive=False,
    replaced=0.5,
    transformed=False,
    moves=True,
    contrast=True,
    value_range=None,
)
BOXES = tf.constant([[0.2, 0.2, 0.7, 0.6], [0.0, 0.0, 0.3, 0.3]])
CHOSEN, LEFT = tf.constant(True), tf.constant(False)


def make_image(dtype):
    rng = np.random.default_rng(1)
    if dtype == "float32":
        return tf.constant(rng.random((24, 30, 1)), tf.float32)
    return tf.constant(rng.integers(0, np.iinfo(dtype).max, (24, 30, 1)).astype(dtype))


def make_output():
    return tf.random.stateless_uniform([24, 30, 1], [3, 4])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("settings", [SETTINGS, SETTINGS._replace(denoised=True)])
def test_one_graph_does_what_its_parts_do(dtype, settings):
    image, computed = make_image(dtype), make_output()
    changed, told = change_image(image, computed, BOXES, CHOSEN, settings)
    low, high = find_range(image)
    grey = compute_grey(image, low, high)
    expected, fidelity, guarded = change_guarded(
        image,
        computed - 0.5 * grey,
        BOXES,
        low,
        high,
        guard="paste",
        min_fidelity=0.9,
        denoised=settings.denoised,
    )
    np.testing.assert_array_equal(changed, expected)
    assert (changed.numpy() != image.numpy()).any()
    np.testing.assert_allclose(told["fidelity"], fidelity, rtol=1e-5)
    np.testing.assert_array_equal(told["guarded"], guarded)
    contrast = measure_contrast_ratio(grey, compute_grey(expected, low, high), BOXES)
    np.testing.assert_allclose(told["contrast"], contrast, rtol=1e-5)
    left, _ = change_image(image, computed, BOXES, LEFT, settings)
    np.testing.assert_array_equal(left, image)


def test_contrast_is_measured_for_those_who_want_it():
    given = (make_image("uint8"), make_output(), BOXES, CHOSEN)
    image, told = change_image(*given, SETTINGS)
    same, less = change_image(*given, SETTINGS._replace(contrast=False))
    np.testing.assert_array_equal(same, image)
    assert np.isfinite(told["contrast"]).all() and np.isnan(less["contrast"]).all()
    np.testing.assert_array_equal(less["fidelity"], told["fidelity"])


def test_it_is_traced_once_for_all_sizes_and_then_read(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    traced = []
    guarded = module.change_guarded
    monkeypatch.setattr(
        module, "change_guarded", lambda *a, **k: traced.append(a) or guarded(*a, **k)
    )
    settings = SETTINGS._replace(min_fidelity=0.123)
    for side in (24, 20, 16):
        change_image(make_image("uint8")[:side], make_output()[:side], BOXES, CHOSEN, settings)
    assert len(traced) == 1
    module.trace_change.cache_clear()  # as in another process
    change_image(make_image("uint8"), make_output(), BOXES, CHOSEN, settings)
    assert len(traced) == 1
    change_image(make_image("uint16"), make_output(), BOXES, CHOSEN, settings)
    assert len(traced) == 2


def test_floats_that_fit_no_range_are_refused():
    image = 1000.0 * make_image("float32")
    with pytest.raises(tf.errors.InvalidArgumentError, match="Pass value_range"):
        change_image(image, make_output(), BOXES, CHOSEN, SETTINGS)


def test_the_static_shape_stays():
    @tf.function(autograph=False)
    def change(image):
        return change_image(image, make_output(), BOXES, CHOSEN, SETTINGS)[0]

    assert change.get_concrete_function(make_image("uint8")).output_shapes == [24, 30, 1]
