"""The README's training script runs as printed, into a KerasHub detector."""

from __future__ import annotations

import re

import numpy as np
import pytest
import typer
from conftest import ROOT
from fake_vae import FakeVAE

from vae_aug import cli
from vae_aug.augment import transform
from vae_aug.data.records import make_example, write_records

README = (ROOT / "README.md").read_text(encoding="utf-8")
# The side of the images in the README, and one that a test can afford.
PRINTED_SIZE, SIZE = 512, 64
BOX = np.array([[0.25, 0.125, 0.75, 0.5]], np.float32)


@pytest.fixture
def detector():
    """An untrained RetinaNet of two classes, as small as it can be made."""
    keras_hub = pytest.importorskip("keras_hub", reason="install vae-aug[detect]")
    encoder = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
    )
    backbone = keras_hub.models.RetinaNetBackbone(
        image_encoder=encoder,
        min_level=2,
        max_level=3,
        use_p5=False,
        image_shape=(SIZE, SIZE, 3),
    )
    detector = keras_hub.models.RetinaNetObjectDetector(
        backbone, num_classes=2, bounding_box_format="yxyx", pre_logits_num_conv_layers=1
    )
    return detector


@pytest.fixture
def records(tmp_path):
    """Images of two sizes with no box, one and three."""
    examples = [
        make_example(
            np.full((48, 40 + 8 * (count > 0), 1), 60 * count, np.uint8),
            source_id=str(count),
            boxes=np.repeat(BOX, count, axis=0),
            labels=[1] * count,
            label_names=("lesion", "stone"),
        )
        for count in (0, 1, 3)
    ]
    write_records(examples, tmp_path / "records", "train", label_names=("lesion", "stone"))


@pytest.mark.slow
# Keras 3.15 warns of its own default value.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
def test_the_training_script_runs(detector, records, tmp_path, monkeypatch):
    (script,) = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    assert script.count(str(PRINTED_SIZE)) == 3
    script = script.replace(str(PRINTED_SIZE), str(SIZE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transform, "load_checkpoint", lambda checkpoint: FakeVAE())
    losses = []
    fit = detector.fit

    def keep_losses(data):
        losses.extend(fit(data, verbose=0).history["loss"])

    monkeypatch.setattr(detector, "fit", keep_losses)
    names = {"detector": detector}
    exec(script, names)
    assert np.isfinite(losses).all() and losses[0] > 0

    ((images, target),) = names["train"]
    assert images.shape == (3, SIZE, SIZE, 3)
    counts = []
    for image, boxes, labels in zip(images, target["boxes"], target["labels"], strict=True):
        counts.append(int(np.sum(labels >= 0)))
        # Pixels, padded with -1.
        expected = np.full((3, 4), -1, np.float32)
        expected[: counts[-1]] = [[16, 8, 48, 32]]
        np.testing.assert_array_equal(boxes, expected)
        assert labels.numpy().tolist() == [1] * counts[-1] + [-1] * (3 - counts[-1])
        # The images are flat until the stand-in adds its noise.
        assert np.std(image) > 1
    assert sorted(counts) == [0, 1, 3]


def test_commands_in_the_readme_exist():
    known = set(typer.main.get_command(cli.app).commands)
    named = set(re.findall(r"vae-aug ([a-z]+)", README))
    assert named and named <= known
