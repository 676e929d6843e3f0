"""The README's blocks run as printed and in order, from files into a KerasHub detector."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import textwrap

import numpy as np
import pytest
from conftest import ROOT
from test_cli import COMMANDS, run, split_command
from test_dicom import write_dicom

from vae_aug.codecs.images import write_image
from vae_aug.model.checkpoint import save_checkpoint
from vae_aug.records.records import read_info, read_records

README = (ROOT / "README.md").read_text(encoding="utf-8")
TFDS_README = ROOT / "tfds_builders" / "med_vae_augmented" / "README.md"
_, SECTION = README.split("## Into your training code\n")
BLOCKS = re.findall(r"```(sh|python)\n(.+?)```", SECTION.split("\n## ")[0], re.DOTALL)
SIZE = 128
# Images, batches and a backbone as they are printed, and as a test can afford them.
CHANGED = {
    "SIZE = 512\n": f"SIZE = {SIZE}\n",
    "padded_batch(8,": "padded_batch(2,",
    "[2, 2, 2, 2]": "[1, 1, 1, 1]",
}
BY_PATIENT = " --split-by-patient 0.7,0.15,0.15"
OBJECT = """<object><name>lesion</name><bndbox>
<xmin>8</xmin><ymin>4</ymin><xmax>24</xmax><ymax>36</ymax></bndbox></object>"""


@pytest.fixture
def workplace(tmp_path, monkeypatch, short_stages, tiny_ladder):
    """The folder in which the reader works; a small network stands for `demo`."""
    pytest.importorskip("keras_hub", reason="install vae-aug[detect]")
    monkeypatch.setenv("VAE_AUG_SALT", "s")
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny_ladder, tmp_path / "begin.keras")
    return tmp_path


def make_pixels(seed, height, width, highest):
    """Make an image of blotches, `[H, W, 1]`, that resembles no other."""
    small = np.random.default_rng(seed).integers(0, highest + 1, (height // 4, width // 4))
    return small.repeat(4, axis=0).repeat(4, axis=1)[..., None]


def write_mr(folder, patients=10, slices=2):
    """Write COCO of 8-bit images of two sizes; of six patients of ten, no image has a box."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for patient in range(patients):
        for number in range(slices):
            height, width = ((40, 48), (64, 56))[number % 2]
            name, key = f"P{patient}_{number}.png", len(images)
            pixels = make_pixels(key, height, width, 255).astype(np.uint8)
            write_image(folder / "images" / name, pixels)
            entry = {"id": key, "file_name": name, "height": height, "width": width}
            images.append({**entry, "patient": f"P{patient}"})
            annotations += [
                {"id": 9 * key + i, "image_id": key, "category_id": 1, "bbox": [8, 4, 16, 32]}
                for i in range(number + 1 if patient < 4 else 0)
            ]
    categories = [{"id": 1, "name": "lesion"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "train.json").write_text(json.dumps(content))


def write_ct(folder, slices=10):
    """Write a series of 16-bit DICOM files of one patient, with boxes in two of its slices."""
    folder.mkdir()
    for number in range(slices):
        pixels = make_pixels(number, 40, 48, 4095)[..., 0].astype(np.uint16)
        write_dicom(folder / f"{number}.dcm", pixels, RescaleSlope=1, RescaleIntercept=-1024)
        size = "<size><width>48</width><height>40</height><depth>1</depth></size>"
        text = f"<annotation>{size}{OBJECT if number < 2 else ''}</annotation>"
        (folder / f"{number}.xml").write_text(text)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """Where the first walk leaves its training's folder for the next, since tracing takes long."""
    return tmp_path_factory.mktemp("first") / "run"


def run_command(line, scans, first_run):
    """Run a printed command, as it is but for the scans, the checkpoint and the time it takes."""
    line = line.replace(" scans ", f" {scans} ").replace("-from demo", "-from begin.keras")
    arguments = shlex.split(line, comments=True)[1:]
    if arguments[0] != "train":
        return run(*arguments)
    if first_run.exists():
        shutil.copytree(first_run, "run")
        return run("info", "run")
    result = run(*arguments, "--steps", "1", "--batch-size", "2")
    shutil.copytree("run", first_run)
    return result


def run_blocks(scans, first_run, *, one_patient=False):
    """Run the README's blocks in order and return the names that its script leaves."""
    names: dict[str, object] = {}
    for language, block in BLOCKS:
        if language == "python":
            for printed, affordable in CHANGED.items():
                assert block.count(printed) == 1, printed
                block = block.replace(printed, affordable)
            exec(block, names)
            continue
        for line in block.splitlines():
            if not line.startswith("vae-aug"):
                assert line.startswith(("git clone ", "make ")), line
                continue
            if one_patient and BY_PATIENT in line:
                refused = run_command(line, scans, first_run)
                assert refused.exit_code == 1 and "Leave --split-by-patient out" in refused.stderr
                line = line.replace(BY_PATIENT, "")
            result = run_command(line, scans, first_run)
            assert result.exit_code == 0, (line, result.stderr)
    return names


def check_training(names):
    """Check what reached the detector, and return the number of boxes in each batch."""
    history = names["detector"].history.history
    assert np.isfinite(history["loss"]).all()
    counts, highest = [], 0.0
    expected = {
        tuple(np.float32(box) * SIZE)
        for element in read_records("records", "train")
        for box in element["objects"]["bbox"].numpy()
    }
    for images, target in names["train"]:
        assert images.shape[1:] == (SIZE, SIZE, 3) and np.std(images) > 1
        assert np.min(images) >= 0 and np.max(images) <= 255
        highest = max(highest, float(np.max(images)))
        is_box = target["labels"].numpy() >= 0
        assert {tuple(box) for box in target["boxes"].numpy()[is_box]} <= expected
        assert np.all(target["boxes"].numpy()[~is_box] == -1)
        counts.append(int(is_box.sum()))
    assert highest > 100
    assert sum(counts) == read_info("records").splits["train"].boxes
    return counts


# Keras 3.15 warns of its own default value, and Keras 3.8 of KerasHub's lists of one input.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match:UserWarning")
@pytest.mark.parametrize(
    ("write", "dtype", "one_patient"),
    [
        pytest.param(write_mr, "uint8", False, marks=pytest.mark.slow),
        (write_ct, "uint16", True),
    ],
)
def test_the_blocks_run_in_order(workplace, first_run, write, dtype, one_patient):
    write(workplace / "files")
    names = run_blocks("files", first_run, one_patient=one_patient)
    info = read_info("records")
    assert info.dtype == dtype and info.label_names == ("lesion",)
    assert set(info.splits) == ({"train"} if one_patient else {"train", "validation", "test"})
    counts = check_training(names)
    assert len(counts) > 3 and counts.count(0) > 1 and sum(counts) > 1


def list_scripts():
    """List the scripts of Python that documents print, as (path of the document, script)."""
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), TFDS_README):
        text = path.read_text(encoding="utf-8")
        for script in re.findall(r"^ *```python\n(.+?)^ *```", text, re.DOTALL | re.MULTILINE):
            yield path.relative_to(ROOT).as_posix(), textwrap.dedent(script)


def list_printed_commands():
    """List what documents print after `vae-aug`, in blocks and between backticks."""
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    documents += [ROOT / "benchmarks" / "README.md", TFDS_README]
    for path in documents:
        text = path.read_text(encoding="utf-8")
        blocks = re.findall(r"```sh\n(.+?)```", text, re.DOTALL)
        spans = re.findall(r"`(vae-aug [^`]+)`", re.sub(r"```.+?```", "", text, flags=re.DOTALL))
        lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
        for line in (*lines, *(" ".join(span.split()) for span in spans)):
            if line.startswith("vae-aug "):
                yield path.name, line


def test_printed_commands_have_the_options_that_there_are():
    printed = list(list_printed_commands())
    assert len(printed) > 40
    for place, line in printed:
        name, arguments = split_command(shlex.split(line, comments=True)[1:])
        if name.startswith("-"):
            continue
        try:
            COMMANDS[name].make_context(name, arguments)
        except Exception as error:
            # Arguments may be left out where a sentence only names the command.
            if type(error).__name__ != "MissingParameter":
                pytest.fail(f"{place}: {line}: {error}")
