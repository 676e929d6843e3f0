import dataclasses
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import stats

pytest.importorskip("pycocotools", reason="needs the extra [detect]")
sys.path.insert(0, str(Path(__file__).parents[1]))
metrics, pictures, report, summary = (
    importlib.import_module(f"benchmarks.detection.{name}")
    for name in ("metrics", "pictures", "report", "summary")
)

BOX = [10.0, 12.0, 30.0, 40.0]


@dataclasses.dataclass
class Samples:
    """A test of images that have one box each; the first patient has the first four, and so on."""

    images: np.ndarray
    boxes: list
    labels: list
    groups: np.ndarray
    classes: tuple = ("lesion",)

    def __len__(self):
        return len(self.images)


def make_samples(count: int = 20, boxes: int = 1) -> Samples:
    return Samples(
        images=np.zeros((count, 64, 64, 1), np.uint8),
        boxes=[np.array([BOX] * boxes, np.float32).reshape(-1, 4)] * count,
        labels=[np.zeros(boxes, np.int32)] * count,
        groups=np.arange(count, dtype=np.int32) // 4,
    )


SAMPLES = make_samples()


def make_result(found: int, samples: Samples = SAMPLES, false: int = 0) -> dict:
    """Score a detector that finds the box of the first images, and has false alarms in others."""
    rows = [np.zeros((0, 6), np.float32) for _ in range(len(samples))]
    for n in range(found):
        rows[n] = np.array([[*BOX, 0.9 - n / 1000, 0]], np.float32)
    for n in range(found, found + false):
        rows[n] = np.array([[40, 40, 60, 60, 0.95, 0]], np.float32)
    shown = {n: np.round(each, 4).astype(float).tolist() for n, each in enumerate(rows)}
    return metrics.score(samples, rows) | {"shown": shown}


def write_run(folder: Path, arm: str, seed: int, tests: dict, **changes) -> Path:
    run = {
        "arm": arm,
        "seed": seed,
        "settings": {"training": {"steps": 600, "batch_size": 8}, "size": 64},
        "training_images": 100 + seed,
        "training_groups": 7,
        "groups": [seed, 100],
        "has_patients": True,
        "seconds": 100,
        "curve": [[1, 2.0]],
        "tests": tests,
    }
    folder.mkdir(exist_ok=True)
    path = folder / f"run-{arm.replace(':', '_')}-{seed}.json"
    path.write_text(json.dumps({**run, **changes}))
    return path


def write_arms(folder: Path, found: dict, test: str = "val") -> None:
    """Write runs of arms that find so many boxes in seeds 0, 1, ..."""
    for arm, counts in found.items():
        for seed, count in enumerate(counts):
            write_run(folder, arm, seed, {test: make_result(count)})


@dataclasses.dataclass
class Primary:
    test: str
    arm: str
    against: str


def make_plan(seeds: int, arm: str = "classical+sample", against: str = "classical"):
    return SimpleNamespace(primary=Primary("val", arm, against), seeds=seeds)


EFFECT = {"classical": [8, 9, 10, 11], "classical+sample": [12, 14, 16, 16]}
"""Boxes found of 20, 4 to 6 more by the second arm."""


def measure(counts) -> np.ndarray:
    """Without false alarms, average precision is the share of COCO's 101 recalls reached."""
    return np.array([(np.linspace(0, 1, 101) <= count / 20).mean() for count in counts])


DIFFERENCES = measure(EFFECT["classical+sample"]) - measure(EFFECT["classical"])
MEAN = DIFFERENCES.mean()


def read(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def find(content: dict, arm: str, base: str, test: str = "val") -> dict:
    entries = content["tests"][test]["differences"]
    return next(entry for entry in entries if (entry["arm"], entry["base"]) == (arm, base))


def test_known_effect_is_reported(tmp_path):
    write_arms(tmp_path, EFFECT)
    text = report.write(tmp_path, {"val": SAMPLES}, make_plan(4))
    content = read(tmp_path)
    entry = find(content, "classical+sample", "classical")
    values = entry["metrics"]["mAP50"]
    half = stats.t.ppf(0.975, 3) * stats.sem(DIFFERENCES)
    assert pytest.approx(0.25, abs=0.01) == MEAN  # five boxes of twenty
    assert entry["primary"] and entry["holm"] is None and entry["verdict"]["kind"] == "helps"
    assert values["mean"] == pytest.approx(MEAN)
    assert (values["low"], values["high"]) == pytest.approx((MEAN - half, MEAN + half))
    assert values["p"] == pytest.approx(stats.ttest_1samp(DIFFERENCES, 0).pvalue)
    assert text.startswith(
        "On val (the primary comparison), `classical+sample` is better than `classical`: "
        f"{100 * MEAN:+.1f} points of mAP50 (95% over 4 seeds: {100 * (MEAN - half):+.1f} to "
    )
    assert "4 of 4 planned seeds." in text
    assert (tmp_path / "report.md").read_text() == text
    for name in ("forest.png", "detections.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 0


def test_mixed_model_of_a_report_is_that_of_its_arms(tmp_path):
    write_arms(tmp_path, {**EFFECT, "strong": [10, 12, 11, 15]})
    report.write(tmp_path)
    content = read(tmp_path)
    model = content["tests"]["val"]["mixed_model"]
    assert model["degrees"] == 2 * 3 and model["left_out"] == {}
    rows = {(row["arm"], row["base"]): row for row in model["differences"]}
    mean = rows["strong", "classical"]["mean"]
    assert mean == pytest.approx((measure([10, 12, 11, 15]) - measure([8, 9, 10, 11])).mean())
    assert find(content, "strong", "classical")["metrics"]["mAP50"]["mean"] == pytest.approx(mean)


def test_secondary_comparisons_are_corrected_for_each_other(tmp_path):
    write_arms(tmp_path, {"real": [5, 7, 8, 6], **EFFECT, "strong": [10, 12, 11, 15]})
    report.write(tmp_path, plan=make_plan(4))
    entries = read(tmp_path)["tests"]["val"]["differences"]
    secondary = [entry for entry in entries if not entry["primary"]]
    assert len(entries) == len(secondary) + 1 == 6
    lowest = min(secondary, key=lambda entry: entry["metrics"]["mAP50"]["p"])
    assert lowest["holm"] == pytest.approx(5 * lowest["metrics"]["mAP50"]["p"])


def test_what_speaks_against_a_vae_is_said_first(tmp_path):
    found = {**EFFECT, "strong": [18, 20, 20, 19], "classical+style": [12, 14, 16, 16]}
    write_arms(tmp_path, found)
    text = report.write(tmp_path, plan=make_plan(4))
    worse, same, better = (
        text.index(part)
        for part in (
            "`classical+sample` is worse than `strong`",
            "`classical+sample` makes no relevant difference to `classical+style`",
            "`classical+sample` is better than `classical`",
        )
    )
    assert worse < same < better < text.index("\n")


def test_interim_report_has_an_estimate_and_no_verdict(tmp_path):
    write_arms(tmp_path, {**EFFECT, "strong": [10, 12, 11, 15]})
    text = report.write(tmp_path, plan=make_plan(6))
    content = read(tmp_path)
    assert text.startswith("Interim, 4 of 6 planned seeds: there is no verdict yet. On val, ")
    assert content["interim"] and content["done"] == 4
    for entry in content["tests"]["val"]["differences"]:
        assert entry["verdict"] is None and entry["holm"] is None
        assert all(values["p"] is None for values in entry["metrics"].values())
    assert all(row["p"] is None for row in content["tests"]["val"]["mixed_model"]["differences"])
    assert "helps" not in text and "is better" not in text
    assert f"{100 * MEAN:+.1f}" in text.splitlines()[0]


def test_interim_report_of_one_arm_of_the_primary_comparison(tmp_path):
    write_arms(tmp_path, {"classical": [3, 4]})
    text = report.write(tmp_path, plan=make_plan(6))
    assert text.startswith("Interim, 0 of 6 planned seeds: there is no verdict yet.\n")


def test_interim_report_before_the_primary_test_was_run(tmp_path):
    write_arms(tmp_path, EFFECT, test="other")
    text = report.write(tmp_path, {"other": SAMPLES}, make_plan(6))
    assert text.startswith("Interim, 0 of 6 planned seeds: there is no verdict yet.\n")
    assert (tmp_path / "detections.png").exists()


def test_runs_beyond_the_plan_do_not_enter_its_primary_comparison(tmp_path):
    write_arms(tmp_path, {"classical": [8, 9, 10, 2], "classical+sample": [12, 14, 16, 20]})
    report.write(tmp_path, plan=make_plan(3))
    values = find(read(tmp_path), "classical+sample", "classical")["metrics"]["mAP50"]
    assert values["seeds"] == [0, 1, 2]
    assert values["mean"] == pytest.approx(DIFFERENCES[:3].mean())


def test_report_without_a_plan_says_so_and_how_many_seeds_would_tell(tmp_path):
    write_arms(tmp_path, {"classical": [8, 12, 10], "classical+sample": [9, 11, 11]})
    text = report.write(tmp_path)
    entry = find(read(tmp_path), "classical+sample", "classical")
    assert entry["verdict"]["kind"] == "unknown" and entry["verdict"]["more"] > 0
    assert f"{entry['verdict']['more']:,} more seeds would tell" in text
    assert "No plan fixed the number of seeds" in text
    assert not (tmp_path / "detections.png").exists()


def test_sensitivity_of_patients_by_hand(tmp_path):
    # 10 of 20 boxes: two patients of five in full, one by half.
    write_arms(tmp_path, {"classical": [10, 10]})
    text = report.write(tmp_path)
    measured = read(tmp_path)["tests"]["val"]["arms"]["classical"]["metrics"]
    assert measured["sensitivity per patient at 1"]["mean"] == pytest.approx((1 + 1 + 0.5) / 5)
    assert measured["sensitivity at 1"]["mean"] == pytest.approx(0.5)
    assert "| `classical` | 0.500 (0.500 to 0.500) |" in text


def test_folders_of_several_machines_are_put_together(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    write_arms(first, EFFECT)
    write_arms(second, {"strong": [10, 12, 11, 15]})
    copied = next(first.glob("run-classical-0.json"))
    (second / copied.name).write_bytes(copied.read_bytes())
    report.write([first, second], out=tmp_path / "out")
    arms = read(tmp_path / "out")["tests"]["val"]["arms"]
    assert list(arms) == ["classical", "strong", "classical+sample"]
    assert all(arm["seeds"] == [0, 1, 2, 3] for arm in arms.values())


def test_other_settings_are_refused_by_name_and_file(tmp_path):
    write_arms(tmp_path, {"classical": [8, 9]})
    settings = {"training": {"steps": 300, "batch_size": 8}, "size": 64}
    write_run(tmp_path, "strong", 0, {"val": make_result(3)}, settings=settings)
    message = r"run-strong-0.json was made with training.steps = 300, and .*run-classical-0.json"
    with pytest.raises(ValueError, match=message):
        report.write(tmp_path)


def test_a_setting_that_one_run_lacks_is_refused(tmp_path):
    write_arms(tmp_path, {"classical": [8]})
    settings = {"training": {"steps": 600}, "size": 64}
    write_run(tmp_path, "strong", 0, {"val": make_result(3)}, settings=settings)
    with pytest.raises(ValueError, match=r"training.batch_size = \(nothing\), and .* = 8"):
        report.write(tmp_path)


def test_one_arm_and_seed_with_two_results_is_refused(tmp_path):
    for name, count in (("a", 3), ("b", 4)):
        write_arms(tmp_path / name, {"classical": [count]})
    with pytest.raises(ValueError, match="both arm 'classical', seed 0, with different results"):
        report.write([tmp_path / "a", tmp_path / "b"])


def test_arms_of_a_seed_must_share_patients_and_images(tmp_path):
    write_arms(tmp_path, {"classical": [8]})
    path = write_run(tmp_path, "strong", 0, {"val": make_result(3)}, groups=[5])
    with pytest.raises(ValueError, match="have one seed, but differ in the training patients"):
        report.write(tmp_path)
    path.unlink()
    write_run(tmp_path, "strong", 0, {"val": make_result(3, make_samples(12))})
    with pytest.raises(ValueError, match="differ in the images of the test 'val'"):
        report.write(tmp_path)


def test_seeds_may_have_test_patients_of_their_own(tmp_path):
    # As where each seed leaves its training patients out of the test.
    part = dataclasses.replace(make_samples(12), groups=np.arange(12) // 4 + 2)
    for arm, count in (("classical", 5), ("classical+sample", 8)):
        for seed, samples in enumerate((SAMPLES, part)):
            write_run(tmp_path, arm, seed, {"val": make_result(count + seed, samples)})
    report.write(tmp_path, lambda run: {"val": (SAMPLES, part)[run["seed"]]})
    content = read(tmp_path)["tests"]["val"]
    assert content["patients"] == 5 and content["images"] == 16
    assert content["differences"][0]["metrics"]["mAP50"]["both"] is not None


def test_files_that_are_no_runs_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no run-"):
        report.write(tmp_path)
    for text in ("{", "[]", '{"arm": "real", "seed": 1, "tests": {}}'):
        (tmp_path / "run-real-1.json").write_text(text)
        with pytest.raises(ValueError, match=r"run-real-1.json is no finished run"):
            report.write(tmp_path)


def test_a_test_without_true_boxes_is_refused(tmp_path):
    write_run(tmp_path, "real", 0, {"val": make_result(0, make_samples(4, boxes=0), false=2)})
    with pytest.raises(ValueError, match="the test 'val' has no true box"):
        report.write(tmp_path)


def test_every_arm_has_its_rivals():
    arms = ["strong+sample", "real", "classical", "strong", "style", "strong+style", "sample"]
    pairs = summary.list_pairs(arms, None)
    bases = {arm: [base for name, base in pairs if name == arm] for arm in arms}
    assert bases["real"] == []
    assert bases["classical"] == ["real"]
    assert bases["strong"] == ["real", "classical"]
    assert bases["strong+style"] == ["real", "classical", "strong"]
    assert bases["strong+sample"] == ["real", "classical", "strong", "strong+style"]
    assert bases["sample"] == ["real", "classical", "strong", "style"]
    noise = ["restored", "restored:by=filter", "noisy"]
    assert summary.list_pairs(noise, ("noisy", "restored:by=filter")) == [
        ("noisy", "restored:by=filter"),
        ("restored", "noisy"),
        ("restored", "restored:by=filter"),
    ]


def test_corruptions_by_hand(tmp_path):
    # P = 1; one corruption at two strengths, the other at one.
    counts = {"val": 20, "val|rician:1": 10, "val|rician:3": 5, "val|bias:1": 15}
    restored = {"val|>demo": 10, "val|rician:1>demo": 10, "val|rician:3>demo": 10}
    for arm, extra in (("classical", 0), ("strong", -1)):
        for seed in (0, 1):
            tests = {
                name: make_result(count + extra)
                for name, count in {**counts, **(restored if arm == "strong" else {})}.items()
            }
            if seed:  # runs need not keep the matches of views
                for name in set(tests) - {"val"}:
                    del tests[name]["matches"], tests[name]["shown"]
            write_run(tmp_path, arm, seed, tests)
    text = report.write(tmp_path)
    content = read(tmp_path)
    assert list(content["tests"]) == ["val"]
    rows = {(r["arm"], r["restorer"]): r for r in content["corruptions"]["val"]["rows"]}
    mean = (measure([10, 5]).mean() + measure([15]).mean()) / 2
    assert rows["classical", ""]["P"]["mean"] == pytest.approx(1)
    assert rows["classical", ""]["mPC"]["mean"] == pytest.approx(mean)
    assert rows["classical", ""]["rPC"]["mean"] == pytest.approx(mean)
    assert rows["classical", ""]["by"]["rician"] == pytest.approx(measure([10, 5]).mean())
    worse = (measure([9, 4]).mean() + measure([14]).mean()) / 2
    assert rows["strong", ""]["difference"]["mean"] == pytest.approx(worse - mean)
    assert rows["strong", ""]["rPC"]["mean"] == pytest.approx(worse / measure([19])[0])
    assert rows["strong", "demo"]["rPC"]["mean"] == pytest.approx(1)
    assert set(rows) == {("classical", ""), ("strong", ""), ("strong", "demo")}
    assert "| `strong` | demo | 2 |" in text


def test_threshold_lets_one_false_positive_an_image_through():
    matches = [{"scores": [0.9, 0.8, 0.3], "hits": [0, 1, 0]}, {"scores": [0.7], "hits": [0]}]
    result = {"matches": matches, "images": 2}
    assert pictures.find_threshold(result) == 0.3
    assert pictures.find_threshold(result, limit=0.5) == 0.7
    assert pictures.find_threshold(result, limit=4) == float("-inf")


def test_boxes_are_matched_best_score_first():
    truth, labels = [[0, 0, 10, 10], [0, 20, 10, 30]], [0, 1]
    found = [
        [0, 0, 10, 9, 0.5, 0],  # would hit, but the better one has it
        [0, 0, 10, 10, 0.9, 0],
        [0, 20, 10, 30, 0.8, 0],  # of another class
        [0, 26, 10, 36, 0.7, 1],  # overlaps by 4 of 16
    ]
    assert pictures.match_boxes(truth, labels, found) == (
        [False, True, False, False],
        [True, False],
    )
    assert pictures.compute_iou([0, 0, 10, 10], [0, 5, 10, 15]) == pytest.approx(5 / 15)
    assert pictures.compute_iou([0, 0, 0, 0], [0, 0, 0, 0]) == 0


def test_images_on_which_arms_differ_most_are_chosen_first():
    counts = [[0, 0], [1, 1], [0, 3], [0, 0], [2, -4], [1, 0], [0, 0]]
    assert pictures.choose_images(counts, 4) == [4, 2, 0, 6]
    assert sorted(pictures.choose_images(counts, 20)) == list(range(7))
    assert pictures.choose_images([[1]], 3) == [0]


def count_pixels(picture: np.ndarray, colour) -> int:
    return int((picture == np.array(colour, np.uint8)).all(-1).sum())


def test_page_shows_hits_misses_and_false_alarms_in_their_colours(tmp_path):
    finds, misses = make_result(20), make_result(0, false=3)
    runs = [
        {"arm": arm, "seed": 0, "tests": {"val": result}}
        for arm, result in (("finds", finds), ("misses", misses))
    ]
    page = pictures.draw_detections(runs, "val", SAMPLES, tmp_path / "page.png", images=4)
    # Three columns of 192 pixels, 4 apart, below the legend.
    columns = [page[60:, 12 + n * 196 : 12 + n * 196 + 192] for n in range(3)]
    colours = pictures.KINDS
    hit, missed, false = (colours[key] for key in ("hit", "true box, missed", "false alarm"))
    assert [count_pixels(each, hit) > 0 for each in columns] == [False, True, False]
    assert [count_pixels(each, missed) > 0 for each in columns] == [False, False, True]
    assert [count_pixels(each, false) > 0 for each in columns] == [False, False, True]


def test_page_of_another_test_set_is_refused(tmp_path):
    run = {"arm": "real", "seed": 0, "tests": {"val": make_result(3)}}
    with pytest.raises(ValueError, match="tested on 20 images, and 8 are at hand"):
        pictures.draw_detections([run], "val", make_samples(8), tmp_path / "page.png")


def make_entry(mean: float, half: float) -> dict:
    ends = {"low": mean - half, "high": mean + half, "both": [mean - 2 * half, mean + 2 * half]}
    values = {"mean": mean, **ends, "seeds": [0, 1, 2]}
    return {"arm": "strong", "base": "real", "primary": False, "metrics": {"mAP50": values}}


def draw_entries(entries: list, path: Path) -> np.ndarray:
    content = {"interim": False, "margin": 0.02, "tests": {"val": {"differences": entries}}}
    return pictures.draw_forest(content, path)


def find_columns(picture: np.ndarray, colour) -> np.ndarray:
    rows, columns = np.nonzero((picture == np.array(colour, np.uint8)).all(-1))
    return np.array([[row, column] for row, column in zip(rows, columns, strict=True)])


def test_forest_places_intervals_to_scale(tmp_path):
    picture = draw_entries([make_entry(0.05, 0.01), make_entry(-0.05, 0.01)], tmp_path / "f.png")
    pixels = find_columns(picture, pictures.SEEDS)
    middle = np.median(pixels[:, 0])
    right, left = (pixels[(pixels[:, 0] < middle) == upper, 1] for upper in (True, False))
    # Mirrored about 0; from its ends, 4 and 6 points: 0 is twice its length away.
    zero = (right.min() + left.max()) / 2
    assert right.min() - zero == pytest.approx(2 * np.ptp(right), abs=4)
    assert right.max() - zero == pytest.approx(zero - left.min(), abs=2)
    thin = find_columns(picture, pictures.BOTH)[:, 1]
    assert thin.max() - zero == pytest.approx(7 / 6 * (right.max() - zero), abs=2)


def test_forest_marks_an_interval_that_it_cuts_off(tmp_path):
    entries = [make_entry(0.01, 0.005), make_entry(0.0, 0.9)]
    picture = draw_entries(entries, tmp_path / "f.png")
    columns = find_columns(picture, pictures.SEEDS)[:, 1]
    assert np.ptp(columns) == pictures.AREA_PX - 1
    narrow = find_columns(draw_entries(entries[:1], tmp_path / "f.png"), pictures.SEEDS)[:, 1]
    assert np.ptp(narrow) > 20


@pytest.fixture
def made(tmp_path):
    write_arms(tmp_path / "runs", EFFECT)
    report.write(tmp_path / "runs", plan=make_plan(4))
    return tmp_path / "runs" / "report.json"


PAGE = "# When\n\n{{ a.primary }}\n\n{{a.table}}\n\n{{ a.sensitivity }}\n{{ a.mixed }}\n"


def test_page_for_users_is_filled_from_reports(tmp_path, made):
    template, out = tmp_path / "page.md.in", tmp_path / "page.md"
    template.write_text(PAGE + "{{ a.difference }} points, {{ a.seeds }} seeds, {{ a.primary }}")
    text = report.write_when_to_use({"a": made}, template, out)
    assert out.read_text() == text and "{{" not in text
    assert text.count(f"is better than `classical`: {100 * MEAN:+.1f} points") == 2
    assert "| `classical+sample` | 4 | " in text
    assert text.splitlines()[-1].startswith(f"{100 * MEAN:+.1f} (")
    assert ", 4 seeds, On val" in text


def test_page_for_users_with_an_unknown_placeholder_is_refused(tmp_path, made):
    template = tmp_path / "page.md.in"
    template.write_text(PAGE + "{{ b.primary }}")
    with pytest.raises(ValueError, match=r"asks for b.primary, which no report has"):
        report.write_when_to_use({"a": made}, template, tmp_path / "page.md")
    assert not (tmp_path / "page.md").exists()


def test_page_for_users_that_leaves_a_result_out_is_refused(tmp_path, made):
    template = tmp_path / "page.md.in"
    template.write_text(PAGE.replace("{{ a.mixed }}", ""))
    with pytest.raises(ValueError, match=r"leaves out a.mixed; every result is printed"):
        report.write_when_to_use({"a": made}, template, tmp_path / "page.md")
