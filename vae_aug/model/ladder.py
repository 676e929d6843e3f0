"""The ladder: a hierarchical VAE whose skips are latent maps, so that small lesions pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from vae_aug.config import ModelConfig
from vae_aug.model.encoder import make_encoder
from vae_aug.model.latent import sample_posterior, split_latent
from vae_aug.model.loss import kl_divergence
from vae_aug.model.network import Decoded, Network
from vae_aug.model.noise import Noise, NoiseSpec, Side
from vae_aug.model.transformation import TransformationVAE
from vae_aug.model.vae import copy_centre

STRIDE = 32
"""Images are padded to multiples of it."""

LEVELS = (16, 8, 4, 2)
"""Strides of the latent maps, from the first to the last."""

_CHANNELS = {2: 32, 4: 48, 8: 80, 16: 128}
_LATENT_CHANNELS = {2: 4, 4: 4, 8: 8, 16: 16}
"""At stride 2 they are the four pixels that one place of the map stands for."""

_FINE = (2, 4, 8)
"""Strides at which the ladder reads the image itself; beyond them it reads the backbone too."""

_BINS = 9
"""Number of soft bins that a grey value is spread over. A convolution of raw values averages a
neighbourhood; one of bins counts its values, so that outliers hardly move the result."""

_NOISE_BINS, _NOISE_STEP_BINS, _NOISE_STRIDE = 32, 17, 4
"""Bins of grey values and of steps between neighbours, whose counts show the kind and the strength
of noise, and the stride of the pixels that are counted: a sixteenth of them is enough."""

_NOISE_CODE = 64
"""Length of the description of the noise by which layers are modulated."""

_START_LOG_VAR = -6.0
"""Log variance of untrained posteriors, so narrow that the maps carry features from the first step.
Wide ones would be noise, which the levels learn to ignore before they learn to use them."""

_UNREAD = 5
"""Number of values, the first of the global latent, that no layer reads and that are 0: in older
versions they were measured, and checkpoints have weights that compute them."""

_FIRST_LEVEL_NOISE = 3
"""Purpose of the first level's noise; that of each other level is one more."""


class Features(NamedTuple):
    """Features of images, computed once for any number of variants.

    Attributes:
        skips: Stride to `[B, H / stride, W / stride, C] float32`.
        z_mean: `[B, d] float32`, of the global latent.
        z_log_var: `[B, d] float32`.
        pixels: `[B, H / 2, W / 2, 4] float32`, the first restoration, which the backbone reads.
    """

    skips: dict[int, tf.Tensor]
    z_mean: tf.Tensor
    z_log_var: tf.Tensor
    pixels: tf.Tensor


@keras.saving.register_keras_serializable("vae_aug")
class LadderVAE(Network):
    """A hierarchical variational autoencoder of grey images, profile `ladder`.

    Upwards: convolutions at strides 2, 4 and 8 read the image and restore it coarsely; the
    backbone, whose weights come from clean photographs, reads that restoration at half size and
    adds strides 16, 32 and 64 and the global latent of appearance. Downwards: at strides 16, 8,
    4 and 2 a map of latent variables is sampled around a prior that the levels above predict. The
    last of them are pixels: the posterior begins as the coarse restoration, and the output is the
    sample with a gain and an offset. Features reach the output through those samples alone: with a
    deterministic skip the network would learn to ignore them.

    Reference: Sonderby et al., Ladder Variational Autoencoders (2016); Vahdat and Kautz, NVAE
    (2020), section 3.2, for posteriors relative to the prior.
    """

    def __init__(
        self, config: ModelConfig, *, encoder_weights: str | None = None, name: str = "ladder"
    ) -> None:
        """Build every layer.

        Args:
            config: The architecture; `image_size` is that of training only.
            encoder_weights: As `make_encoder`; None for random weights.
            name: Name of the model, which begins the names of its own variables.
        """
        super().__init__(config, name)
        if config.latent_dim < 2 * _UNREAD:
            raise ValueError(
                f"latent_dim must be at least {2 * _UNREAD} for a ladder, which does not read the "
                f"first {_UNREAD} of its global latent's values; got {config.latent_dim}."
            )
        self.fine = _Fine(name="fine")
        self.fine.build(None)
        self.first = keras.layers.Conv2D(
            3, 3, padding="same", kernel_initializer=copy_centre, name="grey_to_three"
        )
        self.first.build((None, None, None, 1))
        self.backbone = make_encoder(config.encoder, None, encoder_weights, return_skips=True)
        *_, at16, at32, at64, pooled = (shape[-1] for shape in self.backbone.output_shape)
        self.bridge = _Bridge([at16, at32, at64], name="bridge")
        self.bridge.build(None)
        self.latent = keras.layers.Dense(config.latent_dim, name="latent")
        self.latent.build((None, pooled + _CHANNELS[8]))
        self.levels = [_Level(stride, name=f"level{stride}") for stride in LEVELS]
        for level in self.levels:
            level.build((None, config.latent_dim // 2 - _UNREAD))
        self.last = _conv(8, 1, "last", kernel_initializer="zeros")
        self.last.build((None, None, None, _CHANNELS[LEVELS[-1]]))
        self.variation = TransformationVAE(name="variation") if config.variation else None
        self.built = True

    def encode(self, images: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Describe images by the posterior over their global latent; see `Network`."""
        features = self.read_features(_pad(images), training)
        return features.z_mean, features.z_log_var

    @staticmethod
    def list_noise(
        config: ModelConfig, mode: str, height: Side = None, width: Side = None
    ) -> dict[str, NoiseSpec]:
        """List the noise that the network takes; see `Network`.

        Returns:
            That of every network, and for `"sample"` also `"level16"` to `"level2"` `[h, w, c]`,
            standard normal, for the latent map of each level.
        """
        specs = Network.list_noise(config, mode)
        if mode == "sample":
            for index, stride in enumerate(LEVELS):
                sides = (
                    None if side is None else _round_up(side) // stride for side in (height, width)
                )
                shape = (*sides, _LATENT_CHANNELS[stride])
                specs[_name_noise(stride)] = NoiseSpec(_FIRST_LEVEL_NOISE + index, shape)
        return specs

    def forward(
        self, images: tf.Tensor, noise: Noise | None = None, *, training: bool = False
    ) -> Decoded:
        """Encode and decode images, unclipped in training; see `Network`."""
        features = self.read_features(_pad(images), training)
        z = features.z_mean
        if noise is not None:
            z = sample_posterior(z, features.z_log_var, noise["z"])
        image, kls = self.decode_features(features, z, noise)
        coarse = tf.nn.depth_to_space(features.pixels, 2)
        image, coarse = (_crop(x, images) for x in (image, coarse))
        learned = (part[:, _UNREAD:] for part in (features.z_mean, features.z_log_var))
        kls = [kl_divergence(*learned), *kls]
        if not training:
            image = tf.clip_by_value(image, 0.0, 1.0)
        return Decoded(image, tuple(kls), features.z_mean, coarse)

    def vary(
        self,
        images: tf.Tensor,
        noise: Noise,
        *,
        mode: str,
        factor: float | tf.Tensor,
        alone: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Reconstruct images and make a variant of each.

        `"sample"` samples the posteriors of the global latent and of the latent maps;
        `"interpolate"` moves the global latent, and the maps stay the image's own. See `Network`.
        """
        features = self.read_features(_pad(images), training=False)
        reconstruction = self._finish(features, features.z_mean, None, images)
        if mode == "denoise":
            return reconstruction, reconstruction
        return reconstruction, self._vary(features, images, noise, mode, factor, alone)

    def describe(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Compute the reconstruction; see `Network`.

        The features are left out: at 224 pixels they take 2.7 MB an image.
        """
        return {"reconstruction": self.reconstruct(images)}

    def redraw(
        self,
        known: dict[str, tf.Tensor],
        noise: Noise,
        *,
        mode: str,
        factor: float | tf.Tensor,
        alone: bool = False,
    ) -> tf.Tensor:
        """Make a variant of each described image without the reconstruction; see `Network`."""
        images = known["image"]
        features = self.read_features(_pad(images), training=False)
        return self._vary(features, images, noise, mode, factor, alone)

    def _vary(
        self,
        features: Features,
        images: tf.Tensor,
        noise: Noise,
        mode: str,
        factor: float | tf.Tensor,
        alone: bool,
    ) -> tf.Tensor:
        """Make a variant from features, see `vary`: `[B, H, W, 1] float32 in [0, 1]`."""
        z = self.move_latent(features.z_mean, features.z_log_var, noise, mode, factor, alone)
        if mode == "interpolate":
            return self._finish(features, z, None, images)
        scaled = {name: factor * part for name, part in noise.items()}
        return self._finish(features, z, scaled, images)

    def read_features(self, images: tf.Tensor, training: bool) -> Features:
        """Compute the features of padded images."""
        fine, pixels = self.fine(images)
        # The backbone may be frozen, so no gradient of it reaches the coarse restoration.
        restored = tf.clip_by_value(tf.stop_gradient(pixels), 0.0, 1.0)
        # At half size the backbone costs a quarter, and other layers read the details.
        halved = tf.reduce_mean(restored, axis=-1, keepdims=True)
        *_, at16, at32, at64, pooled = self.backbone(self.first(halved), training=training)
        skips = self.bridge(fine, [at16, at32, at64])
        pooled = tf.concat([pooled, tf.reduce_mean(fine[-1], axis=(1, 2))], axis=-1)
        z_mean, z_log_var = split_latent(self.latent(pooled))
        z_mean = tf.pad(z_mean[:, _UNREAD:], [[0, 0], [_UNREAD, 0]])
        return Features(skips, z_mean, z_log_var, pixels)

    def decode_features(
        self, features: Features, z: tf.Tensor, noise: Noise | None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Decode to the padded image, unclipped, and the KL of every level."""
        state, kls = None, []
        for level in self.levels:
            state, latent, kl = level(
                features.skips[level.stride],
                z[:, _UNREAD:],
                state,
                pixels=features.pixels if level.puts_out_pixels else None,
                noise=noise and noise[_name_noise(level.stride)],
            )
            kls.append(kl)
        gain, offset = tf.split(self.last(tf.nn.relu(state)), 2, axis=-1)
        return tf.nn.depth_to_space(latent * (1.0 + gain) + offset, 2), kls

    def _finish(
        self, features: Features, z: tf.Tensor, noise: Noise | None, images: tf.Tensor
    ) -> tf.Tensor:
        """Decode a global latent to images of the size of `images`, clipped to [0, 1]."""
        decoded, _ = self.decode_features(features, z, noise)
        return tf.clip_by_value(_crop(decoded, images), 0.0, 1.0)


def _name_noise(stride: int) -> str:
    """Name the noise of the level at a stride."""
    return f"level{stride}"


class _Level(keras.layers.Layer):
    """One level: predict the prior from above and the posterior with the skip, and sample.

    Args:
        stride: Pixels of the image per pixel of the map.
        name: Name of the layer.
    """

    def __init__(self, stride: int, name: str) -> None:
        super().__init__(name=name)
        self.stride = stride
        channels, latent = _CHANNELS[stride], _LATENT_CHANNELS[stride]
        self.is_top = stride == LEVELS[0]
        self.enlarge = None if self.is_top else _conv(4 * channels, 1, "enlarge")
        self.modulate = _modulation(channels, "modulate")
        self.prior = _conv(2 * latent, 1, "prior", kernel_initializer="zeros")
        self.look_at_skip = _conv(channels, 1, "look_at_skip")
        self.look_at_state = _conv(channels, 1, "look_at_state")
        self.puts_out_pixels = stride == LEVELS[-1]
        # The last map is put out as it is, and 3x3 convolutions cost most there.
        self.look = self.body = None
        if not self.puts_out_pixels:
            self.look = _conv(channels, 3, "look", kernel_initializer="he_normal")
            self.body = _Residual(channels, "body", channels // 2)
        start = "zeros" if self.puts_out_pixels else "glorot_uniform"
        self.posterior = _conv(2 * latent, 1, "posterior", kernel_initializer=start)
        self.take = _conv(channels, 1, "take")

    def build(self, global_shape: tuple[int | None, int]) -> None:
        """Make the variables, given the shape of the global latent as far as it is read."""
        channels, latent = _CHANNELS[self.stride], _LATENT_CHANNELS[self.stride]
        here = (None, None, None, channels)
        if self.enlarge is not None:
            self.enlarge.build((None, None, None, _CHANNELS[2 * self.stride]))
        self.modulate.build(global_shape)
        layers = [self.prior, self.look_at_skip, self.look_at_state, self.posterior]
        for layer in [*layers, self.look, self.body] if self.look else layers:
            layer.build(here)
        self.take.build((None, None, None, latent))
        self.built = True

    def call(
        self,
        skip: tf.Tensor,
        z: tf.Tensor,
        state: tf.Tensor | None,
        *,
        pixels: tf.Tensor | None,
        noise: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Make this level's latent map.

        Args:
            skip: `[B, h, w, C] float32`, features of the image at this stride.
            z: `[B, d] float32`, the global latent as far as it is read.
            state: `[B, h / 2, w / 2, C'] float32` of the level above; None for the first.
            pixels: `[B, h, w, c] float32` around which the posterior begins; None for the prior.
            noise: `[B, h, w, c] float32`, standard normal; None takes the posterior's mean.

        Returns:
            The state for the level below, `[B, h, w, C]`, the latent map and its KL, each
            `[B, h, w, c] float32`.
        """
        if self.enlarge is None:
            state = tf.zeros_like(skip)
        else:
            state = tf.nn.depth_to_space(self.enlarge(state), 2)
        state = _modulate(state, self.modulate, z)
        prior_mean, prior_log_var = tf.split(self.prior(state), 2, axis=-1)
        prior_log_var = tf.clip_by_value(prior_log_var, -8.0, 4.0)
        seen = tf.nn.relu(self.look_at_skip(skip) + self.look_at_state(state))
        if self.look is not None:
            seen = tf.nn.relu(self.look(seen))
        mean, log_var = tf.split(self.posterior(seen), 2, axis=-1)
        log_var = tf.clip_by_value(log_var + _START_LOG_VAR, -10.0, 4.0)
        if pixels is not None:
            mean += (pixels - prior_mean) * tf.exp(-0.5 * prior_log_var)
        residual = mean
        if noise is not None:
            residual = sample_posterior(mean, log_var, tf.ensure_shape(noise, mean.shape))
        latent = prior_mean + tf.exp(0.5 * prior_log_var) * residual
        state += _keep_apart(self.take(latent))
        if self.body is not None:
            state = self.body(state)
        # Mean and variance are relative to the prior, which is N(0, 1) in these units.
        return state, latent, kl_divergence(mean, log_var)


class _Fine(keras.layers.Layer):
    """Compute features of the image at the strides `_FINE`, and a first restoration.

    It has two passes. The first goes down to stride 8 and restores the image roughly; the second
    reads how far every pixel lies from that restoration, which marks outliers, and corrects it.
    Kind and strength of the noise are the same everywhere, so they are estimated from counts over
    the whole image, and modulate the maps that every layer reads.

    Reference: Felsberg, Forssen and Scharr, Channel Smoothing (2006), for bins; Perez et al., FiLM
    (2018), for the modulation.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        at2, at4, at8 = (_CHANNELS[stride] for stride in _FINE)
        self.look, self.look_again = _conv(at2, 3, "look"), _conv(at2, 3, "look_again")
        self.correct, self.correct_again = (
            _conv(4, 1, name, kernel_initializer="zeros") for name in ("correct", "correct_again")
        )
        self.body = [_Residual(c, f"body{c}", c // 2) for c in (at2, at4, at8)]
        self.shrink = [_conv(at4, 2, "shrink4", strides=2), _conv(at8, 2, "shrink8", strides=2)]
        self.enlarge = [_conv(4 * at4, 1, "enlarge8"), _conv(4 * at2, 1, "enlarge4")]
        self.tell_noise = keras.layers.Dense(_NOISE_CODE, "relu", name="tell_noise")
        names = ("modulate2", "modulate4", "modulate8", "modulate_again")
        self.modulate = [
            _modulation(c, name) for c, name in zip((at2, at4, at8, at2), names, strict=True)
        ]

    def build(self, _: Any) -> None:
        """Make the variables."""
        self.tell_noise.build((None, _NOISE_BINS + _NOISE_STEP_BINS))
        at2, at4, at8 = (_CHANNELS[stride] for stride in _FINE)
        inputs = [
            *((layer, 4 * (1 + _BINS)) for layer in (self.look, self.look_again)),
            *((layer, at2) for layer in (self.correct, self.correct_again)),
            *zip(self.shrink, (at2, at4), strict=True),
            *zip(self.enlarge, (at8, at4), strict=True),
        ]
        for layer, channels in inputs:
            layer.build((None, None, None, channels))
        for layer in self.modulate:
            layer.build((None, _NOISE_CODE))
        for body in self.body:
            body.build(None)
        self.built = True

    def call(self, images: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Turn `[B, H, W, 1]` into the features and the restoration `[B, H / 2, W / 2, 4]`."""
        noise = self.tell_noise(count_noise(images))
        # Four pixels become channels of one place, once for both passes.
        pixels = tf.nn.space_to_depth(images, 2)
        at2 = self.look(tf.concat([pixels, spread_over_bins(pixels, _BINS)], axis=-1))
        at2 = _modulate(at2, self.modulate[0], noise)
        at4 = self.body[1](_modulate(self.shrink[0](at2), self.modulate[1], noise))
        at8 = self.body[2](_modulate(self.shrink[1](at4), self.modulate[2], noise))
        up = tf.nn.depth_to_space(self.enlarge[0](at8), 2) + at4
        at2 += tf.nn.depth_to_space(self.enlarge[1](up), 2)
        restored = self.correct(tf.nn.relu(at2))
        away = spread_over_bins(_spread_small(pixels - restored), _BINS)
        at2 += self.look_again(tf.concat([restored, away], axis=-1))
        at2 = self.body[0](_modulate(at2, self.modulate[3], noise))
        restored += self.correct_again(tf.nn.relu(at2))
        return [at2, at4, at8], restored


class _Bridge(keras.layers.Layer):
    """Make one skip per level from the features of the image and of the backbone.

    Args:
        channels: Of the backbone's maps at strides 16, 32 and 64 of the image.
        name: Name of the layer.
    """

    def __init__(self, channels: list[int], name: str) -> None:
        super().__init__(name=name)
        self.channels = channels
        self.read = [_conv(_CHANNELS[16], 1, f"read{stride}") for stride in (16, 32, 64)]
        self.shrink = _conv(_CHANNELS[16], 2, "shrink", strides=2)

    def build(self, _: Any) -> None:
        """Make the variables."""
        for layer, channels in zip(self.read, self.channels, strict=True):
            layer.build((None, None, None, channels))
        self.shrink.build((None, None, None, _CHANNELS[8]))
        self.built = True

    def call(self, fine: list[tf.Tensor], deep: list[tf.Tensor]) -> dict[int, tf.Tensor]:
        """Join the maps of the image (strides 2, 4, 8) and of the backbone (16, 32, 64)."""
        at16, at32, at64 = (layer(x) for layer, x in zip(self.read, deep, strict=True))
        at16 += self.shrink(fine[2]) + double_to(at32 + double_to(at64, at32), at16)
        return {2: fine[0], 4: fine[1], 8: fine[2], 16: at16}


class _Residual(keras.layers.Layer):
    """Two 3x3 convolutions beside the identity, without normalisation.

    The second begins at zero, so that a deep stack starts as the identity and trains without
    batch statistics (Zhang et al., Fixup Initialization, 2019): an image's result then never
    depends on its batch, and training and inference are the same function.

    Args:
        channels: In and out.
        name: Name of the layer.
        hidden: Channels between the two.
    """

    def __init__(self, channels: int, name: str, hidden: int) -> None:
        super().__init__(name=name)
        self.one = _conv(hidden, 3, "one", kernel_initializer="he_normal")
        self.two = _conv(channels, 3, "two", kernel_initializer="zeros")
        self.channels, self.hidden = channels, hidden

    def build(self, _: Any) -> None:
        """Make the variables."""
        self.one.build((None, None, None, self.channels))
        self.two.build((None, None, None, self.hidden))
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Apply to `[B, h, w, channels]`."""
        return x + _keep_apart(self.two(tf.nn.relu(self.one(tf.nn.relu(x)))))


def _keep_apart(x: tf.Tensor) -> tf.Tensor:
    """Keep TensorFlow from fusing a convolution with the sum that follows it.

    Where such sums follow on each other, the remapper of TensorFlow 2.21 fails, reports that as an
    error (INVALID_ARGUMENT) and fuses nothing at all. Values and time are the same with it.
    """
    return tf.ensure_shape(x, x.shape)


def _conv(channels: int, size: int, name: str, **options: Any) -> keras.layers.Conv2D:
    options = {"kernel_initializer": "glorot_uniform", "padding": "same", **options}
    return keras.layers.Conv2D(channels, size, name=name, **options)


def _modulation(channels: int, name: str) -> keras.layers.Dense:
    """Make the layer that scales and shifts maps; at first it leaves them as they are."""
    return keras.layers.Dense(2 * channels, kernel_initializer="zeros", name=name)


def _modulate(x: tf.Tensor, layer: keras.layers.Dense, code: tf.Tensor) -> tf.Tensor:
    """Scale and shift the channels of `[B, h, w, C]` as a layer computes from a code `[B, d]`."""
    scale, offset = tf.split(layer(code)[:, None, None], 2, axis=-1)
    return x * (1.0 + scale) + offset


def spread_over_bins(values: tf.Tensor, bins: int) -> tf.Tensor:
    """Spread values in [0, 1] over the two nearest bins: `[..., c]` to `[..., c * bins]`."""
    centres = tf.tile(tf.linspace(0.0, 1.0, bins), [values.shape[-1]])
    distance = tf.abs(tf.repeat(values, bins, axis=-1) - centres)
    return tf.nn.relu(1.0 - distance * (bins - 1))


def _spread_small(differences: tf.Tensor) -> tf.Tensor:
    """Map [-1, 1] to [0, 1], nearly by a signed root, so that bins are narrow around 0."""
    return 0.5 + 0.5 * differences * tf.math.rsqrt(tf.abs(differences) + 1e-3)


def count_noise(images: tf.Tensor) -> tf.Tensor:
    """Count grey values and steps to the next pixel: `[B, H, W, 1]` to `[B, bins]`, near 1."""
    values = images[:, ::_NOISE_STRIDE, ::_NOISE_STRIDE]
    steps = tf.abs(images[:, ::_NOISE_STRIDE, 1::_NOISE_STRIDE] - values)
    counted = ((values, _NOISE_BINS), (tf.sqrt(steps + 1e-6), _NOISE_STEP_BINS))
    shares = [tf.reduce_mean(spread_over_bins(x, bins), axis=(1, 2)) for x, bins in counted]
    return 10.0 * tf.concat(shares, axis=-1)


def double_to(x: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Double height and width by repeating pixels, to those of `like`.

    Where `like` has an odd side, backbones round its half up or down: a row is cut or repeated.
    """
    for axis in (1, 2):
        rows = tf.range(tf.shape(like)[axis]) // 2
        x = tf.gather(x, tf.minimum(rows, tf.shape(x)[axis] - 1), axis=axis)
    return x


def _pad(images: tf.Tensor) -> tf.Tensor:
    """Repeat the last row and column until both sides are multiples of `STRIDE`."""
    for axis in (1, 2):
        if (images.shape[axis] or 1) % STRIDE == 0:
            continue
        length = tf.shape(images)[axis]
        places = tf.minimum(tf.range(_round_up(length)), length - 1)
        images = tf.gather(images, places, axis=axis)
    return images


def _round_up(side: tf.Tensor) -> tf.Tensor:
    """Round a side up to a multiple of `STRIDE`."""
    return -(-side // STRIDE) * STRIDE


def _crop(padded: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Cut what `_pad` added to `images` from a map of the padded size."""
    shape = tf.shape(images)
    cropped = padded[:, : shape[1], : shape[2]]
    return tf.ensure_shape(cropped, [*images.shape[:3], padded.shape[-1]])
