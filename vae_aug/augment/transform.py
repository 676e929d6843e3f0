"""`VAEAugment`, the transform that goes into a detector's input pipeline."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from vae_aug.augment.cache import open_cache
from vae_aug.augment.dataset import augment_dataset
from vae_aug.augment.steps import Steps
from vae_aug.config import AugmentConfig, Engine, Guard, Mode
from vae_aug.engines.engine import ENGINE_SETTINGS, TensorFlowEngine, XLAEngine
from vae_aug.errors import CheckpointError
from vae_aug.model.checkpoint import StoredNetwork, open_checkpoint
from vae_aug.model.network import Network

if TYPE_CHECKING:
    from vae_aug.augment.grain import GrainAugment


def make_engine(vae: Network | StoredNetwork, config: AugmentConfig) -> TensorFlowEngine:
    """Make the engine that the settings name; see `TensorFlowEngine`."""
    if config.engine.startswith("openvino"):
        # An extra, which only those who ask for it need to have.
        from vae_aug.engines.openvino import OpenVINOEngine

        return OpenVINOEngine(vae, config)
    return (XLAEngine if config.engine == "xla" else TensorFlowEngine)(vae, config)


@functools.lru_cache(maxsize=4)
def share_engine(vae: StoredNetwork, config: AugmentConfig) -> TensorFlowEngine:
    """Make the engine of settings once, which saves later transforms their traces."""
    return make_engine(vae, config)


def _check_device(device: str) -> None:
    """Refuse a device that this machine does not have, since TensorFlow would use another."""
    try:
        wanted = tf.DeviceSpec.from_string(device)
    except ValueError as error:
        raise ValueError(
            f"device must be a name such as '/GPU:0'; got {device!r} ({error})."
        ) from error
    if wanted.job not in (None, "localhost"):
        return  # of another machine of a cluster
    found = [tf.DeviceSpec.from_string(one.name) for one in tf.config.list_logical_devices()]
    if not any(
        wanted.device_type in (None, one.device_type)
        and wanted.device_index in (None, one.device_index)
        for one in found
    ):
        names = ", ".join(f"'/{one.device_type}:{one.device_index}'" for one in found)
        raise ValueError(
            f"device={device!r} is not on this machine, where TensorFlow finds {names}. Leave the "
            "device out, or install what TensorFlow needs to see it."
        )


def _restore(name: str, digest: str, settings: dict[str, Any]) -> VAEAugment:
    """Make the transform of a pickle; the checkpoint must be the same."""
    augment = VAEAugment(name, **settings)
    augment.check_digest(digest, "the transform that was pickled")
    return augment


class VAEAugment:
    """Denoise images, or vary them, in `tf.data`; boxes and everything else pass untouched.

    The VAE sees the image in grey and says how its brightness should change; the change is added
    to the image's own pixels. So size, dtype, range and colour are kept, and with `detail=1` so is
    everything that the VAE cannot represent. The profile `ladder` sees every image in its own size,
    the profile `vector` fitted into its square, whose change is brought back to the image's size.

    With image x, reconstruction r and variant v of the VAE and `up` to native resolution:

        sample, interpolate:  x + up(v - r) + (1 - detail) (up(r) - x)
        denoise:              x + factor (1 - detail) (up(r) - x)

    A checkpoint with a `variation`, as `"demo"` is, sees a square of 128 pixels for `"sample"` and
    `"interpolate"`, and its change is a transformation, `vae_aug.model.fields.Fields`: outside of
    boxes pixels of the image move, and everywhere a tone curve is applied that rises and differs
    smoothly from place to place. There `detail` is the share of what the square does not show that
    is kept. A ladder without one changes an image by less than 1% of the grey range.

    A ladder takes 0.3 GB of memory a megapixel beside its weights, of a megapixel at a time or of
    one image that is larger; twice that under `apply`, which has two batches under way. Of a ragged
    batch those of one size run together; elements of unknown size under `apply` run one by one, or,
    on a `device`, as ragged batches of `batch_size`.

    Elements may be single or batched: TFDS (`{"image", "objects": {"bbox", ...}}`), Keras
    (`{"images", "bounding_boxes": {"boxes", ...}}`), `(image, target)` or a bare image, as tensors
    or NumPy arrays; images `[H, W, C]`, `[B, H, W, C]` or ragged, uint8, uint16, float16, bfloat16
    or float32, with 1 or 3 channels; boxes padded or ragged. See `vae_aug.augment.elements`.

    Example:
        >>> augment = VAEAugment("demo", seed=1)                      # doctest: +SKIP
        >>> dataset.map(augment)            # an element at a time     # doctest: +SKIP
        >>> dataset.apply(augment)          # all of it, fastest       # doctest: +SKIP
    """

    def __init__(
        self,
        ckpt: str | os.PathLike[str] | Network,
        *,
        mode: Mode = "sample",
        factor: float = 1.0,
        detail: float | None = None,
        p: float = 1.0,
        guard: Guard = "paste",
        min_fidelity: float = 0.8,
        value_range: tuple[float, float] | None = None,
        seed: int | None = None,
        engine: Engine = "tensorflow",
        batch_size: int = 32,
        device: str | None = None,
        bounding_box_format: str | None = None,
        hardest_of: int = 1,
        adaptive: bool = False,
        weakest: float = 1.0,
    ) -> None:
        """Load the checkpoint and check the settings.

        Args:
            ckpt: A `.keras` file, a checkpoint folder, the folder of a training (`"run"`, of which
                the best checkpoint counts), the name of a packaged checkpoint
                (`"demo"`), or a network.
            mode: `"denoise"`: decode the posterior mean. `"sample"`: decode z_mean + factor *
                sigma * eps, or of a `variation` a transformation from its prior N(0, I).
                `"interpolate"`: move z towards another image's of the batch by up to `factor`, or
                apply that share of the transformation that a `variation` reads between the two; an
                image alone, and every image if there is a `seed`, moves towards a
                sample of the training set's aggregate posterior instead; for a ladder only images
                of one size are neighbours.
            factor: Strength, linear, from 0. `factor=0, detail=1` returns the input bit for bit.
                At 1 a sample of a `variation` lies as far from the image as similar images of other
                patients of its training set. One number: how far an example moves is sampled by
                the mode.
            detail: Share of what the VAE cannot represent that is put back, in [0, 1]. None for 0
                if the mode is `"denoise"`, else 1.
            p: Probability that an example is augmented.
            guard: What happens where a box's content is not preserved: `"paste"` the original
                back, with a feathered edge, `"keep"` the whole original image, or `"off"`.
            min_fidelity: SSIM of a box with its margin below which the guard acts. For samples of a
                checkpoint with a `variation`, whose tones may change, it is the share of
                its contrast-to-noise ratio that is left, or the square root of that of its
                contrast, if it is less, and `"paste"` weakens the change of tones of the whole
                image instead; see `vae_aug.augment.transformed`.
            value_range: Values of black and white, e.g. `(0, 4095)`, or `(-1024, 3071)` for
                Hounsfield units. None for the range of an integer dtype, and for [0, 1] or [0, 255]
                by each floating-point image's maximum; one that fits neither is refused.
            seed: Output then depends on (seed, source id or content, epoch) alone. The epoch is
                the pass over the dataset under `apply`, and under `map` the element's key
                `"epoch"`, or 0. None for fresh randomness every time.
            engine: What runs the network. `"tensorflow"`: everywhere, and in tf.data service.
                `"xla"`: compiled, for accelerators. `"openvino"`: on CPUs, in this process only
                (extra `[openvino]`). `"openvino-bfloat16"`: the same with 8 bits of precision,
                on processors that have it. How much faster and less exact they are:
                `docs/performance.md`. Each gives the same bytes for the same seed; between the
                first three grey levels may differ by rounding.
            batch_size: Images that `apply` takes at a time. Without a `device` the network sees
                at most `vae_aug.engines.engine.MAX_PIXELS` of them at once, ten of 224 pixels.
            device: Where the network runs, e.g. `"/GPU:0"`, which must be there; None leaves it to
                TensorFlow.
            bounding_box_format: Format of the boxes, Keras's names. None for `"rel_yxyx"` under
                the key `bbox` and `"xyxy"` under `boxes`. Only the guard looks at them; it warns
                once of boxes that cannot be in that format, and of elements without boxes.
            hardest_of: For `"sample"` of a checkpoint with a `variation`: how many samples of each
                image are made, of which the one is applied whose description by the network lies
                furthest from the image's, 1 to 64. More take longer and vary images more.
            adaptive: For `"denoise"`: whether the part of the change that is not noise is left out,
                place by place, as `vae_aug.augment.adaptive` estimates it. Images that have
                little noise then change little.
            weakest: Share of `factor` from which each example's own strength is sampled, uniformly
                up to `factor`, in [0, 1]; 1 for one strength. Not for `"denoise"`. With
                `hardest_of` samples are compared at the strength `factor`.

        Raises:
            CheckpointError: If the checkpoint cannot be loaded.
            ValueError: If a setting is out of range, the engine cannot run the network, or there is
                no such device.
            TypeError: If a setting is of another type, or `ckpt` is neither a path nor a network.
            MissingPackageError: If the engine's package is not installed.
            EngineError: If the processor cannot run the engine.
        """
        self.config = AugmentConfig(
            mode=mode,
            factor=factor,
            detail=detail,
            p=p,
            guard=guard,
            min_fidelity=min_fidelity,
            value_range=value_range,
            seed=seed,
            engine=engine,
            batch_size=batch_size,
            device=device,
            bounding_box_format=bounding_box_format,
            hardest_of=hardest_of,
            adaptive=adaptive,
            weakest=weakest,
        )
        if device is not None:
            _check_device(device)
        self._name = os.fspath(ckpt) if isinstance(ckpt, str | os.PathLike) else None
        if isinstance(ckpt, str | os.PathLike):
            self.checkpoint: Network | StoredNetwork = open_checkpoint(os.fspath(ckpt))
        elif hasattr(ckpt, "vary"):
            self.checkpoint = ckpt
        else:
            raise TypeError(
                "ckpt must be a path, the name of a packaged checkpoint or a network; received "
                f"{type(ckpt).__name__}."
            )
        self._steps = Steps(self.config, self._find_engine())

    @property
    def vae(self) -> Network:
        """The network. That of a checkpoint is shared, so it must not be trained.

        Raises:
            CheckpointError: If it has to be loaded for this, and cannot be.
        """
        known = self.checkpoint
        return known.load() if isinstance(known, StoredNetwork) else known

    def _find_engine(self) -> TensorFlowEngine:
        """Make the engine, or share that of a transform of the same checkpoint and settings.

        A network that is given as an object may be trained further, so its graphs are not shared;
        nor are OpenVINO's, which hold threads.
        """
        config = self.config
        if self._name is None or config.engine.startswith("openvino"):
            return make_engine(self.checkpoint, config)
        seed = None if config.seed is None else 0
        same = {key: getattr(config, key) for key in (*ENGINE_SETTINGS, "weakest")}
        shared = AugmentConfig(**same, seed=seed, engine=config.engine)
        return share_engine(self.checkpoint, shared)

    @tf.autograph.experimental.do_not_convert
    def __call__(self, *element: Any) -> Any:
        """Augment an element, a batch, or a whole dataset.

        Args:
            *element: An element (several arguments are the parts of a tuple, as `Dataset.map`
                passes them), or a `tf.data.Dataset`, as `Dataset.apply` passes it.

        Returns:
            The same structure with its images changed.

        Raises:
            ValueError: If there is no image in it, its shape is not supported, or it has boxes
                under a key that the guard does not look at.
            TypeError: If the image's dtype is not supported.
        """
        if len(element) == 1 and isinstance(element[0], tf.data.Dataset):
            return augment_dataset(element[0], self._steps)
        whole = element[0] if len(element) == 1 else element
        return self._steps.run(whole, self._steps.find_layout(whole))[0]

    @tf.autograph.experimental.do_not_convert
    def pair(self, *element: Any) -> tuple[Any, Any]:
        """Make two variants of an element or a batch, e.g. for a consistency loss.

        Example:
            >>> pairs = dataset.map(augment.pair)                      # doctest: +SKIP

        Args:
            *element: As in a call, but not a dataset.

        Returns:
            The element twice, each with images varied from randomness of its own. The first is
            what a call returns.

        Raises:
            ValueError: As a call.
            TypeError: As a call, and for a dataset.
        """
        if len(element) == 1 and isinstance(element[0], tf.data.Dataset):
            raise TypeError("pair() takes elements or batches: dataset.map(augment.pair).")
        whole = element[0] if len(element) == 1 else element
        layout = self._steps.find_layout(whole)
        other = dataclasses.replace(self._steps, member=1)
        return self._steps.run(whole, layout)[0], other.run(whole, layout)[0]

    @tf.autograph.experimental.do_not_convert
    def call_with_report(self, *element: Any) -> tuple[Any, dict[str, tf.Tensor]]:
        """Augment an element or a batch and say what was done to it.

        Args:
            *element: As in a call, but not a dataset.

        Returns:
            The element, and the report: `"augmented"` bool, whether the example was chosen;
            `"fidelity"` `[N] float32`, SSIM of every box in what is returned, or where a
            `variation` changes tones what `min_fidelity` says, NaN for a box that cannot be judged;
            `"contrast"` `[N] float32`, contrast-to-noise ratio of every box to its surroundings in
            what is returned, divided by that in the input, NaN where either has none; `"guarded"`
            `[N] bool`, boxes that the guard acted for. With a batch axis in front if the element
            has one.
        """
        whole = element[0] if len(element) == 1 else element
        layout = self._steps.find_layout(whole)
        return dataclasses.replace(self._steps, contrast=True).run(whole, layout)

    def cache(self, dataset: tf.data.Dataset, path: str | os.PathLike[str]) -> tf.data.Dataset:
        """Augment a dataset, as `apply` does, with the network's view of its images kept on disk.

        What is the same in every variant is computed once, in this call: reconstruction, mean and
        log variance of a `vector`, 100 kB an image at 224 pixels; the reconstruction of a `ladder`,
        two bytes a pixel. Every pass then only samples and decodes, and `"denoise"` runs no
        network. A call that was interrupted goes on where it stopped. Grey levels may differ from
        those of `apply` by rounding.

        Args:
            dataset: Of single elements, finite, and in the same order in every pass: shuffle,
                repeat and batch what is returned.
            path: Folder of the cache, for this dataset and checkpoint; made if missing.

        Returns:
            A dataset with the same `element_spec`, up to static shapes that become known. Iterating
            it raises `tf.errors.InvalidArgumentError` at an element that is not the one that the
            cache has in its place.

        Raises:
            CacheError: If the folder holds something else, or was made with another checkpoint or
                `value_range`.
            ValueError: If the elements are batches or have no image, the dataset is infinite, or
                the network comes from no checkpoint.
            TypeError: If the image's dtype is not supported.
        """
        layout = self._steps.find_layout(dataset.element_spec)
        digest = self.checkpoint.digest
        described = open_cache(dataset, self._steps, layout, path, digest)
        return augment_dataset(dataset, self._steps, described)

    def as_grain(self) -> GrainAugment:
        """Make a transform for Grain, the successor of tf.data in pipelines of NumPy (`[grain]`).

        It goes into `operations` of a `grain.DataLoader`, and into `random_map` of a `MapDataset`
        or `IterDataset`, before or after batches are made. Elements have NumPy arrays in the
        layouts of a call, padded in batches; images keep dtype and shape, and everything else is
        passed on as the very same object, whatever it is.

        Without a seed of `VAEAugment`, variants depend on Grain's seed and index: they are others
        in every epoch, and the same again if an iterator is restored. Grain then needs a seed:
        `IndexSampler(..., seed=1)`, `dataset.seed(1)`.

        With a seed, variants depend on (seed, source id or content, epoch) alone, and bytes are
        those of `tf.data.Dataset.map`. The epoch is the element's key `"epoch"`, or 0; Grain's
        generator is not used, so `map` does as well as `random_map`. Without the key an image thus
        has one variant in all epochs.

        With the number of the pass under that key, they are those of that epoch of `apply`. The
        index of a `MapDataset` counts on over `repeat()`, so that before it one can write:

            count = len(dataset)
            dataset = dataset.map_with_index(lambda i, element: {**element, "epoch": i // count})

        In worker processes the transform is loaded anew, as `pickle` has it; Grain spawns them, so
        that TensorFlow is never used across a fork. Threads of Grain may call it at the same time;
        two elements are under way at most.

        Example:
            >>> dataset = grain.MapDataset.source(elements).seed(1)        # doctest: +SKIP
            >>> dataset.random_map(VAEAugment("demo").as_grain()).repeat() # doctest: +SKIP

        Returns:
            A `grain.transforms.RandomMap`.

        Raises:
            MissingPackageError: If Grain is not installed.
        """
        # An extra, which only those who ask for it need to have.
        from vae_aug.augment.grain import GrainAugment

        return GrainAugment(self._steps, self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the checkpoint's name or path, its digest and the settings.

        Spawned processes, Beam, Ray and Spark load the checkpoint where they run.

        Raises:
            TypeError: If the transform was made of a network in memory, which has no name.
        """
        name = self.find_name()
        if name is None:
            raise TypeError(
                "a VAEAugment that was made of a network cannot be pickled; save the network, and "
                "make VAEAugment of the checkpoint's path."
            )
        settings = {name: getattr(self.config, name) for name in self.config.to_dict()}
        return _restore, (name, self.checkpoint.digest, settings)

    def find_name(self) -> str | None:
        """Return the checkpoint's absolute path or packaged name; None for a network in memory."""
        name = self._name
        return os.path.abspath(name) if name is not None and os.path.exists(name) else name

    def check_digest(self, digest: str, owner: str) -> None:
        """Check that the checkpoint is the one that something was made with.

        Args:
            digest: What that checkpoint had.
            owner: What was made with it, for the message.

        Raises:
            CheckpointError: If it is another.
        """
        found = self.checkpoint.digest
        if found != digest:
            raise CheckpointError(
                f"{self.find_name()}: has the digest {found}; {owner} had {digest}. Copy the same "
                "checkpoint to this machine."
            )

    def get_config(self) -> dict[str, Any]:
        """Return the settings and the checkpoint's digest, all JSON values."""
        return {**self.config.to_dict(), "digest": self.checkpoint.digest}

    def __repr__(self) -> str:
        """Return the settings as they would be typed."""
        settings = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"VAEAugment({settings})"
