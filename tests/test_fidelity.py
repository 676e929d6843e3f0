"""Boxes are counted, judged, and harmed ones noticed."""

from __future__ import annotations

import json

import pytest
from fake_vae import BrighteningVAE, ErasingVAE
from PIL import Image
from test_augment_records import LABELS, make_image, write_data
from typer.testing import CliRunner

from vae_aug import cli
from vae_aug.cli import calls
from vae_aug.errors import RecordError
from vae_aug.evaluate.fidelity import BoxFidelity, make_charts, measure_box_fidelity
from vae_aug.evaluate.subset import Subset
from vae_aug.evaluate.sweep import Sweep
from vae_aug.records.records import make_example, write_records


@pytest.fixture
def records(tmp_path):
    return write_data(tmp_path / "records")


def test_a_network_that_erases_is_caught_and_undone(records, tmp_path):
    measured = Subset(records, "train"), ErasingVAE()
    (harmed,) = measure_box_fidelity(*measured, Sweep((1.0,), guard="off"), modes=("sample",))
    assert (harmed.boxes, harmed.guarded, harmed.below) == (3, 0, 3) and harmed.lowest < 0.5
    (undone,) = measure_box_fidelity(
        *measured, Sweep((1.0,), guard="paste"), modes=("sample",), out=tmp_path / "out"
    )
    assert (undone.boxes, undone.guarded, undone.below) == (3, 3, 0)
    assert undone.lowest == pytest.approx(1)
    written = json.loads((tmp_path / "out" / "fidelity.json").read_text())
    assert written["rows"][0]["guarded"] == 3 and written["settings"]["images"] == 3
    with Image.open(tmp_path / "out" / "fidelity.png") as plot:
        assert plot.width > 400


def test_histograms_are_by_label_and_mode_the_most_frequent_label_first():
    rows = [make_row(mode, factor) for mode in ("sample", "denoise") for factor in (0.5, 2.0)]
    found = [{1: [0.9, 0.95], 0: [1.0]}, {1: [0.6, 0.9], 0: [1.0]}, {1: [1.0]}, {1: [1.0]}]
    charts = make_charts(rows, found, ("cyst", "stone"), 0.8)
    assert [chart.title for chart in charts] == [
        "stone, sample: boxes",
        "stone, denoise: boxes",
        "cyst, sample: boxes",
        "cyst, denoise: boxes",
    ]
    weak, strong = charts[0].curves
    assert (weak.name, strong.name) == ("factor 0.5", "factor 2") and strong.x[0] == 0.6
    # 40 bins of 0.01 from 0.6: what is on an edge is in the bin above it, 1 in the last one.
    assert strong.y.sum() == 2 * 2 and strong.y[1:3].tolist() == [1, 1]
    assert charts[3].curves[0].y.sum() == 0 and charts[0].marks == {"guard": 0.8}


def make_row(mode, factor):
    return BoxFidelity(mode, factor, 1, 0, 1.0, 0, None, 0.0)


def test_every_mode_and_factor_has_a_row_and_progress_counts_to_the_end(records):
    seen = []
    rows = measure_box_fidelity(
        Subset(records, "train"),
        BrighteningVAE(),
        Sweep((0.1, 0.2)),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [(row.mode, row.factor) for row in rows] == [
        (mode, factor) for mode in ("sample", "interpolate", "denoise") for factor in (0.1, 0.2)
    ]
    assert seen == [(number, 18) for number in range(1, 19)]


def test_the_transform_takes_the_value_range(records, tmp_path):
    measured = Subset(records, "train"), BrighteningVAE()
    options = {"modes": ("sample",), "out": tmp_path / "out"}
    (whole,) = measure_box_fidelity(*measured, Sweep((0.2,), guard="off"), **options)
    sweep = Sweep((0.2,), guard="off", value_range=(0, 40))
    (part,) = measure_box_fidelity(*measured, sweep, **options)
    # Brighter by a share of 40 instead of 255.
    assert part.lowest > whole.lowest
    written = json.loads((tmp_path / "out" / "fidelity.json").read_text())
    assert written["settings"]["value_range"] == [0, 40]


def test_a_limit_spaces_images_evenly(records):
    (row,) = measure_box_fidelity(
        Subset(records, "train", 2), BrighteningVAE(), Sweep((0.1,)), modes=("sample",)
    )
    assert row.boxes == 1  # images 0 and 1 have no box and one
    assert row.guarded == 0
    assert row.contrast_kept == 1.0


def test_a_split_without_content_is_an_error(tmp_path):
    example = make_example(
        make_image(20, 20), source_id="a", boxes=[], labels=[], label_names=LABELS
    )
    write_records([example], tmp_path / "records", "train", label_names=LABELS)
    with pytest.raises(RecordError, match="has no box that can be judged"):
        measure_box_fidelity(
            Subset(tmp_path / "records", "train"),
            BrighteningVAE(),
            Sweep((0.1,)),
            modes=("sample",),
        )


@pytest.mark.parametrize(("guard", "status"), [("paste", 0), ("off", 1)])
def test_the_command_fails_if_a_box_is_harmed(records, monkeypatch, guard, status):
    monkeypatch.setattr(calls, "load_checkpoint", lambda name: ErasingVAE())
    options = ["--mode", "sample", "--factor", "1", "--guard", guard]
    result = CliRunner().invoke(cli.app, ["evaluate", "fidelity", str(records), *options])
    assert result.exit_code == status
    assert "sample" in result.stdout
