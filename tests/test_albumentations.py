"""The Albumentations transform against `corrupt_image`, through Albumentations' own machinery."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import sys

import numpy as np
import pytest
import tensorflow as tf

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # the import would ask PyPI

import albumentations as A

from vae_aug.augment.albumentations import Corruption
from vae_aug.corrupt import CORRUPTIONS, corrupt_image
from vae_aug.errors import MissingPackageError

MODULE = "vae_aug.augment.albumentations"
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
