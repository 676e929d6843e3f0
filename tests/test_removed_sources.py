"""What a command says of a source that is removed while it is read: its path, and what became."""

from __future__ import annotations

import pytest
from fake_vae import FakeVAE
from test_augment_records import make_augment, write_data
from test_denoise_files import make_noise
from test_ingest import write_coco

from vae_aug.codecs.images import write_image
from vae_aug.errors import RecordError
from vae_aug.extras.augment_records import augment_records
from vae_aug.extras.denoise_files import denoise_files
from vae_aug.ingest.ingest import ingest
from vae_aug.records.check import check_records
from vae_aug.records.records import read_info

pytestmark = pytest.mark.usefixtures("config_home")


def remover(*paths):
    """Return a report of progress that removes files at its first call."""

    def remove(*_):
        for path in paths:
            path.unlink(missing_ok=True)

    return remove


def test_ingest_skips_an_image_and_counts_it(tmp_path):
    # More than the 32 of a block, of which the first is read before progress is told.
    boxes = {f"DOE_{number}.png": [(1, 2, 3, 4, 1)] for number in range(40)}
    source = write_coco(tmp_path / "source", boxes)
    gone = source / "images" / "DOE_39.png"
    report = ingest(source, tmp_path / "out", progress=remover(gone))
    assert len(report.skipped) == 1
    assert read_info(tmp_path / "out").splits["train"].examples == 39
    assert len(report.problems) == 1
    # Under strict nothing is written.
    source = write_coco(tmp_path / "again", boxes)
    with pytest.raises(Exception, match=r"(?i)no such file") as caught:
        ingest(
            source,
            tmp_path / "strict",
            strict=True,
            progress=remover(source / "images" / "DOE_39.png"),
        )
    assert type(caught.value).__module__ == "vae_aug.errors"


def test_denoise_leaves_an_image_out_and_names_it(tmp_path):
    for name in "ab":
        (tmp_path / "in").mkdir(exist_ok=True)
        write_image(tmp_path / "in" / f"{name}.png", make_noise())
    report = denoise_files(
        tmp_path / "in", tmp_path / "out", FakeVAE(), progress=remover(tmp_path / "in" / "b.png")
    )
    assert report.written == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    assert "b.png" in str(report.failed)


def test_augment_names_a_shard_and_leaves_nothing(tmp_path):
    records = write_data(tmp_path / "records")
    (gone,) = records.glob("test-*.tfrecord")
    with pytest.raises(RecordError, match="records: has no split 'test'"):
        augment_records(
            records,
            tmp_path / "out",
            make_augment(),
            splits=("train", "test"),
            augment_evaluation=True,
            progress=remover(gone),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["records"]


def test_check_names_a_shard(tmp_path):
    records = write_data(tmp_path / "records", shards=3)
    gone = sorted(records.glob("train-*.tfrecord"))[1:]
    with pytest.raises(RecordError, match=gone[0].name):
        check_records(records, "train", progress=remover(*gone))
