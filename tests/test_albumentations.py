"""Transforms through Albumentations' own machinery, and its pipelines in `tf.data`."""

from __future__ import annotations

import collections
import copy
import importlib
import json
import os
import pickle
import re
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # the import would ask PyPI

import albumentations as A
from conftest import ROOT
from fake_vae import BrighteningVAE, ErasingVAE, FakeVAE

from vae_aug.augment import transform
from vae_aug.augment.transform import VAEAugment
from vae_aug.errors import MissingPackageError
from vae_aug.extras.albumentations import Corruption, VAETransform, albumentations_map
from vae_aug.extras.conformance import OPTIONS, Case, get_image, make_element
from vae_aug.records.records import make_example, write_records
from vae_aug.train.corrupt import CORRUPTIONS, corrupt_image

MODULE = "vae_aug.extras.albumentations"
WHITE = {"uint8": 255, "uint16": 65535, "float32": 1}


def make_image(*shape: int, dtype: str = "uint8") -> np.ndarray:
    ramp = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return (ramp * WHITE[dtype]).astype(dtype)


def compose(*transforms: A.BasicTransform, seed: int = 7, **settings: object) -> A.Compose:
    return A.Compose(transforms, seed=seed, save_applied_params=True, **settings)


def applied_params(result: dict) -> tuple[float, list[int]]:
    ((_, params),) = result["applied_transforms"]
    return params["keep"], params["seed"]


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("dtype", WHITE)
def test_pixels_are_those_of_corrupt_image(name, dtype):
    image = make_image(12, 10, 3, dtype=dtype)
    original = image.copy()
    result = compose(Corruption(name, keep=(0.3, 0.6), p=1))(image=image)
    expected = corrupt_image(tf.constant(image), name, *applied_params(result)).numpy()
    assert result["image"].dtype == image.dtype
    np.testing.assert_array_equal(result["image"], expected)
    assert (result["image"] != original).any()
    np.testing.assert_array_equal(image, original)


@pytest.mark.parametrize("dtype", WHITE)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_grey_with_and_without_a_channel_axis_are_the_same(name, dtype):
    image = make_image(12, 10, dtype=dtype)
    flat = compose(Corruption(name, keep=0.5, p=1))(image=image)["image"]
    column = compose(Corruption(name, keep=0.5, p=1))(image=image[..., None])["image"]
    assert flat.shape == (12, 10) and column.shape == (12, 10, 1)
    np.testing.assert_array_equal(flat, column[..., 0])


@pytest.mark.parametrize("dtype", WHITE)
def test_keeping_all_is_the_identity(dtype):
    image = make_image(16, 16, 3, dtype=dtype)
    for name in CORRUPTIONS:
        noisy = compose(Corruption(name, keep=1, p=1))(image=image)["image"]
        np.testing.assert_array_equal(noisy, image)


def test_the_seed_of_compose_reproduces_every_draw():
    image = make_image(8, 8, 1)
    runs = [compose(Corruption("gaussian", (0.2, 1.0)), seed=seed) for seed in (7, 7, 8)]
    first, again, other = ([run(image=image)["image"] for _ in range(6)] for run in runs)
    np.testing.assert_array_equal(first, again)
    assert (np.stack(first) != np.stack(other)).any()
    # With p = 0.5 six draws of seed 7 hold both untouched and corrupted images, all different.
    touched = [noisy.tobytes() for noisy in first if (noisy != image).any()]
    assert 0 < len(touched) < 6 and len(set(touched)) == len(touched)


def test_keep_is_drawn_from_the_whole_range_and_a_number_is_itself():
    ranged, fixed = Corruption("blend", (0.25, 0.75)), Corruption("blend", 0.3)
    ranged.set_random_seed(1)
    keeps = [ranged.get_params()["keep"] for _ in range(400)]
    # 400 uniforms in [0, 1]: the extremes are within 0.05 of the ends but for e**-20.
    assert 0.25 <= min(keeps) < 0.275 and 0.725 < max(keeps) <= 0.75
    assert fixed.keep == (0.3, 0.3) and fixed.get_params()["keep"] == 0.3


def test_boxes_masks_and_labels_pass_untouched():
    boxes = np.array([[1, 2, 9, 15], [0, 0, 16, 16]], np.float32)  # sixteenths are exact
    mask = make_image(16, 16)
    pipeline = compose(
        A.NoOp(p=0),  # Compose warns of boxes that no transform takes
        Corruption("replace", keep=0.4, p=1),
        bbox_params=A.BboxParams(format="pascal_voc", label_fields=["labels"]),
    )
    result = pipeline(image=make_image(16, 16), mask=mask, bboxes=boxes, labels=["a", "b"])
    np.testing.assert_array_equal(result["bboxes"], boxes)
    np.testing.assert_array_equal(result["mask"], mask)
    assert result["labels"] == ["a", "b"]


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        ("images", (3, 8, 8)),
        ("images", (3, 8, 8, 3)),
        ("volume", (3, 8, 8)),
        ("volume", (3, 8, 8, 1)),
        ("volumes", (2, 3, 8, 8)),
        ("volumes", (2, 3, 8, 8, 1)),
    ],
)
def test_slices_of_a_stack_get_noise_of_their_own(target, shape):
    stack = np.full(shape, 128, np.uint8)
    result = compose(Corruption("gaussian", keep=0.6, p=1))(**{target: stack})
    noisy = result[target]
    assert noisy.shape == shape and noisy.dtype == np.uint8
    slices = noisy.reshape(-1, 64 * (3 if shape[-1] == 3 else 1))
    assert len(np.unique(slices, axis=0)) == len(slices)
    planes = stack if shape[-1] in (1, 3) else stack[..., None]
    expected = corrupt_image(tf.constant(planes), "gaussian", *applied_params(result))
    np.testing.assert_array_equal(noisy, expected.numpy().reshape(shape))


def test_a_list_of_images_comes_back_as_a_list():
    images = [make_image(8, 8), make_image(8, 8)]
    noisy = compose(Corruption("blend", keep=0.5, p=1))(images=images)["images"]
    assert isinstance(noisy, list) and [image.shape for image in noisy] == [(8, 8), (8, 8)]


def test_it_runs_in_a_dataset_through_numpy_function():
    images = np.stack([make_image(8, 8, 1)] * 4)
    eager, mapped = (compose(Corruption("speckle", (0.3, 0.9)), seed=3) for _ in range(2))
    dataset = tf.data.Dataset.from_tensor_slices(images).map(
        lambda image: tf.numpy_function(lambda x: mapped(image=x)["image"], [image], tf.uint8)
    )
    for image, noisy in zip(images, dataset.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(noisy, eager(image=image)["image"])


@pytest.mark.parametrize("keep", [0.4, (0.4, 0.9)])
def test_a_pipeline_survives_serialisation(keep):
    pipeline = A.Compose([Corruption("rician", keep, p=0.75)], seed=2)
    saved = json.loads(json.dumps(A.to_dict(pipeline)))
    assert saved["transform"]["transforms"] == [
        {
            "__class_fullname__": f"{MODULE}.Corruption",
            "name": "rician",
            "keep": [0.4, 0.9 if isinstance(keep, tuple) else 0.4],
            "p": 0.75,
        }
    ]
    loaded = A.from_dict(saved)
    assert A.to_dict(loaded) == A.to_dict(pipeline)
    loaded.set_random_seed(2)
    image = make_image(8, 8)
    for _ in range(4):
        np.testing.assert_array_equal(loaded(image=image)["image"], pipeline(image=image)["image"])


@pytest.mark.parametrize("data_format", ["json", "yaml"])
def test_a_pipeline_survives_a_file(tmp_path, data_format):
    pipeline = A.Compose([Corruption("missing_lines", (0.5, 0.9))])
    A.save(pipeline, tmp_path / "pipeline", data_format)
    assert A.to_dict(A.load(tmp_path / "pipeline", data_format)) == A.to_dict(pipeline)


def test_a_replay_repeats_the_noise():
    image = make_image(8, 8)
    result = A.ReplayCompose([Corruption("poisson_gaussian", (0.3, 0.9), p=1)])(image=image)
    replayed = A.ReplayCompose.replay(json.loads(json.dumps(result["replay"])), image=image)
    np.testing.assert_array_equal(replayed["image"], result["image"])


def test_spawned_workers_can_receive_it():
    image = make_image(8, 8)
    pipeline = compose(Corruption("blend", (0.3, 0.9), p=1))
    copy = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(copy(image=image)["image"], pipeline(image=image)["image"])


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"name\n.*replace, blend, .*got \['salt'\]"):
        Corruption("salt", keep=0.5)


@pytest.mark.parametrize("keep", [0, -0.1, 1.01, (0.0, 0.5), (0.5, 1.1), float("nan"), 40])
def test_a_keep_out_of_range_is_refused(keep):
    with pytest.raises(ValueError, match=r"keep\n.*must be > 0 and <= 1"):
        Corruption("blend", keep=keep)


@pytest.mark.parametrize(
    ("keep", "message"),
    [((0.9, 0.4), r"got \(0.9, 0.4\)"), ("half", "keep.*valid"), ((0.1, 0.2, 0.3), "keep")],
)
def test_a_keep_that_is_no_number_or_range_is_refused(keep, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        Corruption("blend", keep=keep)


def test_a_probability_out_of_range_and_an_unknown_argument_are_refused():
    with pytest.raises(ValueError, match="less than or equal to 1"):
        Corruption("blend", keep=0.5, p=2)
    with pytest.raises(ValueError, match="'strength' are not valid"):
        Corruption("blend", keep=0.5, strength=3, strict=True)


@pytest.mark.parametrize("dtype", ["int32", "float64", "bool"])
def test_another_dtype_is_refused(dtype):
    with pytest.raises(TypeError, match=f"uint8, uint16, float32; got {dtype}"):
        Corruption("blend", keep=0.5, p=1)(image=np.zeros([4, 4], dtype))


@pytest.mark.parametrize("shape", [(4,), (2, 4, 4, 1)])
def test_another_rank_is_refused(shape):
    with pytest.raises(ValueError, match="expected 2 axes, or 3 with channels last; got shape"):
        Corruption("blend", keep=0.5, p=1)(image=np.zeros(shape, np.uint8))


@pytest.mark.parametrize("missing", ["albumentations", "pydantic"])
def test_without_the_extra_the_import_names_the_install_command(monkeypatch, missing):
    monkeypatch.delitem(sys.modules, MODULE)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingPackageError, match=r"pip install 'vae-aug\[albumentations\]'"):
        importlib.import_module(MODULE)


@pytest.mark.parametrize(("chosen", "expected"), [(None, "1"), ("0", "0")])
def test_the_version_check_is_off_before_the_import_unless_chosen(monkeypatch, chosen, expected):
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE")
    if chosen is not None:
        monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", chosen)
    monkeypatch.delitem(sys.modules, MODULE)
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(MissingPackageError):
        importlib.import_module(MODULE)
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == expected


# VAETransform


def drawn(result: dict, index: int = 0) -> dict:
    """What a transform drew, of a pipeline of `compose`."""
    return result["applied_transforms"][index][1]


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1), (12, 10, 3)])
@pytest.mark.parametrize("dtype", WHITE)
def test_the_vae_brightens_by_a_quarter_of_the_range(shape, dtype):
    image = make_image(*shape, dtype=dtype) // np.asarray(2, dtype)  # at most half of white
    original = image.copy()
    result = compose(VAETransform(BrighteningVAE(), p=1))(image=image)["image"]
    assert result.dtype == image.dtype and result.shape == shape
    np.testing.assert_array_equal(image, original)
    expected = image.astype(np.float64) + 0.25 * WHITE[dtype]
    tolerance = 1e-6 if dtype == "float32" else 0.51  # integers round
    np.testing.assert_allclose(result.astype(np.float64), expected, atol=tolerance)


def test_the_draw_is_that_of_vae_augment_for_the_key():
    image = make_image(16, 16, 1)
    result = compose(VAETransform(FakeVAE(), factor=0.5, p=1))(image=image)
    element = {"image": image, "id": str(drawn(result)["key"])}
    expected = VAEAugment(FakeVAE(), factor=0.5, seed=0)(element)["image"]
    np.testing.assert_array_equal(result["image"], expected)
    assert (result["image"] != image).any()


def test_the_seed_of_compose_reproduces_every_variant():
    image = make_image(8, 8, 1)
    runs = [compose(VAETransform(FakeVAE()), seed=seed) for seed in (7, 7, 8)]
    first, again, other = ([run(image=image)["image"] for _ in range(8)] for run in runs)
    np.testing.assert_array_equal(first, again)
    assert (np.stack(first) != np.stack(other)).any()
    touched = [varied.tobytes() for varied in first if (varied != image).any()]
    assert 0 < len(touched) < 8 and len(set(touched)) == len(touched)


def test_the_settings_of_a_vae_augment_count():
    image = make_image(8, 8, dtype="float32")
    augment = VAEAugment(FakeVAE(), mode="denoise")
    denoised = compose(VAETransform(augment, p=1))(image=image)["image"]
    np.testing.assert_allclose(denoised, 0.5 * image, atol=0.02)  # the square has 32 pixels
    seeds = [VAETransform(VAEAugment(FakeVAE(), seed=seed), p=1) for seed in (None, 0, 5)]
    unset, zero, five = (compose(each)(image=image)["image"] for each in seeds)
    np.testing.assert_array_equal(unset, zero)
    assert (zero != five).any()


def erase(guard: str, *before: A.BasicTransform, **settings: object) -> A.Compose:
    return compose(
        *before,
        VAETransform(ErasingVAE(profile="ladder"), guard=guard, detail=0.0, p=1),
        bbox_params=A.BboxParams("pascal_voc"),
        **settings,
    )


def test_the_guard_sees_the_boxes_and_compose_takes_them():
    image = make_image(40, 40)
    boxes = np.array([[10, 20, 20, 30]], np.float32)
    result = erase("keep")(image=image, bboxes=boxes)
    np.testing.assert_array_equal(result["image"], image)
    np.testing.assert_array_equal(result["bboxes"], boxes)
    np.testing.assert_allclose(drawn(result)["boxes"], [[0.25, 0.5, 0.5, 0.75]])
    for nothing in ({"bboxes": np.zeros([0, 4])}, {"bboxes": []}, {}):
        assert not erase("keep")(image=image, **nothing)["image"].any()
    assert not erase("off")(image=image, bboxes=boxes)["image"].any()


def test_the_guard_sees_boxes_where_earlier_transforms_have_put_them():
    image = np.full([40, 40], 200, np.uint8)
    image[12:18, 2:8] = 90  # what a flip takes to columns 32 to 38
    boxes = [[2, 12, 8, 18]]
    result = erase("paste", A.HorizontalFlip(p=1))(image=image, bboxes=boxes)
    np.testing.assert_allclose(result["bboxes"], [[32, 12, 38, 18]], atol=1e-5)
    np.testing.assert_array_equal(result["image"][12:18, 32:38], 90)
    assert not result["image"][:, :20].any()


def test_the_guard_sees_additional_boxes_too():
    image = make_image(16, 16)
    boxes = np.array([[4, 4, 12, 12]], np.float32)
    pipeline = erase("keep", additional_targets={"others": "bboxes"})
    result = pipeline(image=image, bboxes=np.zeros([0, 4]), others=boxes)
    np.testing.assert_array_equal(result["image"], image)
    np.testing.assert_array_equal(result["others"], boxes)


def test_all_slices_of_a_stack_get_the_same_draw():
    image = make_image(8, 8)
    pipeline = compose(VAETransform(FakeVAE(), p=1))
    for target, stack in (
        ("images", np.stack([image] * 3)),
        ("volume", np.stack([image[..., None]] * 3)),
        ("volumes", np.stack([image] * 6).reshape(2, 3, 8, 8)),
    ):
        varied = pipeline(**{target: stack})[target]
        assert varied.shape == stack.shape and varied.dtype == np.uint8
        slices = varied.reshape(-1, 8, 8)
        np.testing.assert_array_equal(slices, np.stack([slices[0]] * len(slices)))
        assert (slices[0] != image).any()


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """Stands in for checkpoints; returns the names of those loaded."""
    names: list[str] = []

    def load(name: str) -> FakeVAE:
        names.append(name)
        return FakeVAE()

    monkeypatch.setattr(transform, "open_checkpoint", load)
    return names


@pytest.mark.parametrize("data_format", ["json", "yaml"])
def test_a_vae_of_a_path_can_be_saved(tmp_path, loaded, data_format):
    pipeline = A.Compose(
        [VAETransform(tmp_path / "a.keras", mode="denoise", value_range=(0, 255), p=1)]
    )
    A.save(pipeline, tmp_path / "pipeline", data_format)
    again = A.load(tmp_path / "pipeline", data_format)
    assert loaded == [str(tmp_path / "a.keras")] * 2
    assert A.to_dict(again) == A.to_dict(pipeline)
    image = make_image(8, 8)
    np.testing.assert_array_equal(again(image=image)["image"], pipeline(image=image)["image"])


def test_a_vae_of_a_path_can_be_pickled_and_copied(loaded):
    image = make_image(8, 8)
    pipeline = compose(VAETransform("demo", p=1))
    copied = copy.deepcopy(pipeline)
    assert loaded == ["demo"]  # the copy has the same network
    pickled = pickle.loads(pickle.dumps(pipeline))
    assert loaded == ["demo"] * 2
    first, second, third = (each(image=image)["image"] for each in (pipeline, copied, pickled))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)


def test_a_variant_can_be_replayed(loaded):
    image = make_image(16, 16)
    boxes = [[2, 2, 9, 9]]
    box_params = A.BboxParams("pascal_voc")
    result = A.ReplayCompose([VAETransform("demo", p=1)], box_params)(image=image, bboxes=boxes)
    replayed = A.ReplayCompose.replay(json.loads(json.dumps(result["replay"])), image=image)
    np.testing.assert_array_equal(replayed["image"], result["image"])
    assert (result["image"] != image).any()


def test_settings_beside_a_vae_augment_and_wrong_ones_are_refused():
    with pytest.raises(ValueError, match="already; got mode, factor beside it"):
        VAETransform(VAEAugment(FakeVAE()), mode="denoise", factor=0.5)
    with pytest.raises(ValueError, match=r"mode must be one of 'denoise', .*got 'blur'"):
        VAETransform(FakeVAE(), mode="blur")
    with pytest.raises(TypeError, match=r"ckpt must be a path.*received int"):
        VAETransform(3)
    with pytest.raises(ValueError, match="less than or equal to 1"):
        VAETransform(FakeVAE(), p=2)


def test_images_that_the_vae_cannot_take_are_refused():
    vary = VAETransform(FakeVAE(), p=1)
    with pytest.raises(TypeError, match="uint8, uint16, float32; got float64"):
        vary(image=np.zeros([8, 8]))
    with pytest.raises(ValueError, match="1 or 3 channels"):
        vary(image=np.zeros([8, 8, 2], np.uint8))
    with pytest.raises(ValueError, match=r"expected 2 axes.*\(8,\)"):
        vary(image=np.zeros([8], np.uint8))


# albumentations_map


def boxed(*transforms: A.BasicTransform, **settings: object) -> A.Compose:
    return A.Compose(transforms, bbox_params=A.BboxParams("pascal_voc", **settings))


FLIP = boxed(A.HorizontalFlip(p=1))
# An image of 8 rows and 16 columns; a box from column 2 to 6, which a flip takes to 10 to 14.
FLIPPED = {
    "xyxy": ([2, 1, 6, 5], [10, 1, 14, 5]),
    "yxyx": ([1, 2, 5, 6], [1, 10, 5, 14]),
    "xywh": ([2, 1, 4, 4], [10, 1, 4, 4]),
    "center_xywh": ([4, 3, 4, 4], [12, 3, 4, 4]),
    "center_yxhw": ([3, 4, 4, 4], [3, 12, 4, 4]),
    "rel_xyxy": ([0.125, 0.125, 0.375, 0.625], [0.625, 0.125, 0.875, 0.625]),
    "rel_yxyx": ([0.125, 0.125, 0.625, 0.375], [0.125, 0.625, 0.625, 0.875]),
    "rel_xywh": ([0.125, 0.125, 0.25, 0.5], [0.625, 0.125, 0.25, 0.5]),
}


def map_one(function, element):
    """Run on one element in a dataset, its sizes unknown as they are when read from files."""
    dataset = tf.data.Dataset.from_tensors(element).map(forget_sizes).map(function)
    return next(iter(dataset))


def forget_sizes(*element):
    def forget(tensor):
        shape = [None] * min(tensor.shape.rank, 2) + tensor.shape[2:]
        return tf.raw_ops.PlaceholderWithDefault(input=tensor, shape=shape)

    parts = element[0] if len(element) == 1 else element
    return tf.nest.map_structure(forget, parts)


@pytest.mark.parametrize("run", [lambda function, element: function(element), map_one])
@pytest.mark.parametrize("box_format", FLIPPED)
def test_a_flip_by_hand_in_every_format(box_format, run):
    before, after = FLIPPED[box_format]
    image = make_image(8, 16, 1)
    element = {"image": image, "objects": {"bbox": np.array([before], np.float32), "label": [3]}}
    result = run(albumentations_map(FLIP, bounding_box_format=box_format), element)
    np.testing.assert_array_equal(result["image"], image[:, ::-1])
    assert result["objects"]["bbox"].dtype == tf.float32
    np.testing.assert_array_equal(result["objects"]["bbox"], [after])
    assert result["objects"]["label"].numpy().tolist() == [3]


def test_the_formats_that_go_with_the_keys():
    flip = albumentations_map(FLIP)
    image = make_image(8, 16, 3)
    for key, box_format in (("bbox", "rel_yxyx"), ("boxes", "xyxy")):
        before, after = FLIPPED[box_format]
        element = (image, {key: np.array([before], np.float32)})
        np.testing.assert_array_equal(map_one(flip, element)[1][key], [after])
        np.testing.assert_array_equal(flip(*element)[1][key], [after])


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "int64"])
def test_boxes_keep_their_dtype(dtype):
    before, after = FLIPPED["xyxy"]
    element = {"images": make_image(8, 16, 1), "boxes": np.array([before], dtype)}
    boxes = map_one(albumentations_map(FLIP), element)["boxes"]
    assert boxes.dtype == dtype
    np.testing.assert_array_equal(boxes, [after])


def test_there_and_back_in_one_pipeline_returns_the_same_floats():
    there = [A.HorizontalFlip(p=1), A.Transpose(p=1), A.VerticalFlip(p=1)]
    pipeline = boxed(*there, *there[::-1])
    rng = np.random.default_rng(0)
    start = rng.random((200, 2)) * 0.5
    boxes = np.concatenate([start, start + rng.random((200, 2)) * 0.4 + 0.01], -1)
    element = {"image": make_image(37, 23, 1), "bbox": boxes.astype(np.float32)}
    again = albumentations_map(pipeline)(element)
    np.testing.assert_array_equal(again["bbox"], element["bbox"])
    np.testing.assert_array_equal(again["image"], element["image"])


# Crops columns 0 to 8 of 16. Box 0 stays, box 1 is outside, box 2 keeps a quarter of its width.
CROPPED = np.array([[1, 2, 5, 6], [10, 2, 14, 6], [7, 0, 11, 8]], np.float32)


@pytest.mark.parametrize("run", [lambda function, element: function(element), map_one])
def test_a_dropped_box_takes_all_that_is_its_own_with_it(run):
    image = make_image(8, 16, 1)
    element = {
        "images": image,
        "bounding_boxes": {
            "boxes": CROPPED,
            "labels": np.array([5, 6, 7], np.uint8),
            "names": np.array(["a", "b", "c"]),
            "corners": np.arange(12.0).reshape(3, 2, 2),
        },
        "labels": np.array([9, 9, 9]),
    }
    crop = A.Crop(0, 0, 8, 8)
    result = run(albumentations_map(boxed(crop)), element)
    np.testing.assert_array_equal(result["images"], image[:, :8])
    group = result["bounding_boxes"]
    np.testing.assert_array_equal(group["boxes"], [[1, 2, 5, 6], [7, 0, 8, 8]])
    assert group["labels"].dtype == tf.uint8 and group["labels"].numpy().tolist() == [5, 7]
    assert group["names"].numpy().tolist() == [b"a", b"c"]
    np.testing.assert_array_equal(group["corners"], element["bounding_boxes"]["corners"][[0, 2]])
    np.testing.assert_array_equal(result["labels"], [9, 9, 9])

    seen = run(albumentations_map(boxed(crop, min_visibility=0.3)), element)
    assert seen["bounding_boxes"]["labels"].numpy().tolist() == [5]
    large = run(albumentations_map(boxed(crop, min_area=20)), element)
    group = large["bounding_boxes"]
    assert [group[name].shape[0] for name in ("boxes", "labels", "names", "corners")] == [0] * 4
    assert group["boxes"].shape == (0, 4) and group["boxes"].dtype == tf.float32


def test_entries_of_another_length_beside_the_boxes_stay():
    target = {"boxes": CROPPED, "labels": np.arange(3), "orig_size": np.array([8, 16])}
    _, result = albumentations_map(boxed(A.Crop(0, 0, 8, 8)))((make_image(8, 16, 1), target))
    np.testing.assert_array_equal(result["labels"], [0, 2])
    np.testing.assert_array_equal(result["orig_size"], [8, 16])


def test_ragged_entries_follow_their_boxes():
    polygons = tf.ragged.constant([[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]])
    element = (make_image(8, 16, 1), {"boxes": CROPPED, "polygons": polygons})
    dataset = tf.data.Dataset.from_tensors(element).map(
        albumentations_map(boxed(A.Crop(0, 0, 8, 8)))
    )
    ((_, target),) = dataset
    assert target["polygons"].to_list() == [[1.0, 2.0], [4.0, 5.0, 6.0]]


def test_rows_that_are_no_box_are_removed():
    nan, inf = np.nan, np.inf
    rows = [
        [nan] * 4,
        [2, 1, 6, 5],
        [-1] * 4,
        [0] * 4,
        [-inf, 0, inf, 5],
        [3, 3, 3, 5],
        [20, 0, 30, 5],
    ]
    element = (make_image(8, 16, 1), {"boxes": np.array(rows, np.float32), "labels": np.arange(7)})
    _, target = map_one(albumentations_map(FLIP), element)
    np.testing.assert_array_equal(target["boxes"], [[10, 1, 14, 5]])
    assert target["labels"].numpy().tolist() == [1]
    # -1 is padding in formats of width and height too.
    for box_format in ("xywh", "center_xywh", "center_yxhw", "rel_xywh", "rel_yxyx"):
        function = albumentations_map(FLIP, bounding_box_format=box_format)
        padding = (make_image(8, 16, 1), {"boxes": np.full([5, 4], -1, np.float32)})
        assert function(padding)[1]["boxes"].shape == (0, 4)


def test_a_box_partly_outside_is_for_the_pipeline_to_clip():
    element = (make_image(8, 16, 1), {"boxes": np.array([[12, 2, 18, 6]], np.float32)})
    with pytest.raises(ValueError, match=r"x_max.* to be in the range"):
        albumentations_map(FLIP)(element)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"x_max.* to be in the range"):
        map_one(albumentations_map(FLIP), element)
    _, target = albumentations_map(boxed(A.HorizontalFlip(p=1), clip=True))(element)
    np.testing.assert_array_equal(target["boxes"], [[0, 2, 4, 6]])


@pytest.mark.parametrize("layout", OPTIONS["layout"])
@pytest.mark.parametrize("count", [0, 1])
def test_every_layout_keeps_its_structure(layout, count):
    element = make_element(Case(layout, "single", channels=3, count=count))
    flip = albumentations_map(
        boxed(A.VerticalFlip(p=1), label_fields=["label"][: layout == "tfds"])
    )
    for result in (flip(element), map_one(flip, element)):
        tf.nest.assert_same_structure(result, element)
        np.testing.assert_array_equal(get_image(result), np.flip(get_image(element), axis=0))


def test_without_boxes_no_bbox_params_are_needed():
    image = make_image(8, 16, 1)
    flip = albumentations_map(A.Compose([A.VerticalFlip(p=1)]))
    np.testing.assert_array_equal(map_one(flip, (image, 3))[0], image[::-1])


@pytest.mark.parametrize("dtype", WHITE)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_keep_dtype_and_channels(dtype, channels):
    image = make_image(8, 16, channels, dtype=dtype)
    turned = map_one(albumentations_map(A.Compose([A.Transpose(p=1)])), image)
    assert turned.dtype == dtype
    np.testing.assert_array_equal(turned, image.transpose(1, 0, 2))


def test_images_of_16_bits_go_through_transforms_that_take_floats():
    image = np.arange(2**16, dtype=np.uint16).reshape(256, 256, 1)
    same = albumentations_map(A.Compose([A.NoOp(p=1)]))
    np.testing.assert_array_equal(same(image), image)
    half = np.full_like(image, 2**15)
    for change in (A.GaussNoise(p=1), A.RandomGamma(p=1), A.CLAHE(p=1)):
        changed = albumentations_map(A.Compose([change]), seed=1)(half).numpy()
        assert changed.dtype == np.uint16 and (changed != half).any()
        assert 0.1 < changed.mean() / half.mean() < 1.9


def test_static_shapes_are_what_is_known():
    element = {"image": make_image(8, 16, 1), "bbox": np.zeros([3, 4], np.float32)}
    element["label"] = np.arange(3)
    dataset = tf.data.Dataset.from_tensors(element)

    def shapes(*transforms):
        spec = dataset.map(albumentations_map(boxed(*transforms))).element_spec
        assert spec["image"].dtype == tf.uint8 and spec["bbox"].dtype == tf.float32
        assert spec["bbox"].shape.as_list() == [None, 4]
        assert spec["label"].shape.as_list() == [None]
        return spec["image"].shape.as_list()

    flips = A.OneOf([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)])
    assert shapes(flips, A.GaussNoise(p=1)) == [8, 16, 1]
    assert shapes(flips, A.RandomRotate90(p=1)) == [None, None, 1]


def test_transforms_that_look_at_labels_see_the_element_s():
    element = {
        "image": np.full([8, 16, 1], 200, np.uint8),
        "objects": {
            "bbox": np.array([[0, 0, 0.5, 0.25], [0.5, 0.5, 1, 1]], np.float32),
            "label": np.array([4, 2]),
            "name": np.array(["cyst", "stone"]),
        },
    }
    for field, wanted in (("label", 2), ("name", "stone")):
        hole = A.ConstrainedCoarseDropout((1, 1), (1, 1), (1, 1), bbox_labels=[wanted], p=1)
        function = albumentations_map(boxed(hole, label_fields=[field]))
        image = map_one(function, element)["image"].numpy()
        expected = element["image"].copy()
        expected[4:, 8:] = 0
        np.testing.assert_array_equal(image, expected)


def random_pipeline(**settings: object) -> A.Compose:
    transforms = [
        A.HorizontalFlip(p=0.5),
        A.VerticalFlip(p=0.5),
        A.RandomCrop(12, 12, p=0.5),
        A.OneOf([A.RandomBrightnessContrast(p=1), A.GaussNoise(p=1)], p=0.7),
    ]
    return A.Compose(transforms, bbox_params=A.BboxParams("coco", min_area=4), **settings)


def make_elements(*, with_id: bool) -> tf.data.Dataset:
    rng = np.random.default_rng(0)
    start = rng.random((24, 5, 2)) * 0.6
    elements = {
        "image": rng.integers(0, 256, (24, 16, 20, 1)).astype(np.uint8),
        "objects": {
            "bbox": np.concatenate([start, start + 0.3], -1).astype(np.float32),
            "label": np.arange(24 * 5).reshape(24, 5),
        },
        "number": np.arange(24),
    }
    if with_id:
        elements["image/source_id"] = np.array([f"scan {number}" for number in range(24)])
    return tf.data.Dataset.from_tensor_slices(elements)


def collect(dataset) -> dict[int, bytes]:
    return {
        int(element["number"]): b"|".join(
            np.asarray(part).tobytes()
            for part in (element["image"], *element["objects"].values(), element["image"].shape)
        )
        for element in dataset
    }


@pytest.mark.parametrize("with_id", [False, True])
def test_a_seed_fixes_every_byte_whatever_the_parallel_calls_and_the_order(with_id):
    source = make_elements(with_id=with_id)
    function = albumentations_map(random_pipeline(), seed=3)
    expected = collect(map(function, source))  # eagerly
    assert len(set(expected.values())) == 24
    for parallel in (1, 2, 8):
        assert collect(source.map(function, num_parallel_calls=parallel)) == expected
    shuffled = source.shuffle(24, seed=1).map(
        albumentations_map(random_pipeline(seed=9), seed=3),
        num_parallel_calls=8,
        deterministic=False,
    )
    assert list(collect(shuffled)) != list(expected)
    assert collect(shuffled) == expected
    other = collect(source.map(albumentations_map(random_pipeline(), seed=4)))
    assert sum(other[number] != expected[number] for number in expected) > 12


class Dawdle(A.ImageOnlyTransform):
    """Draws, lets others draw, and draws again."""

    def apply(self, img: np.ndarray, **_: object) -> np.ndarray:
        first = self.random_generator.integers(256)
        time.sleep(0.005)
        second = self.py_random.randrange(256)
        return np.full_like(img, first) ^ np.uint8(second)


def test_calls_in_parallel_share_no_state():
    function = albumentations_map(boxed(Dawdle(p=1), A.HorizontalFlip(p=0.5)), seed=1)
    source = make_elements(with_id=True)
    expected = collect(source.map(function))
    assert collect(source.map(function, num_parallel_calls=8)) == expected


def test_an_iterator_resumes_with_a_seed(tmp_path):
    dataset = make_elements(with_id=True).map(
        albumentations_map(random_pipeline(), seed=3), num_parallel_calls=2
    )
    expected = collect(dataset)
    iterator = iter(dataset)
    first = collect(next(iterator) for _ in range(10))
    path = tf.train.Checkpoint(iterator=iterator).save(tmp_path / "state")
    resumed = iter(dataset)
    tf.train.Checkpoint(iterator=resumed).restore(path)
    rest = collect(resumed)
    assert len(rest) == 14 and {**first, **rest} == expected


def test_the_epoch_of_an_element_is_drawn_from():
    function = albumentations_map(random_pipeline(), seed=3)
    runs = []
    for epoch in (0, 1, 1):
        source = make_elements(with_id=True).map(lambda x, epoch=epoch: {**x, "epoch": epoch})
        runs.append(collect(source.map(function)))
    assert runs[1] == runs[2]
    assert sum(runs[0][number] != runs[1][number] for number in runs[0]) > 12
    assert runs[0] == collect(make_elements(with_id=True).map(function))


def test_without_a_seed_every_pass_is_fresh():
    dataset = make_elements(with_id=True).map(albumentations_map(random_pipeline()))
    first, second = collect(dataset), collect(dataset)
    assert sum(first[number] != second[number] for number in first) > 12


def test_transforms_draw_independently_of_each_other():
    # With A.Compose(seed=...) two flips of p=0.5 happen both or not at all.
    function = albumentations_map(boxed(A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)), seed=0)
    image = make_image(2, 2, 1)
    corner = collections.Counter(
        int(function({"image": image, "id": str(number)})["image"][0, 0, 0])
        for number in range(200)
    )
    # 50 of each on average, with a standard deviation of 6.
    assert sorted(corner) == sorted(image.ravel().tolist())
    assert min(corner.values()) > 25


@pytest.mark.slow
def test_a_vae_in_the_pipeline_runs_in_parallel_too():
    pipeline = A.Compose(
        [VAETransform(FakeVAE(), p=0.7), A.HorizontalFlip(p=0.5)],
        bbox_params=A.BboxParams("pascal_voc"),
    )
    function = albumentations_map(pipeline, seed=1)
    source = make_elements(with_id=True)
    expected = collect(map(function, source))
    for parallel in (1, 2, 8):
        assert collect(source.map(function, num_parallel_calls=parallel)) == expected


def test_it_follows_vae_augment_in_a_dataset():
    source = make_elements(with_id=True)
    varied = source.apply(VAEAugment(FakeVAE(), seed=1))
    both = varied.map(albumentations_map(random_pipeline(), seed=1), num_parallel_calls=2)
    alone = source.map(albumentations_map(random_pipeline(), seed=1))
    for one, other in zip(both, alone, strict=True):
        # The VAE changes pixels alone, and the source id makes the geometry the same.
        tf.nest.map_structure(np.testing.assert_array_equal, one["objects"], other["objects"])
        assert one["image"].shape == other["image"].shape
        assert (one["image"].numpy() != other["image"].numpy()).any()


def test_neither_the_pipeline_nor_the_memory_of_a_dataset_is_written_to():
    def blacken(image: np.ndarray, **_: object) -> np.ndarray:
        image[:] = 0
        return image

    blackens = A.Lambda(name="blacken", image=blacken, p=1)
    pipeline = boxed(blackens, A.HorizontalFlip(p=1), label_fields=["label"])
    before = str(pipeline)
    dataset = make_elements(with_id=False).cache()
    originals = collect(dataset)
    for element in dataset.map(albumentations_map(pipeline, seed=1)):
        assert not element["image"].numpy().any()
    assert collect(dataset) == originals
    assert str(pipeline) == before


def test_a_pipeline_that_is_not_always_run_keeps_boxes_and_labels():
    never = A.Compose([A.HorizontalFlip(p=1)], bbox_params=A.BboxParams("coco"), p=0)
    for element in make_elements(with_id=False).take(2):
        result = albumentations_map(never)(element)
        tf.nest.map_structure(np.testing.assert_array_equal, result, element)


def test_strict_pipelines_take_the_elements():
    strict = A.Compose([A.HorizontalFlip(p=1)], bbox_params=A.BboxParams("coco"), strict=True)
    before, after = FLIPPED["rel_yxyx"]
    element = {"image": make_image(8, 16, 1), "bbox": np.array([before])}
    np.testing.assert_array_equal(albumentations_map(strict)(element)["bbox"], [after])


def test_what_is_no_pipeline_is_refused():
    with pytest.raises(TypeError, match=r"must be an A\.Compose; got HorizontalFlip"):
        albumentations_map(A.HorizontalFlip())
    with pytest.raises(ValueError, match=r"bounding_box_format must be one of .*got 'coco'"):
        albumentations_map(FLIP, bounding_box_format="coco")
    with pytest.raises(ValueError, match=r"albumentations_map\(compose, seed=5\)"):
        albumentations_map(random_pipeline(seed=5))


@pytest.mark.parametrize("run", [lambda function, element: function(element), map_one])
def test_elements_that_it_cannot_take_are_refused(run):
    image, boxes = make_image(8, 16, 1), np.array([[2, 1, 6, 5]], np.float32)
    with pytest.raises(ValueError, match="one example at a time; received a batch"):
        run(albumentations_map(FLIP), image[None])
    with pytest.raises(
        ValueError, match=r"boxes at \[1, 'boxes'\], but compose has no bbox_params"
    ):
        run(albumentations_map(A.Compose([A.HorizontalFlip()])), (image, {"boxes": boxes}))
    with pytest.raises(TypeError, match="uint8, uint16, float32; got float16"):
        run(albumentations_map(FLIP), image.astype(np.float16))
    named = albumentations_map(boxed(A.HorizontalFlip(), label_fields=["classes"]))
    with pytest.raises(ValueError, match=r"label_fields \['classes'\], but .* are \['labels'\]"):
        run(named, (image, {"boxes": boxes, "labels": np.array([1])}))
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="beside boxes, must have one row per box"
    ):
        run(albumentations_map(FLIP), {"image": image, "objects": {"bbox": boxes, "label": [1, 2]}})


@pytest.mark.parametrize(
    ("change", "made"),
    [
        (A.Normalize((0.5,), (0.5,)), "float32 with 1 channels"),
        (A.ToRGB(), "uint8 with 3 channels"),
    ],
)
def test_a_pipeline_that_makes_another_kind_of_image_is_refused(change, made):
    change.p = 1
    function = albumentations_map(A.Compose([change]))
    message = f"compose made {made} of an image of uint8 with 1 channels"
    with pytest.raises(ValueError, match=message):
        function(make_image(8, 16, 1))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        map_one(function, make_image(8, 16, 1))


def test_the_guide_runs_as_printed(tmp_path, monkeypatch, loaded):
    guide = (ROOT / "docs" / "albumentations.md").read_text(encoding="utf-8")
    scripts = re.findall(r"```python\n(.+?)```", guide, re.DOTALL)
    boxes = np.array([[0.25, 0.125, 0.75, 0.5]], np.float32)
    examples = [
        make_example(
            make_image(48, 40, 1),
            source_id=str(count),
            boxes=np.repeat(boxes, count, 0),
            labels=[0] * count,
            label_names=("lesion",),
        )
        for count in (0, 1, 3)
    ]
    write_records(examples, tmp_path / "records", "train", label_names=("lesion",))
    monkeypatch.chdir(tmp_path)
    names: dict = {"image": make_image(48, 40), "boxes": [[5, 12, 20, 36]], "labels": ["lesion"]}
    epochs = []
    for script in scripts:
        exec(script, names)
        for element in names["train"]:
            objects = element["objects"]
            assert objects["bbox"].shape == (len(objects["label"]), 4)
            epochs.append(int(element.get("epoch", -1)))
    # Of three elements: not numbered, then in two passes over the same dataset.
    assert epochs == [-1] * 3 + [0] * 3 + [1] * 3
    assert loaded == ["demo"] * 3
    assert names["result"]["labels"] == ["lesion"]
