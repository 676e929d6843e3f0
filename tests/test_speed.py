"""The comparison of engines; how fast they are is for no test to say."""

import sys

import pytest
import tensorflow as tf
from fake_vae import FakeVAE

from vae_aug.evaluate import speed as module
from vae_aug.evaluate.speed import WAYS, list_engines, measure_engines


@pytest.fixture
def short_passes(monkeypatch):
    """Let four images be under way, in place of 64: the guard takes each a while."""
    monkeypatch.setattr(module, "UNDER_WAY", 4)


def hide_openvino(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "vae_aug.engines.openvino", raising=False)


@pytest.mark.usefixtures("short_passes")
def test_every_way_of_every_engine_is_measured(monkeypatch):
    hide_openvino(monkeypatch)
    steps, told = [], []
    speeds, [failure] = measure_engines(
        FakeVAE(),
        ["tensorflow", "openvino"],
        image_size=48,
        images=3,
        rounds=2,
        report=told.append,
        progress=lambda: steps.append(1),
    )
    assert {(speed.engine, speed.way) for speed in speeds} == {("tensorflow", way) for way in WAYS}
    assert all(len(speed.rates) == 2 and min(speed.rates) > 0 for speed in speeds)
    assert [speed.median for speed in speeds] == sorted((s.median for s in speeds), reverse=True)
    assert len(steps) == len(WAYS) * 3
    assert (failure.engine, failure.ways, failure.missing) == ("openvino", WAYS, True)
    assert "pip install 'vae-aug[openvino]'" in failure.reason
    assert told[0] is failure
    assert [(one.way, len(one.rates)) for one in told[1:]] == [(way, 1) for way in WAYS] * 2


class ForgetfulVAE(FakeVAE):
    """Cannot draw from a description."""

    def redraw(self, known, noise, **_):
        raise RuntimeError("there is no\nlatent vector")


@pytest.mark.usefixtures("short_passes")
def test_a_way_that_fails_takes_no_other_along():
    speeds, [failure] = measure_engines(
        ForgetfulVAE(), ["tensorflow"], image_size=48, images=1, rounds=1
    )
    assert {speed.way for speed in speeds} == set(WAYS[:2])
    assert (failure.ways, failure.missing) == (WAYS[2:], False)
    assert "there is no latent vector" in failure.reason


@pytest.mark.usefixtures("short_passes")
def test_a_failure_in_a_later_round_counts_and_is_not_tried_again(monkeypatch):
    calls = []

    def measure(pipeline, images):
        calls.append(pipeline)
        if len(calls) == 4:  # the first way's first round that is counted
            raise tf.errors.UnknownError(
                None, None, "{{node x}} Boom: it broke\nTraceback (most recent call last):\n x"
            )
        return 1.0

    monkeypatch.setattr(module, "measure_rate", measure)
    speeds, [failure] = measure_engines(FakeVAE(), ["tensorflow"], image_size=48, rounds=2)
    assert (failure.ways, failure.reason) == (WAYS[:1], "Boom: it broke")
    assert {speed.way: speed.rates for speed in speeds} == {way: (1.0, 1.0) for way in WAYS[1:]}
    assert len(calls) == 3 + 3 + 2


def test_a_mode_or_engine_that_is_none_is_refused():
    with pytest.raises(ValueError, match="mode must be one of"):
        measure_engines(FakeVAE(), ["tensorflow"], mode="blur")
    with pytest.raises(ValueError, match="engine must be one of"):
        measure_engines(FakeVAE(), ["abacus"])


def test_a_rate_leaves_out_how_a_pass_starts(monkeypatch):
    """The images before the clock starts take 10 s each, those after it 0.5 s."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def yield_slowly():
        for index in range(64 + 128 + 64):
            now[0] += 10.0 if index <= 64 else 0.5
            yield index

    assert module.measure_rate(yield_slowly(), 128) == 2.0
    assert now[0] == 65 * 10.0 + 128 * 0.5, "the pass goes on after the clock has stopped"


def test_nothing_to_measure():
    with pytest.raises(ValueError, match="at least 1; got 0 and 3"):
        measure_engines(FakeVAE(), ["tensorflow"], images=0)


def test_xla_is_tried_on_accelerators_only(monkeypatch):
    assert list_engines() == ["tensorflow", "openvino", "openvino-bfloat16"]
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [kind])
    assert list_engines()[-1] == "xla"
