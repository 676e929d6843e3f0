import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("pycocotools", reason="needs the extra [detect]")
sys.path.insert(0, str(Path(__file__).parents[1]))
inference, metrics, pictures = (
    importlib.import_module(f"benchmarks.detection.{name}")
    for name in ("inference", "metrics", "pictures")
)


class Truth:
    """What `metrics.score` reads of samples."""

    def __init__(self, boxes, labels, groups, classes=("lesion",)):
        self.boxes = [np.array(each, np.float32).reshape(-1, 4) for each in boxes]
        self.labels = [np.array(each, np.int32) for each in labels]
        self.groups = np.array(groups, np.int32)
        self.classes = classes

    def __len__(self):
        return len(self.boxes)


def draw_case(seed: int, images: int = 12, classes: int = 1, a_group: int = 3):
    """Boxes at random; some detections near them, some far off."""
    generator = np.random.default_rng(seed)
    truths, kinds, detections = [], [], []
    for _ in range(images):
        corners = generator.uniform(0, 40, (generator.integers(0, 3), 2))
        boxes = np.concatenate([corners, corners + generator.uniform(8, 20, corners.shape)], 1)
        labels = generator.integers(0, classes, len(boxes))
        near = boxes + generator.normal(0, 2, boxes.shape)
        far = generator.uniform([0, 0, 30, 30], [30, 30, 60, 60], (3, 4))
        marks = np.concatenate([labels, generator.integers(0, classes, 3)])
        scores = generator.random(len(marks))
        truths.append(boxes.tolist())
        kinds.append(labels)
        detections.append(
            np.concatenate([np.concatenate([near, far]), scores[:, None], marks[:, None]], 1)
        )
    groups = [10 + i // a_group for i in range(images)]
    return Truth(truths, kinds, groups, tuple(map(str, range(classes)))), detections


@pytest.mark.parametrize(("seed", "classes"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_weights_of_one_give_the_precision_of_pycocotools(seed, classes):
    result = metrics.score(*draw_case(seed, classes=classes))
    patients = metrics.list_patients([result])
    values = metrics.weigh(result, patients, np.ones((2, len(patients))))
    assert 0 < result["mAP50"] < 1
    np.testing.assert_allclose(values[:, 0], result["mAP50"], atol=1e-6)
    names = metrics.METRICS[2:]
    np.testing.assert_allclose(values[0, 1:3], [result[name] for name in names])
    own = metrics.compute_average_precision(result["matches"])
    assert own == pytest.approx(result["mAP50"], abs=1e-6)


@pytest.mark.parametrize("classes", [1, 2])
def test_weights_count_patients_as_often_as_pycocotools_would_see_their_copies(classes):
    truth, detections = draw_case(5, classes=classes)
    weights = np.array([[2, 0, 1, 3]])
    order = [i for group, times in enumerate(weights[0]) for _ in range(times) for i in range(12)
             if truth.groups[i] == 10 + group]  # fmt: skip
    copies = Truth(
        [truth.boxes[i] for i in order],
        [truth.labels[i] for i in order],
        truth.groups[order],
        truth.classes,
    )
    expected = metrics.score(copies, [detections[i] for i in order])
    result = metrics.score(truth, detections)
    value = metrics.weigh(result, np.unique(truth.groups), weights)[0]
    names = ("mAP50", *metrics.METRICS[2:])
    np.testing.assert_allclose(value[:3], [expected[name] for name in names], atol=1e-6)


def test_matches_name_image_and_patient():
    truth, detections = draw_case(0)
    matches = metrics.score(truth, detections)["matches"]
    assert [m["image"] for m in matches] == list(range(12))
    assert [m["group"] for m in matches] == truth.groups.tolist()
    assert sum(m["truths"] for m in matches) == sum(map(len, truth.boxes))


@pytest.mark.parametrize(("seed", "classes"), [(0, 1), (2, 3)])
def test_no_measure_depends_on_the_tail(seed, classes):
    truth, detections = draw_case(seed, classes=classes)
    # Weak detections in a corner, where no box is.
    weak = np.array([[0, 0, 1, 1, 1e-4 * (place + 1), 0] for place in range(5)])
    result = metrics.score(truth, [np.concatenate([rows, weak]) for rows in detections])
    short = metrics.drop_tail(result)
    counts = [sum(len(m["scores"]) for m in each["matches"]) for each in (result, short)]
    assert counts[1] < counts[0]
    patients = metrics.list_patients([result])
    weights = np.random.default_rng(0).integers(0, 3, (20, len(patients)))
    np.testing.assert_array_equal(*(metrics.weigh(r, patients, weights) for r in (result, short)))
    assert pictures.find_threshold(result) == pictures.find_threshold(short)


def test_sensitivity_by_hand():
    # Two images, so 1 an image is 2 in all: hits at ranks 1, 3 and 6; the last comes after 3 false.
    # Patient 0 has one of two boxes, patient 1 two of two, patient 2 has none.
    matches = [
        {"group": 0, "class": 0, "truths": 2, "scores": [0.9, 0.8], "hits": [1, 0]},
        {"group": 1, "class": 0, "truths": 2, "scores": [0.7, 0.6, 0.4], "hits": [1, 0, 1]},
        {"group": 2, "class": 0, "truths": 0, "scores": [0.5], "hits": [0]},
    ]
    assert metrics.measure_sensitivity(matches, images=2) == {
        "sensitivity at 1": pytest.approx(2 / 4),
        "sensitivity at 4": pytest.approx(3 / 4),
    }
    result = {"matches": matches, "images": 2}
    assert metrics.measure_per_patient(result) == {
        "sensitivity per patient at 1": pytest.approx((1 / 2 + 1 / 2) / 2),
        "sensitivity per patient at 4": pytest.approx((1 / 2 + 2 / 2) / 2),
    }


def test_detector_that_finds_nothing_scores_zero():
    truth, detections = draw_case(0)
    result = metrics.score(truth, [rows[:0] for rows in detections])
    assert result["mAP50"] == result["sensitivity at 4"] == 0
    assert metrics.compute_average_precision(result["matches"]) == 0


def test_a_test_without_boxes_has_no_score():
    truth, detections = draw_case(0)
    empty = Truth([[]] * 12, [[]] * 12, truth.groups)
    result = metrics.score(empty, detections)
    assert np.isnan(result["mAP50"]) and np.isnan(result["sensitivity at 1"])
    assert np.isnan(metrics.resample([result], draws=3)).all()


def test_resampling_draws_whole_patients_the_same_for_all_results():
    result = metrics.score(*draw_case(0))
    drawn = metrics.resample([result, result], draws=20)
    assert drawn.shape == (20, 2, len(metrics.RESAMPLED))
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])
    assert np.ptp(drawn[:, 0, 0]) > 0


def test_resampling_lets_results_have_patients_of_their_own():
    truth, detections = draw_case(0)
    half = Truth(truth.boxes[6:], truth.labels[6:], truth.groups[6:])
    whole, part = metrics.score(truth, detections), metrics.score(half, detections[6:])
    drawn = metrics.resample([whole, part], draws=200, seed=3)
    weights = np.random.default_rng(3).multinomial(4, [0.25] * 4, 200)
    only = (weights[:, :2] == 0).all(1)  # none but the patients that both have
    assert only.any() and not only.all()
    np.testing.assert_allclose(drawn[only, 0], drawn[only, 1])
    assert np.isnan(drawn[(weights[:, 2:] == 0).all(1), 1]).all()


def make_scores(values, seeds=None, drawn=None, patients=0):
    seeds = tuple(range(len(values))) if seeds is None else tuple(seeds)
    return inference.Scores(seeds, np.array(values, float), drawn, patients)


def test_comparison_by_hand():
    # Differences 0.1, 0.2, 0.3: mean 0.2, standard error 0.1 / sqrt(3), t(2, 0.975) = 4.3027.
    result = inference.compare(make_scores([0.1, 0.2, 0.3]), make_scores([0.2, 0.4, 0.6]))
    half = 4.302653 * 0.1 / 3**0.5
    assert result["mean"] == pytest.approx(0.2)
    assert (result["low"], result["high"]) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-5)
    assert result["deviation"] == pytest.approx(0.1)
    assert result["p"] == pytest.approx(0.0741799, abs=1e-6)
    assert result["both"] is None


def test_comparison_pairs_seeds_by_number():
    first, second = make_scores([1, 2, 4], seeds=[0, 2, 5]), make_scores([4.5, 9, 2.5], [5, 7, 2])
    result = inference.compare(first, second)
    assert result["seeds"] == [2, 5]
    assert result["mean"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no seed is common"):
        inference.compare(make_scores([1], [0]), make_scores([1], [1]))


def test_comparison_of_one_seed_claims_nothing():
    result = inference.compare(make_scores([0.1]), make_scores([0.2]))
    assert result["mean"] == pytest.approx(0.1)
    assert all(result[key] is None for key in ("low", "high", "deviation", "p"))
    assert inference.decide(result).kind == "unknown"


def test_planned_seeds_alone_are_kept():
    kept = inference.select_planned(make_scores([1, 2, 3], seeds=[0, 3, 4]), 4)
    assert kept.seeds == (0, 3) and kept.values.tolist() == [1, 2]


def simulate_both(generator, seeds: int, patients: int, draws: int = 300):
    """A mean over patients, with effects of seeds, of patients, and noise; the truth is 0."""
    by_patient = generator.normal(0, 0.05, patients) + generator.normal(0, 0.05, (seeds, patients))
    by_patient += generator.normal(0, 0.03, (seeds, 1))
    weights = generator.multinomial(patients, [1 / patients] * patients, draws) / patients
    return by_patient.mean(1), weights @ by_patient.T


def test_interval_over_both_covers_the_truth_where_that_over_seeds_does_not():
    generator = np.random.default_rng(0)
    covered = {"seeds": [], "both": []}
    for number in range(300):
        values, drawn = simulate_both(generator, seeds=12, patients=10)
        none = np.zeros_like(values)
        first, second = make_scores(none, None, 0 * drawn, 10), make_scores(values, None, drawn, 10)
        result = inference.compare(first, second, seed=number)
        covered["seeds"].append(result["low"] <= 0 <= result["high"])
        covered["both"].append(result["both"][0] <= 0 <= result["both"][1])
    assert np.mean(covered["seeds"]) < 0.9
    assert np.mean(covered["both"]) > 0.93


def test_interval_over_both_needs_several_of_both():
    drawn = np.zeros((10, 3))
    assert inference.resample_both(drawn, patients=1) is None
    assert inference.resample_both(drawn[:, :1], patients=5) is None


def test_mixed_model_of_two_arms_is_the_paired_test():
    generator = np.random.default_rng(2)
    first, second = make_scores(generator.random(8)), make_scores(generator.random(8) + 0.2)
    found = inference.MixedModel.fit({"a": first, "b": second}).compare("a", "b")
    paired = inference.compare(first, second)
    for key in ("mean", "low", "high", "p"):
        assert found[key] == pytest.approx(paired[key])


def test_mixed_model_of_three_arms_is_least_squares_on_arms_and_seeds():
    generator = np.random.default_rng(3)
    table = generator.normal(0, 1, (3, 6)) + generator.normal(0, 2, 6) + [[0], [1], [3]]
    arms = {name: make_scores(row) for name, row in zip("abc", table, strict=True)}
    model = inference.MixedModel.fit(arms)
    # The same by dummies: 3 arms and 5 further seeds; the contrast of c and a by its covariance.
    design = np.array([[a == 0, a == 1, a == 2, *(s == n for n in range(1, 6))]
                       for a in range(3) for s in range(6)], float)  # fmt: skip
    target = table.ravel()
    beta, rest, *_ = np.linalg.lstsq(design, target, rcond=None)
    contrast = np.array([-1, 0, 1, 0, 0, 0, 0, 0])
    error = np.sqrt(rest[0] / 10 * contrast @ np.linalg.inv(design.T @ design) @ contrast)
    found = model.compare("a", "c")
    assert model.degrees == 10
    assert found["mean"] == pytest.approx(contrast @ beta)
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(contrast @ beta) / error, 10))
    assert found["high"] - found["mean"] == pytest.approx(stats.t.ppf(0.975, 10) * error)
    assert model.residual == pytest.approx(np.sqrt(rest[0] / 10))


def test_mixed_model_leaves_out_seeds_that_an_arm_lacks():
    arms = {"a": make_scores([1, 2, 4, 9]), "b": make_scores([3, 1, 2], seeds=[1, 2, 8])}
    model = inference.MixedModel.fit(arms)
    assert (model.seeds, model.left_out) == ((1, 2), {"a": 2, "b": 1})
    assert inference.MixedModel.fit({"a": arms["a"]}) is None
    assert inference.MixedModel.fit({"a": arms["a"], "b": make_scores([1], [0])}) is None


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5 by 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5, never falling.
    assert inference.adjust_holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert inference.adjust_holm([0.03, None]) == [pytest.approx(0.06), None]
    assert inference.adjust_holm([]) == []


def test_power_is_that_of_a_simulated_test():
    generator = np.random.default_rng(4)
    rows = generator.normal(0.03, 0.038, (20_000, 15))
    simulated = (stats.ttest_1samp(rows, 0, axis=1).pvalue < 0.05).mean()
    assert inference.compute_power(0.038, 15, 0.03) == pytest.approx(simulated, abs=0.01)
    assert inference.compute_power(0.038, 15, 1e-12) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(("sd", "effect", "seeds"), [(0.038, 0.03, 15), (0.064, 0.03, 38)])
def test_seeds_needed(sd, effect, seeds):
    # Fewer than these could not have shown three points: so the first comparison was found blind.
    assert inference.seeds_needed(sd, effect) == seeds
    assert inference.compute_power(sd, seeds, effect) >= 0.8
    assert inference.compute_power(sd, seeds - 1, effect) < 0.8
    assert inference.detectable(sd, seeds) <= effect < inference.detectable(sd, seeds - 1)


def test_detectable_of_ten_seeds():
    # Deviations of 6.4 and 3.8 points: ten seeds could have shown 6.4 and 3.8 points.
    assert inference.detectable(0.064, 10) == pytest.approx(0.064, abs=0.0015)
    assert inference.detectable(0.038, 10) == pytest.approx(0.038, abs=0.001)


def test_power_table_holds_what_its_functions_say():
    table = inference.power_table(0.03)
    assert table["needed"][0.02] == inference.seeds_needed(0.03, 0.02) == 20
    assert table["detectable"][20] == pytest.approx(0.0199, abs=2e-4)
    text = inference.format_power(0.03)
    assert "| 2 | 20 |" in text and "| 20 | 2.0 |" in text


def test_power_of_large_effects_is_one_and_has_no_warning():
    assert inference.compute_power(0.001, 40, 0.05) == pytest.approx(1)
    assert inference.seeds_needed(0.001, 0.05) == 2
    # The normal approximation, exact for many: (z(0.975) + z(0.8))^2 sd^2 / effect^2.
    exact = (stats.norm.ppf([0.975, 0.8]).sum() * 3 / 0.001) ** 2
    assert inference.seeds_needed(3, 0.001) == pytest.approx(exact, rel=1e-4)
    with pytest.raises(ValueError, match="sd must be over 0"):
        inference.compute_power(0.0, 5, 0.1)


def test_interval_of_a_deviation():
    # 9 degrees of freedom: chi2 2.70 and 19.02.
    low, high = inference.bound_deviation(1.0, 10)
    assert (low, high) == pytest.approx((np.sqrt(9 / 19.0228), np.sqrt(9 / 2.70039)), rel=1e-4)


def make_comparison(mean, half, both=None, count=10):
    # As `compare` would say it of normal differences with such an interval.
    deviation = half * np.sqrt(count) / stats.t.ppf(0.975, count - 1)
    p = float(2 * stats.t.sf(abs(mean) * np.sqrt(count) / deviation, count - 1))
    ends = {"low": mean - half, "high": mean + half}
    return {"mean": mean, **ends, "deviation": deviation, "p": p, "both": both,
            "seeds": list(range(count))}  # fmt: skip


@pytest.mark.parametrize(
    ("mean", "half", "both", "kind", "text"),
    [
        (0.03, 0.02, [0.005, 0.06], "helps", "helps"),
        (0.03, 0.02, [-0.01, 0.06], "helps", "helps; for other patients that is not known"),
        (-0.03, 0.02, [-0.06, -0.001], "harms", "harms"),
        (0.01, 0.005, [0.001, 0.019], "helps", "helps, by less than 2 points"),
        (0.002, 0.01, [-0.01, 0.015], "alike", "no difference larger than 2 points"),
        (0.002, 0.01, [-0.03, 0.03], "alike",
         "no difference larger than 2 points; for other patients that is not known"),
    ],
)  # fmt: skip
def test_verdicts(mean, half, both, kind, text):
    verdict = inference.decide(make_comparison(mean, half, both), 0.02)
    assert (verdict.kind, verdict.text, verdict.more) == (kind, text, None)


def test_verdict_that_is_not_known_says_how_many_seeds_would_tell():
    comparison = make_comparison(0.015, 0.02)
    verdict = inference.decide(comparison, 0.02)
    assert verdict.kind == "unknown"
    assert verdict.text == f"not known; {verdict.more} more seeds would tell"
    seeds = 10 + verdict.more
    halves = [
        stats.t.ppf(0.975, n - 1) * comparison["deviation"] / n**0.5 for n in (seeds - 1, seeds)
    ]
    assert halves[0] >= 0.015 > halves[1]
    # With half of the effect, and so in the middle of the margin, both ends take as long.
    assert inference.decide(make_comparison(0.01, 0.02), 0.02).more > verdict.more


def test_secondary_verdict_goes_by_the_adjusted_p():
    comparison = make_comparison(0.03, 0.028)
    assert inference.decide(comparison).kind == "helps"
    adjusted = inference.decide(comparison, adjusted=6 * comparison["p"], tests=6)
    assert adjusted.kind == "unknown"
    assert adjusted.more >= 1
