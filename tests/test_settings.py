from __future__ import annotations

import pytest

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.source import ReaderOptions
from vae_aug.ingest.privacy import SaltedHashes
from vae_aug.ingest.settings import IngestSettings, check_format
from vae_aug.workers import Runner

pytestmark = pytest.mark.usefixtures("config_home")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "tif"}, r"format must be auto or one of coco, voc, .*; got 'tif'"),
        ({"shards": 0}, r"shards must be in \[1, 99999\]; got 0"),
        ({"shards": 100_000}, r"shards must be in \[1, 99999\]; got 100000"),
        ({"unannotated": "drop"}, "unannotated must be .*; got 'drop'"),
        ({"exif": "on"}, "exif must be .*; got 'on'"),
        ({"axis": "oblique"}, "axis must be .*; got 'oblique'"),
        ({"window": "lungs"}, "window must be"),
        ({"bits": 12}, "bits must be 8, 16 or None; got 12"),
        ({"neighbours": 0}, "neighbours must be 1 to 100 slices or .*; got 0"),
        ({"salt": ""}, "must not be empty"),
        ({"workers": 0}, "workers must be at least 1; got 0"),
        ({"workers": 2, "runner": "DirectRunner"}, "a runner has workers of its own"),
        ({"runner_options": {"a": "b"}}, r"runner_options need a runner; got \['a'\] and none"),
    ],
)
def test_bad_values_are_refused_when_the_settings_are_made(settings, message):
    with pytest.raises(ValueError, match=message):
        IngestSettings(**settings)


def test_a_folder_of_images_must_be_there(tmp_path):
    with pytest.raises(AnnotationError, match="none: no such folder; images wants one"):
        IngestSettings(images=tmp_path / "none")
    settings = IngestSettings(images=str(tmp_path), exif="ignore", axis="coronal")
    assert settings.reader_options == ReaderOptions(tmp_path, "ignore", "coronal")


@pytest.mark.parametrize(
    ("strict", "unannotated", "expected"),
    [
        (False, None, "keep"),
        (True, None, "error"),
        (True, "skip", "skip"),
        (False, "negative", "negative"),
    ],
)
def test_strict_refuses_unannotated_images_unless_it_is_said_what_becomes_of_them(
    strict, unannotated, expected
):
    settings = IngestSettings(strict=strict, unannotated=unannotated)
    assert settings.what_of_unannotated == expected
    assert settings.conversion.negatives == (unannotated == "negative")


@pytest.mark.parametrize(
    ("window", "of_dicom", "of_stored"),
    [
        (None, "auto", "auto"),
        ("full", "full", "full"),
        ("lung", (-600, 1500), "lung"),
        ((40, 400), (40, 400), (40, 400)),
    ],
)
def test_a_preset_keeps_its_name_where_it_is_going_to_be_refused(window, of_dicom, of_stored):
    view = IngestSettings(window=window).conversion.view
    assert (view.window, view.stored_window) == (of_dicom, of_stored)


def test_public_data_needs_no_salt():
    assert IngestSettings(keep_ids=True).conversion.pseudonyms is None
    settings = IngestSettings(salt="the salt")
    assert settings.conversion.pseudonyms == SaltedHashes(b"the salt")
    assert "the salt" not in repr(settings) + repr(settings.conversion)


def test_images_are_read_by_workers_or_by_a_runner():
    assert IngestSettings(workers=3).workers_or_runner == 3
    settings = IngestSettings(runner="DirectRunner", runner_options={"a": "b"})
    assert settings.workers_or_runner == Runner("DirectRunner", {"a": "b"})


def test_every_format_and_auto_are_formats():
    for format in ("auto", "coco", "nifti", "tfds", "images"):
        check_format(format)
    with pytest.raises(ValueError, match="got 'COCO'"):
        check_format("COCO")
