"""Splits keep patients apart and labels even; leaks between splits are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import run

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.source import AnnotatedImage
from vae_aug.ingest.items import ImageFile
from vae_aug.ingest.splits import (
    Leak,
    describe_patients,
    find_leaks,
    find_near,
    hash_image,
    split_by_patient,
)
from vae_aug.records.records import make_example, write_records

RNG = np.random.default_rng(5)


def make_image(name, patient, labels=()):
    none = (False,) * len(labels)
    boxes = np.tile([0.0, 0.0, 1.0, 1.0], (len(labels), 1))
    return AnnotatedImage(
        ImageFile(Path(name)),
        name,
        patient,
        None,
        None,
        "complete",
        boxes,
        labels,
        none,
        none,
        none,
    )


def make_source(patients=60):
    """Patients of 1 to 5 images; a third of the images without boxes, one label in ten rare."""
    rng = np.random.default_rng(3)
    images = []
    for patient in range(patients):
        for index in range(rng.integers(1, 6)):
            labels = ("rare",) if rng.random() < 0.1 else ("common",) * rng.integers(0, 3)
            images.append(make_image(f"{patient}_{index}", f"P{patient}", labels))
    return images


def test_no_patient_is_in_two_splits_and_no_image_is_lost():
    images = make_source()
    splits = split_by_patient(images, (0.7, 0.15, 0.15))
    patients = [{image.patient for image in split} for split in splits]
    assert not patients[0] & patients[1] | patients[0] & patients[2] | patients[1] & patients[2]
    names = sorted(image.source_id for split in splits for image in split)
    assert names == sorted(image.source_id for image in images)


def test_images_labels_and_empty_images_are_shared_out_evenly():
    images = make_source()
    splits = split_by_patient(images, (0.7, 0.15, 0.15))
    for trait in (
        lambda image: 1,
        lambda image: not image.labels,
        lambda image: image.labels.count("rare"),
        lambda image: image.labels.count("common"),
    ):
        counts = np.array([sum(trait(image) for image in split) for split in splits])
        # One patient holds up to 5 images, and there are at least 15 of each trait.
        np.testing.assert_allclose(counts / counts.sum(), [0.7, 0.15, 0.15], atol=0.06)


def test_the_split_depends_on_the_seed_and_not_on_the_order():
    images = make_source()

    def get_train(images, seed):
        return {image.source_id for image in split_by_patient(images, (0.8, 0.2), seed=seed)[0]}

    assert get_train(images, 1) == get_train(images, 1) == get_train(images[::-1], 1)
    assert get_train(images, 1) != get_train(images, 2)


def test_images_without_a_patient_are_patients_of_their_own():
    images = [make_image(str(index), "") for index in range(10)]
    assert [len(split) for split in split_by_patient(images, (0.8, 0.2))] == [8, 2]


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.4), (0.5, 0.5, 0.0), (0.25,) * 4])
def test_bad_shares_are_refused(shares):
    with pytest.raises(ValueError, match="shares must be two or three positive numbers of sum 1"):
        split_by_patient(make_source(), shares)


def test_too_few_patients_are_refused():
    with pytest.raises(AnnotationError, match="2 patients, too few"):
        split_by_patient([make_image("a", "1"), make_image("b", "2")], (0.6, 0.2, 0.2))


def test_of_one_patient_it_is_said_what_to_do():
    images = [make_image(str(index), "P1") for index in range(9)]
    with pytest.raises(AnnotationError, match=r"one patient.*Leave --split-by-patient out.*tenth"):
        split_by_patient(images, (0.8, 0.2))


def test_images_without_a_patient_are_counted():
    assert describe_patients([make_image("a", "P1")]) == ""
    assert "no patient of 1 image:" in describe_patients(
        [make_image("a", "1"), make_image("b", "")]
    )
    assert "names no patients" in describe_patients([make_image("a", ""), make_image("b", "")])


# --- Leaks


def make_smooth(seed):
    """An image with structure at the size of the hash."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 13)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((130, 96), Image.Resampling.BICUBIC))[..., None]


def write_split(folder, split, entries):
    examples = [
        make_example(image, source_id=key, patient=patient, boxes=[], labels=[], label_names=["a"])
        for key, patient, image in entries
    ]
    write_records(examples, folder, split, label_names=["a"])


def test_leaks_are_found(tmp_path):
    noisy = np.clip(make_smooth(2) * 0.9 + RNG.normal(0, 3, (96, 130, 1)), 0, 255)
    flat = np.full((40, 40, 1), 7, np.uint8)
    train = [("k1", "p1", make_smooth(1)), ("k2", "p2", make_smooth(2)), ("k3", "", flat)]
    test = [("k1", "p9", make_smooth(7)), ("k5", "p1", make_smooth(8)), ("k6", "", flat)]
    write_split(tmp_path, "train", train)
    write_split(tmp_path, "test", test)
    write_split(tmp_path, "validation", [("k7", "p7", noisy.astype(np.uint8))])
    assert set(find_leaks(tmp_path)) == {
        Leak("patient", ("test", "train"), "p1"),
        Leak("source_id", ("test", "train"), "k1"),
        Leak("image", ("train", "validation"), "k2~k7"),
    }
    assert find_leaks(tmp_path, among=["validation"]) == (
        Leak("image", ("train", "validation"), "k2~k7"),
    )
    done = []
    find_leaks(tmp_path, progress=lambda *counts: done.append(counts))
    assert done == [(image, 7) for image in range(1, 8)]


def test_check_warns_and_fails_under_strict(tmp_path):
    write_split(tmp_path, "train", [("k1", "p1", make_smooth(1))])
    write_split(tmp_path, "test", [("k2", "p2", make_smooth(2))])
    assert run("check", tmp_path, "--strict").exit_code == 0
    write_split(tmp_path, "test", [("k2", "p1", make_smooth(1))])
    result = run("check", tmp_path)
    assert result.exit_code == 0
    assert "in two splits: 1 patient, 0 source_ids, 1 image" in result.stdout
    assert run("check", tmp_path, "--strict").exit_code == 1


def test_the_hash_holds_through_depth_scale_and_contrast():
    image = make_smooth(1)
    first = hash_image(image)
    np.testing.assert_array_equal(hash_image(image.astype(np.uint16) * 257), first)
    twice = hash_image(image.repeat(2, axis=0).repeat(2, axis=1))
    # Rounding turns a bit or two where neighbours are all but equal.
    assert np.bitwise_count(twice ^ first).sum() <= 2
    others = np.array([hash_image(make_smooth(seed)) for seed in range(2, 42)])
    assert find_near(first[None], others, 8) == []
    # Bits of two unrelated hashes agree like tosses of a coin: 128 of 256 differ, spread 8.
    distances = np.bitwise_count(others ^ first).sum(axis=1)
    assert 100 < distances.mean() < 140


def test_pairs_are_found_beyond_one_block():
    hashes = np.arange(1, 4502, dtype=np.uint64)[:, None] * np.array([1, 2**20, 0, 0], np.uint64)
    assert find_near(hashes[[0, 4400]], hashes, 0) == [(0, 0), (1, 4400)]
