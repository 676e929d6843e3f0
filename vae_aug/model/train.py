"""Train the network on records: noisy image in, clean image out, resumable at any validation."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vae_aug.config import ModelConfig, TrainConfig
from vae_aug.data.atomic import lock_folder, remove_temporaries, write_atomic
from vae_aug.data.limits import read_bounded
from vae_aug.data.shards import read_info
from vae_aug.errors import CheckpointError, VAEAugError
from vae_aug.model.checkpoint import (
    BEST_CHECKPOINT,
    load_checkpoint,
    read_manifest,
    save_checkpoint,
)
from vae_aug.model.encoder import freeze_stages
from vae_aug.model.feed import Source, make_training_feed, make_validation_feed, open_source
from vae_aug.model.holdout import hold_back
from vae_aug.model.loss import (
    RECONSTRUCTIONS,
    apply_free_bits,
    kl_weight,
    mean_squared_error,
    structural_similarity,
)
from vae_aug.model.manifest import check_size
from vae_aug.model.pictures import CURVES_NAME, SHEET_NAME, TrainingPictures
from vae_aug.model.profiles import Network, make_vae
from vae_aug.model.vae import Draw

Figures = dict[str, float]
Progress = Callable[[int, Figures], None]

_CONFIG_NAME = "config.json"
_LOG_NAME = "log.jsonl"
_BEST_NAME = "best.json"
_STATE_NAME = "state"
_MAX_CONFIG_BYTES = 2**24
_WARMUP_SHARE = 0.05
_LOG_EVERY = 10
_AGGREGATE_IMAGES = 512
"""Training images from which the aggregate posterior is estimated."""


class TrainingError(VAEAugError):
    """Training cannot go on."""


@dataclasses.dataclass
class _State:
    """Everything that a resumed run needs to go on as if it had not stopped."""

    vae: Network
    optimizer: keras.Optimizer
    averages: list[tf.Variable]
    step: tf.Variable
    best: tf.Variable
    stale: tf.Variable

    def make_manager(self, folder: Path) -> tf.train.CheckpointManager:
        """Tie the state to files; saving keeps the two newest."""
        checkpoint = tf.train.Checkpoint(
            weights=[v.value for v in self.vae.weights],
            optimizer=[v.value for v in self.optimizer.variables],
            averages=self.averages,
            step=self.step,
            best=self.best,
            stale=self.stale,
        )
        return tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=2)


def train(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    model: ModelConfig | None = None,
    config: TrainConfig | None = None,
    validation: Sequence[str | Path] = (),
    card: str = "",
    allow_damaged: bool = False,
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> Figures:
    """Train a network and leave its best checkpoint in `out`.

    `out` then holds `checkpoint.keras` (best by validation), `config.json`, `log.jsonl`,
    `best.json` (figures of the best validation), `sheet.png` (clean, noisy, restored images with
    their errors and boxes), `curves.png`, `tensorboard/` and `state/`. Called again on the same
    `out`, it goes on from the last validation with the same optimiser state and batches, however
    the former run ended. While it runs, `out` is locked.

    Args:
        sources: Folders of records, as `vae-aug ingest` writes them, with a split `train`.
        out: Folder of the run.
        model: The architecture.
        config: The settings of the run.
        validation: Folders whose split `validation` is validated on; by default those of
            `sources` that have one. If none has, a tenth of the training images is held back, see
            `vae_aug.model.holdout.hold_back`.
        card: The model card of the checkpoint, Markdown.
        allow_damaged: Whether records are read of which shards are damaged or not as their
            `dataset.json` says.
        progress: Called after every step with the step's number and its figures.
        report: Called with a sentence about what was held back, if anything was.

    Returns:
        The figures of the best validation: PSNR in dB and SSIM on clean input and on `replace`
        with 40% left, KL in nats.

    Raises:
        RecordError: If a source has no training split or is damaged, a folder of `validation` has
            no such split, there is nothing to hold back, or another run writes to `out`.
        ValueError: If `out` holds a run with other settings, `start_from` is a network of another
            architecture, or the network is larger than a checkpoint may hold.
        CheckpointError: If `start_from` cannot be loaded.
        TrainingError: If the loss stops being finite, or what a former run left in `out` is
            damaged; the message names the file.
    """
    model, config, out = model or ModelConfig(), config or TrainConfig(), Path(out)
    check_size(model)
    with lock_folder(out) as locked:
        if locked:
            written = (_CONFIG_NAME, _LOG_NAME, _BEST_NAME, SHEET_NAME, CURVES_NAME)
            for name in (*written, BEST_CHECKPOINT):
                remove_temporaries(out / name)
        _keep_config(out / _CONFIG_NAME, model, config, sources)
        training = [open_source(s, "train", allow_damaged=allow_damaged) for s in sources]
        held_out = _open_validation(
            validation or sources, required=bool(validation), allow_damaged=allow_damaged
        )
        if not held_out:
            holdout = hold_back(training)
            training, held_out = holdout.training, holdout.validation
            if report is not None:
                report(holdout.description)
        return _train(training, held_out, out, model, config, card, progress)


def _train(
    training: Sequence[Source],
    held_out: Sequence[Source],
    out: Path,
    model: ModelConfig,
    config: TrainConfig,
    card: str,
    progress: Progress | None,
) -> Figures:
    """Do what `train` says in a folder that no other run writes to."""
    keras.utils.set_random_seed(config.seed)
    state = _make_state(model, config)
    manager = _restore(state, out)
    run = _Run(state, config, out, card, _fingerprint(training, config.start_from))
    if not run.is_complete:
        feed = make_training_feed(training, model.image_size, config, start=int(state.step))
        validation_feed = make_validation_feed(
            held_out, model.image_size, config, config.validation_images
        ).cache()
        pictures = TrainingPictures(out, held_out, model.image_size, config.seed)
        train_step = make_train_step(state, config)
        for step, figures in _iterate(train_step, feed, state, config):
            run.log("train", step, figures)
            if progress is not None:
                progress(step, figures)
            if step % config.validate_every == 0 or step == config.steps:
                run.validate(validation_feed, step, pictures)
                manager.save(checkpoint_number=step)
            if run.is_complete:
                break
    return run.finish(training, model.image_size)


def make_train_step(state: _State, config: TrainConfig) -> Callable[..., Figures]:
    """Make the graph of one optimiser step: `(noisy, clean, weights, step)` to figures."""
    vae = state.vae
    variables = vae.trainable_variables

    @tf.function(autograph=False, reduce_retracing=True)
    def train_step(
        noisy: tf.Tensor,
        clean: tf.Tensor,
        weights: tf.Tensor,
        step: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        seed = tf.stack([config.seed + 1, step])
        with tf.GradientTape() as tape:
            draw = vae.forward(noisy, seed, training=True)
            loss = compute_loss(draw, clean, weights, step, config)
            # Per value, so that the gradients have the size that optimisers are tuned for.
            scaled = loss / float(np.prod(draw.reconstruction.shape[1:]))
        gradients = tape.gradient(scaled, variables)
        state.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        _average(state, config.ema)
        error = tf.reduce_mean(tf.square(clean - draw.reconstruction), axis=(1, 2, 3))
        return {
            "loss": loss,
            "kl": tf.reduce_mean(tf.add_n([_sum_kl(kl) for kl in draw.kls])),
            "psnr": tf.reduce_mean(_psnr(error)),
        }

    return train_step


def compute_loss(
    draw: Draw,
    clean: tf.Tensor,
    weights: tf.Tensor,
    step: tf.Tensor,
    config: TrainConfig,
) -> tf.Tensor:
    """Compute the objective in nats per image.

    Args:
        draw: What the network made of the noisy images.
        clean: `[B, S, S, 1] float32`, what it should have drawn.
        weights: `[B, S, S, 1] float32`, of the pixels.
        step: Scalar int32, for the KL warm-up.
        config: Loss and weights.

    Returns:
        Scalar float32.
    """
    reconstruct = RECONSTRUCTIONS[config.loss]
    pixels = int(np.prod(clean.shape[1:]))
    mse = mean_squared_error(clean, draw.reconstruction, weights)
    loss = reconstruct(mse, int(np.prod(draw.reconstruction.shape[1:])))
    if config.ssim_weight:
        grey = tf.reduce_mean(draw.reconstruction, axis=-1, keepdims=True)
        similarity = tf.reduce_mean(structural_similarity(clean, grey))
        loss += config.ssim_weight * pixels * (1.0 - similarity)
    if draw.coarse is not None and config.coarse_weight:
        coarse = reconstruct(mean_squared_error(clean, draw.coarse, weights), pixels)
        loss += config.coarse_weight * coarse
    for index, kl in enumerate(draw.kls):
        beta = config.spatial_beta if index else config.beta
        weight = kl_weight(step, beta, config.kl_warmup_steps)
        loss += weight * apply_free_bits(kl, config.free_bits)
    return loss


def _sum_kl(kl: tf.Tensor) -> tf.Tensor:
    """Sum nats per image: `[B, ...]` to `[B]`."""
    return tf.reduce_sum(kl, axis=range(1, kl.shape.rank))


def make_measure_batch(vae: Network) -> Callable[..., Any]:
    """Make the graph that measures one validation batch; it is traced at its first call.

    Args:
        vae: The network. The graph reads its weights at every call, so one graph serves a run.

    Returns:
        A function of `(noisy, clean)`, each `[B, S, S, 1] float32`, to figures `[B] float32` by
        name, as `measure` averages them, and the latent means `[B, N] float32`.
    """

    @tf.function(autograph=False, reduce_retracing=True)
    def measure_batch(noisy: tf.Tensor, clean: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        draw = vae.forward(clean)
        levels = [_sum_kl(kl) for kl in draw.kls]
        figures = {"kl": tf.add_n(levels)}
        if len(levels) > 1:
            figures |= {f"kl_{index}": kl for index, kl in enumerate(levels)}
        for suffix, restored in (
            ("", draw.reconstruction),
            ("_noisy", vae.forward(noisy).reconstruction),
        ):
            grey = tf.reduce_mean(restored, axis=-1, keepdims=True)
            figures["psnr" + suffix] = tf.image.psnr(clean, grey, 1.0)
            figures["ssim" + suffix] = structural_similarity(clean, grey)
        return figures, draw.z_mean

    return measure_batch


def measure(measure_batch: Callable[..., Any], feed: tf.data.Dataset) -> Figures:
    """Measure a network on a validation feed.

    Args:
        measure_batch: The graph of `make_measure_batch`.
        feed: Batches `(noisy, clean)`, as `make_validation_feed`.

    Returns:
        Means over images of `psnr` (dB) and `ssim` for clean input, `psnr_noisy` and
        `ssim_noisy` for noisy input, `kl` (nats), for a ladder `kl_0`, `kl_1`, ... by level from
        the global latent down, and `active_units`: how many means of the global latent have a
        variance over the images above 0.01 (Burda et al., Importance Weighted Autoencoders,
        2016).
    """
    batches = [measure_batch(noisy, clean) for noisy, clean in feed]
    means = np.concatenate([z_mean for _, z_mean in batches])
    figures = {
        key: float(np.mean(np.concatenate([values[key] for values, _ in batches])))
        for key in batches[0][0]
    }
    return {**figures, "active_units": float(np.sum(np.var(means, axis=0) > 0.01))}


class _Run:
    """What a run writes beside its state: log, TensorBoard, sheet, best checkpoint."""

    def __init__(
        self,
        state: _State,
        config: TrainConfig,
        out: Path,
        card: str,
        fingerprint: dict[str, Any],
    ) -> None:
        self.state, self.config, self.out, self.card = state, config, out, card
        self.fingerprint = fingerprint
        self._measure_batch = make_measure_batch(state.vae)
        self.writer = tf.summary.create_file_writer(str(out / "tensorboard"))
        _cut_log(out / _LOG_NAME, int(state.step))

    @property
    def is_complete(self) -> bool:
        """Whether every step is done, or patience has run out."""
        state, config = self.state, self.config
        return int(state.step) >= config.steps or 0 < config.patience <= int(state.stale)

    def log(self, kind: str, step: int, figures: Figures) -> None:
        """Write figures to TensorBoard and, validations and every tenth step, to the log."""
        with self.writer.as_default(step):
            for name, value in figures.items():
                tf.summary.scalar(f"{kind}/{name}", value)
        if kind != "train" or step % _LOG_EVERY == 0:
            rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
            # One line, which reaches the file in one piece as it is closed.
            with (self.out / _LOG_NAME).open("a") as file:
                file.write(json.dumps({"kind": kind, "step": step, **rounded}) + "\n")

    def validate(self, feed: tf.data.Dataset, step: int, pictures: TrainingPictures) -> None:
        """Measure and show the averaged weights; keep them if they are the best so far."""
        with _use_averages(self.state):
            figures = measure(self._measure_batch, feed)
            self.log("validation", step, figures)
            score = (figures["psnr"] + figures["psnr_noisy"]) / 2
            if score > float(self.state.best):
                self.state.best.assign(score)
                self.state.stale.assign(0)
                self._save(self.state.vae, {"step": step, **figures})
            else:
                self.state.stale.assign_add(1)
            sheet = pictures.write_sheet(self.state.vae, step)
        pictures.write_curves(self.out / _LOG_NAME)
        with self.writer.as_default(step):
            tf.summary.image("validation/sheet", sheet[None])
        self.writer.flush()

    def finish(self, training: Sequence[Source], size: int) -> Figures:
        """Put the statistics of the training images' latents into the best checkpoint, once.

        Returns:
            The figures of the best validation.
        """
        vae = load_checkpoint(self.out / BEST_CHECKPOINT)
        best = _read_best(self.out)
        if not np.any(vae.aggregate_mean.numpy()):
            plain = dataclasses.replace(self.config, seed=0, batch_size=16)
            feed = make_validation_feed(training, size, plain, limit=_AGGREGATE_IMAGES)
            encode = tf.function(vae.encode, autograph=False)
            latents = [encode(clean) for _, clean in feed]
            z_mean = np.concatenate([mean for mean, _ in latents])
            variance = np.concatenate([np.exp(log_var) for _, log_var in latents])
            vae.aggregate_mean.assign(z_mean.mean(axis=0))
            vae.aggregate_std.assign(np.sqrt(z_mean.var(axis=0) + variance.mean(axis=0)))
            self._save(vae, best)
        # Again, for a run that was killed after its checkpoint and before this copy of its figures.
        _write_json(self.out / _BEST_NAME, best)
        self.writer.close()
        return best

    def _save(self, vae: Network, figures: Figures) -> None:
        rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
        # A path says something of the machine and nothing of the network.
        config = {**self.config.to_dict(), "start_from": self.fingerprint["start_from"]}
        save_checkpoint(
            vae,
            self.out / BEST_CHECKPOINT,
            training={"config": config, "validation": rounded},
            fingerprint=self.fingerprint,
            card=self.card,
        )
        _write_json(self.out / _BEST_NAME, rounded)


@contextlib.contextmanager
def _use_averages(state: _State) -> Iterator[None]:
    """Swap the moving averages of the weights in, and the weights back in afterwards."""

    def swap() -> None:
        for variable, average in zip(state.vae.trainable_variables, state.averages, strict=True):
            value = tf.identity(variable.value)
            variable.assign(average)
            average.assign(value)

    swap()
    try:
        yield
    finally:
        swap()


def _average(state: _State, decay: float) -> None:
    """Move the averages towards the weights; early on faster, so that they forget the start."""
    steps = tf.cast(state.step, tf.float32)
    decay = tf.minimum(decay, (1.0 + steps) / (10.0 + steps)) if decay else 0.0
    for variable, average in zip(state.vae.trainable_variables, state.averages, strict=True):
        average.assign(decay * average + (1.0 - decay) * variable.value)


def _make_state(model: ModelConfig, config: TrainConfig) -> _State:
    vae = make_vae(model, encoder_weights=config.encoder_weights)
    if config.start_from:
        _take_weights(vae, config.start_from)
    freeze_stages(vae.backbone, config.frozen_stages)
    vae.first.trainable = config.frozen_stages == 0
    warmup = max(int(_WARMUP_SHARE * config.steps), 1)
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(config.steps - warmup, 1),
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.Adam(rate, global_clipnorm=1.0)
    optimizer.build(vae.trainable_variables)
    averages = [tf.Variable(v.value, trainable=False) for v in vae.trainable_variables]
    return _State(vae, optimizer, averages, tf.Variable(0), tf.Variable(-np.inf), tf.Variable(0))


def _take_weights(vae: Network, start_from: str) -> None:
    """Copy the weights of a checkpoint, but for what it knows of its own training images."""
    source = load_checkpoint(start_from)
    wanted, found = vae.config.to_dict(), source.config.to_dict()
    free = {"image_size"} if vae.config.profile == "ladder" else set()
    if differing := [key for key in wanted if key not in free and wanted[key] != found[key]]:
        described = ", ".join(f"{key} {found[key]!r}, not {wanted[key]!r}" for key in differing)
        raise ValueError(f"start_from={start_from!r} is another architecture: {described}.")
    vae.set_weights(source.get_weights())
    vae.aggregate_mean.assign(tf.zeros_like(vae.aggregate_mean))
    vae.aggregate_std.assign(tf.ones_like(vae.aggregate_std))


def _iterate(
    train_step: Callable[..., Any], feed: tf.data.Dataset, state: _State, config: TrainConfig
) -> Iterator[tuple[int, Figures]]:
    """Run steps until `config.steps`, yielding each step's number and figures."""
    began = time.perf_counter()
    for batch in feed:
        if int(state.step) >= config.steps:
            return
        figures = {k: float(v) for k, v in train_step(*batch, state.step).items()}
        if not np.isfinite(figures["loss"]):
            raise TrainingError(
                f"The loss is {figures['loss']} at step {int(state.step)}. The last good state "
                "is kept; train again with a lower learning_rate."
            )
        state.step.assign_add(1)
        now = time.perf_counter()
        figures["images_per_second"] = config.batch_size / (now - began)
        yield int(state.step), figures
        began = time.perf_counter()


def _psnr(mse: tf.Tensor) -> tf.Tensor:
    """Compute the peak signal-to-noise ratio in dB for a range of 1."""
    return -10.0 * tf.math.log(tf.maximum(mse, 1e-10)) / np.log(10.0)


def _open_validation(
    folders: Sequence[str | Path], *, required: bool, allow_damaged: bool
) -> list[Source]:
    """Open the validation splits that exist; all of them must if they were asked for by name."""
    opened = []
    for folder in folders:
        # A split that is there and damaged is refused, not passed over.
        if required or "validation" in read_info(folder).image_splits:
            opened.append(open_source(folder, "validation", allow_damaged=allow_damaged))
    return opened


def _fingerprint(training: Sequence[Source], start_from: str | None) -> dict[str, Any]:
    """Count the training images and collect the hashes of their patients.

    A checkpoint that training starts from has seen its patients too: they are added to these. Its
    images are not, for nobody knows how many of them are the same.
    """
    begun = read_manifest(start_from) if start_from else {"fingerprint": {}, "digest": None}
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


def _keep_config(
    path: Path, model: ModelConfig, config: TrainConfig, sources: Sequence[str | Path]
) -> None:
    """Write the settings of a new run; refuse to go on with other ones."""
    settings = {
        "model": model.to_dict(),
        "train": config.to_dict(),
        "sources": [str(source) for source in sources],
    }
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        _write_json(path, settings)
        return
    before = _read_config(path)
    changed = [
        f"{part}.{key}: {before[part][key]!r} before, {value!r} now"
        for part in ("model", "train")
        for key, value in settings[part].items()
        if before[part][key] != value
    ]
    if before["sources"] != settings["sources"]:
        changed.append(f"sources: {before['sources']} before, {settings['sources']} now")
    if changed:
        raise ValueError(
            f"{path.parent} holds a run with other settings ({'; '.join(changed)}). "
            "Give another output folder, or delete this one."
        )


def _read_config(path: Path) -> dict[str, Any]:
    """Read the settings of a former run; what its version did not have stood at its default."""
    try:
        before = json.loads(read_bounded(path, _MAX_CONFIG_BYTES))
        before["model"] = ModelConfig.from_dict(before["model"]).to_dict()
        before["train"] = TrainConfig.from_dict(before["train"]).to_dict()
        before["sources"] = [str(source) for source in before["sources"]]
        return json.loads(json.dumps(before))
    except (VAEAugError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise TrainingError(
            f"{path}: does not hold the settings of a run, so it cannot go on "
            f"({type(error).__name__}: {error}). Give another output folder, or delete this one."
        ) from error


def _restore(state: _State, out: Path) -> tf.train.CheckpointManager:
    """Set the state to what the last validation of a former run left, if there was one."""
    folder = out / _STATE_NAME
    advice = f"Give another output folder, or delete {folder} to train from the first step."
    try:
        manager = state.make_manager(folder)
        # TensorFlow takes an index that it cannot parse for none, and would begin anew.
        if manager.latest_checkpoint is None and (folder / "checkpoint").exists():
            raise TrainingError(f"{folder / 'checkpoint'}: is damaged. {advice}")
        manager.restore_or_initialize()
    except (tf.errors.OpError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"{folder}: the state of the run is damaged ({reason}). {advice}"
        ) from error
    if np.isfinite(state.best.numpy()):
        try:
            load_checkpoint(out / BEST_CHECKPOINT)
        except CheckpointError as error:
            raise TrainingError(
                f"The best checkpoint of the run is missing or damaged ({error}) {advice}"
            ) from error
    return manager


def _cut_log(path: Path, step: int) -> None:
    """Cut off what a former run logged after the state that this one goes on from.

    Raises:
        TrainingError: If a line before is damaged.
    """
    if not path.exists():
        return
    kept = []
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        # A run that was killed may have left a part of its last line.
        if number == len(lines) and not line.endswith(b"\n"):
            break
        try:
            logged = int(json.loads(line)["step"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise TrainingError(
                f"{path}, line {number}: is damaged ({error}). Delete this file; the run goes on "
                "without it."
            ) from error
        if logged <= step:
            kept.append(line)
    if len(kept) < len(lines):
        write_atomic(path, b"".join(kept))


def _read_best(out: Path) -> Figures:
    """Read the figures of the best validation from the checkpoint that they belong to."""
    return read_manifest(out / BEST_CHECKPOINT)["training"]["validation"]


def _write_json(path: Path, content: Any) -> None:
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())
