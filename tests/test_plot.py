"""Plots: ticks, histograms and where curves lie, by values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vae_aug.figures.plot import (
    PLOT_PX,
    Chart,
    Curve,
    find_limits,
    find_ticks,
    make_histogram,
    write_plots,
)

YELLOW, CYAN = (255, 210, 0), (0, 220, 255)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3.0, 41.0, [10, 20, 30, 40]),
        (-0.31, 0.28, [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2]),
        (11990.0, 12010.0, [11990, 11995, 12000, 12005, 12010]),
    ],
)
def test_ticks_are_round_and_few(low, high, expected):
    assert find_ticks(low, high) == pytest.approx(expected)


def test_limits_leave_outliers_out_of_many_values_only():
    values = np.concatenate([np.linspace(0, 1, 199), [1000.0]])
    # The percentiles 1 and 99 lie among the first values; a twentieth of room is added.
    low, high = find_limits(values, whole=False)
    assert -0.06 < low < 0 and 1.0 < high < 1.06
    assert find_limits(values, whole=True) == pytest.approx((-50, 1050))
    assert find_limits(values[-10:], whole=False)[1] > 1000
    assert find_limits(np.array([2.0, 2.0]), whole=False) == pytest.approx((1.9, 2.1))


def test_a_histogram_counts_and_keeps_what_is_outside():
    curve = make_histogram("a", np.array([0.1, 0.2, 0.7, -5.0]), np.array([0.0, 0.5, 1.0]))
    assert curve.x.tolist() == [0, 0, 0.5, 0.5, 1, 1]
    assert curve.y.tolist() == [0, 3, 3, 1, 1, 0]


def test_curves_lie_where_their_values_are(tmp_path):
    curves = [Curve("flat", [0, 10], [1.0, 1.0]), Curve("lower", [0, 10], [0.0, 0.0])]
    picture = write_plots(tmp_path / "plot.png", [Chart("t", "steps", curves)], "", columns=1)
    np.testing.assert_array_equal(picture, np.asarray(Image.open(tmp_path / "plot.png")))
    rows = {colour: np.flatnonzero((picture == colour).all(-1).sum(1) > 300) for colour in
            (YELLOW, CYAN)}  # fmt: skip
    # Of the range of -0.05 to 1.05 they are 1 / 1.1 apart.
    assert np.mean(rows[CYAN]) - np.mean(rows[YELLOW]) == pytest.approx(PLOT_PX[1] / 1.1, abs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


def test_a_name_has_one_colour_in_all_charts(tmp_path):
    flat, lower = (Curve(name, [0, 10], [y, y]) for name, y in (("flat", 1.0), ("lower", 0.0)))
    charts = [Chart("t", "steps", [flat, lower]), Chart("t", "steps", [lower])]
    picture = write_plots(tmp_path / "plot.png", charts, "")
    second = picture[:, picture.shape[1] // 2 :]
    assert (second == CYAN).all(-1).sum() > 300
    assert not (second == YELLOW).all(-1).any()


def test_charts_stand_in_columns_and_one_point_is_seen(tmp_path):
    chart = Chart("t", "x", [Curve("one", [3], [4])], marks={"here": 3})
    one = write_plots(tmp_path / "1.png", [chart], "", columns=2)
    two = write_plots(tmp_path / "2.png", [chart] * 2, "", columns=2)
    three = write_plots(tmp_path / "3.png", [chart] * 3, "", columns=2)
    assert (one == YELLOW).all(-1).sum() > 10
    assert two.shape[0] == one.shape[0] and two.shape[1] > 1.9 * one.shape[1]
    assert three.shape[1] == two.shape[1] and three.shape[0] > 1.8 * two.shape[0]
