"""The command line, run in this process; what it printed and what it left in a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from typer.testing import CliRunner

from benchmarks.golden.record import Notes, serialize_files, serialize_json
from vae_aug.cli import app

ENVIRONMENT = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", "VAE_AUG_SALT": "golden"}
"""Width and style of what is printed, and the secret of hashes."""


class Outcome(NamedTuple):
    """Exit status of a command, and what it printed."""

    status: int
    out: str
    err: str


def run_command(*arguments: str | os.PathLike[str]) -> Outcome:
    """Run `vae-aug` with these arguments."""
    result = CliRunner().invoke(app, [os.fspath(part) for part in arguments], env=ENVIRONMENT)
    error = result.stderr
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        error += repr(result.exception)
    return Outcome(result.exit_code, result.stdout, error)


def note_command(notes: Notes, case: str, *arguments: str | os.PathLike[str]) -> Outcome:
    """Run `vae-aug` and note its exit status and what it printed; JSON in one form."""
    outcome = run_command(*arguments)
    notes.note(f"{case}/status", outcome.status)
    notes.note(f"{case}/printed", serialize_json(outcome.out))
    if outcome.err:
        notes.note(f"{case}/error", outcome.err)
    return outcome


def note_records(notes: Notes, case: str, folder: Path) -> None:
    """Note all files of a folder of records, kind by kind."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kinds = {
        "shards": [path for path in files if path.suffix == ".tfrecord"],
        "label_map": [path for path in files if path.name == "label_map.pbtxt"],
        "report": [path for path in files if path.match("ingest_*.json")],
        "sheet": [path for path in files if path.match("ingest_*.png")],
        "dataset": [path for path in files if path.name == "dataset.json"],
    }
    for kind in ("shards", "label_map", "sheet"):
        if kinds[kind]:
            notes.note(f"{case}/{kind}", serialize_files(kinds[kind], folder))
    for kind in ("dataset", "report"):
        contents = {path.name: json.loads(path.read_bytes()) for path in kinds[kind]}
        if contents:
            notes.note(f"{case}/{kind}", serialize_json(json.dumps(contents)))
    rest = set(files).difference(*kinds.values())
    if rest:
        notes.note(f"{case}/rest", serialize_files(rest, folder))
