"""The builder writes what the transform returns, where it may, and everything else untouched."""

import hashlib
import json
import logging
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from vae_aug.atomic import lock_folder
from vae_aug.config import AugmentConfig
from vae_aug.errors import RecordError
from vae_aug.extras.cards import CARD_FILE, CROISSANT_FILE
from vae_aug.extras.replay import restore_transform
from vae_aug.phantoms.embedded import DEFAULT_COUNTS, read_embedded
from vae_aug.records import check
from vae_aug.records.about import ABOUT_FILE
from vae_aug.records.records import make_example, read_records, write_records
from vae_aug.version import __version__

from . import med_vae_augmented_dataset_builder as builder_module

FOLDER = Path(__file__).resolve().parent
DUMMY_DATA = FOLDER / "dummy_data"
LABELS = ("lesion", "stone")
# Not one of these survives a detour through float16, or through pixels and back.
BOXES = np.array([[1 / 3, 0.1, 0.7, 0.9], [0, 0, 1, 1], [0.2, 1 / 7, 0.3, 6 / 7]], np.float32)
SIZES = {"train": ((24, 20), (24, 20), (17, 31)), "validation": ((24, 20),), "test": ((16, 16),)}


def make_image(split, index):
    """Return the image at `index` of a split: a ramp whose offset tells the images apart."""
    height, width = SIZES[split][index]
    ramp = np.arange(height * width).reshape(height, width, 1) % 199
    return (ramp + 7 * index + len(split)).astype(np.uint8)


def write_data(directory, dtype=np.uint8):
    """Write three splits with 0, 1 and 2 boxes an image; `dummy_data` was written by this."""
    for split, sizes in SIZES.items():
        examples = [
            make_example(
                make_image(split, index).astype(dtype) * (1 if dtype is np.uint8 else 257),
                source_id=f"{split}-{index}",
                boxes=BOXES[:index],
                labels=[1, 0][:index],
                label_names=LABELS,
            )
            for index in range(len(sizes))
        ]
        write_records(examples, directory, split, label_names=LABELS)


class StubTransform:
    """Inverts images and tells a distinct fidelity a box, so that a mix-up would show."""

    patients = frozenset()

    def __init__(self, checkpoint, **settings):
        known = {"digest": f"digest of {checkpoint}", "patients": self.patients}
        self.checkpoint = types.SimpleNamespace(**known)
        self.config = AugmentConfig(**settings)

    def call_with_report(self, element):
        image, label = element["image"], element["objects"]["label"]
        inverted = image.dtype.max - image
        fidelity = tf.cast(label, tf.float32) * 0.25 + 0.5
        report = {
            "augmented": tf.constant(True),
            "fidelity": fidelity,
            "contrast": fidelity + 1.0,
            "guarded": label == 0,
        }
        return element | {"image": inverted}, report


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(builder_module, "VAEAugment", StubTransform)


def make_config(name="own", **fields):
    return builder_module.MedVaeAugmentedConfig(
        name=name, **({"source": str(DUMMY_DATA), "mode": "denoise", "seed": 3} | fields)
    )


def build(data_dir, config):
    builder = builder_module.Builder(data_dir=data_dir, config=config)
    builder.download_and_prepare()
    return builder


def read_split(builder, split):
    """Return a split's examples by identifier."""
    examples = list(tfds.as_numpy(builder.as_dataset(split=split)))
    return {example["image/id"].decode(): example for example in examples}


class MedVaeAugmentedTest(tfds.testing.DatasetBuilderTestCase):
    """What TFDS asks of every dataset, on the records in dummy_data."""

    DATASET_CLASS = builder_module.Builder
    SPLITS = {"train": 3, "validation": 1, "test": 1}  # noqa: RUF012
    BUILDER_CONFIG_NAMES_TO_TEST = [make_config("dummy")]  # noqa: RUF012

    @pytest.fixture(autouse=True)
    def _stub(self, stub):
        pass


def test_a_configuration_without_a_name_is_called_by_its_settings():
    fields = json.loads('{"source": "/data/my records/", "mode": "sample", "seed": 1}')
    name = builder_module.MedVaeAugmentedConfig(**fields).name
    assert re.fullmatch("my_records_sample_[0-9a-f]{8}", name)
    assert builder_module.MedVaeAugmentedConfig(**fields).name == name
    assert builder_module.MedVaeAugmentedConfig(**fields | {"seed": 2}).name != name
    assert builder_module.MedVaeAugmentedConfig(**fields, name="mine").name == "mine"


def test_training_images_are_the_transform_s_and_the_rest_the_source_s(stub, tmp_path):
    builder = build(tmp_path, make_config())
    for split, sizes in SIZES.items():
        examples = read_split(builder, split)
        assert sorted(examples) == [f"{split}-{index}" for index in range(len(sizes))]
        for index in range(len(sizes)):
            source = make_image(split, index)
            expected = 255 - source if split == "train" else source
            np.testing.assert_array_equal(examples[f"{split}-{index}"]["image"], expected)


def test_boxes_and_labels_are_the_source_s_bit_for_bit(stub, tmp_path):
    examples = read_split(build(tmp_path, make_config()), "train")
    for index in range(3):
        objects = examples[f"train-{index}"]["objects"]
        assert objects["bbox"].tobytes() == BOXES[:index].tobytes()
        assert objects["label"].tolist() == [1, 0][:index]


def test_provenance_tells_what_was_done(stub, tmp_path):
    config = make_config(checkpoint="mine", factor=0.5, mode="sample")
    builder = build(tmp_path, config)
    assert builder.info.features["objects"]["label"].names == list(LABELS)
    example = read_split(builder, "train")["train-2"]
    told = {key.removeprefix("augment/"): example[key] for key in example if "augment/" in key}
    assert told.pop("fidelity").tolist() == [0.75, 0.5]
    assert told.pop("guarded").tolist() == [False, True]
    assert told.pop("contrast").tolist() == [1.75, 1.5]
    settings = json.loads(told.pop("settings"))
    assert (settings["mode"], settings["factor"], settings["p"]) == ("sample", 0.5, 1.0)
    assert told == {
        "augmented": True,
        "checkpoint": b"digest of mine",
        "mode": b"sample",
        "factor": 0.5,
        "detail": 1.0,
        "guard": b"paste",
        "min_fidelity": np.float32(0.8),
        "seed": 3,
        "version": __version__.encode(),
    }
    untouched = read_split(builder, "test")["test-0"]
    assert not untouched["augment/augmented"]
    assert untouched["augment/mode"] == b"none"
    with pytest.raises(RecordError, match="left untouched has none"):
        restore_transform(untouched["augment/settings"].decode(), "")


def test_sixteen_bits_stay_sixteen_bits(stub, tmp_path):
    write_data(tmp_path / "records", np.uint16)
    builder = build(tmp_path / "out", make_config(source=str(tmp_path / "records")))
    image = read_split(builder, "validation")["validation-0"]["image"]
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, make_image("validation", 0).astype(np.uint16) * 257)
    trained = read_split(builder, "train")["train-1"]["image"]
    np.testing.assert_array_equal(trained, 65535 - make_image("train", 1).astype(np.uint16) * 257)


def read_stored(builder, split):
    """Return a split's records as stored, but for protobuf's order of keys within one.

    That order differs from process to process.
    """
    (shard,) = Path(builder.data_path).glob(f"*-{split}.tfrecord*")
    stored = tf.data.TFRecordDataset(str(shard)).as_numpy_iterator()
    examples = [tf.train.Example.FromString(record) for record in stored]
    return [example.SerializeToString(deterministic=True) for example in examples]


@pytest.mark.parametrize("split", SIZES)
def test_two_builds_are_alike_to_the_byte(stub, tmp_path, split):
    first, second = (read_stored(build(tmp_path / n, make_config()), split) for n in ("a", "b"))
    assert len(first) == len(SIZES[split])
    assert first == second


def read_cards(builder):
    """Return the cards of a build: the one for programs, and the one for people."""
    croissant = json.loads((Path(builder.data_path) / CROISSANT_FILE).read_bytes())
    return croissant, (Path(builder.data_path) / CARD_FILE).read_text()


def test_cards_tell_what_was_counted_in_the_result(stub, tmp_path):
    builder = build(tmp_path, make_config())
    croissant, card = read_cards(builder)
    examples, splits = croissant["recordSet"]
    rows = {row["splits/split"]: row for row in splits["data"]}
    assert list(rows) == list(builder.info.splits)
    # Three boxes, of labels 1; 1 and 0: the stub tells fidelity by label, and guards label 0.
    train = {"images": 3, "augmented_images": 3, "lost_images": 0, "boxes": 3, "judged_boxes": 3}
    train |= {"guarded_boxes": 1, "lowest_fidelity": 0.5, "median_fidelity": 0.75}
    assert {name: rows["train"][f"splits/{name}"] for name in train} == train
    test = rows["test"]
    assert (test["splits/images"], test["splits/augmented_images"]) == (1, 0)
    assert test["splits/judged_boxes"] == 0 and test["splits/lowest_fidelity"] is None
    fields = {field["source"]["extract"]["column"] for field in examples["field"]}
    (shard,) = Path(builder.data_path).glob("*-train.tfrecord*")
    record = next(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
    assert fields == set(tf.train.Example.FromString(record).features.feature)
    assert "`tfds build med_vae_augmented`" in card and "restore_transform" in card
    assert "vae-aug augment" not in card


def test_cards_name_each_file_of_records_with_its_digest(stub, tmp_path):
    builder = build(tmp_path, make_config())
    *files, shards = read_cards(builder)[0]["distribution"]
    written = {path.name: path.read_bytes() for path in Path(builder.data_path).glob("*tfrecord*")}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in written.items()}
    assert {file["name"]: file["sha256"] for file in files} == digests
    sizes = {name: f"{len(content)} B" for name, content in written.items()}
    assert {file["name"]: file["contentSize"] for file in files} == sizes
    assert all(Path(name).match(shards["includes"]) for name in written)


# By rdflib, in reading any JSON-LD.
@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")
def test_mlcroissant_finds_no_error_in_the_card(stub, tmp_path):
    mlcroissant = pytest.importorskip("mlcroissant", reason="install vae-aug[tfds]")
    builder = build(tmp_path, make_config())
    dataset = mlcroissant.Dataset(jsonld=Path(builder.data_path) / CROISSANT_FILE)
    assert not dataset.metadata.ctx.issues.errors


def test_cards_of_two_builds_are_alike_and_name_no_image(stub, tmp_path):
    cards = []
    for place in ("ROE", "DOE"):
        write_data(tmp_path / place / "records")
        config = make_config(source=str(tmp_path / place / "records"))
        _, card = read_cards(build(tmp_path / place, config))
        cards.append(card)
    assert cards[0] == cards[1]
    assert not [name for name in ("DOE", "ROE", "train-0", str(tmp_path)) if name in cards[0]]


def test_the_licence_that_the_source_states_stands_in_the_cards(stub, tmp_path):
    write_data(tmp_path / "records")
    (tmp_path / "records" / ABOUT_FILE).write_text('{"license": "CC-BY-3.0"}')
    config = make_config(source=str(tmp_path / "records"))
    croissant, card = read_cards(build(tmp_path / "out", config))
    assert croissant["isBasedOn"]["license"] == "CC-BY-3.0" and "| license | CC-BY-3.0 |" in card
    (tmp_path / "records" / ABOUT_FILE).write_text('{"licence": "CC-BY-3.0"}')
    with pytest.raises(RecordError, match="licence: unknown"):
        build(tmp_path / "again", config)


def test_damaged_records_that_are_lost_stand_in_the_card(stub, tmp_path):
    write_data(tmp_path / "records")
    (shard,) = (tmp_path / "records").glob("train*.tfrecord")
    records = list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
    broken = tf.train.Example.FromString(records[1])
    broken.features.feature["image/encoded"].bytes_list.value[0] = b"no image"
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for record in (records[0], broken.SerializeToString(), records[2]):
            writer.write(record)
    config = make_config(source=str(tmp_path / "records"), allow_damaged=True)
    _, card = read_cards(build(tmp_path / "out", config))
    assert "Damaged images of the source that are lost: 1." in card


@pytest.mark.parametrize("form", ["array_record", "parquet"])
def test_cards_are_made_of_other_formats_of_files_too(stub, tmp_path, form):
    package = {"array_record": "array_record", "parquet": "pyarrow"}[form]
    pytest.importorskip(package)
    builder = builder_module.Builder(data_dir=tmp_path, config=make_config(), file_format=form)
    builder.download_and_prepare()
    croissant, card = read_cards(builder)
    *files, shards = croissant["distribution"]
    assert len(files) == 3 and shards["encodingFormat"] == "application/octet-stream"
    assert "| train |  |  | 3 | 3 | 0 | 3 | 3 | 1 |" in card


def test_a_build_that_augments_nothing_has_no_card(stub, tmp_path):
    builder = build(tmp_path, make_config(augment_splits=[]))
    assert not (Path(builder.data_path) / CARD_FILE).exists()


def test_a_card_that_cannot_be_written_leaves_no_dataset(stub, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    path_type = type(builder_module.Builder(data_dir=tmp_path, config=make_config()).data_path)
    monkeypatch.setattr(path_type, "write_text", fail)
    with pytest.raises(OSError, match="No space"):
        build(tmp_path, make_config())
    assert not list((tmp_path / "med_vae_augmented" / "own").glob("*"))


def test_evaluation_splits_are_augmented_only_by_force(stub, tmp_path):
    with pytest.raises(ValueError, match="validation: a model measured on augmented"):
        make_config(augment_splits=["train", "validation"])
    forced = make_config(augment_splits=["validation"], augment_evaluation=True)
    builder = build(tmp_path, forced)
    image = read_split(builder, "validation")["validation-0"]["image"]
    np.testing.assert_array_equal(image, 255 - make_image("validation", 0))
    image = read_split(builder, "train")["train-0"]["image"]
    np.testing.assert_array_equal(image, make_image("train", 0))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"mode": "blur"}, ValueError, "mode must be one of"),
        ({"factor": -1.0}, ValueError, "factor must be in"),
        ({"seed": None}, TypeError, "seed must be an integer.*got None"),
        ({"augment_splits": "train"}, TypeError, "augment_splits must be a list"),
    ],
)
def test_bad_fields_are_refused_when_the_config_is_made(fields, error, message):
    with pytest.raises(error, match=message):
        make_config(**fields)


def test_patients_of_evaluation_splits_that_trained_the_network_are_told(
    stub, monkeypatch, tmp_path
):
    for split in ("train", "test"):
        example = make_example(
            make_image(split, 0),
            source_id=split,
            patient="patient of both",
            boxes=[],
            labels=[],
            label_names=LABELS,
        )
        write_records([example], tmp_path / "source", split, label_names=LABELS)
    monkeypatch.setattr(StubTransform, "patients", frozenset({"patient of both"}))
    said: list[str] = []
    logger = logging.getLogger(builder_module.__name__)
    monkeypatch.setattr(logger, "warning", lambda text, *values: said.append(text % values))
    source = {"source": str(tmp_path / "source")}
    build(tmp_path / "out", make_config(**source))
    assert any("trained on 1 patients of the split 'test'" in text for text in said)
    with pytest.raises(RecordError, match=r"patients of evaluation splits \(1 of the split 'test'"):
        build(tmp_path / "strict", make_config(strict=True, **source))


def test_a_split_the_source_lacks_is_refused(stub, tmp_path):
    config = make_config(augment_splits=["trian"], augment_evaluation=True)
    with pytest.raises(ValueError, match=r"names trian; .* has test, train, validation"):
        build(tmp_path, config)


def test_other_settings_under_the_same_name_are_refused(stub, tmp_path):
    build(tmp_path, make_config())
    build(tmp_path, make_config())  # The same settings reuse what is there.
    with pytest.raises(ValueError, match=r"factor was 1\.0, now 0\.5.*--overwrite"):
        build(tmp_path, make_config(factor=0.5))


def test_what_a_killed_build_left_is_removed_and_nothing_else(stub, tmp_path):
    own = tmp_path / "med_vae_augmented" / "own"
    for name in ("incomplete.A1B2C3_1.0.0", "incomplete.A1B2C3_2.0.0"):
        (own / name).mkdir(parents=True)
        (own / name / "half.tfrecord").write_bytes(b"half")
    build(tmp_path, make_config())
    assert sorted(path.name for path in own.iterdir()) == ["1.0.0", "incomplete.A1B2C3_2.0.0"]


def test_a_second_build_of_the_same_at_the_same_time_is_refused(stub, tmp_path):
    own = tmp_path / "med_vae_augmented" / "own"
    (own / "incomplete.A1B2C3_1.0.0").mkdir(parents=True)
    with lock_folder(own / "1.0.0", beside=True):
        with pytest.raises(RecordError, match=r"own/1\.0\.0"):
            build(tmp_path, make_config())
        assert (own / "incomplete.A1B2C3_1.0.0").is_dir()
    assert build(tmp_path, make_config()).is_prepared()


def test_the_fixed_configurations_differ_in_what_they_build():
    settings = [json.dumps(config.settings) for config in builder_module.Builder.BUILDER_CONFIGS]
    assert len(set(settings)) == len(settings)


# From here on nothing is stubbed: the packaged checkpoint augments.


def test_the_packaged_checkpoint_changes_images_and_no_box(tmp_path):
    examples = read_split(build(tmp_path, make_config(mode="denoise", guard="off")), "train")
    for index in range(3):
        example = examples[f"train-{index}"]
        assert example["image"].shape == make_image("train", index).shape
        assert (example["image"] != make_image("train", index)).any()
        assert example["objects"]["bbox"].tobytes() == BOXES[:index].tobytes()
        assert example["augment/fidelity"].shape == (index,)
        assert example["augment/contrast"].shape == (index,)
        assert len(example["augment/checkpoint"]) >= 8


def test_an_example_tells_how_to_make_its_bytes_again(tmp_path):
    """In `map`, which is what everybody else runs, the builder's settings make the same bytes."""
    config = make_config(mode="sample", factor=0.5, p=0.9, seed=11)
    examples = read_split(build(tmp_path, config), "train")
    told = examples["train-0"]
    settings, digest = (told[f"augment/{key}"].decode() for key in ("settings", "checkpoint"))
    augment = restore_transform(settings, digest)
    for element in read_records(DUMMY_DATA, "train").map(augment):
        example = examples[element["image/source_id"].numpy().decode()]
        assert element["image"].numpy().tobytes() == example["image"].tobytes()
    changed = [
        (examples[f"train-{index}"]["image"] != make_image("train", index)).any()
        for index in range(3)
    ]
    assert any(changed)


def build_on_beam(data_dir, config, **options):
    """Build on a runner of Beam, which does not ask GitHub for a program that runs pipelines."""
    beam = pytest.importorskip("apache_beam", reason="install vae-aug[beam]")
    settings = {"runner": "DirectRunner", "update_compatibility_version": beam.__version__}
    options = beam.options.pipeline_options.PipelineOptions.from_dictionary(settings | options)
    builder = builder_module.Builder(data_dir=data_dir, config=config)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(beam_options=options))
    return builder


def read_shards(builder):
    """Return the records of each file, in their order; TFDS does not sort the keys of a record."""
    return {
        path.name: [
            tf.train.Example.FromString(record).SerializeToString(deterministic=True)
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
        ]
        for path in Path(builder.data_path).glob("*tfrecord*")
    }


@pytest.mark.parametrize("shards", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_workers_of_beam_build_the_same_bytes(shards, tmp_path):
    examples = [
        make_example(
            np.full((16, 16, 1), 9 * index, np.uint8),
            source_id=f"image-{index}",
            boxes=BOXES[: index % 3],
            labels=[1, 0][: index % 3],
            label_names=LABELS,
        )
        for index in range(11)
    ]
    source = tmp_path / "source"
    write_records(examples, source, "train", shards, label_names=LABELS)
    config = make_config(source=str(source), augment_splits=[])
    built = read_shards(build(tmp_path / "one", config))
    assert built and built == read_shards(build_on_beam(tmp_path / "beam", config))


@pytest.mark.slow
def test_workers_of_beam_build_the_embedded_source(tmp_path, monkeypatch):
    monkeypatch.setitem(DEFAULT_COUNTS, "train", 2)
    config = make_config(source="embedded", augment_splits=[])
    built = read_shards(build(tmp_path / "one", config))
    assert len(built) == 3 and built == read_shards(build_on_beam(tmp_path / "beam", config))


def test_what_workers_of_beam_find_damaged_is_named(tmp_path, monkeypatch):
    # Boxes of large sets are checked as they are read.
    monkeypatch.setattr(check, "CHECKED_BYTES", 0)
    example = make_example(
        make_image("test", 0), source_id="image", boxes=BOXES[:1], labels=[0], label_names=LABELS
    )
    example.features.feature["image/object/bbox/xmin"].float_list.value[0] = np.nan
    write_records([example], tmp_path / "source", "train", label_names=LABELS)
    config = make_config(source=str(tmp_path / "source"), augment_splits=[])
    with pytest.raises(RecordError, match=r"train-00000-of-00001.tfrecord, record 0.*xmin"):
        build(tmp_path / "one", config)
    with pytest.raises(Exception, match=r"train-00000-of-00001.tfrecord, record 0.*xmin"):
        build_on_beam(tmp_path / "beam", config)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"direct_num_workers": "2", "direct_running_mode": "multi_processing"}],
    ids=["in one process", "in two processes"],
)
def test_workers_of_beam_augment_as_one_process_does(options, tmp_path):
    config = make_config(mode="sample", seed=11)
    built = read_shards(build(tmp_path / "one", config))
    assert built == read_shards(build_on_beam(tmp_path / "beam", config, **options))


@pytest.mark.slow
def test_a_fixed_configuration_needs_no_data(tmp_path):
    builder = build(tmp_path, "phantom_denoise")
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert min(counts[name] for name in ("train", "validation", "test")) > 0
    source = {item.source_id: item for item in read_embedded("train")}
    examples = read_split(builder, "train")
    assert set(examples) == set(source)
    for name, item in source.items():
        assert examples[name]["objects"]["bbox"].tobytes() == item.boxes.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "arguments"),
    [
        (FOLDER.parent, ["med_vae_augmented"]),
        pytest.param(
            FOLDER.parent.parent, ["tfds_builders/med_vae_augmented"], marks=pytest.mark.slow
        ),
        pytest.param(
            None,
            ["med_vae_augmented", "--imports", "vae_aug_tfds.med_vae_augmented"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["in the folder", "by path", "by import"],
)
def test_the_command_line_builds(folder, arguments, tmp_path):
    for package in ("apache_beam", "mlcroissant"):
        pytest.importorskip(package, reason="the command tfds imports it; install vae-aug[tfds]")
    # Without a split to augment no checkpoint is loaded; only the way to the builder is tested.
    config = {"name": "own", "source": str(DUMMY_DATA), "augment_splits": []}
    command = [Path(sys.executable).with_name("tfds"), "build", *arguments]
    done = subprocess.run(
        [*command, "--data_dir", tmp_path / "data", "--config", json.dumps(config)],
        cwd=folder or tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    test = tfds.load("med_vae_augmented/own", data_dir=tmp_path / "data", split="test")
    (example,) = tfds.as_numpy(test)
    np.testing.assert_array_equal(example["image"], make_image("test", 0))
