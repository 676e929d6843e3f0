"""The benchmark of faults tells a command that recovers from one that does not."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
faults = importlib.import_module("faults")

# Each waits, at its first run, to be killed after it wrote something.
STEPS = """
import os, sys, time
from pathlib import Path
out = Path("{out}")
again = out.exists()
out.mkdir(exist_ok=True)
"""
CAREFUL = """
(out / "part.tmp").write_text("who")
time.sleep(0 if again else 30)
os.replace(out / "part.tmp", out / "a")
(out / "b").write_text("b")
"""
CARELESS = """
(out / str(time.time_ns())).write_text("left")
(out / "a").write_text("who" if not again else "what")
time.sleep(0 if again else 30)
"""
EXPECTED = {"out": None, "out/a": b"who", "out/b": b"b"}


@pytest.mark.parametrize(
    ("script", "lost", "wrong", "left"), [(CAREFUL, 0, 0, 0), (CARELESS, 1, 1, 2)]
)
@pytest.mark.parametrize("group", [True, False])
def test_what_a_second_run_leaves_is_compared(tmp_path, script, lost, wrong, left, group):
    command = faults.Command(("-c", STEPS + script))
    trial = faults.try_once(command, tmp_path, EXPECTED, 1.0, group)
    assert trial["statuses"] == [0] and trial["with_workers"] == group
    assert (trial["lost"], trial["wrong"], len(trial["left_over"])) == (lost, wrong, left)
    assert faults.summarize([trial, trial])["lost"] == 2 * lost


def test_a_command_that_ends_before_its_kill_is_no_trial(tmp_path):
    command = faults.Command(("-c", "pass"))
    assert faults.try_once(command, tmp_path, {}, 20.0, True) is None


def test_a_library_that_does_not_set_back_the_clock_is_noticed(tmp_path):
    with pytest.raises(RuntimeError, match="does not set back the clock"):
        faults.check_clock({"LD_PRELOAD": str(tmp_path / "none.so")})


def test_the_second_run_has_the_environment_that_it_is_given(tmp_path):
    script = CAREFUL + '(out / "clock").write_text(os.environ.get("FAKETIME", ""))'
    command = faults.Command(("-c", STEPS + script), again={"FAKETIME": "-1d"})
    expected = EXPECTED | {"out/clock": b"-1d"}
    trial = faults.try_once(command, tmp_path, expected, 1.0, True)
    assert (trial["lost"], trial["wrong"], trial["left_over"]) == (0, 0, [])
