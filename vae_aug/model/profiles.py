"""The networks by the name of their profile."""

from __future__ import annotations

from vae_aug.config import ModelConfig
from vae_aug.model.ladder import LadderVAE
from vae_aug.model.network import Network
from vae_aug.model.vae import VAE

PROFILES: dict[str, type[VAE | LadderVAE]] = {"vector": VAE, "ladder": LadderVAE}
"""Classes of networks by `ModelConfig.profile`."""


def make_vae(config: ModelConfig, *, encoder_weights: str | None = None) -> Network:
    """Make the network that a configuration describes.

    Args:
        config: The architecture.
        encoder_weights: As `vae_aug.model.encoder.make_encoder`; None for random weights.

    Returns:
        The network, with random weights but for the encoder's.
    """
    return PROFILES[config.profile](config, encoder_weights=encoder_weights)
