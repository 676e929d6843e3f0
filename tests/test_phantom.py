"""Phantoms: same seed same bytes, boxes that are the lesions' extents, anatomy of a patient."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from vae_aug.phantoms.phantom import KINDS, LABELS, Phantom, compute_mask_boxes, make_phantom

SEEDS = range(12)
_KIND_LABELS = {"head_mr": {"lesion"}, "abdomen_ct": {"nodule", "stone"}}


@pytest.fixture(scope="module", params=KINDS)
def phantoms(request) -> tuple[str, list[Phantom]]:
    """Phantoms of one kind, of as many patients as there are `SEEDS`."""
    kind = request.param
    return kind, [make_phantom(kind, seed, position=seed / 11, size=112) for seed in SEEDS]


def _hash(phantom: Phantom) -> str:
    parts = (phantom.image, phantom.mask, phantom.boxes)
    data = b"".join(part.tobytes() for part in parts) + repr(phantom.labels).encode()
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_the_same_in_another_process_with_other_threads(kind):
    code = (
        "import hashlib, sys; from vae_aug.phantoms.phantom import make_phantom;"
        f"p = make_phantom({kind!r}, 5, position=0.3, size=96);"
        "d = p.image.tobytes() + p.mask.tobytes() + p.boxes.tobytes() + repr(p.labels).encode();"
        "print(hashlib.sha256(d).hexdigest())"
    )
    environment = {"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    there = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert there == _hash(make_phantom(kind, 5, position=0.3, size=96))


def test_patients_differ(phantoms):
    _, drawn = phantoms
    assert len({_hash(phantom) for phantom in drawn}) == len(SEEDS)


def test_kinds_differ_for_one_seed():
    head, abdomen = (make_phantom(kind, 0, size=64) for kind in KINDS)
    assert np.abs(head.image.astype(int) - abdomen.image).mean() > 20


def test_shapes_and_ranges(phantoms):
    kind, drawn = phantoms
    for phantom in drawn:
        assert phantom.image.shape == (112, 112, 1)
        assert phantom.image.dtype == np.uint8
        assert phantom.mask.shape == (112, 112)
        assert phantom.mask.dtype == np.uint8
        assert phantom.boxes.dtype == np.float32
        assert phantom.boxes.shape == (len(phantom.labels), 4)
        assert set(phantom.labels) <= _KIND_LABELS[kind] <= set(LABELS)
        assert 20 < phantom.image.mean() < 140
        assert np.unique(phantom.image).size > 100


def test_boxes_are_the_extents_of_the_mask(phantoms):
    _, drawn = phantoms
    for phantom in drawn:
        assert phantom.mask.max() == len(phantom.boxes)
        for number, box in enumerate(phantom.boxes, start=1):
            rows = [y for y in range(112) if number in phantom.mask[y].tolist()]
            columns = [x for x in range(112) if number in phantom.mask[:, x].tolist()]
            extent = [
                rows[0] / 112,
                columns[0] / 112,
                (rows[-1] + 1) / 112,
                (columns[-1] + 1) / 112,
            ]
            assert box.tolist() == np.float32(extent).tolist()


def test_lesions_lie_apart_and_have_the_promised_size():
    sides = []
    for kind in KINDS:
        for seed in SEEDS:
            phantom = make_phantom(kind, seed)
            sides += ((phantom.boxes[:, 2:] - phantom.boxes[:, :2]) * 224).round().ravel().tolist()
            for mask in (phantom.mask, phantom.mask.T):
                first, second = mask[1:], mask[:-1]
                assert not ((first != second) & (first > 0) & (second > 0)).any()
    assert min(sides) >= 5
    assert max(sides) <= 16


def test_some_have_no_lesion_and_some_several(phantoms):
    _, drawn = phantoms
    counts = [len(phantom.boxes) for phantom in drawn]
    assert min(counts) == 0
    assert max(counts) >= 2


def test_lesions_stand_out():
    """A bright lesion on FLAIR, a dark one on T1, a dark nodule, a bright stone."""
    contrasts = {label: [] for label in LABELS}
    for kind in KINDS:
        for seed in SEEDS:
            phantom = make_phantom(kind, seed)
            image = phantom.image[..., 0].astype(float)
            for number, (box, label) in enumerate(
                zip(phantom.boxes, phantom.labels, strict=True), 1
            ):
                top, left, bottom, right = (box * 224).round().astype(int)
                around = slice(top - 4, bottom + 4), slice(left - 4, right + 4)
                inside = np.median(image[phantom.mask == number])
                outside = np.median(image[around][phantom.mask[around] == 0])
                contrasts[label].append(inside - outside)
    assert min(map(abs, contrasts["lesion"])) > 12
    assert max(contrasts["nodule"]) < -12
    assert min(contrasts["stone"]) > 12


@pytest.mark.parametrize("kind", KINDS)
def test_depths_show_the_same_picture(kind):
    byte = make_phantom(kind, 1, size=64)
    word = make_phantom(kind, 1, size=64, dtype=np.uint16)
    assert word.image.dtype == np.uint16
    # 65535 = 255 * 257; each depth rounds the same value by at most half a step of its own.
    assert np.abs(word.image / 257 - byte.image.astype(float)).max() <= 0.5 + 0.5 / 257
    assert np.unique(word.image).size > 256
    np.testing.assert_array_equal(word.boxes, byte.boxes)
    np.testing.assert_array_equal(word.mask, byte.mask)


@pytest.mark.parametrize("kind", KINDS)
def test_slices_of_a_patient_share_anatomy(kind):
    def blur(image: np.ndarray) -> np.ndarray:
        return image.reshape(16, 4, 16, 4).mean(axis=(1, 3))

    def differ(a: Phantom, b: Phantom) -> float:
        return float(np.abs(blur(a.image) - blur(b.image)).mean())

    here = make_phantom(kind, 4, position=0.4, size=64)
    near = make_phantom(kind, 4, position=0.42, size=64)
    others = [make_phantom(kind, seed, position=0.4, size=64) for seed in (5, 6, 7)]
    assert (near.image != here.image).mean() > 0.05, "noise must be drawn anew"
    assert differ(here, near) < 0.5 * min(differ(here, other) for other in others)


def test_size_does_not_change_the_patient():
    large, small = (make_phantom("head_mr", 3, size=size) for size in (224, 112))
    assert large.labels == small.labels
    assert len(large.boxes) > 0
    # Edges fall on whole pixels of either size.
    np.testing.assert_allclose(large.boxes, small.boxes, atol=1.01 / 112)


def test_mask_boxes_by_hand():
    mask = np.zeros((4, 8), int)
    mask[0, 0] = 1
    mask[1:4, 5] = 2
    mask[2, 4:8] = 2
    expected = [[0, 0, 0.25, 0.125], [0.25, 0.5, 1, 1]]
    assert compute_mask_boxes(mask).tolist() == expected


def test_mask_boxes_without_objects():
    boxes = compute_mask_boxes(np.zeros((4, 4), np.uint8))
    assert boxes.shape == (0, 4)
    assert boxes.dtype == np.float32


def test_mask_boxes_refuse_a_gap():
    with pytest.raises(ValueError, match="mask has no 1"):
        compute_mask_boxes(np.full((2, 2), 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "knee"}, "kind must be one of 'head_mr', 'abdomen_ct'; got 'knee'"),
        ({"seed": -1}, "seed must be in"),
        ({"position": 1.5}, "position must be in"),
        ({"size": 16}, "size must be in"),
        ({"dtype": np.float32}, "dtype must be uint8 or uint16; got float32"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_phantom(**{"kind": "head_mr", "seed": 0, **arguments})
