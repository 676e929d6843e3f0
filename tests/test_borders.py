from __future__ import annotations

import pytest

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.borders import (
    check_inside,
    is_inside,
    keep_inside,
    list_borders,
    note_opened,
)


def test_opened_files_are_noted(tmp_path):
    with note_opened() as opened:
        check_inside(tmp_path / "a.txt")
    check_inside(tmp_path / "b.txt")
    assert opened == {tmp_path / "a.txt"}


@pytest.mark.parametrize(
    ("source", "borders"),
    [
        ("data", ["data"]),
        ("data/annotations", ["data"]),
        ("data/annotations/all.json", ["data", "data/annotations/all.json"]),
        ("data/*.record", ["data", "data"]),
        ("data/none*", []),
    ],
)
def test_borders_are_what_the_user_named(tmp_path, source, borders):
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    for name in ("annotations/all.json", "a.record", "b.record"):
        (tmp_path / "data" / name).touch()
    assert list_borders(tmp_path / source) == tuple(tmp_path / name for name in borders)
    further = list_borders(tmp_path / source, tmp_path / "images")
    assert further == (*(tmp_path / name for name in borders), tmp_path / "images")


def test_links_are_judged_by_where_they_lead(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "in_other"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.txt").touch()
    (inside / "out.txt").symlink_to(outside / "a.txt")
    (outside / "back.txt").symlink_to(inside / "a.txt")
    (inside / "loop.txt").symlink_to(inside / "loop.txt")
    borders = list_borders(inside)
    judged = {
        inside: True,
        inside / "a.txt": True,
        inside / "missing.txt": True,
        inside / "loop.txt": True,
        inside / ".." / "in_other" / "a.txt": False,
        inside / "out.txt": False,
        outside / "a.txt": False,
        outside / "back.txt": True,
    }
    assert {path: is_inside(path, borders) for path in judged} == judged


def test_what_lies_outside_is_refused_within_the_block_alone(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "a.txt").touch()
    with keep_inside(list_borders(tmp_path / "in")):
        check_inside(tmp_path / "in" / "a.txt")
        # What is not there is named as missing by whoever opens it.
        check_inside(tmp_path / "missing.txt")
        with pytest.raises(AnnotationError, match=r"a\.txt: is reached by a link that leads out"):
            check_inside(tmp_path / "a.txt")
    check_inside(tmp_path / "a.txt")
