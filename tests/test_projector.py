"""What TensorBoard's projector is given: latents, and what is known of each image."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.plugins import projector

from vae_aug.codecs.images import read_image
from vae_aug.ingest.convert import ANNOTATION_KEY, SCANNER_KEY
from vae_aug.records.records import make_example, write_records
from vae_aug.train.feed import open_source
from vae_aug.train.projector import write_projector

SIZE = 16
BOX = np.array([[0.1, 0.1, 0.5, 0.5]], np.float32)
LABELS = ("cyst", "a\ttab")


def encode(images):
    """Stand for a network: the latent is the image's mean, and its batch's size."""
    mean = tf.reduce_mean(images, axis=(1, 2))
    return tf.concat([mean, tf.fill([len(images), 1], float(len(images)))], axis=1), mean


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two data sets: of three patients with a cyst, both labels and none, and of nobody known."""
    folders = [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")]
    labels = {folders[0]: ([0], [0, 1], []), folders[1]: ([], [1])}
    for folder, some in labels.items():
        examples = [
            make_example(
                np.full((SIZE, SIZE, 1), 40 * number, np.uint8),
                source_id=f"{number}",
                patient=f"hash {number % 2}" if folder == folders[0] else "",
                boxes=np.repeat(BOX, len(own), axis=0),
                labels=own,
                label_names=LABELS,
                extra={ANNOTATION_KEY: "none"}
                if not own and folder == folders[1]
                else {SCANNER_KEY: f"philips {'CT' if own else 'MR'}"}
                if folder == folders[0]
                else {SCANNER_KEY: "A Patient's Name"},
            )
            for number, own in enumerate(some)
        ]
        write_records(examples, folder, "validation", label_names=LABELS)
    return [open_source(folder, "validation") for folder in folders]


def test_a_row_tells_label_data_set_patient_by_number_and_scanner(sources, tmp_path):
    write_projector(tmp_path, encode, sources, SIZE, 64)
    heading, *rows = (tmp_path / "latents_rows.tsv").read_text().splitlines()
    assert heading == "label\tdata set\tpatient\tscanner"
    assert rows == [
        "cyst\t1\t1\tphilips CT",
        "not annotated\t2\t\tunknown",
        "a tab, cyst\t1\t2\tphilips CT",
        "a tab\t2\t\tunknown",
        "no box\t1\t1\tphilips MR",
    ]
    assert b"hash" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_latents_are_those_of_the_images_in_the_order_of_the_rows(sources, tmp_path):
    write_projector(tmp_path, encode, sources, SIZE, 64)
    latents = np.loadtxt(tmp_path / "latents.tsv", delimiter="\t")
    np.testing.assert_allclose(latents[:, 0], np.array([0, 0, 40, 40, 80]) / 255, rtol=1e-4)
    assert latents[:, 1].tolist() == [5] * 5


def test_a_limit_is_shared_by_the_sources(sources, tmp_path):
    write_projector(tmp_path, encode, sources, SIZE, 3)
    rows = (tmp_path / "latents_rows.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[1] for row in rows] == ["1", "2", "1"]


def test_the_configuration_names_the_files_and_the_sprite_shows_each_image(sources, tmp_path):
    write_projector(tmp_path / "logs", encode, sources, SIZE, 64)
    text = (tmp_path / "logs" / "projector_config.pbtxt").read_text()
    (embedding,) = text_format.Parse(text, projector.ProjectorConfig()).embeddings
    for name in (embedding.tensor_path, embedding.metadata_path, embedding.sprite.image_path):
        assert (tmp_path / "logs" / name).is_file()
    side = embedding.sprite.single_image_dim[0]
    sprite = read_image(tmp_path / "logs" / embedding.sprite.image_path)
    assert sprite.shape == (3 * side, 3 * side, 1)
    tiles = [sprite[side * (i // 3) + 5, side * (i % 3) + 5, 0] for i in range(9)]
    assert tiles == [0, 0, 40, 40, 80, 0, 0, 0, 0]
