"""Every element layout, eagerly, in `map` and in `apply`: only pixels change, and they do."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from fake_vae import FakeVAE

from conformance.layouts import (
    SIZES,
    check_untouched,
    get_image,
    iterate_cases,
    make_element,
)
from vae_aug.augment.transform import VAEAugment

CASES = list(dict.fromkeys(iterate_cases()))
# `apply` differs from `map` in how it carries elements, not in what it does to pixels.
BY_LAYOUT = {case for case in CASES if (case.dtype, case.channels) == ("uint8", 1)}
AUGMENT = VAEAugment(FakeVAE(), seed=5, guard="off")
IDENTITY = VAEAugment(FakeVAE(), factor=0.0)
# A network at native resolution differs in how it takes images, not in what carries boxes.
NATIVE = VAEAugment(FakeVAE(profile="ladder"), seed=5, guard="off")
NATIVE_CASES = [case for case in CASES if case in BY_LAYOUT and case.size == SIZES[1]]


def pixels(element):
    return tf.nest.flatten(get_image(element), expand_composites=True)[0].numpy()


def make_dataset(element):
    return tf.data.Dataset.from_tensors(element)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_only_pixels_change_and_equally_in_every_way(case):
    element = make_element(case)
    eager = AUGMENT(element)
    check_untouched(element, eager)
    assert (pixels(eager) != pixels(element)).mean() > 0.5
    dataset = make_dataset(element)
    ways = [dataset.map(AUGMENT)]
    if case in BY_LAYOUT:
        ways.append(dataset.apply(AUGMENT))
    for way in ways:
        (processed,) = list(way)
        check_untouched(element, processed)
        np.testing.assert_array_equal(pixels(processed), pixels(eager))


@pytest.mark.parametrize("case", NATIVE_CASES, ids=str)
def test_only_pixels_change_at_native_resolution(case):
    element = make_element(case)
    eager = NATIVE(element)
    check_untouched(element, eager)
    assert (pixels(eager) != pixels(element)).mean() > 0.5
    (processed,) = list(make_dataset(element).apply(NATIVE))
    check_untouched(element, processed)
    np.testing.assert_array_equal(pixels(processed), pixels(eager))


@pytest.mark.parametrize(
    ("mode", "guard"), [("denoise", "paste"), ("sample", "paste"), ("interpolate", "keep")]
)
@pytest.mark.parametrize("case", [c for c in CASES if c.count == 300], ids=str)
def test_every_mode_and_guard_takes_300_boxes(case, mode, guard):
    element = make_element(case)
    augmented = VAEAugment(FakeVAE(), mode=mode, guard=guard, seed=5)(element)
    check_untouched(element, augmented)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_identity_is_bit_for_bit(case):
    element = make_element(case)
    same, report = IDENTITY.call_with_report(element)
    check_untouched(element, same)
    assert pixels(same).tobytes() == pixels(element).tobytes()
    assert not report["augmented"].numpy().any()


def test_the_suite_catches_a_transform_that_moves_a_box():
    element = make_element(next(case for case in CASES if case.layout == "tfds"))
    moved = {
        **element,
        "objects": {**element["objects"], "bbox": element["objects"]["bbox"] + 1e-7},
    }
    with pytest.raises(AssertionError):
        check_untouched(element, moved)
