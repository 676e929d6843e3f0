"""What runs a network: TensorFlow, XLA or OpenVINO, and the graphs that they share."""
