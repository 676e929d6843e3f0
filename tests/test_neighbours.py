"""Neighbours by hand, in NumPy, and however the work is cut up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from test_audit import SIZE, make_textures, to_bank

from vae_aug.evaluate import neighbours as module
from vae_aug.evaluate.neighbours import (
    MEASURES,
    Neighbours,
    find_neighbours,
    match_smoothness,
)


def test_pixel_distances_by_hand():
    references = np.float32([[[0, 0], [0, 0]], [[1, 1], [1, 1]], [[0, 0], [1, 1]]])
    query = np.float32([[[0, 0], [0, 1]]])
    found = find_neighbours(query[:, None], references, "pixels")
    # Squared differences: 1 of 4 pixels to the first, 3 of 4 to the second, 1 of 4 to the third.
    assert found.indices.tolist() == [[0, 2]]
    assert found.distances[0] == pytest.approx([0.5, 0.5])
    assert found.ratios[0] == pytest.approx(1.0)


def test_correlation_distances_are_those_of_numpy():
    rng = np.random.default_rng(0)
    references = rng.random((4, 3, 3)).astype(np.float32)
    query = 0.2 + 0.5 * references[2:3] + rng.normal(0, 0.02, (1, 3, 3)).astype(np.float32)
    found = find_neighbours(query[:, None], references, "correlation")
    r = [np.corrcoef(query.ravel(), other.ravel())[0, 1] for other in references]
    assert found.indices[0].tolist() == np.argsort(r)[::-1][:2].tolist()
    assert found.distances[0] == pytest.approx([math.sqrt(2 - 2 * x) for x in sorted(r)[:1:-1]])


def test_a_flat_image_correlates_with_flat_images_alone():
    references = np.float32([[[0, 1]], [[1, 0]]])
    flat = np.full((1, 1, 1, 2), 0.5, np.float32)
    found = find_neighbours(flat, references, "correlation")
    assert found.distances[0] == pytest.approx([math.sqrt(2)] * 2)
    found = find_neighbours(flat, np.float32([[[0, 1]], [[0.1, 0.1]]]), "correlation")
    assert found.indices[0, 0] == 1 and found.distances[0, 0] == 0.0


def test_feature_distances_are_euclidean():
    found = find_neighbours(np.float32([[[0, 0]]]), np.float32([[3, 4], [0, 2]]), "features")
    assert found.indices.tolist() == [[1, 0]]
    assert found.distances[0] == pytest.approx([2.0, 5.0])
    assert found.ratios[0] == pytest.approx(0.4)


@pytest.mark.parametrize("measure", MEASURES)
def test_parts_and_views_do_not_change_what_is_found(measure, monkeypatch):
    rng = np.random.default_rng(3)
    queries = rng.random((5, 2, 4, 4)).astype(np.float32)
    references = rng.random((11, 4, 4)).astype(np.float32)
    whole = find_neighbours(queries, references, measure)
    monkeypatch.setattr(module, "CHUNK", 3)
    monkeypatch.setattr(module, "QUERIES", 2)
    parts = find_neighbours(queries, references, measure)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other)
    # By brute force: the nearer of both views to each reference, then the two nearest.
    alone = [find_neighbours(queries[:, v : v + 1], references, measure) for v in range(2)]
    nearest = np.minimum(*(part.distances[:, 0] for part in alone))
    np.testing.assert_allclose(whole.distances[:, 0], nearest)
    for query, view in enumerate(whole.views):
        assert alone[view].distances[query, 0] == pytest.approx(nearest[query])


def test_a_copy_is_at_no_distance_in_any_measure():
    textures = to_bank(make_textures(6, 4))[..., 0]
    for measure in MEASURES:
        found = find_neighbours(textures[:, None], textures, measure)
        assert found.indices[:, 0].tolist() == list(range(6))
        assert found.distances[:, 0] == pytest.approx(0, abs=1e-6)


def test_the_ratio_of_two_copies_is_one():
    near = Neighbours(np.zeros((1, 2), int), np.zeros((1, 2)), np.zeros(1, int))
    assert near.ratios.tolist() == [1.0]


def test_references_must_be_two_of_one_shape():
    with pytest.raises(ValueError, match="at least 2"):
        find_neighbours(np.zeros((1, 1, 4)), np.zeros((1, 4)), "features")
    with pytest.raises(ValueError, match=r"\(4,\); got \(3, 5\)"):
        find_neighbours(np.zeros((1, 1, 4)), np.zeros((3, 5)), "features")


def test_smoothness_is_matched():
    images = to_bank(make_textures(20, 5))[..., 0]
    smooth = ndimage.gaussian_filter(images, (0, 1.5, 1.5))
    assert match_smoothness(images, smooth) == pytest.approx(1.5, abs=0.01)
    assert match_smoothness(smooth, images) == 0.0
    assert match_smoothness(images, images) == 0.0
    assert match_smoothness(images, np.zeros_like(images)) == pytest.approx(SIZE / 4)


# --- Counts ----------------------------------------------------------------------------------
