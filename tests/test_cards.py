"""The cards of augmented records: what they tell, and what they do not."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from fake_vae import BrighteningVAE, ErasingVAE
from test_augment_records import BOXES, make_augment, make_image, read_examples, write_data

from vae_aug.errors import RecordError
from vae_aug.extras.augment_records import augment_records
from vae_aug.extras.cards import CARD_FILE, CROISSANT_FILE
from vae_aug.ingest.ingest import ingest
from vae_aug.records.about import ABOUT_FILE
from vae_aug.records.records import make_example, read_records, write_records

CRITERIA = (
    *("congruence", "coverage", "constraint", "completeness", "compliance", "comprehension"),
    "consistency",
)
NO_BOXES = {"boxes": BOXES[:0], "labels": []}
UNKNOWN = ("license", "url", "creator", "datePublished")
"""What Croissant asks for and a run does not know."""


def make_cards(folder, vae=None, name="out", **settings):
    """Augment records; return both cards, parsed and as text."""
    source = folder / "records"
    if not source.exists():
        write_data(source)
    augment_records(source, folder / name, make_augment(vae, **settings))
    croissant = json.loads((folder / name / CROISSANT_FILE).read_bytes())
    return croissant, (folder / name / CARD_FILE).read_text()


def read_splits(croissant):
    """Return what the card tells of each split, by the split's name."""
    _, splits = croissant["recordSet"]
    rows = [{key.removeprefix("splits/"): row[key] for key in row} for row in splits["data"]]
    return {row.pop("split"): row for row in rows}


def read_criteria(card):
    """Return what stands beside each criterion."""
    return dict(re.findall(r"^\| (\w+) \| (.*) \|$", card.partition("| criterion |")[2], re.M))


# By rdflib, in reading any JSON-LD.
@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")
def test_mlcroissant_finds_no_error(tmp_path):
    mlcroissant = pytest.importorskip("mlcroissant", reason="install vae-aug[tfds]")
    make_cards(tmp_path)
    dataset = mlcroissant.Dataset(jsonld=tmp_path / "out" / CROISSANT_FILE)
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    missing = {re.findall(r'/(\w+)" is recommended', text)[0] for text in issues.warnings}
    assert missing == {"citeAs", "datePublished", "license", "version"}
    rows = {row["splits/split"]: row["splits/images"] for row in dataset.records("splits")}
    assert rows == {"test": 1, "train": 3, "validation": 1}


def test_each_split_is_told_as_it_was_counted(tmp_path):
    croissant, card = make_cards(tmp_path, ErasingVAE(), guard="paste")
    # Three boxes in three images; all are erased, and the guard puts each back as it was.
    patients = {"patients": 1, "seen_patients": None}
    train = {"images": 3, "augmented_images": 3, "lost_images": 0, "boxes": 3, "judged_boxes": 3}
    train |= patients
    train |= {"guarded_boxes": 3, "guarded_share": 1.0, "lowest_fidelity": 1.0}
    copied = {"images": 1, **{name: 0 for name in train if name != "images"}, **patients}
    copied |= {"guarded_share": None, "lowest_fidelity": None, "median_fidelity": None}
    expected = {"train": train | {"median_fidelity": 1.0}, "validation": copied, "test": copied}
    assert read_splits(croissant) == expected
    assert "| train | 1 |  | 3 | 3 | 0 | 3 | 3 | 3 | 1.000 | 1.000 | 1.000 |" in card
    assert "| test | 1 |  | 1 | 0 | 0 | 0 | 0 | 0 |  |  |  |" in card
    assert "the guard acted for 3 (100.0%), so most boxes of augmented images hardly vary" in card


def test_patients_are_counted_and_those_whom_the_checkpoint_has_seen(tmp_path):
    network = BrighteningVAE()
    network.patients = frozenset({"train-patient", "another"})
    croissant, _ = make_cards(tmp_path, network)
    told = {name: row["seen_patients"] for name, row in read_splits(croissant).items()}
    assert told == {"train": 1, "validation": 0, "test": 0}
    for name in ("train", "test"):
        example = make_example(
            make_image(24, 20), source_id=name, label_names=("lesion",), **NO_BOXES
        )
        write_records([example], tmp_path / "nameless", name, label_names=("lesion",))
    augment_records(tmp_path / "nameless", tmp_path / "of nameless", make_augment(network))
    croissant = json.loads((tmp_path / "of nameless" / CROISSANT_FILE).read_bytes())
    for row in read_splits(croissant).values():
        assert row["patients"] is None and row["seen_patients"] is None


def test_patients_of_a_damaged_split_are_those_of_what_can_be_read(tmp_path):
    write_data(tmp_path / "records")
    (path,) = (tmp_path / "records").glob("train-*.tfrecord")
    path.write_bytes(path.read_bytes()[:-1])
    augment_records(tmp_path / "records", tmp_path / "out", make_augment(), allow_damaged=True)
    told = read_splits(json.loads((tmp_path / "out" / CROISSANT_FILE).read_bytes()))
    assert (told["train"]["images"], told["train"]["lost_images"]) == (2, 1)
    assert (told["train"]["patients"], told["test"]["patients"]) == (1, 1)


def test_the_median_is_that_of_the_records(tmp_path):
    croissant, card = make_cards(tmp_path)
    examples = read_examples(tmp_path / "out", "train")
    told = sorted(
        v for e in examples for v in e.features.feature["augment/fidelity"].float_list.value
    )
    train = read_splits(croissant)["train"]
    # Of three values the second; the card rounds to six places.
    assert (train["lowest_fidelity"], train["median_fidelity"]) == pytest.approx(told[:2], abs=1e-6)
    assert f"median {told[1]:.3f}, lowest {told[0]:.3f}, 3 of 3 boxes" in card


def test_files_are_named_with_size_and_digest(tmp_path):
    croissant, _ = make_cards(tmp_path)
    *files, shards = croissant["distribution"]
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert written.keys() == {file["name"] for file in files} | {CROISSANT_FILE, CARD_FILE}
    for file in files:
        content = written[file["contentUrl"]]
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["contentSize"] == f"{len(content)} B"
    assert shards["includes"] == "*.tfrecord"


def test_fields_are_features_of_the_records(tmp_path):
    croissant, _ = make_cards(tmp_path)
    fields = {field["source"]["extract"]["column"] for field in croissant["recordSet"][0]["field"]}
    features = set(read_examples(tmp_path / "out", "train")[2].features.feature)
    assert fields <= features
    assert {name for name in features if name.startswith("augment/")} <= fields


def test_settings_and_checkpoint_are_told_and_nothing_that_is_not_known(tmp_path):
    croissant, card = make_cards(tmp_path, mode="sample", factor=0.5, seed=7)
    for text in (croissant["rai:dataManipulationProtocol"], card):
        assert "fake" in text and '"factor": 0.5' in text and '"seed": 7' in text
    assert not set(UNKNOWN) & set(croissant)
    assert not [key for key in croissant if "Collection" in key or "date" in key.lower()[:4]]


def test_neither_patients_nor_images_nor_folders_are_named(tmp_path):
    for place in ("ROE", "DOE"):
        (tmp_path / place).mkdir()
        make_cards(tmp_path / place, name=f"out of {place}")
    cards = [
        [(tmp_path / place / f"out of {place}" / card).read_bytes() for place in ("ROE", "DOE")]
        for card in (CROISSANT_FILE, CARD_FILE)
    ]
    for first, second in cards:
        assert first == second
        for private in (b"train-patient", b'train-0"', b"DOE", b"ROE", str(tmp_path).encode()):
            assert private not in first


def test_the_scorecard_has_seven_criteria_and_says_what_was_not_measured(tmp_path):
    _, card = make_cards(tmp_path, guard="paste")
    criteria = read_criteria(card)
    assert tuple(criteria) == CRITERIA
    for name in ("coverage", "compliance", "consistency"):
        assert "not measured by this command; run `vae-aug evaluate " in criteria[name]
    assert "Boxes, 3 in all" in criteria["constraint"] and "Seed 0" in criteria["consistency"]
    assert "{" not in "".join(criteria.values())


def test_where_nothing_can_be_judged_no_number_is_made_up(tmp_path):
    flat = {"boxes": BOXES[:1] * 0, "labels": [0], "label_names": ("lesion",)}
    for split, boxes in (("train", flat), ("test", flat | {"boxes": BOXES[:0], "labels": []})):
        example = make_example(make_image(24, 20), source_id="a", **boxes)
        write_records([example], tmp_path / "records", split, label_names=("lesion",))
    croissant, card = make_cards(tmp_path)
    train = read_splits(croissant)["train"]
    assert (train["boxes"], train["judged_boxes"], train["guarded_share"]) == (1, 0, 0.0)
    assert train["lowest_fidelity"] is None and train["median_fidelity"] is None
    assert "no box was judged" in read_criteria(card)["congruence"]
    assert "1 box could not be judged" in " ".join(croissant["rai:dataLimitations"])


ABOUT = {
    "name": "Scans of ours",
    "license": "CC-BY-4.0",
    "url": "https://example.org/scans",
    "citation": "Doe and Roe (2026)",
    "person": "J. Doe",
    "organization": "Clinic",
    "date_published": "2026-11-30",
    "modality": "CT of the thorax",
    "collection": "one scanner, 2020 to 2024",
    "annotation": "boxes by one reader",
    "caveats": "no children",
}


def test_licence_and_origin_are_repeated_as_they_are_stated(tmp_path):
    write_data(tmp_path / "records")
    (tmp_path / "records" / ABOUT_FILE).write_text(json.dumps(ABOUT))
    croissant, card = make_cards(tmp_path)
    assert croissant["measurementTechnique"] == "CT of the thorax"
    assert croissant["rai:dataCollection"] == "one scanner, 2020 to 2024"
    assert croissant["rai:dataAnnotationProtocol"] == "boxes by one reader"
    assert "As stated of the source: no children" in croissant["rai:dataLimitations"]
    # Whoever made the scans did not make what was made from them, nor choose its licence.
    assert not {"url", "creator", "datePublished", "license", "citeAs"} & set(croissant)
    source = croissant["isBasedOn"]
    assert (source["license"], source["citeAs"]) == ("CC-BY-4.0", "Doe and Roe (2026)")
    assert set(UNKNOWN) <= set(source) and source["name"] == "Scans of ours"
    assert [maker["@type"] for maker in source["creator"]] == ["sc:Person", "sc:Organization"]
    for key, text in ABOUT.items():
        assert f"| {key.replace('_', ' ')} | {text} |" in card
    assert "No licence" not in card
    # The next step finds it, too.
    assert json.loads((tmp_path / "out" / ABOUT_FILE).read_bytes()) == ABOUT


# By rdflib, in reading any JSON-LD.
@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")
def test_mlcroissant_misses_what_whoever_publishes_states(tmp_path):
    mlcroissant = pytest.importorskip("mlcroissant", reason="install vae-aug[tfds]")
    write_data(tmp_path / "records")
    (tmp_path / "records" / ABOUT_FILE).write_text(json.dumps(ABOUT))
    make_cards(tmp_path)
    issues = mlcroissant.Dataset(jsonld=tmp_path / "out" / CROISSANT_FILE).metadata.ctx.issues
    assert not issues.errors
    missing = {re.findall(r'/(\w+)" is recommended', text)[0] for text in issues.warnings}
    assert missing == {"citeAs", "datePublished", "license", "version"}


def test_where_no_licence_is_stated_the_card_says_so(tmp_path):
    _, card = make_cards(tmp_path)
    assert "Nobody has stated where the images come from." in card
    assert "**No licence is stated.**" in card
    (tmp_path / "records" / ABOUT_FILE).write_text('{"organization": "Clinic"}')
    _, card = make_cards(tmp_path, name="again")
    assert "| organization | Clinic |" in card and "**No licence is stated.**" in card


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected an object of JSON"),
        ("[" * 100_000, "about.json"),
        ("[]", "expected an object; got list"),
        ('{"licence": "CC0-1.0"}', "licence: unknown; known are name, license"),
        ('{"license": 1}', "license: expected text; got 1"),
        ('{"license": " "}', "license: expected text"),
        (r'{"name": "\ud800"}', "name: expected text"),
        (json.dumps({"name": "x" * 2**16}), "about.json"),
    ],
    ids=["cut", "deep", "list", "unknown", "number", "blank", "half", "large"],
)
def test_a_statement_that_cannot_be_taken_is_named_before_anything_is_written(
    tmp_path, text, message
):
    write_data(tmp_path / "records")
    (tmp_path / "records" / ABOUT_FILE).write_text(text)
    with pytest.raises(RecordError, match=message):
        make_cards(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records"]


def test_readers_do_not_mind_the_cards(tmp_path):
    make_cards(tmp_path)
    assert len(list(read_records(tmp_path / "out", "train"))) == 3
    report = ingest(tmp_path / "out", tmp_path / "again", split="train", strict=True)
    assert report.problems == ()
