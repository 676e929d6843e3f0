from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.evaluate.subset import Subset, space_out, take_places


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [
        (5, None, [0, 1, 2, 3, 4]),
        (5, 9, [0, 1, 2, 3, 4]),
        (9, 3, [0, 3, 6]),
        (5, 2, [0, 2]),
        (123, 1, [0]),
        (0, 4, []),
        (0, None, []),
    ],
)
def test_places(count, limit, expected):
    assert space_out(count, limit).tolist() == expected


def test_as_many_as_asked_for_and_no_gap_longer_than_another_by_more_than_one():
    for count in (120, 123, 205):
        places = space_out(count, 120)
        assert len(places) == 120
        assert np.ptp(np.diff(places)) <= 1


def test_elements_are_taken_in_their_order_and_whole():
    dataset = tf.data.Dataset.range(10).map(lambda x: {"a": x, "b": (x, -x)})
    taken = list(take_places(dataset, np.array([7, 0, 3])).as_numpy_iterator())
    assert taken == [{"a": x, "b": (x, -x)} for x in (0, 3, 7)]
    assert list(take_places(dataset, np.array([], np.int64))) == []


def test_a_subset_names_its_folders(tmp_path):
    assert Subset(tmp_path).folders == [str(tmp_path)] and Subset("a").folder == "a"
    several = Subset(["a", tmp_path])
    assert several.folders == ["a", str(tmp_path)]
    with pytest.raises(ValueError, match="records must be one folder here; got a, "):
        _ = several.folder


@pytest.mark.parametrize(
    "dataset",
    [tf.data.Dataset.range(10), tf.data.Dataset.range(20).filter(lambda x: x < 10)],
    ids=["counted", "uncounted"],
)
def test_a_subset_chooses_places_in_a_dataset(dataset):
    assert Subset("a", limit=4).choose(dataset).tolist() == [0, 2, 5, 7]
    assert Subset("a").choose(dataset).tolist() == list(range(10))


def test_a_subset_of_nothing_is_refused():
    with pytest.raises(ValueError, match="a folder or several"):
        Subset([])
    with pytest.raises(ValueError, match=r"limit must be in \[1"):
        Subset("a", limit=0)
