import dataclasses
import json
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

pytest.importorskip("pycocotools", reason="needs the extra [detect]")
pytest.importorskip("albumentations", reason="needs the extra [albumentations]")
sys.path.insert(0, str(ROOT))
from benchmarks.detection import __main__ as command
from benchmarks.detection import arms, detector, plans, runs, samples, variants
from vae_aug.ingest.ingest import ingest

PAGES = ("benchmarks/README.md", "docs/when-to-use.md")


def make_samples(count: int = 24, size: int = 64) -> samples.Samples:
    """Make images of three to a patient, the first half of hospital A, each with one bright box."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 60, (count, size, size, 1)).astype(np.uint8)
    boxes = []
    for image in images:
        top, left = generator.integers(0, size - 24, 2)
        image[top : top + 20, left : left + 24] += 150
        boxes.append(np.float32([[top, left, top + 20, left + 24]]))
    return samples.Samples(
        images=images,
        boxes=boxes,
        labels=[np.zeros(1, np.int32)] * count,
        groups=np.arange(count, dtype=np.int32) // 3,
        sites=np.array(["A"] * (count // 2) + ["B"] * (count // 2)),
        has_patients=True,
        classes=("lesion",),
    )


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Return a COCO file of 72 images of 24 patients, whose names begin with their hospital."""
    folder = tmp_path_factory.mktemp("coco")
    whole = make_samples(72)
    samples.write_coco(whole, folder)
    path = folder / "all.json"
    content = json.loads(path.read_text())
    for image, site in zip(content["images"], whole.sites, strict=True):
        image["patient"] = f"{site}-{image['patient']}"
        image["modality"] = "MR" if image["id"] % 3 else "CT"
    path.write_text(json.dumps(content))
    return path


# --- Samples -----------------------------------------------------------------------------------


def test_coco_is_read_with_its_boxes_patients_and_sites(coco):
    source = samples.Source((str(coco),), 64, site=("patient", r"^(\w)-"))
    read, made = samples.read_samples(source), make_samples(72)
    np.testing.assert_array_equal(read.images, made.images)
    np.testing.assert_allclose(np.concatenate(read.boxes), np.concatenate(made.boxes), atol=1e-4)
    assert read.sites.tolist() == made.sites.tolist()
    assert len(np.unique(read.groups)) == 24 and read.has_patients
    assert read.classes == ("lesion",)


def test_a_set_cut_around_its_lesions_is_laid_out_at_random_and_always_alike(coco):
    plain = samples.Source((str(coco),), 64)
    placed = dataclasses.replace(plain, placed=True)
    read, again = samples.read_samples(placed), samples.read_samples(placed)
    np.testing.assert_array_equal(read.images, again.images)
    corners = np.concatenate(read.boxes)
    sides = (corners[:, 2] - corners[:, 0]) / 20
    assert 0.64 < sides.min() < 0.8 < sides.max() <= 1
    # The box is still where the bright pixels are.
    for image, (top, left, bottom, right) in zip(read.images, np.rint(corners), strict=True):
        inside = image[int(top) + 1 : int(bottom) - 1, int(left) + 1 : int(right) - 1]
        assert inside.min() > 120


def test_images_are_chosen_by_a_field(coco):
    source = samples.Source((str(coco),), 64, where={"modality": "CT"})
    assert len(samples.read_samples(source)) == 24
    with pytest.raises(ValueError, match=r"no image with \{'modality': 'PET'\}"):
        samples.read_samples(dataclasses.replace(source, where={"modality": "PET"}))


def test_white_is_what_the_source_says(tmp_path):
    Image.fromarray(np.full((8, 8), 1024, np.uint16)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": [],
        "categories": [{"id": 1, "name": "x"}],
    }
    path = tmp_path / "all.json"
    path.write_text(json.dumps(content))
    values = [
        samples.read_samples(samples.Source((str(path),), 8, white)).images.max()
        for white in (None, 2048.0)
    ]
    assert values == [4, 128]  # 255 * 1024 / 65535 and / 2048, rounded to even
    assert not samples.read_samples(samples.Source((str(path),), 8)).has_patients


def test_an_image_that_is_missing_is_named(tmp_path):
    image = {"id": 1, "file_name": "gone.png", "width": 8, "height": 8}
    content = {"images": [image], "annotations": [], "categories": []}
    (tmp_path / "all.json").write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        samples.read_samples(samples.Source((str(tmp_path / "all.json"),), 8))


def test_records_are_read_as_their_coco_file(coco, tmp_path):
    ingest(coco, tmp_path / "records", format="coco", split="train", leak_check=False)
    read = samples.read_samples(samples.Source((str(tmp_path / "records"),), 64))
    made = samples.read_samples(samples.Source((str(coco),), 64))
    order = np.lexsort(read.images.reshape(72, -1).T), np.lexsort(made.images.reshape(72, -1).T)
    np.testing.assert_array_equal(read.images[order[0]], made.images[order[1]])
    for mine, other in zip(*order, strict=True):
        np.testing.assert_allclose(read.boxes[mine], made.boxes[other], atol=1e-3)
        np.testing.assert_array_equal(read.labels[mine], made.labels[other])
    assert set(read.sites) == {"train"} and len(np.unique(read.groups)) == 24


# --- Plans -------------------------------------------------------------------------------------


def make_plan(coco: Path, **changes) -> plans.Plan:
    return plans.Plan(
        name="test",
        source=samples.Source((str(coco),), 64, site=("patient", r"^(\w)-")),
        training=plans.Training(share=0.25, sites=("A",), steps=2, batch_size=2, variants=1),
        tests={"other hospital": ("B",), "same hospital": ("A",)},
        arms=("real", "classical"),
        seeds=2,
        primary=plans.Primary("other hospital", "classical", "real"),
        **changes,
    )


def test_a_plan_is_read_as_it_was_written(coco, tmp_path):
    plan = make_plan(coco, views=("rician:3>filter",), reason="power")
    (tmp_path / "plan.json").write_text(plan.to_json())
    assert plans.read_plan(tmp_path / "plan.json", Path()) == plan


def test_a_plan_with_an_unknown_field_is_refused(coco, tmp_path):
    content = json.loads(make_plan(coco).to_json())
    (tmp_path / "plan.json").write_text(json.dumps({**content, "epochs": 3}))
    with pytest.raises(ValueError, match="epochs"):
        plans.read_plan(tmp_path / "plan.json", Path())


def test_seeds_choose_other_training_patients_which_no_test_has(coco):
    plan = make_plan(coco)
    whole = samples.read_samples(plan.source)
    chosen = [plans.choose_training_groups(whole, plan.training, seed) for seed in range(4)]
    assert {len(groups) for groups in chosen} == {3}
    assert len({tuple(groups) for groups in chosen}) > 1
    for groups in chosen:
        assert set(whole.of_groups(groups).sites) == {"A"}
        tests = plans.make_tests(whole, plan.tests, groups)
        # Nine patients are left of the same hospital, which are too few.
        assert list(tests) == ["other hospital"]
        assert not set(tests["other hospital"].groups) & set(groups)


def test_the_plan_of_own_data_tests_on_other_patients_and_on_other_files():
    plan = plans.make_plan(
        [Path("a.json"), Path("b.json")],
        ["a", "b"],
        arms=["real", "classical", "classical+sample"],
        seeds=4,
        size=64,
        white=None,
        share=0.5,
    )
    assert plan.tests == {"other patients of a": ("a",), "b": ("b",)}
    assert plan.primary == plans.Primary("other patients of a", "classical+sample", "classical")


def test_printed_commands_are_those_that_there_are(monkeypatch):
    texts = [(ROOT / name).read_text() for name in PAGES] + [command.__doc__]
    lines = [
        line.partition("#")[0].strip().replace("[MORE ...]", "")
        for text in texts
        for line in re.findall(r"python -m benchmarks\.detection ((?:[^`\n\\]|\\\n)+)", text)
    ]
    assert len(lines) >= 7
    for line in lines:
        monkeypatch.setattr(sys, "argv", ["detection", *line.replace("\\\n", " ").split()])
        command.parse_arguments()


# --- Arms --------------------------------------------------------------------------------------


def test_arms():
    assert arms.Arm.parse("real") == arms.Arm("real", (), ())
    arm = arms.Arm.parse("sample:ckpt=vector,guard=off,factor=2+strong+style")
    assert arm.changes == ("style", "strong")
    assert arm.parts == (
        arms.Part("sample", {"ckpt": "vector", "p": 0.5, "guard": "off", "factor": 2.0}),
    )
    with pytest.raises(ValueError, match="got 'mixup' in 'classical\\+mixup'"):
        arms.Arm.parse("classical+mixup")
    with pytest.raises(ValueError, match="sum to more than 1"):
        arms.Arm.parse("noisy:p=0.7+restored:p=0.4")


def number_images(count: int) -> samples.Samples:
    numbered = make_samples(count)
    numbered.images[:] = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return numbered


def list_first_pixels(batches, count: int) -> np.ndarray:
    return np.concatenate([next(batches)[0][:, 0, 0, 0] for _ in range(count)])


def test_arms_of_a_seed_share_the_order_and_variants_keep_their_image():
    numbered = number_images(8)
    drawn = [numbered.images[None] + np.uint8(offset) for offset in (100, 200)]
    mixed = arms.Arm.parse("noisy:p=0.25+restored:p=0.25")
    plain = arms.iterate_batches(numbered, arms.Arm.parse("real"), [], 4, seed=3)
    varied = arms.iterate_batches(numbered, mixed, drawn, 4, seed=3)
    first, second = (list_first_pixels(each, 100) for each in (plain, varied))
    np.testing.assert_array_equal(first, second % 100)
    # Three standard deviations of 400 draws.
    for kind, share in ((0, 0.5), (1, 0.25), (2, 0.25)):
        assert abs((second // 100 == kind).mean() - share) < 3 * (share * (1 - share) / 400) ** 0.5


def test_every_pass_shows_every_image_once_whatever_the_batch():
    numbered = number_images(6)
    batches = arms.iterate_batches(numbered, arms.Arm.parse("real"), [], 4, seed=0)
    shown = list_first_pixels(batches, 6).reshape(4, 6)
    assert all(sorted(each) == list(range(6)) for each in shown.tolist())


# --- Variants ----------------------------------------------------------------------------------


def test_variants_are_made_once(tmp_path, monkeypatch):
    made = make_samples(4)
    part = arms.Part("noisy", {"p": 0.5})
    drawn = variants.make_variants(part, made, 2, tmp_path)
    assert drawn.shape == (2, *made.images.shape) and drawn.dtype == np.uint8
    assert (drawn[0] != drawn[1]).any()
    monkeypatch.setattr(variants, "draw_variants", lambda *_: pytest.fail("made again"))
    again = variants.make_variants(arms.Part("noisy", {"p": 0.1}), made, 2, tmp_path)
    np.testing.assert_array_equal(drawn, again)


def test_variants_of_the_vae_are_its_transforms(tmp_path, monkeypatch):
    seen = []

    class FakeAugment:
        def __init__(self, ckpt, **options):
            seen.append((ckpt, options))

        def __call__(self, dataset):
            return dataset.map(lambda e: {**e, "image": e["image"] + 1})

    monkeypatch.setattr(variants, "VAEAugment", FakeAugment)
    made = make_samples(4)
    part = arms.Arm.parse("sample:factor=2,count=2").parts[0]
    drawn = variants.make_variants(part, made, 2, tmp_path)
    np.testing.assert_array_equal(drawn, np.stack(2 * [made.images + 1]))
    assert [ckpt for ckpt, _ in seen] == ["demo"] * 2
    assert [options["seed"] for _, options in seen] == [0, 1]
    assert seen[0][1]["factor"] == 2 and seen[0][1]["mode"] == "sample"
    assert not {"p", "count"} & set(seen[0][1])


def test_a_view_is_corrupted_and_then_restored(tmp_path, monkeypatch):
    made = make_samples(2)
    monkeypatch.setattr(
        variants, "make_restorer", lambda by, images: lambda noisy: np.uint8(noisy // 2)
    )
    noisy = variants.make_view(made, "rician:3", tmp_path).images
    restored = variants.make_view(made, "rician:3>filter", tmp_path).images
    assert (noisy != made.images).any()
    np.testing.assert_array_equal(restored, noisy // 2)
    np.testing.assert_array_equal(
        variants.make_view(made, ">filter", tmp_path).images, made.images // 2
    )


# --- Runs --------------------------------------------------------------------------------------


def make_small_detector(size: int, classes: int, seed: int) -> keras.Model:
    """Stand in for the detector, whose graph takes most of a short run's time."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((size, size, 1))
    x = keras.layers.Rescaling(1 / 255)(keras.layers.AveragePooling2D(detector.STRIDE)(image))
    return keras.Model(image, keras.layers.Conv2D(classes + 4, 3, padding="same")(x))


@pytest.fixture(scope="module")
def finished(coco, tmp_path_factory):
    """Return a plan and the folder of two runs of it."""
    plan = make_plan(coco, views=("gaussian:3",))
    out = tmp_path_factory.mktemp("runs")
    command.keep_plan(plan, out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "make_detector", make_small_detector)
        runs.run_plan(plan, out, processes=1, seeds=[1])
    return plan, out


@pytest.mark.slow
def test_a_detector_is_trained_in_a_process_of_its_own(coco, tmp_path):
    training = plans.Training(share=0.25, sites=("A",), steps=2, batch_size=2)
    plan = dataclasses.replace(make_plan(coco), training=training, arms=("real",))
    runs.run_plan(plan, tmp_path / "two", processes=2, seeds=[0])
    run = json.loads((tmp_path / "two" / "run-real-0.json").read_text())
    weights = (tmp_path / "two" / "run-real-0.weights.h5").stat().st_size
    assert run["training_images"] == 9 and weights > 1e6


def test_runs_are_written_and_reported(finished):
    plan, out = finished
    real, classical = (json.loads((out / f"run-{arm}-1.json").read_text()) for arm in plan.arms)
    assert real["settings"] == plan.describe_settings()
    assert real["groups"] == classical["groups"] and real["training_groups"] == 3
    assert set(real["tests"]) == {"other hospital", "other hospital|gaussian:3"}
    text = command.write_report([out])
    assert "1 of 2 planned seeds" in text
    assert {"report.md", "forest.png", "detections.png"} <= {p.name for p in out.iterdir()}


def test_finished_runs_are_not_repeated_and_those_of_other_settings_refused(finished):
    plan, out = finished
    before = {path: path.stat().st_mtime_ns for path in out.glob("run-*.json")}
    runs.run_plan(plan, out, processes=1, seeds=[1])
    assert {path: path.stat().st_mtime_ns for path in out.glob("run-*.json")} == before
    other = dataclasses.replace(plan, training=dataclasses.replace(plan.training, steps=3))
    with pytest.raises(ValueError, match="other settings of training"):
        runs.run_plan(other, out, processes=1, seeds=[1])
    with pytest.raises(ValueError, match="another plan"):
        command.keep_plan(other, out)


# --- Detector ----------------------------------------------------------------------------------


def test_boxes_come_back_from_their_target():
    boxes = np.array([[8, 12, 30, 50], [40, 44, 48, 50]], np.float32)
    target = detector.make_target(boxes, np.array([0, 1]), size=64, classes=2)
    chances, sides = target[..., :2] * (target[..., :2] > 0.999), target[..., 2:6]
    found = detector.list_boxes(chances, sides, size=64, limit=2)
    by_label = found[np.argsort(found[:, 5])]
    np.testing.assert_allclose(by_label[:, :4], boxes, atol=1e-3)
    np.testing.assert_allclose(target[..., -1].sum(), 2, rtol=1e-5)


def test_loss_is_small_at_the_target_and_finite_without_boxes():
    boxes = np.array([[8, 12, 30, 50]], np.float32)
    for marks in (boxes, boxes[:0]):
        labels = np.zeros(len(marks), np.int32)
        target = detector.make_target(marks, labels, size=64, classes=1)[None]
        logits = np.where(target[..., :1] > 0.999, 12.0, -12.0)
        sides = np.log(np.maximum(target[..., 1:5], 1e-6))
        right = np.concatenate([logits, sides], -1).astype(np.float32)
        wrong = np.concatenate([-logits, sides + 1], -1).astype(np.float32)
        assert 0 <= float(detector.compute_loss(target, right)) < 0.01
        assert float(detector.compute_loss(target, wrong)) > 1


def test_the_page_for_users_is_what_the_kept_reports_say(tmp_path, monkeypatch):
    written = command.PAGE.read_text()
    template = command.PAGE.with_name("when-to-use.md.in")
    (tmp_path / template.name).write_text(template.read_text())
    monkeypatch.setattr(command, "PAGE", tmp_path / command.PAGE.name)
    assert command.write_page() == written
