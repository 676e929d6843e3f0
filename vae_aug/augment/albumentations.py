"""The corruptions of `vae_aug.corrupt` as an Albumentations transform (extra `[albumentations]`).

For pipelines that already are Albumentations'. In `tf.data`, `vae_aug.corrupt.make_corruption` is
the cheaper way: it stays in the graph.

Cost: each call copies the image into TensorFlow, runs about twenty operations eagerly on the CPU,
and copies the result back. The share of this that is fixed per call does not shrink with the image.

Workers: TensorFlow's threads do not survive a fork. In a process forked after TensorFlow was used
in its parent, a call may hang for ever; start workers by `"spawn"` or `"forkserver"`, as in
`torch.utils.data.DataLoader(..., multiprocessing_context="spawn")`.

Importing this module switches off Albumentations' version check, which asks PyPI whenever
Albumentations is imported. Set `NO_ALBUMENTATIONS_UPDATE=0` beforehand to keep it; it cannot be
switched off here if Albumentations was imported first.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, cast

import numpy as np
import tensorflow as tf

from vae_aug.corrupt import check_names, corrupt_image
from vae_aug.errors import MissingPackageError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

try:
    from albumentations import ImageOnlyTransform
    from albumentations.core.pydantic import check_range_bounds, nondecreasing, repeat_if_scalar
    from albumentations.core.transforms_interface import BaseTransformInitSchema
    from pydantic import AfterValidator
except ModuleNotFoundError as error:
    raise MissingPackageError(
        "vae_aug.augment.albumentations needs the PyPI package albumentations, which is not "
        "installed. Run: pip install 'vae-aug[albumentations]'"
    ) from error

_DTYPES = ("uint8", "uint16", "float32")


def _check_name(name: str) -> str:
    """Return `name`; raise `ValueError` unless it is a key of `CORRUPTIONS`."""
    check_names([name])
    return name


class Corruption(ImageOnlyTransform):
    """Add one kind of noise, of a strength drawn anew for every call.

    Targets are image, images, volume and volumes, grey without a channel axis (`[H, W]`) or with
    channels last (`[H, W, 1]`, `[H, W, 3]`), of uint8, uint16, or float32 in [0, 1]. Shape and
    dtype are kept; integers round to nearest. All slices of a stack get the same `keep`, but noise
    of their own. Boxes, masks and keypoints are not touched; what `Compose` itself does to boxes
    (relative float32 and back) remains.

    The noise is that of `vae_aug.corrupt.corrupt_image` for the drawn `keep` and `seed`, which
    come from Albumentations' own generator: `A.Compose(..., seed=...)` reproduces them. Compose
    gives every transform in it that same seed, so that two corruptions in a row draw alike; choose
    between several with `A.OneOf`.

    A saved pipeline can be read (`A.from_dict`, `A.load`) once this module has been imported.

    Example:
        >>> import albumentations as A
        >>> augment = A.Compose([Corruption("rician", keep=(0.4, 1.0), p=1.0)], seed=1)
        >>> augment(image=np.zeros([8, 8], np.uint8))["image"].dtype
        dtype('uint8')
    """

    class InitSchema(BaseTransformInitSchema):
        """What Albumentations checks the arguments against."""

        name: Annotated[str, AfterValidator(_check_name)]
        keep: Annotated[
            tuple[float, float] | float,
            AfterValidator(repeat_if_scalar),
            AfterValidator(check_range_bounds(0, 1, min_inclusive=False)),
            AfterValidator(nondecreasing),
        ]

    def __init__(self, name: str, keep: tuple[float, float] | float, p: float = 0.5) -> None:
        """Fix what is drawn from.

        Args:
            name: A key of `vae_aug.corrupt.CORRUPTIONS`.
            keep: Share of the information left, in (0, 1]: a value, or a range `(low, high)` to
                draw from uniformly. 1 returns images as they are.
            p: Probability of applying the transform. Default: 0.5.

        Raises:
            ValueError: On an unknown name or a `keep` outside (0, 1].
        """
        super().__init__(p=p)
        self.name = name
        self.keep = cast("tuple[float, float]", keep)  # the schema has made it a pair

    def get_params(self) -> dict[str, Any]:
        """Draw what one call applies.

        Returns:
            `keep`, a float, and `seed`, two int32 as a list; plain numbers, so that
            `A.ReplayCompose` can store them.
        """
        return {
            "keep": float(self.random_generator.uniform(*self.keep)),
            "seed": self.random_generator.integers(2**31, size=2).tolist(),
        }

    def apply(self, img: np.ndarray, keep: float, seed: list[int], **_: Any) -> np.ndarray:
        """Corrupt an image `[H, W]` or `[H, W, C]`.

        Args:
            img: uint8, uint16, or float32 in [0, 1].
            keep: Share of the information left, in (0, 1].
            seed: Two int32.

        Returns:
            Same shape and dtype.

        Raises:
            TypeError: On another dtype.
            ValueError: On another rank.
        """
        return self._corrupt(img, 2, keep, seed)

    def apply_to_images(
        self, images: np.ndarray, keep: float, seed: list[int], **_: Any
    ) -> np.ndarray:
        """Corrupt a stack `[N, H, W]` or `[N, H, W, C]`, a volume too; else as `apply`."""
        return self._corrupt(np.asarray(images), 3, keep, seed)

    def apply_to_volumes(
        self, volumes: np.ndarray, keep: float, seed: list[int], **_: Any
    ) -> np.ndarray:
        """Corrupt volumes `[N, D, H, W]` or `[N, D, H, W, C]`; else as `apply`."""
        return self._corrupt(np.asarray(volumes), 4, keep, seed)

    def _corrupt(
        self, pixels: np.ndarray, grey_rank: int, keep: float, seed: list[int]
    ) -> np.ndarray:
        """Corrupt an array that has a channel axis if its rank exceeds `grey_rank`."""
        if pixels.dtype.name not in _DTYPES:
            raise TypeError(f"an image must be one of {', '.join(_DTYPES)}; got {pixels.dtype}.")
        if pixels.ndim - grey_rank not in (0, 1):
            raise ValueError(
                f"expected {grey_rank} axes, or {grey_rank + 1} with channels last; got shape "
                f"{pixels.shape}."
            )
        planes = pixels if pixels.ndim > grey_rank else pixels[..., np.newaxis]
        with tf.device("CPU"):
            noisy = corrupt_image(tf.convert_to_tensor(planes), self.name, keep, seed)
        return noisy.numpy().reshape(pixels.shape)
