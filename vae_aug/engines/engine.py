"""The network as a pure function of images and seeds, whatever runs it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vae_aug.config import AugmentConfig
from vae_aug.engines.graphs import Graph, find_graph, keep_graph
from vae_aug.engines.optimize import optimize
from vae_aug.engines.shutdown import wait_at_exit
from vae_aug.model import fields, transformation
from vae_aug.model.checkpoint import StoredNetwork
from vae_aug.model.fields import PACKED, SQUARE, Displace, Fields
from vae_aug.model.network import Network
from vae_aug.model.noise import Noise, NoiseSpec, Side, sample_noise
from vae_aug.model.profiles import PROFILES

Known = dict[str, tf.Tensor]
"""Tensors by their name, as a network's `describe` returns them."""

ENGINE_SETTINGS = ("mode", "factor", "detail", "device", "hardest_of")
"""Settings that an engine's graphs depend on, beside itself and whether there is a seed."""

_SHARE_NOISE = NoiseSpec(10_000, (), True)
"""Noise of which the share of `factor` of an image is made; its number is no network's."""

MAX_PIXELS = 2**19
"""Most pixels of a batch that a network sees at once. On a device that the user names, squares of
`image_size` stay whole batches.

A network takes 300 to 400 bytes a pixel beside its weights and graph, so that a batch stays near
0.2 GB; a single larger image goes through whole. On a CPU larger batches are no faster.
"""


def find_batch_size(size: int, at_most: int) -> int:
    """Return how many squares of a side go through a network at once, one at least."""
    return max(min(at_most, MAX_PIXELS // size**2), 1)


class TensorFlowEngine:
    """A VAE frozen into a graph: weights are constants, so that the function owns no resource.

    A graph without variables can be captured by `Dataset.map` on any device, serialised, and sent
    to tf.data service. Constant filters are also a sixth faster on a CPU than captured ones, since
    oneDNN keeps them in the layout it computes in.

    With a seed, images go through one at a time: the last bits of a float depend on where in which
    batch it was computed, and a pixel that lies between two grey levels shows it. So bytes depend
    on the image alone, on one machine. On a `device` of the user's choice batches stay whole,
    since a GPU that sees one image at a time is idle; there bytes may depend on the batch.

    Attributes:
        image_size: Side of the square the network sees; None if it takes images as they are.
        makes_fields: Whether it computes transformations, `vae_aug.model.fields.Fields`, which the
            caller applies, and no images.
    """

    _finish: Callable[[Any], Graph] = staticmethod(optimize)
    """Turns a traced network into the graph that is stored in the cache."""

    displace: Displace = staticmethod(fields.displace)
    """Moves the pixels of an image as a transformation says."""

    def __init__(self, vae: Network | StoredNetwork, config: AugmentConfig) -> None:
        """Copy the weights; graphs are made when first needed.

        Args:
            vae: The network, or anything with its `config`, `list_noise` and `vary`; or a stored
                one, which is loaded only if its graph is not in the cache.
            config: What `ENGINE_SETTINGS` names, `weakest` and the seed.

        Raises:
            CheckpointError: If a stored network has to be loaded and cannot be.
            ValueError: If the settings need a variation that the network has not.
        """
        self.makes_fields = vae.config.makes_fields(config.mode)
        if config.hardest_of > 1 and not self.makes_fields:
            raise ValueError(
                "hardest_of chooses among transformations, and this checkpoint has no variation: "
                "leave it out, or train one (vae-aug train)."
            )
        self.image_size = SQUARE if self.makes_fields else vae.config.input_size
        self._source = vae
        self._config = config
        self._frozen: dict[tuple[Any, ...], Callable[..., tf.Tensor]] = {}
        kept = self._find_kept()
        # Unlike `Path.is_dir`, it does not raise in a folder that this user may not read.
        if kept is None or not os.path.isdir(kept.parent):
            _ = self._weights  # as they are now, if they can be read at all

    @functools.cached_property
    def _vae(self) -> Network:
        """The network, loaded if it is a stored one."""
        return self._source.load() if isinstance(self._source, StoredNetwork) else self._source

    @functools.cached_property
    def _weights(self) -> list[tuple[keras.Variable, np.ndarray]]:
        """The network's variables and their values."""
        return [(v, v.numpy()) for v in self._vae.variables]

    def __call__(
        self, images: tf.Tensor, seeds: tf.Tensor, known: Known | None = None
    ) -> tf.Tensor:
        """Compute what the network adds to each image.

        With reconstruction r, variant v and detail d: `v - r + (1 - d) r`. The caller subtracts
        `(1 - d) x` in native resolution, which a square has lost. For `"denoise"`
        v = r, and the whole is scaled by `factor`.

        Args:
            images: `[B, H, W, 1] float32 in [0, 1]`; H and W are `image_size`, if there is one.
                More than `MAX_PIXELS` go through in parts.
            seeds: `[B, 2] int32`.
            known: From `describe`, which then need not be computed again; where there is an
                `image_size`, the images themselves are not looked at.

        Returns:
            `[B, H, W, 1] float32`; for transformations `[B, PACKED] float32`, see `Fields.pack`.
        """
        known = {} if known is None or self.makes_fields else known
        if known and self._config.mode == "denoise":
            return self._combine(known["reconstruction"], known["reconstruction"])
        with tf.device(self._config.device):
            height, width = find_sides(images)
            noise = sample_noise(seeds, self._list_noise(height, width))
            if self._config.weakest < 1.0:
                return self._compute_weakened(images, noise, known, self._sample_shares(seeds))
            return self._compute_batch(images, noise, known)

    def describe(self, images: tf.Tensor) -> Known:
        """Compute what is the same in every variant; bytes depend on the size of the batch.

        Args:
            images: `[B, H, W, 1] float32 in [0, 1]`, as for a call.

        Returns:
            Tensors by their name, see the network's `describe`. For transformations that is the
            image itself, which the network reads again in every pass.
        """
        if self.makes_fields:
            return {"reconstruction": images}
        with tf.device(self._config.device):
            names, describe = self._description
            return dict(zip(names, describe(images), strict=True))

    def find_most(self, height: Any, width: Any) -> Any:
        """Return how many images of a size the network sees at once, None for any number.

        With a seed it is one, so that none depends on its batch. A device can take whole squares.
        """
        if self._config.device is None and self._config.seed is not None:
            return 1
        any_number = self._config.device is not None and self.image_size is not None
        return None if any_number else tf.maximum(MAX_PIXELS // (height * width), 1)

    def _list_noise(self, height: Side = None, width: Side = None) -> dict[str, NoiseSpec]:
        """List the noise that the network takes for images of a size."""
        if self.makes_fields:
            return transformation.list_noise(self._config.mode, self._config.hardest_of)
        source = self._source
        network = PROFILES[source.config.profile] if isinstance(source, StoredNetwork) else source
        return network.list_noise(source.config, self._config.mode, height, width)

    def _sample_shares(self, seeds: tf.Tensor) -> tf.Tensor:
        """Sample which share of `factor` each image gets: `[B] float32`."""
        uniform = sample_noise(seeds, {"share": _SHARE_NOISE})["share"]
        return self._config.weakest + (1.0 - self._config.weakest) * uniform

    def _compute_weakened(
        self, images: tf.Tensor, noise: Noise, known: Known, shares: tf.Tensor
    ) -> tf.Tensor:
        """Compute what smaller factors give, by the graph of the largest.

        A transformation is scaled. Elsewhere the factor enters as a product with noise: in
        `"sample"` with all of it, in `"interpolate"` with `"share"`; so the noise is scaled.
        """
        if self.makes_fields:
            return Fields.unpack(self._compute_batch(images, noise, known)).scale(shares).pack()
        weakened = {
            name: part * tf.reshape(shares, [-1] + [1] * (part.shape.rank - 1))
            if self._config.mode == "sample" or name == "share"
            else part
            for name, part in noise.items()
        }
        return self._compute_batch(images, weakened, known)

    def _compute_batch(self, images: tf.Tensor, noise: Noise, known: Known) -> tf.Tensor:
        """Compute a batch; a large one in equal parts, as few as `find_most` allows.

        Neighbours, for `"interpolate"` without a seed, are those of the part.
        """
        at_most = self.find_most(*find_sides(images))
        if at_most is None:
            return self._compute(images, noise, known)
        count = tf.shape(images)[0]
        needed = tf.maximum(-(-count // at_most), 1)
        at_once = -(-count // needed)

        def compute_part(index: tf.Tensor) -> tf.Tensor:
            part = slice(index * at_once, (index + 1) * at_once)
            given = tf.nest.map_structure(lambda whole: whole[part], (images, noise, known))
            return self._compute(*given)

        spec = tf.TensorSpec([None, *self.find_output_shape(images)[1:]], tf.float32)
        return join_results(compute_part, needed, spec)

    def find_output_shape(self, images: tf.Tensor) -> tf.TensorShape:
        """Return the static shape of what is computed of a batch of images."""
        return tf.TensorShape([images.shape[0], PACKED]) if self.makes_fields else images.shape

    def _compute(self, images: tf.Tensor, noise: Noise, known: Known) -> tf.Tensor:
        """Run the graph that goes with the settings and the size of the batch."""
        described = tuple(
            (name, part.shape[-1] if part.shape.rank == 2 else None)
            for name, part in sorted(known.items())
        )
        given = tf.nest.flatten((images, noise, known))
        if self._config.mode != "interpolate" or self._config.seed is not None:
            # A neighbour depends on how the data was batched, which a seed must not.
            computed = self._get_frozen(True, described)(*given)
        else:
            computed = tf.cond(
                tf.shape(images)[0] > 1,
                lambda: self._get_frozen(False, described)(*given),
                lambda: self._get_frozen(True, described)(*given),
            )
        return tf.ensure_shape(computed, self.find_output_shape(images))

    def _get_frozen(self, *key: Any) -> Callable[..., tf.Tensor]:
        """Return the graph that `_freeze` makes, once for each key."""
        if key not in self._frozen:
            self._frozen[key] = self._freeze(*key)
        return self._frozen[key]

    def _freeze(self, alone: bool, described: tuple[tuple[str, int | None], ...]) -> Any:
        """Trace the network for any batch, outside of whatever graph is being built.

        Args:
            alone: Whether no image looks at another of its batch.
            described: Names of what is known, in order, each with its length if it is a vector;
                anything else has the size of the images.
        """
        config, image = self._config, self._image_spec
        how: Any = {"mode": config.mode, "factor": config.factor, "alone": alone}

        def compute(images: tf.Tensor, noise: Noise, known: Known) -> tf.Tensor:
            with self._restore_weights():
                if self.makes_fields:
                    return self._vae.variation.vary(images, noise, **how)
                if not known:
                    return self._combine(*self._vae.vary(images, noise, **how))
                variant = self._vae.redraw({**known, "image": images}, noise, **how)
            return self._combine(known["reconstruction"], variant)

        noise = {name: spec.to_tensor_spec(None) for name, spec in self._list_noise().items()}
        known = {
            name: image if length is None else tf.TensorSpec([None, length], tf.float32)
            for name, length in described
        }
        network = self._keep(self._finish, compute, [image, noise, known], "vary", alone, described)
        with tf.init_scope():
            return self._make_runnable(network, alone)

    @functools.cached_property
    def _description(self) -> tuple[tuple[str, ...], Any]:
        """Names of what `describe` returns, and the frozen graph that computes it."""

        def describe(images: tf.Tensor) -> Known:
            with self._restore_weights():
                return self._vae.describe(images)

        network = self._keep(optimize, describe, [self._image_spec], "describe")
        with tf.init_scope():
            return network.keys, network.make_function()

    def _find_kept(self, *key: Any) -> Path | None:
        """Return the file of a graph; None for a network that comes from no checkpoint."""
        if not isinstance(self._source, StoredNetwork):
            return None
        config = self._config
        settings = [getattr(config, name) for name in ENGINE_SETTINGS]
        return find_graph(self._source.content, [self._finish.__qualname__, *settings, *key])

    def _keep(
        self,
        finish: Callable[[Any], Graph],
        function: Callable[..., Any],
        specs: Sequence[Any],
        *key: Any,
    ) -> Graph:
        """Read the graph of a function from the cache, or trace and finish it."""

        def make() -> Graph:
            with tf.init_scope():
                _ = self._weights  # a trace cannot load them
                traced = tf.function(function, autograph=False).get_concrete_function(*specs)
                return finish(traced)

        path = self._find_kept(*key)
        return make() if path is None else keep_graph(path, make)

    @property
    def _image_spec(self) -> tf.TensorSpec:
        """What the network takes, in batches of any size."""
        return tf.TensorSpec([None, self.image_size, self.image_size, 1], tf.float32)

    def _restore_weights(self) -> keras.StatelessScope:
        """Put constants in the place of the network's variables, for a trace."""
        constants = [(variable, tf.constant(value)) for variable, value in self._weights]
        return keras.StatelessScope(state_mapping=constants)

    def _combine(self, reconstruction: tf.Tensor, variant: tf.Tensor) -> tf.Tensor:
        """Compute what is added to an image; see `__call__`."""
        detail = self._config.detail or 0.0
        if self._config.mode == "denoise":
            return self._config.factor * (1.0 - detail) * reconstruction
        return variant - detail * reconstruction

    def _make_runnable(self, network: Graph, alone: bool) -> Callable[..., tf.Tensor]:
        """Turn a network into what is called.

        Args:
            network: What `_finish` made, of images, noise and what is known of the images.
            alone: Whether no image looks at another of its batch.

        Returns:
            A function of the same tensors.
        """
        on_a_device = self._config.device is not None  # whose graph TensorFlow may want otherwise
        compute = network.make_function() if on_a_device else network.make_call()
        return lambda *tensors: compute(*tensors)[0]


class XLAEngine(TensorFlowEngine):
    """A VAE compiled by XLA, for accelerators; every new size of batch or image compiles again."""

    _finish = staticmethod(Graph.of)

    def _make_runnable(self, network: Graph, alone: bool) -> Callable[..., tf.Tensor]:
        """Have XLA compile a network; see `TensorFlowEngine`."""
        wait_at_exit()
        compute = tf.function(network.make_function(), autograph=False, jit_compile=True)
        return lambda *tensors: compute(*tensors)[0]


def find_sides(images: tf.Tensor) -> tuple[Side, Side]:
    """Return height and width of `[..., H, W, C]`, as numbers where they are known."""
    height, width = (images.shape[axis] or tf.shape(images)[axis] for axis in (-3, -2))
    return height, width


def join_results(function: Callable[[tf.Tensor], Any], count: Any, specs: Any) -> Any:
    """Call a function of 0, 1, ... one after the other, and join what it returns.

    Args:
        function: Of a scalar int32; returns tensors in any structure.
        count: Scalar int32, how often it is called.
        specs: A `tf.TensorSpec` for each tensor, whose first axis may differ from call to call.

    Returns:
        The same structure, each tensor concatenated along its first axis.
    """

    def call(index: tf.Tensor, parts: list[tf.TensorArray]) -> tuple[Any, ...]:
        results = tf.nest.flatten(function(index))
        return index + 1, [part.write(index, one) for part, one in zip(parts, results, strict=True)]

    empty = [
        tf.TensorArray(spec.dtype, count, element_shape=spec.shape, infer_shape=False)
        for spec in tf.nest.flatten(specs)
    ]
    # Several at a time would need the memory of several.
    _, parts = tf.while_loop(
        lambda index, _: index < count, call, (0, empty), parallel_iterations=1
    )
    return tf.nest.pack_sequence_as(specs, [part.concat() for part in parts])
