"""Backbones, which compute the pooled features that feed the latent layer."""

from __future__ import annotations

import dataclasses
import os

import keras
import numpy as np

from vae_aug.config import ENCODER_STAGES, check_number
from vae_aug.errors import CheckpointError
from vae_aug.model import lite1
from vae_aug.model.lite1 import Stage

__all__ = ["SKIP_STRIDES", "STAGES", "Stage", "Standardize", "make_encoder"]

_FIRST, *_MIDDLE, _LAST = lite1.STAGES

STAGES: dict[str, tuple[Stage, ...]] = {
    # ceil(1.1 * 1) = 2: B1 scales its first and last stage too.
    "efficientnet-b1": (
        dataclasses.replace(_FIRST, repeats=2),
        *_MIDDLE,
        dataclasses.replace(_LAST, repeats=2),
    ),
    "efficientnet-lite1": lite1.STAGES,
}
"""Blocks of each encoder from input to output, which the decoder mirrors."""

SKIP_STRIDES = (2, 4, 8, 16, 32)
"""Pixels of the image per pixel of the feature maps that `return_skips` returns."""

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
_IMAGENET_STD = np.array([0.229, 0.224, 0.225])


@keras.saving.register_keras_serializable("vae_aug")
class Standardize(keras.layers.Layer):
    """Compute `(x - mean) / std` with fixed statistics per channel, ImageNet's to begin with.

    The statistics are variables, so that a checkpoint carries those of the weight file; they are
    never trained. (A `keras.layers.Normalization` caches them, so that assigning to its
    variables, as restoring does, has no effect.)

    Args:
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the variables `mean` and `std`, each `[3] float32`."""
        self.mean = self.add_weight(shape=(3,), trainable=False, name="mean")
        self.std = self.add_weight(shape=(3,), trainable=False, name="std")
        self.set_weights([_IMAGENET_MEAN, _IMAGENET_STD])

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Standardise `[B, H, W, 3]`."""
        return (images - self.mean) / self.std


def make_encoder(
    name: str,
    image_size: int | None,
    weights: str | os.PathLike[str] | None = None,
    *,
    return_skips: bool = False,
) -> keras.Model:
    """Make an encoder.

    Graph and variables depend on `name` alone, never on `weights`, so that what was trained from
    one source can be restored into a model made without it.

    Args:
        name: `"efficientnet-b1"` or `"efficientnet-lite1"`.
        image_size: Side S of the images in pixels, at least 32; None for any height and width
            (multiples of 32, so that the skips' sizes are halves of one another).
        weights: None for random weights. `"imagenet"` (B1): those of `keras.applications`, which
            downloads them. `"package"` (Lite1): those of the extra `[lite1]`. Else a file: for
            B1 what `keras.applications.EfficientNetB1(include_top=False)` publishes or saves
            (`.h5`, `.weights.h5`; it brings its input statistics), for Lite1 the package's `.pth`.
        return_skips: Also return the feature maps from which a decoder can take skips.

    Returns:
        Model from `[B, S, S, 3] float32 in [0, 1]` (scaled inside as the weights want it) to
        pooled features `[B, 1280] float32`. With `return_skips` to a list: the last feature map
        at each of `SKIP_STRIDES`, `[B, S/stride, S/stride, C] float32` with C = 16, 24, 40, 112,
        320, then the pooled features.

    Raises:
        ValueError: On an unknown name, a size below 32, or weights the encoder does not have.
        CheckpointError: If the weights cannot be read, fetched, or do not fit.
        MissingPackageError: If the extra `[lite1]` is needed and not installed.

    Example:
        >>> make_encoder("efficientnet-lite1", 64).output_shape
        (None, 1280)
    """
    if name not in STAGES:
        raise ValueError(f"name must be one of {', '.join(map(repr, STAGES))}; got {name!r}.")
    if image_size is not None and image_size < 32:
        raise ValueError(f"image_size must be None or at least 32; got {image_size!r}.")
    if weights == "":
        raise ValueError('weights must be None, a source or a file; got "".')
    if name == "efficientnet-lite1":
        return _make_lite1(image_size, weights, return_skips)
    return _make_b1(image_size, weights, return_skips)


def _make_lite1(
    image_size: int | None, weights: str | os.PathLike[str] | None, return_skips: bool
) -> keras.Model:
    if weights == "imagenet":
        raise ValueError(
            'weights="imagenet" is for efficientnet-b1; the ImageNet weights of '
            'efficientnet-lite1 are weights="package" (the extra [lite1]).'
        )
    path = lite1.find_package_weights() if weights == "package" else weights
    network = lite1.make_lite1(image_size)
    if path is not None:
        lite1.load_lite1(network, path)
    if not return_skips:
        return network
    outputs = _skips(network, lite1.STAGES, "block{}{}") + network.outputs
    return keras.Model(network.input, outputs, name=network.name)


def _make_b1(
    image_size: int | None, weights: str | os.PathLike[str] | None, return_skips: bool
) -> keras.Model:
    if weights == "package":
        raise ValueError(
            'weights="package" is for efficientnet-lite1; the ImageNet weights of '
            'efficientnet-b1 are weights="imagenet" or a file.'
        )
    published = _load_b1(image_size, None if weights is None else os.fspath(weights))
    # Keras's own input layers depend on `weights`: "imagenet" has a Rescaling more than a file,
    # without which the file that "imagenet" downloads gives other features. They are cut off.
    outputs = published.outputs
    if return_skips:
        outputs = _skips(published, STAGES["efficientnet-b1"], "block{}{}_add") + outputs
    trunk = keras.Model(published.get_layer("stem_conv_pad").input, outputs, name="trunk")

    inputs = keras.Input((image_size, image_size, 3), name="image")
    standardize = Standardize(name="standardize")
    features = trunk(standardize(inputs))
    if weights is not None:
        standardize.set_weights(_read_statistics(published))
    return keras.Model(inputs, features, name="efficientnet_b1")


def _load_b1(image_size: int | None, weights: str | None) -> keras.Model:
    if weights not in (None, "imagenet") and not os.path.isfile(weights):
        raise CheckpointError(
            f"There is no weight file {weights!r} for efficientnet-b1. Expected a file as "
            'keras.applications.EfficientNetB1(include_top=False) saves it, or "imagenet".'
        )
    try:
        return keras.applications.EfficientNetB1(
            include_top=False,
            weights=weights,
            input_shape=(image_size, image_size, 3),
            pooling="avg",
        )
    except Exception as error:  # Keras raises a bare Exception if a download fails
        if weights is None:
            raise
        raise CheckpointError(
            f"Cannot load the efficientnet-b1 weights {weights!r}: {error} Without a network, "
            "copy ~/.keras/models/efficientnetb1_notop.h5 from a machine that has it and pass "
            "its path."
        ) from error


def _read_statistics(published: keras.Model) -> list[np.ndarray]:
    """Return mean and standard deviation with which a loaded Keras B1 standardises its input."""
    normalization = next(
        layer for layer in published.layers if isinstance(layer, keras.layers.Normalization)
    )
    mean, variance = (np.asarray(value) for value in normalization.get_weights()[:2])
    # The published files hold the deviation in the variance's place (tensorflow issue 49930).
    swapped = np.allclose(variance, _IMAGENET_STD, atol=1e-3)
    return [mean, variance if swapped else np.sqrt(variance)]


def _skips(
    network: keras.Model, stages: tuple[Stage, ...], layer_name: str
) -> list[keras.KerasTensor]:
    """Return the last block's output at each of `SKIP_STRIDES`; blocks end in `layer_name`."""
    last: dict[int, str] = {}
    stride = 2  # of the stem
    for number, stage in enumerate(stages, start=1):
        stride *= stage.stride
        last[stride] = layer_name.format(number, chr(ord("a") + stage.repeats - 1))
    return [network.get_layer(last[stride]).output for stride in SKIP_STRIDES]


def freeze_stages(encoder: keras.Model, count: int) -> None:
    """Stop the stem and the first stages of an encoder from being trained.

    They work on the largest maps, so this is most of the cost of training an encoder, while their
    filters (edges, blobs) are the ones that pretraining leaves least to improve. Their batch
    normalisation keeps its statistics, as Keras does for every frozen layer.

    Args:
        encoder: From `make_encoder`.
        count: How many stages, 0 to `ENCODER_STAGES`; 0 leaves all trainable.

    Raises:
        TypeError: If `count` is no integer.
        ValueError: If there are not so many stages.
    """
    check_number("count", count, 0, ENCODER_STAGES, whole=True)
    if count == 0:
        return
    nested = [layer for layer in encoder.layers if isinstance(layer, keras.Model)]
    for layer in (nested[0] if nested else encoder).layers:
        if layer.name.startswith(f"block{count + 1}"):
            return
        layer.trainable = False
