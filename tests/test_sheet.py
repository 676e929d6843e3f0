"""Contact sheets."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vae_aug.data.sheet import write_sheet

YELLOW = (255, 210, 0)


def test_columns_rows_and_boxes_are_where_they_belong(tmp_path):
    grey = np.full((20, 40, 1), 100, np.uint8)
    deep = np.full((40, 40, 1), 200 << 8, np.uint16)
    boxes = [np.array([[0.25, 0.25, 0.75, 0.75]]), np.zeros((0, 4))]
    path = tmp_path / "sheet.png"
    sheet = write_sheet(path, {"a": [grey, deep], "b": [deep, grey]}, boxes, cell_px=40)
    np.testing.assert_array_equal(sheet, np.asarray(Image.open(path)))
    assert sheet.shape == (16 + 2 * 42, 2 * 42, 3)

    def pixel(row, column, y, x):
        return tuple(sheet[16 + row * 42 + y, column * 42 + x].tolist())

    assert pixel(0, 0, 10, 20) == (100, 100, 100)  # 20 x 40 fills half of the cell
    assert pixel(0, 0, 25, 20) == (0, 0, 0)
    assert pixel(1, 0, 20, 20) == (200, 200, 200)  # the high byte of 16 bits
    assert pixel(0, 0, 4, 20) == YELLOW  # one pixel above the box, which begins at row 5
    assert pixel(0, 1, 9, 20) == YELLOW
    assert YELLOW not in {tuple(p) for p in sheet[16 + 42 :].reshape(-1, 3).tolist()}
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_floating_point_images_are_rounded(tmp_path):
    plane = np.array([[[-0.5], [0.5]], [[1.0], [2.0]]], np.float32)
    sheet = write_sheet(tmp_path / "sheet.png", {"a": [plane]}, cell_px=2)
    np.testing.assert_array_equal(sheet[16:18, :2, 0], [[0, 128], [255, 255]])


def test_colour_stays_colour(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 250
    sheet = write_sheet(tmp_path / "sheet.png", {"a": [image]}, cell_px=8)
    assert tuple(sheet[20, 4]) == (250, 0, 0)
