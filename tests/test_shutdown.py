"""Processes that end while TensorFlow's threads call Python, and the gate that they close."""

import ast
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from vae_aug.engines import shutdown

# Every process leaves such iterators alive. They read so far ahead, and so slowly, that calls are
# under way when the interpreter goes.
SCRIPT = """
import os, pathlib, signal, sys, threading, time
import numpy as np
import tensorflow as tf

images = tf.data.Dataset.from_tensors({"image": tf.zeros([32, 32, 1], tf.uint8)}).repeat()

def bridge():
    import albumentations
    from vae_aug.extras.albumentations import albumentations_map

    def wait(image, **_):
        time.sleep(0.1)
        return image

    compose = albumentations.Compose([albumentations.Lambda(image=wait)])
    return images.map(albumentations_map(compose, seed=1), num_parallel_calls=4)

def network():
    from vae_aug import VAEAugment
    from vae_aug.config import ModelConfig
    from vae_aug.model.vae import VAE

    vae = VAE(ModelConfig(encoder="efficientnet-lite1", image_size=32, latent_dim=16))
    return images.apply(VAEAugment(vae, engine="openvino", seed=1, guard="off"))

def compiled():
    from vae_aug.engines.shutdown import wait_at_exit

    wait_at_exit()
    kernel = tf.random.normal([3, 3, 64, 64])
    convolve = tf.function(lambda x: tf.nn.conv2d(x, kernel, 1, "SAME"), jit_compile=True)
    noise = tf.random.normal([8, 64, 64, 64])
    return images.map(lambda _: tf.reduce_mean(convolve(noise)), num_parallel_calls=2)

def start(pipeline):
    iterator = iter(pipeline.batch(2).prefetch(64))
    for _ in range(8):
        next(iterator)
    return iterator
"""
QUICK = ("the engine, sys.exit", "what XLA compiled, in a thread")
ENDS = {
    "the engine, sys.exit": ("kept = start(network())\nsys.exit(3)", 3),
    "several pipelines, an exception": (
        "kept = [start(bridge()), start(bridge().ignore_errors())]\nraise RuntimeError('failed')",
        1,
    ),
    "Ctrl-C": (
        "kept = start(bridge())\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "for _ in kept: pass",
        -signal.SIGINT,
    ),
    "an iterator that only a thread knows": (
        "begun = threading.Event()\n"
        "def read():\n"
        "    batches = start(bridge())\n"
        "    begun.set()\n"
        "    for _ in batches: pass\n"
        "threading.Thread(target=read, daemon=True).start()\n"
        "kept = start(bridge())\n"
        "begun.wait()",
        0,
    ),
    "what XLA compiled, in a thread": (
        "begun = threading.Event()\n"
        "def read():\n"
        "    batches = start(compiled())\n"
        "    begun.set()\n"
        "    for _ in batches: pass\n"
        "threading.Thread(target=read, daemon=True).start()\n"
        "kept = start(compiled())\n"
        "begun.wait()",
        0,
    ),
    "a test runner": (
        "import pytest, tempfile\n"
        "test = pathlib.Path(tempfile.mkdtemp(), 'test_kept.py')\n"
        "test.write_text('import __main__ as m\\ndef test_it(): m.kept = m.start(m.bridge())')\n"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '--rootdir', test.parent, test]))",
        0,
    ),
}


@pytest.mark.parametrize(
    ("end", "status"),
    [
        pytest.param(*case, id=name, marks=[] if name in QUICK else pytest.mark.slow)
        for name, case in ENDS.items()
    ],
)
def test_a_process_ends_with_its_status(end, status, tmp_path):
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT + end],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "1"},
        capture_output=True,
        text=True,
        timeout=300,  # for what takes ten seconds, unless the machine has much else to do
    )
    assert finished.returncode == status, finished.stderr
    for sign in ("StopIteration", "about to end", "PyFunc", "terminate called"):
        assert sign not in finished.stderr


@pytest.fixture
def gate(monkeypatch):
    monkeypatch.setattr(shutdown, "end_iterators", lambda: None)  # those of other tests
    return shutdown.Gate()


def test_a_function_works_until_the_gate_is_closed(gate):
    double = gate.wrap(lambda x: 2 * x)
    assert double(4) == 8
    gate.close()
    with pytest.raises(StopIteration, match="about to end"):
        double(4)


def test_what_a_function_holds_is_released(gate):
    class Requests:
        def __call__(self):
            return 0

    requests = Requests()
    alive, wrapped = weakref.ref(requests), gate.wrap(requests)
    del requests
    gc.collect()
    assert alive() is not None
    assert wrapped() == 0
    gate.close()
    assert alive() is None


def test_calls_under_way_are_waited_for(gate):
    called, go_on, results = threading.Event(), threading.Event(), []

    def answer():
        called.set()
        go_on.wait()
        return 1

    slow = gate.wrap(answer)
    caller = threading.Thread(target=lambda: results.append(slow()))
    caller.start()
    called.wait()
    closer = threading.Thread(target=gate.close)
    closer.start()
    closer.join(10 * shutdown.QUIET_S)
    assert closer.is_alive()
    go_on.set()
    closer.join()
    caller.join()
    assert results == [1]


def test_a_call_that_does_not_end_is_named(gate, monkeypatch, logged):
    monkeypatch.setattr(shutdown, "GRACE_S", 0.1)
    monkeypatch.setattr(shutdown, "PATIENCE_S", 0.1)
    wrapped = gate.wrap(lambda: 0)
    with gate.count_call():
        gate.close()
    assert "Delete the iterators" in logged[0].getMessage()
    del wrapped


def test_what_computes_is_waited_for_if_xla_compiled(gate, monkeypatch):
    waits = []
    monkeypatch.setattr(shutdown, "wait_until_idle", waits.append)
    gate.close()
    assert not waits
    gate.compiled = True
    gate.close()
    assert waits == [shutdown.PATIENCE_S]


def test_a_forked_child_leaves_all_as_it_is(gate, monkeypatch):
    wrapped, process = gate.wrap(lambda: 0), os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: process + 1)
    gate.close()
    assert wrapped() == 0


def test_iterators_end(monkeypatch):
    kept = iter(tf.data.Dataset.range(3))
    other = iter(tf.data.Dataset.range(3))
    monkeypatch.setattr(shutdown.gc, "get_objects", lambda: [kept, np.zeros(1)])
    shutdown.end_iterators()
    assert list(kept) == []
    assert next(other) == 0


def test_whatever_tensorflow_calls_ends_at_exit():
    wrapped = []
    for path in (ROOT / "vae_aug").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("numpy_function", "py_function"):
                wrapped.append(path.name)
                assert re.search(r"@end_at_exit\n|end_at_exit\(", path.read_text(encoding="utf-8"))
    assert sorted(wrapped) == ["albumentations.py", "openvino.py", "warp.py"]
