"""Whether a training tells whom it was trained on: membership inference with reference networks.

Small networks of one recipe are trained on random halves of the patients: their restoration, or
their variation (`vae_aug.evaluate.attacked`). Every one of them scores
every patient, so that each patient's scores are known of networks with and without it. Then each
network in its turn is attacked with the help of the others (`vae_aug.evaluate.lira`), which gives
networks times patients decisions about the recipe. A checkpoint is attacked in the same way where
one is given; its patients are known from its manifest.

The primary measure is fixed before any run: the AUC of `elbo` over patients, of all networks.
Beside it stands the share of members that is found at 10% false positives. All other scores are
secondary.

An attack that finds nothing may be blind, so there are controls:

- `overfitted` is a network that is trained several times as long on a few patients. It has to
  be caught.
- `canaries` are planted patients (`vae_aug.evaluate.canaries`), who make up a quarter of every
  batch. Of them, too, each network is trained on a half, which has to be found. Networks are
  trained for as many steps more as lets them see the other patients as often as the recipe says.
- `start` is a network that is trained on nobody, and attacked with a checkpoint's members in the
  place of its own. If these rank above others there, too, they differ from others in kind, and so
  the checkpoint's AUC says nothing. Networks need no such control: their halves are drawn at
  random.

Reference:
    Carlini et al., Membership Inference Attacks From First Principles, IEEE Symposium on Security
    and Privacy (2022). Hilprecht, Härterich and Bernau, Monte Carlo and Reconstruction Membership
    Inference Attacks against Generative Models, PETS (2019), for the reconstruction error of a
    variational autoencoder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_aug.atomic import lock_folder, remove_temporaries, write_atomic
from vae_aug.config import MAX_SEED, TrainedPart, check_choice, check_number
from vae_aug.errors import RecordError, VAEAugError
from vae_aug.evaluate.attacked import Attacked, check_attack, make_attacked
from vae_aug.evaluate.canaries import CANARY, SHARE, plant_canaries
from vae_aug.evaluate.lira import (
    LEVEL,
    attack_all,
    attack_one,
    calibrate,
    compute_power,
    compute_ratios,
    draw_halves,
    estimate,
)
from vae_aug.evaluate.membership_report import (
    CHECKPOINT,
    START,
    Membership,
    judge,
    list_notes,
)
from vae_aug.evaluate.patient_scores import PRIMARY
from vae_aug.limits import read_bounded
from vae_aug.model.checkpoint import read_manifest
from vae_aug.model.network import Network
from vae_aug.records.shards import INFO_FILE
from vae_aug.train.cluster import refuse_cluster
from vae_aug.train.recipe import Recipe
from vae_aug.train.references import Patients, open_patients
from vae_aug.version import __version__
from vae_aug.words import plural

REPORT_NAME = "membership.json"

_LEAST_NETWORKS, _LEAST_PATIENTS = 6, 8
_ROUNDS = 8
"""How often as long as others the network that has to be caught is trained."""

_CANARIES = 16
"""Number of planted patients."""

_NETWORKS_NAME, _SETTINGS_NAME, _CANARIES_NAME = "networks", "settings.json", "canaries"
_MAX_BYTES = 2**26


def audit_membership(
    records: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    recipe: Recipe,
    *,
    only: TrainedPart = "restoration",
    networks: int = 16,
    target: Network | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Membership:
    """Train reference networks on halves of the patients, and attack them and a checkpoint.

    `out` holds the planted patients (`canaries/`), the scores of each network as soon as it is
    trained (`networks/`), then the report,
    `membership.json`. Called again with the same settings, it trains the networks that are missing,
    and its report is the same. A checkpoint may be another one then.

    Args:
        records: Folders of records, of which all splits are read.
        out: Folder for scores and report.
        recipe: The settings of the part that is trained; with steps of `recipe.train` or of
            `recipe.variation`.
        only: The part that is trained and attacked, `"restoration"` or `"variation"`.
        networks: How many networks of the recipe are trained, even and from 6.
        target: A checkpoint of the recipe, trained on some of the patients.
        limit: Most images of each patient; None for all.
        seed: Of the halves and of all that is drawn; networks train with `recipe.train.seed` and
            the numbers after it.
        progress: Called with (steps done, steps in all).

    Returns:
        The report.

    Raises:
        ValueError: If an argument is out of its range, `out` holds networks of other settings, or
            the target is of another architecture than the recipe, has no variation to attack, or
            was trained on nearly all or nearly none of the patients.
        RecordError: If records cannot be read, are of fewer than 8 patients, or another run writes
            to `out`.
        TrainingError: If a loss stops being finite.
        VAEAugError: If a file of `out` is damaged.
    """
    check_number("networks", networks, _LEAST_NETWORKS, whole=True)
    if networks % 2:
        raise ValueError(f"networks must be even, for they are trained in pairs; got {networks}.")
    if limit is not None:
        check_number("limit", limit, 1, whole=True)
    check_number("seed", seed, 0, MAX_SEED, whole=True)
    refuse_cluster("An audit of membership")
    check_choice("only", only, TrainedPart)
    check_attack(only, recipe, target)
    is_variation = only == "variation"
    folder = Path(out)
    with lock_folder(folder):
        _refuse_other_settings(folder, {"only": only, "seed": seed})
        plant_canaries(folder / _CANARIES_NAME, _CANARIES, seed, alike=is_variation)
        folders = [os.fspath(one) for one in (*records, folder / _CANARIES_NAME)]
        patients = open_patients(folders, limit)
        planted = np.array([key.startswith(f"patient {CANARY}") for key in patients.keys])
        count = int(np.sum(~planted))
        if count < _LEAST_PATIENTS:
            raise RecordError(
                f"{', '.join(map(str, records))}: {plural(count, 'patient')}; an audit of "
                f"membership needs at least {_LEAST_PATIENTS}, and tells little with fewer than 30."
            )
        settings = _describe_recipe(recipe, only)
        settings |= _describe(records, patients, planted, networks, limit, seed)
        settings = json.loads(json.dumps(settings))
        _keep_settings(folder, settings)
        known = _find_members(patients, target, ~planted)
        attacked = make_attacked(only, recipe, patients, planted)
        aimed = None if target is None else attacked.score_target(target)
        runs = _plan_runs(planted, networks, seed)
        first_seed = recipe.variation.seed if is_variation else recipe.train.seed
        scores = _Bench(attacked, folder, first_seed, progress).score_all(runs)
        settings["checkpoint"] = None if target is None else target.digest
        report = _conclude(attacked, runs, planted, scores, aimed, known, settings)
        write_atomic(folder / REPORT_NAME, report.to_json().encode())
    return report


# --- Networks --------------------------------------------------------------------------------


class _Run(NamedTuple):
    """One network that is trained.

    Attributes:
        name: Of its file.
        members: `[P] bool`, whom it is trained on.
        rounds: How often it is trained for all steps; 0 for the start itself.
    """

    name: str
    members: np.ndarray
    rounds: int = 1


def _plan_runs(planted: np.ndarray, networks: int, seed: int) -> list[_Run]:
    """Choose whom the networks are trained on, those of the recipe first, then the controls."""
    rng = np.random.default_rng(seed)
    members = np.zeros((networks, len(planted)), bool)
    for part in (~planted, planted):
        members[:, part] = draw_halves(networks, int(part.sum()), rng)
    nobody = np.zeros(len(planted), bool)
    few, known = nobody.copy(), np.flatnonzero(~planted)
    few[rng.permutation(known)[: max(3, len(known) // 8)]] = True
    return [
        *(_Run(f"network-{i:03}", half) for i, half in enumerate(members)),
        _Run("overfitted", few, _ROUNDS),
        _Run(START, nobody, 0),
    ]


class _Bench:
    """Trains and scores networks that have no file of scores yet."""

    def __init__(
        self,
        attacked: Attacked,
        folder: Path,
        seed: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._attacked, self._seed, self._progress = attacked, seed, progress
        self._folder = folder / _NETWORKS_NAME
        self._folder.mkdir(exist_ok=True)
        self._done = self._total = 0

    def score_all(self, runs: Sequence[_Run]) -> dict[str, np.ndarray]:
        """Read or make the scores of all networks, by their names: `[len(runs), P]`."""
        steps, names = self._attacked.steps, tuple(self._attacked.scores)
        self._total = steps * sum(run.rounds for run in runs)
        rows = []
        for index, run in enumerate(runs):
            path = self._folder / f"{run.name}.json"
            remove_temporaries(path)
            if path.exists():
                self._advance(steps * run.rounds)
            else:
                scores = self._score(run, self._seed + index * _ROUNDS)
                made = {name: values.tolist() for name, values in scores.items()}
                write_atomic(path, (json.dumps(made) + "\n").encode())
            rows.append(_read_scores(path, names, len(run.members)))
        return {name: np.stack([row[name] for row in rows]) for name in names}

    def _score(self, run: _Run, seed: int) -> dict[str, np.ndarray]:
        """Train a network, and score all patients."""
        if run.rounds:
            self._attacked.train(
                run.members, seed, rounds=run.rounds, progress=lambda: self._advance(1)
            )
        else:
            self._attacked.start(seed)
        return self._attacked.score()

    def _advance(self, steps: int) -> None:
        self._done += steps
        if self._progress is not None:
            self._progress(self._done, self._total)


def _read_scores(path: Path, names: Sequence[str], patients: int) -> dict[str, np.ndarray]:
    """Read the scores of one network, by their names: `[P]`."""
    try:
        content = json.loads(read_bounded(path, _MAX_BYTES))
        scores = {name: np.array(content[name], np.float64) for name in names}
        for values in scores.values():
            if values.shape != (patients,) or not np.isfinite(values).all():
                raise ValueError("it has not one finite value of each patient")
    except (VAEAugError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise VAEAugError(
            f"{path}: is damaged ({type(error).__name__}: {error}). Delete it; its network is then "
            "trained again."
        ) from error
    return scores


# --- Settings --------------------------------------------------------------------------------


def _describe_recipe(recipe: Recipe, only: TrainedPart) -> dict[str, Any]:
    """Describe the settings that networks are trained by."""
    start, weights = recipe.train.start_from, recipe.train.encoder_weights
    # A path says something of the machine and nothing of the network.
    start = read_manifest(start)["digest"] if start else None
    if only == "variation":
        return {"variation": recipe.variation.to_dict(), "start_from": start, "only": only}
    model = {**recipe.model.to_dict(), "variation": False}
    train = {**recipe.train.to_dict(), "start_from": start}
    if weights and Path(weights).is_file():
        train["encoder_weights"] = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    return {"model": model, "train": train, "start_from": start, "only": only}


def _describe(
    records: Sequence[str | os.PathLike[str]],
    patients: Patients,
    planted: np.ndarray,
    networks: int,
    limit: int | None,
    seed: int,
) -> dict[str, Any]:
    """Describe what else the scores of the networks depend on."""
    names = "\n".join([*patients.keys, *(str(part.tolist()) for part in patients.places)])
    content = [names.encode(), *((Path(one) / INFO_FILE).read_bytes() for one in records)]
    return {
        "records": hashlib.sha256(b"\n".join(content)).hexdigest()[:16],
        "patients": int(np.sum(~planted)),
        "canaries": int(np.sum(planted)),
        "canary_share": SHARE,
        "rounds": _ROUNDS,
        "unnamed_images": sum(key.startswith("image ") for key in patients.keys),
        "images": patients.count(~planted),
        "networks": networks,
        "limit": limit,
        "seed": seed,
    }


def _keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of new networks; refuse to add to those of other settings."""
    path = folder / _SETTINGS_NAME
    remove_temporaries(path)
    remove_temporaries(folder / REPORT_NAME)
    _refuse_other_settings(folder, settings)
    if not path.exists():
        write_atomic(path, (json.dumps(settings, indent=1) + "\n").encode())


def _refuse_other_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise `ValueError` if a folder holds networks of other settings than some of theirs."""
    path = folder / _SETTINGS_NAME
    if not path.exists():
        return
    try:
        before = _flatten(json.loads(read_bounded(path, _MAX_BYTES)))
    except (ValueError, AttributeError, RecursionError) as error:
        raise VAEAugError(f"{path}: is damaged ({error}). Give another output folder.") from error
    changed = [
        f"{key} {before.get(key)!r}, not {value!r}"
        for key, value in _flatten(settings).items()
        if before.get(key) != value
    ]
    if changed:
        raise ValueError(
            f"{folder} holds networks of other settings ({'; '.join(changed)}). Give another "
            "output folder, or delete this one."
        )


def _flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Put the settings of parts beside the others, e.g. `train.steps`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        is_part = isinstance(value, Mapping)
        flat |= {f"{key}.{name}": one for name, one in value.items()} if is_part else {key: value}
    return flat


def _find_members(
    patients: Patients, target: Network | None, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tell which patients a checkpoint was trained on, and of which that is known: `[P] bool`."""
    known = wanted & np.array([key.startswith("patient ") for key in patients.keys])
    seen = frozenset() if target is None else target.patients
    members = known & np.array([key.removeprefix("patient ") in seen for key in patients.keys])
    own, others = int(members.sum()), int((known & ~members).sum())
    # With fewer patients not even a checkpoint that leaks everything would be a sign.
    if target is not None and (min(own, others) < 2 or math.comb(own + others, own) <= 2 / LEVEL):
        raise ValueError(
            f"The checkpoint cannot be attacked: of the {plural(own + others, 'patient')} its "
            f"manifest names {own}, and an attack needs several whom it was trained on and several "
            "others. Add records of others, with the same salt, or leave the checkpoint out."
        )
    return members, known


# --- Conclusion ------------------------------------------------------------------------------


def _conclude(
    attacked: Attacked,
    runs: Sequence[_Run],
    planted: np.ndarray,
    scores: Mapping[str, np.ndarray],
    aimed: Mapping[str, np.ndarray] | None,
    known: tuple[np.ndarray, np.ndarray],
    settings: Mapping[str, Any],
) -> Membership:
    """Attack the networks, the controls and the checkpoint, and judge."""
    seed, networks = settings["seed"], settings["networks"]
    members = np.stack([run.members for run in runs[:networks]])
    members, of_canaries = members[:, ~planted], members[:, planted]
    caught = runs[networks].members[~planted]
    own, named = (part[~planted] for part in known)
    attacks, on_checkpoint, overfitted, canaries, start = [], [], [], [], []
    calibrated = {}
    for name, values in scores.items():
        of_known, of_planted = values[:, ~planted], values[:networks, planted]
        calibrated[name] = calibrate(of_known, of_known[:networks])
        references = calibrated[name][:networks]
        attacks.append(attack_all(name, "networks", references, members, seed))
        canary_scores = calibrate(of_planted, of_planted)
        canaries.append(attack_all(name, "canaries", canary_scores, of_canaries, seed))
        reference = estimate(references, members)
        overfit, none = compute_ratios(calibrated[name][networks:], reference)
        overfitted.append(attack_one(name, "overfitted", overfit, caught, np.ones_like(caught)))
        if aimed is not None:
            start.append(attack_one(name, START, none, own, named))
            row = calibrate(aimed[name][~planted], of_known[:networks])
            ratios = compute_ratios(row, reference)
            on_checkpoint.append(attack_one(name, CHECKPOINT, ratios, own, named))
    attacks += on_checkpoint
    controls = [*overfitted, *canaries, *start]
    primary = calibrated[PRIMARY][:networks]
    level = LEVEL / sum(attack.score == PRIMARY for attack in attacks)
    power = compute_power(primary, members, seed, level)
    reference = estimate(primary, members)
    leaks, verdict = judge(attacks, controls, power)
    return Membership(
        leaks,
        verdict,
        tuple(list_notes(settings, attacked, power, controls)),
        tuple(attacks),
        tuple(controls),
        power,
        tuple((reference.shifts / math.sqrt(reference.variance)).tolist()),
        {**settings, "level": level, "version": __version__},
    )
