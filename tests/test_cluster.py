"""TF_CONFIG is honoured or refused, never passed over."""

from __future__ import annotations

import json

import pytest

from vae_aug.train.cluster import Cluster, read_cluster, refuse_cluster


def write_config(cluster, role="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": role, "index": index}})


TWO = {"worker": ["a:1", "b:1"]}
LED = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}


@pytest.mark.parametrize(
    ("config", "worker", "workers"),
    [
        (write_config(TWO), 0, 2),
        (write_config(TWO, index=1), 1, 2),
        (write_config(LED, "chief"), 0, 3),
        (write_config(LED, "worker", 1), 2, 3),
        (write_config({"chief": ["a:1"]}, "chief"), 0, 1),
    ],
)
def test_the_chief_is_the_first_worker(monkeypatch, config, worker, workers):
    monkeypatch.setenv("TF_CONFIG", config)
    assert read_cluster() == Cluster(worker, workers)
    with pytest.raises(ValueError, match="A search takes one process, and TF_CONFIG is set"):
        refuse_cluster("A search")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "is not understood"),
        ("[" * 100_000, "is not understood"),
        ("null", "is not understood"),
        ("{}", "is not understood.*'cluster'"),
        (json.dumps({"cluster": TWO}), "is not understood.*'task'"),
        (write_config(["a:1"]), "is not understood"),
        (write_config({"worker": "a:1"}), "expected a list of addresses; got 'a:1'"),
        (write_config({**TWO, "ps": ["c:1"]}), "has the role 'ps'"),
        (write_config({**TWO, "evaluator": ["c:1"]}, "evaluator"), "has the role 'evaluator'"),
        (write_config(TWO, "evaluator"), "has the role 'evaluator'"),
        (write_config(TWO, ["worker"]), "has the role"),
        (write_config({**TWO, "chief": ["c:1", "d:1"]}), "has more than one chief"),
        (write_config(TWO, index=2), "no address for its own task, 'worker' 2"),
        (write_config(TWO, index=-1), "no address for its own task"),
        (write_config(TWO, index="0"), "no address for its own task, 'worker' '0'"),
        (write_config(TWO, index=True), "no address for its own task"),
        (write_config(TWO, "chief"), "no address for its own task"),
        (write_config({}), "no address for its own task"),
    ],
)
def test_what_names_no_cluster_of_workers_is_refused(monkeypatch, config, words):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=f"TF_CONFIG.*{words}"):
        read_cluster()


@pytest.mark.parametrize("config", [None, ""])
def test_without_one_there_is_no_cluster(monkeypatch, config):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    assert read_cluster() is None
    refuse_cluster("A search")
