"""The encoders: shapes, weights from every source, and what is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.src.utils import file_utils

from vae_aug.config import ENCODER_STAGES
from vae_aug.errors import CheckpointError, MissingPackageError
from vae_aug.model import lite1
from vae_aug.model.encoder import (
    SKIP_STRIDES,
    STAGES,
    Stage,
    Standardize,
    freeze_stages,
    make_encoder,
)

IMAGES = np.random.default_rng(0).random((2, 64, 64, 3), dtype=np.float32)

needs_package = pytest.mark.skipif(
    importlib.util.find_spec(lite1.PACKAGE) is None,
    reason="the extra [lite1] is not installed: pip install 'vae-aug[lite1]'",
)


def make_keras_b1(weights=None) -> keras.Model:
    return keras.applications.EfficientNetB1(
        include_top=False, weights=weights, input_shape=(64, 64, 3), pooling="avg"
    )


@pytest.fixture(scope="module")
def keras_b1() -> keras.Model:
    keras.utils.set_random_seed(1)
    return make_keras_b1()


def save_b1(model: keras.Model, path: Path, mean, variance) -> Path:
    """Save a Keras B1 after giving its input layer these statistics."""
    normalization = next(la for la in model.layers if isinstance(la, keras.layers.Normalization))
    normalization.set_weights([np.array(mean), np.array(variance), np.array(0)])
    model.save_weights(path)
    return path


@pytest.fixture(scope="module")
def imagenet_file(keras_b1, tmp_path_factory) -> Path:
    """A file as Keras publishes it: standard deviations where the variances belong."""
    path = tmp_path_factory.mktemp("b1") / "b1.weights.h5"
    return save_b1(keras_b1, path, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def downloads(imagenet_file) -> Iterator[None]:
    """Let `weights="imagenet"` get the local file instead of a download."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_utils, "get_file", lambda *_, **__: str(imagenet_file))
        yield


@pytest.fixture(scope="module")
def imagenet_b1(downloads) -> keras.Model:
    """The encoder with the published weights; do not change it."""
    return make_encoder("efficientnet-b1", 64, "imagenet")


def test_stages_of_lite1():
    assert STAGES["efficientnet-lite1"] == (
        Stage(3, 16, 1, 1, 1),
        Stage(3, 24, 2, 3, 6),
        Stage(5, 40, 2, 3, 6),
        Stage(3, 80, 2, 4, 6),
        Stage(5, 112, 1, 4, 6),
        Stage(5, 192, 2, 5, 6),
        Stage(3, 320, 1, 1, 6),
    )


def test_stages_of_b1_are_those_of_keras(keras_b1):
    channels, found = 32, []
    for number in range(1, 8):
        blocks = [la for la in keras_b1.layers if la.name.startswith(f"block{number}")]
        depthwise = [la for la in blocks if la.name.endswith("_dwconv")]
        projected = [la for la in blocks if la.name.endswith("_project_conv")]
        found.append(
            Stage(
                kernel=depthwise[0].kernel_size[0],
                channels=projected[0].filters,
                stride=depthwise[0].strides[0],
                repeats=len(depthwise),
                expand=depthwise[0].input.shape[-1] // channels,
            )
        )
        channels = projected[0].filters
    assert tuple(found) == STAGES["efficientnet-b1"]


@pytest.mark.parametrize("name", STAGES)
def test_skips(name):
    encoder = make_encoder(name, None, return_skips=True)
    *skips, features = encoder(IMAGES[:, :, :32])
    assert [skip.shape for skip in skips] == [
        (2, 64 // stride, 32 // stride, channels)
        for stride, channels in zip((2, 4, 8, 16, 32), (16, 24, 40, 112, 320), strict=True)
    ]
    assert features.shape == (2, 1280)
    assert SKIP_STRIDES == (2, 4, 8, 16, 32)


@needs_package
def test_lite1_by_name_and_by_path_with_skips_at_any_size():
    expected = make_encoder("efficientnet-lite1", 64, "package")(IMAGES)
    path = lite1.find_package_weights()
    any_size = make_encoder("efficientnet-lite1", None, path, return_skips=True)
    np.testing.assert_allclose(any_size(IMAGES)[-1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_b1_imagenet_equals_keras_and_restores_into_a_model_made_without(downloads, imagenet_b1):
    expected = make_keras_b1("imagenet")(255 * IMAGES).numpy()
    # Features of a random network are tiny: compare with their own size.
    close = {"rtol": 0, "atol": 1e-4 * np.abs(expected).max()}
    np.testing.assert_allclose(imagenet_b1(IMAGES), expected, **close)

    restored = make_encoder("efficientnet-b1", None, return_skips=True)
    restored.set_weights(imagenet_b1.get_weights())
    np.testing.assert_allclose(restored(IMAGES)[-1], expected, **close)


def test_b1_file_equals_imagenet(imagenet_b1, imagenet_file):
    file = make_encoder("efficientnet-b1", 64, imagenet_file)
    for one, other in zip(file.get_weights(), imagenet_b1.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_b1_file_keeps_its_own_input_statistics(keras_b1, tmp_path):
    path = tmp_path / "own.weights.h5"
    save_b1(keras_b1, path, [0.1, 0.2, 0.3], [0.25, 0.09, 0.04])
    layer = make_encoder("efficientnet-b1", 64, path).get_layer("standardize")
    np.testing.assert_allclose(layer.mean, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(layer.std, [0.5, 0.3, 0.2])


def test_standardize():
    layer = Standardize()
    # (0.714 - 0.485) / 0.229 = 1, (0.456 - 0.456) / 0.224 = 0, (0.181 - 0.406) / 0.225 = -1
    result = layer(np.array([[[[0.714, 0.456, 0.181]]]], "float32"))
    np.testing.assert_allclose(result, [[[[1, 0, -1]]]], atol=1e-6)
    layer.trainable = True
    assert not layer.trainable_variables


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("efficientnet-b0", 64), "'efficientnet-b1', 'efficientnet-lite1'; got 'efficientnet-b0'"),
        (("efficientnet-b1", 16), "at least 32; got 16"),
        (("efficientnet-b1", 64, ""), "weights must be"),
        (("efficientnet-b1", 64, "package"), 'weights="imagenet" or a file'),
        (("efficientnet-lite1", 64, "imagenet"), 'weights="package"'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_encoder(*arguments)


@pytest.mark.parametrize("name", STAGES)
def test_missing_file(name, tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.h5"):
        make_encoder(name, 64, tmp_path / "none.h5")


def test_b1_file_of_another_network(tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(path)
    with pytest.raises(CheckpointError, match=r"other\.weights\.h5"):
        make_encoder("efficientnet-b1", 64, path)


def test_failed_download_is_no_fallback(monkeypatch):
    def refuse(**_):
        raise Exception("URL fetch failure")  # what Keras raises, bare

    monkeypatch.setattr(keras.applications, "EfficientNetB1", refuse)
    with pytest.raises(CheckpointError, match=r"URL fetch failure.*efficientnetb1_notop\.h5"):
        make_encoder("efficientnet-b1", 64, "imagenet")


def test_missing_package_is_no_fallback(monkeypatch):
    monkeypatch.setattr(lite1, "PACKAGE", "no_such_package")
    with pytest.raises(MissingPackageError, match=r"pip install 'vae-aug\[lite1\]'"):
        make_encoder("efficientnet-lite1", 64, "package")


@pytest.mark.parametrize("name", list(STAGES))
def test_frozen_stages_are_the_first_ones(name):
    network = make_encoder(name, 32)
    before = len(network.trainable_variables)
    freeze_stages(network, 0)
    assert len(network.trainable_variables) == before
    freeze_stages(network, 2)
    trained = [variable.path for variable in network.trainable_variables]
    assert trained
    assert not any("block1" in path or "block2" in path or "stem" in path for path in trained)
    assert any("block3a" in path for path in trained)
    assert len(STAGES[name]) == ENCODER_STAGES
    for count in -1, ENCODER_STAGES + 1:
        with pytest.raises(ValueError, match=rf"count must be in \[0, 7\]; got {count}"):
            freeze_stages(network, count)
    with pytest.raises(TypeError, match=r"count must be an integer; got 2\.5"):
        freeze_stages(network, 2.5)
    assert any("block7a" in path for path in trained)
