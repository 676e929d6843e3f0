"""The dataset med_vae_augmented; importing this registers it with TFDS."""

from .med_vae_augmented_dataset_builder import Builder

__all__ = ["Builder"]
