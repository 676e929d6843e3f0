"""Dataset builders for TensorFlow Datasets. An installed wheel calls this `vae_aug_tfds`."""
