from __future__ import annotations

import io
import json
import math
import re
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from rich.console import Console

from vae_aug.codecs.extent import Extent
from vae_aug.config import ModelConfig
from vae_aug.engines import engine
from vae_aug.errors import RecordError
from vae_aug.evaluate import classical, denoising
from vae_aug.evaluate.denoising import MEASURES, REGIONS, Corruptions, evaluate_denoising
from vae_aug.evaluate.metrics import psnr, r2, ssim
from vae_aug.evaluate.report import format_markdown, print_denoising, write_report
from vae_aug.evaluate.subset import Subset
from vae_aug.model.vae import VAE
from vae_aug.phantoms.phantom import make_phantom
from vae_aug.records.records import make_example, write_records
from vae_aug.train.corrupt import corrupt

SIZE = 32
PATIENTS = ("a", "a", "b", "c", "")


class Identity:
    """A network that changes nothing, so that its figures are those of its input."""

    digest = "0123abcd"

    def __init__(self, image_size=SIZE, gain=1.0, profile="vector"):
        input_size = None if profile == "ladder" else image_size
        self.config = types.SimpleNamespace(
            image_size=image_size, input_size=input_size, profile=profile
        )
        self.gain = gain

    def reconstruct(self, images):
        channels = 1 if self.config.profile == "ladder" else 3
        return tf.repeat(images * self.gain, channels, axis=-1)


IDENTITY = {"identity": Identity()}


@pytest.fixture(autouse=True, scope="module")
def small():
    """Keep two strengths a filter, and small images where no network says how large they are."""
    with pytest.MonkeyPatch.context() as patch:
        for name, (function, parameter, strengths) in classical.METHODS.items():
            patch.setitem(classical.METHODS, name, (function, parameter, strengths[1:3]))
        patch.setattr(denoising, "DEFAULT_SIZE", SIZE)
        yield


def evaluate(
    records, networks, *, limit=None, corruptions=("replace", "blend"), keep=0.4, **options
):
    """Evaluate networks on validation images."""
    noise = Corruptions(corruptions, keep)
    return evaluate_denoising(Subset(records, limit=limit), networks, noise, **options)


def make_phantoms():
    return [make_phantom("abdomen_ct", seed, size=SIZE) for seed in range(len(PATIENTS))]


def make_records(folder, images, boxes, patients):
    examples = [
        make_example(
            image,
            source_id=str(index),
            boxes=rows,
            labels=[0] * len(rows),
            label_names=("lesion",),
            patient=patient,
        )
        for index, (image, rows, patient) in enumerate(zip(images, boxes, patients, strict=True))
    ]
    write_records(examples, folder, "validation", 1, label_names=("lesion",))
    return folder


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    phantoms = make_phantoms()
    boxes = [np.array([[0.25, 0.25, 0.5, 0.75]])] * 4 + [np.zeros((0, 4))]
    folder = tmp_path_factory.mktemp("records")
    return make_records(folder, [p.image for p in phantoms], boxes, PATIENTS)


def test_rows_cover_corruptions_methods_and_regions(records):
    calls = []
    table = evaluate(
        records,
        IDENTITY,
        corruptions=("replace", "speckle"),
        progress=lambda done, total: calls.append((done, total)),
    )
    methods = ["input", *classical.list_methods(), "identity"]
    keys = [(row.corruption, row.method, row.region) for row in table.rows]
    assert keys == [(c, m, r) for c in ("replace", "speckle") for m in methods for r in REGIONS]
    # Five images measured and as many tried filters on, for each of two corruptions.
    assert calls == [(step, 20) for step in range(1, 21)]


def test_values_are_the_metrics_of_these_images(records):
    table = evaluate(records, {"half": Identity(gain=0.5)}, seed=3)
    cleans = [phantom.image / np.float32(255) for phantom in make_phantoms()]
    noisy = [corrupt(x, "replace", 0.4, [3, i]).numpy() for i, x in enumerate(cleans)]
    for name, scale in (("input", 1.0), ("half", 0.5)):
        row = table.get_row("replace", name)
        for measure in (ssim, psnr, r2):
            values = [measure(x, scale * y) for x, y in zip(cleans, noisy, strict=True)]
            estimate = getattr(row, measure.__name__)
            assert estimate.mean == pytest.approx(np.mean(values), abs=1e-5)
            assert estimate.low < estimate.mean < estimate.high
            assert estimate.images == 5
    boxes = table.get_row("replace", "input", "boxes")
    inside = np.zeros((SIZE, SIZE), bool)
    inside[8:16, 8:24] = True
    expected = [psnr(x, y, inside) for x, y in zip(cleans[:4], noisy[:4], strict=True)]
    assert boxes.psnr.images == 4  # the fifth image has no box
    assert boxes.psnr.mean == pytest.approx(np.mean(expected), abs=1e-4)


def test_nothing_lost_is_nothing_to_restore(records):
    table = evaluate(records, IDENTITY, keep=1.0, corruptions=("blend",))
    row = table.get_row("blend", "identity")
    assert row.ssim.mean == pytest.approx(1, abs=1e-6)
    assert row.psnr.mean == 100
    assert row.r2.mean == pytest.approx(1)


def test_a_run_is_reproducible_and_another_seed_differs(records):
    first, again, other = (
        evaluate(records, IDENTITY, corruptions=names, limit=3, seed=seed).rows
        for names, seed in ((["blend"], 1), (["blend", "blend"], 1), (["blend"], 2))
    )
    assert repr(first) == repr(again)
    assert first != other


def test_settings_say_what_was_done(records):
    networks = {"small": Identity(image_size=16), "large": Identity()}
    settings = evaluate(records, networks, limit=4, keep=0.5).to_dict()["settings"]
    assert (settings["images"], settings["image_size"], settings["keep"]) == (4, SIZE, 0.5)
    assert settings["patients"] == 3  # images 0, 1, 2 and 3 of 5: a, a, b, c
    assert settings["networks"]["large"]["rescaled"] == "none"
    assert "from 32 to 16" in settings["networks"]["small"]["rescaled"]
    assert settings["networks"]["small"]["digest"] == "0123abcd"
    assert set(settings["classical"]) == {"replace", "blend"}
    assert settings["classical"]["blend"]["median"]["window_px"] in (5, 9)
    assert settings["classical_chosen_from"]["median"] == {"window_px": [5, 9]}
    assert settings["versions"]["tensorflow"] == tf.__version__


def test_a_network_with_a_smaller_square_loses_what_does_not_fit(records):
    networks = {"small": Identity(image_size=16), "large": Identity()}
    table = evaluate(records, networks, keep=1.0, corruptions=("blend",))
    rows = [table.get_row("blend", name) for name in ("small", "large")]
    assert 0.3 < rows[0].ssim.mean < 0.95 < rows[1].ssim.mean


def test_another_size_is_seen_by_a_ladder_as_it_is(records):
    networks = {"vector": Identity(), "ladder": Identity(profile="ladder")}
    arguments = {"keep": 1.0, "corruptions": ("blend",), "limit": 2}
    table = evaluate(records, networks, size=48, **arguments)
    assert table.settings["image_size"] == 48
    described = table.settings["networks"]
    assert described["ladder"] == {
        "digest": "0123abcd",
        "profile": "ladder",
        "image_size": SIZE,
        "input_size": 48,
        "rescaled": "none",
    }
    assert described["vector"]["input_size"] == SIZE
    assert "from 48 to 32" in described["vector"]["rescaled"]
    rows = [table.get_row("blend", name) for name in networks]
    assert rows[0].ssim.mean < 0.999 and rows[1].ssim.mean == pytest.approx(1, abs=1e-6)
    by_training = evaluate(records, {"ladder": networks["ladder"]}, **arguments)
    assert by_training.settings["image_size"] == SIZE


def test_large_squares_are_seen_in_smaller_batches(records, monkeypatch):
    class Recording(Identity):
        def reconstruct(self, images):
            largest.append(int(images.shape[0]))
            return super().reconstruct(images)

    largest = []
    arguments = {"corruptions": ("blend",), "limit": 4}
    expected = evaluate(records, {"it": Recording()}, **arguments).rows
    monkeypatch.setattr(engine, "MAX_PIXELS", 2 * SIZE**2)
    assert repr(evaluate(records, {"it": Recording()}, **arguments).rows) == repr(expected)
    assert largest == [4, 2]


def test_letterbox_bars_do_not_count(tmp_path):
    """An image half as high as wide fills rows 8 to 24 of the square."""
    image = np.random.default_rng(0).integers(0, 256, (16, 32, 1)).astype(np.uint8)
    make_records(tmp_path, [image], [np.zeros((0, 4))], ["a"])
    table = evaluate(tmp_path, IDENTITY, corruptions=("blend",))
    clean = np.zeros((SIZE, SIZE, 1), np.float32)
    clean[8:24] = image / np.float32(255)
    noisy = corrupt(clean, "blend", 0.4, [0, 0]).numpy()
    row = table.get_row("blend", "identity")
    assert row.psnr.mean == pytest.approx(psnr(clean[8:24], noisy[8:24]), abs=1e-4)
    assert math.isnan(row.psnr.low)  # one patient says nothing of others


def test_colour_and_sixteen_bits_are_seen_as_grey(tmp_path):
    phantom = make_phantom("head_mr", 1, size=SIZE)
    variants = {
        "grey": phantom.image,
        "colour": np.repeat(phantom.image, 3, axis=-1),
        "deep": phantom.image.astype(np.uint16) * 257,
    }
    rows = []
    for name, image in variants.items():
        folder = make_records(tmp_path / name, [image], [phantom.boxes], ["a"])
        rows.append(evaluate(folder, IDENTITY, corruptions=("blend",)).rows)
    for row, *others in zip(*rows, strict=True):
        for other in others:
            assert other.ssim.mean == pytest.approx(row.ssim.mean, abs=1e-5, nan_ok=True)


def test_values_of_12_bits_are_told_of_and_a_range_shows_them(tmp_path):
    image = make_phantom("head_mr", 1, size=SIZE).image
    stored = image.astype(np.uint16) * 16 + 100
    highest = int(stored.max())
    tables = []
    for name, array in (("grey", image), ("stored", stored)):
        make_records(tmp_path / name, [array], [np.zeros((0, 4))], ["a"])
    for name, value_range in (("grey", None), ("stored", None), ("stored", (100, 4180))):
        arguments = {"corruptions": ("blend",), "value_range": value_range}
        tables.append(evaluate(tmp_path / name, IDENTITY, **arguments))
    grey, dark, shown = (table.get_row("blend", "identity").ssim.mean for table in tables)
    assert shown == pytest.approx(grey, abs=1e-5) and abs(dark - grey) > 0.01
    assert tables[0].extent == tables[2].extent == Extent()
    warning = tables[1].extent.describe("evaluate")
    assert f"again with --value-range 0,{highest}, which makes 0 black" in warning
    settings = json.loads(tables[2].to_json())["settings"]
    assert settings["value_range"] == [100, 4180]


def test_out_holds_json_and_figures(records, tmp_path):
    table = evaluate(records, IDENTITY, corruptions=("blend",), out=tmp_path / "new")
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["denoising.json", "denoising_blend.png"]
    content = json.loads((tmp_path / "new/denoising.json").read_text(encoding="utf-8"))
    assert content == table.to_dict()
    assert content["rows"][0]["ssim"]["mean"] == table.rows[0].ssim.mean
    with Image.open(tmp_path / "new/denoising_blend.png") as figure:
        columns = 3 + len(classical.list_methods())
        # Four images, each with a line of images, of enlarged boxes and of errors.
        assert figure.width == 8 + columns * 228 - 4 + 8
        assert figure.height > 4 * 3 * 224


def test_a_figure_shows_boxes_names_and_what_was_measured(records, tmp_path, monkeypatch):
    rows = []
    monkeypatch.setattr(denoising, "write_sheet", lambda path, shown, *_, **__: rows.extend(shown))
    table = evaluate(records, IDENTITY, corruptions=("blend",), limit=1, out=tmp_path)
    (row,) = rows
    headings = [panel.heading for panel in row]
    assert headings[:2] == ["clean", "noisy"] and set(headings[2:]) == {
        *classical.list_methods(),
        *IDENTITY,
    }
    assert [panel.heading for panel in row if not panel.compared] == ["noisy"]
    assert all(len(panel.boxes) == len(panel.names) > 0 for panel in row)
    whole, boxes = (table.get_row("blend", "input", part).ssim.mean for part in ("whole", "boxes"))
    assert row[1].note == f"SSIM whole {whole:.3f}, boxes {boxes:.3f}"


def test_images_without_boxes_make_figures_too(tmp_path):
    image = make_phantom("head_mr", 1, size=SIZE).image
    make_records(tmp_path, [image], [np.zeros((0, 4))], [""])
    table = evaluate(tmp_path, {}, corruptions=("blend",), out=tmp_path / "out")
    row = table.to_dict()["rows"][2]
    assert row["region"] == "boxes"
    assert row["ssim"] == {"mean": None, "low": None, "high": None, "images": 0}
    assert (tmp_path / "out/denoising_blend.png").is_file()


def test_real_networks_restore_into_the_range(records, short_stages, tiny_ladder):
    vae = VAE(ModelConfig(encoder="efficientnet-lite1", image_size=SIZE, latent_dim=8))
    networks = {"vector": vae, "ladder": tiny_ladder}
    table = evaluate(records, networks, corruptions=("blend",), limit=2, size=40)
    for name in networks:
        row = table.get_row("blend", name)
        assert all(math.isfinite(getattr(row, measure).mean) for measure in MEASURES)
        assert table.settings["networks"][name]["profile"] == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"corruptions": ("salt",)}, "Corruptions are replace"),
        ({"corruptions": ()}, "Corruptions are replace"),
        ({"keep": 0.0}, r"keep must be in \(0, 1\]"),
        ({"limit": 0}, "limit must be in"),
        ({"size": 31}, r"size must be in \[32"),
        ({"value_range": (9, 0)}, r"value_range must be \(low, high\)"),
        ({"networks": {"median": Identity()}}, "must not be named 'median'"),
        ({"networks": {"noisy": Identity()}}, "must not be named 'noisy'"),
    ],
)
def test_bad_arguments(records, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(records, **{"networks": {}, **arguments})


def test_without_patients_images_are_counted_and_resampled(tmp_path):
    phantoms = make_phantoms()[:3]
    boxes = [np.zeros((0, 4))] * 3
    for name, patients in (("none", ("", "", "")), ("one", ("a", "a", "a"))):
        make_records(tmp_path / name, [p.image for p in phantoms], boxes, patients)
        table = evaluate(tmp_path / name, {}, corruptions=("blend",), limit=3)
        settings = table.settings
        assert settings["patients"] is None and "2000 resamples of images" in settings["intervals"]
        estimate = table.get_row("blend", "input").ssim
        assert estimate.low < estimate.mean < estimate.high
        text = format_markdown(table)
        assert "3 images" in text and "[95% interval over images]" in text
        assert "patient" not in text.partition("`")[0]


def test_no_such_split(records):
    with pytest.raises(RecordError, match="no split 'test'"):
        evaluate_denoising(Subset(records, "test"), {})


@pytest.fixture(scope="module")
def table(records):
    return evaluate(records, IDENTITY, keep=1.0)


class TestReport:
    def test_printed(self, table):
        stream = io.StringIO()
        print_denoising(table, Console(file=stream, width=80))
        text = stream.getvalue()
        assert "blend, 100% left: 5 images, 4 patients" in text
        (line,) = [line for line in text.splitlines() if "blend" in line]
        after = text[text.index(line) :].splitlines()
        row = next(line for line in after if "input" in line)
        assert "1.000 [1.000, 1.000]" in row and "100.0 [100.0, 100.0]" in row
        regions = [line for line in after if re.fullmatch(r"│ (whole|body|boxes) [ │]+", line)]
        assert len(regions) == 3 and after.index(regions[0]) < after.index(row)
        assert text.count("identity") == 6 and "…" not in text

    def test_markdown_marks_the_best(self, table):
        text = format_markdown(table)
        assert "| whole | input | **1.000 [1.000, 1.000]** | **100.0 [100.0, 100.0]** |" in text
        assert all(len(line.split("|")) == 7 for line in text.splitlines() if line[:1] == "|")

    def test_files(self, table, tmp_path):
        for name in ("table.json", "table.md"):
            write_report(table, tmp_path / name)
        assert json.loads((tmp_path / "table.json").read_text()) == table.to_dict()
        assert (tmp_path / "table.md").read_text() == format_markdown(table)
        with pytest.raises(ValueError, match=r"expected \.json or \.md; got '\.csv'"):
            write_report(table, tmp_path / "table.csv")
