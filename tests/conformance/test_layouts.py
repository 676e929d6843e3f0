"""Every element layout, eagerly, in `map` and in `apply`: only pixels change, and they do."""

from __future__ import annotations

import functools
import itertools

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from fake_vae import FakeVAE

from vae_aug.augment.transform import VAEAugment
from vae_aug.errors import ConformanceError
from vae_aug.extras.conformance import (
    OPTIONS,
    Case,
    check_element,
    check_transform,
    cover_pairs,
    get_image,
    get_pixels,
    make_element,
)

SETTINGS = {
    "mode": ("sample", "denoise", "interpolate"),
    "guard": ("paste", "off", "keep"),
    "profile": ("vector", "ladder"),
}
ROWS = cover_pairs({**OPTIONS, **SETTINGS})
IDENTITY = VAEAugment(FakeVAE(), factor=0.0)


def split_row(row):
    settings = {name: row[name] for name in SETTINGS}
    return Case(**{name: row[name] for name in OPTIONS}), settings


@functools.cache
def make_augment(profile="vector", **settings):
    return VAEAugment(FakeVAE(profile=profile), seed=5, **settings)


def name_row(row):
    case, settings = split_row(row)
    return "-".join((str(case), *settings.values()))


@pytest.mark.parametrize("row", ROWS, ids=name_row)
def test_only_pixels_change_and_equally_in_every_way(row):
    case, settings = split_row(row)
    check_transform(make_augment(**settings), [case], takes_datasets=True)


@pytest.mark.parametrize("row", ROWS[::4], ids=name_row)
def test_identity_is_bit_for_bit(row):
    element = make_element(split_row(row)[0])
    same, report = IDENTITY.call_with_report(element)
    check_element(element, same)
    assert get_pixels(same).tobytes() == get_pixels(element).tobytes()
    assert not report["augmented"].numpy().any()


@pytest.mark.parametrize("layout", OPTIONS["layout"])
def test_pixels_do_change(layout):
    element = make_element(Case(layout, "single", size=(32, 32)))
    changed = make_augment(guard="off")(element)
    assert (get_pixels(changed) != get_pixels(element)).mean() > 0.5


@hypothesis.given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    boxes=hnp.arrays(np.float32, st.tuples(st.integers(0, 6), st.just(4))),
    mode=st.sampled_from(SETTINGS["mode"]),
)
@hypothesis.settings(max_examples=15, deadline=None)
def test_boxes_of_any_value_stay(height, width, boxes, mode):
    rng = np.random.default_rng(height)
    image = tf.constant(rng.integers(0, 256, (height, width, 1)), tf.uint8)
    element = {"image": image, "objects": {"bbox": tf.constant(boxes)}}
    changed, report = make_augment(mode=mode).call_with_report(element)
    check_element(element, changed)
    assert report["fidelity"].shape == report["contrast"].shape == (len(boxes),)


def test_every_two_values_meet():
    rows = cover_pairs(OPTIONS)
    for one, other in itertools.combinations(OPTIONS, 2):
        met = {(row[one], row[other]) for row in rows}
        assert met == set(itertools.product(OPTIONS[one], OPTIONS[other]))
    assert len(rows) < 40


# Faults, each of which must be caught by its name.


def replace_boxes(element, boxes):
    return {**element, "objects": {**element["objects"], "bbox": boxes}}


def move_by_one_ulp(element):
    boxes = element["objects"]["bbox"]
    moved = tf.numpy_function(lambda b: np.nextafter(b, np.float32(2)), [boxes], tf.float32)
    return replace_boxes(element, tf.ensure_shape(moved, boxes.shape))


def lose_the_sign_of_zero(element):
    return replace_boxes(element, element["objects"]["bbox"] + 0.0)


def drop_a_key(element):
    return {key: value for key, value in element.items() if key != "image/source_id"}


def drop_boxes_that_are_not_finite(element):
    boxes = element["objects"]["bbox"]
    return replace_boxes(element, boxes[tf.reduce_all(tf.math.is_finite(boxes), axis=-1)])


def change_a_label(element):
    objects = {**element["objects"], "label": element["objects"]["label"] + 1}
    return {**element, "objects": objects}


def change_the_dtype(element):
    return {**element, "image": tf.cast(element["image"], tf.float32)}


def cut_the_image(element):
    return {**element, "image": element["image"][..., 1:, :]}


def forget_the_shape(element):
    image = element["image"]
    return {**element, "image": tf.numpy_function(lambda x: x, [image], image.dtype)}


def make_dense(element):
    return {**element, "image": element["image"].to_tensor()}


def change_the_given(element):
    element["image/source_id"] = element["image/source_id"] + "x"
    return {**element, "image/source_id": tf.strings.substr(element["image/source_id"], 0, 1)}


def draw_without_a_seed(element):
    image = element["image"]
    return {**element, "image": tf.cast(tf.random.uniform(image.shape, 0, 255), image.dtype)}


def know_whether_it_is_eager(element):
    return {**element, "image": element["image"] + tf.cast(tf.executing_eagerly(), tf.uint8)}


def look_at_the_whole_batch(element):
    image = element["image"]
    total = tf.reduce_sum(tf.cast(image, tf.int32))
    return {**element, "image": image + tf.cast(total % 7, image.dtype)}


@pytest.mark.parametrize(
    ("fault", "name", "options"),
    [
        (move_by_one_ulp, "values", {}),
        (lose_the_sign_of_zero, "values", {"count": 300}),
        (change_a_label, "values", {}),
        (drop_boxes_that_are_not_finite, "values", {"count": 2}),
        (drop_a_key, "structure", {}),
        (make_dense, "structure", {"batch": "ragged images"}),
        (change_the_dtype, "dtype", {}),
        (cut_the_image, "shape", {}),
        (forget_the_shape, "spec", {}),
        (change_the_given, "input", {}),
        (draw_without_a_seed, "ways", {}),
        (know_whether_it_is_eager, "ways", {}),
        (look_at_the_whole_batch, "batch", {"batch": "batched"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_planted_fault_is_caught_by_its_name(fault, name, options):
    case = Case("tfds", **{"batch": "single", **options})
    with pytest.raises(ConformanceError, match=f"^{name}: ") as caught:
        check_transform(fault, [case])
    assert str(case) in caught.value.__notes__[0]


def test_what_a_transform_raises_names_the_case():
    case = Case("bare", "single")
    with pytest.raises(KeyError) as caught:
        check_transform(lambda element: {}["image"], [case])
    assert str(case) in caught.value.__notes__[0]


def test_chance_is_allowed_where_it_is_said():
    check_transform(draw_without_a_seed, [Case("tfds", "batched")], seeded=False)


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="layout must be one of"):
        make_element(Case("coco", "single"))


def test_ragged_images_have_sizes_of_their_own():
    image = get_image(make_element(Case("bare", "ragged images")))
    assert [row.shape[0] for row in image] == [21, 24, 27]
