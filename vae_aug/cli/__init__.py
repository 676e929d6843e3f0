"""The command line. Each group of commands is a module; importing them registers the commands.

TensorFlow takes seconds to load, so none of these modules imports it: it is loaded when a command
first uses `vae_aug.cli.calls`, and `vae-aug --help` and wrong usage answer at once.
"""

from vae_aug.cli import info, ingest, train, augment, evaluate, doctor  # isort: skip - order of the help
from vae_aug.cli.entry import app

__all__ = ["app", "augment", "doctor", "evaluate", "info", "ingest", "train"]
