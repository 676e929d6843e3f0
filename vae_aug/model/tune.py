"""Tune the hyperparameters of a training with KerasTuner (extra `[tune]`).

Every trial is a short training in a folder of its own, and its score is the figure by which a
training chooses its checkpoint: the mean, in dB, of the PSNR on clean and on noisy input. A score
of a short training favours what learns fast, and it says nothing of how good samples are; the KL
and the active units of every trial stand beside it in the table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import shlex
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vae_aug.config import ModelConfig, Profile, TrainConfig, check_choice, check_range
from vae_aug.data.atomic import LOCK_NAME, lock_folder, remove_temporaries, write_atomic
from vae_aug.data.limits import read_bounded
from vae_aug.errors import MissingPackageError, VAEAugError
from vae_aug.model.feed import open_source
from vae_aug.model.train import Figures, TrainingError, train
from vae_aug.version import __version__
from vae_aug.words import plural

Oracle = Literal["bayesian", "random"]
Status = Literal["finished", "failed", "unfinished"]
Space = Mapping[str, Any]
Values = dict[str, Any]
Progress = Callable[[int, Values, int, Figures], None]

TABLE_NAME = "tuning.json"
BEST_NAME = "best.json"
_TRIALS_NAME = "trials"
_ORACLE_NAME = "oracle"
_MAX_TABLE_BYTES = 2**27
_SCORE = "score"
# Trials that differ in these have scores that cannot be compared.
_SHARED = ("model.image_size", "train.seed", "train.steps", "train.validation_images")
_STATUS: dict[str, Status] = {"COMPLETED": "finished", "FAILED": "failed"}


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        number: From 1, in the order in which the trials began.
        values: Field names such as `"train.beta"` to what was tried.
        status: `"finished"`, `"failed"`, or `"unfinished"` when the search was interrupted.
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
    *,
    model: ModelConfig | None = None,
    config: TrainConfig | None = None,
    space: Space | None = None,
    trials: int = 12,
    steps: int = 300,
    oracle: Oracle = "bayesian",
    validation: Sequence[str | Path] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Trial]:
    """Search for the settings with which a training restores images best.

    `out` then holds `tuning.json` (the settings and every trial, best first), `best.json` (what
    `vae-aug train --config` takes), `trials/<number>/` (each training) and `oracle/`
    (KerasTuner's state). Both files are up to date after every trial. Called again on the same
    `out`, the search goes on: finished trials are kept, an interrupted one resumes its training,
    and `trials` may be larger than before. While it runs, `out` is locked.

    Args:
        sources: Folders of records with a split `train`, as for `train`.
        out: Folder of the search.
        model: The architecture; the space replaces some of its fields.
        config: The settings of a training, likewise. Its `steps` go into `best.json`.
        space: Field names (`"train.learning_rate"`, `"model.encoder"`, ...) to a list of choices
            or to `{"low": ..., "high": ..., "sampling": "linear" or "log"}`, ends included.
            None for `make_space`.
        trials: Trials in all.
        steps: Optimiser steps of every trial.
        oracle: What chooses the values: `"bayesian"`, a Gaussian process after a third of the
            trials was drawn at random, or `"random"` throughout.
        validation: As for `train`.
        seed: Of the oracle. All trials train with the seed of `config`, so that they differ in
            the values alone.
        progress: Called with a trial's number and values, its step and that step's figures; at
            step 0 without figures.

    Returns:
        The trials: finished ones by falling score, then the failed.

    Raises:
        ValueError: If the space does not fit the settings, or `out` holds something else than this
            search.
        MissingPackageError: If KerasTuner is not installed.
        RecordError: As `train`.
        VAEAugError: If every trial failed, or what a former search left in `out` is damaged; the
            message names the file.

    Reference:
        O'Malley et al., KerasTuner (2019), https://github.com/keras-team/keras-tuner
    """
    model, config, out = model or ModelConfig(), config or TrainConfig(), Path(out)
    space = make_space(model.profile) if space is None else dict(space)
    check_range("trials", trials, 1)
    check_range("steps", steps, 1)
    check_choice("oracle", oracle, Oracle)
    check_space(space, model, config)
    for source in sources:
        open_source(source, "train")
    for source in validation:
        open_source(source, "validation")
    search = _Search(sources, out, model, config, space, steps, oracle, validation, seed, progress)
    chooser = _make_oracle(_load_keras_tuner(), oracle, space, trials, seed)
    with lock_folder(out) as locked:
        if locked:
            for name in (TABLE_NAME, BEST_NAME):
                remove_temporaries(out / name)
        search.check_out()
        _make_tuner(search, chooser).search()
    best = search.trials[0]
    if best.status != "finished":
        raise VAEAugError(
            f"All of {plural(len(search.trials), 'trial')} failed; the first: {best.message}"
        )
    return search.trials


def check_space(space: Space, model: ModelConfig, config: TrainConfig) -> None:
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
                apply_values({name: value}, model, config)
            except ValueError as error:
                raise ValueError(f"{name} in the search space: {error}") from error
        if isinstance(part, Mapping):
            _check_ends(name, part)


def apply_values(
    values: Mapping[str, Any], model: ModelConfig, config: TrainConfig
) -> tuple[ModelConfig, TrainConfig]:
    """Replace fields of the settings.

    Args:
        values: Field names such as `"train.beta"` to values.
        model: The architecture.
        config: The settings of a training.

    Returns:
        Both with their fields replaced.

    Raises:
        ValueError: If a value is refused.

    Example:
        >>> _, config = apply_values({"train.beta": 0.5}, ModelConfig(), TrainConfig())
        >>> config.beta
        0.5
    """
    parts = {"model": model.to_dict(), "train": config.to_dict()}
    for name, value in values.items():
        part, _, field = name.partition(".")
        parts[part][field] = value
    return ModelConfig.from_dict(parts["model"]), TrainConfig.from_dict(parts["train"])


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
    model: ModelConfig
    config: TrainConfig
    space: Space
    steps: int
    oracle: Oracle
    validation: Sequence[str | Path]
    seed: int
    progress: Progress | None
    trials: list[Trial] = dataclasses.field(default_factory=list)

    def check_out(self) -> None:
        """Refuse a folder that holds anything but a search with these settings."""
        path = self.out / TABLE_NAME
        if not path.exists():
            if {file.name for file in self.out.iterdir()} - {LOCK_NAME}:
                raise ValueError(f"{self.out} is not empty and holds no search; give another one.")
            return
        before, now = _read_settings(path), self._list_settings()
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

    def run(self, number: int, values: Values) -> Figures:
        """Train with some values, unless a finished trial had the same, and return the figures."""
        for trial in self.trials:
            if trial.status == "finished" and trial.values == values:
                return trial.figures
        model, config = apply_values(values, self.model, self.config)

        def show(step: int, figures: Figures) -> None:
            if self.progress is not None:
                self.progress(number, values, step, figures)

        show(0, {})
        return train(
            self.sources,
            self.out / _TRIALS_NAME / str(number),
            model=model,
            config=dataclasses.replace(config, steps=self.steps),
            validation=self.validation,
            progress=show,
        )

    def report(self, trials: list[Trial]) -> None:
        """Write the table and the best settings so far."""
        self.trials = trials
        table = {
            "version": __version__,
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "score": "mean of psnr and psnr_noisy, dB",
            "settings": self._list_settings(),
            "trials": [dataclasses.asdict(trial) for trial in trials],
        }
        _write_json(self.out / TABLE_NAME, table)
        if trials and trials[0].status == "finished":
            model, config = apply_values(trials[0].values, self.model, self.config)
            _write_json(self.out / BEST_NAME, {"model": model.to_dict(), "train": config.to_dict()})

    def _list_settings(self) -> dict[str, Any]:
        settings = {
            "sources": [str(source) for source in self.sources],
            "validation": [str(source) for source in self.validation],
            "model": self.model.to_dict(),
            "train": self.config.to_dict(),
            "space": self.space,
            "steps": self.steps,
            "oracle": self.oracle,
            "seed": self.seed,
        }
        return json.loads(json.dumps(settings))


# --- KerasTuner ------------------------------------------------------------------------------


def _load_keras_tuner() -> Any:
    try:
        import keras_tuner
    except ImportError as error:
        raise MissingPackageError(
            "Tuning needs the PyPI package keras-tuner, which is not installed. "
            "Run: pip install 'vae-aug[tune]'"
        ) from error
    return keras_tuner


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what KerasTuner prints, and the warnings that are its own affair."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        for name in ("currentThread", "getName"):
            warnings.filterwarnings("ignore", rf"{name}\(\) is deprecated", DeprecationWarning)
        # A Gaussian process of few trials often ends at the edge of its length scales.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"sklearn\.")
        yield


def _make_oracle(keras_tuner: Any, kind: Oracle, space: Space, trials: int, seed: int) -> Any:
    """Make what chooses the values of each trial."""
    hints = _find_fields()
    parameters = keras_tuner.HyperParameters()
    for name, part in space.items():
        if isinstance(part, Mapping):
            make = parameters.Int if hints[name] is int else parameters.Float
            make(name, part["low"], part["high"], sampling=part.get("sampling", "linear"))
        else:
            # By their index: KerasTuner's own choices are of one type, and neither None nor lists.
            parameters.Choice(name, list(range(len(part))))
    options = {
        "objective": keras_tuner.Objective(_SCORE, "max"),
        "max_trials": trials,
        "hyperparameters": parameters,
        "seed": seed + 1,  # 0 would stand for a seed drawn anew
        "max_consecutive_failed_trials": trials + 1,
    }
    if kind == "random":
        return keras_tuner.oracles.RandomSearchOracle(**options)
    # KerasTuner's default, three random trials for each field, is more than a small budget.
    initial = max(trials // 3, 3)
    try:
        return keras_tuner.oracles.BayesianOptimizationOracle(num_initial_points=initial, **options)
    except ImportError as error:
        raise MissingPackageError(
            "The oracle 'bayesian' needs the PyPI package scikit-learn, which is not installed. "
            "Run: pip install 'vae-aug[tune]', or choose the oracle 'random'."
        ) from error


def _make_tuner(search: _Search, oracle: Any) -> Any:
    """Make the tuner; one that finds its own state in `search.out` goes on from there."""
    keras_tuner = _load_keras_tuner()
    status = keras_tuner.engine.trial.TrialStatus
    base: Any = keras_tuner.Tuner

    class Tuner(base):
        """Asks the oracle for values and tells it how a training with them ended."""

        def run_trial(self, trial: Any) -> Figures:
            values = _decode(trial.hyperparameters.values, search.space)
            figures = search.run(_number(trial), values)
            return {_SCORE: compute_score(figures), **figures}

        def search(self) -> None:
            # KerasTuner goes on only where it finds this file; it writes it after a trial.
            self.save()
            self.report()
            while (trial := self.ask()).status == status.RUNNING:
                try:
                    figures = self.run_trial(trial)
                except TrainingError as error:
                    trial.status, trial.message = status.FAILED, str(error)
                    self.tell(trial, {})
                else:
                    trial.status = status.COMPLETED
                    self.tell(trial, figures)
                self.report()

        @_quiet()
        def ask(self) -> Any:
            return self.oracle.create_trial(self.tuner_id)

        @_quiet()
        def tell(self, trial: Any, figures: Figures) -> None:
            if figures:
                self.oracle.update_trial(trial.trial_id, figures)
            self.on_trial_end(trial)

        def report(self) -> None:
            search.report(_list_trials(self.oracle, search.space))

    oracle.verbose = 0
    try:
        with _quiet():
            return Tuner(oracle, directory=str(search.out), project_name=_ORACLE_NAME)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise VAEAugError(
            f"{search.out / _ORACLE_NAME}: the state of the search is damaged "
            f"({type(error).__name__}: {error}). "
            f"Give another output folder, or delete {search.out}."
        ) from error


def _list_trials(oracle: Any, space: Space) -> list[Trial]:
    """List the trials that the oracle knows, the best first."""
    trials = []
    for trial in oracle.trials.values():
        metrics = trial.metrics
        figures = {name: float(metrics.get_last_value(name)) for name in metrics.metrics}
        trials.append(
            Trial(
                number=_number(trial),
                values=_decode(trial.hyperparameters.values, space),
                status=_STATUS.get(trial.status, "unfinished"),
                score=figures.pop(_SCORE, None),
                figures=figures,
                message=trial.message or "",
            )
        )
    order = get_args(Status)
    return sorted(trials, key=lambda t: (order.index(t.status), -(t.score or 0.0), t.number))


def _number(trial: Any) -> int:
    return int(trial.trial_id) + 1


def _decode(values: Mapping[str, Any], space: Space) -> Values:
    """Turn KerasTuner's values into those of the fields."""
    decoded = {}
    for name, part in space.items():
        value = values[name]
        if not isinstance(part, Mapping):
            decoded[name] = part[value]
            continue
        # Four digits are more than a search can tell apart, and they read well.
        rounded = value if isinstance(value, int) else float(f"{value:.4g}")
        # At its upper end KerasTuner's range of integers is one too long.
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


def _read_settings(path: Path) -> dict[str, Any]:
    """Read the settings of a former search from its table."""
    try:
        return dict(json.loads(read_bounded(path, _MAX_TABLE_BYTES))["settings"])
    except (VAEAugError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise VAEAugError(
            f"{path}: does not hold the table of a search, so it cannot go on "
            f"({type(error).__name__}: {error}). Give another output folder, or delete this one."
        ) from error


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())
