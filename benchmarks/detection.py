"""Does it help a detector? The same detector trained per augmentation, on any COCO set.

    .venv/bin/python benchmarks/detection.py --train T.json --test H.json --out runs/detection
    .venv/bin/python benchmarks/detection.py --test H.json --out runs/detection --report-only

An arm is `real`, or parts joined by "+": `classical` (Albumentations) and a variation by a VAE,
`sample` or `interpolate`, with settings behind a colon: `sample:ckpt=vector,guard=off,factor=2`.
Settings are those of `VAEAugment`; `p` is 0.5 and `ckpt` is `ladder`, unless given. `ladder` goes
on from the packaged `demo` on the detector's own training images, and on nothing else.

Every arm of a seed starts from the same weights, takes the same number of steps and sees the same
images in the same order. A VAE's variants are drawn beforehand, a few of each image, from which
training picks: that saves time, and the detector hardly sees a variant twice. A fraction keeps
that share of the patients (images, where the set names no patients), the smaller within the
larger; seeds change the detector's weights and batches, not the patients.

Every finished run is a file of its own, `run-<arm>-<fraction>-<seed>.json`, and is never repeated;
files of several machines may be put into one folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import albumentations as A
import detection_report
import keras
import numpy as np
import tensorflow as tf
from detection_metrics import score
from detector import Batch, Samples, detect, make_detector, make_target, read_coco, train_detector
from PIL import Image

from vae_aug.augment.transform import VAEAugment
from vae_aug.config import ModelConfig, TrainConfig
from vae_aug.data.atomic import write_atomic
from vae_aug.data.ingest import ingest
from vae_aug.model.train import train

ARMS = ("real", "classical", "sample", "classical+sample")
LADDER = Path(__file__).parent / "lgg_ladder.json"


@dataclasses.dataclass(frozen=True)
class Arm:
    """How training images are varied.

    Attributes:
        name: As typed.
        classical: Whether by Albumentations.
        settings: Of `VAEAugment`, with `ckpt`; None for no VAE.
    """

    name: str
    classical: bool
    settings: dict[str, Any] | None

    @classmethod
    def parse(cls, name: str) -> Arm:
        """Read an arm (see the module).

        Raises:
            ValueError: If a part is unknown.
        """
        classical, settings = False, None
        for part in () if name == "real" else name.split("+"):
            mode, _, options = part.partition(":")
            if part == "classical":
                classical = True
            elif mode in ("sample", "interpolate") and settings is None:
                pairs = (option.split("=") for option in options.split(",") if option)
                settings = {"ckpt": "ladder", "mode": mode, "p": 0.5}
                settings |= {key: _parse_value(value) for key, value in pairs}
            else:
                raise ValueError(
                    f"an arm is 'real', or 'classical' and one of 'sample', 'interpolate' joined "
                    f"by '+', with settings like 'sample:guard=off'; got {part!r} in {name!r}."
                )
        return cls(name, classical, settings)

    @property
    def file_part(self) -> str:
        """The name in file names."""
        return "".join(
            letter if letter.isalnum() or letter in "+=." else "_" for letter in self.name
        )


def _parse_value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def choose_fraction(samples: Samples, fraction: float, seed: int) -> Samples:
    """Keep a share of the groups, at least one; a smaller share is part of a larger one."""
    groups = np.random.default_rng(seed).permutation(np.unique(samples.groups))
    kept = groups[: max(round(fraction * len(groups)), 1)]
    return samples.take(np.flatnonzero(np.isin(samples.groups, kept)))


def make_compose(seed: int) -> A.Compose:
    """Make the classical arm: flips, affine, brightness, noise."""
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            A.Affine(scale=(0.85, 1.15), translate_percent=(-0.08, 0.08), rotate=(-15, 15), p=0.7),
            A.RandomBrightnessContrast(0.2, 0.2, p=0.5),
            A.GaussNoise(std_range=(0.01, 0.05), p=0.3),
        ],
        bbox_params=A.BboxParams(
            "pascal_voc", label_fields=["labels"], clip=True, min_visibility=0.3
        ),
        seed=seed,
    )


def iterate_batches(
    samples: Samples, variants: np.ndarray | None, arm: Arm, batch_size: int, seed: int
) -> Iterator[Batch]:
    """Yield batches without end, every pass in a new order.

    Args:
        samples: The training images.
        variants: `[K, N, S, S, 1] uint8`, of the VAE; None for none.
        arm: Whose augmentation is applied, and with which probability a variant is taken.
        batch_size: Images in a batch.
        seed: Of the order and the augmentation; arms of one seed share the order.
    """
    order, choice = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    compose = make_compose(seed) if arm.classical else None
    size, classes = samples.images.shape[1], len(samples.classes)
    while True:
        permutation = order.permutation(len(samples))
        for start in range(0, len(permutation) - batch_size + 1, batch_size):
            images, targets = [], []
            for index in permutation[start : start + batch_size]:
                image, boxes, labels = (
                    samples.images[index],
                    samples.boxes[index],
                    samples.labels[index],
                )
                if variants is not None and choice.random() < arm.settings["p"]:
                    image = variants[choice.integers(len(variants)), index]
                if compose is not None:
                    image, boxes, labels = apply_compose(compose, image, boxes, labels)
                images.append(image)
                targets.append(make_target(boxes, labels, size, classes))
            yield np.stack(images), np.stack(targets)


def apply_compose(
    compose: A.Compose, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run Albumentations on `[S, S, 1] uint8` and boxes `[M, 4]`, `yxyx` in pixels."""
    result = compose(image=image, bboxes=boxes[:, [1, 0, 3, 2]], labels=labels)
    corners = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
    changed = result["image"].reshape(image.shape)
    return changed, corners[:, [1, 0, 3, 2]], np.asarray(result["labels"], np.int32)


def train_ladder(samples: Samples, folder: Path, steps: int) -> Path:
    """Go on from the packaged `demo` on these images; return the checkpoint, made once."""
    checkpoint = folder / "run" / "checkpoint.keras"
    if (folder / "done").is_file():
        return checkpoint
    records = folder / "records"
    write_coco(samples, folder / "coco")
    # It also picks the checkpoint by the detector's training images: nothing held out is looked at.
    for split in ("train", "validation"):
        ingest(
            folder / "coco" / "all.json",
            records,
            format="coco",
            split=split,
            keep_ids=True,
            overwrite=True,
            leak_check=False,
        )
    recipe = json.loads(LADDER.read_text())
    size = samples.images.shape[1]
    train(
        [records],
        folder / "run",
        model=ModelConfig.from_dict({**recipe["model"], "image_size": size}),
        config=TrainConfig.from_dict(
            {**recipe["train"], "steps": steps, "validate_every": steps, "validation_images": 16}
        ),
        card="Made by benchmarks/detection.py.",
        progress=lambda step, figures: step % 50 or print(f"ladder: step {step} of {steps}"),
    )
    (folder / "done").touch()
    return checkpoint


def write_coco(samples: Samples, folder: Path) -> None:
    """Write images in the detector's square as a COCO set, without the names of files."""
    folder.mkdir(parents=True, exist_ok=True)
    images, marks = [], []
    for index, image in enumerate(samples.images):
        name = f"{index:06d}.png"
        Image.fromarray(image[..., 0]).save(folder / name)
        size = image.shape[0]
        patient = str(samples.groups[index])
        images.append(
            {"id": index, "file_name": name, "width": size, "height": size, "patient": patient}
        )
        for box, label in zip(samples.boxes[index], samples.labels[index], strict=True):
            top, left, bottom, right = (float(value) for value in box)
            bbox = [left, top, right - left, bottom - top]
            mark = {"id": len(marks) + 1, "image_id": index, "category_id": int(label) + 1}
            marks.append({**mark, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0})
    categories = [{"id": n, "name": name} for n, name in enumerate(samples.classes, start=1)]
    coco = {"images": images, "annotations": marks, "categories": categories}
    (folder / "all.json").write_text(json.dumps(coco))


def draw_variants(
    samples: Samples, settings: dict[str, Any], checkpoint: str, count: int, folder: Path
) -> np.ndarray:
    """Draw variants of every image, `[K, N, S, S, 1] uint8`; kept in a file."""
    key = hashlib.sha256(json.dumps([settings, count, checkpoint]).encode()).hexdigest()[:12]
    path = folder / f"variants-{key}.npy"
    if path.is_file():
        return np.load(path)
    options = {k: v for k, v in settings.items() if k not in ("ckpt", "p")}
    passes = []
    for number in range(count):
        augment = VAEAugment(
            checkpoint, **options, p=1.0, seed=number, bounding_box_format="yxyx", batch_size=16
        )
        rows = zip(samples.images, samples.boxes, strict=True)
        dataset = tf.data.Dataset.from_generator(
            lambda rows=list(rows): ({"image": image, "boxes": boxes} for image, boxes in rows),
            output_signature={
                "image": tf.TensorSpec(samples.images.shape[1:], tf.uint8),
                "boxes": tf.TensorSpec([None, 4], tf.float32),
            },
        )
        passes.append([element["image"].numpy() for element in dataset.apply(augment)])
        print(f"variants: {number + 1} of {count}", flush=True)
    variants = np.asarray(passes, np.uint8)
    buffer = io.BytesIO()
    np.save(buffer, variants)
    write_atomic(path, buffer.getvalue())
    return variants


class Bench:
    """The runs of one output folder."""

    def __init__(
        self, arguments: argparse.Namespace, whole: Samples, tests: dict[str, Samples]
    ) -> None:
        """Take the options, the training set and the test sets by name."""
        self.arguments = arguments
        self.whole = whole
        self.tests = tests
        self.settings = {
            "size": arguments.size,
            "steps": arguments.steps,
            "batch_size": arguments.batch_size,
            "learning_rate": arguments.learning_rate,
            "ladder_steps": arguments.ladder_steps,
            "variants": arguments.variants,
            "ckpt": arguments.ckpt and Path(arguments.ckpt).name,
            "data": hashlib.sha256(arguments.train.read_bytes()).hexdigest()[:12],
        }

        # What ladders and variants depend on, so that none is taken for another's.
        parts = [self.settings[key] for key in ("data", "size", "ladder_steps")]
        self.made_from = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]

    def run(self, arm: Arm, fraction: float, seed: int) -> None:
        """Train and test a detector, unless its file is there already."""
        path = self.arguments.out / f"run-{arm.file_part}-{fraction:g}-{seed}.json"
        if path.is_file():
            check_settings(path, self.settings)
            return
        samples = choose_fraction(self.whole, fraction, seed=0)
        variants = self._make_variants(arm, samples, fraction)
        begin = time.monotonic()
        model = make_detector(self.arguments.size, len(samples.classes), seed)
        train_detector(
            model,
            iterate_batches(samples, variants, arm, self.arguments.batch_size, seed),
            self.arguments.steps,
            self.arguments.learning_rate,
            lambda step, loss: print(f"{path.stem}: step {step}, loss {loss:.3f}", flush=True),
        )
        detections = {name: detect(model, test.images) for name, test in self.tests.items()}
        result = {
            "arm": arm.name,
            "vae": arm.settings,
            "fraction": fraction,
            "seed": seed,
            "settings": self.settings,
            "training_images": len(samples),
            "training_groups": len(np.unique(samples.groups)),
            "has_patients": samples.has_patients,
            "seconds": round(time.monotonic() - begin),
            "tests": {
                name: score(self.tests[name], found) | {"shown": _list_shown(found)}
                for name, found in detections.items()
            },
        }
        # The weights first: whoever sees the result may rely on them.
        model.save_weights(path.with_suffix(".weights.h5"))
        write_atomic(path, json.dumps(result).encode())
        figures = {name: round(test["mAP50"], 3) for name, test in result["tests"].items()}
        print(f"{path.stem}: mAP50 {figures}, {result['seconds']} s", flush=True)
        keras.backend.clear_session()

    def _make_variants(self, arm: Arm, samples: Samples, fraction: float) -> np.ndarray | None:
        if arm.settings is None:
            return None
        folder = self.arguments.out / f"cache-{fraction:g}-{self.made_from}"
        folder.mkdir(exist_ok=True)
        checkpoint = arm.settings["ckpt"]
        if checkpoint == "ladder":
            checkpoint = self.arguments.ckpt or str(
                train_ladder(samples, folder / "ladder", self.arguments.ladder_steps)
            )
        return draw_variants(samples, arm.settings, checkpoint, self.arguments.variants, folder)


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Raise `ValueError` if a finished run was made with other settings."""
    found = json.loads(path.read_text())["settings"]
    if found != settings:
        raise ValueError(
            f"{path} was made with {found}, and this run has {settings}; choose another --out."
        )


def _list_shown(detections: list[np.ndarray]) -> dict[int, list[list[float]]]:
    """Keep detections of a few images, for the page of pictures."""
    chosen = np.unique(np.linspace(0, len(detections) - 1, 12).round().astype(int))
    return {int(i): np.round(detections[i], 4).astype(float).tolist() for i in chosen}


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a run."""
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and report")
    parser.add_argument("--size", type=int, default=224, help="side of the detector's images")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--ckpt", help="ladder to use instead of training one on the same images")
    parser.add_argument("--ladder-steps", type=int, default=300)
    parser.add_argument("--variants", type=int, default=4, help="of each image, drawn beforehand")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_arguments(parser)
    parser.add_argument("--train", type=Path, help="COCO file; not needed with --report-only")
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="COCO files")
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.25])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--report-only", action="store_true")
    arguments = parser.parse_args()
    if arguments.train is None and not arguments.report_only:
        parser.error("--train is required, unless with --report-only")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    arms = [Arm.parse(name) for name in arguments.arms]
    tests = {path.stem: read_coco(path, arguments.size) for path in arguments.test}
    if not arguments.report_only:
        arguments.out.mkdir(parents=True, exist_ok=True)
        bench = Bench(arguments, read_coco(arguments.train, arguments.size), tests)
        if not bench.whole.has_patients:
            print("The training set names no patients: images count as independent.")
        # Seeds outermost, so that an interrupted bench has as many of every arm.
        for fraction in arguments.fractions:
            for seed in arguments.seeds:
                for arm in arms:
                    bench.run(arm, fraction, seed)
    print(detection_report.write(arguments.out, tests))


if __name__ == "__main__":
    main()
