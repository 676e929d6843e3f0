"""The example in the help of every command runs, with tables of 80 columns and with `--json`."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import types

import pytest
from conftest import shorten_stages
from fake_vae import FakeVAE
from test_cli import COMMANDS, make_judged, run
from test_readme import write_mr

from vae_aug.augment import transform
from vae_aug.cli import calls
from vae_aug.evaluate.lira import Attack, Power
from vae_aug.evaluate.membership_report import Membership
from vae_aug.evaluate.speed import WAYS, Failure, Speed
from vae_aug.model.checkpoint import read_manifest, save_checkpoint
from vae_aug.train.tune import Trial

EXAMPLES = {
    name: re.fullmatch(r"Example: `vae-aug (.+)`", command.epilog)[1]
    for name, command in COMMANDS.items()
}
# In the order in which one's output is another's input.
ORDER = (
    *("demo", "ingest", "which", "check", "train", "tune", "augment", "preview", "info", "report"),
    *("replay", "denoise", "evaluate", "evaluate diversity", "evaluate audit"),
    *("evaluate membership", "evaluate bench", "evaluate fidelity", "doctor"),
)
# What makes an example affordable, and what lets it run again.
AFFORDABLE = {
    "evaluate": "--corruption replace --limit 2",
    "evaluate diversity": "--samples 2 --limit 2 --factor 1",
    "evaluate audit": "--samples 2",
    "evaluate fidelity": "--mode sample --factor 1 --limit 2",
}
AGAIN = {"ingest": ("records", "records --overwrite"), "augment": ("augmented", "again")}


class Network(FakeVAE):
    def reconstruct(self, images):
        return self.vary(images, {}, mode="denoise", factor=1.0)[0]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_ladder):
    """A folder with `scans` and a small checkpoint `demo`; another network stands for both.

    It has no weights, so it costs seconds less whenever a command runs it.
    """
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        shorten_stages(patch)
        patch.setenv("VAE_AUG_SALT", "s")
        patch.chdir(folder)
        write_mr(folder / "scans")
        save_checkpoint(tiny_ladder, folder / "demo")
        network = Network(profile="ladder")
        network.digest = read_manifest("demo")["digest"]
        patch.setattr(calls, "load_checkpoint", lambda checkpoint: network)
        patch.setattr(transform, "open_checkpoint", lambda checkpoint: network)
        stand_in(patch, tiny_ladder)
        yield folder


def stand_in(patch, network):
    """Stand in for what takes long, and runs in test_demo, test_readme, test_tune and test_cli."""

    def train(records, out, recipe, **options):
        save_checkpoint(network, out / "checkpoint.keras")
        (out / "config.json").write_text(json.dumps(recipe.to_dict()))
        for name in ("log.jsonl", "best.json"):
            (out / name).write_text('{"step": 10, "psnr": 31.5}\n')

    def tune(records, out, recipe, search, **options):
        # A network of before there were variations gets one when it is trained.
        assert recipe.model == dataclasses.replace(network.config, variation=True)
        values = {f"train.setting_number_{i}": 0.001 for i in range(4)}
        figures = {"psnr": 31.5, "psnr_noisy": 30.25, "kl": 100.5}
        failed = Trial(2, values, "failed", message="out of memory")
        return [Trial(1, values, "finished", score=30.9, figures=figures), failed]

    def measure_engines(network, engines, *, report, **options):
        speeds = [Speed("openvino-bfloat16", way, (1234.5, 6.0)) for way in WAYS]
        failure = Failure("openvino", WAYS, "the package openvino is missing " * 5, missing=True)
        report(failure)
        return speeds, [failure]

    report = {"checks": {"COCO": 91}, "figures": {"SSIM": 0.5}, "seconds": {"records": 1.0}}
    attacks = [
        Attack("reconstruction", target, 120, 120, *(0.512, 0.485, 0.539), *(0.1, 0.05, 0.17), 0.1)
        for target in ("networks", "checkpoint", "overfitted")
    ]
    power = Power(0.55, 0.13, 0.2, 0.53, 0.5)
    found = Membership(False, "No sign.", ("A note.",), (*attacks,), (), power, (0.1,), {})
    patch.setattr(calls, "audit_membership", lambda *a, **k: found)
    patch.setattr(calls, "run_demo", lambda *a, **k: types.SimpleNamespace(**report))
    patch.setattr(calls, "measure_engines", measure_engines)
    patch.setattr(calls, "train", train)
    patch.setattr(calls, "judge_training", lambda *a, **k: make_judged())
    patch.setattr(calls, "write_model_card", lambda *a: None)
    patch.setattr(calls, "tune", tune)


def test_every_command_has_an_example_that_its_help_prints():
    assert sorted(ORDER) == sorted(COMMANDS)
    for name, example in EXAMPLES.items():
        assert example.startswith(name)
        text = run(*name.split(), "--help").stdout
        assert f"Example: vae-aug {example}" in " ".join(text.split())


def run_example(name, change=("", ""), *options):
    arguments = shlex.split(f"{EXAMPLES[name].replace(*change)} {AFFORDABLE.get(name, '')}")
    result = run(*arguments, *options, columns=80)
    assert result.exit_code == 0, (name, result.stderr, result.exception)
    return result


def list_tables(text):
    """Return the lines of tables: those with a border, and a title is no wider than its table."""
    return [line for line in text.splitlines() if re.search("[─━│┃]", line)]


@pytest.mark.slow
def test_the_examples_run_in_order(workplace):
    for name in ORDER:
        result = run_example(name)
        table = list_tables(result.stdout)
        assert all(len(line) <= 80 for line in table), result.stdout
        assert not any("…" in line for line in table), result.stdout
        result = run_example(name, AGAIN.get(name, ("", "")), "--json")
        content = json.loads(result.stdout)
        assert content, name
        assert "─" not in result.stderr
