"""A comparison, written down before it is run: data, training, arms, seeds, primary question."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection.samples import Samples, Source

MIN_TEST_GROUPS = 10
"""A test on fewer patients is left out: its interval over patients would say nothing."""


@dataclasses.dataclass(frozen=True)
class Training:
    """How every detector is trained.

    Attributes:
        share: Share of the patients at the training sites that a seed chooses to train on.
        sites: Names of the training sites.
        steps: Optimiser steps.
        batch_size: Images a step.
        learning_rate: Its peak.
        momentum: Of the moving average of the weights.
        variants: Number of variants that are drawn of an image beforehand.
        ladder_steps: Steps of a ladder that goes on from `demo` on a seed's own images.
    """

    share: float
    sites: tuple[str, ...]
    steps: int = 600
    batch_size: int = 8
    learning_rate: float = 1e-3
    momentum: float = 0.98
    variants: int = 4
    ladder_steps: int = 300


@dataclasses.dataclass(frozen=True)
class Primary:
    """The one comparison that is not corrected for the others: `arm` less `against` on `test`."""

    test: str
    arm: str
    against: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compared, how often, and on what.

    Attributes:
        name: Of the comparison.
        source: The data.
        training: Of every detector.
        tests: Name of a test to the sites whose images it has. Images of a run's training patients
            are left out.
        arms: See `arms.Arm.parse`.
        seeds: Number of seeds, fixed beforehand.
        primary: The comparison that the number of seeds was chosen for.
        views: What is done to test images beside showing them as they are: a corruption such as
            `"rician:3"`, a restorer behind `">"`, e.g. `"rician:3>demo"` or `">filter"`.
        reason: Why so many seeds: deviation, effect, power.
    """

    name: str
    source: Source
    training: Training
    tests: Mapping[str, tuple[str, ...]]
    arms: tuple[str, ...]
    seeds: int
    primary: Primary
    views: tuple[str, ...] = ()
    reason: str = ""

    def describe_settings(self) -> dict[str, Any]:
        """Describe what must be alike in runs that are compared; files by their content."""
        source = dataclasses.asdict(self.source)
        source["files"] = [digest_file(Path(name)) for name in self.source.files]
        settings = {
            "source": source,
            "training": dataclasses.asdict(self.training),
            "tests": self.tests,
            "views": self.views,
        }
        return json.loads(json.dumps(settings))

    def to_json(self) -> str:
        """Write the plan as `read_plan` reads it."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def digest_file(path: Path) -> str:
    """Tell a COCO file, or a folder of records, by its content."""
    file = path / "dataset.json" if path.is_dir() else path
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def read_plan(path: Path, data: Path) -> Plan:
    """Read a plan.

    Args:
        path: A JSON file.
        data: Folder that the plan's files are relative to.

    Raises:
        ValueError: If a field is missing or unknown.
    """
    try:
        content = json.loads(path.read_text())
        source, training = content.pop("source"), content.pop("training")
        files = tuple(str(data / name) for name in source.pop("files"))
        site = source.pop("site", None)
        return Plan(
            source=Source(files=files, site=site and tuple(site), **source),
            training=Training(sites=tuple(training.pop("sites")), **training),
            tests={name: tuple(sites) for name, sites in content.pop("tests").items()},
            arms=tuple(content.pop("arms")),
            primary=Primary(**content.pop("primary")),
            views=tuple(content.pop("views", ())),
            **content,
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no plan ({error}); see `Plan` for its fields.") from error


def make_plan(files: list[Path], samples_sites: list[str], **options: Any) -> Plan:
    """Make the plan of a user's own data: trained on the first site, tested on it and the others.

    Args:
        files: COCO files or folders of records.
        samples_sites: Sites in the order in which they were read.
        **options: `size`, `white`, `arms`, `seeds`, and fields of `Training`.
    """
    first, *others = samples_sites
    arms = tuple(options.pop("arms"))
    tests = {f"other patients of {first}": (first,), **{name: (name,) for name in others}}
    source = Source(tuple(map(str, files)), options.pop("size"), options.pop("white"))
    seeds = options.pop("seeds")
    return Plan(
        name="own data",
        source=source,
        training=Training(sites=(first,), **options),
        tests=tests,
        arms=arms,
        seeds=seeds,
        primary=Primary(next(iter(tests)), arms[-1], arms[-2]),
    )


def choose_training_groups(samples: Samples, training: Training, seed: int) -> np.ndarray:
    """Choose a seed's training patients, the same for all arms: `[G] int32`.

    Raises:
        ValueError: If the sites have no patients, or none would be left out.
    """
    groups = np.unique(samples.at_sites(training.sites).groups)
    count = round(training.share * len(groups))
    if not 0 < count <= len(groups):
        raise ValueError(
            f"a share of {training.share:g} of the {len(groups)} patients at "
            f"{', '.join(training.sites)} is {count}; at least one is needed."
        )
    return np.sort(np.random.default_rng([seed, 2]).permutation(groups)[:count])


def make_tests(
    samples: Samples, tests: Mapping[str, tuple[str, ...]], trained: np.ndarray
) -> dict[str, Samples]:
    """Make the test sets of a run; those of under `MIN_TEST_GROUPS` patients are left out."""
    made = {}
    for name, sites in tests.items():
        at_sites = samples.at_sites(sites)
        kept = at_sites.take(np.flatnonzero(~np.isin(at_sites.groups, trained)))
        if len(np.unique(kept.groups)) >= MIN_TEST_GROUPS:
            made[name] = kept
    return made
