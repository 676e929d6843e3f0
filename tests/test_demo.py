"""The demo: what it leaves, and that a box which differs in one bit fails it."""

from __future__ import annotations

import json
import logging
import re

import numpy as np
import pytest
import tensorflow as tf
from fake_vae import FakeVAE
from typer.testing import CliRunner

from vae_aug import cli, demo
from vae_aug.augment import transform
from vae_aug.augment.transform import VAEAugment
from vae_aug.codecs.images import read_image
from vae_aug.errors import MissingPackageError, VAEAugError

COUNTS = {"train": 2, "validation": 2, "test": 2}
# The slices of pydicom come on top, see vae_aug.phantoms.embedded.
IMAGES = {"train": 4, "validation": 3, "test": 3}
WRITE = demo.write_embedded


@pytest.fixture(scope="module")
def stand_in():
    """Let every checkpoint be a network that takes no time, and the builder be the repository's.

    An installed copy of the builder would register its name with TFDS a second time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "load_checkpoint", lambda checkpoint: FakeVAE())
        patch.setattr(transform, "open_checkpoint", lambda checkpoint: FakeVAE())
        patch.setattr(demo, "BUILDER", "tfds_builders.med_vae_augmented")
        yield patch


class OneBitOff(VAEAugment):
    """Moves the first coordinate to the next float32."""

    def __call__(self, *element):
        changed = super().__call__(*element)
        if isinstance(changed, tf.data.Dataset):
            return changed
        bits = tf.bitcast(changed["objects"]["bbox"], tf.int32)
        boxes = tf.bitcast(bits + 1, tf.float32)
        return {**changed, "objects": {**changed["objects"], "bbox": boxes}}


@pytest.fixture(scope="module")
def failed(stand_in, tmp_path_factory):
    """Folder and result of a run in which the transform moves boxes; the level of TFDS's log."""
    out = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        # Whatever other tests have left; the command shall leave it so.
        patch.setattr(logging.getLogger("absl"), "level", logging.INFO)
        patch.setattr(demo, "VAEAugment", OneBitOff)
        patch.setattr(demo, "write_embedded", lambda out, counts: WRITE(out, counts=COUNTS))
        result = CliRunner().invoke(cli.app, ["demo", "--out", str(out)])
        return out, result, logging.getLogger("absl").level


@pytest.fixture(scope="module")
def ran(failed):
    """Folder, report and stages of a run, over what the failed one left."""
    out, stages = failed[0], []
    report = demo.run_demo(out, counts=COUNTS, watch=stages.append)
    return out, report, stages


def test_a_box_that_differs_in_one_bit_fails_the_demo(failed):
    out, result, level = failed
    assert result.exit_code == 1
    assert re.match(r"error: boxes differ after map in \d+ images", result.stderr)
    assert not (out / "summary.md").exists()
    assert level == logging.INFO


def test_every_step_carries_every_box(ran):
    _, report, _ = ran
    assert report.images == IMAGES
    total = sum(report.boxes.values())
    assert total > 0
    assert report.checks == {
        "COCO -> records": total,
        "records -> map": report.boxes["train"],
        "records -> apply": report.boxes["train"],
        **{f"records -> TFDS {split}": report.boxes[split] for split in IMAGES},
    }


def test_it_leaves_records_dataset_sheet_and_summary(ran):
    out, report, stages = ran
    left = {path.name for path in out.iterdir()}
    assert left == {"source", "records", "tfds", "sheet.png", "summary.md"}
    # Input, 40% left, denoised and three samples, 224 pixels wide, 4 apart, between 8.
    assert read_image(out / "sheet.png").shape[1] == 8 + 6 * 228 - 4 + 8
    summary = (out / "summary.md").read_text()
    assert stages == list(report.seconds)
    for name in (*report.checks, *report.seconds):
        assert f"| {name} | " in summary
    assert re.search(r"\| replace \| denoised \| \d+\.\d \| \d\.\d{3} \|", summary)


def test_the_figures_are_those_of_the_stand_in(ran):
    _, report, _ = ran
    # Of replaced pixels 60% are uniform noise. Halving every value, which is what the stand-in
    # calls denoising, cannot reach the clean image either.
    for noise in ("replace", "blend"):
        assert 0 < report.figures[f"{noise}, noisy, PSNR dB"] < 20
        assert -1 < report.figures[f"{noise}, denoised, SSIM"] < 1
    # Its samples differ by noise of 0.1, and by none where the guard pasted the original back.
    spread = report.figures["spread of samples outside boxes, % of grey range"]
    assert 2 < spread < 10
    assert report.figures["map, images/s with its start"] > 0


def test_a_dataset_that_is_there_is_built_anew(ran, monkeypatch):
    out, _, _ = ran
    (path,) = (out / "tfds").rglob("*train.tfrecord*")
    before = path.read_bytes()
    monkeypatch.setattr(transform, "open_checkpoint", lambda checkpoint: FakeVAE(noise=0.2))
    demo.build_dataset(out / "tfds", out / "records", "demo")
    assert path.read_bytes() != before


def test_a_box_that_ingest_changed_is_seen(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 10, "width": 20}],
        "categories": [{"id": 5, "name": "lesion"}],
        "annotations": [{"image_id": 1, "category_id": 5, "bbox": [2, 3, 4, 5]}],
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    # x 2 to 6 of 20, y 3 to 8 of 10, as ymin, xmin, ymax, xmax.
    expected = np.array([[0.3, 0.1, 0.8, 0.3]], np.float32)
    annotations = {"train": tmp_path / "train.json"}
    records = {"train": {"images/a.png": (expected.tobytes(), (0,))}}
    assert demo.check_source(annotations, records) == 1
    records = {"train": {"images/a.png": (expected.tobytes(), (1,))}}
    with pytest.raises(VAEAugError, match="boxes differ after ingest in 1 image,"):
        demo.check_source(annotations, records)


def test_a_builder_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "BUILDER", "vae_aug_tfds_absent.builder")
    with pytest.raises(MissingPackageError, match="pip install"):
        demo.build_dataset(tmp_path, tmp_path, "demo")
