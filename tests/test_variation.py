"""Training of a network's variation from records: whose images they are, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest

from vae_aug.config import VariationConfig
from vae_aug.model.fields import SQUARE
from vae_aug.model.transformation import TransformationVAE
from vae_aug.records.records import make_example, write_records
from vae_aug.train.feed import open_source
from vae_aug.train.variation import hold_one_patient, read_patients, train_variation

CONFIG = VariationConfig(steps=2, batch_size=2)


def write(folder, patients, depth=8):
    """Write a record of noise for each patient, and open them."""
    rng = np.random.default_rng(len(patients))
    dtype = f"uint{depth}"
    images = rng.integers(0, 2**depth, (len(patients), 40, 56, 1)).astype(dtype)
    examples = [
        make_example(
            image,
            source_id=f"{folder.name}-{index}",
            patient=patient,
            boxes=np.zeros([0, 4]),
            labels=[],
            label_names=("lesion",),
        )
        for index, (image, patient) in enumerate(zip(images, patients, strict=True))
    ]
    write_records(examples, folder, "train", 1, label_names=("lesion",))
    return open_source(folder, "train"), images


def test_images_become_squares_whose_white_is_255(tmp_path):
    first, images = write(tmp_path / "first", ["a", "b", "a"])
    second, _ = write(tmp_path / "second", ["b", "c"], depth=16)
    patients = read_patients([first, second], seed=0)
    assert patients.squares.shape == (5, SQUARE, SQUARE, 1) and patients.squares.dtype == np.uint8
    assert patients.names == ["a", "b", "a", "b", "c"] and patients.unnamed == 0
    assert patients.squares.reshape(5, -1).max(axis=1).tolist() == [255] * 5
    middle = patients.squares[0, SQUARE // 2 - 8 : SQUARE // 2 + 8]
    assert abs(middle.mean() / images[0].mean() - 1.0) < 0.15


def test_images_without_a_patient_count_as_patients_of_their_own(tmp_path):
    source, _ = write(tmp_path / "records", ["", "a", ""])
    patients = read_patients([source], seed=0)
    assert len(set(patients.names)) == 3 and patients.unnamed == 2


def test_of_many_images_a_random_part_is_read(tmp_path):
    source, _ = write(tmp_path / "records", list("abcdefgh"))
    chosen = [read_patients([source], seed=seed, limit=3).names for seed in (0, 0, 1)]
    assert len(chosen[0]) == 3 and chosen[0] == chosen[1] != chosen[2]


def test_images_of_one_patient_are_told(tmp_path):
    one, _ = write(tmp_path / "one", ["a", "a"])
    other, _ = write(tmp_path / "other", ["b"])
    unnamed, _ = write(tmp_path / "unnamed", ["", ""])
    assert hold_one_patient([one]) and hold_one_patient([one, one])
    assert not hold_one_patient([one, other]) and not hold_one_patient([unnamed])


def test_what_is_learned_is_put_into_the_network_and_described(tmp_path):
    source, _ = write(tmp_path / "records", ["a", "b", "", "c"])
    variation = TransformationVAE()
    variation.trainable = False
    before, said = variation.get_weights(), []
    learned = train_variation(
        variation, [source], tmp_path / "run", CONFIG, progress=None, report=said.append
    )
    assert any(
        not np.array_equal(*pair) for pair in zip(before, variation.get_weights(), strict=True)
    )
    assert learned == {
        "config": CONFIG.to_dict(),
        "images": 4,
        "patients": 4,
        "strength": pytest.approx(float(variation.strength), abs=1e-5),
    }
    assert "from 4 images of 3 patients, and 1 that name none" in said[0]
    assert (tmp_path / "run" / "variation" / "checkpoint").is_file()
