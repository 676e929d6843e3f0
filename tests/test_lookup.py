"""Which of several files describes the images of a split: told by name, then by content."""

from __future__ import annotations

import json
import shutil

import pytest
from test_ingest import GOOD, write_coco

from vae_aug.errors import AnnotationError, MissingSplitError
from vae_aug.ingest.formats import READERS
from vae_aug.ingest.formats.all_splits import ALL, read_splits
from vae_aug.ingest.formats.source import DEFAULTS

CVAT = '<annotations><image name="{}.png" width="80" height="40"></image></annotations>'
CSV = "image,xmin,ymin,xmax,ymax,label\n{}.png,1,2,9,9,lesion\n"
VIA = '{{"{0}.png": {{"filename": "{0}.png", "size": 1, "regions": [], "file_attributes": {{}}}}}}'


@pytest.fixture
def coco(tmp_path):
    """COCO of the splits train and val."""
    write_coco(tmp_path, GOOD)
    return write_coco(tmp_path, {"NEW_1.png": []}, split="val")


def write_splits(folder, template, suffix):
    """Write an annotation file of an image each for the splits train and val."""
    write_coco(folder, {"a.png": [], "b.png": []})
    (folder / "train.json").unlink()
    for name, split in (("a", "train"), ("b", "val")):
        (folder / f"{split}{suffix}").write_text(template.format(name))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("series.json", [{"patient": "A", "KVP": "140"}]),
        ("info.json", {"licence": "CC BY 4.0", "images": 4}),
        ("images.json", {"images": ["DOE_1.png", "DOE_2.png"]}),
        ("scanners/list.json", {"scanners": []}),
        ("empty.json", {}),
    ],
)
def test_a_file_of_another_content_is_of_no_split(coco, name, content):
    (coco / name).parent.mkdir(exist_ok=True)
    (coco / name).write_text(json.dumps(content))
    with pytest.raises(MissingSplitError, match=r"no test\.json"):
        READERS["coco"](coco, "test", DEFAULTS)
    assert len(READERS["coco"](coco, "train", DEFAULTS).images) == 3
    assert len(read_splits("coco", coco, ALL, DEFAULTS).annotations.images) == 4


@pytest.mark.parametrize(
    ("format", "template", "suffix", "other"),
    [
        ("cvat", CVAT, ".xml", "<scanner><model>Discovery ST</model></scanner>"),
        ("csv", CSV, ".csv", "patient,scanner\nA,GE\n"),
        ("via", VIA, ".json", '[{"patient": "A"}]'),
    ],
)
def test_so_it_is_in_other_formats(tmp_path, format, template, suffix, other):
    write_splits(tmp_path, template, suffix)
    (tmp_path / f"series{suffix}").write_text(other)
    with pytest.raises(MissingSplitError):
        READERS[format](tmp_path, "test", DEFAULTS)
    assert len(read_splits(format, tmp_path, ALL, DEFAULTS).annotations.images) == 2


def test_a_file_of_the_format_may_have_any_name(coco):
    shutil.move(coco / "train.json", coco / "lesions.json")
    (coco / "series.json").write_text("[]")
    assert len(READERS["coco"](coco, "train", DEFAULTS).images) == 3


def test_a_file_that_nobody_can_read_is_named_with_what_is_wrong(coco):
    content = (coco / "train.json").read_text()
    (coco / "train.json").unlink()
    (coco / "lesions.json").write_text(content[:-20])
    with pytest.raises(AnnotationError, match=r"lesions\.json: no valid JSON"):
        READERS["coco"](coco, "train", DEFAULTS)


@pytest.mark.parametrize("name", ["train.json", "anything.json"])
def test_the_only_file_and_the_one_of_the_splits_name_are_read_as_they_are(tmp_path, name):
    (tmp_path / name).write_text('{"images": []}')
    with pytest.raises(AnnotationError, match=name):
        READERS["coco"](tmp_path, "train", DEFAULTS)
