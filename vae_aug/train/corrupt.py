"""What noise does to an image, on one dial: the share of information that is left.

Every corruption takes `keep` in (0, 1] and returns the input itself at `keep=1`. `replace` keeps
that share of the pixels. `blend` keeps that share of the amplitude; the noise it adds is uniform,
of standard deviation `1 / sqrt(12)`, so its noise-to-signal ratio is

    sigma(keep) = (1 - keep) / (keep * sqrt(12))    in units of the grey range.

The physical noises below are set to the same ratio, so that one value of `keep` means the same
loss whichever noise is chosen. Noise whose strength depends on the signal has that ratio at mid
grey, and noise that varies over the image has it on average (`multi_coil`, `low_dose`).
`missing_lines` keeps that share of the rows.

`make_corruption` makes an augmentation of any of them, for `Dataset.map`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from vae_aug.grey import IMAGE_DTYPES
from vae_aug.train.projections import find_slices, project, project_back

Corruption = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

_COILS, _FILTER = 4, 0.3
"""Coils of `multi_coil`, and half of what the filter of k-space takes off the highest frequencies
along a side: so noise has the spectrum of repeated acquisitions (`benchmarks/noise_models.py`)."""

_GAIN_GRID, _MAX_GAIN = 4, 2.0
"""Places along a side for which `multi_coil` samples the gain of noise, uniformly from 1 to this;
in between it is interpolated."""

_ANGLES, _THICKEST = 120, 4.0
"""Projections of `low_dose`, and the attenuation of the ray through most tissue, as a logarithm: a
fiftieth of the quanta comes through."""

_QUANTA_AT_HALF, _READOUT_QUANTA = 20.0, 3.0
"""Quanta that `low_dose` counts on the ray through most tissue at `keep=0.5`, and the standard
deviation of electronic noise in quanta."""

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
    """Count a limited number of quanta and add electronic noise, as a detector of few photons does.

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


def speckle(image: tf.Tensor, keep: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Multiply every pixel by gamma noise of mean 1, as coherent imaging (ultrasound, OCT) does.

    Its standard deviation is `2 sigma(keep)`, which is `sigma(keep)` at mid grey; black stays
    black. Arguments as `replace`. The result is clipped to 1.

    Reference: Goodman, Some fundamental properties of speckle, Journal of the Optical Society of
    America 66 (1976) 1145-1150: the mean of n independent intensities is gamma distributed with
    shape n.
    """
    # Below this variance the shape overflows what the sampler resolves, and nothing is visible.
    shape = 1.0 / tf.maximum(4.0 * compute_sigma(keep) ** 2, 1e-6)
    noise = tf.random.stateless_gamma(tf.shape(image), seed, shape, shape, dtype=tf.float32)
    return tf.where(keep < 1.0, tf.minimum(image * noise, 1.0), image)


def missing_lines(image: tf.Tensor, keep: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Keep each row with probability `keep`, else lose it to a stripe of one uniform random grey.

    This is what detectors with failing lines and interrupted read-outs show; which rows are
    lost is not told. Arguments as `replace`.
    """
    where, what = _split(seed)
    rows = tf.shape(image[..., :1, :1])
    kept = tf.random.stateless_uniform(rows, where) < keep
    return tf.where(kept, image, tf.random.stateless_uniform(rows, what))


def multi_coil(image: tf.Tensor, keep: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Combine several receiving coils of MR by the root of their sum of squares.

    The noise of every coil is correlated between neighbouring pixels, as a filter of k-space
    against ringing leaves it, and varies smoothly over the image, as parallel imaging makes it.
    What is combined has a non-central chi distribution, whose background is far from black. The
    root mean square of the noise in the real, and in the imaginary, part of a coil is
    `sigma(keep)`; arguments as `replace`. The result is clipped to 1.

    Reference: Dietrich et al., Influence of multichannel combination, parallel imaging and other
    reconstruction techniques on MRI noise characteristics, Magnetic Resonance Imaging 26 (2008)
    754-762.
    """
    sigma = compute_sigma(keep)
    what, where = _split(seed)
    *batch, height, width, channels = tf.unstack(tf.shape(image))
    drawn = tf.random.stateless_normal([*batch, channels, 2 * _COILS, height, width], what)
    window = _make_window(height)[:, None] * _make_window(width)
    spectrum = tf.signal.fft2d(tf.cast(drawn, tf.complex64)) * tf.cast(window, tf.complex64)
    noise = tf.math.real(tf.signal.ifft2d(spectrum)) / tf.sqrt(tf.reduce_mean(window**2))
    noise *= sigma * _sample_gains(where, batch, height, width)
    order = [*range(len(batch)), *(len(batch) + axis for axis in (2, 3, 0, 1))]
    real, imaginary = tf.split(tf.transpose(noise, order), 2, axis=-1)
    signal = image[..., None] * _make_sensitivities(height, width)
    squares = (signal + real) ** 2 + imaginary**2
    combined = tf.minimum(tf.sqrt(tf.reduce_sum(squares, axis=-1)), 1.0)
    return tf.where(sigma > 0.0, tf.reshape(combined, tf.shape(image)), image)


def low_dose(image: tf.Tensor, keep: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Count few quanta in the projections that a CT slice is reconstructed from.

    Rays through much tissue count least, so noise is grainy and has streaks along them; a smooth
    reconstruction kernel correlates it. What counting adds to the projections is reconstructed by
    filtered back projection and added to the image. Its root mean square over the field of view,
    the circle within the image's longer side, is `sigma(keep)`; arguments as `replace`. All
    channels get the same noise. The result is clipped to [0, 1].

    Reference: Kak and Slaney, Principles of Computerized Tomographic Imaging (1988), chapter 3,
    for the reconstruction; Yu et al., Development and validation of a practical lower-dose-
    simulation tool for optimizing CT scan protocols, Journal of Computer Assisted Tomography 36
    (2012) 477-487, for the noise.
    """
    shape = tf.shape(image)
    height, width = shape[-3], shape[-2]
    grey = tf.reshape(tf.reduce_mean(image, axis=-1), [-1, height, width, 1])
    side = tf.maximum(height, width)
    slices = find_slices(side, _ANGLES)
    rays = project(tf.image.resize_with_crop_or_pad(grey, side, side), slices)
    noise = project_back(_miscount(rays, keep, seed), slices)
    centres = (2.0 * tf.range(tf.cast(side, tf.float32)) + 1.0) / tf.cast(side, tf.float32) - 1.0
    seen = tf.cast(centres[:, None] ** 2 + centres**2 < 1.0, tf.float32)[:, :, None]
    power = tf.reduce_sum(noise**2 * seen, axis=(1, 2, 3), keepdims=True) / tf.reduce_sum(seen)
    noise *= compute_sigma(keep) / tf.sqrt(tf.maximum(power, 1e-12))
    noise = tf.image.resize_with_crop_or_pad(noise, height, width)
    noise = tf.reshape(noise, tf.concat([shape[:-1], [1]], axis=0))
    return tf.where(keep < 1.0, tf.clip_by_value(image + noise, 0.0, 1.0), image)


CORRUPTIONS: dict[str, Corruption] = {
    "replace": replace,
    "blend": blend,
    "gaussian": gaussian,
    "rician": rician,
    "poisson_gaussian": poisson_gaussian,
    "speckle": speckle,
    "missing_lines": missing_lines,
    "multi_coil": multi_coil,
    "low_dose": low_dose,
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
    if isinstance(keep, float | int):
        _check_keep(keep)
    return CORRUPTIONS[name](image, tf.convert_to_tensor(keep, tf.float32), seed)


def corrupt_image(
    image: tf.Tensor, name: str, keep: float | tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Apply the corruption called `name` to an image in its own dtype.

    Args:
        image: `[..., H, W, C]` uint8, uint16, or floating point in [0, 1].
        name: As `corrupt`.
        keep: As `corrupt`.
        seed: As `corrupt`.

    Returns:
        Same shape and dtype; integers round to nearest.

    Raises:
        ValueError: As `corrupt`.
    """
    image = tf.convert_to_tensor(image)
    white = float(image.dtype.max) if image.dtype.is_integer else 1.0
    noisy = corrupt(tf.cast(image, tf.float32) / white, name, keep, seed)
    noisy = tf.round(noisy * white) if image.dtype.is_integer else noisy
    return tf.cast(noisy, image.dtype)


def corrupt_randomly(
    image: tf.Tensor,
    names: Sequence[str],
    keep: tuple[float, float],
    clean_share: float,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Choose one corruption and its strength, or none, and apply it.

    Args:
        image: `[H, W, C] float32 in [0, 1]`.
        names: Keys of `CORRUPTIONS` to choose from with equal chance.
        keep: Range from which the share left is sampled uniformly.
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
    branches = [lambda name=name: CORRUPTIONS[name](image, strength, seeds[3]) for name in names]
    return tf.cond(clean, lambda: image, lambda: tf.switch_case(choice, branches))


def make_corruption(name: str, keep: float, seed: int | None = None) -> Callable[[Any], Any]:
    """Make an augmentation that adds one kind of noise, for `Dataset.map`.

    With a `seed` the noise of an image depends on (seed, name, the image's pixels) alone: order,
    shards and parallel calls cannot change it, and every epoch repeats it. Without one every
    pass is fresh.

    Args:
        name: A key of `CORRUPTIONS`.
        keep: Share of the information left, in (0, 1]; 1 returns images as they are.
        seed: The user's, or None.

    Returns:
        A function of a bare image `[H, W, C]`, uint8, uint16, or floating point in [0, 1]; or of
        a dict with one under `"image"`, as TFDS has it. It returns the same, with the image
        corrupted in its own dtype (integers round to nearest) and everything else untouched.

    Raises:
        ValueError: On an unknown name or a `keep` outside (0, 1]; from the function, on a batch.
        TypeError: From the function, on another element or dtype.

    Example:
        >>> add_noise = make_corruption("rician", keep=0.6, seed=1)
        >>> images = tf.data.Dataset.from_tensors(tf.zeros([8, 8, 1], tf.uint8))
        >>> images.map(add_noise).element_spec.dtype.name
        'uint8'
    """
    check_names([name])
    _check_keep(keep)

    def add_noise(element: Any) -> Any:
        if isinstance(element, Mapping):
            if "image" not in element:
                raise TypeError(f"expected the key 'image'; the element has {sorted(element)}.")
            return {**element, "image": add_noise(element["image"])}
        image = tf.convert_to_tensor(element)
        if image.dtype not in IMAGE_DTYPES:
            names = ", ".join(dtype.name for dtype in IMAGE_DTYPES)
            raise TypeError(f"an image must be one of {names}; got {image.dtype.name}.")
        if image.shape.rank != 3:
            raise ValueError(
                f"an image must be [H, W, C]; got shape {image.shape}. Map before batching."
            )
        if keep == 1:
            return image
        noisy = corrupt_image(image, name, keep, _seed_by(image, name, seed))
        return tf.ensure_shape(noisy, image.shape)

    return add_noise


def _seed_by(image: tf.Tensor, name: str, seed: int | None) -> tf.Tensor:
    """Make a stateless seed `[2] int32` of an image's content, or a fresh one."""
    if seed is None:
        # The Python API would fold the global seed in, and tf.data repeat it in every pass.
        return tf.raw_ops.RandomUniformInt(
            shape=[2], minval=0, maxval=tf.int32.max, seed=0, seed2=0
        )
    content = tf.strings.join([f"{seed}/{name}/", tf.io.serialize_tensor(image)])
    return tf.bitcast(tf.strings.to_hash_bucket_fast(content, tf.int64.max), tf.int32)


def _sample_gains(
    seed: tf.Tensor, batch: list[tf.Tensor], height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Sample smooth gains of noise for each image, `[*batch, 1, 1, H, W]`, of mean square 1."""
    count = tf.reduce_prod(tf.cast(batch, tf.int32)) if batch else 1
    coarse = [count, _GAIN_GRID, _GAIN_GRID, 1]
    sampled = tf.random.stateless_uniform(coarse, seed, 1.0, _MAX_GAIN)
    gains = tf.image.resize(sampled, [height, width], "bicubic")
    gains /= tf.sqrt(tf.reduce_mean(gains**2, axis=(1, 2), keepdims=True))
    return tf.reshape(gains, [*batch, 1, 1, height, width])


def _make_window(length: tf.Tensor) -> tf.Tensor:
    """Make a window of spatial frequencies along a side, `[length] float32`, 1 for the lowest."""
    length = tf.cast(length, tf.float32)
    return 1.0 - _FILTER * (1.0 - tf.cos(2.0 * math.pi * tf.range(length) / length))


def _make_sensitivities(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Make the sensitivities of coils in the corners: `[H, W, 1, _COILS]`, squares sum to 1."""
    rows, columns = (tf.linspace(-1.0, 1.0, side) for side in (height, width))
    near = [
        tf.exp(-0.5 * ((rows[:, None] - top) ** 2 + (columns - left) ** 2))
        for top in (-1.0, 1.0)
        for left in (-1.0, 1.0)
    ]
    return tf.math.l2_normalize(tf.stack(near, axis=-1), axis=-1)[:, :, None]


def _miscount(rays: tf.Tensor, keep: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Compute the error of projections `[N, A, L]` by the few quanta that each ray counts."""
    counting, readout = _split(seed)
    longest = tf.maximum(tf.reduce_max(rays, axis=(1, 2), keepdims=True), 1e-3)
    attenuation = _THICKEST * tf.clip_by_value(rays / longest, 0.0, 1.0)
    fewest = _QUANTA_AT_HALF * keep / (1.0 - tf.minimum(keep, 0.999))
    expected = fewest * tf.exp(_THICKEST - attenuation)
    counted = tf.random.stateless_poisson(tf.shape(rays), counting, expected, dtype=tf.float32)
    counted += _READOUT_QUANTA * tf.random.stateless_normal(tf.shape(rays), readout)
    return tf.math.log(expected / tf.maximum(counted, 1.0))


def _check_keep(keep: float) -> None:
    """Raise `ValueError` unless `keep` is in (0, 1]."""
    if not 0.0 < keep <= 1.0:
        raise ValueError(f"keep must be in (0, 1]; got {keep}.")


def check_names(names: Sequence[str]) -> None:
    """Raise `ValueError` unless every name is a key of `CORRUPTIONS`, and there is one."""
    unknown = [name for name in names if name not in CORRUPTIONS]
    if unknown or not names:
        raise ValueError(f"Corruptions are {', '.join(CORRUPTIONS)}; got {list(names)}.")


def _split(seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Make two independent seeds of one."""
    first, second = tf.unstack(tf.random.split(seed, 2))
    return first, second
