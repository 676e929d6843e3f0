import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pycocotools", reason="needs the extra [detect]")
pytest.importorskip("albumentations", reason="needs the extra [albumentations]")
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
detection, metrics, detector, noise, search = (
    importlib.import_module(name)
    for name in (
        "detection",
        "detection_metrics",
        "detector",
        "detection_noise",
        "detection_search",
    )
)


def make_samples(truths: list[list[list[float]]], groups: list[int], size: int = 64):
    return detector.Samples(
        images=np.zeros((len(truths), size, size, 1), np.uint8),
        boxes=[np.array(boxes, np.float32).reshape(-1, 4) for boxes in truths],
        labels=[np.zeros(len(boxes), np.int32) for boxes in truths],
        groups=np.array(groups, np.int32),
        has_patients=True,
        classes=("lesion",),
    )


def draw_random_case(seed: int):
    generator = np.random.default_rng(seed)
    truths, detections = [], []
    for _ in range(12):
        corners = generator.uniform(0, 40, (generator.integers(0, 3), 2))
        boxes = np.concatenate([corners, corners + generator.uniform(8, 20, corners.shape)], 1)
        near = boxes + generator.normal(0, 2, boxes.shape)
        far = generator.uniform([0, 0, 30, 30], [30, 30, 60, 60], (3, 4))
        found = np.concatenate([near, far])
        scores = generator.random((len(found), 1))
        truths.append(boxes.tolist())
        detections.append(np.concatenate([found, scores, np.zeros_like(scores)], 1))
    return make_samples(truths, [i // 3 for i in range(12)]), detections


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_pycocotools(seed):
    result = metrics.score(*draw_random_case(seed))
    own = metrics.compute_average_precision(result["matches"])
    assert 0 < own < 1
    assert own == pytest.approx(result["mAP50"], abs=1e-6)


def test_sensitivity_counts_boxes_found_before_the_false_positives_are_passed():
    # Two images, so 1 a image is 2 in all: hits at ranks 1 and 4; the last comes after 3 false.
    matches = [
        {"class": 0, "truths": 2, "scores": [0.9, 0.8, 0.6], "hits": [1, 0, 1]},
        {"class": 0, "truths": 2, "scores": [0.7, 0.5, 0.4], "hits": [0, 0, 1]},
    ]
    assert metrics.measure_sensitivity(matches, images=2) == {
        "sensitivity at 1": pytest.approx(2 / 4),
        "sensitivity at 4": pytest.approx(3 / 4),
    }


def test_resampling_draws_whole_patients_the_same_for_all_results():
    samples, detections = draw_random_case(0)
    result = metrics.score(samples, detections)
    drawn = metrics.resample([result, result], draws=20)
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])
    assert np.ptp(drawn[:, 0, 0]) > 0


def test_comparison_by_hand():
    # Differences 0.1, 0.2, 0.3: mean 0.2, standard error 0.1 / sqrt(3), t(2, 0.975) = 4.3027.
    result = metrics.compare([0.1, 0.2, 0.3], [0.2, 0.4, 0.6])
    half = 4.302653 * 0.1 / 3**0.5
    assert result["mean"] == pytest.approx(0.2)
    assert (result["low"], result["high"]) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-5)
    assert result["p"] == pytest.approx(0.0741799, abs=1e-6)


def test_comparison_of_one_seed_claims_nothing():
    assert metrics.compare([0.1], [0.2]) == {
        "mean": pytest.approx(0.1),
        "low": None,
        "high": None,
        "p": None,
    }


def test_boxes_come_back_from_their_target():
    boxes = np.array([[8, 12, 30, 50], [40, 44, 48, 50]], np.float32)
    target = detector.make_target(boxes, np.array([0, 1]), size=64, classes=2)
    chances, sides = target[..., :2] * (target[..., :2] > 0.999), target[..., 2:6]
    found = detector._list_boxes(chances, sides, size=64, limit=2)
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


def test_fractions_keep_whole_patients_and_are_nested():
    samples = make_samples([[] for _ in range(24)], [i // 3 for i in range(24)])
    small, large = (detection.choose_fraction(samples, share, seed=0) for share in (0.25, 0.5))
    assert (len(small), len(large)) == (6, 12)
    assert set(small.groups) < set(large.groups)


def test_arms():
    assert detection.Arm.parse("real").settings is None
    arm = detection.Arm.parse("classical+sample:ckpt=vector,guard=off,factor=2")
    assert arm.classical
    assert arm.settings == {
        "ckpt": "vector",
        "mode": "sample",
        "p": 0.5,
        "guard": "off",
        "factor": 2.0,
    }
    with pytest.raises(ValueError, match="got 'mixup' in 'classical\\+mixup'"):
        detection.Arm.parse("classical+mixup")


def test_arms_of_a_seed_share_the_order_and_variants_keep_their_image():
    samples = make_samples([[] for _ in range(8)], list(range(8)))
    samples.images[:] = np.arange(8, dtype=np.uint8)[:, None, None, None]
    variants = samples.images[None] + np.uint8(100)
    real, sample = detection.Arm.parse("real"), detection.Arm.parse("sample")
    plain = detection.iterate_batches(samples, None, real, 4, seed=3)
    varied = detection.iterate_batches(samples, variants, sample, 4, seed=3)
    first, second = ([next(each)[0][:, 0, 0, 0] for _ in range(6)] for each in (plain, varied))
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(second) % 100)
    assert 0 < (np.concatenate(second) >= 100).mean() < 1


def test_finished_run_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "run-real-1-0.json"
    path.write_text('{"settings": {"steps": 1}}')
    detection.check_settings(path, {"steps": 1})
    with pytest.raises(ValueError, match="choose another --out"):
        detection.check_settings(path, {"steps": 2})


def test_report_pairs_seeds_and_writes_its_files(tmp_path):
    samples, detections = draw_random_case(1)
    for arm, kept in (("real", 2), ("classical", 5)):
        for seed in (0, 1):
            found = [rows[: kept + seed] for rows in detections]
            test = metrics.score(samples, found) | {"shown": detection._list_shown(found)}
            run = {"arm": arm, "fraction": 1.0, "seed": seed, "settings": {}, "tests": {"t": test}}
            run |= {"training_images": 9, "training_groups": 3, "has_patients": True}
            (tmp_path / f"run-{arm}-1-{seed}.json").write_text(detection.json.dumps(run))
    text = detection.detection_report.write(tmp_path, {"t": samples})
    real, classical = detection.json.loads((tmp_path / "report.json").read_text())["rows"]
    means = [row["metrics"]["mAP50"]["mean"] for row in (real, classical)]
    against = classical["against"]["real"]["mAP50"]
    assert against["mean"] == pytest.approx(means[1] - means[0])
    assert against["seeds"] == 2
    assert f"| `classical` | 2 | {means[1]:.3f} (" in text
    assert {"report.md", "plot.png", "detections.png"} <= {p.name for p in tmp_path.iterdir()}


def test_share_won_back_by_hand():
    # Of 0.4 and 0.4 lost, 0.2 and 0.3 come back.
    clean, noisy, restored = ({"mAP50": values} for values in ([0.5, 0.6], [0.1, 0.2], [0.3, 0.5]))
    assert noise.compare(clean, noisy, restored)["mean"] == pytest.approx((0.5 + 0.75) / 2)
    assert noise.compare(noisy, clean, restored) is None


def test_every_image_is_corrupted_by_a_seed_of_its_own():
    images = np.full((2, 32, 32, 1), 128, np.uint8)
    first, second = noise.corrupt_all(images, "replace", 0.4)
    assert first.dtype == np.uint8 and (first != second).any()
    np.testing.assert_array_equal(noise.corrupt_all(images[:1], "replace", 0.4)[0], first)


def test_searched_arms_differ_and_go_on():
    arms = search.draw_arms(6, 0, "classical+")
    assert len({arm.name for arm in arms}) == 6 and all(arm.classical for arm in arms)
    assert search.draw_arms(3, 0, "classical+") == arms[:3]
    assert arms[0].settings["factor"] in search.CHOICES["factor"]


def test_searched_patients_are_neither_trained_on_nor_all():
    samples = make_samples([[]] * 16, [i // 2 for i in range(16)])
    trained = detection.choose_fraction(samples, 0.25, seed=0)
    judged = search.choose_next(samples, 0.25)
    assert len(np.unique(judged.groups)) == 2
    assert not set(judged.groups) & set(trained.groups)
