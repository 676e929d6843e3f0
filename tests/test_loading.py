"""How TensorFlow is loaded, each time in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys

from conftest import ROOT


def start(code):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_interrupt_while_tensorflow_loads_is_quiet():
    code = (
        "import signal, time, types\n"
        "from vae_aug import cli\n"
        "from vae_aug.cli import loading\n"
        # A shell starts what it runs in the background deaf to interrupts.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def load(name):\n"
        "    print('loading', flush=True)\n"
        "    time.sleep(60)\n"
        "loading.importlib = types.SimpleNamespace(import_module=load)\n"
        "cli.app(['evaluate', 'bench'])\n"
    )
    with start(code) as process:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == "interrupted\n"
    assert process.returncode == 130


def test_what_a_library_writes_while_it_loads_is_hidden():
    code = (
        "import os\n"
        "from vae_aug.cli.loading import silence_loading\n"
        "with silence_loading():\n"
        "    os.write(2, b'noise')\n"
        "os.write(2, b'heard')\n"
    )
    with start(code) as process:
        assert process.communicate(timeout=30)[1] == "heard"


def test_whoever_wants_the_log_of_tensorflow_sees_it():
    code = (
        "import os\n"
        "os.environ['TF_CPP_MIN_LOG_LEVEL'] = '0'\n"
        "from vae_aug.cli.loading import silence_loading\n"
        "with silence_loading():\n"
        "    os.write(2, b'log')\n"
    )
    with start(code) as process:
        assert process.communicate(timeout=30)[1] == "log"
