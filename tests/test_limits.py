from __future__ import annotations

import os

import pytest

from vae_aug.errors import VAEAugError
from vae_aug.limits import (
    MAX_DECODED_BYTES,
    MAX_PIXELS,
    check_decoded_size,
    check_regular,
    read_bounded,
)


def test_a_file_is_read_up_to_its_last_byte_and_not_beyond_the_bound(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == read_bounded(str(path), 6) == b"12345"
    with pytest.raises(VAEAugError) as caught:
        read_bounded(path, 4)
    assert str(caught.value) == f"{path}: has 5 bytes; at most 4 are read."
    check_regular(path)
    check_regular(path, 5)
    with pytest.raises(VAEAugError, match="has 5 bytes"):
        check_regular(path, 4)


def test_an_empty_file_is_a_file(tmp_path):
    (tmp_path / "a.txt").touch()
    assert read_bounded(tmp_path / "a.txt", 0) == b""


def test_what_does_not_end_is_refused_before_it_is_opened(tmp_path):
    """A pipe without a writer would be waited for."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", tmp_path, "/dev/zero"):
        for refuse in (lambda path: read_bounded(path, 9), check_regular):
            with pytest.raises(VAEAugError) as caught:
                refuse(path)
            assert str(caught.value) == f"{path}: is no regular file; leave it out."


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "No such file or directory"),
        ("a" * 300, "File name too long"),
        ("a\0b", "no name that a file can have"),
    ],
)
def test_names_of_no_file_are_errors_of_the_package(tmp_path, name, reason):
    with pytest.raises(VAEAugError) as caught:
        read_bounded(tmp_path / name, 9)
    assert str(caught.value) == f"{tmp_path / name}: cannot be read ({reason})."


@pytest.mark.parametrize(
    ("pixel_bytes", "most", "unit"),
    [(1, MAX_PIXELS, "byte"), (2, MAX_PIXELS, "bytes"), (6, MAX_DECODED_BYTES // 6, "bytes")],
)
def test_an_image_may_have_so_many_pixels_or_bytes(pixel_bytes, most, unit):
    check_decoded_size(1, most, pixel_bytes)
    with pytest.raises(VAEAugError, match=f"at most {most} of {pixel_bytes} {unit} are read"):
        check_decoded_size(most + 1, 1, pixel_bytes)
