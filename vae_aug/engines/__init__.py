"""Engines, which run a network on TensorFlow, XLA or OpenVINO, and the graphs that they share."""
