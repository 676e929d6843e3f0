"""Train the network on records: noisy image in, clean image out, resumable at any validation."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.config import TrainConfig
from vae_aug.model.checkpoint import (
    BEST_CHECKPOINT,
    load_checkpoint,
    read_manifest,
    save_checkpoint,
)
from vae_aug.model.manifest import check_size
from vae_aug.model.network import Network
from vae_aug.model.noise import Noise, NoiseSpec, sample_batch_noise
from vae_aug.train.devices import average_workers, check_settings, check_step, open_devices
from vae_aug.train.feed import Source, make_training_feed, make_validation_feed
from vae_aug.train.holdout import Holdout, open_sources
from vae_aug.train.measure import (
    average,
    make_measure_batch,
    measure,
    measure_images,
    sum_kl,
)
from vae_aug.train.objective import compute_loss, compute_psnr
from vae_aug.train.pace import Pace, describe_pace
from vae_aug.train.pictures import TrainingPictures
from vae_aug.train.plan import (
    describe_darkness,
    describe_plan,
    describe_position,
    describe_scores,
)
from vae_aug.train.projector import write_projector
from vae_aug.train.recipe import Recipe
from vae_aug.train.run_files import (
    BEST_NAME,
    CONFIG_NAME,
    LOG_NAME,
    LOGS_NAME,
    START_NAME,
    Figures,
    Start,
    TrainingError,
    cut_log,
    keep_config,
    read_best,
    read_start,
    round_figures,
    write_json,
    write_start,
)
from vae_aug.train.state import State, make_start, make_state, restore, save_files
from vae_aug.train.variation import hold_one_patient, train_variation

Progress = Callable[[int, Figures], None]
Report = Callable[[str], None]

_LOG_EVERY = 10
_AGGREGATE_IMAGES = 512
"""Training images from which the aggregate posterior is estimated."""


def train(
    sources: Sequence[str | Path],
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    validation: Sequence[str | Path] = (),
    card: str = "",
    allow_damaged: bool = False,
    progress: Progress | None = None,
    variation_progress: Progress | None = None,
    report: Report | None = None,
) -> Figures:
    """Train a network and leave its best checkpoint in `out`.

    Its `variation`, if it has one, is trained first, then the restoration; `recipe.only` leaves one
    of them out. From images of one patient no variation is learned: then it stays that of the
    checkpoint that the run starts from, or the network gets none. Without the restoration, `out`
    gets no more than `checkpoint.keras`, `config.json` and `variation/`, the state of that
    training.

    `out` then holds `checkpoint.keras` (best by validation), `config.json`, `log.jsonl` (from a
    validation at step 0, before the first, on), `start.json` (what that measured, image by image),
    `best.json` (figures of the best validation), `sheet.png` (clean, noisy, restored images with
    their errors and boxes), `curves.png`, `tensorboard/` and `state/`. Called again on the same
    `out`, it goes on from the last validation with the same optimiser state and batches, however
    the former run ended. While it runs, `out` is locked.
    `vae_aug.evaluate.outcome.judge_training` says what it was worth.

    `recipe.devices`, or TF_CONFIG in the environment, split each batch over devices or workers. Of
    several workers the first one alone writes to `out`, which all of them have to share; a run goes
    on with any number of either.

    Args:
        sources: Folders of records, as `vae-aug ingest` writes them, with a split `train`.
        out: Folder of the run.
        recipe: The architecture and the settings of the run.
        validation: Folders whose split `validation` is validated on; by default those of
            `sources` that have one. If none has, a tenth of the training images is held back, see
            `vae_aug.train.holdout.hold_back`.
        card: The model card of the checkpoint, Markdown.
        allow_damaged: Whether records are read of which shards are damaged or not as their
            `dataset.json` says.
        progress: Called after every step with the step's number and its figures: `loss`, `kl` in
            nats, `psnr` in dB and `images_per_second`; beside them `start_ssim` and `last_ssim`,
            of noisy input at the validations before the first step and of late, and `seconds_left`,
            NaN until enough steps were timed.
        variation_progress: Called after every step of the variation, see
            `vae_aug.train.pairs.train_transformation`.
        report: Called with sentences: what was held back, what is going to be done, where the run
            stands, and as soon as steps were timed, when it is expected to end.

    Returns:
        The figures of the best validation: PSNR in dB and SSIM on clean input and on `replace`
        with 40% left, KL in nats. Without the restoration, those of the checkpoint that it is from.

    Raises:
        RecordError: If a source has no training split or is damaged, a folder of `validation` has
            no such split, there is nothing to hold back, or another run writes to `out`.
        ValueError: If `out` holds a run with other settings, `start_from` is a network of another
            architecture, the network is larger than a checkpoint may hold, the variation alone
            would have to learn from the images of one patient, or devices or workers cannot be
            used as named.
        CheckpointError: If `start_from` cannot be loaded.
        TrainingError: If the loss stops being finite, another worker is lost, or what a former run
            left in `out` is damaged; the message names the file.
    """
    out, recipe, report = Path(out), recipe or Recipe(), report or _say_nothing
    check_size(recipe.model)
    devices = open_devices(recipe, report)
    with devices.explain_loss(out), devices.open_folder(out) as folder:
        keep_config(folder / CONFIG_NAME, recipe, sources)
        check_settings(devices.strategy, recipe, out)
        out = folder
        parts = open_sources(sources, validation, allow_damaged=allow_damaged)
        for line in filter(None, (devices.describe(recipe.train.batch_size), parts.description)):
            report(line)
        recipe = _leave_variation_out(recipe, parts, report)
        with devices.strategy.scope():
            vae = make_start(recipe)
        learned = _train_variation(vae, parts, out, recipe, variation_progress, report)
        if not recipe.trains("restoration"):
            return _save_variation(vae, parts, out, recipe, card, learned)
        return _train(vae, parts, out, recipe, card, learned, progress, report)


def _say_nothing(sentence: str) -> None:
    """Stand for a `report` that nobody asked for."""


def _leave_variation_out(recipe: Recipe, parts: Holdout, report: Report) -> Recipe:
    """Train no variation from images of one patient, where something else is to be trained."""
    if recipe.only or not recipe.trains("variation") or not hold_one_patient(parts.training):
        return recipe
    begun = _read_start(recipe.train.start_from)["model"].get("variation", False)
    state = "stays as it is" if begun else "is left out"
    report(f"variation: {state}; all images are of one patient, which teaches nothing of others")
    model = dataclasses.replace(recipe.model, variation=begun)
    return dataclasses.replace(recipe, model=model, only="restoration")


def _train_variation(
    vae: Network,
    parts: Holdout,
    out: Path,
    recipe: Recipe,
    progress: Progress | None,
    report: Report,
) -> dict[str, Any]:
    """Train the network's variation if that is wanted, and return what its checkpoint keeps."""
    if recipe.trains("variation"):
        return train_variation(
            vae.variation,
            parts.training,
            out,
            recipe.variation,
            progress=progress,
            report=report,
        )
    begun = _read_start(recipe.train.start_from)["training"]
    learned: dict[str, Any] = begun.get("variation", {}) if recipe.model.variation else {}
    return learned


def _save_variation(
    vae: Network,
    parts: Holdout,
    out: Path,
    recipe: Recipe,
    card: str,
    learned: dict[str, Any],
) -> Figures:
    """Save a network whose restoration is that of the checkpoint that it starts from."""
    start_from = recipe.train.start_from
    training = _read_start(start_from)["training"]
    save_checkpoint(
        vae,
        out / BEST_CHECKPOINT,
        training={**training, "variation": learned} if learned else training,
        fingerprint=_fingerprint(parts.training, start_from),
        card=card,
    )
    figures: Figures = training.get("validation", {})
    return figures


def _read_start(start_from: str | None) -> dict[str, Any]:
    """Read the manifest of the checkpoint that a run starts from; an empty one for none."""
    if start_from is None:
        return {"model": {}, "training": {}, "fingerprint": {}, "digest": None}
    manifest: dict[str, Any] = read_manifest(start_from)
    return manifest


def _train(
    vae: Network,
    parts: Holdout,
    out: Path,
    recipe: Recipe,
    card: str,
    learned: dict[str, Any],
    progress: Progress | None,
    report: Report,
) -> Figures:
    """Train the restoration in a folder that no other run writes to."""
    config, size = recipe.train, recipe.model.image_size
    run = _Run(make_state(vae, config), parts, config, out, card, learned, report)
    if not run.is_complete:

        def open_feed(context: tf.distribute.InputContext) -> tf.data.Dataset:
            return make_training_feed(parts.training, size, config, run.step, context)

        feed = vae.distribute_strategy.distribute_datasets_from_function(open_feed)
        for step, figures in _iterate(make_train_step(run.state, config), feed, run):
            run.log("train", step, figures)
            if progress is not None:
                progress(step, {**figures, **run.describe_standing(step)})
            if step % config.validate_every == 0 or step == config.steps:
                run.validate(step)
            if run.is_complete:
                break
    return run.finish(size)


def make_train_step(state: State, config: TrainConfig) -> Callable[..., Figures]:
    """Make the graph of one optimiser step: `(noisy, clean, weights, step)` to figures.

    Under a strategy with several replicas each computes its part of the batch, with that part of
    the batch's noise.
    """
    vae = state.vae
    strategy = vae.distribute_strategy
    variables = vae.trainable_variables
    square = [vae.config.image_size] * 2
    specs = vae.list_noise(vae.config, "sample", *square)

    def train_part(
        noisy: tf.Tensor, clean: tf.Tensor, weights: tf.Tensor, step: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        seed = tf.stack([config.seed + 1, step])
        with tf.GradientTape() as tape:
            noise = _sample_part(seed, specs, tf.shape(noisy)[0])
            decoded = vae.forward(noisy, noise, training=True)
            loss = compute_loss(decoded, clean, weights, step, config)
            # Per value, so that the gradients have the size that optimisers are tuned for.
            scaled = loss / float(np.prod(decoded.reconstruction.shape[1:]))
        state.apply_gradients(tape.gradient(scaled, variables))
        state.move_averages(config.ema)
        error = tf.reduce_mean(tf.square(clean - decoded.reconstruction), axis=(1, 2, 3))
        return {
            "loss": loss,
            "kl": tf.reduce_mean(tf.add_n([sum_kl(kl) for kl in decoded.kls])),
            "psnr": tf.reduce_mean(compute_psnr(error)),
        }

    @tf.function(autograph=False, reduce_retracing=True)
    def train_step(*batch: tf.Tensor) -> dict[str, tf.Tensor]:
        figures = strategy.run(train_part, args=batch)
        return {
            name: strategy.reduce(tf.distribute.ReduceOp.MEAN, figure, axis=None)
            for name, figure in figures.items()
        }

    return train_step


def _sample_part(seed: tf.Tensor, specs: Mapping[str, NoiseSpec], count: tf.Tensor) -> Noise:
    """Sample a batch's noise, and take what belongs to this replica's `count` images."""
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return sample_batch_noise(seed, specs, count)
    noise = sample_batch_noise(seed, specs, count * replica.num_replicas_in_sync)
    first = count * replica.replica_id_in_sync_group
    return {name: value[first : first + count] for name, value in noise.items()}


class _Run:
    """A run and what it writes beside its state: log, TensorBoard, sheet, best checkpoint.

    Made of the state before the first step, it measures that, unless a former run has, and then
    sets the state to what the former run left.
    """

    def __init__(
        self,
        state: State,
        parts: Holdout,
        config: TrainConfig,
        out: Path,
        card: str,
        learned: dict[str, Any],
        report: Report,
    ) -> None:
        began = time.perf_counter()
        self.state, self.parts, self.config, self.out, self.card = state, parts, config, out, card
        self._learned, self._report = learned, report
        self.fingerprint = _fingerprint(parts.training, config.start_from)
        self._measure_batch = make_measure_batch(state.vae)
        size = state.vae.config.image_size
        feed = make_validation_feed(parts.validation, size, config, config.validation_images)
        self._feed = feed.cache()
        is_new = not (out / START_NAME).exists()
        start = self._measure_start() if is_new else read_start(out)
        self._start = self._last = average(start.images)
        self.pace = Pace(config, start.seconds, began)
        self._manager = restore(state, out)
        check_step(state.vae.distribute_strategy, self.step)
        self.writer = tf.summary.create_file_writer(str(out / LOGS_NAME))
        cut_log(out / LOG_NAME, self.step)
        if is_new and not self.step:
            self.log("validation", 0, self._start)
        self._describe(len(start.images["ssim"]))

    @functools.cached_property
    def _pictures(self) -> TrainingPictures:
        """What validations show; a run that is complete has none to choose images for."""
        size = self.state.vae.config.image_size
        return TrainingPictures(self.out, self.parts.validation, size, self.config.seed)

    def _measure_start(self) -> Start:
        """Measure what the training starts from, and keep it for a comparison at its end."""
        # Traced before it is timed, as a first step is.
        self._measure_batch.get_concrete_function()
        began = time.perf_counter()
        values, _ = measure_images(self._measure_batch, self._feed)
        start = Start(values, time.perf_counter() - began)
        write_start(self.out, start)
        return start

    @property
    def step(self) -> int:
        """Steps that are done."""
        return int(self.state.step)

    @property
    def is_complete(self) -> bool:
        """Whether every step is done, or patience has run out."""
        state, config = self.state, self.config
        return int(state.step) >= config.steps or 0 < config.patience <= int(state.stale)

    def _describe(self, held_out: int) -> None:
        """Say what is going to be done, or where a run that was begun before stands."""
        model, images = self.state.vae.config, self.fingerprint["images"]
        is_deep = any(source.dtype == "uint16" for source in self.parts.validation)
        dark = describe_darkness(self._feed) if is_deep and not self.is_complete else ""
        for line in describe_plan(model, self.config, images, held_out, dark):
            self._report(line)
        self._report(describe_scores("start", self._start))
        if self.step:
            self._last = read_best(self.out)
            self._report(describe_position(self.step, self.config, self._last, self.is_complete))

    def count_step(self, seconds: float) -> float:
        """Count the time of a step; say what the rest is expected to take as soon as it is known.

        Returns:
            Images per second.
        """
        was_known = self.pace.is_known
        self.pace.add_step(seconds)
        if self.pace.is_known and not was_known:
            self._report(describe_pace(self.pace, self.config, self.step))
        return self.config.batch_size / seconds

    def describe_standing(self, step: int) -> Figures:
        """Return what `progress` is told beside a step's own figures."""
        return {
            "start_ssim": self._start["ssim_noisy"],
            "last_ssim": self._last["ssim_noisy"],
            "seconds_left": self.pace.compute_left(step),
        }

    def log(self, kind: str, step: int, figures: Figures) -> None:
        """Write figures to TensorBoard and, validations and every tenth step, to the log."""
        with self.writer.as_default(step):
            for name, value in figures.items():
                tf.summary.scalar(f"{kind}/{name}", value)
        if kind != "train" or step % _LOG_EVERY == 0:
            # One line, which reaches the file in one piece as it is closed.
            with (self.out / LOG_NAME).open("a") as file:
                line = {"kind": kind, "step": step, **round_figures(figures)}
                file.write(json.dumps(line) + "\n")

    def validate(self, step: int) -> None:
        """Measure the averaged weights, keep them if they are the best so far, and the state."""
        began = time.perf_counter()
        with self.state.use_averages():
            figures = self._last = measure(self._measure_batch, self._feed)
            self.log("validation", step, figures)
            score = average_workers(
                self.state.vae.distribute_strategy, (figures["psnr"] + figures["psnr_noisy"]) / 2
            )
            if score > float(self.state.best):
                self.state.best.assign(score)
                self.state.stale.assign(0)
                self._save(self.state.vae, {"step": step, **figures})
            else:
                self.state.stale.assign_add(1)
            sheet = self._pictures.write_sheet(self.state.vae, step)
        self._pictures.write_curves(self.out / LOG_NAME)
        with self.writer.as_default(step):
            tf.summary.image("validation/sheet", sheet[None])
        self.writer.flush()
        save_files(self._manager, step)
        self.pace.validation_seconds = time.perf_counter() - began

    def finish(self, size: int) -> Figures:
        """Put the statistics of the training images' latents into the best checkpoint, once.

        Returns:
            The figures of the best validation.
        """
        vae = load_checkpoint(self.out / BEST_CHECKPOINT, self.state.vae)
        best = read_best(self.out)
        if not np.any(vae.aggregate_mean.numpy()):
            plain = dataclasses.replace(self.config, seed=0, batch_size=16)
            feed = make_validation_feed(self.parts.training, size, plain, limit=_AGGREGATE_IMAGES)
            encode = tf.function(vae.encode, autograph=False)
            latents = [encode(clean) for _, clean in feed]
            z_mean = np.concatenate([mean for mean, _ in latents])
            variance = np.concatenate([np.exp(log_var) for _, log_var in latents])
            vae.aggregate_mean.assign(z_mean.mean(axis=0))
            vae.aggregate_std.assign(np.sqrt(z_mean.var(axis=0) + variance.mean(axis=0)))
            logs, limit = self.out / LOGS_NAME, self.config.validation_images
            write_projector(logs, encode, self.parts.validation, size, limit)
            self._save(vae, best)
        # Again, for a run that was killed after its checkpoint and before this copy of its figures.
        write_json(self.out / BEST_NAME, best)
        self.writer.close()
        return best

    def _save(self, vae: Network, figures: Figures) -> None:
        rounded = round_figures(figures)
        # A path says something of the machine and nothing of the network.
        config = {**self.config.to_dict(), "start_from": self.fingerprint["start_from"]}
        variation = {"variation": self._learned} if self._learned else {}
        save_checkpoint(
            vae,
            self.out / BEST_CHECKPOINT,
            training={"config": config, "validation": rounded, **variation},
            fingerprint=self.fingerprint,
            card=self.card,
        )
        write_json(self.out / BEST_NAME, rounded)


def _iterate(
    train_step: Callable[..., Any], feed: tf.data.Dataset, run: _Run
) -> Iterator[tuple[int, Figures]]:
    """Run steps until `config.steps`, yielding each step's number and figures."""
    state = run.state
    began = time.perf_counter()
    for batch in feed:
        if run.step >= run.config.steps:
            return
        figures = {k: float(v) for k, v in train_step(*batch, state.step).items()}
        if not np.isfinite(figures["loss"]):
            raise TrainingError(
                f"The loss is {figures['loss']} at step {run.step}. The last good state "
                "is kept; train again with a lower learning_rate."
            )
        state.step.assign_add(1)
        figures["images_per_second"] = run.count_step(time.perf_counter() - began)
        yield run.step, figures
        began = time.perf_counter()


def _fingerprint(training: Sequence[Source], start_from: str | None) -> dict[str, Any]:
    """Count the training images and collect the hashes of their patients.

    A checkpoint that training starts from has seen its patients too: they are added to these. Its
    images are not, for nobody knows how many of them are the same.
    """
    begun = _read_start(start_from)
    patients = set(begun["fingerprint"].get("patients", ()))
    images = 0
    for source in training:
        for serialized in source.examples:
            images += 1
            features = tf.train.Example.FromString(serialized.numpy()).features.feature
            patients.update(p.decode() for p in features["image/patient"].bytes_list.value)
    return {
        "images": images,
        "patients": sorted(patients - {""}),
        "start_from": begun["digest"],
    }
