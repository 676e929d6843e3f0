"""Where data sets keep splits and folders, and files found by the names that they are given."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

import pytest

from vae_aug.errors import MissingSplitError
from vae_aug.ingest.formats.layout import (
    FileFinder,
    find_split_folder,
    lies_in_other_split,
    list_beginnings,
    list_image_folders,
    list_split_names,
)


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_split_has_several_names_the_given_one_first():
    assert list_split_names("val") == ("val", "validation", "valid", "validate")
    assert list_split_names("train") == ("train", "training")
    assert list_split_names("fold1") == ("fold1",)


@pytest.mark.parametrize(
    ("path", "split", "expected"),
    [
        ("val/a.png", "train", True),
        ("images/Testing/a.png", "train", True),
        ("training/a.png", "train", False),
        ("a/val.png", "train", False),
        ("train/a.png", "fold1", True),
        ("val/a.png", "all", False),
    ],
)
def test_folders_of_other_splits(path, split, expected):
    assert lies_in_other_split(PurePosixPath(path), split) is expected


def test_the_folder_of_a_split_is_found_and_no_other_taken_for_it(tmp_path):
    assert find_split_folder(tmp_path, "train") is None
    (tmp_path / "valid").mkdir()
    assert find_split_folder(tmp_path, "val") == tmp_path / "valid"
    with pytest.raises(MissingSplitError, match="no folder for the split 'train'; it has valid"):
        find_split_folder(tmp_path, "train")


def test_a_file_is_found_by_its_name_in_the_first_folder_that_has_it(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    touch(first / "a.png", second / "a.png", second / "sub" / "b.png")
    finder = FileFinder([first, second])
    assert finder.find("a.png") == first / "a.png"
    assert finder.find("sub/b.png") == finder.find("sub\\b.png") == second / "sub" / "b.png"
    assert finder.find(" a.png ") == first / "a.png"
    assert finder.find("b.png") is None and finder.find("sub") is None
    for name in (None, 3, "", " ", "a\0.png", "a" * 300):
        assert finder.find(name) is None


def test_letter_case_and_unicode_form_count_only_where_they_decide(tmp_path):
    composed = unicodedata.normalize("NFC", "léser.png")
    touch(tmp_path / composed, tmp_path / "Scan.PNG", tmp_path / "x.png", tmp_path / "X.png")
    finder = FileFinder([tmp_path])
    assert finder.find(unicodedata.normalize("NFD", composed)) == tmp_path / composed
    assert finder.find("scan.png") == tmp_path / "Scan.PNG"
    assert finder.find("X.png") == tmp_path / "X.png"
    assert finder.find("x.PNG") is None


def test_of_the_name_on_another_machine_the_longest_end_counts(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "images" / "a.png")
    finder = FileFinder([tmp_path])
    longest = tmp_path / "images" / "a.png"
    for name in ("/home/me/images/a.png", r"C:\me\images\a.png", "gs://bucket/images/a.png"):
        assert finder.find(name) == longest
    assert finder.find("/home/me/a.png") == tmp_path / "a.png"
    assert finder.find("me/a.png") is None


def test_images_are_sought_beside_annotations_and_above_them_last(tmp_path):
    folder = tmp_path / "annotations"
    for name in ("annotations", "images/train", "train2017", "named/train"):
        (tmp_path / name).mkdir(parents=True)
    found = list_image_folders(folder, "train", tmp_path / "named")
    expected = ["named", "named/train", "annotations", "images/train", "images", "train2017", "."]
    assert found == [tmp_path / name for name in expected]


def test_what_is_in_front_of_each_mark_of_a_name():
    assert list_beginnings("a_1-x y") == ["a", "a_1", "a_1-x"]
    assert list_beginnings("abc") == []
