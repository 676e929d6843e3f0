"""What all tests share."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# One cache for all processes of a run, and never the user's: what one traced the others read.
if "PYTEST_XDIST_WORKER" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="vae-aug-cache-")
    os.environ["XDG_CACHE_HOME"] = CACHE.name

# Rich asks for the width when the commands are loaded, which any test may be the first to do.
os.environ["COLUMNS"] = "200"

import keras
import numpy as np
import pytest
import tensorflow as tf

from vae_aug.config import ModelConfig
from vae_aug.model import encoder, lite1
from vae_aug.model.checkpoint import save_checkpoint
from vae_aug.model.ladder import LadderVAE
from vae_aug.model.vae import VAE
from vae_aug.phantoms.embedded import read_embedded
from vae_aug.records.records import make_example, write_records
from vae_aug.train import train

ROOT = Path(__file__).resolve().parent.parent


LONGEST = (
    "test_train.py",
    "test_ingest.py",
    "test_devices.py",
    "test_denoise_files.py",
    "test_graphs.py",
    "test_albumentations.py",
    "test_cli.py",
    "test_checkpoint.py",
    "test_reproducibility.py",
    "test_openvino.py",
    "test_cache.py",
    "med_vae_augmented_dataset_builder_test.py",
    "test_readme.py",
    "test_augment_split.py",
    "test_keras.py",
    "test_service.py",
    "test_replay.py",
    "test_layouts.py",
    "test_transform.py",
    "test_engine.py",
    "test_benchmark_throughput.py",
    "test_dataset.py",
    "test_audit.py",
    "test_grain.py",
    "test_shutdown.py",
    "test_augment_records.py",
    "test_vae.py",
    "test_encoder.py",
    "test_cli_examples.py",
    "test_page_in_browser.py",
    "test_report_in_browser.py",
)
"""Files whose tests take half a minute together, the longest first."""


# Graphs are many small objects in cycles: by Python's thresholds a twentieth of the time goes into
# looking through all of them again and again.
gc.freeze()
gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that none is left to one process at the end."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets, `$VAE_AUG_DATA` or `../shared/data`; skips without one."""
    folder = Path(os.environ.get("VAE_AUG_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder; set VAE_AUG_DATA to one")
    return folder


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """What the package logs, whatever other libraries did to the root logger."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("vae_aug")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def short_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make EfficientNet-Lite1 one block a stage, so that a graph is traced in seconds."""
    shorten_stages(monkeypatch)


def shorten_stages(patch: pytest.MonkeyPatch) -> None:
    """Do what the fixture `short_stages` does, for as long as a patch of one's own lasts."""
    short = tuple(dataclasses.replace(stage, repeats=1) for stage in lite1.STAGES)
    patch.setattr(lite1, "STAGES", short)
    patch.setitem(encoder.STAGES, "efficientnet-lite1", short)


def stand_still(patch: pytest.MonkeyPatch) -> None:
    """Make the steps of a training change nothing: their graph takes most of a short run's time."""

    def make_train_step(state: object, config: object) -> Callable[..., dict[str, float]]:
        return lambda noisy, clean, weights, step: {"loss": 1.0, "kl": 2.0, "psnr": 20.0}

    patch.setattr(train, "make_train_step", make_train_step)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch, short_stages: None) -> None:
    """Do what `stand_still` does, on networks of short stages."""
    stand_still(monkeypatch)


@pytest.fixture(scope="session")
def tiny_vae() -> VAE:
    """A small untrained network whose signals neither vanish nor explode; do not change it."""
    return make_tiny_vae()


@pytest.fixture(scope="session")
def short_vae() -> VAE:
    """As `tiny_vae`, of short stages, which is traced in a third of the time; do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        shorten_stages(patch)
        return make_tiny_vae()


def make_tiny_vae() -> VAE:
    """Make an untrained network and set the statistics of its batch normalisation."""
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


@pytest.fixture(scope="session")
def blank_vae(short_vae: VAE) -> VAE:
    """A network like `short_vae` with other weights, for weights to be loaded into."""
    with pytest.MonkeyPatch.context() as patch:
        shorten_stages(patch)
        return VAE(short_vae.config)


@pytest.fixture(scope="session")
def saved(short_vae: VAE, tmp_path_factory: pytest.TempPathFactory) -> tuple[VAE, Path, str]:
    """`short_vae`, the folder that it was saved in, and the digest."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    fingerprint = {"patients": ["ab12"]}
    digest = save_checkpoint(
        short_vae, folder, training={"steps": 3}, fingerprint=fingerprint, card="# Card\n"
    )
    return short_vae, folder, digest


@pytest.fixture
def saved_copy(saved: tuple[VAE, Path, str], tmp_path: Path) -> Path:
    """A copy of the saved folder, which a test may damage."""
    return shutil.copytree(saved[1], tmp_path / "copy")


@pytest.fixture(scope="module")
def checkpoint(short_vae: VAE, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of `short_vae`, which is loaded with short stages as long as the module lasts."""
    path = tmp_path_factory.mktemp("checkpoint") / "short.keras"
    save_checkpoint(short_vae, path)
    with pytest.MonkeyPatch.context() as patch:
        shorten_stages(patch)
        yield path


@pytest.fixture
def config_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's settings, empty: no test may touch the real one."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("VAE_AUG_SALT", raising=False)
    return tmp_path / "config"


def write_phantoms(folder: Path, **counts: int) -> Path:
    """Write records of phantoms of 32 x 32 pixels, so many for each split."""
    for split, count in counts.items():
        examples = [
            make_example(
                item.image,
                source_id=item.source_id,
                boxes=item.boxes,
                labels=[0] * len(item.labels),
                label_names=("lesion",),
                patient=f"hash-{item.patient}",
            )
            for item in read_embedded(split, count=count, size=32, real=False)
        ]
        write_records(examples, folder, split, 1, label_names=("lesion",))
    return folder


@pytest.fixture(scope="session")
def tiny_ladder() -> LadderVAE:
    """A small untrained ladder of short stages that draws different samples; do not change it."""
    config = ModelConfig(
        profile="ladder",
        encoder="efficientnet-lite1",
        image_size=32,
        latent_dim=14,
    )
    keras.utils.set_random_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        shorten_stages(patch)
        vae = LadderVAE(config)
    rng = np.random.default_rng(1)
    for variable in vae.trainable_variables:
        # A new ladder's last layers are 0, and its output with them.
        if variable.path.endswith("kernel") and not np.any(variable):
            scale = 0.3 / np.sqrt(np.prod(variable.shape[:-1]))
            variable.assign(rng.normal(0, scale, variable.shape))
    return vae


@pytest.fixture(scope="session")
def varied_ladder(tiny_ladder) -> LadderVAE:
    """The small ladder with an untrained, strong network of transformations; do not change it."""
    keras.utils.set_random_seed(2)
    with pytest.MonkeyPatch.context() as patch:
        shorten_stages(patch)
        vae = LadderVAE(dataclasses.replace(tiny_ladder.config, variation=True))
    for variable, value in zip(vae.variables, tiny_ladder.get_weights(), strict=False):
        if "variation" not in variable.path and variable.shape == value.shape:
            variable.assign(value)
    for layer in (vae.variation.displacement, vae.variation.slopes, vae.variation.tone):
        layer.kernel.assign(100.0 * layer.kernel)
    return vae
