"""The benchmark of faults tells a command that recovers from one that does not."""

import importlib
import json
import sys
import zipfile

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
faults, disk_faults = map(importlib.import_module, ("faults", "disk_faults"))

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
EXPECTED = {"out": None, "out/a": [b"who"], "out/b": [b"b"]}


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


def test_the_page_has_the_tables_that_the_results_give():
    page = (ROOT / "docs" / "large-sets.md").read_text()
    killed, disks = (
        json.loads((faults.RESULTS / name).read_text())
        for name in ("faults.json", "disk-faults.json")
    )
    assert faults.make_table(killed["summary"]) in page
    assert disk_faults.make_table(disks["results"]) in page


def test_a_command_that_ends_before_its_kill_is_no_trial(tmp_path):
    command = faults.Command(("-c", "pass"))
    assert faults.try_once(command, tmp_path, {}, 20.0, True) is None


def test_a_library_that_does_not_set_back_the_clock_is_noticed(tmp_path):
    with pytest.raises(RuntimeError, match="does not set back the clock"):
        faults.check_clock({"LD_PRELOAD": str(tmp_path / "none.so")})


def test_the_second_run_has_the_environment_that_it_is_given(tmp_path):
    script = CAREFUL + '(out / "clock").write_text(os.environ.get("FAKETIME", ""))'
    command = faults.Command(("-c", STEPS + script), again={"FAKETIME": "-1d"})
    expected = EXPECTED | {"out/clock": [b"-1d"]}
    trial = faults.try_once(command, tmp_path, expected, 1.0, True)
    assert (trial["lost"], trial["wrong"], trial["left_over"]) == (0, 0, [])


def test_hours_and_paths_are_not_compared(tmp_path):
    read = []
    for place, date, stamp in (("one", "2026-11-30", "1.5"), ("two", "2026-12-01", "2.5")):
        around = tmp_path / place
        (around / "state").mkdir(parents=True)
        with zipfile.ZipFile(around / "network.keras", "w") as archive:
            archive.writestr("metadata.json", date)
            archive.writestr("weights", "w")
        (around / "outcome.json").write_text(f"the sheet is {around}/sheet.png")
        text = f"model: a\nlast_timestamp: {stamp}\n"
        (around / "state" / "checkpoint").write_text(text)
        read.append(faults.describe(faults.Command(()), around))
    assert read[0] == read[1] and read[0]["state/checkpoint"] == [b"model: a", b""]
    with zipfile.ZipFile(tmp_path / "two" / "network.keras", "a") as archive:
        archive.writestr("more", "m")
    assert faults.describe(faults.Command(()), tmp_path / "two") != read[0]
