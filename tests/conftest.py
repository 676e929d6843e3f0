"""What all tests share."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from vae_aug.config import ModelConfig
from vae_aug.model import encoder, lite1
from vae_aug.model.vae import VAE

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets, `$VAE_AUG_DATA` or `../shared/data`; skips without one."""
    folder = Path(os.environ.get("VAE_AUG_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder; set VAE_AUG_DATA to one")
    return folder


@pytest.fixture
def short_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make EfficientNet-Lite1 one block a stage, so that a graph is traced in seconds."""
    short = tuple(dataclasses.replace(stage, repeats=1) for stage in lite1.STAGES)
    monkeypatch.setattr(lite1, "STAGES", short)
    monkeypatch.setitem(encoder.STAGES, "efficientnet-lite1", short)


@pytest.fixture(scope="session")
def tiny_vae() -> VAE:
    """A small untrained network whose signals neither vanish nor explode; do not change it."""
    keras.utils.set_random_seed(1)
    vae = VAE(ModelConfig(encoder="efficientnet-lite1", image_size=32, latent_dim=16))
    norms = [
        layer
        for part in (vae.backbone, vae.decoder)
        for layer in part.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # one batch then sets the statistics
    images = tf.random.stateless_uniform([16, 32, 32, 1], [1, 1])
    vae.decode(vae.encode(images, training=True)[0], training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return vae
