"""The preview, as a sheet or a page: which images, which variants, which figures."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from fake_vae import BrighteningVAE, ErasingVAE, FakeVAE
from test_page import read_data

from vae_aug.augment.transform import VAEAugment
from vae_aug.evaluate import preview
from vae_aug.evaluate.preview import (
    choose_rows,
    describe_transform,
    make_variants,
    show_variants,
)
from vae_aug.figures.page import is_page
from vae_aug.train.corrupt import corrupt_image
from vae_aug.version import __version__

BOX = np.array([[0.25, 0.25, 0.5, 0.75]], np.float32)


def make_element(index, boxes=1, dtype=tf.uint8):
    return {
        "image": tf.fill([24, 20, 1], tf.cast(100, dtype)),
        "image/source_id": tf.constant(f"source-{index}"),
        "objects": {"bbox": tf.repeat(BOX, boxes, 0), "label": tf.zeros([boxes], tf.int64)},
    }


def make_dataset(box_counts):
    def generate():
        yield from (make_element(index, count) for index, count in enumerate(box_counts))

    signature = {
        "image": tf.TensorSpec((24, 20, 1), tf.uint8),
        "image/source_id": tf.TensorSpec((), tf.string),
        "objects": {
            "bbox": tf.TensorSpec((None, 4), tf.float32),
            "label": tf.TensorSpec((None,), tf.int64),
        },
    }
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


@pytest.mark.parametrize(
    ("box_counts", "count", "expected"),
    [
        ([1, 0, 2, 0, 1, 1], 2, ["0", "5"]),  # the first and the last with a box
        ([0, 1, 0, 1], 5, ["1", "3"]),  # fewer than asked for
        ([0, 0, 0], 2, ["0", "2"]),  # none has a box
        ([1], 3, ["0"]),
    ],
)
def test_rows_are_spread_over_images_with_boxes(box_counts, count, expected):
    chosen = choose_rows(make_dataset(box_counts), count)
    assert [element["image/source_id"].numpy().decode()[7:] for element in chosen] == expected


@pytest.mark.parametrize("dtype", [tf.uint8, tf.uint16])
def test_noise_leaves_the_share_that_it_says(dtype):
    image = tf.fill([200, 200, 1], tf.cast(100, dtype))
    noisy = corrupt_image(image, "replace", 0.4, [1, 0])
    assert noisy.dtype == dtype and noisy.shape == image.shape
    # 40 000 pixels, each kept with 0.4: within 5 standard deviations of 0.0025.
    assert np.mean(noisy == image) == pytest.approx(0.4, abs=0.0125)
    np.testing.assert_array_equal(corrupt_image(image, "replace", 1.0, [1, 0]), image)
    np.testing.assert_array_equal(corrupt_image(image, "replace", 0.4, [1, 0]), noisy)
    assert np.any(corrupt_image(image, "replace", 0.4, [2, 0]) != noisy)


def test_variants_differ_from_each_other_and_come_again():
    augment = VAEAugment(FakeVAE(), seed=0, guard="off")
    variants, report = make_variants(augment, make_element(0), 3)
    assert variants.shape == (3, 24, 20, 1) and variants.dtype == np.uint8
    assert report["fidelity"].shape == (3, 1) and report["augmented"].all()
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.mean(variants[first] != variants[second]) > 0.5
    np.testing.assert_array_equal(make_variants(augment, make_element(0), 3)[0], variants)
    # The first is what a pass over the data set gives.
    np.testing.assert_array_equal(augment(make_element(0))["image"], variants[0])


def test_a_row_has_the_image_its_variants_and_their_figures():
    augment = VAEAugment(BrighteningVAE(), factor=0.2, seed=0, guard="off")
    panels = show_variants(augment, make_element(0, boxes=2), 3, ["cyst"])
    assert [panel.heading for panel in panels] == ["input", "sample 1", "sample 2", "sample 3"]
    assert panels[0].note == "" and all(panel.names == ["cyst"] * 2 for panel in panels)
    # 0.05 brighter, 12.75 of 255, which rounds to 113 of 100: 5.1%.
    assert {int(value) for value in np.unique(panels[1].image)} == {113}
    assert panels[1].note.startswith("change 5.1%, SSIM 0.9")
    assert panels[1].note.splitlines()[1].startswith("fidelity ")
    many = show_variants(augment, make_element(0, boxes=5), 1, ["cyst"])
    assert many[1].note.splitlines()[1].startswith("fidelity of 5 boxes ")


def test_a_row_says_what_the_guard_did_and_what_was_left_alone():
    guarded = VAEAugment(ErasingVAE(), seed=0)
    element = make_element(0)
    noise = np.random.default_rng(0).integers(50, 200, (24, 20, 1)).astype(np.uint8)
    element["image"] = tf.constant(noise)
    assert show_variants(guarded, element, 1, ["cyst"])[1].note.endswith(", guarded 1")
    idle = VAEAugment(BrighteningVAE(), p=0.0, seed=0)
    assert show_variants(idle, element, 1, ["cyst"])[1].note == "left as it is (p 0)"


def test_denoising_has_one_variant():
    augment = VAEAugment(FakeVAE(), mode="denoise", seed=0, guard="off")
    panels = show_variants(augment, make_element(0), 5, ["cyst"])
    assert [panel.heading for panel in panels] == ["input", "denoised"]
    assert np.unique(panels[1].image).tolist() == [50]  # the stand-in makes half of 100


def test_the_caption_names_every_setting():
    network = FakeVAE()
    network.digest, network.checkpoint_name = "0123456789abcdef", "mine"
    augment = VAEAugment(
        network, factor=0.5, detail=0.25, p=0.75, min_fidelity=0.9, value_range=(0, 200), seed=7
    )
    assert describe_transform(augment) == (
        "Checkpoint mine (0123456789ab), mode sample, factor 0.5, detail 0.25, p 0.75, guard paste "
        "below 0.9, value range 0 to 200, seed 7, engine tensorflow."
    )
    augment = VAEAugment(FakeVAE(), mode="denoise", guard="off")
    assert "detail 0, p 1, guard off, value range of the dtype" in describe_transform(augment)


def test_the_sheet_has_a_row_for_each_image_and_all_of_the_caption(tmp_path, monkeypatch):
    written = {}
    monkeypatch.setattr(
        preview,
        "write_sheet",
        lambda path, rows, caption, **options: written.update(
            {"rows": rows, "caption": caption, **options}
        ),
    )
    augment = VAEAugment(BrighteningVAE(), seed=0, value_range=(0, 200))
    elements = [make_element(index) for index in range(2)]
    preview.write_preview(
        tmp_path / "sheet.png", elements, augment, label_names=["cyst"], count=2, caption="Mine."
    )
    assert [len(row) for row in written["rows"]] == [3, 3]
    assert describe_transform(augment) in written["caption"] and "Mine." in written["caption"]
    assert written["value_range"] == (0, 200) and written["label_names"] == ["cyst"]
    shown = "".join(panel.heading + panel.note for row in written["rows"] for panel in row)
    assert "source-" not in shown + written["caption"]


def test_a_page_has_the_boxes_of_the_records_and_what_the_transform_reports(tmp_path):
    path = tmp_path / "page.html"
    augment = VAEAugment(BrighteningVAE(), factor=0.2, seed=0, value_range=(0, 200))
    elements = [make_element(index, boxes=index) for index in range(3)]
    preview.write_preview(path, elements, augment, label_names=["cyst"], count=2)
    text = path.read_text()
    assert "source-" not in text
    data = read_data(text)
    assert [case["boxes"] for case in data["cases"]] == [BOX.tolist() * n for n in range(3)]
    assert data["cases"][2]["labels"] == [0, 0] and data["classes"][0]["name"] == "cyst"
    for element, case in zip(elements, data["cases"], strict=True):
        _, report = make_variants(augment, element, 2)
        first, *states = case["states"]
        assert first["heading"] == "input" and "fidelity" not in first
        assert [state["heading"] for state in states] == ["sample 1", "sample 2"]
        for number, state in enumerate(states):
            assert state["note"].startswith("change 5%, SSIM 0.9")  # 10 of 200
            for name in ("fidelity", "contrast", "guarded"):
                # The image has one value, so no box has a contrast.
                told = [None if np.isnan(value) else value for value in report[name][number]]
                assert state[name] == told
    settings = {"mode": "sample", "factor": "0.2", "seed": "0", "value range": "0 to 200"}
    settings |= {"digest": "fake", "vae_aug": __version__}
    assert data["settings"].items() >= settings.items()
    for part in ("SSIM of a box with its margin", "Contrast left: "):
        assert part in data["explanation"]


@pytest.mark.parametrize("name", ["page.html", "page.htm", "PAGE.HTML", "a.b/page.html"])
def test_the_end_of_a_name_makes_a_page(name):
    assert is_page(name) and not is_page(f"{name}.png") and not is_page("html")
