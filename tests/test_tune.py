"""Tuning: what a search tries, keeps, repeats and reports; in one test, by `train` itself."""

from __future__ import annotations

import dataclasses
import json
import re
import sys

import pytest
from conftest import write_phantoms
from typer.testing import CliRunner

from vae_aug import cli
from vae_aug.atomic import lock_folder
from vae_aug.config import TRAIN_RECIPES, ModelConfig, TrainConfig
from vae_aug.errors import MissingPackageError, RecordError, VAEAugError
from vae_aug.train import tune as module
from vae_aug.train.recipe import Recipe
from vae_aug.train.train import TrainingError
from vae_aug.train.tune import SearchConfig, Trial, apply_values, check_space, make_space, tune

MODEL = ModelConfig(encoder="efficientnet-lite1", image_size=32, latent_dim=16)
CONFIG = TrainConfig(batch_size=2, validate_every=2, validation_images=2, steps=50)
RECIPE = Recipe(MODEL, CONFIG)
SPACE = {
    "train.learning_rate": {"low": 1e-4, "high": 1e-2, "sampling": "log"},
    "train.loss": ["sigma", "paper"],
}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Four small phantoms to train on and two to validate on."""
    return write_phantoms(tmp_path_factory.mktemp("records"), train=4, validation=2)


class FakeTraining:
    """Stands for `train`: remembers its calls, and restores the better the higher the rate."""

    def __init__(self):
        self.calls = []
        self.errors = {}

    def __call__(self, sources, out, recipe, *, validation, progress):
        self.calls.append((out, recipe.model, recipe.train))
        progress(1, {"psnr": 10.0, "loss": 1.0})
        if len(self.calls) in self.errors:
            raise self.errors[len(self.calls)]
        psnr = 1000 * recipe.train.learning_rate
        return {"step": recipe.train.steps, "psnr": psnr + 2, "psnr_noisy": psnr, "kl": 3.0}


@pytest.fixture
def training(monkeypatch):
    fake = FakeTraining()
    monkeypatch.setattr(module, "train", fake)
    return fake


@pytest.fixture
def search(records, tmp_path, training):
    """A random search by the stand-in."""

    def run(validation=(), progress=None, **options):
        settings = {"space": SPACE, "oracle": "random", "trials": 3, "steps": 4, **options}
        return tune(
            [records],
            tmp_path / "out",
            RECIPE,
            SearchConfig(**settings),
            validation=validation,
            progress=progress,
        )

    return run


def read(path):
    return json.loads(path.read_text())


# --- The search space ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "search space is empty"),
        (
            {"train.rate": [1]},
            r"names 'train\.rate'; the fields are model\.decoder_repeats, .*beta",
        ),
        ({"learning_rate": [1.0]}, "names 'learning_rate'"),
        ({"train.steps": [10, 20]}, r"train\.steps cannot be tuned"),
        ({"train.beta": []}, r"train\.beta in the search space must be a list of choices"),
        ({"train.beta": 1.0}, r"got 1\.0"),
        ({"train.beta": {"low": 1.0}}, r"train\.beta in the search space has low"),
        ({"train.beta": {"low": 0, "high": 1, "step": 1}}, "has low, high, step"),
        ({"train.beta": {"low": 1, "high": 1}}, "low < high; got 1 and 1"),
        ({"train.beta": {"low": 0, "high": 1, "sampling": "log"}}, "low > 0"),
        ({"train.beta": {"low": 0, "high": 1, "sampling": "sqrt"}}, "got 'sqrt'"),
        ({"train.loss": {"low": 0, "high": 1}}, "must list its choices"),
        ({"train.learning_rate": {"low": "3e-4", "high": 1.0}}, "of type float; .* '3e-4'"),
        ({"train.beta": [float("nan")]}, "of type float; .* nan"),
        ({"train.beta": [True]}, "of type float; .* True"),
        ({"train.batch_size": [8, 2.5]}, r"of type int; .* 2\.5"),
        ({"train.keep": [[0.3, 0.9, 1.0]]}, r"of type tuple\[float, float\]"),
        ({"train.corruptions": ["replace"]}, r"of type tuple\[str, \.\.\.\]; .* 'replace'"),
        ({"train.loss": ["sigma", "l1"]}, r"train\.loss .* 'l1'"),
        ({"train.clean_share": {"low": 0.5, "high": 2}}, r"clean_share must be in \[0, 1\]; got 2"),
        ({"model.latent_dim": [64, 65]}, r"model\.latent_dim .* must be even .* got 65"),
    ],
)
def test_a_space_that_does_not_fit_is_refused(search, training, tmp_path, space, message):
    with pytest.raises(ValueError, match=message):
        search(space=space)
    assert not training.calls and not (tmp_path / "out").exists()


def test_spaces_that_fit():
    check_space(
        {
            "model.encoder": ["efficientnet-b1", "efficientnet-lite1"],
            "train.encoder_weights": [None, "package"],
            "train.keep": [[0.3, 0.95], [0.5, 1]],
            "train.source_weights": [None, [1, 2.5]],
            "train.corruptions": [["replace"], ["replace", "rician"]],
            "train.kl_warmup_steps": {"low": 1, "high": 500, "sampling": "log"},
        },
        Recipe(),
    )


@pytest.mark.parametrize(("profile", "beta"), [("vector", "beta"), ("ladder", "spatial_beta")])
def test_the_default_space_tunes_the_beta_of_the_profile(profile, beta):
    space = make_space(profile)
    check_space(space, Recipe(ModelConfig(profile=profile)))
    assert [name for name in space if name.endswith("beta")] == [f"train.{beta}"]


def test_every_field_can_be_tuned_but_those_that_trials_share(search):
    with pytest.raises(ValueError) as error:
        search(space={"nothing": [1]})
    known = set(re.findall(r"(?:model|train)\.\w+", str(error.value)))
    every = {f"model.{name}" for name in MODEL.to_dict()}
    every |= {f"train.{name}" for name in CONFIG.to_dict()}
    assert every - known == {
        *("model.image_size", "train.seed", "train.steps", "train.validation_images")
    }


# --- Searching -------------------------------------------------------------------------------


def test_a_search_keeps_every_trial_and_the_best_settings(search, training, tmp_path):
    seen = []
    trials = search(progress=lambda *event: seen.append(event))
    assert [call[0] for call in training.calls] == [
        tmp_path / "out" / "trials" / name for name in "123"
    ]
    for (_, model, config), trial in zip(
        training.calls, sorted(trials, key=lambda trial: trial.number), strict=True
    ):
        assert (model, config.steps, config.batch_size) == (MODEL, 4, 2)
        assert trial.values == {
            "train.learning_rate": config.learning_rate,
            "train.loss": config.loss,
        }
        assert 1e-4 <= config.learning_rate <= 1e-2
        # 1000 times the rate, and 1 dB more as the mean of the two.
        assert trial.score == pytest.approx(1000 * config.learning_rate + 1)
        assert (trial.status, trial.figures["kl"], trial.figures["step"]) == ("finished", 3.0, 4.0)
    scores = [trial.score for trial in trials]
    assert scores == sorted(scores, reverse=True)
    number, values, step, figures = seen[0]
    assert (number, values, step, figures) == (1, seen[1][1], 0, {})
    assert seen[1][2:] == (1, {"psnr": 10.0, "loss": 1.0})

    table = read(tmp_path / "out" / "tuning.json")
    assert [Trial(**row) for row in table["trials"]] == trials
    assert table["settings"]["space"] == SPACE and table["command"]
    best = read(tmp_path / "out" / "best.json")
    assert set(best) == {"model", "train"}
    assert ModelConfig.from_dict(best["model"]) == MODEL
    # The steps of the settings, not those of a trial.
    expected = apply_values(trials[0].values, RECIPE).train
    assert TrainConfig.from_dict(best["train"]) == expected
    assert expected.steps == 50


def test_choices_may_be_of_any_type(search, training):
    space = {"train.keep": [[0.3, 0.9], [0.5, 1.0]], "train.encoder_weights": [None, "package"]}
    trials = search(space=space, trials=9)
    # There are four combinations, and a random search stops when it finds no other.
    assert 2 <= len(trials) <= 4
    tried = {(config.keep, config.encoder_weights) for _, _, config in training.calls}
    assert len(tried) == len(trials)
    assert tried <= {(k, w) for k in ((0.3, 0.9), (0.5, 1.0)) for w in (None, "package")}


def test_whole_numbers_stay_within_their_range(search, training):
    trials = search(space={"train.batch_size": {"low": 2, "high": 3}}, trials=5)
    # Both are tried once, and the search ends, since nothing else is left.
    assert sorted(config.batch_size for _, _, config in training.calls) == [2, 3]
    assert len(trials) == 2


def test_the_seed_decides_what_is_tried(records, tmp_path, training):
    for name, seed in ("a", 0), ("b", 0), ("c", 1):
        search = SearchConfig(oracle="random", trials=2, seed=seed)
        tune([records], tmp_path / name, search=search)
    rates = [config.learning_rate for _, _, config in training.calls]
    assert rates[:2] == rates[2:4] != rates[4:]


def test_finished_trials_are_not_repeated(search, training):
    first = search(trials=2)
    assert search(trials=2) == first
    assert len(training.calls) == 2
    more = search(trials=4)
    assert len(training.calls) == 4 and len(more) == 4
    assert all(trial in more for trial in first)


@pytest.mark.parametrize("call", [1, 2])
def test_an_interrupted_trial_is_taken_up_again(search, training, tmp_path, call):
    training.errors[call] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        search(trials=3)
    rows = read(tmp_path / "out" / "tuning.json")["trials"]
    assert [row["status"] for row in rows] == ["finished"] * (call - 1) + ["unfinished"]
    trials = search(trials=4)
    assert [trial.status for trial in trials] == ["finished"] * 4
    # In the same folder, with the same values; and nothing else twice.
    assert len(training.calls) == 5
    assert training.calls[call - 1] == training.calls[call]


@pytest.mark.parametrize("oracle", ["random", "bayesian"])
def test_a_search_in_two_parts_tries_what_one_does(records, tmp_path, training, oracle):
    search = SearchConfig(SPACE, trials=6, steps=4, oracle=oracle)
    whole = tune([records], tmp_path / "whole", RECIPE, search)
    for trials in 2, 4, 6:
        part = dataclasses.replace(search, trials=trials)
        parts = tune([records], tmp_path / "parts", RECIPE, part)
    assert parts == whole


def test_a_failed_trial_is_named_and_the_search_goes_on(search, training, tmp_path, capfd):
    training.errors = {1: TrainingError("The loss is nan."), 2: TrainingError("Again.")}
    trials = search(trials=3)
    assert [trial.status for trial in trials] == ["finished", "failed", "failed"]
    assert [trial.message for trial in trials] == ["", "The loss is nan.", "Again."]
    assert [trial.number for trial in trials] == [3, 1, 2]
    assert read(tmp_path / "out" / "tuning.json")["trials"][1]["message"] == "The loss is nan."
    assert search(trials=3) == trials and len(training.calls) == 3
    assert capfd.readouterr() == ("", "")  # Optuna reports its studies unless told not to


def test_a_validation_that_is_not_finite_fails_the_trial(search, monkeypatch):
    figures = {"psnr": float("nan"), "psnr_noisy": 20.0}
    monkeypatch.setattr(module, "train", lambda *args, **options: figures)
    with pytest.raises(VAEAugError, match=r"All of 2 trials failed; the first: The PSNR .* is nan"):
        search(trials=2)


def test_other_errors_end_the_search(search, training):
    training.errors[2] = OSError("disk full")
    with pytest.raises(OSError, match="disk full"):
        search()
    assert len(search()) == 3


def test_the_search_of_an_older_version_goes_on(search, training, tmp_path):
    trials = search(trials=2)
    (tmp_path / "out" / "oracle").mkdir()  # in which KerasTuner had its state
    more = search(trials=3)
    assert len(training.calls) == 3 and all(trial in more for trial in trials)


def test_another_search_in_the_folder_is_refused(search, training, tmp_path):
    search(trials=1)
    with pytest.raises(ValueError, match=r"other settings \(steps: 4 before, 5 now\)"):
        search(trials=1, steps=5)
    with pytest.raises(ValueError, match=r"\(space: .*'paper'.* before, "):
        search(trials=1, space={"train.beta": [0.5]})
    (tmp_path / "out" / "tuning.json").unlink()
    with pytest.raises(ValueError, match="not empty and holds no search"):
        search(trials=1)


@pytest.mark.parametrize("name", ["trials", "steps"])
def test_counts_are_checked(search, name):
    with pytest.raises(ValueError, match=rf"{name} must be in \[1, inf\); got 0"):
        search(**{name: 0})


def test_sources_are_opened_before_anything_is_written(search, training, tmp_path):
    with pytest.raises(ValueError, match="oracle must be one of 'bayesian', 'random'; got 'grid'"):
        search(oracle="grid")
    with pytest.raises(RecordError):
        search(validation=[tmp_path])
    assert not (tmp_path / "out").exists()


# --- Optuna ----------------------------------------------------------------------------------


def test_a_missing_package_is_named(search, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackageError, match=r"optuna.*pip install 'vae-aug\[tune\]'"):
        search()
    assert not (tmp_path / "out").exists()


def test_parzen_estimators_find_the_high_rates(search, training):
    space = {"train.learning_rate": SPACE["train.learning_rate"]}
    trials = search(oracle="bayesian", space=space, trials=12)
    # Four are drawn at random; the score rises with the rate, up to the end of the range.
    assert trials[0].values["train.learning_rate"] > 9e-3
    assert trials[0].number > 4
    rates = {trial.number: trial.values["train.learning_rate"] for trial in trials}
    assert sum(rates[n] > 1e-3 for n in range(5, 13)) >= 6, "chance would give four"


@pytest.mark.slow
@pytest.mark.usefixtures("still")
def test_a_search_by_trainings_that_leave_their_files(records, tmp_path):
    space = {"train.learning_rate": [1e-3, 1e-2]}
    config = dataclasses.replace(CONFIG, corruptions=("replace",))
    search = SearchConfig(space, trials=2, steps=2, oracle="random")
    trials = tune([records], tmp_path / "out", Recipe(MODEL, config), search)
    assert {trial.values["train.learning_rate"] for trial in trials} == {1e-3, 1e-2}
    for trial in trials:
        folder = tmp_path / "out" / "trials" / str(trial.number)
        assert (folder / "checkpoint.keras").exists()
        figures = read(folder / "best.json")
        assert trial.figures == figures
        assert trial.score == (figures["psnr"] + figures["psnr_noisy"]) / 2
    assert not list((tmp_path / "out").rglob("*.pkl"))


# --- The command -----------------------------------------------------------------------------


def run(*arguments):
    environment = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(cli.app, [str(part) for part in arguments], env=environment)


def test_help_for_every_option():
    result = run("tune", "--help")
    assert result.exit_code == 0
    for option in ("out", "config", "search", "trials", "steps", "oracle", "validation", "seed"):
        assert re.search(rf"--{option} +[^\n]*<[^\n]*> +\S", result.stdout), option


def test_the_command_starts_from_the_recipe_of_the_profile(records, tmp_path, training):
    (tmp_path / "config.json").write_text(
        '{"model": {"profile": "ladder"}, "train": {"clean_share": 0.5}}'
    )
    result = run(
        *("tune", records, "--out", tmp_path / "out", "--config", tmp_path / "config.json"),
        *("--oracle", "random", "--trials", 1),
    )
    assert result.exit_code == 0, result.stderr
    ((_, model, config),) = training.calls
    assert (model.profile, config.clean_share) == ("ladder", 0.5)
    assert config.loss == TRAIN_RECIPES["ladder"]["loss"] != TrainConfig().loss


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_the_command_prints_the_trials(records, tmp_path, training, suffix):
    training.errors[2] = TrainingError("The loss is nan.")
    text = {
        "json": '{"train.beta": [0.5, 1.0], "train.loss": ["sigma", "paper"]}',
        "yaml": "train.beta: [0.5, 1.0]\ntrain.loss: [sigma, paper]\n",
    }
    (tmp_path / f"space.{suffix}").write_text(text[suffix])
    (tmp_path / "config.json").write_text('{"model": {"latent_dim": 8}, "train": {"patience": 7}}')
    out = tmp_path / "out"
    result = run(
        *("tune", records, "--out", out, "--config", tmp_path / "config.json", "--trials", 2),
        *("--steps", 5, "--search", tmp_path / f"space.{suffix}", "--oracle", "random"),
        *("--validation", records, "--seed", 3),
    )
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert re.search(r"trial +┃ +settings +┃ +score, dB ", result.stdout)
    assert re.search(r"│ 2 .*│ +failed │ +- │", result.stdout)
    assert "trial 2 failed: The loss is nan." in result.stdout
    assert f"--config: {out / 'best.json'}" in result.stdout
    best = read(out / "best.json")
    assert (best["model"]["latent_dim"], best["train"]["patience"]) == (8, 7)
    assert best["train"]["steps"] == TrainConfig().steps
    settings = read(out / "tuning.json")["settings"]
    assert (settings["seed"], settings["steps"]) == (3, 5)
    assert settings["validation"] == [str(records)]


def test_the_command_says_how_to_go_on(records, tmp_path, training):
    training.errors[2] = KeyboardInterrupt()
    result = run("tune", records, "--out", tmp_path / "out", "--oracle", "random")
    assert result.exit_code == 130
    assert result.stderr == (
        f"interrupted: {tmp_path / 'out'} keeps the trials so far; run the same command again to "
        "go on.\n"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "space.json: not valid JSON or YAML"),
        ("[]", r"expected an object of field names; got \[\]"),
        ('{"train.rate": [1]}', r"names 'train\.rate'"),
    ],
)
def test_bad_spaces_are_one_line_and_status_1(records, tmp_path, content, message):
    (tmp_path / "space.json").write_text(content)
    result = run("tune", records, "--out", tmp_path / "out", "--search", tmp_path / "space.json")
    assert result.exit_code == 1 and not result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and re.search(message, line)


def test_wrong_usage_exits_with_2(records, tmp_path):
    assert run("tune", records).exit_code == 2
    assert run("tune", records, "--out", tmp_path, "--trials", 0).exit_code == 2
    assert run("tune", records, "--out", tmp_path, "--oracle", "grid").exit_code == 2


# --- What another search does, or a killed one left --------------------------------------------


def test_a_second_search_into_the_same_folder_is_refused_at_once(search, training, tmp_path):
    with (
        lock_folder(tmp_path / "out"),
        pytest.raises(RecordError, match="out: another run writes to this folder"),
    ):
        search()
    assert not training.calls and not list((tmp_path / "out").iterdir())
    search()
    assert not list((tmp_path / "out").glob(".*"))


def test_a_folder_of_something_else_stays_as_it_is(search, training, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    with pytest.raises(ValueError, match="out is not empty and holds no search"):
        search()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[]", b"{}", b'{"settings": {}}', b'{"settings": {}, "trials": [1]}'],
)
def test_a_damaged_table_is_named(search, training, tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tuning.json").write_bytes(content)
    with pytest.raises(VAEAugError, match=r"tuning\.json: does not hold .* delete this one"):
        search()
    assert not training.calls


def test_a_killed_search_leaves_the_tables_of_before_and_they_are_written_again(search, tmp_path):
    trials = search(trials=2)
    table = read(tmp_path / "out" / "tuning.json")
    # Killed while it wrote one file and before it wrote the other.
    (tmp_path / "out" / ".tuning.json.0123abcd.tmp").write_text("{")
    (tmp_path / "out" / "best.json").unlink()
    assert search(trials=2) == trials
    assert read(tmp_path / "out" / "tuning.json") == table
    assert set(read(tmp_path / "out" / "best.json")) == {"model", "train"}
    assert not list((tmp_path / "out").glob(".*"))
