"""The networks by the name of their profile."""

from __future__ import annotations

from vae_aug.config import ModelConfig
from vae_aug.model.ladder import LadderVAE
from vae_aug.model.vae import VAE

Network = VAE | LadderVAE


def make_vae(config: ModelConfig, *, encoder_weights: str | None = None) -> Network:
    """Make the network that a configuration describes.

    Args:
        config: The architecture.
        encoder_weights: As `vae_aug.model.encoder.make_encoder`; None for random weights.

    Returns:
        The network, with random weights but for the encoder's.
    """
    if config.profile == "ladder":
        return LadderVAE(config, encoder_weights=encoder_weights)
    return VAE(config, encoder_weights=encoder_weights)
