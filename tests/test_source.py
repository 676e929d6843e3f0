from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from test_annotations import HEIGHT, WIDTH

from vae_aug.errors import AnnotationError, VAEAugError
from vae_aug.ingest.formats import source
from vae_aug.ingest.formats.source import (
    Box,
    Collector,
    Fault,
    ReaderOptions,
    clean_boxes,
    clean_label,
    describe_fault,
    parse_number,
    parse_size,
)

BOX = Box((1, 2, 3, 4), "cyst")


def test_boxes_are_clipped_or_refused():
    nan, inf = float("nan"), float("inf")
    shifted = "of the size of the image, but shifted; its size may be the image's"
    cases = [
        ((10, 5, 30, 15), (10, 5, 30, 15), ""),
        ((0, 0, 80, 40), (0, 0, 80, 40), ""),
        ((-0.009, 0, 80.009, 40), (0, 0, 80, 40), ""),
        ((-5, -6, 10, 50), (0, 0, 10, 40), "partly outside the image"),
        ((-5, -6, 90, 50), (0, 0, 80, 40), "partly outside the image"),
        ((80, 0, 90, 10), None, "outside the image"),
        ((1, 1, 81, 41), (1, 1, 80, 40), "partly outside the image"),
        ((9, 5, 89, 45), None, shifted),
        ((9, 5, 80, 40), (9, 5, 80, 40), ""),
        ((-9, 0, 0, 10), None, "outside the image"),
        ((30, 5, 10, 15), None, "inverted (a minimum above its maximum)"),
        ((10, 5, 10, 15), None, "zero area"),
        ((10, 5, 10.0005, 15), None, "zero area"),
        ((nan, 5, 10, 15), None, "its coordinates are not all numbers"),
        ((0, 0, inf, 15), None, "its coordinates are not all numbers"),
    ]
    clipped, usable, faults = clean_boxes(np.array([case[0] for case in cases]), HEIGHT, WIDTH)
    assert faults == [case[2] for case in cases]
    assert usable.tolist() == [case[1] is not None for case in cases]
    for box, (_, expected, _) in zip(clipped, cases, strict=True):
        if expected is not None:
            np.testing.assert_array_equal(box, expected)


@pytest.mark.parametrize(
    ("value", "number"),
    [("1.5", 1.5), (" 7 ", 7), ("-2e1", -20), (3, 3), (0.5, 0.5), ("inf", math.inf)],
)
def test_numbers(value, number):
    assert parse_number(value) == number


@pytest.mark.parametrize("value", [True, False, "1_0", "", "x", None, [1], {}, 10**400, "nan"])
def test_what_python_would_take_for_a_number_and_nobody_else_is_none(value):
    assert math.isnan(parse_number(value))


@pytest.mark.parametrize(
    ("value", "size"),
    [("512", 512), (512.0, 512), (1, 1), (0, None), (-3, None), ("", None), ("inf", None)],
)
def test_sizes(value, size):
    assert parse_size(value) == size


def test_labels_that_look_the_same_are_the_same():
    assert clean_label(" Le\u0301sion\n") == "L\u00e9sion"


def test_a_fault_is_told_without_the_name_of_its_file():
    path = Path("DOE^JANE.xml")
    assert describe_fault(path, VAEAugError(f"{path}: no valid XML.")) == "no valid XML"


def test_what_is_said_of_an_image_decides_what_it_is(tmp_path):
    collector = Collector(tmp_path)
    entries = {
        "boxed": [BOX],
        "negative": [],
        "silent": None,
        "faulty": [BOX, Fault("box 1: has no width")],
        "nameless": [BOX._replace(label=" ")],
    }
    for name, said in entries.items():
        collector.add(tmp_path / f"{name}.png", said, file=tmp_path / "all.json")
    found = collector.finish(["cyst", "cyst ", "stone"])
    assert found.label_names == ("cyst", "stone") and found.file == tmp_path / "all.json"
    states = [image.annotation for image in found.images]
    assert states == ["complete", "complete", "none", "faulty", "faulty"]
    assert [len(image.boxes) for image in found.images] == [1, 0, 0, 1, 0]
    told = [(problem.file, problem.reason, problem.effect) for problem in found.problems]
    assert told == [
        ("all.json", "box 1: has no width", "dropped"),
        ("all.json", "box 0: has no label", "dropped"),
    ]
    with pytest.raises(AnnotationError, match="a class has an empty name"):
        collector.finish(["cyst", " "])


def test_an_image_that_is_said_two_things_of_is_faulty(tmp_path):
    collector = Collector(tmp_path)
    for name in "same", "other":
        collector.add(tmp_path / f"{name}.png", [BOX])
    collector.add(tmp_path / "same.png", [BOX])
    collector.add(tmp_path / "other.png", [])
    found = collector.finish(["cyst"])
    assert [image.annotation for image in found.images] == ["complete", "faulty"]
    assert [(p.file, p.effect) for p in found.problems] == [
        ("same.png", "skipped"),
        ("other.png", "unread"),
    ]


def test_images_outside_the_source_are_not_taken_unless_their_folder_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "out" / "a.png")
    taken = {}
    for images in None, tmp_path / "out":
        collector = Collector(tmp_path / "in", ReaderOptions(images))
        for path in (tmp_path / "out" / "a.png", tmp_path / "in" / "link.png"):
            collector.add(path, [])
        taken[images] = len(collector.images)
        assert len(collector.problems) == 2 - taken[images]
    assert taken == {None: 0, tmp_path / "out": 2}


def test_an_image_of_more_boxes_than_are_read_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_BOXES", 3)
    collector = Collector(tmp_path)
    collector.add(tmp_path / "a.png", [BOX] * 3)
    collector.add(tmp_path / "b.png", [BOX] * 4)
    first, second = collector.images
    assert (first.annotation, len(first.boxes)) == ("complete", 3)
    assert (second.annotation, len(second.boxes)) == ("faulty", 0)
    assert collector.problems[0].reason == "it has more than 3 boxes"


def test_files_that_lost_their_image_may_describe_any_without_a_file(tmp_path):
    def doubt(lost):
        collector = Collector(tmp_path)
        for name, said in (("silent", None), ("negative", []), ("boxed", [BOX])):
            collector.add(tmp_path / name, said)
        collector.doubt_unannotated(lost)
        return [image.annotation for image in collector.images], len(collector.notes)

    assert doubt(0) == (["none", "complete", "complete"], 0)
    assert doubt(2) == (["faulty", "complete", "complete"], 1)
