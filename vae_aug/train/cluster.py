"""The workers of a training on several machines, as the variable TF_CONFIG names them."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

_NAME = "TF_CONFIG"
_ROLES = ("chief", "worker")
"""Roles that train, in TensorFlow's order of their tasks."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a training, of which this process is one.

    Attributes:
        worker: Number of this worker; 0 is the chief, which writes the files of the run.
        workers: How many there are.
    """

    worker: int = 0
    workers: int = 1


def read_cluster() -> Cluster | None:
    """Read from TF_CONFIG which worker this process is.

    Returns:
        The cluster; None where the variable is not set or empty.

    Raises:
        ValueError: If it is no cluster of workers with a task for this process.

    Reference: the classes `tf.distribute.cluster_resolver.TFConfigClusterResolver` and
    `tf.distribute.MultiWorkerMirroredStrategy`.
    """
    text = os.environ.get(_NAME)
    if not text:
        return None
    try:
        content = json.loads(text)
        tasks = {role: _list_addresses(content["cluster"][role]) for role in content["cluster"]}
        role, index = str(content["task"]["type"]), content["task"]["index"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _refuse(f"is not understood ({type(error).__name__}: {error})") from error
    if others := sorted({*tasks, role} - {*_ROLES}):
        raise _refuse(f"has the role {', '.join(map(repr, others))}; a training has no such part")
    if len(tasks.get("chief", ())) > 1:
        raise _refuse("has more than one chief")
    # A bool is an int, and no index.
    if type(index) is not int or not 0 <= index < len(tasks.get(role, ())):
        raise _refuse(f"names no address for its own task, {role!r} {index!r}")
    listed = [(name, number) for name in _ROLES for number in range(len(tasks.get(name, ())))]
    return Cluster(listed.index((role, index)), len(listed))


def refuse_cluster(what: str) -> None:
    """Raise `ValueError` where TF_CONFIG is set, for something that one process does.

    Args:
        what: What that is, the begin of a sentence.
    """
    if os.environ.get(_NAME):
        raise ValueError(f"{what} takes one process, and {_NAME} is set; unset it.")


def _list_addresses(addresses: Any) -> list[str]:
    if not isinstance(addresses, list) or not all(isinstance(name, str) for name in addresses):
        raise TypeError(f"expected a list of addresses; got {addresses!r}")
    return addresses


def _refuse(what: str) -> ValueError:
    return ValueError(
        f'{_NAME} {what}. Expected {{"cluster": {{"worker": ["host:port", ...]}}, "task": '
        '{"type": "worker", "index": 0}}, with or without one "chief"; or unset it.'
    )
