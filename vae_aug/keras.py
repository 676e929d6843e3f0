"""`VAEAugmentation`, the transform as a Keras layer, for `Pipeline`, models and `Dataset.map`."""

from __future__ import annotations

import os
from typing import Any

import keras
import tensorflow as tf

from vae_aug.augment.elements import find_layout
from vae_aug.augment.transform import VAEAugment
from vae_aug.config import Engine, Guard, Mode, check_number
from vae_aug.errors import EngineError
from vae_aug.model.network import Network


@keras.saving.register_keras_serializable(package="vae_aug")
class VAEAugmentation(keras.layers.Layer):
    """Denoise images, or vary them, as a preprocessing layer of Keras.

    It does what `VAEAugment` does to an element or a batch, byte for byte with the same `seed`.
    It goes where Keras's own preprocessing layers go: into `Dataset.map`, `keras.layers.Pipeline`,
    `keras.Sequential` and functional models, and it can be called.

    | `mode` | `training=True`, the default | `training=False`, `predict`, `evaluate` |
    | --- | --- | --- |
    | `"sample"`, `"interpolate"` | varied | the input |
    | `"denoise"`, `p=1` | denoised | denoised |
    | `"denoise"`, `p < 1` | denoised with probability `p` | the input |

    As in Keras's random layers, a `training` that is not passed is that of the model around the
    layer, and True without one; a None that is passed counts as False. Denoising is part of what a
    detector sees, so it runs at inference too; with `p < 1` it is an augmentation.

    A `factor=(low, high)` gives each example a strength of its own, uniform in that range, which
    depends on the example's seed if there is a `seed`. It needs no further network or graph: the
    network runs with the factor `high`, and noise that the factor is multiplied by, or the
    transformation of a `variation`, is scaled for each example, which is the same but for rounding.
    With `hardest_of` samples are compared at the strength `high`.

    Images keep their dtype, whatever the layer's `dtype`: `autocast` is off, so integers are not
    converted and float32 is not rounded to a policy's float16. Boxes, labels, masks and every
    other tensor pass bit for bit. (A `keras.Sequential` itself casts what it is given to float32;
    begin it with `keras.Input(shape, dtype="uint8")`.) Where there is a mask of the image, pixels
    stay where they are and tones alone are varied; see `VAEAugment`.

    A saved model holds the checkpoint's name or absolute path and its digest, no weights of it.
    Import this module before `keras.saving.load_model`. The layer works with the backend
    TensorFlow only, and a model that holds it is not compiled by XLA (`supports_jit` is False), so
    that `Dataset.map` is the faster place.

    With a `seed` the same image is varied in the same way in every epoch, unless a dictionary has a
    key `"epoch"`; without one every call differs.

    Attributes:
        augment: The transform that it calls.
        factor: The strength, or the range of it.
        data_format: `"channels_last"`.

    Example:
        >>> from vae_aug.keras import VAEAugmentation                          # doctest: +SKIP
        >>> layer = VAEAugmentation("demo", factor=(0.2, 0.8), p=0.5)          # doctest: +SKIP
        >>> flip = keras.layers.RandomFlip(bounding_box_format="xyxy")         # doctest: +SKIP
        >>> dataset = dataset.map(keras.layers.Pipeline([layer, flip]))        # doctest: +SKIP
    """

    def __init__(
        self,
        ckpt: str | os.PathLike[str] | Network,
        *,
        mode: Mode = "sample",
        factor: float | tuple[float, float] = 1.0,
        detail: float | None = None,
        p: float = 1.0,
        guard: Guard = "paste",
        min_fidelity: float = 0.8,
        value_range: tuple[float, float] | None = None,
        seed: int | None = None,
        engine: Engine = "tensorflow",
        device: str | None = None,
        bounding_box_format: str | None = None,
        hardest_of: int = 1,
        adaptive: bool = False,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Open the checkpoint and check the settings.

        Args:
            ckpt: As for `VAEAugment`. A layer made of a network cannot be saved.
            mode: As for `VAEAugment`.
            factor: Strength, as for `VAEAugment`, or the range `(low, high)` in which each
                example's own is sampled, 0 <= low <= high. No range for `"denoise"`.
            detail: As for `VAEAugment`.
            p: As for `VAEAugment`.
            guard: As for `VAEAugment`.
            min_fidelity: As for `VAEAugment`.
            value_range: As for `VAEAugment`.
            seed: As for `VAEAugment`.
            engine: As for `VAEAugment`.
            device: As for `VAEAugment`.
            bounding_box_format: Keras's name of the format of the boxes, which the guard reads.
                None for `"xyxy"` under the key `boxes`.
            hardest_of: As for `VAEAugment`.
            adaptive: As for `VAEAugment`.
            data_format: `"channels_last"`. None for `keras.config.image_data_format()`.
            **kwargs: Of `keras.layers.Layer`: `name`, `dtype`, `trainable`.

        Raises:
            CheckpointError: If the checkpoint cannot be loaded.
            EngineError: If Keras's backend is not TensorFlow, or the processor cannot run the
                engine.
            ValueError: If a setting is out of range, `data_format` is `"channels_first"`, or a
                range of factors is given for `"denoise"`.
            TypeError: If a setting is of another type.
            MissingPackageError: If the engine's package is not installed.
        """
        _check_backend()
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self.supports_jit = False
        self.data_format = _check_data_format(data_format)
        self.factor, weakest = _parse_factor(factor, mode)
        self.augment = VAEAugment(
            ckpt,
            mode=mode,
            factor=self.factor[1] if isinstance(self.factor, tuple) else self.factor,
            detail=detail,
            p=p,
            guard=guard,
            min_fidelity=min_fidelity,
            value_range=value_range,
            seed=seed,
            engine=engine,
            device=device,
            bounding_box_format=bounding_box_format,
            hardest_of=hardest_of,
            adaptive=adaptive,
            weakest=weakest,
        )
        self._runs_at_inference = mode == "denoise" and self.augment.config.p == 1

    def __call__(self, *element: Any, **kwargs: Any) -> Any:
        """Change an element, whose parts `Dataset.map` passes one by one if it is a tuple.

        Args:
            *element: As `inputs` of `call`, or the parts of such a tuple.
            **kwargs: `training`.

        Returns:
            As `call`.
        """
        return super().__call__(element[0] if len(element) == 1 else element, **kwargs)

    def call(self, inputs: Any, training: bool | None = True) -> Any:
        """Change the images of an element or a batch.

        Args:
            inputs: An image `[H, W, C]` or a batch `[B, H, W, C]`, of a dtype that `VAEAugment`
                takes; a dict with the key `"images"` and any of `"bounding_boxes"` (`"boxes"`,
                `"labels"`), `"labels"`, `"segmentation_masks"` and others; or another element of
                `VAEAugment`.
            training: Whether images are varied; see the class.

        Returns:
            The same structure, in a copy. Everything but the images is the same tensors.

        Raises:
            ValueError: If there is no image or its shape is not supported.
            TypeError: If the image's dtype is not supported.
        """
        if not (training or self._runs_at_inference):
            return inputs
        return self.augment(inputs)

    def compute_output_shape(self, input_shape: Any, training: bool | None = None) -> Any:
        """Return the input's shape."""
        return input_shape

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the shapes and dtypes of the input, once they are checked.

        Raises:
            ValueError: As `call`.
            TypeError: As `call`.
        """
        specs = keras.tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), inputs)
        find_layout(specs, self.augment.config.bounding_box_format)
        return keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, dtype=x.dtype), inputs)

    def get_config(self) -> dict[str, Any]:
        """Return the settings, the checkpoint's name or absolute path, and its digest.

        Raises:
            TypeError: If the layer was made of a network in memory, which has no name.
        """
        name = self.augment.find_name()
        if name is None:
            raise TypeError(
                "a VAEAugmentation that was made of a network cannot be saved; save the network, "
                "and make VAEAugmentation of the checkpoint's path."
            )
        settings = self.augment.get_config()
        # Only `apply` reads the first; `factor` says what the second does.
        del settings["batch_size"], settings["weakest"]
        return {
            **super().get_config(),
            **settings,
            "ckpt": name,
            "factor": self.factor,
            "data_format": self.data_format,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> VAEAugmentation:
        """Make the layer of a `get_config`.

        Args:
            config: From `get_config`. Without `"digest"` any checkpoint of that name will do.

        Returns:
            The layer.

        Raises:
            CheckpointError: If the checkpoint is not there, or is another than that of the config.
        """
        settings = dict(config)
        wanted = settings.pop("digest", None)
        layer = cls(**settings)
        if wanted is not None:
            layer.augment.check_digest(wanted, "the layer that was saved")
        return layer


def _check_backend() -> None:
    """Refuse any backend of Keras but TensorFlow, of whose operations the transform is made."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise EngineError(
            f"VAEAugmentation needs Keras's backend 'tensorflow'; it is {backend!r}. Set "
            "KERAS_BACKEND=tensorflow before Keras is imported."
        )


def _check_data_format(data_format: str | None) -> str:
    """Return the place of the channels, which must be the last."""
    found = data_format or keras.config.image_data_format()
    if found != "channels_last":
        raise ValueError(
            f"data_format must be 'channels_last'; got {found!r}. Transpose images before the "
            "layer, e.g. by keras.layers.Permute((2, 3, 1))."
        )
    return found


def _parse_factor(factor: Any, mode: str) -> tuple[float | tuple[float, float], float]:
    """Check a strength or a range of it.

    Args:
        factor: A number, or a pair of numbers.
        mode: Of the transform.

    Returns:
        The number, or the pair if its numbers differ; and the share of the highest strength that
        the lowest is.

    Raises:
        TypeError: If it is something else.
        ValueError: If a number is out of range, or a range is given for `"denoise"`.
    """
    if not isinstance(factor, tuple | list):
        return factor, 1.0  # which the transform checks
    if len(factor) != 2:
        raise TypeError(f"factor must be a number or a pair (low, high); got {factor!r}.")
    high = check_number("factor[1]", factor[1], 0)
    low = check_number("factor[0]", factor[0], 0, high, hint="Pass (low, high), low <= high.")
    if low == high:
        return high, 1.0
    if mode == "denoise":
        raise ValueError(
            f"factor must be one number for mode='denoise'; got {factor!r}. What a detector sees "
            f"at inference is denoised by one strength: pass factor={high!r}."
        )
    return (low, high), low / high
