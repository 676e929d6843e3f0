"""The variational autoencoder: network, loss, training, checkpoints."""
