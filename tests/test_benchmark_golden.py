"""The golden record: differences are named, and what does not change is noted alike."""

from __future__ import annotations

import json
import os
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks.golden import __main__ as golden
from benchmarks.golden import ingest
from benchmarks.golden.record import Notes, compare, serialize_arrays, serialize_json

MACHINE = {"processor": "x", "commit": "1"}


def make_record(entries, sections=("ingest", "help"), absent=(), machine=MACHINE):
    seconds = {name: {"clock": 1.0, "processor": 1.0} for name in sections}
    return {
        "machine": machine,
        "seconds": seconds,
        "absent": list(absent),
        "entries": dict(entries),
    }


BEFORE = {"ingest/coco 1/shards": "a", "ingest/coco 2/shards": "b", "help/vae-aug": "c"}


def test_every_difference_is_named():
    after = {"ingest/coco 1/shards": "x", "help/vae-aug": "c", "help/vae-aug info": "d"}
    assert compare(make_record(BEFORE), make_record(after)) == [
        "differs: ingest/coco 1/shards",
        "gone: ingest/coco 2/shards",
        "new: help/vae-aug info",
    ]
    assert compare(make_record(BEFORE), make_record(BEFORE)) == []


def test_sections_and_data_of_one_record_alone_are_told_and_not_compared(capsys):
    before = make_record({**BEFORE, "real/bccd/shards": "d"}, ("ingest", "help", "real"))
    only = make_record({"help/vae-aug": "c"}, ["help"])
    without = make_record(BEFORE, ("ingest", "help", "real"), ["real/bccd"])
    assert golden.report_differences(before, only) == 0
    assert capsys.readouterr().out.splitlines() == [
        "not compared, not in both records: ingest",
        "not compared, not in both records: real",
        "0 differences in 1 entries",
    ]
    assert golden.report_differences(before, without) == 0
    assert "not compared, its data was not there: real/bccd" in capsys.readouterr().out


def test_another_machine_is_told_and_another_commit_is_not(capsys):
    other = make_record(BEFORE, machine={"processor": "y", "commit": "2"})
    assert golden.report_differences(make_record(BEFORE), other) == 0
    told = capsys.readouterr().out
    assert "processor was x, is y" in told and "commit" not in told


@pytest.fixture
def run(monkeypatch):
    """Run sections in this process, which has loaded what they need."""

    def start_section(name, folder, engines):
        return golden.run_section(name, folder / name, engines)

    monkeypatch.setattr(golden, "start_section", start_section)
    return lambda *words: golden.main([str(word) for word in words])


def test_help_is_noted_alike_twice_and_a_changed_entry_ends_with_1(run, tmp_path, capsys):
    folder, path = os.getcwd(), tmp_path / "golden.json"
    assert run("--only", "help", "--out", path) == 0
    record = json.loads(path.read_text())
    assert record["machine"]["processor"] and list(record["seconds"]) == ["help"]
    assert "help/vae-aug ingest" in record["entries"]
    record["entries"]["help/vae-aug ingest"] = "0"
    path.write_text(json.dumps(record))
    capsys.readouterr()
    assert run("--only", "help", "--compare", path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "differs: help/vae-aug ingest" and lines[-1].startswith("1 differences")
    assert os.getcwd() == folder


def test_ingest_is_noted_alike_wherever_it_runs(tmp_path, monkeypatch):
    found = []
    for name in ("one", "another folder"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        notes = Notes(folder, {str(folder): "<work>"})
        ingest.note_corpus(notes, "coco", count=2)
        found.append(notes.entries)
    assert found[0] == found[1]
    aspects = {key.rpartition("/")[2] for key in found[0]}
    assert aspects >= {"source", "status", "printed", "shards", "dataset", "label_map", "report"}
    for number in range(2):
        assert f"ingest/coco {number}/printed" in found[0]


def test_what_may_change_is_no_part_of_a_digest(tmp_path):
    first, second = (Notes(tmp_path / name, {f"/{name}/it": "<work>"}) for name in "ab")
    for notes, text in ((first, "in /a/it: 3"), (second, "in /b/it: 3")):
        notes.folder.mkdir()
        notes.note("case/printed", text)
    assert first.entries == second.entries
    assert (tmp_path / "a" / "texts" / "case.printed.txt").read_text() == "in <work>: 3"
    with pytest.raises(ValueError, match="two cases"):
        first.note("case/printed", "again")
    told = '{"version": "2", "splits": [{"path": "/a", "images": 1}]}'
    assert json.loads(serialize_json(told)) == {"splits": [{"images": 1}]}
    assert serialize_json("no JSON") == "no JSON"


def test_arrays_are_told_apart_by_dtype_shape_and_values():
    arrays = ([1, 2], [[1, 2]], [1.0, 2.0], [2, 1], [b"1", b"2"])
    assert len({serialize_arrays([array]) for array in arrays}) == len(arrays)


def test_sections_are_chosen_by_the_words_before_their_hyphens():
    transforms = golden.choose_sections(["transform"], [])
    assert transforms == ["transform-demo", "transform-vector", "transform-settings"]
    assert golden.choose_sections(["transform"], ["xla"])[-1] == golden.ENGINES
    assert golden.ENGINES not in golden.choose_sections(None, [])
    with pytest.raises(ValueError, match="no section trans;"):
        golden.choose_sections(["trans"], [])
