"""Frozen settings of the model, its training and the transform, checked when made."""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

Profile = Literal["vector", "ladder"]
Encoder = Literal["efficientnet-b1", "efficientnet-lite1"]
ENCODER_STAGES = 7
"""Stages of every encoder, from the input on."""

Likelihood = Literal["paper", "sigma", "sigma_each"]
Mode = Literal["denoise", "sample", "interpolate"]
Guard = Literal["paste", "keep", "off"]
BoxFormat = Literal[
    "xyxy",
    "yxyx",
    "xywh",
    "center_xywh",
    "center_yxhw",
    "rel_xyxy",
    "rel_yxyx",
    "rel_xywh",
]
"""Keras's names of the formats of boxes."""
Exif = Literal["apply", "ignore"]
"""Whether pixels are turned as EXIF or the TIFF tag Orientation says, or stay as stored."""
Unannotated = Literal["keep", "skip", "negative", "error"]
"""What becomes of images of which the source does not say whether they have boxes."""
Pseudonyms = Literal["hashes", "random"]
"""What stands for patients and names: hashes under a secret salt, or what was drawn."""
DicomAs = Literal["dicom", "png"]
"""What denoised DICOM files become."""
TrainedPart = Literal["restoration", "variation"]
"""Parts of a network that are trained one by one: the VAE itself, and its `variation`."""
Oracle = Literal["bayesian", "random"]
"""What chooses the settings of a search's trials."""
Engine = Literal["tensorflow", "xla", "openvino", "openvino-bfloat16"]
EXACT_ENGINES: tuple[Engine, ...] = ("tensorflow", "xla", "openvino")
"""Those that compute in float32."""
REMOVED_ENGINES = {
    "openvino-int8": "'openvino-int8' was removed: it was slower than 'openvino-bfloat16' and less "
    "exact. Use that where the processor has bfloat16, and 'openvino' elsewhere."
}
"""Names that an engine once had, and what to use in its place."""

MAX_SEED = 2**31 - 1
"""Highest seed of a training, whose noise has seeds of 32 bits with a sign."""

OPTIONAL_FIELDS = frozenset({"variation"})
"""Fields of `ModelConfig` that checkpoints need not have."""


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
            ValueError: On a key that is no field of this config, or a value that it does not take.
        """
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise ValueError(
                f"{cls.__name__} has no setting {', '.join(map(repr, unknown))}; "
                f"the settings are {', '.join(names)}."
            )
        listed = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            return cls(**listed)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dict that `from_dict` and JSON accept."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]


def check_choice(name: str, value: object, choices: Any, hint: str = "") -> None:
    """Raise `ValueError` unless `value` is one of the literals in `choices`.

    Args:
        name: Of the setting.
        value: Of the setting.
        choices: A `Literal`.
        hint: What to do; without one, the message names the choice that is spelled alike.
    """
    allowed = get_args(choices)
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value).strip().lower(), allowed, 1, 0.7)
    if near and not hint:
        hint = f"Did you mean {near[0]!r}?"
    message = f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}. {hint}"
    raise ValueError(message.rstrip())


def check_engine(engine: object) -> None:
    """Raise `ValueError` unless `engine` is the name of one; a removed one gets its successor."""
    check_choice("engine", engine, Engine, REMOVED_ENGINES.get(str(engine), ""))


def check_number(
    name: str,
    value: Any,
    low: float,
    high: float = float("inf"),
    *,
    whole: bool = False,
    open_low: bool = False,
    hint: str = "",
) -> Any:
    """Check a number that a user gave.

    Args:
        name: Of the setting.
        value: A number of Python or NumPy.
        low: Least value.
        high: Most; infinity itself is refused.
        whole: Whether it must be an integer.
        open_low: Whether `low` itself is refused.
        hint: What to do where it is out of range.

    Returns:
        The number, as Python's.

    Raises:
        TypeError: If it is no number, or no integer.
        ValueError: If it is out of range or not finite.
    """
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
        what, example = ("an integer", "1") if whole else ("a number", "0.5")
        raise TypeError(
            f"{name} must be {what}; got {value!r} ({type(value).__name__}). Pass one number, "
            f"without quotes, e.g. {name}={example}."
        )
    value = value.item() if hasattr(value, "item") else value
    above = low < value if open_low else low <= value
    if not (above and value <= high and (whole or math.isfinite(value))):
        start, end = "(" if open_low else "[", ")" if high == float("inf") else "]"
        message = f"{name} must be in {start}{low}, {high}{end}; got {value!r}. {hint}"
        raise ValueError(message.rstrip())
    return value


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
        variation: Of `"ladder"`: whether `"sample"` and `"interpolate"` apply transformations that
            a network of their own has learned between patients, see
            `vae_aug.model.transformation`.
    """

    profile: Profile = "vector"
    encoder: Encoder = "efficientnet-b1"
    image_size: int = 224
    latent_dim: int = 512
    decoder_repeats: int = 1
    variation: bool = False

    def __post_init__(self) -> None:
        """Check every field."""
        check_choice("profile", self.profile, Profile)
        check_choice("encoder", self.encoder, Encoder)
        for name, least in (("image_size", 32), ("latent_dim", 2), ("decoder_repeats", 0)):
            check_number(name, getattr(self, name), least, whole=True)
        if self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32; got {self.image_size}.")
        if self.latent_dim % 2:
            raise ValueError(f"latent_dim must be even (it is halved); got {self.latent_dim}.")
        if self.variation and self.profile != "ladder":
            raise ValueError(f"variation is of the profile 'ladder'; got {self.profile!r}.")

    @property
    def input_size(self) -> int | None:
        """Side in pixels of the square that the network sees; None if it sees any size."""
        return None if self.profile == "ladder" else self.image_size

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, without those that are optional and have their default.

        So a network that does without them is described as it was before there were any.
        """
        return {
            name: value
            for name, value in super().to_dict().items()
            if value or name not in OPTIONAL_FIELDS
        }

    def makes_fields(self, mode: Mode) -> bool:
        """Whether a mode applies transformations, not what the VAE decodes."""
        return self.variation and mode != "denoise"


@dataclasses.dataclass(frozen=True)
class TrainConfig(_Config):
    """How the network is trained.

    Attributes:
        encoder_weights: `"imagenet"` (keras.applications, downloads), `"package"` (the extra
            `[lite1]`), a file, or None for random weights.
        start_from: Checkpoint, or name of a packaged one, whose weights training starts from; its
            architecture has to be the same, only the `image_size` of a ladder may differ.
        frozen_stages: Stages of the encoder, from the input on, that keep their weights, 0 to
            `ENCODER_STAGES`; if any, the first convolution keeps its start too, three copies of the
            grey image.
        loss: `"paper"`: original_dim * MSE + KLD. `"sigma"`: Gaussian likelihood with the
            analytically optimal variance, whose balance needs no tuning. `"sigma_each"`: the
            same with a variance per image, so that a clean image counts no less than a noisy one.
        ssim_weight: Weight of `1 - SSIM`, in nats per pixel, beside the likelihood.
        coarse_weight: Weight of the likelihood of the ladder's first restoration.
        beta: Weight of the KL term of the global latent after warm-up.
        spatial_beta: The same of the ladder's latent maps.
        kl_warmup_steps: Steps over which the KL weight rises linearly from 0 to `beta`.
        free_bits: Nats per latent dimension that cost nothing.
        restyle: Whether a random style (`vae_aug.train.style`) is laid over every training image.
        box_weight: Weight of a pixel inside a box, relative to 1 outside.
        corruptions: Names from `vae_aug.train.corrupt` of which one is chosen per image.
        keep: Range of the share of information that the corruption leaves.
        clean_share: Share of images that enter the network uncorrupted.
        native_share: Share of images that are cut out at their native resolution instead of being
            scaled to fit, for a ladder that will run on images larger than it is trained on.
        shrunk_share: Share of the images that are scaled down further, to a third of the square's
            side or more, for a network that will see scans of few pixels, where every pixel is
            an edge; the rest of the square is black.
        source_weights: Share of each source of records in a batch; None for equal shares.
        batch_size: Images per step.
        steps: Optimiser steps in all.
        learning_rate: Peak of the cosine schedule with linear warm-up.
        ema: Decay of the moving average of the weights that is validated and kept; 0 for none.
        validate_every: Steps between validations, which also write the resumable state.
        validation_images: Most images that a validation looks at.
        patience: Validations without improvement after which training stops; 0 for never.
        seed: Of weights, shuffling, corruption and latent noise, 0 to `MAX_SEED`.
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
    shrunk_share: float = 0.0
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
        for name in ("ssim_weight", "coarse_weight", "beta", "spatial_beta", "free_bits"):
            check_number(name, getattr(self, name), 0)
        for name in ("kl_warmup_steps", "patience"):
            check_number(name, getattr(self, name), 0, whole=True)
        for name in ("batch_size", "steps", "validate_every", "validation_images"):
            check_number(name, getattr(self, name), 1, whole=True)
        check_number("seed", self.seed, 0, MAX_SEED, whole=True)
        check_number("frozen_stages", self.frozen_stages, 0, ENCODER_STAGES, whole=True)
        check_number("box_weight", self.box_weight, 0, open_low=True)
        check_number("learning_rate", self.learning_rate, 0, open_low=True)
        check_number("clean_share", self.clean_share, 0, 1)
        check_number("native_share", self.native_share, 0, 1)
        check_number("shrunk_share", self.shrunk_share, 0, 1)
        check_number("ema", self.ema, 0, 0.99999)
        if self.encoder_weights and self.start_from:
            raise ValueError(
                "A run starts from encoder_weights or from start_from, which has an encoder; got "
                f"{self.encoder_weights!r} and {self.start_from!r}."
            )
        if len(self.keep) != 2 or not 0 < self.keep[0] <= self.keep[1] <= 1:
            raise ValueError(
                f"keep must be (low, high) with 0 < low <= high <= 1; got {self.keep}."
            )


@dataclasses.dataclass(frozen=True)
class VariationConfig(_Config):
    """How the network of transformations between patients is trained, `ModelConfig.variation`.

    Attributes:
        steps: Steps of the optimiser.
        batch_size: Pairs of a step.
        partners: Images of other patients, the most similar ones, of which each image's partner is
            chosen.
        beta: Weight of the KL divergence, after a linear rise over a fifth of the steps.
        tone_weight: Weight of the difference of windows' means and standard deviations.
        pattern_weight: Weight of what windows' correlation lacks to 1.
        roughness_weight: Weight of the roughness of displacements in pixels and of log slopes.
        jitter: How far each pair is turned, scaled and shifted, and its gamma changed, both images
            alike, in [0, 2]; 0 for not at all. The network then remembers less of its patients
            (ADR 30). At 1 a pair is turned by up to 20 degrees, scaled by 0.82 to 1.22, shifted by
            up to 8% of the side, and its gamma is 0.70 to 1.42.
        learning_rate: Of Adam, which falls to nearly zero as a cosine.
        save_every: Steps between two states from which a run can go on.
        seed: Of weights, pairs and noise, 0 to `MAX_SEED`.
    """

    steps: int = 2000
    batch_size: int = 16
    partners: int = 12
    beta: float = 0.003
    tone_weight: float = 10.0
    pattern_weight: float = 2.0
    roughness_weight: float = 0.06
    jitter: float = 1.0
    learning_rate: float = 1e-3
    save_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("steps", "batch_size", "partners", "save_every"):
            check_number(name, getattr(self, name), 1, whole=True)
        for name in ("beta", "tone_weight", "pattern_weight", "roughness_weight"):
            check_number(name, getattr(self, name), 0)
        check_number("jitter", self.jitter, 0, 2)
        check_number("learning_rate", self.learning_rate, 0, open_low=True)
        check_number("seed", self.seed, 0, MAX_SEED, whole=True)


TRAIN_RECIPES: dict[str, dict[str, Any]] = {
    "vector": {},
    "ladder": {
        "loss": "sigma_each",
        "ssim_weight": 1.0,
        "learning_rate": 2e-3,
    },
}
"""Fields of `TrainConfig` that `vae-aug train` gives another default for a profile."""


OPTIONAL_SETTINGS: dict[str, Any] = {"hardest_of": 1, "adaptive": False, "weakest": 1.0}
"""Settings of a transform that are told only where they are not this, the default."""


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
    hardest_of: int = 1
    adaptive: bool = False
    weakest: float = 1.0

    def list_optional(self) -> dict[str, Any]:
        """List those of `OPTIONAL_SETTINGS` that are not the default, by their names."""
        return {
            name: getattr(self, name)
            for name, usual in OPTIONAL_SETTINGS.items()
            if getattr(self, name) != usual
        }

    def __post_init__(self) -> None:
        """Check every field and fill in the `detail` that goes with the mode."""
        check_choice("mode", self.mode, Mode)
        # YAML takes `off` for False.
        off = "" if self.guard else "To do without it, pass guard='off', in YAML with the quotes."
        check_choice("guard", self.guard, Guard, off)
        check_engine(self.engine)
        _check_device(self.device, self.engine)
        if self.bounding_box_format is not None:
            _check_box_format(self.bounding_box_format)
        _refuse_range(self.factor)
        detail = self.detail
        if detail is None:
            detail = 0.0 if self.mode == "denoise" else 1.0
        share = "It is a share: 50% is 0.5."
        checked = {
            "factor": check_number("factor", self.factor, 0, hint=_FACTOR),
            "detail": check_number("detail", detail, 0, 1, hint=share),
            "p": check_number("p", self.p, 0, 1, hint="It is a probability: 50% is 0.5."),
            "min_fidelity": check_number("min_fidelity", self.min_fidelity, 0, 1, hint=share),
            "batch_size": check_number("batch_size", self.batch_size, 1, whole=True),
            "hardest_of": check_number("hardest_of", self.hardest_of, 1, MAX_HARDEST, whole=True),
            "weakest": check_number("weakest", self.weakest, 0, 1, hint=share),
        }
        if self.hardest_of > 1 and self.mode != "sample":
            raise ValueError(f"hardest_of chooses among samples; got mode={self.mode!r}.")
        if not isinstance(self.adaptive, bool):
            raise TypeError(f"adaptive must be True or False; got {self.adaptive!r}.")
        if self.adaptive and self.mode != "denoise":
            raise ValueError(f"adaptive is for mode='denoise'; got mode={self.mode!r}.")
        if self.weakest < 1 and self.mode == "denoise":
            raise ValueError(
                "weakest is for modes that vary images; got mode='denoise' and weakest="
                f"{self.weakest}. What a detector sees at inference is denoised by one strength."
            )
        if self.seed is not None:
            lowest = -float("inf")
            checked["seed"] = check_number("seed", self.seed, lowest, whole=True)
        if self.value_range is not None:
            checked["value_range"] = check_value_range(self.value_range)
        for name, value in checked.items():
            object.__setattr__(self, name, value)


MAX_HARDEST = 64
"""Most samples of an image among which one is chosen."""

_FACTOR = "0 changes nothing, and 1 is as far as the network varies images by itself."

_OTHER_FORMATS = {
    "coco": "xywh",
    "pascal_voc": "xyxy",
    "voc": "xyxy",
    "tfds": "rel_yxyx",
    "tf": "rel_yxyx",
    "albumentations": "rel_xyxy",
}
"""What others call a format of boxes, in lower case."""


def _check_device(device: Any, engine: str) -> None:
    """Check what can be told of a device without asking TensorFlow for it."""
    if device is None:
        return
    if not isinstance(device, str):
        raise TypeError(
            f"device must be a name such as '/GPU:0', or None; got {device!r} "
            f"({type(device).__name__})."
        )
    if engine.startswith("openvino"):
        raise ValueError(
            f"engine={engine!r} runs on the CPU; got device={device!r}. Leave the "
            "device out, or choose the engine 'tensorflow' or 'xla'."
        )


def _check_box_format(name: Any) -> None:
    """Check a format of boxes; name the one that stands for another tool's name."""
    hint = ""
    same = _OTHER_FORMATS.get(name.lower()) if isinstance(name, str) else None
    if same is not None:
        hint = f"Boxes of the format {name!r} are {same!r} here."
    elif isinstance(name, str) and name.lower() in ("yolo", "rel_center_xywh"):
        hint = "Convert them: half of the width and height to either side of the centre."
    check_choice("bounding_box_format", name, BoxFormat, hint)


def _refuse_range(factor: Any) -> None:
    """Refuse a range of strengths, which Keras's layers take."""
    if isinstance(factor, tuple | list):
        raise TypeError(
            f"factor must be one number; got {factor!r} ({type(factor).__name__}). Pass the upper "
            f"end of a range, factor={factor[-1] if factor else 1.0!r}, and as weakest the share "
            "of it that the lower end is."
        )


def check_value_range(value: Any) -> tuple[float, float]:
    """Check the values of black and white; return them as numbers of Python."""
    expected = "value_range must be a pair (low, high), the values of black and white"
    received = f"got {value!r} ({type(value).__name__})"
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        raise TypeError(f"{expected}; {received}. For [0, {value}] pass value_range=(0, {value}).")
    is_pair = hasattr(value, "__getitem__") and hasattr(value, "__len__") and len(value) == 2
    if isinstance(value, str | Mapping) or not is_pair:
        raise TypeError(f"{expected}; {received}. Pass e.g. value_range=(0, 255), or None.")
    low, high = (
        check_number(f"value_range[{index}]", end, -float("inf"), hint="It must be finite.")
        for index, end in enumerate(value)
    )
    if low > high:
        raise ValueError(
            f"value_range must be (low, high), low < high; {received}. Pass ({high}, {low}); "
            "invert images whose high values are dark before VAEAugment."
        )
    if low == high:
        raise ValueError(f"value_range must be (low, high), low < high; {received}.")
    return low, high
