"""Tune the hyperparameters of a training with Optuna (extra `[tune]`).

Every trial is a short training in a folder of its own, and its score is the figure by which a
training chooses its checkpoint: the mean, in dB, of the PSNR on clean and on noisy input. A score
of a short training favours what learns fast, and it says nothing of how good samples are; the KL
and the active units of every trial stand beside it in the table.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import shlex
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vae_aug.atomic import LOCK_NAME, lock_folder, remove_temporaries, write_atomic
from vae_aug.config import ModelConfig, Oracle, Profile, TrainConfig, check_choice, check_number
from vae_aug.errors import MissingPackageError, VAEAugError
from vae_aug.limits import read_bounded
from vae_aug.train.cluster import refuse_cluster
from vae_aug.train.feed import open_source
from vae_aug.train.recipe import Recipe
from vae_aug.train.train import Figures, TrainingError, train
from vae_aug.version import __version__
from vae_aug.words import plural

Status = Literal["finished", "failed", "unfinished"]
Space = Mapping[str, Any]
Values = dict[str, Any]
Progress = Callable[[int, Values, int, Figures], None]

TABLE_NAME = "tuning.json"
BEST_NAME = "best.json"
_TRIALS_NAME = "trials"
_MAX_TABLE_BYTES = 2**27
_ATTEMPTS = 20
"""Proposals for one trial, of which all were tried before, after which a search is exhausted."""
# Trials that differ in these have scores that cannot be compared.
_SHARED = ("model.image_size", "train.seed", "train.steps", "train.validation_images")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        number: From 1, in the order in which the trials began.
        values: Field names such as `"train.beta"` to what was tried.
        status: `"finished"`, `"failed"`, or `"unfinished"` while it trains, and if the search was
            interrupted then.
        score: Mean of the PSNR on clean and on noisy input, in dB; None unless finished.
        figures: Those of the training's best validation, as `train` returns them.
        message: Why the trial failed.
    """

    number: int
    values: Values
    status: Status
    score: float | None = None
    figures: Figures = dataclasses.field(default_factory=dict)
    message: str = ""


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """How settings are searched for.

    Attributes:
        space: Field names (`"train.learning_rate"`, `"model.encoder"`, ...) to a list of choices
            or to `{"low": ..., "high": ..., "sampling": "linear" or "log"}`, ends included.
            None for `make_space`.
        trials: Trials in all.
        steps: Optimiser steps of every trial.
        oracle: What chooses the values: `"bayesian"`, a tree of Parzen estimators after a third of
            the trials was chosen at random, or `"random"` throughout.
        seed: Of the oracle: with the trials before, it decides the values of a trial. All trials
            train with the seed of the recipe, so that they differ in the values alone.
    """

    space: Space | None = None
    trials: int = 12
    steps: int = 300
    oracle: Oracle = "bayesian"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every field but the space, which depends on the recipe."""
        check_number("trials", self.trials, 1, whole=True)
        check_number("steps", self.steps, 1, whole=True)
        check_choice("oracle", self.oracle, Oracle)


def make_space(profile: Profile) -> dict[str, Any]:
    """Make the search space that `tune` takes by default.

    Args:
        profile: Of the network; the weight of the KL term that matters depends on it.

    Returns:
        Field names to a list of choices, or to the ends and the sampling of a range.
    """
    beta = {"vector": "train.beta", "ladder": "train.spatial_beta"}[profile]
    return {
        "train.learning_rate": {"low": 3e-4, "high": 3e-3, "sampling": "log"},
        beta: {"low": 0.01, "high": 1.0, "sampling": "log"},
        "train.ssim_weight": [0.0, 0.5, 1.0, 2.0],
        "train.free_bits": [0.0, 0.01, 0.03, 0.1],
    }


def tune(
    sources: Sequence[str | Path],
    out: str | Path,
    recipe: Recipe | None = None,
    search: SearchConfig | None = None,
    *,
    validation: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> list[Trial]:
    """Search for the settings with which a training restores images best.

    `out` then holds `tuning.json` (the settings and every trial, best first), `best.json` (what
    `vae-aug train --config` takes) and `trials/<number>/` (each training). Both files are up to
    date after every trial. Called again on the same `out`, the search goes on from the table:
    finished trials are kept, an interrupted one resumes its training, and `trials` may be larger
    than before. It ends early if it finds no values that were not tried. While it runs, `out` is
    locked.

    Args:
        sources: Folders of records with a split `train`, as for `train`.
        out: Folder of the search.
        recipe: The architecture and the settings of a training, some fields of which the search
            replaces. Its `steps` go into `best.json`.
        search: The space, the number and length of the trials, and what chooses their values.
        validation: As for `train`.
        progress: Called with a trial's number and values, its step and that step's figures; at
            step 0 without figures.

    Returns:
        The trials: finished ones by falling score, then the failed.

    Raises:
        ValueError: If the space does not fit the settings, or `out` holds something else than this
            search, or TF_CONFIG is set, since a search is made by one process.
        MissingPackageError: If Optuna is not installed.
        RecordError: As `train`.
        VAEAugError: If every trial failed, or what a former search left in `out` is damaged; the
            message names the file.

    Reference:
        Bergstra et al., Algorithms for Hyper-Parameter Optimization (2011); Akiba et al., Optuna
        (2019).
    """
    out, recipe, search = Path(out), recipe or Recipe(), search or SearchConfig()
    refuse_cluster("A search")
    _load_optuna()
    space = make_space(recipe.model.profile) if search.space is None else search.space
    check_space(space, recipe)
    for source in sources:
        open_source(source, "train")
    for source in validation:
        open_source(source, "validation")
    space = json.loads(json.dumps(space))  # as the table has it
    run = _Search(sources, out, recipe, space, search, validation, progress)
    with lock_folder(out) as locked:
        if locked:
            for name in (TABLE_NAME, BEST_NAME):
                remove_temporaries(out / name)
        run.read_out()
        run.run()
    ranked = run.rank()
    if ranked[0].status != "finished":
        raise VAEAugError(
            f"All of {plural(len(ranked), 'trial')} failed; the first: {ranked[0].message}"
        )
    return ranked


def check_space(space: Space, recipe: Recipe) -> None:
    """Check a search space against the fields, their types and the ranges they allow.

    Raises:
        ValueError: On a name that is no field, a part that is neither choices nor a range, or a
            value that the settings refuse; the message names the field.
    """
    if not space:
        raise ValueError("The search space is empty; name at least one field, e.g. 'train.beta'.")
    hints = _find_fields()
    for name, part in space.items():
        if name in _SHARED:
            raise ValueError(
                f"{name} cannot be tuned: the scores of trials that differ in it cannot be "
                "compared."
            )
        if name not in hints:
            known = ", ".join(sorted(set(hints) - set(_SHARED)))
            raise ValueError(f"The search space names {name!r}; the fields are {known}.")
        for value in _list_values(name, part, hints[name]):
            if not _fits(value, hints[name]):
                raise ValueError(
                    f"{name} must be of type {_describe(hints[name])}; the search space has "
                    f"{value!r}."
                )
            try:
                apply_values({name: value}, recipe)
            except ValueError as error:
                raise ValueError(f"{name} in the search space: {error}") from error
        if isinstance(part, Mapping):
            _check_ends(name, part)


def apply_values(values: Mapping[str, Any], recipe: Recipe) -> Recipe:
    """Replace fields of the settings.

    Args:
        values: Field names such as `"train.beta"` to values.
        recipe: The settings.

    Returns:
        The settings with their fields replaced.

    Raises:
        ValueError: If a value is refused.

    Example:
        >>> apply_values({"train.beta": 0.5}, Recipe()).train.beta
        0.5
    """
    parts = recipe.to_dict()
    for name, value in values.items():
        part, _, field = name.partition(".")
        parts[part][field] = value
    model, train = ModelConfig.from_dict(parts["model"]), TrainConfig.from_dict(parts["train"])
    return dataclasses.replace(recipe, model=model, train=train)


def compute_score(figures: Figures) -> float:
    """Compute the mean of `psnr` and `psnr_noisy`, in dB.

    Raises:
        TrainingError: If it is not finite.
    """
    score = (figures["psnr"] + figures["psnr_noisy"]) / 2
    if not math.isfinite(score):
        raise TrainingError(f"The PSNR of the best validation is {score}.")
    return score


@dataclasses.dataclass
class _Search:
    """What the trials of a search have in common, and what it leaves in `out`."""

    sources: Sequence[str | Path]
    out: Path
    recipe: Recipe
    space: Space
    config: SearchConfig
    validation: Sequence[str | Path]
    progress: Progress | None
    trials: list[Trial] = dataclasses.field(default_factory=list)

    def read_out(self) -> None:
        """Take over the trials in `out`; refuse a folder of anything but this search."""
        path = self.out / TABLE_NAME
        if not path.exists():
            if {file.name for file in self.out.iterdir()} - {LOCK_NAME}:
                raise ValueError(f"{self.out} is not empty and holds no search; give another one.")
            return
        (before, self.trials), now = _read_table(path), self._list_settings()
        changed = [
            f"{name}: {before.get(name)!r} before, {value!r} now"
            for name, value in now.items()
            if before.get(name) != value
        ]
        if changed:
            raise ValueError(
                f"{self.out} holds a search with other settings ({'; '.join(changed)}). "
                "Give another output folder, or delete this one."
            )

    def run(self) -> None:
        """Finish an interrupted trial, then try values until there are as many as asked for."""
        self._write()
        if self.trials and self.trials[-1].status == "unfinished":
            self._try(self.trials.pop().values)
        while len(self.trials) < self.config.trials:
            values = _propose(self.space, self.config, self.trials)
            if values is None:
                return
            self._try(values)

    def rank(self) -> list[Trial]:
        """Return the trials, finished ones first and by falling score."""
        order = get_args(Status)
        return sorted(
            self.trials, key=lambda t: (order.index(t.status), -(t.score or 0.0), t.number)
        )

    def _try(self, values: Values) -> None:
        """Train with some values as the next trial, and note how it went."""
        trial = Trial(len(self.trials) + 1, values, "unfinished")
        self.trials.append(trial)
        self._write()
        try:
            figures = self._train(trial.number, values)
            score = compute_score(figures)
        except TrainingError as error:
            trial = dataclasses.replace(trial, status="failed", message=str(error))
        else:
            figures = {name: float(figure) for name, figure in figures.items()}
            trial = dataclasses.replace(trial, status="finished", score=score, figures=figures)
        self.trials[-1] = trial
        self._write()

    def _train(self, number: int, values: Values) -> Figures:
        recipe = apply_values(values, self.recipe)
        config = dataclasses.replace(recipe.train, steps=self.config.steps)

        def show(step: int, figures: Figures) -> None:
            if self.progress is not None:
                self.progress(number, values, step, figures)

        show(0, {})
        return train(
            self.sources,
            self.out / _TRIALS_NAME / str(number),
            dataclasses.replace(recipe, train=config, only="restoration"),
            validation=self.validation,
            progress=show,
        )

    def _write(self) -> None:
        """Write the table and the best settings so far."""
        trials = self.rank()
        table = {
            "version": __version__,
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "score": "mean of psnr and psnr_noisy, dB",
            "settings": self._list_settings(),
            "trials": [dataclasses.asdict(trial) for trial in trials],
        }
        _write_json(self.out / TABLE_NAME, table)
        if trials and trials[0].status == "finished":
            best = apply_values(trials[0].values, self.recipe)
            _write_json(self.out / BEST_NAME, best.to_dict())

    def _list_settings(self) -> dict[str, Any]:
        settings = {
            "sources": [str(source) for source in self.sources],
            "validation": [str(source) for source in self.validation],
            **self.recipe.to_dict(),
            "space": self.space,
            **{name: getattr(self.config, name) for name in ("steps", "oracle", "seed")},
        }
        return json.loads(json.dumps(settings))


# --- Optuna ----------------------------------------------------------------------------------


def _load_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingPackageError(
            "Tuning needs the PyPI package optuna, which is not installed. "
            "Run: pip install 'vae-aug[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _propose(space: Space, config: SearchConfig, trials: Sequence[Trial]) -> Values | None:
    """Choose values for the next trial that none of `trials` had; None if none are found.

    What is chosen depends on the arguments alone, so no state has to be kept beside the table.
    """
    optuna = _load_optuna()
    ranges = _make_distributions(optuna, space)
    initial = max(config.trials // 3, 3)
    for attempt in range(_ATTEMPTS):
        bits = random.Random(f"{config.seed} {len(trials)} {attempt}").getrandbits(32)
        sampler = (
            optuna.samplers.RandomSampler(bits)
            if config.oracle == "random"
            else optuna.samplers.TPESampler(n_startup_trials=initial, seed=bits)
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for trial in trials:
            finished = trial.status == "finished"
            state = optuna.trial.TrialState.COMPLETE if finished else optuna.trial.TrialState.FAIL
            params = _encode(trial.values, space)
            study.add_trial(
                optuna.trial.create_trial(
                    state=state, value=trial.score, params=params, distributions=ranges
                )
            )
        values = _decode(study.ask(ranges).params, space)
        if all(trial.values != values for trial in trials):
            return values
    return None


def _make_distributions(optuna: Any, space: Space) -> dict[str, Any]:
    hints, ranges = _find_fields(), {}
    for name, part in space.items():
        if isinstance(part, Mapping):
            kind = "IntDistribution" if hints[name] is int else "FloatDistribution"
            make = getattr(optuna.distributions, kind)
            ranges[name] = make(part["low"], part["high"], log=part.get("sampling") == "log")
        else:  # by their index, since Optuna's own choices are no lists
            ranges[name] = optuna.distributions.CategoricalDistribution(range(len(part)))
    return ranges


def _encode(values: Values, space: Space) -> Values:
    """Turn values of the fields into Optuna's."""
    return {
        name: values[name] if isinstance(part, Mapping) else part.index(values[name])
        for name, part in space.items()
    }


def _decode(values: Mapping[str, Any], space: Space) -> Values:
    """Turn Optuna's values into those of the fields."""
    decoded = {}
    for name, part in space.items():
        value = values[name]
        if not isinstance(part, Mapping):
            decoded[name] = part[value]
            continue
        # Four digits are more than a search can tell apart, and they read well.
        rounded = value if isinstance(value, int) else float(f"{value:.4g}")
        decoded[name] = min(max(rounded, part["low"]), part["high"])
    return decoded


# --- The search space ------------------------------------------------------------------------


def _find_fields() -> dict[str, Any]:
    """Return the type hints of all settings, by names such as `"train.beta"`."""
    parts = {"model": ModelConfig, "train": TrainConfig}
    return {
        f"{part}.{name}": hint
        for part, config in parts.items()
        for name, hint in get_type_hints(config).items()
    }


def _list_values(name: str, part: Any, hint: Any) -> list[Any]:
    """List the choices, or the ends of the range, that a part of the space is made of."""
    if isinstance(part, list | tuple) and part:
        return list(part)
    if not isinstance(part, Mapping):
        raise ValueError(
            f"{name} in the search space must be a list of choices, or an object with low, high "
            f"and sampling; got {part!r}."
        )
    if not {"low", "high"} <= set(part) <= {"low", "high", "sampling"}:
        raise ValueError(
            f"A range has the keys low, high and, optionally, sampling; {name} in the search "
            f"space has {', '.join(map(str, part)) or 'none'}."
        )
    if hint not in (int, float):
        raise ValueError(
            f"{name} is of type {_describe(hint)}, so the search space must list its choices; got "
            f"the range {dict(part)}."
        )
    return [part["low"], part["high"]]


def _check_ends(name: str, part: Mapping[str, Any]) -> None:
    """Check the order of a range's ends, and that its sampling fits them."""
    low, high, sampling = part["low"], part["high"], part.get("sampling", "linear")
    if sampling not in ("linear", "log"):
        raise ValueError(f"The sampling of {name} must be 'linear' or 'log'; got {sampling!r}.")
    if not low < high:
        raise ValueError(f"The range of {name} must have low < high; got {low} and {high}.")
    if sampling == "log" and low <= 0:
        raise ValueError(f"The range of {name} must have low > 0 to be sampled by log; got {low}.")


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value, as JSON has it, is of a field's type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin is types.UnionType:
        return any(_fits(value, part) for part in inner)
    if origin is tuple and isinstance(value, list | tuple):
        hints = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return len(value) == len(hints) and all(map(_fits, value, hints))
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint


def _describe(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _read_table(path: Path) -> tuple[dict[str, Any], list[Trial]]:
    """Read the settings of a former search, and its trials by their numbers."""
    try:
        table = json.loads(read_bounded(path, _MAX_TABLE_BYTES))
        trials = [Trial(**row) for row in table["trials"]]
        return dict(table["settings"]), sorted(trials, key=lambda trial: trial.number)
    except (VAEAugError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise VAEAugError(
            f"{path}: does not hold the table of a search, so it cannot go on "
            f"({type(error).__name__}: {error}). Give another output folder, or delete this one."
        ) from error


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())
