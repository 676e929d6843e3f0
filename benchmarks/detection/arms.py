"""What an arm of the comparison does to training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.detection.detector import Batch, make_target
from benchmarks.detection.samples import Samples
from benchmarks.detection.strong import (
    Augmentation,
    make_classical,
    make_gin,
    make_strong,
    make_style,
)

CHANGES: Mapping[str, Callable[[int], Augmentation]] = {
    "style": make_style,
    "gin": make_gin,
    "classical": make_classical,
    "strong": make_strong,
}
"""What changes an image as it is shown, in the order in which several are applied."""

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "sample": {"ckpt": "demo", "p": 0.5},
    "interpolate": {"ckpt": "demo", "p": 0.5},
    "noisy": {"p": 0.5},
    "restored": {"by": "demo", "p": 0.5},
}
"""What is made of an image beforehand, with its settings unless given."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A kind of variant that is made beforehand.

    Attributes:
        kind: A key of `VARIANTS`.
        settings: Of `VAEAugment`, with `ckpt`; or `by`, the restorer. `p` is the probability that
            one of these variants is shown in the image's place, `count` how many there are of each
            image, in place of the plan's number.
    """

    kind: str
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Arm:
    """How training images are varied.

    Attributes:
        name: As typed.
        changes: Keys of `CHANGES`.
        parts: Variants made beforehand; an image shows at most one of them.
    """

    name: str
    changes: tuple[str, ...]
    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, name: str) -> Arm:
        """Read an arm: `real`, or parts joined by "+", with settings behind a colon.

        Example: `strong+sample:ckpt=vector,guard=off,p=0.3`.

        Raises:
            ValueError: If a part is unknown, or probabilities sum to more than 1.
        """
        changes, parts = set(), []
        for text in () if name == "real" else name.split("+"):
            kind, _, options = text.partition(":")
            if text in CHANGES:
                changes.add(text)
            elif kind in VARIANTS:
                pairs = (option.split("=") for option in options.split(",") if option)
                settings = {key: _parse_value(value) for key, value in pairs}
                parts.append(Part(kind, {**VARIANTS[kind], **settings}))
            else:
                raise ValueError(
                    f"an arm is 'real', or some of {', '.join((*CHANGES, *VARIANTS))} joined by "
                    f"'+', with settings like 'sample:guard=off'; got {text!r} in {name!r}."
                )
        if sum(part.settings["p"] for part in parts) > 1 + 1e-9:
            raise ValueError(f"{name!r}: the probabilities p of its variants sum to more than 1.")
        return cls(name, tuple(key for key in CHANGES if key in changes), tuple(parts))

    @property
    def file_part(self) -> str:
        """The name in file names."""
        return "".join(
            letter if letter.isalnum() or letter in "+=.," else "_" for letter in self.name
        )


def _parse_value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def iterate_batches(
    samples: Samples, arm: Arm, variants: Sequence[np.ndarray], batch_size: int, seed: int
) -> Iterator[Batch]:
    """Yield batches without end, every pass in a new order.

    Args:
        samples: The training images.
        arm: What is done to them.
        variants: For each part of the arm `[K, N, S, S, 1] uint8`.
        batch_size: Images in a batch.
        seed: Of the order and the augmentation; arms of one seed share the order.
    """
    order, choice = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    changes = [CHANGES[key](seed) for key in arm.changes]
    size, classes = samples.images.shape[1], len(samples.classes)
    waiting: list[int] = []
    while True:
        # Passes follow each other without a gap, so that sets smaller than a batch work, too.
        while len(waiting) < batch_size:
            waiting += order.permutation(len(samples)).tolist()
        chosen, waiting = waiting[:batch_size], waiting[batch_size:]
        images, targets = [], []
        for index in chosen:
            image = _choose_variant(samples.images, index, arm, variants, choice)
            boxes, labels = samples.boxes[index], samples.labels[index]
            for change in changes:
                image, boxes, labels = change(image, boxes, labels)
            images.append(image)
            targets.append(make_target(boxes, labels, size, classes))
        yield np.stack(images), np.stack(targets)


def _choose_variant(
    images: np.ndarray,
    index: int,
    arm: Arm,
    variants: Sequence[np.ndarray],
    choice: np.random.Generator,
) -> np.ndarray:
    """Return the image itself, or one of its variants."""
    rest = choice.random() if arm.parts else 1.0
    for part, drawn in zip(arm.parts, variants, strict=True):
        if rest < part.settings["p"]:
            return drawn[choice.integers(len(drawn)), index]
        rest -= part.settings["p"]
    return images[index]
