"""Folders of images without annotations."""

from __future__ import annotations

import numpy as np
import pytest

from vae_aug.codecs.images import write_image
from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.images import read_images
from vae_aug.ingest.formats.source import ReaderOptions


def write(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.zeros((6, 8, 1), np.uint8))


def test_images_are_unannotated(tmp_path):
    write(tmp_path / "b.png", tmp_path / "deep" / "a.jpg")
    found = read_images(tmp_path)
    assert [(i.source_id, i.annotation, i.labels) for i in found.images] == [
        ("b.png", "none", ()),
        ("deep/a.jpg", "none", ()),
    ]
    assert not found.label_names and not found.problems


def test_a_folder_of_the_split_is_taken_alone(tmp_path):
    write(tmp_path / "train" / "a.png", tmp_path / "val" / "b.png")
    assert [image.source_id for image in read_images(tmp_path, "val").images] == ["val/b.png"]
    with pytest.raises(AnnotationError, match="no folder for the split 'test'"):
        read_images(tmp_path, "test")


def test_links_that_lead_outside_are_named_and_left_out(tmp_path):
    write(tmp_path / "outside" / "secret.png", tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").symlink_to(tmp_path / "outside" / "secret.png")
    found = read_images(tmp_path / "in")
    assert [image.source_id for image in found.images] == ["a.png"]
    ((file, reason, effect),) = [(p.file, p.reason, p.effect) for p in found.problems]
    assert (file, effect) == ("b.png", "skipped") and "outside the source" in reason
    options = ReaderOptions(images=tmp_path / "outside")
    assert len(read_images(tmp_path / "in", "train", options).images) == 2


def test_nothing_to_read_is_refused(tmp_path):
    for folder, message in ((tmp_path, "holds no image"), (tmp_path / "gone", "no such folder")):
        with pytest.raises(AnnotationError, match=message):
            read_images(folder)
