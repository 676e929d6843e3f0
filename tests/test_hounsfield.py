from __future__ import annotations

import numpy as np
import pytest

from vae_aug.errors import VAEAugError
from vae_aug.ingest.hounsfield import (
    Hounsfield,
    find_stored_limits,
    show_hounsfield,
    show_stored,
)

STORED = np.array([[[100], [300], [700], [1100]]], np.uint16)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        # The source's own: -100 is black and 500 white, so 100 and 500 are a third and white.
        ("auto", [0, 85, 255, 255]),
        # Without regard to it, -100 to 900: 0, 20%, 60%, 100%.
        ("full", [0, 51, 153, 255]),
        # PS3.3 C.11.2.1.2.1: (x - 299.5) / 400 + 0.5, of 100 0.0013, of 500 1.0013.
        ((300, 401), [0, 0, 255, 255]),
    ],
)
def test_hounsfield_units_are_grey_through_a_window(window, expected):
    shown = show_hounsfield(STORED, Hounsfield(200, (-100, 500)), window, 8)
    assert shown.dtype == np.uint8 and shown.ravel().tolist() == expected


def test_without_a_window_of_its_own_an_image_shows_its_full_range():
    shown = show_hounsfield(STORED, Hounsfield(200, None), "auto")
    np.testing.assert_array_equal(shown, show_hounsfield(STORED, Hounsfield(0, None), "full"))
    assert shown.dtype == np.uint16 and (shown.min(), shown.max()) == (0, 65535)


@pytest.mark.parametrize("window", [(600, 401), (1000, 2)])
def test_the_limits_of_a_window_are_what_becomes_black_and_white(window):
    low, high = find_stored_limits(STORED, window)
    values = np.array([[[low - 1], [low], [high], [high + 1]]])
    shown = show_stored(values.astype(np.uint16), window, 8)
    assert shown.ravel().tolist() == [0, 0, 255, 255]


def test_the_full_range_is_that_of_the_values():
    assert find_stored_limits(STORED, "full") == (100, 1100)
    assert show_stored(STORED, "full", 8).ravel().tolist() == [0, 51, 153, 255]


def test_an_image_of_one_value_is_black():
    assert not show_stored(np.full((2, 2, 1), 7, np.uint16), "full").any()


def test_presets_are_refused_and_bad_windows_too():
    for use in (show_stored, find_stored_limits):
        message = r"the window bone is in Hounsfield units.*give --window CENTER,WIDTH.*1424,1800"
        with pytest.raises(VAEAugError, match=message):
            use(STORED, "bone")
    with pytest.raises(ValueError, match="window must be"):
        find_stored_limits(STORED, "bones")
