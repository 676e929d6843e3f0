"""The VAE: layers, the profiles `vector` and `ladder`, loss, noise and checkpoints."""
