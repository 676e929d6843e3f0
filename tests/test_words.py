from __future__ import annotations

import pytest

from vae_aug.words import plural


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (0, "box", "0 boxes"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1_000_000, "image", "1,000,000 images"),
        (2, "other file", "2 other files"),
        (2, "empty box", "2 empty boxes"),
        (2, "image of a box", "2 images of a box"),
        (2, "box with a label of two words", "2 boxes with a label of two words"),
        (1, "mask of the brain", "1 mask of the brain"),
        # "of" and "with" are words, and not the ends of others.
        (2, "roof", "2 roofs"),
        (2, "offset", "2 offsets"),
        (2, "withdrawal", "2 withdrawals"),
    ],
)
def test_a_number_has_its_noun(number, noun, expected):
    assert plural(number, noun) == expected


def test_a_verb_goes_by_the_number_and_stands_behind_all():
    forms = ("was left out", "were left out")
    assert plural(1, "box of 3", *forms) == "1 box of 3 was left out"
    assert plural(0, "box of 3", *forms) == "0 boxes of 3 were left out"
