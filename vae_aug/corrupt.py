"""What noise does to an image, on one dial: the share of information that is left.

Every corruption takes `keep` in (0, 1] and returns the input itself at `keep=1`. `replace` keeps
that share of the pixels. `blend` keeps that share of the amplitude; the noise it adds is uniform,
of standard deviation `1 / sqrt(12)`, so its noise-to-signal ratio is

    sigma(keep) = (1 - keep) / (keep * sqrt(12))    in units of the grey range.

The physical noises below are set to the same ratio, so that one value of `keep` means the same
loss whichever noise is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

Corruption = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

_READOUT_SHARE = 0.1
"""Share of the Poisson-Gaussian variance at mid grey that is electronic readout noise."""


def compute_sigma(keep: tf.Tensor) -> tf.Tensor:
    """Compute the noise-to-signal ratio that leaves the share `keep` (see the module)."""
    keep = tf.convert_to_tensor(keep, tf.float32)
    return (1.0 - keep) / (keep * math.sqrt(12.0))


def replace(image: tf.Tensor, keep: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Keep each pixel with probability `keep`, else put uniform noise; where, is not told.

    Args:
        image: `[..., H, W, C] float32 in [0, 1]`.
        keep: Scalar float32 in (0, 1].
        seed: `[2] int32`, stateless: the same seed gives the same noise.

    Returns:
        Same shape, dtype and range. All channels of a pixel are kept or replaced together.
    """
    where, what = _split(seed)
    kept = tf.random.stateless_uniform(tf.shape(image[..., :1]), where) < keep
    return tf.where(kept, image, tf.random.stateless_uniform(tf.shape(image), what))


def blend(image: tf.Tensor, keep: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mix `keep` of the image with `1 - keep` of uniform noise; arguments as `replace`."""
    noise = tf.random.stateless_uniform(tf.shape(image), seed)
    return keep * image + (1.0 - keep) * noise


def gaussian(image: tf.Tensor, keep: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Add white Gaussian noise of standard deviation `sigma(keep)`; arguments as `replace`.

    The result is clipped to [0, 1], as any stored image is.
    """
    noise = tf.random.stateless_normal(tf.shape(image), seed)
    return tf.clip_by_value(image + compute_sigma(keep) * noise, 0.0, 1.0)


def rician(image: tf.Tensor, keep: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Take the magnitude of a complex MR signal with Gaussian noise in both of its channels.

    Each channel's standard deviation is `sigma(keep)`; arguments as `replace`. The result is
    clipped to 1.

    Reference: Gudbjartsson and Patz, The Rician distribution of noisy MRI data, Magnetic
    Resonance in Medicine 34 (1995) 910-914.
    """
    sigma = compute_sigma(keep)
    first, second = _split(seed)
    real = image + sigma * tf.random.stateless_normal(tf.shape(image), first)
    imaginary = sigma * tf.random.stateless_normal(tf.shape(image), second)
    return tf.where(sigma > 0.0, tf.minimum(tf.sqrt(real**2 + imaginary**2), 1.0), image)


def poisson_gaussian(image: tf.Tensor, keep: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Count a limited number of quanta and add electronic noise, as a low CT dose does.

    The variance at mid grey is `sigma(keep)**2`, nine tenths of it from counting; arguments as
    `replace`. The result is clipped to [0, 1].

    Reference: Foi et al., Practical Poissonian-Gaussian noise modeling and fitting for
    single-image raw-data, IEEE Transactions on Image Processing 17 (2008) 1737-1754.
    """
    variance = tf.maximum(compute_sigma(keep) ** 2, 1e-8)
    quanta = 0.5 / ((1.0 - _READOUT_SHARE) * variance)
    counting, readout = _split(seed)
    rate = tf.maximum(image, 0.0) * quanta
    # Above ~1e4 counts the normal approximation is indistinguishable, and far cheaper.
    count = tf.where(
        quanta < 1e4,
        tf.random.stateless_poisson(
            tf.shape(image), counting, tf.minimum(rate, 1e4), dtype=tf.float32
        ),
        rate + tf.sqrt(rate) * tf.random.stateless_normal(tf.shape(image), counting),
    )
    noise = tf.sqrt(_READOUT_SHARE * variance) * tf.random.stateless_normal(
        tf.shape(image), readout
    )
    noisy = tf.clip_by_value(count / quanta + noise, 0.0, 1.0)
    return tf.where(keep < 1.0, noisy, image)


CORRUPTIONS: dict[str, Corruption] = {
    "replace": replace,
    "blend": blend,
    "gaussian": gaussian,
    "rician": rician,
    "poisson_gaussian": poisson_gaussian,
}


def corrupt(image: tf.Tensor, name: str, keep: float | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Apply the corruption called `name`.

    Args:
        image: `[..., H, W, C] float32 in [0, 1]`.
        name: A key of `CORRUPTIONS`.
        keep: Share of the information left, in (0, 1].
        seed: `[2] int32`.

    Returns:
        Same shape, dtype and range.

    Raises:
        ValueError: On an unknown name or, where it is a number, a `keep` outside (0, 1].

    Example:
        >>> flat = tf.fill([4, 4, 1], 0.5)
        >>> bool(tf.reduce_all(corrupt(flat, "replace", 1.0, [1, 2]) == flat))
        True
    """
    check_names([name])
    if isinstance(keep, float | int) and not 0.0 < keep <= 1.0:
        raise ValueError(f"keep must be in (0, 1]; got {keep}.")
    return CORRUPTIONS[name](image, tf.convert_to_tensor(keep, tf.float32), seed)


def corrupt_randomly(
    image: tf.Tensor,
    names: Sequence[str],
    keep: tuple[float, float],
    clean_share: float,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Draw one corruption and its strength, or none, and apply it.

    Args:
        image: `[H, W, C] float32 in [0, 1]`.
        names: Keys of `CORRUPTIONS` to draw from with equal chance.
        keep: Range from which the share left is drawn uniformly.
        clean_share: Probability of returning the image as it is.
        seed: `[2] int32`.

    Returns:
        Same shape, dtype and range.
    """
    check_names(names)
    seeds = tf.unstack(tf.random.split(seed, 4))
    strength = tf.random.stateless_uniform([], seeds[0], *keep)
    choice = tf.random.stateless_uniform([], seeds[1], 0, len(names), tf.int32)
    clean = tf.random.stateless_uniform([], seeds[2]) < clean_share
    branches = [
        lambda name=name: CORRUPTIONS[name](image, strength, seeds[3])  # type: ignore[misc]
        for name in names
    ]
    return tf.cond(clean, lambda: image, lambda: tf.switch_case(choice, branches))


def check_names(names: Sequence[str]) -> None:
    """Raise `ValueError` unless every name is a key of `CORRUPTIONS`, and there is one."""
    unknown = [name for name in names if name not in CORRUPTIONS]
    if unknown or not names:
        raise ValueError(f"Corruptions are {', '.join(CORRUPTIONS)}; got {list(names)}.")


def _split(seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Make two independent seeds of one."""
    first, second = tf.unstack(tf.random.split(seed, 2))
    return first, second
