from __future__ import annotations

import pytest
import tensorflow as tf
from test_cli import run

from vae_aug.cli import entry, info
from vae_aug.errors import RecordError


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(info, "read_manifest", fail)
    assert isinstance(run("info", "demo").exception, RuntimeError)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("factor must be\n  positive"), 1, "error: factor must be positive"),
        (ValueError(), 1, "error: ValueError"),
        (RecordError("a: damaged."), 1, "error: a: damaged."),
        (FileNotFoundError(2, "No such file", "a.png"), 1, "error: a.png: No such file."),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("go on later"), 130, "interrupted: go on later"),
    ],
)
def test_what_input_or_users_cause_is_a_line_and_a_status(monkeypatch, error, status, line):
    def fail(*_):
        raise error

    monkeypatch.setattr(info, "read_manifest", fail)
    result = run("info", "demo")
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", f"{line}\n")


def test_what_tensorflow_says_is_unwrapped():
    error = tf.errors.DataLossError(None, None, "{{node a}} corrupted\nrecord [Op:Next] name: ")
    assert entry.is_expected(error)
    assert entry.describe_error(error) == "corrupted record"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("window must be auto or", "--window must be auto or"),
        ("split_by_patient wants shares", "--split-by-patient wants shares"),
        ("say which with split=.", "say which with --split."),
        ("pass keep_ids=True (--keep-ids) to", "pass --keep-ids to"),
        ("add --keep-ids (keep_ids=True); or", "add --keep-ids; or"),
        ("pass window='lung'", "pass --window 'lung'"),
        ("VAEAugment(window='x')", "VAEAugment(window='x')"),
        ("the windows must be", "the windows must be"),
    ],
)
def test_messages_name_options(text, expected):
    options = {"window": 1, "split": 1, "keep_ids": 1, "split_by_patient": 1}
    assert entry.name_options(text, options) == expected
