"""What a training is about to do, in lines that can be read without colour and in a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from vae_aug.codecs.extent import NARROW
from vae_aug.config import ModelConfig, TrainConfig
from vae_aug.train.feed import VALIDATION_KEEP
from vae_aug.words import plural

_NEARLY_ALL = (0.001, 0.999)
"""Quantiles of an image's values that no single hot pixel or marker moves."""


def describe_plan(
    model: ModelConfig, config: TrainConfig, images: int, held_out: int, dark: str = ""
) -> Iterator[str]:
    """Say what is trained, from where, on which noise and images, and for how long.

    Args:
        model: The architecture.
        config: The settings.
        images: Images to train on.
        held_out: Images that validations look at.
        dark: What `describe_darkness` says of these.

    Yields:
        Lines, each with its subject before a colon.
    """
    yield (
        f"network: {model.profile} on {model.encoder}, squares of {model.image_size} px; begins "
        f"with {_describe_start(config)}"
    )
    low, high = (f"{share:.0%}" for share in config.keep)
    names = ", ".join(dict.fromkeys(config.corruptions))
    yield (
        f"noise: {names}, which leave {low} to {high} of the information; "
        f"{config.clean_share:.0%} of the images stay clean"
    )
    yield f"images: {images:,} to train on, {held_out:,} to validate on"
    if dark:
        yield dark
    every = config.validate_every
    often = f"every {plural(every, 'step')}" if every < config.steps else "at the end"
    passes = config.steps * config.batch_size / images
    stop = f", until {config.patience} in a row bring nothing better" if config.patience else ""
    yield (
        f"plan: {plural(config.steps, 'step')} of {plural(config.batch_size, 'image')}, "
        f"{passes:.3g} times through the images; a validation {often}{stop}"
    )


def _describe_start(config: TrainConfig) -> str:
    if config.start_from:
        return f"the weights of {config.start_from!r}"
    if config.encoder_weights:
        return f"random weights, but for the encoder's from {config.encoder_weights!r}"
    return "random weights"


def describe_darkness(feed: tf.data.Dataset) -> str:
    """Say how little of their range images of 16 bits fill, if that is little.

    Args:
        feed: Batches of which the last part is images `[B, S, S, 1] float32 in [0, 1]`.

    Returns:
        A line with its subject before a colon; `""` if more than half of the images fill at least
        an eighth.
    """
    ends = np.concatenate([np.quantile(clean, _NEARLY_ALL, axis=(1, 2, 3)).T for *_, clean in feed])
    dark = ends[ends[:, 1] - ends[:, 0] < NARROW]
    if 2 * len(dark) <= len(ends):
        return ""
    low, high = dark[:, 0].min(), dark[:, 1].max()
    return (
        f"WARNING: values: {len(dark):,} of the {plural(len(ends), 'image')} to validate on fill "
        f"{low:.1%} to {high:.1%} of the range of 16 bits, and the network sees them nearly black. "
        "Ingest again with --overwrite and the --window that vae-aug ingest names"
    )


def describe_scores(subject: str, figures: Mapping[str, float]) -> str:
    """Say how well a network restores the validation images."""
    return (
        f"{subject}: SSIM {figures['ssim_noisy']:.3f}, {figures['psnr_noisy']:.1f} dB with "
        f"{VALIDATION_KEEP:.0%} of the pixels left; {figures['ssim']:.3f}, "
        f"{figures['psnr']:.1f} dB on clean images"
    )


def describe_position(
    step: int, config: TrainConfig, best: Mapping[str, float], is_complete: bool
) -> str:
    """Say where a run that was begun before stands."""
    state = "is done" if is_complete else "goes on"
    return (
        f"run: {state} after step {step:,} of {config.steps:,}; its best, of step "
        f"{best['step']:,.0f}, restores to SSIM {best['ssim_noisy']:.3f}"
    )
