"""The audit of membership: what is trained on whom, what is kept, and what controls decide."""

from __future__ import annotations

import dataclasses
import json
import types

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, write_phantoms
from typer.testing import CliRunner

from vae_aug import cli
from vae_aug.cli import calls
from vae_aug.config import ModelConfig, TrainConfig, VariationConfig
from vae_aug.errors import RecordError, VAEAugError
from vae_aug.evaluate import attacked, lira
from vae_aug.evaluate.attacked import Restoration, Variation
from vae_aug.evaluate.canaries import CANARY, make_canary, plant_canaries
from vae_aug.evaluate.lira import Attack, Power
from vae_aug.evaluate.membership import audit_membership
from vae_aug.evaluate.membership_report import judge, list_notes
from vae_aug.evaluate.patient_scores import SCORES, make_score_batch, score_patients
from vae_aug.model.transformation import LATENT_DIM
from vae_aug.train.feed import make_validation_feed
from vae_aug.train.holdout import name_images
from vae_aug.train.pairs import ALIKE, measure_pairs, rank_partners, weigh_terms
from vae_aug.train.recipe import Recipe
from vae_aug.train.references import Trainer, open_patients

MODEL = ModelConfig(encoder="efficientnet-lite1", image_size=32, latent_dim=16)
RECIPE = Recipe(MODEL, TrainConfig(batch_size=4, steps=3, loss="sigma_each"))
PATIENTS = 20


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    monkeypatch.setattr(lira, "RESAMPLES", 10)
    monkeypatch.setattr(lira, "SHUFFLES", 40)
    monkeypatch.setattr(lira, "TRIALS", 5)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Phantoms of 20 patients, two images of each, in two splits."""
    return write_phantoms(tmp_path_factory.mktemp("records"), train=30, validation=10)


def list_hashes(sources):
    keys = [patient for source in sources for patient, _ in name_images(source)]
    return [key.removeprefix("patient ") for key in keys]


class Scorer:
    """Stands for training and scoring: scores members by `leak` higher, in noise of its seed.

    Attributes:
        trained: For each network that was trained, the patients and shares of its sources.
        interrupt_after: How many networks are trained before the user stops.
    """

    leak, canary_leak = 0.0, 2.0
    trained: list
    interrupt_after = 10**6

    def __init__(self, recipe):
        self.network = types.SimpleNamespace(seed=0, members=frozenset(), config=MODEL)
        self.steps = recipe.train.steps

    def start(self, seed):
        self.network.seed, self.network.members = seed, frozenset()

    def train(self, sources, shares, seed, *, rounds=1, progress):
        if len(self.trained) == self.interrupt_after:
            raise KeyboardInterrupt
        hashes = [list_hashes([source]) for source in sources]
        self.trained.append((hashes, shares, rounds))
        for _ in range(rounds * self.steps):
            progress()
        self.network.seed = seed
        self.network.members = frozenset(name for names in hashes for name in names)
        self.network.rounds = rounds


@pytest.fixture
def scorer(monkeypatch):
    """Replace training and scoring by `Scorer`."""

    def score(network, patients, size):
        rng = np.random.default_rng(network.seed)
        known = np.array([key[len("patient ") :] in network.members for key in patients.keys])
        canary = np.array([key.startswith(f"patient {CANARY}") for key in patients.keys])
        leak = np.where(canary, Scorer.canary_leak, Scorer.leak)
        raised = (leak if network.rounds == 1 else 5.0) * known
        return {name: rng.normal(size=len(known)) + raised for name in SCORES}

    monkeypatch.setattr(Scorer, "trained", [], raising=False)
    monkeypatch.setattr(attacked, "Trainer", Scorer)
    sizes = []
    monkeypatch.setattr(Scorer, "sizes", sizes, raising=False)
    monkeypatch.setattr(
        attacked, "make_score_batch", lambda network, config, size: sizes.append(size) or network
    )
    monkeypatch.setattr(attacked, "score_patients", score)
    monkeypatch.setattr(Scorer, "leak", 0.0)
    monkeypatch.setattr(Scorer, "canary_leak", 2.0)
    monkeypatch.setattr(Scorer, "interrupt_after", 10**6)
    return Scorer


def audit(records, out, **options):
    return audit_membership([records], out, RECIPE, **{"networks": 8, **options})


def test_who_is_trained_on(records, scorer, tmp_path):
    audit(records, tmp_path)
    everyone = set(open_patients([str(records)]).keys)
    assert len(everyone) == PATIENTS and len(scorer.trained) == 8 + 1
    sets = [{name for names in hashes for name in names} for hashes, _, _ in scorer.trained]
    own = [{name for name in names if not name.startswith(CANARY)} for names in sets]
    for first, second in ((0, 1), (2, 3), (4, 5), (6, 7)):
        assert not sets[first] & sets[second]
        assert len(own[first]) == len(own[second]) == PATIENTS // 2
        assert len(sets[first] - own[first]) == len(sets[second] - own[second]) == 8
    for hashes, shares, _ in scorer.trained[:8]:
        counts, (*_, planted) = [len(names) for names in hashes], hashes
        assert all(name.startswith(CANARY) for name in planted) and len(planted) == 8
        # All images of patients count alike, and canaries are a quarter of a batch.
        wanted = 0.75 * np.array(counts[:-1]) / sum(counts[:-1])
        np.testing.assert_allclose(shares, [*wanted, 0.25])
    assert [rounds for *_, rounds in scorer.trained] == [1] * 8 + [8]
    assert len(sets[8]) == len(own[8]) == 3 and sum(scorer.trained[8][1]) == pytest.approx(1.0)


def test_a_run_that_was_stopped_reports_the_same(records, scorer, tmp_path):
    steps = []
    whole = audit(records, tmp_path / "whole", progress=lambda *counts: steps.append(counts))
    # 3 steps of the recipe and one more, for canaries are a quarter of each batch.
    assert steps[-1] == (4 * (8 + 8),) * 2
    scorer.trained.clear()
    scorer.interrupt_after = 5
    with pytest.raises(KeyboardInterrupt):
        audit(records, tmp_path / "cut")
    assert not (tmp_path / "cut" / "membership.json").exists()
    scorer.trained.clear()
    scorer.interrupt_after = 10**6
    assert audit(records, tmp_path / "cut") == whole
    assert len(scorer.trained) == 8 + 1 - 5
    first, second = (tmp_path / name / "membership.json" for name in ("whole", "cut"))
    assert first.read_bytes() == second.read_bytes()
    scorer.trained.clear()
    assert audit(records, tmp_path / "cut") == whole and not scorer.trained


def test_the_report_names_no_patient(records, scorer, tmp_path):
    report = audit(records, tmp_path)
    assert report.leaks is False and "No sign that membership leaks" in report.verdict
    text = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert "hash-" not in text and str(records) not in text
    content = json.loads((tmp_path / "membership.json").read_text())
    assert content["leaks"] is False and len(content["patients"]) == PATIENTS
    assert content["settings"]["images"] == 40 and content["settings"]["patients"] == PATIENTS
    rows = [(one["target"], one["score"]) for one in content["attacks"] + content["controls"]]
    targets = ("networks", "overfitted", "canaries")
    assert rows == [(target, score) for target in targets for score in SCORES]
    headings, rows = report.tabulate()
    assert all(len(row) == len(headings) for row in rows)
    assert any("fixed before the run: AUC of elbo" in note for note in report.notes)


def test_a_leak_is_a_sign(records, scorer, tmp_path):
    scorer.leak = 1.5
    report = audit(records, tmp_path)
    assert report.leaks is True and report.attacks[0].auc > 0.7
    assert report.verdict.startswith("Membership leaks: of the networks")


def test_an_attack_that_misses_planted_patients_cannot_tell(records, scorer, tmp_path):
    scorer.canary_leak = -1.0  # of 0.0, some seeds would be caught by chance
    report = audit(records, tmp_path)
    assert report.leaks is None and "it missed canaries" in report.verdict


def test_planted_patients_are_unlike_each_other(tmp_path):
    plant_canaries(tmp_path / "a", 4, seed=1)
    plant_canaries(tmp_path / "b", 4, seed=1)
    files = [next((tmp_path / name).glob("*.tfrecord")).read_bytes() for name in "ab"]
    assert files[0] == files[1]
    patients = open_patients([str(tmp_path / "a")])
    assert patients.keys == [f"patient {CANARY}{number:03}" for number in range(4)]
    first, second = (make_canary(np.random.default_rng(seed)) for seed in (1, 2))
    assert first.shape == (128, 128, 1) and first.dtype == np.uint8
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1


def test_a_checkpoint_is_attacked_whose_patients_are_known(records, scorer, tmp_path):
    keys = open_patients([str(records)]).keys
    seen = frozenset(key.removeprefix("patient ") for key in keys[::2])
    target = types.SimpleNamespace(
        config=MODEL, digest="d", patients=seen, members=seen, seed=999, rounds=3
    )
    report = audit(records, tmp_path, target=target)
    attack = next(one for one in report.attacks if one.target == "checkpoint")
    assert (attack.members, attack.others, attack.score) == (10, 10, "elbo")
    start = next(one for one in report.controls if one.target == "start")
    assert (start.members, start.others, start.score) == (10, 10, "elbo")
    assert any("20 patients: with fewer than 30 a sign says little" in n for n in report.notes)
    # Of one of 20 patients the lowest possible chance is above 0.025.
    for names, count in ((["of others"], 0), ([keys[0].removeprefix("patient ")], 1)):
        target.patients = frozenset(names)
        with pytest.raises(ValueError, match=f"of the 20 patients its manifest names {count}, and"):
            audit(records, tmp_path, target=target)
    target.patients = target.members
    target.config = dataclasses.replace(MODEL, image_size=64)
    with pytest.raises(ValueError, match="another architecture than the recipe: image_size 64"):
        audit(records, tmp_path, target=target)
    # A ladder takes squares of any size.
    ladder = dataclasses.replace(MODEL, profile="ladder")
    target.config = dataclasses.replace(ladder, image_size=64)
    scorer.sizes.clear()
    audit_membership(
        [records], tmp_path / "ladder", Recipe(ladder, RECIPE.train), networks=8, target=target
    )
    assert set(scorer.sizes) == {32}


def test_what_is_on_disk_is_checked(records, scorer, tmp_path):
    audit(records, tmp_path)
    with pytest.raises(ValueError, match=r"networks of other settings \(seed 0, not 1\)"):
        audit(records, tmp_path, seed=1)
    info = records / "dataset.json"
    before = info.read_text()
    info.write_text(before + " ")  # as if ingested otherwise
    with pytest.raises(
        ValueError, match=r"networks of other settings \(records '\w+', not '\w+'\)"
    ):
        audit(records, tmp_path)
    info.write_text(before)
    file = tmp_path / "networks" / "network-003.json"
    for content in ('{"elbo": [1.0]}', "{", json.dumps({name: [] for name in SCORES})):
        file.write_text(content)
        with pytest.raises(VAEAugError, match=r"network-003\.json: is damaged .* Delete it"):
            audit(records, tmp_path)


def test_bad_arguments_are_named(records, scorer, tmp_path):
    for options, message in (
        ({"networks": 4}, "networks must be in"),
        ({"networks": 9}, "networks must be even"),
        ({"limit": 0}, "limit must be in"),
        ({"seed": -1}, "seed must be in"),
    ):
        with pytest.raises(ValueError, match=message):
            audit(records, tmp_path, **options)
    few = write_phantoms(tmp_path / "few", train=6)
    with pytest.raises(RecordError, match="3 patients; an audit of membership needs at least 8"):
        audit(few, tmp_path / "out")


def make_attack(target, p_value):
    return Attack("elbo", target, 20, 20, 0.61, 0.5, 0.7, 0.3, 0.1, 0.5, p_value)


def test_controls_come_before_the_verdict():
    power = Power(0.58, 0.2, 0.3, 0.55, 0.5)

    def decide(p_value, overfitted=0.001, canaries=0.001, power=power):
        p_values = {"overfitted": overfitted, "canaries": canaries}
        controls = [make_attack(*one) for one in p_values.items()]
        return judge([make_attack("networks", p_value)], controls, power)

    assert decide(0.5)[0] is False and "A leak of AUC 0.58, which finds 20% of" in decide(0.5)[1]
    assert decide(0.04)[0] is True
    leaks, verdict = decide(0.04, overfitted=0.2, canaries=0.2)
    assert leaks is True, "a sign is one all the same"
    assert verdict.endswith("The attack missed overfitted and canaries, so it may miss more.")
    assert "missed" not in decide(0.04)[1]
    assert decide(0.5, overfitted=0.2)[0] is None
    assert "missed overfitted and canaries" in decide(0.5, 0.2, 0.2)[1]
    blind = dataclasses.replace(power, auc=float("nan"))
    assert "no leak of any size" in decide(0.5, power=blind)[1]


@pytest.mark.parametrize(("start", "leaks"), [(0.5, True), (0.04, False)])
def test_a_checkpoint_whose_members_differ_in_kind_is_no_sign(start, leaks):
    power = Power(0.58, 0.2, 0.3, 0.55, 0.5)
    p_values = {"overfitted": 0.001, "canaries": 0.001, "start": start}
    controls = [make_attack(*one) for one in p_values.items()]
    attacks = [make_attack("networks", 0.5), make_attack("checkpoint", 0.001)]
    assert judge(attacks, controls, power)[0] is leaks
    settings = {"unnamed_images": 0, "start_from": None, "patients": 40, "rounds": 8}
    settings |= {"canaries": 16, "canary_share": 0.25, "only": "restoration"}
    notes = list_notes(settings, Restoration, power, controls)
    assert any("differ from others in kind" in note for note in notes) is not leaks


def open_variation(folders, **options):
    """Open the records of folders for an attack on their variation; which patients are canaries."""
    patients = open_patients(folders)
    planted = np.array([key.startswith(f"patient {CANARY}") for key in patients.keys])
    return Variation(Recipe(variation=VariationConfig(**options)), patients, planted), planted


def test_shaded_canaries_are_alike_but_not_the_same(tmp_path):
    plant_canaries(tmp_path, 6, seed=1, alike=True)
    variation, planted = open_variation([str(tmp_path)])
    assert planted.all()
    names = [str(place) for place in variation.places]
    _, similarity = rank_partners(variation.squares, names, 5)
    assert similarity.min() > ALIKE and similarity.max() < 0.99


@pytest.mark.parametrize("most", [PATIENTS, 2])
def test_pairs_of_a_variation_are_of_members_alone_and_a_quarter_of_canaries(
    records, tmp_path, most
):
    plant_canaries(tmp_path, 16, seed=1, alike=True)
    variation, planted = open_variation([str(records), str(tmp_path)])
    own = np.flatnonzero(~planted)[::2][:most]
    members = np.isin(np.arange(len(planted)), [*own, *np.flatnonzero(planted)[::2]])
    images, partners = variation.pair_members(members)
    assert set(variation.places[images]) == set(np.flatnonzero(members))
    canary = planted[variation.places[images]]
    assert np.mean(canary) == pytest.approx(0.25, abs=0.02)
    # Canaries and others never meet, nobody is paired with an own image, and no partner is lost.
    np.testing.assert_array_equal(
        planted[variation.places[partners]], np.tile(canary[:, None], partners.shape[1])
    )
    assert np.all(variation.places[partners] != variation.places[images][:, None])
    assert all(len(set(row)) == 7 for row in partners[canary])
    nobody = members & ~planted
    assert len(variation.pair_members(nobody).images) == np.isin(variation.places, own).sum()


def test_a_variation_is_trained_from_its_start_for_longer(records, monkeypatch):
    variation, planted = open_variation([str(records)], steps=3, seed=5)
    calls, told = [], []

    def train(squares, pairs, config, *, network, progress):
        calls.append((config, network.get_weights()[5]))
        progress(1, {})

    monkeypatch.setattr(attacked, "train_transformation", train)
    for seed in (7, 8, 7):
        variation.train(~planted, seed, rounds=2, progress=lambda: told.append(1))
    assert len(told) == 3
    # A third more, since canaries are a quarter.
    assert [(config.steps, config.seed) for config, _ in calls] == [(8, 7), (8, 8), (8, 7)]
    np.testing.assert_array_equal(calls[0][1], calls[2][1])
    assert np.any(calls[0][1] != calls[1][1])


def test_scores_of_a_variation_are_means_over_pairs_both_ways(records):
    variation, planted = open_variation([str(records)])
    variation.start(3)
    scores = variation.score()
    assert set(scores) == set(variation.scores)
    squares, places = variation.squares, variation.places
    partners = variation.pair(~planted, 4).partners
    own = np.flatnonzero(places == places[0])
    bounds, tones = [], []
    for first in own:
        for second in partners[first]:
            for pair in ((first, second), (second, first)):
                image, other = (squares[[index]].astype(np.float32) / 255.0 for index in pair)
                noise = tf.zeros([1, LATENT_DIM])
                terms = measure_pairs(variation.network, image, other, noise)
                bounds.append(-float(weigh_terms(terms, VariationConfig())[0]))
                tones.append(-float(terms["tone"][0]))
    assert scores["elbo"][places[0]] == pytest.approx(np.mean(bounds), rel=1e-4)
    assert scores["tone"][places[0]] == pytest.approx(np.mean(tones), rel=1e-4)


def test_the_variation_of_a_checkpoint_is_scored(records, varied_ladder):
    variation, _ = open_variation([str(records)])
    variation.network.set_weights(varied_ladder.variation.get_weights())
    scores = variation.score()
    for name, values in variation.score_target(varied_ladder).items():
        np.testing.assert_allclose(values, scores[name], rtol=1e-5)


def test_an_attack_on_a_variation_needs_one(records, short_vae, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="'vector' of this recipe has no variation"):
        audit_membership([records], out, RECIPE, only="variation", networks=6)
    ladder = Recipe(ModelConfig(profile="ladder", variation=True))
    with pytest.raises(ValueError, match="The checkpoint has no variation"):
        audit_membership([records], out, ladder, only="variation", networks=6, target=short_vae)
    assert not out.exists()


@pytest.mark.slow
def test_variations_are_audited(records, tmp_path):
    variation = VariationConfig(steps=3, batch_size=2, partners=2)
    recipe = Recipe(ModelConfig(profile="ladder", variation=True), variation=variation)
    out = tmp_path / "out"
    report = audit_membership([records], out, recipe, only="variation", networks=6)
    assert {one.score for one in report.attacks} == set(Variation.scores)
    assert report.settings["only"] == "variation" and "train" not in report.settings
    assert any("Only the variation is attacked" in note for note in report.notes)
    (out / "networks" / "network-002.json").unlink()
    assert audit_membership([records], out, recipe, only="variation", networks=6) == report
    planted = {path: path.read_bytes() for path in (out / "canaries").iterdir()}
    with pytest.raises(
        ValueError, match=r"networks of other settings \(only 'variation', not 'restoration'\)"
    ):
        audit_membership([records], out, RECIPE, networks=6)
    assert {path: path.read_bytes() for path in planted} == planted


def test_a_limit_takes_images_of_each_patient(records):
    whole, limited = open_patients([str(records)]), open_patients([str(records)], 1)
    assert whole.count() == 40 and limited.count() == PATIENTS and limited.keys == whole.keys
    assert np.unique(np.concatenate(limited.places)).size == PATIENTS
    hashes = list_hashes(limited.sources)
    assert hashes == [limited.keys[p].removeprefix("patient ") for q in limited.places for p in q]
    wanted = np.arange(PATIENTS) < 5
    assert whole.count(wanted) == 10 and sum(whole.share(wanted)) == pytest.approx(1.0)
    assert set(list_hashes(whole.select(wanted))) == {
        key.removeprefix("patient ") for key in whole.keys[:5]
    }


def test_scores_are_means_over_a_patients_images(records, short_vae):
    patients = open_patients([str(records)])
    config = dataclasses.replace(RECIPE.train, beta=0.5)
    scores = score_patients(make_score_batch(short_vae, config, 32), patients, 32)
    assert all(values.shape == (PATIENTS,) for values in scores.values())
    feed = make_validation_feed(patients.sources[:1], 32, config, limit=30)
    noisy, clean = (tf.concat(parts, axis=0) for parts in zip(*feed, strict=True))
    decoded, restored = short_vae.forward(clean), short_vae.forward(noisy)
    places = patients.places[0]
    own = places == places[0]
    errors, kl = {}, tf.reduce_sum(decoded.kls[0], axis=1).numpy()
    for name, images in (("clean", decoded), ("noisy", restored)):
        errors[name] = np.mean((clean - images.reconstruction).numpy() ** 2, axis=(1, 2, 3))
    pixels = int(np.prod(decoded.reconstruction.shape[1:]))
    bound = -0.5 * pixels * (np.log(2 * np.pi * errors["clean"]) + 1) - 0.5 * kl
    expected = {
        "elbo": bound,
        "reconstruction": -np.log(errors["clean"]),
        "restoration": -np.log(errors["noisy"]),
    }
    for name, values in expected.items():
        assert scores[name][places[0]] == pytest.approx(values[own].mean(), rel=1e-3), name


def test_the_command_prints_tables_of_80_columns(records, scorer, tmp_path, monkeypatch):
    config = tmp_path / "training.json"
    config.write_text(json.dumps({"model": MODEL.to_dict(), "train": RECIPE.train.to_dict()}))
    line = ["evaluate", "membership", str(records), "--config", str(config), "--networks", "8"]
    line += ["--steps", "3", "--limit", "1", "--out", str(tmp_path / "out")]
    run = CliRunner().invoke(cli.app, line, env={"COLUMNS": "80"})
    assert run.exit_code == 0, run.output
    assert max(len(row) for row in run.stdout.splitlines() if "│" in row) <= 80
    assert "No sign that membership leaks" in run.stdout
    scorer.leak = 3.0
    line[-1] = str(tmp_path / "leaking")
    run = CliRunner().invoke(cli.app, [*line, "--strict", "--json"])
    assert run.exit_code == 1 and json.loads(run.stdout)["leaks"] is True
    # The part that a run trained is the one that is attacked, unless another is named.
    trained = tmp_path / "variation.json"
    trained.write_text(json.dumps({"model": MODEL.to_dict(), "only": "variation"}))
    run = CliRunner().invoke(cli.app, [*line, "--config", str(trained)])
    assert run.exit_code == 1 and "'vector' of this recipe has no variation" in run.stderr
    monkeypatch.setattr(calls, "audit_membership", interrupt)
    run = CliRunner().invoke(cli.app, line)
    assert run.exit_code == 130 and "run the same command again" in run.stderr
    run = CliRunner().invoke(cli.app, [*line, "--only", "variation", "--size", "64"])
    assert run.exit_code == 1 and "--size: a variation has squares of 128" in run.stderr


def interrupt(*args, **options):
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.usefixtures("short_stages")
def test_a_network_starts_anew(records):
    patients = open_patients([str(records)], 1)
    half = np.arange(PATIENTS) % 2 == 0
    trainer = Trainer(RECIPE)

    def train(wanted, seed, rounds=1):
        trainer.train(patients.select(wanted), patients.share(wanted), seed, rounds=rounds)
        return [np.array(weight) for weight in trainer.network.get_weights()]

    first = train(half, 1)
    other = train(~half, 2, rounds=2)
    assert any(np.any(a != b) for a, b in zip(first, other, strict=True))
    for again, before in zip(train(half, 1), first, strict=True):
        np.testing.assert_array_equal(again, before)


def read_audit(name):
    """Return the report of an audit, and its primary rows by target."""
    report = json.loads((ROOT / "benchmarks" / "results" / name).read_text())
    attacks = report["attacks"] + report["controls"]
    return report, {one["target"]: one for one in attacks if one["score"] == "elbo"}


def read_page(name):
    return " ".join((ROOT / "docs" / name).read_text().split())


def test_the_documents_tell_what_the_audit_of_demo_found():
    text, adr = read_page("privacy.md"), read_page("adr/0030-membership-inference.md")
    report, rows = read_audit("membership-demo.json")
    assert report["verdict"].startswith("The attack cannot be trusted") and report["leaks"] is None
    for target in ("networks", "checkpoint", "overfitted", "canaries"):
        row = rows[target]
        interval = f"{row['auc']:.2f} ({row['auc_low']:.2f} to {row['auc_high']:.2f})"
        assert interval in adr and f"{row['auc']:.2f}" in text
        assert f"| {100 * row['found']:.0f}% |" in adr
        if target in ("networks", "checkpoint"):
            assert interval in text
    assert f"(AUC of `elbo` {rows['start']['auc']:.2f}, p = {rows['start']['p_value']:.3f})" in adr
    assert report["settings"]["patients"] == 113 and "113 patients" in text
    again, rows = read_audit("membership-demo-new-control.json")
    assert again["leaks"] is True and f"members of `demo` ({rows['start']['auc']:.2f};" in adr


def test_the_documents_tell_what_the_second_audit_found():
    text, adr = read_page("privacy.md"), read_page("adr/0030-membership-inference.md")
    report, rows = read_audit("membership-kidney.json")
    assert report["verdict"].startswith("The attack is too weak to tell: it missed canaries.")
    network = rows["networks"]
    ends = f"{network['auc_low']:.2f} to {network['auc_high']:.2f}"
    assert f"({network['auc']:.2f}, {ends};" in text and f"{network['auc']:.2f} ({ends})" in adr
    for target in ("canaries", "overfitted"):
        row = rows[target]
        interval = f"{row['auc']:.2f}, {row['auc_low']:.2f} to {row['auc_high']:.2f}"
        assert f"({interval}; p = {row['p_value']:.2g})" in adr
    assert report["settings"]["patients"] == 200 and "200 patients" in text


def test_the_documents_tell_what_the_third_audit_found():
    text, adr = read_page("privacy.md"), read_page("adr/0030-membership-inference.md")
    report, rows = read_audit("membership-demo-3.json")
    for target, row in rows.items():
        name = target if target == "networks" else f"`{target.replace('checkpoint', 'demo')}`"
        interval = f"{row['auc']:.2f} ({row['auc_low']:.2f} to {row['auc_high']:.2f})"
        found = f"{100 * row['found']:.0f}%"
        assert f"| {name} | {interval} | {row['p_value']:.2g} | {found} |" in adr
    assert report["verdict"].startswith("Membership leaks") and 'says "Membership leaks"' in adr
    assert all(rows[name]["p_value"] > 0.05 for name in ("canaries", "overfitted"))
    assert "it missed `canaries`" in text and "both controls were missed" in adr


def test_the_documents_tell_what_the_audit_of_the_variation_found():
    adr = read_page("adr/0030-membership-inference.md")
    report, rows = read_audit("membership-demo-variation.json")
    assert report["verdict"].startswith("Membership leaks")
    for target in ("networks", "checkpoint"):
        row = rows[target]
        interval = f"{row['auc']:.2f} ({row['auc_low']:.2f} to {row['auc_high']:.2f}; p = "
        assert f"{interval}{row['p_value']:.2g}" in adr
        assert row["p_value"] < report["settings"]["level"]
    assert f"{100 * rows['networks']['found']:.0f}% of them are found" in adr
    for name in ("canaries", "overfitted"):
        assert rows[name]["p_value"] < 0.05 and f"`{name}` {rows[name]['auc']:.2f}" in adr
    assert "{members} members and {others} others".format_map(rows["checkpoint"]) in adr
    assert f"({rows['start']['auc']:.2f}, p = {rows['start']['p_value']:.2f})" in adr


def test_the_documents_tell_what_simulations_found():
    adr = read_page("adr/0030-membership-inference.md")
    results = json.loads((ROOT / "benchmarks/results/membership-simulation.json").read_text())
    none, some = results["rows"]
    shown = f"with an AUC of {some['auc']:.2f}, in place of {some['auc_of_plain_ratio']:.2f}"
    assert shown in adr and (results["trials"], some["shift"]) == (200, 0.3)
    held = [f"{100 * row[key]:.0f}" for key in ("interval_holds_truth",) for row in (none, some)]
    assert f"it held the truth in {held[0]}% and {held[1]}%" in adr
