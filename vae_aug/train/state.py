"""The state of a training: weights, their averages, optimiser and counters, kept in files."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vae_aug.config import TrainConfig
from vae_aug.errors import CheckpointError
from vae_aug.model.checkpoint import BEST_CHECKPOINT, load_checkpoint
from vae_aug.model.encoder import freeze_stages
from vae_aug.model.network import Network
from vae_aug.model.profiles import make_vae
from vae_aug.train.recipe import Recipe
from vae_aug.train.run_files import STATE_NAME, TrainingError

_WARMUP_SHARE = 0.05


@dataclasses.dataclass
class State:
    """Everything that a resumed run needs to go on as if it had not stopped."""

    vae: Network
    optimizer: keras.Optimizer
    averages: list[tf.Variable]
    step: tf.Variable
    best: tf.Variable
    stale: tf.Variable

    def make_checkpoint(self) -> tf.train.Checkpoint:
        """Collect the variables whose values are saved."""
        weights = {id(variable) for variable in self.vae.weights}
        return tf.train.Checkpoint(
            weights=[v.value for v in self.vae.weights],
            # What dropout draws next; states of older versions have none and begin anew.
            random=[v.value for v in self.vae.variables if id(v) not in weights],
            optimizer=[v.value for v in self.optimizer.variables],
            averages=self.averages,
            step=self.step,
            best=self.best,
            stale=self.stale,
        )

    @contextlib.contextmanager
    def use_averages(self) -> Iterator[None]:
        """Swap the moving averages of the weights in, and the weights back in afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for variable, average in zip(self.vae.trainable_variables, self.averages, strict=True):
            value = tf.identity(variable.value)
            variable.assign(average)
            average.assign(value)

    def apply_gradients(self, gradients: Sequence[tf.Tensor | None]) -> None:
        """Take one step of the optimiser, in a replica's context.

        Args:
            gradients: Of the loss of this replica's part of the batch, one a trainable variable.
        """
        pairs = zip(gradients, self.vae.trainable_variables, strict=True)
        replica = tf.distribute.get_replica_context()
        if replica.num_replicas_in_sync == 1:
            self.optimizer.apply_gradients(pairs)
            return
        # Keras would clip the parts of the gradient, and add them up only then.
        parts, variables = zip(*(pair for pair in pairs if pair[0] is not None), strict=True)
        whole = replica.all_reduce(tf.distribute.ReduceOp.MEAN, list(parts))
        clipped, _ = tf.clip_by_global_norm(whole, self.optimizer.global_clipnorm)
        rate = self.optimizer.learning_rate
        for gradient, variable in zip(clipped, variables, strict=True):
            self.optimizer.update_step(gradient, variable.value, rate)
        self.optimizer.iterations.assign_add(1)

    def move_averages(self, decay: float) -> None:
        """Move the averages towards the weights; early on faster, so that they forget the start."""
        steps = tf.cast(self.step, tf.float32)
        decay = tf.minimum(decay, (1.0 + steps) / (10.0 + steps)) if decay else 0.0
        for variable, average in zip(self.vae.trainable_variables, self.averages, strict=True):
            average.assign(decay * average + (1.0 - decay) * variable.value)


def make_start(recipe: Recipe) -> Network:
    """Make the network that a training starts from."""
    keras.utils.set_random_seed(recipe.train.seed)
    vae = make_vae(recipe.model, encoder_weights=recipe.train.encoder_weights)
    if recipe.train.start_from:
        _take_weights(vae, recipe.train.start_from)
    return vae


def make_state(vae: Network, config: TrainConfig) -> State:
    """Make the state before the first step of the restoration's training."""
    # What is known of the images that it was trained on before holds no more.
    vae.aggregate_mean.assign(tf.zeros_like(vae.aggregate_mean))
    vae.aggregate_std.assign(tf.ones_like(vae.aggregate_std))
    freeze_stages(vae.backbone, config.frozen_stages)
    vae.first.trainable = config.frozen_stages == 0
    if vae.config.variation:
        vae.variation.trainable = False
    warmup = max(int(_WARMUP_SHARE * config.steps), 1)
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(config.steps - warmup, 1),
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )
    strategy = vae.distribute_strategy
    if strategy.num_replicas_in_sync > 1:
        _synchronize_norms(vae)
    with strategy.scope():
        optimizer = keras.optimizers.Adam(rate, global_clipnorm=1.0)
        optimizer.build(vae.trainable_variables)
        averages = [tf.Variable(v.value, trainable=False) for v in vae.trainable_variables]
    return State(vae, optimizer, averages, tf.Variable(0), tf.Variable(-np.inf), tf.Variable(0))


def _synchronize_norms(network: keras.Model) -> None:
    """Let batch normalisation use the statistics of the batch of all replicas."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            _synchronize_norms(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def _take_weights(vae: Network, start_from: str) -> None:
    """Copy the weights of a checkpoint, but for a variation that only one of both has."""
    source = load_checkpoint(start_from)
    wanted, found = vae.config.to_dict(), source.config.to_dict()
    free = {"variation"} | ({"image_size"} if vae.config.input_size is None else set())
    if differing := [key for key in wanted if key not in free and wanted[key] != found[key]]:
        described = ", ".join(f"{key} {found[key]!r}, not {wanted[key]!r}" for key in differing)
        raise ValueError(f"start_from={start_from!r} is another architecture: {described}.")
    if vae.config.variation == source.config.variation:
        vae.set_weights(source.get_weights())
        return
    pair = _list_restoration(vae), _list_restoration(source)
    for own, given in zip(*pair, strict=True):
        own.assign(given)


def _list_restoration(vae: Network) -> list[keras.Variable]:
    """List the weights of a network without those of its variation."""
    apart = {id(weight) for weight in vae.variation.weights} if vae.config.variation else set()
    return [weight for weight in vae.weights if id(weight) not in apart]


def restore_files(checkpoint: tf.train.Checkpoint, folder: Path, keep: int) -> Any:
    """Set variables to what was last saved in a folder, if anything was.

    Args:
        checkpoint: The variables.
        folder: Where their values are saved.
        keep: How many of the newest are kept.

    Returns:
        The `tf.train.CheckpointManager` that saves them.

    Raises:
        TrainingError: If what was saved is damaged; the message names the folder.
    """
    advice = f"Give another output folder, or delete {folder} to train from the first step."
    try:
        manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=keep)
        # TensorFlow takes an index that it cannot parse for none, and would begin anew.
        if manager.latest_checkpoint is None and (folder / "checkpoint").exists():
            raise TrainingError(f"{folder / 'checkpoint'}: is damaged. {advice}")
        manager.restore_or_initialize()
    except (tf.errors.OpError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"{folder}: the state of the run is damaged ({reason}). {advice}"
        ) from error
    return manager


def save_files(manager: Any, number: int) -> None:
    """Save variables, and remove all that is saved beside the newest.

    The manager alone would keep what was saved before the clock was set back, and what a kill or a
    full disk has left of files that were being written.

    Args:
        manager: Of `restore_files`; nobody else writes to its folder.
        number: Of the step.
    """
    manager.save(checkpoint_number=number)
    kept = {Path(path).name for path in manager.checkpoints}
    for path in Path(manager.directory).glob("ckpt-*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.partition(".")[0] not in kept:
            path.unlink(missing_ok=True)


def restore(state: State, out: Path) -> tf.train.CheckpointManager:
    """Set the state to what the last validation of a former run left, if there was one.

    Raises:
        TrainingError: If it is damaged; the message names the file.
    """
    manager = restore_files(state.make_checkpoint(), out / STATE_NAME, keep=2)
    if np.isfinite(state.best.numpy()):
        try:
            load_checkpoint(out / BEST_CHECKPOINT)
        except CheckpointError as error:
            raise TrainingError(
                f"The best checkpoint of the run is missing or damaged ({error}) Give another "
                f"output folder, or delete {out / STATE_NAME} to train from the first step."
            ) from error
    return manager
