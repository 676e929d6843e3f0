"""The walk of a new user on real images: what the README and `docs/` print, each in its process.

Minutes a data set, so it runs with `pytest -m walk -s` alone. It prints what each command took.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time

import numpy as np
import pydicom
import pytest
from conftest import ROOT
from test_cli import split_command
from test_cli_examples import EXAMPLES, ORDER
from test_readme import BLOCKS, BY_PATIENT, CHANGED, list_printed_commands, list_scripts

from vae_aug.records.records import read_info, read_records

SETS = {
    "lgg_flair": {"dtype": "uint8"},
    "lung_ct_dicom": {"dtype": "uint16", "one_patient": True},
    "kidney_stone_ct": {"dtype": "uint8", "says": "the source names no patients"},
    "ibsi_sts": {"dtype": "uint16", "says": "images of 16 bits fill little of their range"},
}
TRAINED_ON = 16
"""Images of a set's split train that are walked on; of its other splits a quarter."""

# `demo` brings its own images, and runs by `make demo`; the other trains two dozen networks.
ELSEWHERE = {"demo", "evaluate membership"}
AFFORDABLE = {
    "train": "--steps 4 --batch-size 2 --config small.json",
    "evaluate": "--limit 2 --corruption replace --size 64",
    "evaluate diversity": "--samples 2 --limit 2 --factor 1",
    "evaluate fidelity": "--mode sample --factor 1 --limit 2",
    "evaluate audit": "--samples 2 --limit 8",
    "preview": "--rows 2",
    "tune": "--trials 1 --steps 2",
    "evaluate bench": "--images 1 --size 32 --rounds 1",
}
PLACES = {
    "RECORDS": "records",
    "SERIES": "scans",
    "SPLIT": "validation",
    "augmented": "out",
}
SETS_OF_BENCHMARKS = {"LGG", "KIDNEY"}
HASH = EXAMPLES["which"].split()[-1]
TAKES_SPLIT = {"evaluate", "evaluate diversity", "evaluate fidelity", "evaluate audit"}

# A line of TensorFlow's log at the level of errors, what Python prints of an exception, and ours.
RED = re.compile(
    r"^(?:[\d-]+ [\d:.]+: )?[EF](?:\d{4})?[ :]|Traceback|INVALID_ARGUMENT|terminate called|^error:",
    re.MULTILINE,
)
# What is wrong in a script of one's own, in which TensorFlow logs what it likes.
FAULT = re.compile(r"Traceback|INVALID_ARGUMENT|terminate called")
SMALL = {"model": {"image_size": 64}}
LOOK = """
import json

batches = [(images, target["labels"]) for images, target in train.take(6)]
print(json.dumps({
    "loss": detector.history.history["loss"],
    "highest": [float(tf.reduce_max(images)) for images, _ in batches],
    "mean": [float(tf.reduce_mean(images)) for images, _ in batches],
    "boxes": int(sum(tf.reduce_sum(tf.cast(labels >= 0, tf.int32)) for _, labels in batches)),
}))
"""


BUILD = {"name": "clinic", "checkpoint": "demo", "seed": 1}
# What scripts of other documents than the README have before them, and what is looked at after.
AROUND = {
    "docs/index.md": (
        "",
        """
assert len(list(train.take(2))) == 2
""",
    ),
    "docs/gallery.md": (
        "",
        """
assert abdomen["image"].shape == head["image"].shape == (192, 192, 1)
""",
    ),
    "docs/albumentations.md": (
        """
import numpy as np
from vae_aug import read_records

element = next(e for e in read_records("records", "train") if len(e["objects"]["label"]))
image, height, width = element["image"].numpy(), *element["image"].shape[:2]
boxes = element["objects"]["bbox"].numpy()[:, [1, 0, 3, 2]] * [width, height, width, height]
labels = element["objects"]["label"].numpy()
""",
        """
for changed in train.take(2):
    assert changed["image"].dtype == element["image"].dtype
    assert len(changed["objects"]["bbox"]) == len(changed["objects"]["label"])
if "result" in globals():
    assert result["image"].shape == image.shape and len(result["labels"]) == len(labels)
""",
    ),
    "docs/grain.md": (
        "",
        """
assert element["image"].dtype in ("uint8", "uint16") and element["objects"]["bbox"].shape[1] == 4
""",
    ),
    "docs/keras.md": (
        "",
        """
assert next(iter(dataset))["images"].shape == (2, 64, 64, 1)
""",
    ),
    "docs/large-sets.md": (
        """
import tensorflow as tf
from vae_aug import VAEAugment, read_records

augment = VAEAugment("demo", seed=1)
service = tf.data.experimental.service
dispatcher = service.DispatchServer()
address = dispatcher.target.partition("://")[2]
worker = service.WorkerServer(service.WorkerConfig(dispatcher_address=address))
distribute = service.distribute
service.distribute = lambda mode, target: distribute(mode, dispatcher.target)
""",
        """
assert next(iter(train))["image"].shape[-1] in (1, 3)
""",
    ),
    "docs/placement.md": (
        """
import tensorflow as tf
from vae_aug import read_records

dataset = read_records("records", "train")
""",
        """
assert len(list(dataset.take(2))) == 2
""",
    ),
    "tfds_builders/med_vae_augmented/README.md": (
        """
import tensorflow_datasets as tfds
from vae_aug import read_records

built = tfds.load("med_vae_augmented/clinic", split="train", data_dir="built")
example = next(iter(tfds.as_numpy(built)))
source = read_records("records", "train")
source = source.filter(lambda element: element["image/source_id"] == example["image/id"])
""",
        """
(element,) = again
assert (element["image"].numpy() == example["image"]).all() and example["augment/augmented"]
""",
    ),
}


def write_subset(source, folder):
    """Copy a COCO set of `TRAINED_ON` images, evenly chosen, with the other JSON files in it."""
    (folder / "images").mkdir(parents=True)
    for file in sorted(source.glob("*.json")):
        content = json.loads(file.read_bytes())
        if "annotations" in content:
            count = TRAINED_ON if file.stem == "train" else TRAINED_ON // 4
            images = content["images"][:: len(content["images"]) // count][:count]
            kept = {image["id"] for image in images}
            content["images"] = images
            content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
            for image in images:
                shutil.copy(source / "images" / image["file_name"], folder / "images")
        (folder / file.name).write_text(json.dumps(content))


def write_series(source, folder):
    """Copy a series of DICOM without those of its slices, beyond `TRAINED_ON`, that have no box."""
    shutil.copytree(source, folder)
    annotated = {path.stem for path in (folder / "annotations").iterdir()}
    paths = sorted((folder / "series").iterdir())
    bare = [path for path in paths if str(pydicom.dcmread(path).SOPInstanceUID) not in annotated]
    for path in bare[TRAINED_ON - len(annotated) :]:
        path.unlink()


class Walk:
    """Runs commands one after the other, prints what each took, and finds what is wrong."""

    def __init__(self, folder):
        self.folder, self.began, self.picture_after = folder, time.monotonic(), None

    def run(self, *command, status=0, given=None, red=RED, folder=None):
        """Run a process, check its status and that nothing red was printed; return its output."""
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder or self.folder,
            capture_output=True,
            text=True,
            input=given,
            timeout=1800,
            check=False,
        )
        seconds = time.monotonic() - began
        shown = " ".join(command).removeprefix("-m vae_aug.cli ")
        print(f"{seconds:6.1f} s  status {done.returncode}  {shown}", flush=True)
        if self.picture_after is None and list(self.folder.rglob("records/*.png")):
            self.picture_after = time.monotonic() - self.began
        output = done.stdout + done.stderr
        assert done.returncode == status, output
        if not status:
            assert not red.search(output), output
        return output

    def vae_aug(self, line, status=0):
        """Run a command as it is printed, but for what makes it affordable."""
        arguments = shlex.split(afford(line), comments=True)[1:]
        return self.run("-m", "vae_aug.cli", *arguments, status=status)

    def vae_aug_together(self, lines):
        """Run several commands in one process and return their output."""
        lines = [afford(line) for line in lines]
        output = self.run("together.py", given="\n".join(lines))
        done = re.findall(r"^DONE (.*  status (\d+)  .*)$", output, re.MULTILINE)
        print("\n".join(line for line, _ in done), flush=True)
        assert [status for _, status in done] == ["0"] * len(lines), output
        return output


def afford(line):
    """Add to a command what makes it affordable."""
    line = line.partition("#")[0].strip()
    return f"{line} {AFFORDABLE.get(find_name(line), '')}".strip()


def find_name(line):
    """Return the words of a printed command, without `vae-aug`."""
    return split_command(line.split()[1:])[0]


TOGETHER = """
import shlex, sys, time
from vae_aug import cli

for line in sys.stdin.read().splitlines():
    began = time.monotonic()
    status = 0
    try:
        cli.app(shlex.split(line)[1:])
    except SystemExit as done:
        status = done.code or 0
    print(f"DONE {time.monotonic() - began:6.1f} s  status {status}  {line}", flush=True)
"""
"""Runs commands in one process, as the start of TensorFlow takes longer than most of them."""


def list_lines(is_dicom, records):
    """List the commands that follow the README's blocks, one's output before another's input.

    They are those that the documents print with their arguments; of other commands, the example in
    the help.
    """
    in_blocks = {line for _, block in BLOCKS for line in block.splitlines()}
    printed = {name: [] for name in ORDER}
    for _, line in list_printed_commands():
        name, arguments = split_command(shlex.split(line, comments=True)[1:])
        # Other sets, and what a sentence only names.
        if (
            line in in_blocks
            or name not in printed
            or not arguments
            or SETS_OF_BENCHMARKS & {*arguments}
        ):
            continue
        if ("SERIES" in arguments and not is_dicom) or any("*" in part for part in arguments):
            continue
        if "{" not in line and arguments[0] not in ("IN_DIR", "scans", "FOLDER"):
            printed[name].append(line)
    for name in ORDER:
        if name in ELSEWHERE or (name in ("ingest", "check") and not printed[name]):
            continue
        lines = printed[name] or [f"vae-aug {EXAMPLES[name]}"]
        yield from dict.fromkeys(adapt(name, line, is_dicom, records) for line in lines)


def find_hash(records):
    """Return the source id of a record, which is a hash."""
    return next(iter(read_records(records, "train")))["image/source_id"].numpy().decode()


def adapt(name, line, is_dicom, records):
    """Put the folders of the walk in the place of what a line has for them."""
    for placeholder, place in PLACES.items():
        line = re.sub(rf"\b{placeholder}\b", place, line)
    if name == "ingest":
        line = re.sub(r"\brecords\b", "neighbours", line)
    if is_dicom:
        line = line.replace("scans/images", "scans")
    if name == "which":
        line = line.replace(HASH, find_hash(records)) + " --split all"
    if name == "replay":
        line = line.replace("--ckpt run", "--ckpt demo")  # as the README augments
    asked = re.search(r"--split (\w+)", line)
    splits = read_info(records).splits
    if name in TAKES_SPLIT and (asked[1] if asked else "validation") not in splits:
        line = line.replace(asked[0], "") if asked else line
        line += " --split train"
    return " ".join(line.split())


def walk_blocks(walk, *, one_patient, says):
    """Run the README's blocks in order, with what `ingest` advises; return what the script saw."""
    for language, block in BLOCKS:
        if language == "python":
            for printed, affordable in CHANGED.items():
                assert block.count(printed) == 1, printed
                block = block.replace(printed, affordable)
            (walk.folder / "script.py").write_text(block + LOOK)
            output = walk.run("script.py", red=FAULT)
            return json.loads(re.search(r'^\{"loss".*', output, re.MULTILINE)[0])
        for line in block.splitlines():
            if not line.startswith("vae-aug"):
                continue
            if one_patient and BY_PATIENT in line:
                assert "Leave --split-by-patient out" in walk.vae_aug(line, status=1)
                line = line.replace(BY_PATIENT, "")
            output = walk.vae_aug(line)
            if " ingest " in line:
                assert output.count(says) == 1 or not says
                follow_advice(walk, line, output)
    raise AssertionError("the README has no script")


def follow_advice(walk, line, output):
    """Run an ingest again with the options that its output names."""
    line = line.partition("#")[0]
    if window := re.search(r"with --overwrite and (--window \S+?),? ", output):
        line += f" --overwrite {window[1]}"
        output = walk.vae_aug(line)
        assert "of 16 bits" not in output
    if "--split all" in output:
        line += " --split all" + ("" if "--overwrite" in line else " --overwrite")
        assert "left unread" not in walk.vae_aug(line)


def build_dataset(walk):
    """Run the README's `tfds build` with the walk's records."""
    config = json.dumps({**BUILD, "source": str(walk.folder / "records")})
    command = ("-m", "tensorflow_datasets.scripts.cli.main", "build", "med_vae_augmented")
    place = {"folder": ROOT / "tfds_builders", "red": FAULT}
    walk.run(*command, "--config", config, "--data_dir", str(walk.folder / "built"), **place)


def walk_scripts(walk):
    """Run the scripts of each document but the README one after the other."""
    for name, (before, after) in AROUND.items():
        scripts = [script for place, script in list_scripts() if place == name]
        path = walk.folder / f"{name.replace('/', '_')}.py"
        path.write_text(before + "".join(script + after for script in scripts))
        walk.run(path.name, red=FAULT)


def test_every_script_of_the_documents_is_walked():
    assert {name for name, _ in list_scripts()} == {"README.md", *AROUND}
    scripts = [script for name, script in list_scripts() if name == "README.md"]
    assert scripts == [block for language, block in BLOCKS if language == "python"]


@pytest.mark.slow
@pytest.mark.walk
@pytest.mark.real_data
@pytest.mark.parametrize("name", SETS)
def test_a_new_user_gets_what_the_documents_say(tmp_path, monkeypatch, data_dir, name):
    pytest.importorskip("keras_hub", reason="install vae-aug[detect]")
    if not (data_dir / name).is_dir():
        pytest.skip(f"no real data: {data_dir / name} is not a folder")
    monkeypatch.setenv("VAE_AUG_SALT", "s")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    one_patient = SETS[name].get("one_patient", False)
    if one_patient:
        write_series(data_dir / name, tmp_path / "scans")
    else:
        write_subset(data_dir / name, tmp_path / "scans")
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    print(f"\n{name}")
    walk = Walk(tmp_path)
    seen = walk_blocks(walk, one_patient=one_patient, says=SETS[name].get("says", ""))
    assert np.isfinite(seen["loss"]).all() and seen["boxes"] > 1
    # Neither nearly black nor washed out.
    assert max(seen["highest"]) <= 255 and min(seen["highest"]) > 100 and max(seen["mean"]) > 10
    assert walk.picture_after is not None
    info = read_info(tmp_path / "records")
    assert info.dtype == SETS[name]["dtype"]
    (tmp_path / "together.py").write_text(TOGETHER)
    lines = list(list_lines(one_patient, tmp_path / "records"))
    if one_patient:  # whom `demo` was trained on, so that none is left to audit it with
        audits = [line for line in lines if find_name(line) == "evaluate audit"]
        lines = [line for line in lines if line not in audits]
        for line in audits:
            assert "held-out images are needed" in walk.vae_aug(line, status=1)
    output = walk.vae_aug_together(lines)
    told = re.findall(r"again into another folder with (--window \S+),", output)
    assert bool(told) == ("of 16 bits" in SETS[name].get("says", ""))
    for window in told:
        line = f"vae-aug {EXAMPLES['denoise'].replace('denoised', 'windowed')} {window}"
        assert "of 16 bits" not in walk.vae_aug(line)
    build_dataset(walk)
    walk_scripts(walk)
    took = time.monotonic() - walk.began
    print(f"first own picture after {walk.picture_after:.0f} s, all of it {took:.0f} s")
