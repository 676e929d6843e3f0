"""The command line: help, exit statuses, one-line errors, and that options arrive."""

from __future__ import annotations

import inspect
import json
import math
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
import typer
from fake_vae import BrighteningVAE, ErasingVAE, FakeVAE
from test_training import STEP
from typer.testing import CliRunner

from vae_aug import cli
from vae_aug.augment import transform
from vae_aug.cli import calls, choices, console, paths
from vae_aug.codecs.extent import Extent
from vae_aug.codecs.images import read_image, write_image
from vae_aug.config import TRAIN_RECIPES, AugmentConfig, ModelConfig, TrainConfig, VariationConfig
from vae_aug.errors import VAEAugError
from vae_aug.evaluate.denoising import Corruptions
from vae_aug.evaluate.outcome import Difference, Outcome
from vae_aug.evaluate.speed import WAYS, Failure, Speed
from vae_aug.evaluate.subset import Subset
from vae_aug.ingest.privacy import hash_identifier
from vae_aug.model.checkpoint import save_checkpoint
from vae_aug.model.vae import VAE
from vae_aug.phantoms.embedded import write_embedded
from vae_aug.records.records import make_example, read_info, read_records, write_records
from vae_aug.train import recipe
from vae_aug.version import __version__


def list_commands(group, words=()):
    """Map the words of each command that a help shows, from `vae-aug` on, to the command."""
    found = {}
    for name, command in group.commands.items():
        if not command.hidden:
            found[" ".join((*words, name))] = command
            found |= list_commands(command, (*words, name)) if hasattr(command, "commands") else {}
    return found


COMMANDS = list_commands(typer.main.get_command(cli.app))


def split_command(arguments):
    """Part the words of a command, after `vae-aug`, from its arguments."""
    names = (" ".join(arguments[:count]) for count in (2, 1))
    name = next((name for name in names if name in COMMANDS), arguments[0])
    return name, arguments[len(name.split()) :]


def run(*arguments, columns=200):
    """Run a command in this process; rich is told not to colour, and hardly has to wrap."""
    environment = {"COLUMNS": str(columns), "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(cli.app, [str(part) for part in arguments], env=environment)


@pytest.fixture
def records(tmp_path):
    """Two images for each split, of 24 x 20 pixels, with one box each."""
    for split in ("train", "validation"):
        examples = [
            make_example(
                (np.arange(480).reshape(24, 20, 1) % 120).astype(np.uint8),
                source_id=f"{split}-{index}",
                patient=f"patient-{index}",
                boxes=np.array([[0.25, 0.25, 0.5, 0.75]], np.float32),
                labels=[index],
                label_names=("lesion", "stone"),
            )
            for index in range(2)
        ]
        write_records(examples, tmp_path / "records", split, label_names=("lesion", "stone"))
    return tmp_path / "records"


@pytest.fixture
def brighten(monkeypatch):
    """Let every checkpoint be a stand-in that brightens by a quarter."""
    monkeypatch.setattr(transform, "open_checkpoint", lambda checkpoint: BrighteningVAE())
    monkeypatch.setattr(calls, "load_checkpoint", lambda checkpoint: FakeVAE())


# --- All commands ----------------------------------------------------------------------------


def test_version():
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"vae-aug {__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_for_every_option(command):
    *above, name = command.split()
    assert re.search(rf"^│ {name} ", run(*above, "--help").stdout, re.MULTILINE)
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    options = re.findall(r"(--[\w-]+) +[^\n]*<[^\n]*> +(\S[^\n]*)", result.stdout)
    assert len(options) == len(re.findall(r"^.{0,5}--[a-z]", result.stdout, re.MULTILINE)) > 0


@pytest.mark.parametrize("command", COMMANDS)
def test_no_choice_is_broken_in_a_help_of_80_columns(command):
    text = run(*command.split(), "--help", columns=80).stdout
    assert max(map(len, text.splitlines())) <= 80
    # A word that is too long for its column goes on in the next line, so its end is missing here.
    kinds = re.findall(r" (<[^ ]*)", text)
    assert kinds and {kind for kind in kinds if kind[-1] != ">"} <= {"<int", "<float"}  # "range>"
    words = set(re.findall(r"[\w-]+", text))
    for parameter in inspect.signature(COMMANDS[command].callback).parameters.values():
        assert set(choices.list_literals(parameter.annotation)) <= words


def test_the_help_does_not_show_former_words():
    text = run("replay", "--help").stdout + run("evaluate", "audit", "--help").stdout
    assert "[OPTIONS] {file}" in text and "index" not in text and "--train" not in text
    listed = re.findall(r"^│ (\w+) ", run("--help").stdout, re.MULTILINE)
    assert "evaluate" in listed and not {"audit", "bench", "diversity", "fidelity"} & {*listed}


def test_the_help_of_a_group_explains_it_with_a_command_and_without():
    text = run("evaluate", "--help").stdout
    assert "Usage: vae-aug evaluate [OPTIONS] {records} | COMMAND [ARGS]..." in text
    assert "Without a further command: SSIM" in text and "vae-aug evaluate diversity --help" in text
    below = run("evaluate", "diversity", "--help").stdout
    assert "Usage: vae-aug evaluate diversity [OPTIONS] {records}" in below


def test_defaults_in_the_help_are_those_of_the_package():
    text = re.sub(r"[│\s]+", " ", run("train", "--help").stdout)
    plain, ladder = TrainConfig(), TRAIN_RECIPES["ladder"]
    defaults = {
        "steps": plain.steps,
        "batch-size": plain.batch_size,
        "encoder": f"that of --start-from, or {ModelConfig().encoder} without it",
        "loss": f"{plain.loss}; of a ladder {ladder['loss']}",
        "learning-rate": f"{plain.learning_rate}; of a ladder {ladder['learning_rate']}",
        "seed": plain.seed,
    }
    for option, value in defaults.items():
        assert re.search(rf" --{option} <.*?\[default: (.*?)\]", text)[1] == str(value)


@pytest.mark.parametrize(
    ("former", "present", "note"),
    [
        (
            ("augment", "{r}", "out", "--augment-split", "test"),
            ("augment", "{r}", "out", "--split", "test"),
            "write --split in the place of --augment-split",
        ),
        (
            ("evaluate", "audit", "vector", "--train", "{r}", "--held-out-split=test"),
            ("evaluate", "audit", "{r}", "--ckpt", "vector", "--split=test"),
            "write {r} --ckpt vector in the place of vector --train {r}",
        ),
        (
            ("replay", "{r}/dataset.json", "3", "--source", "{r}"),
            ("replay", "{r}/dataset.json", "--record", "3", "--source", "{r}"),
            "write {r}/dataset.json --record 3 in the place of {r}/dataset.json 3",
        ),
        *(
            (
                (name, *arguments),
                ("evaluate", name, *arguments),
                f"write vae-aug evaluate {name} in the place of vae-aug {name}",
            )
            for name, *arguments in (
                ("diversity", "{r}", "--split", "test"),
                ("fidelity", "{r}", "--split", "test"),
                ("audit", "{r}", "--split", "test"),
                ("bench", "--ckpt", "{r}/none.keras"),
            )
        ),
    ],
)
def test_former_words_are_taken_with_a_note(records, former, present, note):
    """Both forms fail alike, at a split or a file that is not there."""

    def fill(texts):
        return [text.replace("{r}", str(records)) for text in texts]

    expected = run(*fill(present))
    assert expected.exit_code == 1 and expected.stderr.startswith("error: ")
    result = run(*fill(former))
    assert result.exit_code == 1 and result.stderr.endswith(expected.stderr)
    assert f"note: {fill([note])[0]}," in result.stderr and "note:" not in expected.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("evaluate r --ckpt d", ["demo"]),
        ("evaluate bench --ckpt d", ["demo"]),
        ("evaluate bench --engine openvino", ["openvino", "openvino-bfloat16"]),
        ("evaluate fid", ["fidelity"]),
        ("evaluate rec", []),
        ("augment r o --engine x", ["xla"]),
        ("augment r o --split t", ["train", "test"]),
        ("fid", []),
        ("fidelity --split t", ["train", "test"]),
        ("ev", ["evaluate"]),
    ],
)
def test_the_shell_completes(words, expected):
    environment = {"_VAE_AUG_COMPLETE": "complete_bash", "COMP_WORDS": f"vae-aug {words}"}
    environment["COMP_CWORD"] = str(len(words.split()))
    result = CliRunner().invoke(cli.app, [], env=environment, prog_name="vae-aug")
    assert result.stdout.split() == expected and not result.stderr


def test_json_is_alone_on_stdout_also_where_a_command_fails(records, monkeypatch):
    monkeypatch.setattr(calls, "load_checkpoint", lambda checkpoint: ErasingVAE())
    options = ("--split", "train", "--mode", "sample", "--factor", 1, "--guard", "off")
    result = run("evaluate", "fidelity", records, *options, "--json")
    assert result.exit_code == 1 and "below --min-fidelity" in result.stderr
    [row] = json.loads(result.stdout)
    assert (row["mode"], row["factor"], row["boxes"], row["below"]) == ("sample", 1.0, 2, 2)
    result = run("info", records, "--json")
    content = json.loads(result.stdout)
    assert content["labels"] == ["lesion", "stone"]
    assert content["parts"]["train"]["lowest_fidelity"] is None  # not NaN, which is not JSON


def test_damaged_records_are_an_error_also_where_tensorflow_finds_them(records, brighten):
    path = records / "validation-00000-of-00001.tfrecord"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    result = run("preview", records, "--split", "validation")
    assert result.exit_code == 1 and re.search(
        r"^error: .*validation-00000-of-00001\.tfrecord, record 1: damaged", result.stderr
    )


@pytest.fixture
def shown(monkeypatch):
    """Text of the columns of every bar that was made, and what they counted, when it ended."""
    shown = []

    class Recorded(console.Progress):
        def stop(self):
            shown.extend((task.description, task.completed, task.total) for task in self.tasks)
            super().stop()

    monkeypatch.setattr(console, "Progress", Recorded)
    return shown


@pytest.mark.parametrize(
    ("words", "stand_in", "bars"),
    [
        ("check {r}", None, [("records", 4, 4), ("images", 4, 4)]),
        ("which {r} 00", "find_hashed", [("reading the source", 0, None)]),
        (
            "replay {r}/dataset.json --source {r}",
            "replay_record",
            [("searching for its source, and making it again", 0, None)],
        ),
        ("augment {r} {r}/out --strict", "count_patients", [("comparing patients", 0, None)]),
        (
            "preview {r} --split train --samples 1 --out {r}/sheet.png",
            None,
            [("choosing images", 0, None), ("drawing", 0, None)],
        ),
    ],
)
def test_what_takes_long_has_a_bar(records, brighten, monkeypatch, shown, words, stand_in, bars):
    if stand_in:

        def fail(*arguments, **options):
            raise VAEAugError("enough")

        monkeypatch.setattr(calls, stand_in, fail)
    result = run(*words.replace("{r}", str(records)).split())
    assert result.exit_code == bool(stand_in), result.output
    assert shown == bars


def test_the_judgement_of_a_training_has_a_bar(records, tmp_path, trained, shown):
    assert run("train", records, "--out", tmp_path / "run").exit_code == 0
    assert [name for name, *_ in shown] == ["variation", "train", "comparing"]


def test_a_bar_is_on_a_terminal_alone(records):
    for terminal in ({"FORCE_COLOR": "1", "TERM": "xterm"}, {}):
        result = CliRunner().invoke(cli.app, ["check", str(records)], env=terminal)
        assert result.exit_code == 0
        assert ("records" in result.stderr and "4/4" in result.stderr) == bool(terminal)
        assert "4/4" not in result.stdout


# --- Each command ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    write_embedded(folder, counts={"train": 4, "validation": 2}, size=32, real=False)
    return folder


def test_ingest_writes_records_and_tells_what_it_took(coco, tmp_path):
    result = run("ingest", coco, tmp_path / "out", "--format", "coco", "--keep-ids", "--shards", 2)
    assert result.exit_code == 0, result.stderr
    assert "4 images written, 2 patients" in result.stdout
    written = read_info(tmp_path / "out")
    assert (written.splits["train"].examples, written.splits["train"].shards) == (4, 2)
    for label, count in written.splits["train"].class_counts.items():
        assert re.search(rf"{label} +│ +{count} ", result.stdout)


def write_alike(folder, count, patients=""):
    """Write COCO of images with a box each of the one label there is."""
    (folder / "images").mkdir(parents=True)
    listed = []
    for index in range(count):
        image = np.random.default_rng(index).integers(0, 256, (40, 40, 1)).astype(np.uint8)
        write_image(folder / "images" / f"{index}.png", image)
        entry = {"id": index, "file_name": f"{index}.png", "height": 40, "width": 40}
        listed.append(entry | ({"patient": patients[index]} if patients else {}))
    boxes = [
        {"id": index, "image_id": index, "category_id": 1, "bbox": [1, 2, 9, 9]}
        for index in range(count)
    ]
    content = {"images": listed, "annotations": boxes, "categories": [{"id": 1, "name": "stone"}]}
    (folder / "train.json").write_text(json.dumps(content))
    return folder


def test_ingest_says_once_what_concerns_all_splits_and_counts_one_as_one(tmp_path):
    source = write_alike(tmp_path / "in", 3)
    result = run("ingest", source, tmp_path / "out", "--split-by-patient", "0.4,0.3,0.3")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("WARNING: the source names no patients") == 1
    assert result.stdout.count("format coco: ") == 1
    for split in "train", "validation", "test":
        # A single label's row says it all.
        assert len(re.findall(rf"│ {split} +│ ", result.stdout)) == 1
        assert f"{split}: 0 files skipped, 0 boxes dropped" in result.stdout
    assert result.stdout.count("1 image written") == 3
    assert not re.search(r"\b1 (images|files|boxes|patients)\b", result.stdout)


def test_ingest_shows_the_sum_of_several_labels(coco, tmp_path):
    result = run("ingest", coco, tmp_path / "out")
    boxes = read_info(tmp_path / "out").splits["train"].boxes
    assert re.search(rf"train +│ all +│ +{boxes} ", result.stdout)


def test_what_ingest_advises_works(tmp_path):
    source, out = write_alike(tmp_path / "in", 4, "AABB"), tmp_path / "out"
    for split in "val", "series":
        shutil.copy(source / "train.json", source / f"{split}.json")
    (source / "series.json").write_text('[{"patient": "A", "KVP": "140"}]')
    content = json.loads((source / "val.json").read_text())
    content["images"] = content["images"][2:]
    content["annotations"] = content["annotations"][2:]
    (source / "val.json").write_text(json.dumps(content))
    content = json.loads((source / "train.json").read_text())
    content["images"], content["annotations"] = content["images"][:3], content["annotations"][:3]
    (source / "train.json").write_text(json.dumps(content))
    command = ("ingest", source, out)
    assert run(*command).exit_code == 0
    leaking = run(*command, "--split", "val")
    assert leaking.exit_code == 0 and "WARNING: " in leaking.stdout
    advised = re.search(r"same command with (--split all .+?) at its end", leaking.stdout)[1]
    shares = advised.replace("0.7,0.15,0.15", "0.5,0.5").split()  # of two patients
    result = run(*command, "--split", "val", *shares)
    assert result.exit_code == 0, result.stderr
    assert "in two splits: 0 patients, 0 source_ids, 0 images" in result.stdout
    assert "left unread" not in result.stdout and "cannot be read" not in result.stdout
    some = run("ingest", source, tmp_path / "some", "--split-by-patient", "0.5,0.5")
    assert "the source also has validation (1 image), left unread; --split all" in some.stdout


def test_ingest_refuses_a_split_that_is_there_unless_told(coco, tmp_path):
    out = tmp_path / "out"
    assert run("ingest", coco, out).exit_code == 0
    again = run("ingest", coco, out)
    assert again.exit_code == 1 and "add --overwrite" in again.stderr
    again = run("ingest", coco, out, "--overwrite")
    count = read_info(out).splits["train"].examples
    assert again.exit_code == 0 and f"replaced the former train of {count} images" in again.stdout


def test_ingest_names_what_is_in_two_splits_and_strict_fails(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for index in range(4):
        image = np.random.default_rng(index).integers(0, 256, (40, 40, 1)).astype(np.uint8)
        write_image(source / f"{index}.png", image)
    assert run("ingest", source, out).exit_code == 0
    result = run("ingest", source, out, "--split", "val")
    assert result.exit_code == 0, result.stderr
    assert "in two splits: 0 patients, 4 source_ids, 0 images" in result.stdout
    assert "WARNING: " in result.stdout and "Run the same command with --split all" in result.stdout
    options = ("--split", "val", "--overwrite", "--unannotated", "negative")
    result = run("ingest", source, out, *options, "--strict")
    assert result.exit_code == 1 and "4 leaks between splits" in result.stderr
    result = run("ingest", source, out, *options, "--no-leak-check")
    assert result.exit_code == 0 and "in two splits" not in result.stdout
    result = run("ingest", source, tmp_path / "new", "--split-by-patient", "0.5,0.5")
    assert "in two splits: 0 patients, 0 source_ids, 0 images" in result.stdout
    assert "WARNING: the source names no patients" in result.stdout


def test_ingest_names_what_it_leaves_out_and_strict_fails(coco, tmp_path):
    content = json.loads((coco / "train.json").read_bytes())
    content["images"].append({**content["images"][0], "id": 99, "file_name": "absent.png"})
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.json").write_text(json.dumps(content))
    shutil.copytree(coco / "images", source / "images")
    arguments = ("ingest", source, tmp_path / "out", "--format", "coco", "--keep-ids")
    result = run(*arguments)
    assert result.exit_code == 0
    assert "1 file skipped" in result.stdout and "absent.png" in result.stdout
    result = run(*arguments, "--overwrite", "--strict")
    assert result.exit_code == 1 and "absent.png" in result.stderr


def test_the_report_names_files_by_hashes_that_which_undoes(coco, tmp_path):
    content = json.loads((coco / "train.json").read_bytes())
    content["images"].append({**content["images"][0], "id": 99, "file_name": "DOE_absent.png"})
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.json").write_text(json.dumps(content))
    shutil.copytree(coco / "images", source / "images")
    damaged = next((source / "images").rglob(content["images"][0]["file_name"]))
    damaged = damaged.rename(damaged.with_name("DOE_damaged.png"))
    damaged.write_bytes(b"no image")
    content["images"][0] |= {"file_name": damaged.name, "patient": "DOE"}
    (source / "train.json").write_text(json.dumps(content))
    (tmp_path / "salt").write_text("secret")
    salt = ("--salt-file", tmp_path / "salt")
    result = run("ingest", source, tmp_path / "out", *salt)
    path = damaged.relative_to(source).as_posix()
    assert result.exit_code == 0
    assert re.findall(r"skipped (\S+): ", result.stdout) == ["DOE_absent.png", path]
    written = (tmp_path / "out" / "ingest_train.json").read_text()
    assert "DOE" not in written
    hashes = [problem["file"] for problem in json.loads(written)["problems"]]
    assert run("which", source, *hashes, *salt).stdout.splitlines() == [
        f"{hashes[0]} DOE_absent.png",
        f"{hashes[1]} {path}",
    ]
    patient = hash_identifier("patient", "DOE", b"secret")
    assert run("which", source, patient, *salt).stdout == f"{patient} DOE\n"
    foreign = run("which", source, "0" * 16, *salt)
    assert foreign.exit_code == 1 and "nothing in it has the hash 0000" in foreign.stderr
    strict = run("ingest", source, tmp_path / "out", *salt, "--strict", "--overwrite")
    assert strict.exit_code == 1 and "error: DOE_absent.png: " in strict.stderr


def test_ingest_and_which_take_the_axis(tmp_path, monkeypatch):
    seen = []

    def stop(*arguments, axis, **options):
        seen.append(axis)
        raise ValueError("that is all")

    monkeypatch.setattr(calls, "ingest", stop)
    monkeypatch.setattr(calls, "find_hashed", stop)
    run("ingest", tmp_path, tmp_path / "out", "--axis", "sagittal")
    run("which", tmp_path, "0", "--axis", "coronal")
    run("which", tmp_path, "0")
    assert seen == ["sagittal", "coronal", "axial"]


def test_ingest_takes_the_salt_from_a_file(coco, tmp_path, monkeypatch):
    monkeypatch.delenv("VAE_AUG_SALT", raising=False)
    (tmp_path / "salt").write_text("secret\n")
    arguments = ("--format", "coco", "--labels", "lesion, nodule,stone")
    for name, salt in ("file", ("--salt-file", tmp_path / "salt")), ("variable", ()):
        if name == "variable":
            monkeypatch.setenv("VAE_AUG_SALT", "secret")
        assert run("ingest", coco, tmp_path / name, *arguments, *salt).exit_code == 0
    patients = [
        [element["image/patient"].numpy() for element in read_records(tmp_path / name)]
        for name in ("file", "variable")
    ]
    assert patients[0] == patients[1] and len(patients[0][0]) == 16


@pytest.fixture
def trained(monkeypatch):
    """What `train` and `judge_training` were called with, which do nothing else."""
    seen = {}

    def train(sources, out, recipe, **given):
        seen.update(given, sources=sources, recipe=recipe, model=recipe.model, config=recipe.train)
        given["report"]("plan: a few steps")

    def judge(sources, out, **given):
        assert {name: seen[name] for name in given} == given
        return make_judged()

    monkeypatch.setattr(calls, "train", train)
    monkeypatch.setattr(calls, "judge_training", judge)
    monkeypatch.setattr(calls, "write_model_card", lambda *given: seen.update(card_of=given))
    return seen


def make_judged():
    """Make the outcome of a training that brought something."""
    gain = Difference(0.07, 0.05, 0.09, "better")
    return Outcome(
        images=40,
        groups=12,
        unit="patients",
        step=1500,
        steps=2000,
        start="demo",
        filter={"method": "tv", "weight": 0.4},
        figures={
            "noisy": {"ssim_noisy": 0.1, "psnr_noisy": 8.0},
            "filter": {"ssim_noisy": 0.47, "psnr_noisy": 19.0},
            "start": {"ssim_noisy": 0.61, "psnr_noisy": 21.0, "ssim": 0.97, "psnr": 40.0},
            "trained": {"ssim_noisy": 0.68, "psnr_noisy": 23.0, "ssim": 0.98, "psnr": 41.0},
        },
        against_start=gain,
        against_filter=gain,
        clean_against_start=gain,
        verdict=("Better than what it started from.",),
        advice=("Take more steps.",),
        sheet="run/sheet.png",
        code="dataset = dataset.apply(VAEAugment('run'))",
    )


def test_train_says_how_to_go_on_when_interrupted(records, tmp_path, monkeypatch):
    out = tmp_path / "run"
    reached = iter([(), ("variation", 200), ("variation", 2000), ("state", 200), ("state", 2000)])

    def interrupt(*arguments, progress, variation_progress, **given):
        variation_progress(1, {"loss": 2.0, "kl": 3.0, "displacement": 0.5})
        progress(1, STEP)
        if state := next(reached):
            folder, step = state
            content = tf.train.Checkpoint(step=tf.Variable(2))
            tf.train.CheckpointManager(content, out / folder, 2).save(checkpoint_number=step)
        raise KeyboardInterrupt

    monkeypatch.setattr(calls, "train", interrupt)
    begin = "before the first state of the {}; run the same command again to train it."
    go_on = (
        f"{out} keeps the state of step 200 of 2000 of the {{}}; run the same command again to go "
        "on from there."
    )
    for expected in (
        begin.format("variation"),
        go_on.format("variation"),
        begin.format("restoration"),
        go_on.format("restoration"),
        f"{out} keeps the trained network; run the same command again to have it judged.",
    ):
        result = run("train", records, "--out", out)
        assert (result.exit_code, result.stderr) == (130, f"interrupted: {expected}\n")


def test_train_says_what_it_made_of_the_variation_alone(records, tmp_path, trained, monkeypatch):
    learned = {"variation": {"strength": 1.2}}
    monkeypatch.setattr(calls, "read_manifest", lambda path: {"training": learned})
    chosen = ("train", records, "--out", tmp_path, "--only", "variation", "--steps", 9, "--seed", 5)
    result = run(*chosen)
    assert result.exit_code == 0, result.stderr
    assert trained["recipe"].variation == VariationConfig(steps=9, seed=5)
    assert "to see it: vae-aug preview" in result.stdout
    assert json.loads(run(*chosen, "--json").stdout)["variation"] == {"strength": 1.2}


def test_train_by_default_goes_on_from_demo_and_says_what_came_of_it(records, tmp_path, trained):
    result = run("train", records, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert trained["model"].profile == "ladder"
    assert trained["config"] == TrainConfig(start_from="demo", **TRAIN_RECIPES["ladder"])
    lines = result.stdout.splitlines()
    assert lines[0].startswith("No profile was chosen: a ladder goes on from the packaged 'demo'")
    assert lines[1] == "plan: a few steps"
    assert lines[3:5] == ["Better than what it started from.", "Take more steps."]
    for name, figures in (
        (r"best filter \(tv\)", r"0\.470 │ 19\.0 │ +│ +│"),
        ("what it started from", r"0\.610 │ 21\.0 │ +0\.970 │ +40\.0 │"),
        (r"trained \(step 1,500\)", r"0\.680 │ 23\.0 │ +0\.980 │ +41\.0 │"),
    ):
        assert re.search(rf"{name} +│ +{figures}", result.stdout), name
    assert f"checkpoint: {tmp_path / 'run' / 'checkpoint.keras'}" in lines
    assert lines[-3].startswith("pictures: run/sheet.png, ") and lines[-3].endswith("curves.png")
    assert lines[-2].startswith("figures: ")
    assert lines[-1] == "to use it: dataset = dataset.apply(VAEAugment('run'))"


def test_train_takes_what_a_run_writes(records, tmp_path, trained):
    model = ModelConfig(profile="vector", latent_dim=16)
    settings = {"model": model.to_dict(), "train": {"steps": 9, "keep": [0.4, 0.5]}}
    (tmp_path / "config.json").write_text(json.dumps({**settings, "sources": ["elsewhere"]}))
    result = run(
        *("train", records, "--out", tmp_path / "run", "--config", tmp_path / "config.json"),
        *("--steps", 4),
    )
    assert result.exit_code == 0, result.stderr
    assert trained["model"] == model
    assert trained["config"] == TrainConfig(steps=4, keep=(0.4, 0.5))


def test_train_passes_options_on(records, tmp_path, trained):
    (tmp_path / "card.md").write_text("# Card")
    result = run(
        *("train", records, records, "--out", tmp_path, "--encoder", "efficientnet-lite1"),
        *("--encoder-weights", "package", "--loss", "paper", "--seed", 5, "--batch-size", 3),
        *("--validation", records, "--card", tmp_path / "card.md", "--profile", "vector"),
        *("--learning-rate", "0.01"),
    )
    assert result.exit_code == 0, result.stderr
    assert trained["sources"] == [records, records] and trained["validation"] == [records]
    assert trained["model"] == ModelConfig(encoder="efficientnet-lite1")
    assert trained["config"] == TrainConfig(
        encoder_weights="package", loss="paper", seed=5, batch_size=3, learning_rate=0.01
    )
    assert trained["card"] == "# Card"
    assert trained["card_of"] == (tmp_path, make_judged())
    assert result.stdout.startswith("plan: a few steps")


@pytest.mark.parametrize("worker", [0, 1])
def test_the_first_worker_alone_judges(records, tmp_path, trained, monkeypatch, worker):
    cluster = {"worker": ["a:1", "b:1"]}
    task = {"type": "worker", "index": worker}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    result = run("train", records, "--out", tmp_path / "run", "--devices", "GPU:0,GPU:2")
    assert result.exit_code == 0 and trained["recipe"].devices == "GPU:0,GPU:2"
    assert ("Better than" in result.stdout) == (worker == 0)
    assert ("worker 1 is done; worker 0 has the network" in result.stdout) == (worker == 1)


@pytest.mark.parametrize("command", ["train", "tune"])
def test_a_cluster_that_cannot_be_is_refused(records, tmp_path, monkeypatch, command):
    monkeypatch.setenv("TF_CONFIG", "{")
    result = run(command, records, "--out", tmp_path / "run")
    assert result.exit_code == 1 and "TF_CONFIG is" in result.stderr
    assert not (tmp_path / "run").exists()


def test_train_takes_the_architecture_of_what_it_starts_from(
    records, tmp_path, trained, monkeypatch
):
    ladder = ModelConfig(profile="ladder", latent_dim=24, variation=True)
    monkeypatch.setattr(paths, "read_manifest", lambda path: {})
    monkeypatch.setattr(recipe, "read_manifest", lambda path: {"model": ladder.to_dict()})
    result = run("train", records, "--out", tmp_path, "--start-from", "begin.keras")
    assert result.exit_code == 0, result.stderr
    assert trained["model"] == ladder
    assert trained["config"] == TrainConfig(start_from="begin.keras", **TRAIN_RECIPES["ladder"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", 'the objects "model", "train" and "variation"'),
        ('{"modle": {}}', 'the objects "model", "train" and "variation"'),
        ('{"train": {"stepps": 3}}', "no setting 'stepps'"),
    ],
)
def test_bad_settings_are_refused(records, tmp_path, content, message):
    (tmp_path / "settings.json").write_text(content)
    out = tmp_path / "run"
    result = run("train", records, "--out", out, "--config", tmp_path / "settings.json")
    assert result.exit_code == 1 and message in result.stderr
    assert not out.exists()


def test_augment_changes_the_training_images(records, tmp_path, brighten):
    out = tmp_path / "out"
    result = run("augment", records, out, "--guard", "off", "--seed", 3, "--factor", 0.5)
    assert result.exit_code == 0, result.stderr
    assert re.search(r"train +│ +2 │ +2 │ +2 │ +0 │", result.stdout)
    for before, after in zip(
        read_records(records, "train"), read_records(out, "train"), strict=True
    ):
        # The stand-in adds 0.25 * factor of the range: 31.875, rounded.
        np.testing.assert_array_equal(after["image"], before["image"] + 32)
    result = run("info", out)
    assert result.exit_code == 0
    assert "factor 0.5" in result.stdout and "seed 3" in result.stdout
    assert not re.search(r"patient-\d|train-\d", result.stdout)


def test_augment_warns_where_most_boxes_had_to_be_guarded(records, tmp_path, monkeypatch):
    monkeypatch.setattr(transform, "open_checkpoint", lambda checkpoint: ErasingVAE())
    monkeypatch.setattr(calls, "load_checkpoint", lambda checkpoint: FakeVAE())
    result = run("augment", records, tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "the guard acted for 2 of 2 boxes of augmented images of the split 'train'" in (
        result.stdout
    )
    result = run("augment", records, tmp_path / "kept", "--p", 0)
    assert result.exit_code == 0 and "the guard acted" not in result.stdout


def test_augment_refuses_evaluation_splits(records, tmp_path, brighten):
    arguments = ("augment", records, tmp_path / "out", "--split", "validation")
    result = run(*arguments)
    assert result.exit_code == 1 and "--augment-evaluation" in result.stderr
    assert run(*arguments, "--augment-evaluation").exit_code == 0


def test_augment_under_strict_refuses_a_network_that_knows_evaluation_patients(
    records, tmp_path, brighten, monkeypatch
):
    network = BrighteningVAE()
    network.patients = frozenset({"patient-1"})
    monkeypatch.setattr(transform, "open_checkpoint", lambda checkpoint: network)
    refused = run("augment", records, tmp_path / "refused", "--strict")
    assert refused.exit_code == 1
    assert "trained on patients of evaluation splits (1 of the split 'validation')" in (
        refused.stderr
    )
    assert "--strict" in refused.stderr and not (tmp_path / "refused").exists()
    warned = run("augment", records, tmp_path / "warned")
    assert warned.exit_code == 0, warned.stderr
    assert "was trained on 1 patient of the split 'validation'" in warned.stdout
    network.patients = frozenset({"patient-2"})
    assert run("augment", records, tmp_path / "other", "--strict").exit_code == 0


def test_preview_draws_a_sheet(records, tmp_path, brighten):
    out = tmp_path / "sheet.png"
    settings = ("--factor", 0.5, "--p", 0.75, "--guard", "keep", "--value-range", "0,300")
    options = ("--rows", 1, "--samples", 2, "--min-fidelity", 0.5, "--seed", 3, *settings)
    result = run("preview", records, "--split", "train", "--out", out, *options)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(out)
    # The image and two variants, of 224 pixels each, 4 apart, with 8 on either side.
    assert read_image(out).shape[1] == 8 + 3 * 228 - 4 + 8


def test_preview_writes_a_page_and_says_how_large_it_is(records, tmp_path, brighten):
    out = tmp_path / "page.html"
    options = ("--split", "train", "--rows", 2, "--samples", 1, "--out", out)
    first = run("preview", records, *options)
    assert first.exit_code == 0, first.stderr
    content = out.read_bytes()
    assert first.stdout.strip() == f"{out}: {len(content) / 1e6:.1f} MB"
    assert content.startswith(b"<!doctype html>") and b"patient-" not in content
    again = run("preview", records, *options, "--json")  # which replaces it, as a sheet is
    assert json.loads(again.stdout) == {"out": str(out), "images": 2}
    assert out.read_bytes() == content


def test_preview_names_a_folder_that_is_not_there(records, tmp_path, brighten):
    out = tmp_path / "absent" / "page.html"
    result = run("preview", records, "--split", "train", "--samples", 1, "--out", out)
    assert result.exit_code == 1 and "absent" in result.stderr
    assert "No such file or directory" in result.stderr


def test_preview_shows_records_of_other_tools(records, tmp_path, brighten):
    folder = shutil.copytree(records, tmp_path / "foreign")
    (folder / "dataset.json").unlink()
    result = run("preview", folder, "--out", tmp_path / "sheet.png", "--rows", 1, "--samples", 1)
    assert result.exit_code == 0, result.stderr
    assert read_image(tmp_path / "sheet.png").ndim == 3


def test_preview_takes_the_settings_of_the_transform(records, tmp_path, brighten, monkeypatch):
    seen = []
    monkeypatch.setattr(
        calls, "write_preview", lambda out, rows, augment, **_: seen.append(augment.config)
    )
    settings = ("--mode", "denoise", "--detail", 0.25, "--p", 0.75, "--guard", "keep")
    more = ("--factor", 0.5, "--min-fidelity", 0.5, "--value-range", "-5,300", "--seed", 3)
    result = run("preview", records, "--split", "train", *settings, *more)
    assert result.exit_code == 0, result.stderr
    (config,) = seen
    assert config == AugmentConfig(
        mode="denoise",
        detail=0.25,
        p=0.75,
        guard="keep",
        factor=0.5,
        min_fidelity=0.5,
        value_range=(-5.0, 300.0),
        seed=3,
    )
    wrong = run("preview", records, "--split", "train", "--value-range", "300")
    assert wrong.exit_code == 1 and "--value-range wants LOW,HIGH" in wrong.stderr


def test_info_of_a_checkpoint(tmp_path, short_stages):
    path = tmp_path / "mine.keras"
    vae = VAE(ModelConfig(encoder="efficientnet-lite1", image_size=32, latent_dim=16))
    digest = save_checkpoint(
        vae,
        path,
        training={"validation": {"psnr": 31.5}, "config": {"steps": 7}},
        fingerprint={"images": 12, "patients": ["0011223344556677"]},
        card="# A card\n\nOf *mine*.",
    )
    result = run("info", path)
    assert result.exit_code == 0, result.stderr
    for expected in (digest, "efficientnet-lite1", "31.5", "A card", "12"):
        assert expected in result.stdout
    assert "0011223344556677" not in result.stdout
    (tmp_path / "run").mkdir()
    path.rename(tmp_path / "run" / "checkpoint.keras")
    assert digest in run("info", tmp_path / "run").stdout


def test_info_of_one_file(records):
    result = run("info", records / "train-00000-of-00001.tfrecord")
    assert result.exit_code == 0 and re.search(r"images +│ 2", result.stdout)


def test_denoise_keeps_names_and_tells_what_it_left_out(tmp_path, brighten):
    source = tmp_path / "in"
    source.mkdir()
    write_image(source / "good.png", np.full((24, 20, 1), 100, np.uint8))
    (source / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    write_image(source / "dark.png", np.full((24, 20, 1), 4095, np.uint16))
    result = run("denoise", source, tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "2 images denoised" in result.stdout and "left out bad.png" in result.stdout
    assert "WARNING: 1 of 1 image of 16 bits" in result.stdout
    assert read_image(tmp_path / "out" / "good.png").shape == (24, 20, 1)
    result = run("denoise", source, tmp_path / "out", "--strength", 0.5)
    assert result.exit_code == 1
    assert "was not denoised with this checkpoint, window and strength" in result.stderr
    result = run("denoise", source, tmp_path / "strict", "--strict")
    assert result.exit_code == 1 and "bad.png" in result.stderr
    for name in ("good", "dark"):
        (source / f"{name}.png").unlink()
    result = run("denoise", source, tmp_path / "nothing")
    assert result.exit_code == 1 and "error: none of 1 image could" in result.stderr


def test_diversity_prints_a_row_for_each_factor(records, tmp_path, brighten):
    result = run(
        *("evaluate", "diversity", records, "--factor", "0.1", "--factor", "0.2"),
        *("--samples", "2", "--limit", "2", "--split", "train", "--guard", "off"),
        *("--out", tmp_path),
    )
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "diversity.json").read_text())["factors"]
    assert [row["factor"] for row in rows] == [0.1, 0.2]
    assert f"{100 * rows[1]['spread_outside']:.2f}" in result.stdout
    assert (tmp_path / "samples_0.1.png").exists()


@pytest.mark.slow
def test_bench_names_the_fastest(brighten):
    options = ("--engine", "tensorflow", "--size", "32", "--images", "1", "--rounds", "1")
    result = run("evaluate", "bench", "--mode", "denoise", *options)
    assert result.exit_code == 0, result.output
    assert "dataset.apply(VAEAugment('demo', engine='tensorflow'))" in result.stdout
    # Three rounds as they come, three ways in the table, and the sentence.
    assert result.stdout.count("tensorflow") == 7


def test_bench_names_the_fastest_in_float32_too(monkeypatch):
    rates = {"openvino-bfloat16": 3.0, "openvino": 1.5, "tensorflow": 1.0}
    speeds = [Speed(engine, WAYS[0], (rate,)) for engine, rate in rates.items()]
    monkeypatch.setattr("vae_aug.cli.calls.measure_engines", lambda *_, **__: (speeds, []))
    lines = run("evaluate", "bench").stdout.splitlines()
    assert [line.rpartition("engine=")[2] for line in lines if line.startswith("Fastest")] == [
        "'openvino-bfloat16'))",
        "'openvino'))",
    ]


@pytest.mark.parametrize(
    ("missing", "named", "status"),
    [
        (True, False, 0),
        (True, True, 1),
        pytest.param(False, False, 1, marks=pytest.mark.slow),
        pytest.param(False, True, 1, marks=pytest.mark.slow),
    ],
)
def test_bench_goes_on_where_an_engine_fails_and_says_so(monkeypatch, missing, named, status):
    speeds = [Speed("tensorflow", WAYS[0], (1.0, 3.0, 2.0))]
    failure = Failure("openvino", WAYS[2:], "no latent vector", missing)

    def measure(*_, report, **__):
        report(failure)
        report(Speed("tensorflow", WAYS[0], (1.0,)))
        return speeds, [failure]

    monkeypatch.setattr("vae_aug.cli.calls.measure_engines", measure)
    named = ("--engine", "tensorflow", "--engine", "openvino") if named else ()
    result = run("evaluate", "bench", *named)
    assert result.exit_code == status, result.output
    first, second, *_ = result.stdout.splitlines()
    assert first.endswith("no latent vector") and first.startswith("openvino")
    assert second == "tensorflow, apply: 1.0 images/s"
    word = "cannot run" if missing else "failed"
    assert any("openvino" in row and word in row for row in result.stdout.splitlines()[2:])
    assert "engine='tensorflow'))" in result.stdout
    assert ("openvino: could not be measured" in result.stderr) == bool(status)


def test_evaluate_passes_options_on(records, tmp_path, monkeypatch, brighten):
    seen = {}

    class Table:
        extent = Extent(2, 2, 0, 4095)

        def to_dict(self):
            return {"rows": [math.nan]}

    def evaluate(subset, networks, corruptions, **options):
        seen.update(options, subset=subset, networks=networks, corruptions=corruptions)
        return Table()

    monkeypatch.setattr(paths, "read_manifest", lambda path: {})
    monkeypatch.setattr(calls, "evaluate_denoising", evaluate)
    monkeypatch.setattr(calls, "print_denoising", lambda table, console: console.print("table"))
    result = run(
        *("evaluate", records, "--ckpt", "demo", "--ckpt", "runs/mine/checkpoint.keras"),
        *("--keep", 0.5, "--corruption", "rician", "--limit", 3, "--split", "train"),
        *("--size", 160, "--value-range", "0,4095"),
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"table\n{Table.extent.describe('evaluate')}\n"
    assert "again with --value-range 0,4095" in result.stdout
    assert seen["value_range"] == (0, 4095)
    assert list(seen["networks"]) == ["demo", "mine"]
    assert seen["corruptions"] == Corruptions(["rician"], 0.5)
    assert seen["subset"] == Subset(records, "train", 3)
    assert seen["size"] == 160
