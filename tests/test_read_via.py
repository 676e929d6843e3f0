"""The VGG Image Annotator: projects, JSON and tables of VIA 1 and 2."""

from __future__ import annotations

import csv
import io
import json
import math
import random

import pytest
from conftest import ROOT
from corpus import via as corpus
from corpus.sources import find_losses, write_image

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.via import is_via, is_via_table, read_via

RECT = {"name": "rect", "x": 10, "y": 12, "width": 20, "height": 8}
BOX = ("nodule", [10, 12, 30, 20])
COLUMNS = (
    "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
    "region_attributes"
)


def make_region(shape=RECT, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes or {"class": "nodule"}}


def make_entry(*regions, name="a.png", **changes):
    return {"filename": name, "size": 9, "regions": list(regions), "file_attributes": {}, **changes}


def write(folder, *entries, names=("a.png", "b.png"), file="via.json", wrap=False):
    """Write entries under the keys that VIA gives them."""
    content = {f"{entry['filename']}{entry['size']}": entry for entry in entries}
    content = {"_via_settings": {}, "_via_img_metadata": content} if wrap else content
    for name in names:
        write_image(folder / name)
    (folder / file).write_text(json.dumps(content), encoding="utf-8")


def write_rows(folder, *rows, header=COLUMNS, names=("a.png", "b.png")):
    """Write rows of a table, in which objects are JSON."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    for row in rows:
        writer.writerow([json.dumps(cell) if isinstance(cell, dict) else cell for cell in row])
    for name in names:
        write_image(folder / name)
    (folder / "via.csv").write_text(f"{header}\n{stream.getvalue()}", encoding="utf-8")


def summarize(annotations):
    """Return by image what the source says of it, and its labels and boxes."""
    return {
        image.source_id: (
            image.annotation,
            list(zip(image.labels, image.boxes.tolist(), strict=True)),
        )
        for image in annotations.images
    }


@pytest.mark.parametrize(
    ("attributes", "state"),
    [
        ({"annotated": "no"}, "none"),
        ({"annotated": "yes", "caption": "axial"}, "complete"),
        ({"label": "Nodule"}, "faulty"),
        ({"nodule": "yes"}, "faulty"),
        ({"nodule": "no", "public_domain": "yes"}, "complete"),
        ({"finding": "no nodule"}, "complete"),
    ],
)
@pytest.mark.parametrize("is_table", [False, True])
def test_what_is_said_of_an_image_as_a_whole(tmp_path, attributes, state, is_table):
    if is_table:
        region = (1, 0, RECT, {"class": "nodule"})
        write_rows(tmp_path, ("a.png", 9, {}, *region), ("b.png", 9, attributes, 0, 0, {}, {}))
    else:
        entries = make_entry(make_region()), make_entry(name="b.png", file_attributes=attributes)
        write(tmp_path, *entries)
    assert summarize(read_via(tmp_path)) == {"a.png": ("complete", [BOX]), "b.png": (state, [])}


@pytest.mark.parametrize("wrap", [False, True])
def test_json_of_via_2(tmp_path, wrap):
    write(tmp_path, make_entry(make_region()), make_entry(name="b.png"), wrap=wrap)
    found = read_via(tmp_path)
    assert summarize(found) == {"a.png": ("complete", [BOX]), "b.png": ("complete", [])}
    assert found.label_names == ("nodule",) and found.problems == ()


def test_json_of_via_1_has_regions_by_number(tmp_path):
    write(tmp_path, make_entry(regions={"0": make_region(), "1": make_region(type="nodule")}))
    write(tmp_path, make_entry(regions={"0": make_region(), "1": make_region()}))
    assert summarize(read_via(tmp_path)) == {"a.png": ("complete", [BOX, BOX])}


def test_an_image_that_is_not_listed_is_not_taken_and_a_missing_one_is_reported(tmp_path):
    write(tmp_path, make_entry(make_region()), make_entry(make_region(), name="gone.png"))
    found = read_via(tmp_path)
    assert summarize(found) == {"a.png": ("complete", [BOX])}
    assert [(p.file, p.effect) for p in found.problems] == [("gone.png", "skipped")]


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ({"name": "circle", "cx": 20, "cy": 16, "r": 4.5}, [15.5, 11.5, 24.5, 20.5]),
        ({"name": "ellipse", "cx": 20, "cy": 16, "rx": 8, "ry": 4}, [12, 12, 28, 20]),
        # A quarter turn exchanges the half axes.
        (
            {"name": "ellipse", "cx": 20, "cy": 16, "rx": 8, "ry": 4, "theta": math.pi / 2},
            [16, 8, 24, 24],
        ),
        # Of an eighth: sqrt((64 + 16) / 2) both ways.
        (
            {"name": "ellipse", "cx": 20, "cy": 16, "rx": 8, "ry": 4, "theta": math.pi / 4},
            [20 - 40**0.5, 16 - 40**0.5, 20 + 40**0.5, 16 + 40**0.5],
        ),
        (
            {"name": "polygon", "all_points_x": [10, 30, 12], "all_points_y": [12, 15, 20]},
            [10, 12, 30, 20],
        ),
        ({**RECT, "x": "10", "width": 20.0}, [10, 12, 30, 20]),
    ],
)
def test_shapes(tmp_path, shape, box):
    write(tmp_path, make_entry(make_region(shape)))
    state, ((_, found),) = summarize(read_via(tmp_path))["a.png"]
    assert state == "complete" and found == pytest.approx(box, abs=1e-9)


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        (make_region({"name": "point", "cx": 1, "cy": 2}), "a point or line has no area"),
        (
            make_region({"name": "polyline", "all_points_x": [1, 9, 1], "all_points_y": [1, 2, 1]}),
            "a point or line has no area",
        ),
        (make_region({"name": "polygon", "all_points_x": [1, 2, 3]}), "a polygon wants"),
        (make_region({"name": "star"}), "its shape is not known"),
        (make_region(None), "has no shape"),
        ("x", "has no shape"),
        ({"shape_attributes": RECT}, "has no one value of the attribute 'class'"),
        (make_region(**{"class": ""}), "has no one value of the attribute 'class'"),
        (make_region(**{"class": "undefined"}), "has no one value of the attribute 'class'"),
    ],
)
def test_regions_without_a_box(tmp_path, region, reason):
    write(tmp_path, make_entry(make_region(), region))
    found = read_via(tmp_path)
    assert summarize(found) == {"a.png": ("faulty", [BOX])}
    assert found.problems[0].reason.startswith(f"entry 0, region 1: {reason}")


# --- Labels


@pytest.mark.parametrize(
    "attributes",
    [
        {"finding": "nodule"},
        {"Class": " nodule ", "quality": "good"},
        {"type": {"nodule": True, "cyst": False}},
        {"name": "nodule", "note": ""},
    ],
)
def test_the_attribute_that_is_the_label(tmp_path, attributes):
    write(tmp_path, make_entry(make_region(**attributes)))
    assert summarize(read_via(tmp_path)) == {"a.png": ("complete", [BOX])}


@pytest.mark.parametrize("value", [{"nodule": True, "cyst": True}, {"nodule": False}, {}, None])
def test_checkboxes_of_which_not_one_is_true(tmp_path, value):
    write(tmp_path, make_entry(make_region(), make_region(**{"class": value})))
    assert summarize(read_via(tmp_path))["a.png"] == ("faulty", [BOX])


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        ({"class": "nodule", "type": "solid"}, "class, type"),
        ({"quality": "good", "finding": "nodule"}, "quality, finding"),
        ({"class": ""}, "none with a value"),
    ],
)
def test_attributes_of_which_none_is_surely_the_label_are_refused(tmp_path, attributes, names):
    write(tmp_path, make_entry(make_region(**attributes)))
    with pytest.raises(AnnotationError, match=f"via.json: expected one attribute .* got {names}"):
        read_via(tmp_path)


# --- Contradictions


def test_a_key_that_names_another_image_spoils_both(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / name)
    entries = [make_entry(make_region()), make_entry(name="b.png"), make_entry(name="c.png")]
    content = {"a.png9": entries[0], "b.png9": entries[1], "a.png8": entries[2]}
    (tmp_path / "via.json").write_text(json.dumps(content))
    states = {name: state for name, (state, _) in summarize(read_via(tmp_path)).items()}
    assert states == {"a.png": "faulty", "b.png": "complete", "c.png": "faulty"}


def test_keys_of_other_tools_say_nothing(tmp_path):
    write_image(tmp_path / "a.png")
    (tmp_path / "via.json").write_text(json.dumps({"0": make_entry(make_region())}))
    assert summarize(read_via(tmp_path)) == {"a.png": ("complete", [BOX])}


def test_an_entry_without_a_name_may_be_any_images(tmp_path):
    write(tmp_path, make_entry(make_region(), name=""), make_entry(name="b.png"))
    found = read_via(tmp_path)
    assert summarize(found) == {"b.png": ("faulty", [])}
    assert "1 entries of the file name no image" in found.notes[0]


@pytest.mark.parametrize("regions", [None, "x", 3])
def test_regions_that_are_none(tmp_path, regions):
    write(tmp_path, make_entry(make_region(), name="b.png"), make_entry(regions=regions))
    assert summarize(read_via(tmp_path))["a.png"] == ("faulty", [])


def test_two_entries_of_one_image_that_differ(tmp_path):
    write(tmp_path, make_entry(make_region()), make_entry(name="A.PNG"))
    assert summarize(read_via(tmp_path))["a.png"][0] == "faulty"


# --- Tables


@pytest.mark.parametrize("header", [COLUMNS, f"#{COLUMNS}"])
def test_a_table(tmp_path, header):
    write_rows(
        tmp_path,
        ("a.png", 9, {}, 2, 0, RECT, {"class": "nodule"}),
        ("a.png", 9, {}, 2, 1, {"name": "circle", "cx": 9, "cy": 8, "r": 2}, {"class": "cyst"}),
        ("b.png", 9, {}, 0, 0, {}, {}),
        header=header,
    )
    assert is_via_table(tmp_path / "via.csv")
    assert summarize(read_via(tmp_path)) == {
        "a.png": ("complete", [BOX, ("cyst", [7, 6, 11, 10])]),
        "b.png": ("complete", []),
    }


@pytest.mark.parametrize("rows", [1, 3])
def test_a_table_that_counts_other_regions_than_it_has(tmp_path, rows):
    write_rows(tmp_path, *[("a.png", 9, {}, 2, 0, RECT, {"class": "nodule"})] * rows)
    found = read_via(tmp_path)
    assert summarize(found)["a.png"][0] == "faulty"
    assert f"its region_count is not its {rows} regions" in found.problems[0].reason


def test_a_table_with_cells_that_are_no_json(tmp_path):
    write_rows(
        tmp_path,
        ("a.png", 9, {}, 1, 0, '{"name": "rect", "x"', {"class": "nodule"}),
        ("b.png", 9, {}, 1, 0, RECT, {"class": "nodule"}),
    )
    assert summarize(read_via(tmp_path)) == {"a.png": ("faulty", []), "b.png": ("complete", [BOX])}


# --- What is VIA


def test_what_is_via(tmp_path):
    assert is_via({"a.png9": make_entry()}) and is_via({"_via_img_metadata": {}})
    assert is_via([make_entry()])
    for other in ({}, [], None, {"images": [], "annotations": []}, {"shapes": []}, {"a": 1}):
        assert not is_via(other)
    (tmp_path / "t.csv").write_text("filename,xmin,ymin,xmax,ymax,label\n")
    assert not is_via_table(tmp_path / "t.csv")


def test_via_3_is_refused_by_name(tmp_path):
    content = {"project": {}, "config": {}, "file": {}, "metadata": {}, "view": {}}
    (tmp_path / "via.json").write_text(json.dumps(content))
    assert is_via(content)
    with pytest.raises(AnnotationError, match=r"via\.json: is of VIA 3, which is not read"):
        read_via(tmp_path)
    table = tmp_path / "t.csv"
    table.write_text(
        "# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)\n"
        "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates\n"
        '"1_a","[""a.png""]",0,"[]","[2,10,12,20,8]"\n'
    )
    assert is_via_table(table)
    with pytest.raises(AnnotationError, match=r"t\.csv: is of VIA 3, which is not read"):
        read_via(table)


def test_what_is_no_via_is_refused(tmp_path):
    (tmp_path / "via.json").write_text('{"images": []}')
    with pytest.raises(AnnotationError, match="no JSON of VIA"):
        read_via(tmp_path)
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(AnnotationError, match="no table of VIA"):
        read_via(tmp_path / "t.csv")


def test_the_file_of_a_split(tmp_path):
    for split, regions in (("train", [make_region()]), ("val", [])):
        (tmp_path / split).mkdir()
        write(tmp_path / split, make_entry(*regions), names=["a.png"], file="via_region_data.json")
    assert summarize(read_via(tmp_path)) == {"train/a.png": ("complete", [BOX])}
    assert summarize(read_via(tmp_path, "validation")) == {"val/a.png": ("complete", [])}


def test_relative_coordinates_are_refused(tmp_path):
    shape = {"name": "rect", "x": 0.1, "y": 0.2, "width": 0.3, "height": 0.1}
    write(tmp_path, make_entry(make_region(shape)))
    with pytest.raises(AnnotationError, match="coordinates are relative"):
        read_via(tmp_path)


def test_the_reported_case():
    folder = ROOT.parent / "shared" / "cases" / "field"
    folder = folder / "03-annotated-sets-taken-for-bare-images" / "viacsv"
    if not folder.is_dir():
        pytest.skip(f"no reported cases: {folder} is not a folder")
    assert summarize(read_via(folder)) == {"a.png": ("complete", [BOX])}


def test_no_box_is_lost_whatever_is_in_a_file(tmp_path):
    read = 0
    for seed in range(300):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth = corpus.make(random.Random(seed), folder)
        try:
            found = read_via(folder)
        except AnnotationError:
            continue
        assert find_losses(found, truth) == [], seed
        read += any(image.annotation == "complete" for image in found.images)
    # The corpus tests something only if most files are read.
    assert read > 150
