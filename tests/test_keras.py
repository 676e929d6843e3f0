"""The layer: where Keras's own go, the bytes of `VAEAugment`, and nothing lost on the way."""

from __future__ import annotations

import pickle
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from fake_vae import BrighteningVAE, FakeVAE

from vae_aug import VAEAugment
from vae_aug.engines.engine import TensorFlowEngine
from vae_aug.errors import CheckpointError, EngineError
from vae_aug.keras import VAEAugmentation
from vae_aug.model.checkpoint import save_checkpoint

BOXES = np.array([[[2.1, 3.3, 12.7, 17.2], [-1, -1, -1, -1]]] * 4, np.float32)


@pytest.fixture(autouse=True)
def restore_names():
    """Names of layers count on; a test that loads a model must not depend on those before it."""
    keras.backend.clear_session()


@pytest.fixture(scope="module")
def layer(checkpoint):
    return VAEAugmentation(checkpoint, seed=3, guard="off")


@pytest.fixture(scope="module")
def augment(checkpoint):
    return VAEAugment(checkpoint, seed=3, guard="off")


def make_images(count=4, dtype=np.uint8):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 24, 20, 1))
    return pixels.astype(dtype)


def make_batch():
    return {
        "images": tf.constant(make_images()),
        "bounding_boxes": {
            "boxes": tf.constant(BOXES),
            "labels": tf.constant([[1, -1]] * 4, tf.int64),
        },
        "labels": tf.constant([0.25, 0.5, 0.75, 1.0], tf.float64),
        "segmentation_masks": tf.constant(make_images() > 99),
        "image/source_id": tf.constant(["a", "b", "c", "d"]),
    }


def assert_same(found, expected):
    tf.nest.assert_same_structure(found, expected)
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_it_gives_the_bytes_of_the_transform_wherever_it_is_called(layer, augment):
    images = make_images()
    expected = augment(images).numpy()
    assert np.any(expected != images)
    inputs = keras.Input((24, 20, 1), dtype="uint8")
    dataset = tf.data.Dataset.from_tensor_slices(images)
    found = {
        "numpy": layer(images),
        "tensor": layer(tf.constant(images), training=True),
        "single": tf.stack([layer(image) for image in images]),
        "pipeline": keras.layers.Pipeline([layer])(tf.constant(images)),
        "sequential": keras.Sequential([inputs, layer])(images, training=True),
        "functional": keras.Model(inputs, layer(inputs))(images, training=True),
        "map": np.stack([*dataset.map(layer)]),
        "batched map": next(iter(dataset.batch(4).map(layer, num_parallel_calls=2))),
        "pipeline in map": np.stack([*dataset.map(keras.layers.Pipeline([layer]))]),
    }
    for way, output in found.items():
        np.testing.assert_array_equal(output, expected, way)
        assert np.asarray(output).dtype == np.uint8, way


def test_everything_but_the_images_passes_bit_for_bit(checkpoint):
    layer = VAEAugmentation(checkpoint, bounding_box_format="xyxy")
    batch = make_batch()
    given = dict(batch)
    for output in (layer(batch), next(iter(tf.data.Dataset.from_tensors(batch).map(layer)))):
        assert np.any(output["images"] != batch["images"])
        assert_same(*({k: v for k, v in part.items() if k != "images"} for part in (output, given)))
    assert all(batch[name] is given[name] for name in given)  # the caller's dict is untouched


def test_elements_of_a_batch_give_the_bytes_of_the_batch(layer):
    batch = make_batch()
    expected = layer(batch)
    dataset = tf.data.Dataset.from_tensor_slices(batch).map(layer)
    assert_same(next(iter(dataset.batch(4))), expected)
    for key in ("labels", "segmentation_masks"):
        batch.pop(key)
    pair = (batch["images"], batch["bounding_boxes"])
    dataset = tf.data.Dataset.from_tensors(pair)
    assert_same(next(iter(dataset.map(layer))), layer(pair))
    np.testing.assert_array_equal(layer(pair)[1]["boxes"], BOXES)


@pytest.mark.parametrize(
    ("settings", "at_inference"),
    [
        ({"mode": "sample"}, False),
        ({"mode": "interpolate"}, False),
        ({"mode": "denoise"}, True),
        ({"mode": "denoise", "p": 0.999}, False),
    ],
)
def test_what_runs_at_inference(settings, at_inference):
    layer = VAEAugmentation(FakeVAE(), guard="off", **settings)
    images = make_images()
    inputs = keras.Input((24, 20, 1), dtype="uint8")
    model = keras.Model(inputs, layer(inputs))
    for output in (
        layer(images, training=False),
        model(images, training=False),
        model.predict(images, verbose=0),
    ):
        assert np.any(output != images) == at_inference
    for output in (layer(images), layer(images, training=True), model(images, training=True)):
        assert np.any(output != images)


def test_training_that_is_not_said_means_what_it_means_to_a_random_layer_of_keras():
    class Model(keras.Model):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def call(self, x, training=None):
            return self.layer(x)

    images = make_images(dtype=np.float32)
    pair = (
        VAEAugmentation(FakeVAE(), guard="off"),
        keras.layers.RandomBrightness((0.5, 0.6)),
    )
    for options in ({}, {"training": None}, {"training": True}, {"training": False}):
        for calls in (pair, tuple(map(Model, pair))):
            ours, theirs = (np.any(call(images, **options) != images) for call in calls)
            assert ours == theirs, (calls, options)


def test_fit_varies_and_evaluate_does_not():
    layer = VAEAugmentation(BrighteningVAE(), guard="off")
    inputs = keras.Input((24, 20, 1), dtype="float32")
    pooled = keras.layers.GlobalAveragePooling2D()(layer(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(pooled))
    model.compile(keras.optimizers.SGD(0.0), lambda truth, found: keras.ops.mean(found))
    images = np.full((4, 24, 20, 1), 0.25, np.float32)
    seen = model.fit(images, images[:, 0, 0], verbose=0).history["loss"]
    assert seen == [pytest.approx(0.5)]
    assert model.evaluate(images, images[:, 0, 0], verbose=0) == pytest.approx(0.25)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_images_keep_their_dtype_under_any_policy(dtype, policy):
    layer = VAEAugmentation(FakeVAE(), seed=1, guard="off", value_range=(0, 255), dtype=policy)
    images = make_images(dtype=dtype)
    expected = VAEAugment(FakeVAE(), seed=1, guard="off", value_range=(0, 255))(images)
    assert_same(layer(images), expected)
    assert layer.compute_output_spec(keras.KerasTensor((4, 24, 20, 1), dtype)).dtype == dtype
    assert_same(layer(images, training=False), tf.constant(images))


# It fits a model of the layer alone on a generator, which `fit` does not shuffle.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
@pytest.mark.filterwarnings("ignore:The model does not have any trainable:UserWarning")
def test_keras_s_own_test_of_layers(checkpoint):
    module = pytest.importorskip("keras.src.testing")
    case = module.TestCase()
    case.run_layer_test(
        VAEAugmentation,
        {"ckpt": str(checkpoint), "factor": (0.5, 1.0), "value_range": (0, 3)},
        input_shape=(2, 24, 20, 3),
        expected_output_shape=(2, 24, 20, 3),
        expected_output_dtype="float32",
        expected_num_trainable_weights=0,
        expected_num_non_trainable_weights=0,
        supports_masking=True,
    )


def test_the_example_of_the_documentation_runs(checkpoint):
    text = (ROOT / "docs" / "keras.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    exec(code.replace('"demo"', repr(str(checkpoint))), names)
    [found] = names["dataset"].take(1)
    assert found["images"].shape == (2, 64, 64, 1)


# Factors.


class ShareEngine(TensorFlowEngine):
    """Every image gets the share 0.4 of the factor."""

    def _sample_shares(self, seeds):
        return tf.fill([tf.shape(seeds)[0]], 0.4)


@pytest.mark.parametrize(
    ("network", "mode"),
    [
        ("short_vae", "sample"),
        pytest.param("short_vae", "interpolate", marks=pytest.mark.slow),
        pytest.param("tiny_ladder", "sample", marks=pytest.mark.slow),
        pytest.param("tiny_ladder", "interpolate", marks=pytest.mark.slow),
        ("varied_ladder", "sample"),
        pytest.param("varied_ladder", "interpolate", marks=pytest.mark.slow),
    ],
)
def test_a_share_of_a_factor_is_what_that_factor_gives(network, mode, request):
    vae = request.getfixturevalue(network)
    config, ranged, weaker = (
        VAEAugment(FakeVAE(), mode=mode, seed=1, **settings).config
        for settings in ({}, {"weakest": 0.1}, {"factor": 0.4})
    )
    engine = ShareEngine(vae, ranged)
    size = engine.image_size or 32
    images = tf.random.stateless_uniform([2, size, size, 1], [1, 1])
    seeds = tf.constant([[1, 2], [3, 4]])
    expected = TensorFlowEngine(vae, weaker)(images, seeds)
    whole = TensorFlowEngine(vae, config)(images, seeds)
    found = engine(images, seeds)
    assert np.abs(found - whole).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_range_gives_each_example_a_strength_of_its_own_in_it():
    images = np.full((64, 32, 32, 1), 0.4, np.float32)
    settings = {"factor": (0.25, 1.0), "guard": "off", "value_range": (0, 1)}
    layer = VAEAugmentation(FakeVAE(), seed=1, **settings)
    batch = {"images": images, "id": np.arange(64)}
    found = layer(batch)["images"]
    # The network's noise has the standard deviation 0.1, here of 1,024 pixels.
    strengths = np.std(found - images, axis=(1, 2, 3)) / 0.1
    assert 0.24 < strengths.min() < 0.35 and 0.9 < strengths.max() < 1.06
    assert abs(strengths.mean() - 0.625) < 0.1
    # It depends on the seed and the example alone.
    assert_same(layer({"images": images[5:6], "id": np.arange(5, 6)})["images"], found[5:6])
    other = VAEAugmentation(FakeVAE(), seed=2, **settings)
    assert np.any(other(batch)["images"] != found)


def test_a_range_of_one_number_is_that_number():
    layer = VAEAugmentation(FakeVAE(), factor=[0.5, 0.5], seed=1)
    assert layer.factor == 0.5
    expected = VAEAugment(FakeVAE(), factor=0.5, seed=1)(make_images())
    assert_same(layer(make_images()), expected)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"factor": (1.0, 0.5)}, ValueError, r"factor\[0\] must be in \[0, 0.5\]"),
        ({"factor": (-1, 0.5)}, ValueError, r"factor\[0\] must be"),
        ({"factor": (1, 2, 3)}, TypeError, "number or a pair"),
        ({"factor": "1"}, TypeError, "factor must be a number"),
        ({"factor": (0.5, 1), "mode": "denoise"}, ValueError, r"one number.*pass factor=1"),
        ({"data_format": "channels_first"}, ValueError, "'channels_last'.*Permute"),
        ({"bounding_box_format": "coco"}, ValueError, "'xywh' here"),
        ({"modes": "sample"}, ValueError, "modes"),
    ],
)
def test_mistakes_are_found_when_it_is_made(settings, error, message):
    with pytest.raises(error, match=message):
        VAEAugmentation(FakeVAE(), **settings)


def test_mistakes_in_a_model_are_found_when_it_is_built():
    layer = VAEAugmentation(FakeVAE())
    with pytest.raises(ValueError, match="1 or 3 channels"):
        layer(keras.Input((24, 20, 2)))
    with pytest.raises(TypeError, match="Cast it before"):
        layer(keras.Input((24, 20, 1), dtype="int32"))


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(EngineError, match="KERAS_BACKEND=tensorflow"):
        VAEAugmentation("demo")


# Saving.


def make_model(layer):
    inputs = {
        "images": keras.Input((24, 20, 1), dtype="uint8", name="images"),
        "bounding_boxes": {
            "boxes": keras.Input((None, 4), name="boxes"),
            "labels": keras.Input((None,), dtype="int64", name="labels"),
        },
    }
    return keras.Model(inputs, layer(inputs))


def test_a_model_is_saved_and_loaded_with_it(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    layer = VAEAugmentation(
        checkpoint.name, factor=(0.5, 1.0), seed=3, value_range=(0, 255), name="vary"
    )
    model = make_model(layer)
    path = tmp_path / "m.keras"
    model.save(path)
    monkeypatch.chdir(tmp_path)  # a relative path is found from another folder
    again = keras.saving.load_model(path)
    batch = {key: make_batch()[key] for key in ("images", "bounding_boxes")}
    expected = model(batch, training=True)
    assert_same(again(batch, training=True), expected)
    assert_same(expected["bounding_boxes"], batch["bounding_boxes"])
    config = again.get_layer("vary").get_config()
    assert config == {**layer.get_config(), "ckpt": str(checkpoint)}
    assert path.stat().st_size < checkpoint.stat().st_size / 4  # no weights in it
    assert not model.weights


def test_another_checkpoint_under_the_same_name_is_refused(checkpoint, short_vae, tmp_path):
    path = tmp_path / "run.keras"
    shutil.copy(checkpoint, path)
    make_model(VAEAugmentation(path)).save(tmp_path / "m.keras")
    save_checkpoint(short_vae, path, training={"steps": 1})
    with pytest.raises(CheckpointError, match="Copy the same checkpoint"):
        keras.saving.load_model(tmp_path / "m.keras")


def test_a_checkpoint_that_is_gone_is_named(checkpoint, tmp_path):
    path = tmp_path / "run.keras"
    shutil.copy(checkpoint, path)
    config = VAEAugmentation(path).get_config()
    path.unlink()
    with pytest.raises(CheckpointError, match=r"run\.keras"):
        VAEAugmentation.from_config(config)


def test_a_layer_of_a_network_in_memory_says_why_it_cannot_be_saved(tmp_path):
    model = make_model(VAEAugmentation(FakeVAE()))
    with pytest.raises(TypeError, match="save the network"):
        model.save(tmp_path / "m.keras")


@pytest.mark.slow
def test_another_process_loads_the_model_once_the_module_is_imported(tmp_path):
    code = (
        "import keras, vae_aug.keras\n"
        "inputs = keras.Input((None, None, 1), dtype='uint8')\n"
        "if {save}:\n"
        "    layer = vae_aug.keras.VAEAugmentation('demo', seed=1)\n"
        "    keras.Model(inputs, layer(inputs)).save({path!r})\n"
        "else:\n"
        "    print(keras.saving.load_model({path!r}).layers[-1].get_config()['ckpt'])"
    )
    for save in (True, False):
        command = [sys.executable, "-c", code.format(save=save, path=str(tmp_path / "m.keras"))]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["demo"]


def test_a_transform_with_a_range_of_factors_travels_with_it(checkpoint):
    layer = VAEAugmentation(checkpoint, factor=(0.1, 0.4), seed=0)
    config = pickle.loads(pickle.dumps(layer.augment)).config
    assert (config.factor, config.weakest) == (0.4, 0.25)
