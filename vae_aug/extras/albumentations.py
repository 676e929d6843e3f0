"""Albumentations pipelines with a VAE in them, and inside `tf.data` (extra `[albumentations]`).

| name | what it is for |
| --- | --- |
| `albumentations_map` | an `A.Compose`, boxes and labels too, as a function for `Dataset.map` |
| `VAETransform` | `VAEAugment` as a transform, for pipelines that already are Albumentations' |
| `Corruption` | the noise of `vae_aug.train.corrupt`, likewise |

Order: the VAE first, on the image in its own size, then geometry, then noise. The network knows
images as scanners make them: it takes the corners that a rotation leaves black, the blur of a
resize or added noise for anatomy, and works on them. The guard judges a box by all of its content,
which a crop may have cut. In `tf.data`:

    compose = A.Compose(
        [A.HorizontalFlip(p=0.5), A.Affine(rotate=(-10, 10), p=0.5), A.GaussNoise(p=0.3)],
        bbox_params=A.BboxParams("albumentations", clip=True, min_visibility=0.3),
    )
    train = train.apply(VAEAugment("demo", seed=1)).map(albumentations_map(compose))

In an Albumentations pipeline:

    compose = A.Compose(
        [VAETransform("demo", p=0.7), A.HorizontalFlip(p=0.5), Corruption("rician", (0.6, 1.0))],
        bbox_params=A.BboxParams("pascal_voc", label_fields=["labels"]),
        seed=1,
    )
    result = compose(image=image, bboxes=boxes, labels=labels)

Limits: `albumentations_map` runs in Python, so that its graph cannot be serialised, and not go to
tf.data service. `VAEAugment` and `vae_aug.train.corrupt.make_corruption` stay in the graph, and are
the cheaper way there than the transforms, which copy every image into TensorFlow, run operation by
operation, and copy the result back.

Workers: TensorFlow's threads do not survive a fork. In a process forked after TensorFlow was used
in its parent, a call of a transform may hang for ever; start workers by `"spawn"` or
`"forkserver"`, as in `torch.utils.data.DataLoader(..., multiprocessing_context="spawn")`.

Importing this module switches off Albumentations' version check, which asks PyPI whenever
Albumentations is imported. Set `NO_ALBUMENTATIONS_UPDATE=0` beforehand to keep it; it cannot be
switched off here if Albumentations was imported first.
"""

from __future__ import annotations

import copy
import functools
import os
import random
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

import numpy as np
import tensorflow as tf

from vae_aug.augment.elements import Layout, find_layout, get_at, read_example, replace_at
from vae_aug.augment.seeds import make_seed
from vae_aug.augment.transform import VAEAugment
from vae_aug.boxes import convert_boxes
from vae_aug.config import OPTIONAL_SETTINGS, BoxFormat, Guard, Mode, check_choice
from vae_aug.engines.shutdown import end_at_exit
from vae_aug.errors import MissingPackageError
from vae_aug.model.network import Network
from vae_aug.train.corrupt import check_names, corrupt_image

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

try:
    from albumentations import (
        BaseCompose,
        Compose,
        HorizontalFlip,
        ImageOnlyTransform,
        NoOp,
        VerticalFlip,
    )
    from albumentations.core.pydantic import check_range_bounds, nondecreasing, repeat_if_scalar
    from albumentations.core.transforms_interface import BaseTransformInitSchema
    from pydantic import AfterValidator
except ModuleNotFoundError as error:
    raise MissingPackageError(
        "vae_aug.extras.albumentations needs the PyPI package albumentations, which is not "
        "installed. Run: pip install 'vae-aug[albumentations]'"
    ) from error

_DTYPES = ("uint8", "uint16", "float32")

_ROW = "vae_aug_row"
"""Field in which a box carries the number of its row through a pipeline."""


def _check_name(name: str) -> str:
    """Return `name`; raise `ValueError` unless it is a key of `CORRUPTIONS`."""
    check_names([name])
    return name


class Corruption(ImageOnlyTransform):
    """Add one kind of noise, of a strength chosen anew for every call.

    Targets are image, images, volume and volumes, grey without a channel axis (`[H, W]`) or with
    channels last (`[H, W, 1]`, `[H, W, 3]`), of uint8, uint16, or float32 in [0, 1]. Shape and
    dtype are kept; integers round to nearest. All slices of a stack get the same `keep`, but noise
    of their own. Boxes, masks and keypoints are not touched; what `Compose` itself does to boxes
    (relative float32 and back) remains.

    The noise is that of `vae_aug.train.corrupt.corrupt_image` for the chosen `keep` and `seed`,
    which come from Albumentations' own generator: `A.Compose(..., seed=...)` reproduces them.
    Compose gives every transform in it that same seed, so that two corruptions in a row are alike;
    choose between several with `A.OneOf`.

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
        """Fix what is sampled from.

        Args:
            name: A key of `vae_aug.train.corrupt.CORRUPTIONS`.
            keep: Share of the information left, in (0, 1]: a value, or a range `(low, high)` to
                sample from uniformly. 1 returns images as they are.
            p: Probability of applying the transform. Default: 0.5.

        Raises:
            ValueError: On an unknown name or a `keep` outside (0, 1].
        """
        super().__init__(p=p)
        self.name = name
        self.keep = cast("tuple[float, float]", keep)  # the schema has made it a pair

    def get_params(self) -> dict[str, Any]:
        """Sample what one call applies.

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
        planes = _add_channels(pixels, grey_rank)
        with tf.device("CPU"):
            noisy = corrupt_image(tf.convert_to_tensor(planes), self.name, keep, seed)
        return noisy.numpy().reshape(pixels.shape)


_MARKS = ("mask", "masks", "mask3d", "masks3d", "keypoints")
"""Targets of Albumentations that mark places of an image."""


class VAETransform(ImageOnlyTransform):
    """Vary or denoise images with a VAE, as `VAEAugment` does, in an Albumentations pipeline.

    Targets are image, images, volume and volumes, grey without a channel axis (`[H, W]`) or with
    channels last (`[H, W, 1]`, `[H, W, 3]`), of uint8, uint16, or float32. Shape and dtype are
    kept. All slices of a stack get the same sample of the latent space.

    The guard sees the boxes that `A.Compose(..., bbox_params=...)` brings to this transform, in
    every additional target of theirs too; the boxes themselves are not touched. What `Compose`
    does to boxes (relative coordinates and back) remains. Masks and keypoints are not touched;
    where there are any, no pixel moves, so that they fit.

    What is sampled depends on a number from Albumentations' own generator, so
    `A.Compose(..., seed=...)` reproduces it. Compose gives every transform in it that same seed,
    so that with equal `p` this one is applied just when its neighbours are.

    Made of a path, a transform can be saved with its pipeline (`A.to_dict`, `A.save`; `A.load`
    once this module has been imported) and sent to a spawned worker, where the checkpoint is
    loaded again. Made of an object, it can only be copied within its process.

    Example:
        >>> import albumentations as A
        >>> compose = A.Compose(                                      # doctest: +SKIP
        ...     [VAETransform("demo", p=0.5), A.HorizontalFlip(p=0.3)],
        ...     bbox_params=A.BboxParams(format="pascal_voc", label_fields=["labels"]),
        ...     seed=1,
        ... )
    """

    class InitSchema(BaseTransformInitSchema):
        """The arguments; `VAEAugment` checks them."""

        ckpt: Any
        mode: Any
        factor: Any
        detail: Any
        guard: Any
        min_fidelity: Any
        value_range: Any
        hardest_of: Any
        adaptive: Any
        weakest: Any

    def __init__(
        self,
        ckpt: str | os.PathLike[str] | Network | VAEAugment,
        mode: Mode | None = None,
        factor: float | None = None,
        detail: float | None = None,
        guard: Guard | None = None,
        min_fidelity: float | None = None,
        value_range: tuple[float, float] | None = None,
        p: float = 0.5,
        *,
        hardest_of: int | None = None,
        adaptive: bool | None = None,
        weakest: float | None = None,
    ) -> None:
        """Load the checkpoint and check the settings.

        Args:
            ckpt: What `VAEAugment` takes: a `.keras` file, a checkpoint folder, the name of a
                packaged checkpoint (`"demo"`), or a network. Or a `VAEAugment`, whose settings
                then count, its `p` beside this one and its `seed` beside the pipeline's.
            mode: As in `VAEAugment`, like the following; None for its default.
            factor: Strength, from 0.
            detail: Share of what the VAE cannot represent that is put back, in [0, 1].
            guard: What happens where a box's content is not preserved.
            min_fidelity: SSIM of a box below which the guard acts, in [0, 1].
            value_range: Values of black and white.
            p: Probability of applying the transform. Default: 0.5.
            hardest_of: As in `VAEAugment`.
            adaptive: As in `VAEAugment`.
            weakest: As in `VAEAugment`.

        Raises:
            CheckpointError: If the checkpoint cannot be loaded.
            ValueError: If a setting is out of range, or there are any beside a `VAEAugment`.
            TypeError: If `ckpt` is none of these.
        """
        super().__init__(p=p)
        self.ckpt = os.fspath(ckpt) if isinstance(ckpt, os.PathLike) else ckpt
        self.mode, self.factor, self.detail = mode, factor, detail
        self.guard, self.min_fidelity = guard, min_fidelity
        self.value_range = None if value_range is None else tuple(value_range)  # lists, if loaded
        self.hardest_of, self.adaptive, self.weakest = hardest_of, adaptive, weakest
        self._augment = self._make_augment()

    @property
    def targets(self) -> dict[str, Callable[..., Any]]:
        """What the transform looks at; without boxes here, `Compose` warns that nothing does."""
        return {**super().targets, "bboxes": self.apply_to_bboxes}

    def get_params(self) -> dict[str, Any]:
        """Sample what names one call: `key`, an int in [0, 2**63)."""
        return {"key": int(self.random_generator.integers(2**63))}

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Collect the boxes that the guard sees, and whether there is more that marks places.

        Args:
            params: Not used.
            data: All targets of the call.

        Returns:
            `boxes`, a list of `[x_min, y_min, x_max, y_max]` relative to the image's size; plain
            numbers, so that `A.ReplayCompose` can store them. `marked`, whether there are masks or
            keypoints, which would no longer fit if pixels moved.
        """
        extra = [name for name, kind in self._additional_targets.items() if kind == "bboxes"]
        rows = [row for name in ("bboxes", *extra) for row in data.get(name, ())]
        marked = any(self._additional_targets.get(name, name) in _MARKS for name in data)
        return {"boxes": [[float(side) for side in row[:4]] for row in rows], "marked": marked}

    def apply(
        self,
        img: np.ndarray,
        key: int,
        boxes: list[list[float]],
        marked: bool = False,
        **_: Any,
    ) -> np.ndarray:
        """Vary or denoise an image `[H, W]` or `[H, W, C]`.

        Args:
            img: uint8, uint16 or float32.
            key: What is sampled depends on it.
            boxes: `N` of 4, `rel_xyxy`.
            marked: Whether masks or keypoints go with the image; then no pixel moves.

        Returns:
            Same shape and dtype.

        Raises:
            TypeError: On another dtype.
            ValueError: On another rank or number of channels.
        """
        element = {
            "image": _add_channels(img, 2),
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "id": str(key),
        }
        if marked:
            element["masks"] = np.zeros(0, np.uint8)  # that there are some is what matters
        return self._augment(element)["image"].numpy().reshape(img.shape)

    def apply_to_bboxes(self, bboxes: np.ndarray, **_: Any) -> np.ndarray:
        """Return the boxes as they are."""
        return bboxes

    def _make_augment(self) -> VAEAugment:
        """Make the `VAEAugment` that does the work."""
        names = (
            *("mode", "factor", "detail", "guard", "min_fidelity", "value_range"),
            *OPTIONAL_SETTINGS,
        )
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        # With a seed, the key alone says what is sampled.
        fixed = {"seed": 0, "bounding_box_format": "rel_xyxy"}
        if not isinstance(self.ckpt, VAEAugment):
            return VAEAugment(self.ckpt, **{**given, **fixed})
        if given:
            raise ValueError(
                f"a VAEAugment has its settings already; got {', '.join(given)} beside it. Give "
                "them to the VAEAugment."
            )
        settings = self.ckpt.config.to_dict()
        fixed["seed"] = settings["seed"] or 0
        return VAEAugment(self.ckpt.vae, **{**settings, **fixed})

    def __deepcopy__(self, memo: dict[int, Any]) -> VAETransform:
        """Copy all but the network, which has no state."""
        memo.update({id(shared): shared for shared in (self.ckpt, self._augment)})
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what no other process could use."""
        return {name: value for name, value in self.__dict__.items() if name != "_augment"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load the checkpoint again."""
        self.__dict__.update(state)
        self._augment = self._make_augment()


def albumentations_map(
    compose: Compose, *, bounding_box_format: str | None = None, seed: int | None = None
) -> Callable[..., Any]:
    """Make a function for `Dataset.map` that runs a pipeline on images, boxes and labels together.

    Elements are single examples in any layout of `vae_aug.augment.elements`: image `[H, W, C]`
    uint8, uint16 or float32, boxes `[N, 4]`. The pipeline sees uint16 as float32 in [0, 1], since
    many transforms do not take it; a `fill` is in these units too. Where the pipeline drops a box
    (outside after a crop, smaller than `min_area`), every other entry of that box's group goes with
    it: the labels, and whatever has one row per box. Outside of `objects` and `bounding_boxes` that
    is every entry of the boxes' dict whose first axis is of unknown length or as long as the
    boxes'. All other entries are carried untouched: masks, keypoints and areas are *not*
    transformed.

    Rows that are no box are removed first and do not come back: padding (-1 or 0), NaN, no area,
    wholly outside of the image. A box partly outside is an error of Albumentations', unless
    `A.BboxParams(clip=True)`.

    Format and dtype of the boxes are the element's; the `format` in `bbox_params` does not matter.
    Its `label_fields` need not be given. Those that are, for transforms that look at labels, are
    taken from the entries of the same names.

    Static shapes: boxes become `[None, 4]`, and the image `[None, None, C]`, unless the pipeline
    holds nothing but image-only transforms and flips; where you know more, say it by
    `tf.ensure_shape`. dtype and channels of the image are kept; a pipeline that changes them
    (`A.Normalize`, `A.ToGray(1)`) is an error.

    The function runs in Python: its graph cannot be serialised nor sent to tf.data service, and
    parallel calls share Python's lock, which OpenCV and NumPy release only in part. With a seed, a
    dataset's iterator can be checkpointed.

    Args:
        compose: The pipeline, with `bbox_params` if the elements have boxes. Later changes to it
            are not seen. Calls in parallel run copies of it.
        bounding_box_format: Format of the boxes, Keras's names. None for `"rel_yxyx"` under the
            key `bbox` and `"xyxy"` under `boxes`.
        seed: What is sampled then depends on (seed, source id or content, epoch) alone, whatever
            the number of parallel calls and the order. The epoch is the element's key `"epoch"`, or
            0: without it, an element repeats in every pass. Unlike `compose.set_random_seed`, it
            lets every transform sample independently of the others. None for fresh randomness
            every time.

    Returns:
        A function of an element (or of the parts of a tuple, as `Dataset.map` passes them) that
        returns the same structure.

    Raises:
        TypeError: If `compose` is no `A.Compose`; when called, if the image's dtype is not
            supported.
        ValueError: If the format is unknown, or `compose` has a seed and there is none here; when
            called, on a batch, on boxes without `bbox_params`, on label fields that are not in the
            element, or if there is no image. In a dataset, what the pipeline itself refuses is a
            `tf.errors.InvalidArgumentError`.

    Example:
        >>> import albumentations as A
        >>> flip = A.Compose([A.HorizontalFlip(p=1)], bbox_params=A.BboxParams("pascal_voc"))
        >>> element = {
        ...     "image": np.zeros([10, 20, 1], np.uint8),
        ...     "objects": {"bbox": np.array([[0.0, 0.25, 1.0, 0.5]], np.float32), "label": [7]},
        ... }
        >>> albumentations_map(flip)(element)["objects"]["bbox"].numpy().tolist()
        [[0.0, 0.5, 1.0, 0.75]]
    """
    if not isinstance(compose, Compose):
        raise TypeError(
            f"compose must be an A.Compose; got {type(compose).__name__}. Put it into one: "
            "A.Compose([...], bbox_params=A.BboxParams(...))."
        )
    if bounding_box_format is not None:
        check_choice("bounding_box_format", bounding_box_format, BoxFormat)
    if seed is None and compose.seed is not None:
        raise ValueError(
            f"compose has seed={compose.seed}, which calls in parallel cannot keep. Give it here: "
            f"albumentations_map(compose, seed={compose.seed})."
        )
    pipeline = _Pipeline(compose)

    @tf.autograph.experimental.do_not_convert
    def run(*element: Any) -> Any:
        whole = element[0] if len(element) == 1 else element
        layout = find_layout(whole, bounding_box_format)
        _check_element(whole, layout, pipeline)
        return _run_on_element(whole, layout, pipeline, seed)

    return run


class _Pipeline:
    """Copies of an `A.Compose`, which holds random and other state, each for one call at a time.

    Attributes:
        takes_boxes: Whether there are `bbox_params`.
        label_fields: What they name.
        keeps_size: Whether images are known to keep their height and width.
    """

    def __init__(self, compose: Compose) -> None:
        """Copy a pipeline and fit the copy to boxes in `rel_xyxy` that know their row."""
        self._original = copy.deepcopy(compose)
        self._idle: list[Compose] = []
        self.keeps_size = _keeps_size(compose)
        self.takes_boxes = "bboxes" in compose.processors
        self.label_fields: list[str] = []
        if self.takes_boxes:
            params = self._original.processors["bboxes"].params
            self.label_fields = list(params.label_fields or ())
            params.format = "albumentations"
            # Last, since transforms that look for a label take the first.
            params.label_fields = [*self.label_fields, _ROW]
            self._original.available_keys.add(_ROW)

    def __call__(
        self, box_format: str, image: np.ndarray, boxes: np.ndarray, seed: int, *labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run on one example.

        Args:
            box_format: Of the boxes, on the way in and out.
            image: `[H, W, C]`.
            boxes: `[N, 4] float64`, padding included.
            seed: Non-negative.
            *labels: `[N]`, of each of `label_fields`.

        Returns:
            The image; the boxes that are left, `[M, 4] float64`; their rows, `[M] int64`.

        Raises:
            ValueError: If the image is no longer of its dtype and channels.
        """
        height, width = image.shape[:2]
        rows = np.flatnonzero(np.isfinite(boxes).all(axis=-1))
        corners = convert_boxes(boxes[rows], box_format, "rel_xyxy", height=height, width=width)
        start, end = corners[:, :2], corners[:, 2:]
        real = ((end > start) & (start < 1) & (end > 0)).all(axis=-1)
        rows, corners = rows[real], corners[real]
        # A copy, since TensorFlow may lend its own memory, and transforms may write to theirs.
        shown = image / np.float32(65535) if image.dtype == np.uint16 else np.array(image)
        data: dict[str, Any] = {"image": shown}
        if self.takes_boxes:
            data |= {"bboxes": corners, _ROW: rows}
            for name, values in zip(self.label_fields, labels, strict=True):
                texts = values.dtype == object  # TensorFlow's are bytes
                data[name] = np.array([text.decode() for text in values]) if texts else values
                data[name] = data[name][rows]
        result = self._run(int(seed), data)
        changed = _check_result(result["image"], shown)
        if image.dtype == np.uint16:
            changed = np.rint(np.clip(changed, 0, 1) * np.float32(65535)).astype(np.uint16)
        if self.takes_boxes:
            corners = np.asarray(result["bboxes"], np.float64).reshape(-1, 4)
            rows = np.asarray(result[_ROW], np.int64)
        height, width = changed.shape[:2]
        boxes = convert_boxes(corners, "rel_xyxy", box_format, height=height, width=width)
        return changed, boxes, rows

    def _run(self, seed: int, data: dict[str, Any]) -> dict[str, Any]:
        """Run an idle copy, or a new one."""
        try:
            compose = self._idle.pop()
        except IndexError:
            compose = copy.deepcopy(self._original)
        # Not set_random_seed: it starts every transform on the same sequence, and two flips of
        # p=0.5 then happen both or not at all.
        compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        result = compose(**data)
        self._idle.append(compose)  # not after an error, which may have left it half done
        return result


def _run_on_element(element: Any, layout: Layout, pipeline: _Pipeline, seed: int | None) -> Any:
    """Run a pipeline on a checked element; see `albumentations_map`."""
    image = tf.convert_to_tensor(get_at(element, layout.image))
    boxes, given = tf.zeros([0, 4], tf.float64), None
    entries: dict[str, Any] = {}
    if layout.boxes is not None:
        given = tf.convert_to_tensor(get_at(element, layout.boxes))
        boxes = tf.reshape(tf.cast(given, tf.float64), [-1, 4])
        entries = _find_entries(element, layout)
    for name, values in entries.items():
        _check_rows(name, values, boxes)
    empty = tf.zeros([0], tf.int64)
    labels = [entries.get(name, empty) for name in pipeline.label_fields]
    changed, kept, rows = tf.numpy_function(
        end_at_exit(functools.partial(pipeline, layout.box_format)),
        [image, boxes, _make_key(element, layout, seed), *labels],
        [image.dtype, tf.float64, tf.int64],
        stateful=seed is None,  # what has state cannot be in an iterator's checkpoint
    )
    height, width = image.shape[:2] if pipeline.keeps_size else (None, None)
    changed = tf.ensure_shape(changed, [height, width, image.shape[-1]])
    element = replace_at(element, layout.image, changed)
    if layout.boxes is None or given is None:
        return element
    kept, rows = tf.ensure_shape(kept, [None, 4]), tf.ensure_shape(rows, [None])
    kept = tf.cast(tf.round(kept) if given.dtype.is_integer else kept, given.dtype)
    element = replace_at(element, layout.boxes, kept)
    for name, values in entries.items():
        element = replace_at(element, (*layout.boxes[:-1], name), tf.gather(values, rows))
    return element


def _make_key(element: Any, layout: Layout, seed: int | None) -> tf.Tensor:
    """Make the seed of one example, `[] int64`, not negative."""
    return tf.bitcast(make_seed(seed, "albumentations", read_example(element, layout)), tf.int64)


def _find_entries(element: Any, layout: Layout) -> dict[str, Any]:
    """Return what has one row per box in the boxes' dict, other than the boxes."""
    *path, box_key = layout.boxes or ()
    group: Mapping[str, Any] = get_at(element, tuple(path))
    count = _shape_of(get_at(element, (*path, box_key)))[0]
    is_own = any(isinstance(key, str) for key in path)  # "objects", not a dict of other things too
    found = {}
    for name, value in group.items():
        if name == box_key or (*path, name) == layout.image or isinstance(value, Mapping | tuple):
            continue
        shape = _shape_of(value)
        if shape.rank is None:
            raise ValueError(
                f"the rank of {[*path, name]}, beside boxes, is unknown; set it with "
                "tf.ensure_shape."
            )
        if shape.rank > 0 and (is_own or shape[0] in (None, count)):
            ragged = isinstance(value, tf.RaggedTensor)
            found[name] = value if ragged else tf.convert_to_tensor(value)
    return found


def _shape_of(value: Any) -> tf.TensorShape:
    """Return the static shape of a tensor, an array or a list."""
    return tf.TensorShape(value.shape if hasattr(value, "shape") else np.shape(value))


def _check_element(element: Any, layout: Layout, pipeline: _Pipeline) -> None:
    """Raise `ValueError` or `TypeError` on what a pipeline cannot take."""
    image = get_at(element, layout.image)
    if layout.batched:
        raise ValueError(
            "albumentations_map takes one example at a time; received a batch of images "
            f"{tf.TensorShape(image.shape)}. Map before batch(), or unbatch() first."
        )
    dtype = tf.as_dtype(image.dtype).name
    if dtype not in _DTYPES:
        raise TypeError(
            f"an image must be one of {', '.join(_DTYPES)}; got {dtype}. Cast it before."
        )
    if layout.boxes is None:
        return
    if not pipeline.takes_boxes:
        raise ValueError(
            f"the element has boxes at {list(layout.boxes)}, but compose has no bbox_params, so "
            "they would stay where they are. Make it with bbox_params=A.BboxParams('pascal_voc')."
        )
    entries = _find_entries(element, layout)
    missing = [name for name in pipeline.label_fields if name not in entries]
    if missing:
        raise ValueError(
            f"bbox_params has label_fields {missing}, but the entries beside the boxes are "
            f"{list(entries)}. Name the fields so, or leave them out: every entry goes with its "
            "box anyway."
        )


def _check_rows(name: str, values: Any, boxes: tf.Tensor) -> None:
    """Raise `InvalidArgumentError`, in a graph when it runs, unless each box has a row."""
    count = values.nrows() if isinstance(values, tf.RaggedTensor) else tf.shape(values)[0]
    tf.debugging.assert_equal(
        tf.cast(count, tf.int32),
        tf.shape(boxes)[0],
        message=f"{name!r}, beside boxes, must have one row per box; move it out of their dict.",
    )


def _check_result(changed: Any, image: np.ndarray) -> np.ndarray:
    """Return a pipeline's image as `[H, W, C]`; raise `ValueError` if it is of another kind."""
    if isinstance(changed, np.ndarray) and changed.ndim == 2:
        changed = changed[..., np.newaxis]  # OpenCV drops the axis of a single channel
    expected = (image.dtype, image.shape[-1])
    if not isinstance(changed, np.ndarray) or (changed.dtype, changed.shape[-1]) != expected:
        got = type(changed).__name__
        if isinstance(changed, np.ndarray):
            got = f"{changed.dtype} with {changed.shape[-1]} channels"
        raise ValueError(
            f"compose made {got} of an image of {image.dtype} with {image.shape[-1]} channels. "
            "Convert in TensorFlow, before or after albumentations_map."
        )
    return np.ascontiguousarray(changed)


def _keeps_size(transform: Any) -> bool:
    """Return whether a transform, or all in a pipeline, are known to keep height and width."""
    if isinstance(transform, BaseCompose):
        return all(map(_keeps_size, transform.transforms))
    return isinstance(transform, ImageOnlyTransform | NoOp | HorizontalFlip | VerticalFlip)


def _add_channels(pixels: np.ndarray, grey_rank: int) -> np.ndarray:
    """Give an array a channel axis unless its rank exceeds `grey_rank`; check rank and dtype."""
    if pixels.dtype.name not in _DTYPES:
        raise TypeError(f"an image must be one of {', '.join(_DTYPES)}; got {pixels.dtype}.")
    if pixels.ndim - grey_rank not in (0, 1):
        raise ValueError(
            f"expected {grey_rank} axes, or {grey_rank + 1} with channels last; got shape "
            f"{pixels.shape}."
        )
    return pixels if pixels.ndim > grey_rank else pixels[..., np.newaxis]
