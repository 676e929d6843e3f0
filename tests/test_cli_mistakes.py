"""What users get wrong on the command line, and what matters in the answer: one table.

`{tmp}` is a folder with `records` (splits train and validation), `scans` (a PNG), `empty` (an
empty folder), `run` (a training without a validation yet), `foreign.keras` (a Keras model of other
code), `text.keras`, `text.json` and `list.json`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import ROOT
from fake_vae import FakeVAE
from test_cli import run, split_command

from vae_aug.augment import transform
from vae_aug.codecs.images import write_image
from vae_aug.records.records import make_example, write_records

FAILED, USAGE = 1, 2
R, OUT = "{tmp}/records", "{tmp}/out"
MISTAKES = {
    # Wrong usage.
    "no such command": (["evalute"], USAGE, "No such command 'evalute'. Did you mean 'evaluate'"),
    "no such option": (["check", R, "--near", "3"], USAGE, "No such option: --near"),
    "one folder for ingest": (["ingest", R], USAGE, "Missing argument 'out'"),
    "no out for train": (["train", R], USAGE, "Missing option '--out'"),
    "no format of that name": (["ingest", R, OUT, "--format", "xml"], USAGE, "'coco'"),
    "no mode of that name": (["augment", R, OUT, "--mode", "blur"], USAGE, "'interpolate'"),
    "no engine of that name": (
        ["evaluate", "bench", "--engine", "open-vino"],
        USAGE,
        "'openvino-bfloat16'",
    ),
    "an engine that was removed": (
        ["evaluate", "bench", "--engine", "openvino-int8"],
        USAGE,
        "was removed",
    ),
    "no mode among several": (
        ["evaluate", "fidelity", R, "--mode", "blur"],
        USAGE,
        "not one of 'denoise'",
    ),
    "detail in per cent": (
        ["augment", R, OUT, "--detail", "50"],
        USAGE,
        "Invalid value for '--detail': Input should be less than or equal to 1",
    ),
    "strength below 0": (
        ["preview", R, "--factor", "-1"],
        USAGE,
        "'--factor': Input should be greater than or equal to 0",
    ),
    "no shards": (["ingest", R, OUT, "--shards", "0"], USAGE, "Invalid value for '--shards'"),
    "no images": (
        ["evaluate", R, "--limit", "0"],
        USAGE,
        "'--limit': Input should be greater than or equal to 1",
    ),
    "words for numbers": (
        ["evaluate", R, "--keep", "40%"],
        USAGE,
        "'--keep': Input should be a valid number",
    ),
    # Records.
    "absent records": (["check", "{tmp}/no"], FAILED, "no such folder. Run vae-aug ingest first"),
    "scans for records": (
        ["train", "{tmp}/scans", "--out", OUT],
        FAILED,
        "holds no records (NAME-00000-of-00001.tfrecord). Run vae-aug ingest first: vae-aug ingest "
        "{tmp}/scans records",
    ),
    "an empty folder for records": (["evaluate", "{tmp}/empty"], FAILED, "is empty, where records"),
    "a file of records": (
        ["preview", f"{R}/train-00000-of-00001.tfrecord"],
        FAILED,
        "is a file; give the folder of records that it is in",
    ),
    "a checkpoint for records": (
        ["evaluate", "audit", "demo"],
        FAILED,
        "demo: is a checkpoint; a folder of records is wanted here. Name the checkpoint by an "
        "option: RECORDS --ckpt demo",
    ),
    "no such split": (
        ["evaluate", R, "--split", "test"],
        FAILED,
        "has no split test. Give --split train or --split validation",
    ),
    "no such split to augment": (["augment", R, OUT, "--split", "tets"], FAILED, "no split tets"),
    "a split of no name": (
        ["evaluate", "fidelity", R, "--split", "../x"],
        FAILED,
        "letters, digits",
    ),
    "evaluation splits": (
        ["augment", R, OUT, "--split", "validation"],
        FAILED,
        "--augment-evaluation",
    ),
    "damaged description": (["check", "{tmp}/damaged"], FAILED, "write the records again"),
    "validation of nothing": (
        ["train", R, "--out", OUT, "--validation", "{tmp}/no"],
        FAILED,
        "{tmp}/no: no such folder",
    ),
    "augment onto records": (["augment", R, R], FAILED, "name a new folder"),
    # Checkpoints.
    "no checkpoint of that name": (
        ["augment", R, OUT, "--ckpt", "deom"],
        FAILED,
        "No checkpoint 'deom': neither a .keras file or folder that exists, nor a packaged one "
        "(demo, vector)",
    ),
    "records for a checkpoint": (
        ["denoise", "{tmp}/scans", OUT, "--ckpt", R],
        FAILED,
        f"{R}: is a folder of records; a checkpoint is wanted here. Make one of it with vae-aug "
        "train",
    ),
    "an empty folder for a checkpoint": (
        ["evaluate", "bench", "--ckpt", "{tmp}/empty"],
        FAILED,
        "has no manifest.json. The folder is empty",
    ),
    "a training without a checkpoint": (
        ["preview", R, "--ckpt", "{tmp}/run"],
        FAILED,
        "without a validation yet; run the training again",
    ),
    "a Keras model of other code": (
        ["evaluate", "diversity", R, "--ckpt", "{tmp}/foreign.keras"],
        FAILED,
        "It is a Keras model of other code; train a network with vae-aug train",
    ),
    "text for a checkpoint": (["info", "{tmp}/text.keras"], FAILED, "is no checkpoint of vae_aug"),
    "a start from nothing": (
        ["train", R, "--out", OUT, "--start-from", "nothing"],
        FAILED,
        "No checkpoint 'nothing'",
    ),
    "one name twice": (
        ["evaluate", R, "--ckpt", "demo", "--ckpt", "demo"],
        FAILED,
        "two checkpoints have one name: demo, demo",
    ),
    "a strength that is none": (
        ["denoise", "{tmp}/scans", OUT, "--strength", "much"],
        FAILED,
        "--strength wants auto or a number from 0 to 1; got 'much'",
    ),
    "too much strength": (
        ["denoise", "{tmp}/scans", OUT, "--strength", "2"],
        FAILED,
        "--strength wants auto or a number from 0 to 1; got '2'",
    ),
    "an adaptive sample": (
        ["augment", R, OUT, "--adaptive"],
        FAILED,
        "adaptive is for --mode 'denoise'; got --mode 'sample'",
    ),
    # Files.
    "absent source": (["ingest", "{tmp}/no", OUT], FAILED, "{tmp}/no: no such file or folder"),
    "absent images": (["denoise", "{tmp}/no", OUT], FAILED, "{tmp}/no: no such file or folder"),
    "absent settings": (["train", R, "--out", OUT, "--config", "{tmp}/no"], FAILED, "no such file"),
    "settings that are no JSON": (
        ["train", R, "--out", OUT, "--config", "{tmp}/text.json"],
        FAILED,
        "text.json: not valid JSON",
    ),
    "settings of another kind": (
        ["tune", R, "--out", OUT, "--config", "{tmp}/list.json"],
        FAILED,
        'an object with the objects "model", "train" and "variation"',
    ),
    "a search of another kind": (
        ["tune", R, "--out", OUT, "--search", "{tmp}/list.json"],
        FAILED,
        "expected an object of field names; got []",
    ),
    "a folder for a card": (
        ["train", R, "--out", OUT, "--card", "{tmp}"],
        FAILED,
        "is a folder, where a file is wanted",
    ),
    "a salt that is not there": (
        ["which", "{tmp}/scans", "0", "--salt-file", "{tmp}/no"],
        FAILED,
        "{tmp}/no: no such file",
    ),
    "a record of no file": (
        ["replay", "{tmp}/no.tfrecord", "--source", R],
        FAILED,
        "{tmp}/no.tfrecord: no such file",
    ),
    "a record that was not augmented": (
        ["info", f"{R}/train-00000-of-00001.tfrecord", "--record", "0"],
        FAILED,
        "vae-aug augment",
    ),
    # Values of options.
    "a window of words": (
        ["ingest", "{tmp}/scans", OUT, "--window", "1,x"],
        FAILED,
        "--window must be",
    ),
    "shares of words": (
        ["ingest", "{tmp}/scans", OUT, "--split-by-patient", "most,rest"],
        FAILED,
        "--split-by-patient wants shares such as 0.7,0.15,0.15; got 'most,rest'",
    ),
    "an option of Beam without a value": (
        ["ingest", "{tmp}/scans", OUT, "--runner-option", "x"],
        FAILED,
        "--runner-option wants KEY=VALUE; got 'x'",
    ),
    "bits that nobody stores": (
        ["ingest", "{tmp}/scans", OUT, "--bits", "12"],
        FAILED,
        "--bits must be",
    ),
    "no noise of that name": (
        ["evaluate", R, "--corruption", "snow"],
        USAGE,
        "'snow' is not one of 'replace', 'blend', 'gaussian'",
    ),
}
# What needs TensorFlow to be found out.
SLOW = {
    *("evaluation splits", "augment onto records", "a record that was not augmented"),
    *("a window of words", "bits that nobody stores", "an adaptive sample"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("tmp")
    for split in ("train", "validation"):
        image = np.arange(480).reshape(24, 20, 1).astype(np.uint8)
        example = make_example(image, source_id=split, boxes=[], labels=[], label_names=("a",))
        write_records([example], tmp / "records", split, label_names=("a",))
    for name in ("empty", "scans", "damaged"):
        (tmp / name).mkdir()
    write_image(tmp / "scans" / "1.png", image)
    (tmp / "damaged" / "dataset.json").write_text("{")
    (tmp / "run" / "state").mkdir(parents=True)
    with zipfile.ZipFile(tmp / "foreign.keras", "w") as archive:
        for member in ("config.json", "metadata.json", "model.weights.h5"):
            archive.writestr(member, "{}")
    (tmp / "text.keras").write_text("weights")
    (tmp / "text.json").write_text("{")
    (tmp / "list.json").write_text("[]")
    return tmp


def fill(text, folder):
    return text.replace("{tmp}", str(folder))


def join(text):
    """Put a message together again that a frame or the width of a terminal has broken."""
    return " ".join(text.replace("│", " ").split())


def test_the_table_is_long_enough():
    assert len(MISTAKES) >= 40


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered(folder, mistake, monkeypatch):
    monkeypatch.setattr(transform, "open_checkpoint", lambda checkpoint: FakeVAE())
    arguments, status, words = MISTAKES[mistake]
    result = run(*(fill(argument, folder) for argument in arguments))
    assert result.exit_code == status, result.output
    assert fill(words, folder) in join(result.stderr)
    assert not result.stdout
    assert not (folder / "out").exists()
    if status == FAILED:
        [line] = result.stderr.splitlines()
        assert line.startswith("error: ")


PROBE = """
import json, sys
from typer.testing import CliRunner
from vae_aug import cli
for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code in (1, 2), (arguments, result.output)
    loaded = {"tensorflow", "keras", "numpy"} & set(sys.modules)
    assert not loaded, (arguments, loaded)
"""


def test_wrong_paths_are_found_without_tensorflow(folder):
    calls = [
        [fill(argument, folder) for argument in arguments]
        for mistake, (arguments, _, _) in MISTAKES.items()
        if mistake not in SLOW
    ]
    assert len({split_command(arguments)[0] for arguments in calls}) > 14
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(calls)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
