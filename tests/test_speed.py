"""The comparison of engines; how fast they are is for no test to say."""

import sys

import pytest
from fake_vae import FakeVAE

from vae_aug.evaluate import speed as module
from vae_aug.evaluate.speed import WAYS, list_engines, measure_engines


def test_every_way_of_every_engine_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "vae_aug.augment.openvino", raising=False)
    steps = []
    speeds, missing = measure_engines(
        FakeVAE(),
        ["tensorflow", "openvino"],
        image_size=48,
        images=3,
        rounds=2,
        progress=lambda: steps.append(1),
    )
    assert {(speed.engine, speed.way) for speed in speeds} == {("tensorflow", way) for way in WAYS}
    assert all(len(speed.rates) == 2 and min(speed.rates) > 0 for speed in speeds)
    assert [speed.median for speed in speeds] == sorted((s.median for s in speeds), reverse=True)
    assert len(steps) == len(WAYS) * 3
    assert (
        list(missing) == ["openvino"] and "pip install 'vae-aug[openvino]'" in missing["openvino"]
    )


def test_a_rate_leaves_out_how_a_pass_starts(monkeypatch):
    """The images before the clock starts take 10 s each, those after it 0.5 s."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def yield_slowly():
        for index in range(64 + 128 + 64):
            now[0] += 10.0 if index <= 64 else 0.5
            yield index

    assert module._measure_rate(yield_slowly(), 128) == 2.0
    assert now[0] == 65 * 10.0 + 128 * 0.5, "the pass goes on after the clock has stopped"


def test_nothing_to_measure():
    with pytest.raises(ValueError, match="at least 1; got 0 and 3"):
        measure_engines(FakeVAE(), ["tensorflow"], images=0)


def test_xla_is_tried_on_accelerators_only(monkeypatch):
    assert list_engines() == ["tensorflow", "openvino", "openvino-bfloat16", "openvino-int8"]
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [kind])
    assert list_engines()[-1] == "xla"
