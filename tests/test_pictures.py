"""What a training shows: which images, with their boxes, and which figures of its log."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vae_aug.records.records import make_example, write_records
from vae_aug.train import pictures as module
from vae_aug.train.feed import open_source
from vae_aug.train.pictures import TrainingPictures

SIZE = 32


class HalvingVAE:
    """Restores half of each grey value."""

    def reconstruct(self, images):
        return np.repeat(images * 0.5, 3, axis=-1)


@pytest.fixture
def source(tmp_path):
    """Six images, 16 x 32, the odd ones with a box in their right half; image n has level 20 n."""
    examples = [
        make_example(
            np.full((16, 32, 1), 20 * number + 10, np.uint8),
            source_id=f"secret{number}",
            boxes=np.tile([0.0, 0.5, 1.0, 1.0], (number % 2, 1)),
            labels=[0] * (number % 2),
            label_names=("lesion",),
        )
        for number in range(6)
    ]
    write_records(examples, tmp_path / "records", "validation", label_names=("lesion",))
    return open_source(tmp_path / "records", "validation")


@pytest.fixture
def written(monkeypatch):
    """What is given to the modules that draw."""
    calls = []
    monkeypatch.setattr(module, "write_sheet", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(module, "write_plots", lambda *arguments: calls.append(arguments))
    return calls


def test_the_sheet_shows_images_with_boxes_in_the_networks_square(source, tmp_path, written):
    TrainingPictures(tmp_path, [source], SIZE, 0).write_sheet(HalvingVAE(), 40)
    ((path, rows, caption),) = written
    assert path == tmp_path / "sheet.png" and "after 40 steps" in caption
    # The middle row of the square lies in the image.
    levels = [round(float(row[0].image[16, 16, 0]) * 255) for row in rows]
    assert levels == [30, 70, 110]
    first = rows[0]
    assert [panel.heading for panel in first] == ["clean", "40% left", "restored", "clean, decoded"]
    assert [panel.compared for panel in first] == [True, False, True, True]
    # The image fills rows 8 to 24 of 32, so that is where its box is.
    np.testing.assert_allclose(first[3].boxes, [[0.25, 0.5, 0.75, 1.0]])
    assert all(panel.names == ["lesion"] for panel in first)
    np.testing.assert_allclose(first[3].image, first[0].image / 2)
    np.testing.assert_allclose(first[2].image, first[1].image / 2)
    assert np.mean(first[1].image == first[0].image) == pytest.approx(0.4, abs=0.1)
    assert all(panel.note.startswith("SSIM ") for panel in first[1:])
    assert "secret" not in caption + "".join(panel.note + panel.heading for panel in first)


def test_images_without_boxes_are_shown_if_none_has_one(tmp_path):
    example = make_example(
        np.full((32, 32, 1), 9, np.uint8),
        source_id="a",
        boxes=[],
        labels=[],
        label_names=("lesion",),
    )
    write_records([example], tmp_path / "records", "validation", label_names=("lesion",))
    source = open_source(tmp_path / "records", "validation")
    sheet = TrainingPictures(tmp_path, [source], SIZE, 0).write_sheet(HalvingVAE(), 1)
    assert sheet.shape[1] == 8 + 4 * 228 - 4 + 8 and (tmp_path / "sheet.png").exists()


def test_curves_are_those_of_the_log(source, tmp_path, written):
    lines = [
        {"kind": "train", "step": 10, "loss": 5.0, "kl": 2.0, "psnr": 20.0},
        {"kind": "validation", "step": 10, "kl": 1.5, "psnr": 25.0, "psnr_noisy": 15.0},
        {"kind": "train", "step": 20, "loss": 4.0, "kl": 1.0, "psnr": float("inf")},
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    TrainingPictures(tmp_path, [source], SIZE, 0).write_curves(log)
    ((path, charts, _),) = written
    assert path == tmp_path / "curves.png"
    read = {c.title: {k.name: list(zip(k.x, k.y, strict=True)) for k in c.curves} for c in charts}
    assert read == {
        "loss, nats an image": {"train": [(10, 5.0), (20, 4.0)]},
        "KL, nats an image": {"train": [(10, 2.0), (20, 1.0)], "validation": [(10, 1.5)]},
        "reconstruction, PSNR, dB": {
            "train": [(10, 20.0)],
            "validation, clean": [(10, 25.0)],
            "validation, 40% left": [(10, 15.0)],
        },
    }
