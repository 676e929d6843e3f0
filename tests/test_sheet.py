"""Sheets: where boxes, windows, differences and text are, by values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vae_aug.figures import sheet as module
from vae_aug.figures.drawing import make_legible, wrap_text
from vae_aug.figures.sheet import (
    GAP_PX,
    MARGIN_PX,
    Panel,
    find_crop,
    find_outline,
    find_window,
    make_panels,
    write_sheet,
)

YELLOW, CYAN = (255, 210, 0), (0, 220, 255)
CELL = 40
TOP = MARGIN_PX + 16 + GAP_PX  # below a line of text of 12 pixels
"""Row of the sheet at which the images of its first row begin."""


@pytest.fixture
def texts(monkeypatch):
    """What is written on sheets, in its order."""
    written = []
    make_text = module.make_text

    def note(text, *arguments):
        written.append(text)
        return make_text(text, *arguments)

    monkeypatch.setattr(module, "make_text", note)
    return written


def make_ramp(dtype=np.uint8, size=CELL):
    """Grey values 0, 1, 2, ... from left to right."""
    return np.tile(np.arange(size, dtype=dtype), (size, 1))[..., None]


# --- Windows ---------------------------------------------------------------------------------


def test_a_window_leaves_half_a_percent_at_either_end():
    shares = np.arange(1001, dtype=np.float32).reshape(7, 143, 1) / 1000
    assert find_window(shares) == pytest.approx((0.005, 0.995))


def test_a_window_of_few_values_is_as_wide_as_they_are():
    image = np.full((20, 20, 1), 0.25)
    assert find_window(image) == (0.0, 1.0)
    image[0, 0] = 0.75  # a quarter of a percent, so that both percentiles are 0.25
    assert find_window(image) == (0.25, 0.75)


def test_sixteen_bits_are_shown_in_the_window_and_not_in_the_range(tmp_path, texts):
    # Values up to 3000 of 65535: at a 256th of them, every high byte would be 11 or less.
    values = np.linspace(0, 3000, CELL * CELL).round().reshape(CELL, CELL, 1).astype(np.uint16)
    sheet = write_sheet(tmp_path / "sheet.png", [[Panel(values, "a")]], "", cell_px=CELL)
    low, high = np.percentile(values, [0.5, 99.5])
    for y, x in (0, 0), (20, 7), (39, 39):
        share = np.clip((values[y, x, 0] - low) / (high - low), 0, 1)
        assert sheet[TOP + y, MARGIN_PX + x].tolist() == [round(255 * share)] * 3
    assert "window 0.02 to 4.55% of the range" in texts  # 15 and 2985 of 65535


def test_variants_are_shown_in_the_window_of_their_image(tmp_path):
    image = make_ramp()
    rows = [make_panels({"a": image, "darker": image // 2})]
    sheet = write_sheet(tmp_path / "sheet.png", rows, "", cell_px=CELL)
    x = MARGIN_PX + CELL + GAP_PX + 30
    # 15 of the ramp's 0 to 39; in its own window, 0 to 19, it would be 201.
    assert sheet[TOP + 5, x].tolist() == [round(255 * 15 / 39)] * 3


def test_an_image_that_is_not_compared_has_its_own_window(tmp_path):
    image = make_ramp()
    row = [Panel(image, "a"), Panel(image // 2, compared=False)]
    sheet = write_sheet(tmp_path / "sheet.png", [row], "", cell_px=CELL)
    assert sheet[TOP + 5, MARGIN_PX + CELL + GAP_PX + 30].tolist() == [round(255 * 15 / 19)] * 3


def test_a_value_range_is_what_shares_are_of(tmp_path, texts):
    image = make_ramp(np.uint16) * 100
    write_sheet(tmp_path / "sheet.png", [[Panel(image)]], "", value_range=(0, 4000), cell_px=CELL)
    assert "window 0 to 97.5% of the range" in texts  # 3900 of 4000


def test_colour_stays_colour(tmp_path):
    image = np.zeros((CELL, CELL, 3), np.uint8)
    image[:, 20:, 0] = 250
    sheet = write_sheet(tmp_path / "sheet.png", [[Panel(image, "a")]], "", cell_px=CELL)
    assert sheet[TOP + 4, MARGIN_PX + 30].tolist() == [255, 0, 0]


# --- Boxes -----------------------------------------------------------------------------------


def test_an_outline_is_just_outside_of_its_box():
    # Rows 10 to 30 and columns 8 to 16 of 40: the box's first pixel is 10, its last one 29.
    assert find_outline(np.array([0.25, 0.2, 0.75, 0.4]), 40, 40) == (7, 9, 16, 30)
    # Halves of pixels belong to the box.
    assert find_outline(np.array([0.2625, 0.2, 0.7375, 0.4]), 40, 40) == (7, 9, 16, 30)


def test_an_outline_on_the_border_is_seen_and_one_beyond_is_not():
    assert find_outline(np.array([0.0, 0.0, 1.0, 1.0]), 40, 20) == (0, 0, 19, 39)
    assert find_outline(np.array([-0.5, 0.0, 1.5, 1.0]), 40, 20) == (0, -21, 19, 60)


def test_boxes_have_the_colours_of_their_classes_and_names_once(tmp_path, texts):
    boxes = np.array([[0.25, 0.2, 0.75, 0.4], [0.5, 0.5, 0.75, 0.75], [np.nan] * 4])
    panels = make_panels({"a": make_ramp(), "b": make_ramp()}, boxes, ["cyst", "stone", "stone"])
    sheet = write_sheet(
        tmp_path / "sheet.png", [panels], "", label_names=["stone", "cyst"], cell_px=CELL
    )
    np.testing.assert_array_equal(sheet, np.asarray(Image.open(tmp_path / "sheet.png")))
    left = MARGIN_PX + CELL + GAP_PX  # names are on the first image only
    assert tuple(sheet[TOP + 20, left + 7]) == CYAN  # the second of the labels
    assert tuple(sheet[TOP + 29, left + 30]) == YELLOW
    assert tuple(sheet[TOP + 20, left + 8]) not in (CYAN, YELLOW)
    first, second = (sheet[TOP : TOP + CELL, x : x + CELL] for x in (MARGIN_PX, left))
    assert (first != second).any()
    assert texts.index("stone") < texts.index("cyst")
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_the_surroundings_of_the_largest_box_are_twice_as_wide():
    boxes = np.array([[0.1, 0.1, 0.12, 0.12], [0.4, 0.45, 0.6, 0.55]])
    # 40 x 20 pixels around (100, 100): a square of 80.
    assert find_crop(boxes, 200, 200) == (slice(60, 140), slice(60, 140))
    # A small box has 40 pixels, moved into the image.
    assert find_crop(boxes[:1], 200, 200) == (slice(2, 42), slice(2, 42))
    assert find_crop(np.array([[0.0, 0.0, 0.1, 0.1]]), 200, 30) == (slice(0, 40), slice(0, 30))


def test_the_enlarged_box_is_in_the_middle_below_its_image(tmp_path):
    image = np.zeros((200, 200, 1), np.uint8)
    image[80:120, 80:120] = 200
    panel = Panel(image, "a", boxes=np.array([[0.4, 0.4, 0.6, 0.6]]), names=["a"], compared=False)
    sheet = write_sheet(tmp_path / "sheet.png", [[panel]], "", cell_px=200)
    # Below are a line for the note and the part of 80 pixels, each of 2.5.
    below = TOP + 200 + GAP_PX + 15 + GAP_PX
    assert tuple(sheet[below + 100, MARGIN_PX + 49]) == YELLOW  # the box begins at 20 * 2.5
    assert sheet[below + 100, MARGIN_PX + 51].tolist() == [255] * 3
    assert sheet[below + 100, MARGIN_PX + 30].tolist() == [0] * 3


# --- Differences -----------------------------------------------------------------------------


def test_differences_are_red_and_blue_on_a_scale_with_a_name(tmp_path, texts):
    image = make_ramp(np.float32) / 100
    other = image.copy()
    other[:, :10] += 0.03
    other[:, 10:20] -= 0.015
    sheet = write_sheet(
        tmp_path / "sheet.png", [make_panels({"a": image, "b": other})], "", cell_px=CELL
    )
    below = TOP + CELL + GAP_PX + 15 * 3 + GAP_PX  # what says the window is wrapped
    left = MARGIN_PX + CELL + GAP_PX
    rows = sheet[below:, left + 30].sum(axis=-1)  # no difference: black
    assert rows[:20].sum() == 0
    # 3% and 1.5% of a full colour at 5%.
    assert sheet[below + 20, left + 5].tolist() == [153, 54, 30]
    # The share of 1.5% is 0.3 but for rounding in float32: 255 * 0.3 = 76.5.
    assert np.abs(sheet[below + 20, left + 15] - [21.0, 45.0, 76.5]).max() <= 0.5
    assert "difference, % of the grey range" in texts
    assert any("full colour at 5% of the grey range" in text for text in texts)


def test_one_strong_difference_does_not_hide_weak_ones(tmp_path, texts):
    image = np.zeros((CELL, CELL, 1), np.float32)
    row = [Panel(image + change) for change in (0, 0.01, 0.5, 0.02)]
    write_sheet(tmp_path / "sheet.png", [row], "", cell_px=CELL)
    assert any("full colour at 2% of the grey range and more" in text for text in texts)


def test_what_is_not_compared_does_not_set_the_scale(tmp_path, texts):
    image = np.zeros((CELL, CELL, 1), np.float32)
    row = [Panel(image, "a"), Panel(image + 0.001), Panel(image + 1, compared=False)]
    write_sheet(tmp_path / "sheet.png", [row], "", cell_px=CELL)
    assert any("full colour at 0.1% of the grey range" in text for text in texts)


def test_images_of_their_own_have_no_differences(tmp_path, texts):
    panels = [Panel(make_ramp(), str(number), compared=False) for number in range(2)]
    write_sheet(tmp_path / "sheet.png", [panels], "A caption.", cell_px=CELL)
    assert not any("difference" in text for text in texts)
    assert "A caption." in texts and texts[:2] == ["0", "1"]  # the rows are not numbered


# --- Text ------------------------------------------------------------------------------------


def test_rows_are_numbered_and_notes_stand_below(tmp_path, texts):
    rows = [make_panels({"input": make_ramp(), "other": make_ramp()}, notes={"other": "SSIM 1"})]
    write_sheet(tmp_path / "sheet.png", rows * 2, "", cell_px=CELL)
    assert [text for text in texts if "input" in text] == ["1: input", "2: input"]
    assert texts.count("SSIM 1") == 2


def test_text_is_wrapped_at_spaces():
    assert wrap_text("a b", 1000, 12) == ["a b"]
    assert wrap_text("aaaa bbbb\ncc", 40, 12) == ["aaaa", "bbbb", "cc"]
    assert wrap_text("a-word-that-is-too-long", 10, 12) == ["a-word-that-is-too-long"]


def test_letters_that_the_font_lacks_are_replaced():
    assert make_legible("tumor_1", "label 1") == "tumor_1"
    assert make_legible("Läsion", "label 1") == "Lasion"
    assert make_legible("опухоль", "label 3") == "label 3"
