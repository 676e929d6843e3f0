from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from test_dicom import write_dicom, write_frames
from test_tfrecords import make_feature, make_noise, write_file

from vae_aug.codecs.images import encode_png
from vae_aug.errors import VAEAugError
from vae_aug.ingest.dicom.stack import Neighbour
from vae_aug.ingest.hounsfield import Hounsfield
from vae_aug.ingest.items import DicomFrame, ImageFile, Record, View, VolumeSlice, find_item

RAMP = np.arange(12, dtype=np.uint16).reshape(3, 4)


def test_the_first_bytes_of_a_file_tell_its_kind(tmp_path):
    write_dicom(tmp_path / "a.png", RAMP)
    (tmp_path / "b.dcm").write_bytes(encode_png(RAMP))
    items = [find_item(tmp_path / name) for name in ("a.png", "b.dcm", "gone.dcm")]
    assert [type(item) for item in items] == [DicomFrame, ImageFile, ImageFile]
    dicom, png = (item.load(View()) for item in items[:2])
    assert dicom.dicom.patient_id == "ID-4711" and dicom.windowed
    assert png.dicom is None and not png.windowed
    np.testing.assert_array_equal(png.pixels[..., 0], RAMP)
    with pytest.raises(VAEAugError, match=r"gone\.dcm: cannot be read"):
        items[2].load(View())


def test_a_file_of_several_frames_is_no_image_by_its_path(tmp_path):
    write_frames(tmp_path / "a.dcm", np.stack([RAMP, RAMP + 1]))
    with pytest.raises(VAEAugError, match="has 2 frames"):
        find_item(tmp_path / "a.dcm").load(View())
    second = DicomFrame(tmp_path / "a.dcm", 1, is_only=False).load(View((7, 12)))
    # Of 1 to 12 in (center 7, width 12): (x - 6.5) / 11 + 0.5, so 1 is black and 12 white.
    assert (second.pixels[0, 0, 0], second.pixels[-1, -1, 0]) == (0, 65535)


def test_items_of_one_place_are_equal_however_they_are_shown(tmp_path):
    path = tmp_path / "a"
    assert ImageFile(path) == ImageFile(path, hounsfield=Hounsfield(0, None)) != DicomFrame(path)
    shown = DicomFrame(path, value_range=(0, 1), neighbours=(Neighbour("end"),) * 2)
    assert {shown, DicomFrame(path)} == {shown} and shown != DicomFrame(path, 1)
    record = Record(path, offset=9, key="image")
    assert record != dataclasses.replace(record, offset=0) and record.place == "record 0"
    assert VolumeSlice(path, 2, axis="axial").place == "slice 2" and shown.place == ""


def test_absolute_paths_are_those_of_neighbours_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dicom("a.dcm", RAMP)
    near = Neighbour("found", find_item(tmp_path / "a.dcm").path.relative_to(tmp_path))
    frame = dataclasses.replace(DicomFrame(near.path), neighbours=(near, Neighbour("end")))
    assert frame.files == (near.path, near.path)
    assert frame.make_absolute().files == (tmp_path / "a.dcm",) * 2
    assert frame.make_absolute().load(View()).neighbours == ("found", "end")


def test_a_feature_called_like_a_plane_is_not_taken_for_a_volume(tmp_path):
    """MR sets prepared with TFDS may well call their image `axial`."""
    pixels = make_noise((6, 8), "u1")
    feature = {"axial": make_feature([encode_png(pixels)])}
    record = tf.train.Example(features=tf.train.Features(feature=feature))
    write_file(tmp_path / "a.tfrecord", record.SerializeToString())
    loaded = Record(tmp_path / "a.tfrecord", offset=0, key="axial").load(View())
    np.testing.assert_array_equal(loaded.pixels[..., 0], pixels.reshape(6, 8))
