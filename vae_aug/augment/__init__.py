"""The transform that sits in the input pipeline."""
