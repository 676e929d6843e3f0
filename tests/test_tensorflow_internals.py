"""What the package uses of TensorFlow that is not public, and may be gone in its next version."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vae_aug"
USED = {
    ("tensorflow.python.grappler", "tf_optimizer"): "vae_aug/engines/optimize.py: no engine runs",
    (
        "tensorflow.python.lib.io.tf_record",
        "tf_record_random_reader",
    ): "vae_aug/records/tfrecord.py: no damaged TFRecord file is read past its damage",
}


def test_these_are_all():
    pattern = re.compile(r"^\s*(?:from|import) (tensorflow\.python[\w.]*)(?: import (\w+))?", re.M)
    found = {pair for path in PACKAGE.rglob("*.py") for pair in pattern.findall(path.read_text())}
    assert found == set(USED), "replace it by public API, or list here what breaks without it"


@pytest.mark.parametrize(("place", "breaks"), USED.items(), ids=[name for _, name in USED])
def test_tensorflow_still_has_it(place, breaks):
    module, name = place
    assert hasattr(importlib.import_module(module), name), breaks


def test_the_optimiser_takes_a_configuration_and_a_graph():
    module = importlib.import_module("tensorflow.python.grappler.tf_optimizer")
    first, second, *others = inspect.signature(module.OptimizeGraph).parameters.values()
    assert (first.name, second.name) == ("config_proto", "metagraph")
    assert all(other.default is not inspect.Parameter.empty for other in others)
