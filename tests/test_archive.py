"""Members of a checkpoint: what is no checkpoint is refused before it costs anything."""

from __future__ import annotations

import os
import random
import struct
import zipfile
import zlib

import pytest

from vae_aug.errors import CheckpointError
from vae_aug.model.archive import read_member

MEMBERS = ("manifest.json", "card.md")
KERAS_MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
LIMIT = 10**6


@pytest.fixture
def archive(tmp_path):
    """Write an archive of members, by default a whole one."""

    def write(members=(("manifest.json", b"{}"), ("card.md", b"# Card")), **options):
        path = tmp_path / "a.keras"
        with zipfile.ZipFile(path, "w", **options) as target:
            for name, content in members:
                target.writestr(name, content)
        return path

    return write


def read(path, name="manifest.json"):
    return read_member(path, name, LIMIT, MEMBERS)


def refuse(path, message):
    with pytest.raises(CheckpointError, match=message) as error:
        read(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_come_back(archive, compression):
    path = archive(compression=compression)
    assert (read(path), read(path, "card.md")) == (b"{}", b"# Card")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "has no manifest.json, only nothing at all"),
        ([("card.md", b"")], "has no manifest.json, only card.md"),
        ([("manifest.json", b"{}"), ("config.json", b"{}")], r"holds \['config.json'\] too"),
        ([("manifest.json", b"{}"), ("../../evil", b"")], r"holds \['../../evil'\] too"),
        ([("manifest.json", b"{}"), ("/etc/passwd", b"")], "too. One has the members"),
        ([("manifest.json", b"{}"), *((f"x{i}", b"") for i in range(5000))], "too. One has"),
        ([(f"{i:0100}", b"") for i in range(9000)], "read at once"),
        ([("manifest.json", bytes(LIMIT + 1))], "at most 1000000 are read"),
    ],
)
def test_archives_of_other_members_are_refused(archive, members, message):
    refuse(archive(members), message)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(archive):
    refuse(archive([("manifest.json", b"{}"), ("manifest.json", b"[]")]), "there twice")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_inflate_without_bound_are_refused(archive, method):
    refuse(archive(compression=method), f"compressed by method {method}")


def patch(path, signature, offset, value):
    """Write a 16-bit field of the first record with a signature."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, content.index(signature) + offset, value)
    path.write_bytes(content)


def test_encrypted_members_are_refused(archive):
    path = archive()
    patch(path, b"PK\1\2", 8, 1)
    refuse(path, "is encrypted")


def test_a_size_that_lies_is_found_out(archive):
    # The directory says 10 bytes (its size is at offset 24) of a member that inflates to 900,000.
    path = archive([("manifest.json", bytes(900_000))], compression=zipfile.ZIP_DEFLATED)
    patch(path, b"PK\1\2", 24, 10)
    patch(path, b"PK\1\2", 26, 0)
    refuse(path, "Bad CRC-32")
    # And 900,000 of one that has 10.
    path = archive([("manifest.json", bytes(10))], compression=zipfile.ZIP_DEFLATED)
    patch(path, b"PK\1\2", 26, 13)
    refuse(path, "ends after 10 of 851978 bytes|Bad CRC-32")
    assert zlib.crc32(bytes(10)) != zlib.crc32(bytes(900_000))


def test_paths_that_are_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text.keras").write_text("PK not an archive")
    (tmp_path / "empty.keras").touch()
    (tmp_path / "folder").mkdir()
    refuse(tmp_path / "pipe", "neither a file nor a folder")
    refuse("/dev/zero", "neither a file nor a folder")
    refuse(tmp_path / "absent", "cannot be read")
    refuse(tmp_path / "x\0y", "cannot be read")
    refuse(tmp_path / ("x" * 300), "cannot be read")
    refuse(tmp_path / "text.keras", "is no checkpoint of vae_aug")
    refuse(tmp_path / "empty.keras", "is no checkpoint of vae_aug")
    refuse(tmp_path / "folder", "has no manifest.json")


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("state", "without a validation yet"),
        ("tuning.json", r"a search; name trials/<number>/checkpoint.keras"),
        ("dataset.json", "a folder of records"),
    ],
)
def test_folders_of_other_things_are_named(tmp_path, file, hint):
    (tmp_path / file).touch()
    refuse(tmp_path, hint)


def test_an_empty_folder_and_another_program_s_model_are_named(tmp_path, archive):
    (tmp_path / "folder").mkdir()
    refuse(tmp_path / "folder", "The folder is empty")
    path = archive([(name, b"{}") for name in KERAS_MEMBERS])
    with pytest.raises(CheckpointError, match="It is a Keras model of other code"):
        read_member(path, "manifest.json", LIMIT, ("manifest.json", *KERAS_MEMBERS))


def test_members_in_a_folder_are_regular_files_within_the_bound(tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    refuse(tmp_path, "regular file")
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").mkdir()
    refuse(tmp_path, "regular file")
    (tmp_path / "manifest.json").rmdir()
    (tmp_path / "manifest.json").write_bytes(bytes(LIMIT + 1))
    refuse(tmp_path, "at most 1000000")
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").symlink_to(tmp_path / "nowhere")
    refuse(tmp_path, "cannot be read")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_damage_raises_anything_else(archive):
    path = archive(compression=zipfile.ZIP_DEFLATED)
    whole = path.read_bytes()
    rng = random.Random(7)
    for _ in range(600):
        content = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            content[rng.randrange(len(content))] = rng.choice((0, 1, 127, 255, rng.randrange(256)))
        path.write_bytes(content[: rng.choice((None, None, rng.randrange(len(content))))])
        try:
            assert read(path) == b"{}"
        except CheckpointError as error:
            assert str(error).startswith(str(path))
