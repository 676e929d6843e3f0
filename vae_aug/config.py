"""Frozen settings of the model, its training and the transform, checked when made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

Profile = Literal["vector", "ladder"]
Encoder = Literal["efficientnet-b1", "efficientnet-lite1"]
Likelihood = Literal["paper", "sigma", "sigma_each"]
Mode = Literal["denoise", "sample", "interpolate"]
Guard = Literal["paste", "keep", "off"]
Engine = Literal["tensorflow", "xla", "openvino", "openvino-bfloat16", "openvino-int8"]
EXACT_ENGINES: tuple[Engine, ...] = ("tensorflow", "xla", "openvino")
"""Those that compute in float32."""


class _Config:
    """Mapping round trip for the frozen dataclasses below."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a config from a mapping such as parsed JSON.

        Args:
            values: Field names to values; missing fields take their default.

        Returns:
            The checked config.

        Raises:
            ValueError: On a key that is no field of this config.
        """
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise ValueError(
                f"{cls.__name__} has no setting {', '.join(map(repr, unknown))}; "
                f"the settings are {', '.join(names)}."
            )
        listed = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**listed)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dict that `from_dict` and JSON accept."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise `ValueError` unless `value` is one of the literals in `choices`."""
    allowed = get_args(choices)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")


def check_range(
    name: str, value: float, low: float, high: float = float("inf"), *, open_low: bool = False
) -> None:
    """Raise `ValueError` unless `low <= value <= high` (`low <` if `open_low`)."""
    inside = (low < value if open_low else low <= value) and value <= high
    if not inside:
        bracket = "(" if open_low else "["
        raise ValueError(f"{name} must be in {bracket}{low}, {high}]; got {value!r}.")


@dataclasses.dataclass(frozen=True)
class ModelConfig(_Config):
    """The network.

    Attributes:
        profile: `"vector"`, the published architecture, or `"ladder"`, with latent maps at every
            scale.
        encoder: Backbone whose pooled features (length 1280) feed the latent layer.
        image_size: Side in pixels of the square the network is trained on, a multiple of 32; the
            only size that `"vector"` sees.
        latent_dim: Length n of the (global) latent layer; its halves are mean and log variance.
        decoder_repeats: Of `"vector"`: blocks per decoder stage. 0 mirrors the encoder's counts.
    """

    profile: Profile = "vector"
    encoder: Encoder = "efficientnet-b1"
    image_size: int = 224
    latent_dim: int = 512
    decoder_repeats: int = 1

    def __post_init__(self) -> None:
        """Check every field."""
        check_choice("profile", self.profile, Profile)
        check_choice("encoder", self.encoder, Encoder)
        check_range("image_size", self.image_size, 32)
        check_range("latent_dim", self.latent_dim, 2)
        check_range("decoder_repeats", self.decoder_repeats, 0)
        if self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32; got {self.image_size}.")
        if self.latent_dim % 2:
            raise ValueError(f"latent_dim must be even (it is halved); got {self.latent_dim}.")


@dataclasses.dataclass(frozen=True)
class TrainConfig(_Config):
    """How the network is trained.

    Attributes:
        encoder_weights: `"imagenet"` (keras.applications, downloads), `"package"` (the extra
            `[lite1]`), a file, or None for random weights.
        start_from: Checkpoint, or name of a packaged one, whose weights training starts from; its
            architecture has to be the same, only the `image_size` of a ladder may differ.
        frozen_stages: Stages of the encoder, from the input on, that keep their weights; if any,
            the first convolution keeps its start too, three copies of the grey image.
        loss: `"paper"`: original_dim * MSE + KLD. `"sigma"`: Gaussian likelihood with the
            analytically optimal variance, whose balance needs no tuning. `"sigma_each"`: the
            same with a variance per image, so that a clean image counts no less than a noisy one.
        ssim_weight: Weight of `1 - SSIM`, in nats per pixel, beside the likelihood.
        coarse_weight: Weight of the likelihood of the ladder's first restoration.
        beta: Weight of the KL term of the global latent after warm-up.
        spatial_beta: The same of the ladder's latent maps.
        kl_warmup_steps: Steps over which the KL weight rises linearly from 0 to `beta`.
        free_bits: Nats per latent dimension that cost nothing.
        restyle: Whether a random style (`vae_aug.model.style`) is laid over every training image.
        box_weight: Weight of a pixel inside a box, relative to 1 outside.
        corruptions: Names from `vae_aug.corrupt` of which one is drawn per image.
        keep: Range of the share of information that the corruption leaves.
        clean_share: Share of images that enter the network uncorrupted.
        native_share: Share of images that are cut out at their native resolution instead of being
            scaled to fit, for a ladder that will run on images larger than it is trained on.
        source_weights: Share of each source of records in a batch; None for equal shares.
        batch_size: Images per step.
        steps: Optimiser steps in all.
        learning_rate: Peak of the cosine schedule with linear warm-up.
        ema: Decay of the moving average of the weights that is validated and kept; 0 for none.
        validate_every: Steps between validations, which also write the resumable state.
        validation_images: Most images that a validation looks at.
        patience: Validations without improvement after which training stops; 0 for never.
        seed: Of weights, shuffling, corruption and latent noise.
    """

    encoder_weights: str | None = None
    start_from: str | None = None
    frozen_stages: int = 0
    loss: Likelihood = "sigma"
    ssim_weight: float = 0.0
    coarse_weight: float = 0.25
    beta: float = 1.0
    spatial_beta: float = 0.1
    kl_warmup_steps: int = 200
    free_bits: float = 0.0
    restyle: bool = False
    box_weight: float = 1.0
    corruptions: tuple[str, ...] = ("replace", "blend", "gaussian", "rician", "poisson_gaussian")
    keep: tuple[float, float] = (0.3, 0.95)
    clean_share: float = 0.3
    native_share: float = 0.0
    source_weights: tuple[float, ...] | None = None
    batch_size: int = 16
    steps: int = 2000
    learning_rate: float = 1e-3
    ema: float = 0.99
    validate_every: int = 200
    validation_images: int = 128
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every field."""
        check_choice("loss", self.loss, Likelihood)
        at_least_0 = (
            "frozen_stages",
            "ssim_weight",
            "coarse_weight",
            "beta",
            "spatial_beta",
            "kl_warmup_steps",
            "free_bits",
            "patience",
        )
        for name in at_least_0:
            check_range(name, getattr(self, name), 0)
        for name in ("batch_size", "steps", "validate_every", "validation_images"):
            check_range(name, getattr(self, name), 1)
        check_range("box_weight", self.box_weight, 0, open_low=True)
        check_range("learning_rate", self.learning_rate, 0, open_low=True)
        check_range("clean_share", self.clean_share, 0, 1)
        check_range("native_share", self.native_share, 0, 1)
        check_range("ema", self.ema, 0, 0.99999)
        if self.encoder_weights and self.start_from:
            raise ValueError(
                "A run starts from encoder_weights or from start_from, which has an encoder; got "
                f"{self.encoder_weights!r} and {self.start_from!r}."
            )
        if len(self.keep) != 2 or not 0 < self.keep[0] <= self.keep[1] <= 1:
            raise ValueError(
                f"keep must be (low, high) with 0 < low <= high <= 1; got {self.keep}."
            )


TRAIN_RECIPES: dict[str, dict[str, Any]] = {
    "vector": {},
    "ladder": {
        "loss": "sigma_each",
        "ssim_weight": 1.0,
        "learning_rate": 2e-3,
    },
}
"""Fields of `TrainConfig` that `vae-aug train` gives another default for a profile."""


@dataclasses.dataclass(frozen=True)
class AugmentConfig(_Config):
    """Settings of `VAEAugment`, documented there."""

    mode: Mode = "sample"
    factor: float = 1.0
    detail: float | None = None
    p: float = 1.0
    guard: Guard = "paste"
    min_fidelity: float = 0.8
    value_range: tuple[float, float] | None = None
    seed: int | None = None
    engine: Engine = "tensorflow"
    batch_size: int = 32
    device: str | None = None
    bounding_box_format: str | None = None

    def __post_init__(self) -> None:
        """Check every field and fill in the `detail` that goes with the mode."""
        check_choice("mode", self.mode, Mode)
        check_choice("guard", self.guard, Guard)
        check_choice("engine", self.engine, Engine)
        if self.engine.startswith("openvino") and self.device is not None:
            raise ValueError(
                f"engine={self.engine!r} runs on the CPU; got device={self.device!r}. Leave the "
                "device out, or choose the engine 'tensorflow' or 'xla'."
            )
        if self.detail is None:
            object.__setattr__(self, "detail", 0.0 if self.mode == "denoise" else 1.0)
        check_range("factor", self.factor, 0)
        check_range("detail", self.detail, 0, 1)  # type: ignore[arg-type]
        check_range("p", self.p, 0, 1)
        check_range("min_fidelity", self.min_fidelity, 0, 1)
        check_range("batch_size", self.batch_size, 1)
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(
                f"value_range must be (low, high), low < high; got {self.value_range}."
            )
