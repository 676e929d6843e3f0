"""How the format of a data set is told, and what is refused because nobody would read it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import time

import numpy as np
import pytest
from conftest import ROOT
from corpus import images
from test_dicom import write_dicom

from vae_aug.codecs.images import write_image
from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats import READERS, coco, findings
from vae_aug.ingest.formats.detect import detect_format
from vae_aug.ingest.formats.images import read_images

CASES = ROOT.parent / "shared" / "cases"

BOX = {"x": 1, "y": 2, "width": 3, "height": 4}
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 1, "name": "cyst"}],
    }
)
LABELME = json.dumps(
    {
        "shapes": [{"label": "cyst", "shape_type": "rectangle", "points": [[1, 2], [9, 9]]}],
        "imagePath": "a.png",
    }
)
VIA = json.dumps(
    {
        "a.png9": {
            "filename": "a.png",
            "size": 9,
            "regions": [
                {
                    "shape_attributes": {"name": "rect"} | BOX,
                    "region_attributes": {"class": "cyst"},
                }
            ],
            "file_attributes": {},
        }
    }
)
VOC = "<annotation><filename>a.png</filename><object><name>cyst</name></object></annotation>"
CVAT = '<annotations><version>1.1</version><image id="0" name="a.png"/></annotations>'
TABLE = "file,x1,y1,x2,y2,class\na.png,1,2,9,9,cyst\n"
YOLO = "0 0.5 0.5 0.25 0.5\n"
METADATA = json.dumps([{"file": "a.png", "Manufacturer": "GE"}])


@pytest.fixture
def source(tmp_path):
    """A folder with one image."""
    write_image(tmp_path / "a.png", np.zeros((30, 40, 1), np.uint8))
    return tmp_path


def write(folder, **files):
    """Write files; of a name `__` is the folder's separator, and the last `_` the point."""
    for key, content in files.items():
        name = ".".join(key.replace("__", "/").rsplit("_", 1))
        put(folder / name, content)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.json", METADATA),
        ("deep/er/and/deep/er/a.json", METADATA),
        ("a.json", "{"),
        ("data.yaml", "names: [a\nnc: 1"),
        ("data.yaml", "names: [a]"),
        ("a.xml", "<annotation>"),
        ("other.xml", "<html/>"),
        ("a.txt", YOLO),
        ("a.txt", ""),
        ("list.txt", "a.png 1,2,9,9,0\n"),
        ("boxes.dat", "1 2 9 9\n"),
        ("ground_truth", "1 2 9 9\n"),
        ("classes.txt", "cyst\n"),
        ("labels.csv", "file,finding\na.png,cyst\n"),
        ("a.tsv", "file\tfinding\na.png\tcyst\n"),
        ("a.jsonl", METADATA),
        ("obj.names", "cyst\n"),
        ("obj.data", "classes = 1\n"),
        *((f"a.{end}", b"\0\1") for end in ("npy", "mat", "h5", "pkl", "xlsx", "nrrd", "mhd")),
        *((name, b"PK") for name in ("annotations.zip", "RoiSet.zip", "a.zip", "masks/1.tar")),
        *((f"a.{end}", b"\0\1") for end in ("qpdata", "fcsv", "ndpa", "svg", "vtk", "mask")),
        ("contours.dxf", b"0"),
        ("train.json.gz", b"\x1f\x8b\x08"),
    ],
)
def test_what_looks_like_annotations_and_is_not_understood_is_refused(source, name, content):
    put(source / name, content)
    with pytest.raises(AnnotationError) as refusal:
        detect_format(source)
    message = str(refusal.value)
    assert name in message and "--format" in message
    assert [image.annotation for image in read_images(source).images] == ["none"]


@pytest.mark.parametrize("has_boxes", [False, True])
def test_masks_in_a_folder_of_any_name_are_refused(tmp_path, has_boxes):
    """Beside other annotations, too: an image without these would become a negative."""
    ramp = np.tile(np.arange(40, dtype=np.uint8), (30, 1))[..., None]
    for folder in ("img", "tumour"):
        (tmp_path / folder).mkdir()
    for name in "ab":
        write_image(tmp_path / "img" / f"{name}.png", ramp)
        mask = np.uint8(255) * (ramp > 20 * (name == "a"))
        write_image(tmp_path / "tumour" / f"{name}.png", mask)
    if has_boxes:
        write(tmp_path, img__a_txt=YOLO, classes_txt="cyst\n")
    with pytest.raises(AnnotationError, match=r"images like 'tumour/a\.png' have two val"):
        detect_format(tmp_path)
    # A picture without contrast among them shows that they are none.
    write_image(tmp_path / "tumour" / "b.png", ramp)
    assert detect_format(tmp_path).format == ("yolo" if has_boxes else "images")


RAMP = np.tile(np.arange(40, dtype=np.uint8), (30, 1))[..., None]


def write_two_valued(path):
    write_image(path, np.uint8(255) * (RAMP > 20))


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"a.txt": YOLO, "classes.txt": "cyst"},
        {"t.json": COCO.replace("a.png", "a.jpg")},
    ],
)
@pytest.mark.parametrize(
    "mask",
    [
        "{}_1stHO.png",
        "{}-vessels.png",
        "{} (2).png",
        "vessels_{}.png",
        "{}.png",
        "derived/{}.1stHO.png",
    ],
)
def test_masks_named_after_their_image_by_any_word_are_refused(tmp_path, mask, beside):
    """CHASE DB1 has `Image_01L.jpg` with `Image_01L_1stHO.png`; a filtered copy lies beside it."""
    (tmp_path / "derived").mkdir()
    for name in ("a", "Image_01R"):
        write_image(tmp_path / f"{name}.jpg", RAMP)
        write_image(tmp_path / "derived" / f"{name}_filtered.png", RAMP)
        write_image(tmp_path / f"{name}_smooth.png", RAMP)
        write_two_valued(tmp_path / mask.format(name))
    for name, content in beside.items():
        put(tmp_path / name, content)
    like = re.escape(mask.format("Image_01R"))
    with pytest.raises(AnnotationError, match=f"the images like '{like}' have two values"):
        detect_format(tmp_path)
    write_image(tmp_path / mask.format("Image_01R"), RAMP)
    assert detect_format(tmp_path).format in ("images", "yolo", "coco")


@pytest.mark.parametrize(
    "beside",
    [
        {"a_edges.txt": YOLO, "classes.txt": "cyst"},
        {"t.json": COCO.replace("a.png", "deep/a_edges.png")},
        {"t.csv": TABLE.replace("a.png", "a_edges")},
        {"a_edges.xml": VOC},
    ],
)
def test_annotated_images_of_two_values_are_no_masks(tmp_path, beside):
    for name in "ab":
        write_image(tmp_path / f"{name}.png", RAMP)
        write_two_valued(tmp_path / f"{name}_edges.png")
    for name, content in beside.items():
        put(tmp_path / name, content)
    assert detect_format(tmp_path).format in ("coco", "csv", "voc", "yolo")


def test_a_refusal_tells_files_readers_and_the_way_out(source):
    for index in range(7):
        put(source / f"{index}.json", METADATA)
    put(source / "a.txt", YOLO)
    with pytest.raises(AnnotationError) as refusal:
        detect_format(source)
    message = str(refusal.value)
    assert "0.json (of no format that is known)" in message
    assert "4.json" in message and "5.json" not in message and "and 3 more" in message
    assert "\n  coco: no JSON with 'images', 'annotations' and 'categories'\n" in message
    assert "\n  yolo: boxes, but no classes.txt, obj.names, or data.yaml with names\n" in message
    assert message.endswith(
        "Name the right one with --format NAME, or take the images as unannotated with "
        "--format images."
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.txt", "0 is the background"),
        ("readme_a.md", YOLO),
        ("LICENSE", "CC BY 4.0"),
        ("LICENSE.txt", "1 2 3 4 5"),
        ("NOTICE", ""),
        ("CITATION.cff", "cff-version: 1.2.0"),
        ("requirements.txt", "numpy==1.2"),
        ("SHA256SUMS", "0123 a.png"),
        ("md5.txt", "1 2 3"),
        (".DS_Store", b"\0\0\0\1Bud1"),
        ("Thumbs.db", b"\0"),
        ("desktop.ini", "[.ShellClassInfo]"),
        (".hidden.json", METADATA),
        (".git/config.json", METADATA),
        ("__MACOSX/._a.json", METADATA),
        ("prepare.py", "1"),
        ("a.xmp", "<x/>"),
        ("a.pgw", "0.5"),
        ("dataset.zip", "PK"),
        ("segmentation.onnx", "1"),
        ("run.log", "1 2 3"),
        ("dataset_info.json", METADATA),
        ("package.json", METADATA),
        ("about.txt", "Slices of 12 patients, taken in 2019 with a scanner of 3 tesla."),
        ("train.txt", "images/a.png\nimages/b.png\n"),
        ("test.txt", "a\na.png\nimages\\\\a.png\n"),
        ("empty.json", "{}"),
    ],
)
def test_what_is_clearly_no_annotation_does_not_count(source, name, content):
    put(source / name, content)
    assert detect_format(source) == (
        *("images", "the source holds images and no annotations", ""),
        (),
    )


FORMATS = {
    "coco": {"train.json": COCO},
    "labelme": {"a.json": LABELME},
    "via": {"via_region_data.json": VIA},
    "voc": {"Annotations/a.xml": VOC},
    "cvat": {"annotations.xml": CVAT},
    "csv": {"train.csv": TABLE},
    "yolo": {"labels/a.txt": YOLO, "classes.txt": "cyst\n"},
}


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_told_beside_foreign_files(source, format):
    for name, content in FORMATS[format].items():
        put(source / name, content)
    found = detect_format(source)
    assert (found.format, found.ignored) == (format, ())
    for name in ("0.json", "1.json", "2.json", "settings/zz.json"):
        put(source / name, METADATA)
    put(source / "other.xml", "<html/>")
    found = detect_format(source)
    assert found.format == format and found.file in FORMATS[format]
    expected = ("0.json", "1.json", "2.json", "other.xml", "settings/zz.json")
    assert found.ignored == expected


def test_an_odd_file_among_many_is_found(source):
    """More files than are looked into: those called like no image are all looked into."""
    for index in range(3 * findings.SAMPLES):
        put(source / f"meta_{index:03}.json", METADATA)
    put(source / "meta_100a.json", COCO)
    found = detect_format(source)
    assert found.format == "coco" and len(found.ignored) == 3 * findings.SAMPLES


def test_one_broken_file_of_many_is_left_to_the_reader_of_a_file_an_image(source):
    for index in range(5):
        write_image(source / f"{index}.png", np.zeros((30, 40, 1), np.uint8))
        put(source / f"{index}.json", LABELME if index else "{")
    assert detect_format(source)[::3] == ("labelme", ())


@pytest.mark.parametrize(
    ("good", "broken"),
    [
        (("val.json", COCO), ("train.json", COCO[:-5])),
        (("train.json", COCO), ("other.xml", "<a>")),
        (("labels/a.txt", YOLO), ("data.yaml", "names: [a\nnc: 1")),
    ],
)
def test_a_broken_file_beside_a_good_one_is_refused(source, good, broken):
    put(source / good[0], good[1])
    put(source / broken[0], broken[1])
    with pytest.raises(AnnotationError, match=rf"cannot be read: {broken[0]} \(no valid"):
        detect_format(source)


def test_several_formats_are_refused(source):
    put(source / "train.json", COCO)
    put(source / "train.csv", TABLE)
    with pytest.raises(AnnotationError, match=r"coco: JSON .*; csv: a table of boxes\); name one"):
        detect_format(source)
    assert detect_format(source / "train.json").format == "coco"


def test_masks_beside_other_annotations_are_refused(source):
    write_image(source / "a_mask.png", np.zeros((30, 40, 1), np.uint8))
    assert detect_format(source).format == "masks"
    put(source / "train.json", COCO)
    with pytest.raises(AnnotationError, match="several formats"):
        detect_format(source)


def test_images_beside_volumes_or_records_are_refused(source):
    put(source / "seg" / "a.nii.gz", b"")
    with pytest.raises(AnnotationError, match=r"images and NIfTI, .* --format images or --format"):
        detect_format(source)
    (source / "seg" / "a.nii.gz").rename(source / "seg" / "a.tfrecord")
    with pytest.raises(AnnotationError, match="images and TFRecords"):
        detect_format(source)


def test_volumes_keep_what_lies_beside_them(tmp_path):
    put(tmp_path / "imagesTr" / "a.nii.gz", b"")
    put(tmp_path / "dataset.json", METADATA)
    put(tmp_path / "participants.tsv", "participant_id\tage\n")
    put(tmp_path / "sub-1.json", METADATA)
    assert detect_format(tmp_path) == ("nifti", "found NIfTI", "", ("sub-1.json",))


def test_what_an_ingest_leaves_is_read_as_records(tmp_path):
    put(tmp_path / "train-00000-of-00001.tfrecord", b"")
    put(tmp_path / "train_unannotated-00000-of-00001.tfrecord", b"")
    for name in ("dataset.json", "ingest_train.json", "label_map.pbtxt"):
        put(tmp_path / name, METADATA)
    write_image(tmp_path / "ingest_train.png", np.zeros((30, 40, 1), np.uint8))
    assert detect_format(tmp_path) == ("records", "found TFRecords", "", ())


def test_dicom_with_and_without_annotations(tmp_path):
    write_dicom(tmp_path / "IM0001", np.zeros((8, 8), np.uint16))
    assert detect_format(tmp_path) == ("dicom", "found DICOM", "IM0001", ())
    put(tmp_path / "metadata.csv", "Series UID,Collection\n1.2,LIDC\n")
    with pytest.raises(AnnotationError, match=r"(?s)beside its DICOM lie .*--format dicom\.$"):
        detect_format(tmp_path)
    put(tmp_path / "annotations" / "1.2.3.xml", VOC)
    assert detect_format(tmp_path) == ("dicom", "found DICOM", "IM0001", ("metadata.csv",))


def test_other_images_among_dicom_are_named(source):
    write_dicom(source / "IM0001", np.zeros((8, 8), np.uint16))
    assert detect_format(source)[::3] == ("dicom", ("a.png",))


def test_yaml_that_is_not_of_yolo_may_be_anything(source):
    put(source / "train.json", COCO)
    put(source / "docker-compose.yml", "a: &a 1\nb: *a\n")
    assert detect_format(source)[::3] == ("coco", ("docker-compose.yml",))


def test_pipes_and_links_are_named_and_never_opened(source, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "train.json"
    outside.write_text(COCO)
    os.mkfifo(source / "pipe.json")
    (source / "link.json").symlink_to(outside)
    (source / "labels").symlink_to(outside.parent, target_is_directory=True)
    (source / "loop").symlink_to(source, target_is_directory=True)
    with pytest.raises(AnnotationError) as refusal:
        detect_format(source)
    message = str(refusal.value)
    assert "labels (a link to a folder, which is not followed)" in message
    assert "link.json (a link that leads out of the source)" in message
    assert "pipe.json (no regular file)" in message
    with pytest.raises(AnnotationError, match="is no regular file"):
        detect_format(source / "pipe.json")


def test_a_large_file_of_coco_is_not_parsed(source, monkeypatch):
    monkeypatch.setattr(coco, "LARGE_BYTES", 10)
    put(source / "train.json", COCO)
    monkeypatch.setattr(findings, "load_json", None)
    assert detect_format(source).format == "coco"


def test_many_files_take_little_time(source):
    for index in range(2000):
        put(source / f"{index}.png", b"")
        put(source / f"{index}.json", LABELME)
    start = time.perf_counter()
    assert detect_format(source).format == "labelme"
    assert time.perf_counter() - start < 60


def test_nothing_to_tell_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match="neither annotations of a known format nor images;"):
        detect_format(tmp_path)
    with pytest.raises(AnnotationError, match="no such file or folder"):
        detect_format(tmp_path / "missing")
    put(tmp_path / "a.nrrd", b"")
    with pytest.raises(AnnotationError, match=r"nor images: a\.nrrd"):
        detect_format(tmp_path)
    with pytest.raises(AnnotationError, match="of no format that is known"):
        detect_format(tmp_path / "a.nrrd")


def test_whatever_lies_beside_images_they_are_never_bare_by_mistake(source):
    """Mutated annotations are told, or refused; only what is empty leaves bare images."""
    rng = random.Random(5)
    contents = [(name, text) for files in FORMATS.values() for name, text in files.items()]
    for _ in range(300):
        name, text = rng.choice(contents)
        data = bytearray(text.encode())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.choice(b'\0 "{}<>,.\n\xffaZ09')
        data = data[: rng.randint(1, len(data))] if rng.random() < 0.3 else data
        data = rng.choice((b"", b"\xef\xbb\xbf", b"\xff\xfe")) + data
        put(source / name, bytes(data))
        with contextlib.suppress(AnnotationError):
            assert detect_format(source).format != "images", (name, bytes(data))
        (source / name).unlink()


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("field/03-annotated-sets-taken-for-bare-images/csvheaderless", "csv"),
        ("field/03-annotated-sets-taken-for-bare-images/cvatyolo", "yolo"),
        ("field/03-annotated-sets-taken-for-bare-images/makesenseyolo", None),
        ("field/03-annotated-sets-taken-for-bare-images/supervisely", "supervisely"),
        ("field/03-annotated-sets-taken-for-bare-images/viacsv", "via"),
        ("field/03-annotated-sets-taken-for-bare-images/yolobom", "yolo"),
        ("field/04-nifti-label-volumes-become-images/imglabels", "nifti"),
        ("field/13-tfrecord-text-with-newline/tfrtext", "records"),
        ("hostile/dicom_frames/src", "dicom"),
        ("hostile/yolo_badyaml/src", None),
    ],
)
def test_cases_from_the_field(case, expected):
    if not (CASES / case).is_dir():
        pytest.skip(f"no cases: {CASES} has no folder {case}")
    if expected is None:
        with pytest.raises(AnnotationError, match="look like annotations"):
            detect_format(CASES / case)
    else:
        assert detect_format(CASES / case).format == expected


@pytest.mark.real_data
def test_the_formats_of_the_public_data_are_told(data_dir):
    expected = {
        "kidney_stone_ct": ("coco", ()),
        "lgg_flair": ("coco", ()),
        "ibsi_sts": ("coco", ("series.json",)),
        "lung_ct_dicom": ("dicom", ()),
        "dicom_objects": ("dicom", ("frame_rgb.jpeg", "frame_rgb_empty.jpeg")),
    }
    assert {name: detect_format(data_dir / name)[::3] for name in expected} == expected
    for name in ("covid_ny_sbu_ct", "mr_vendors", "anatomy_ccby_mini"):
        with pytest.raises(AnnotationError, match="--format images"):
            detect_format(data_dir / name)
    # It holds a table of boxes beside the XML files.
    with pytest.raises(AnnotationError, match="several formats"):
        detect_format(data_dir / "bccd")


def test_annotations_that_nobody_reads_never_make_negatives(tmp_path):
    """Sources of a seeded generator: refused, or read so that no image loses its boxes."""
    refused = 0
    for seed in range(200):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth = images.make(random.Random(seed), folder)
        is_bare = not any(truth.values())
        try:
            format = detect_format(folder).format
            assert (format == "images") == is_bare, seed
            found = READERS[format](folder)
        except AnnotationError:
            assert not is_bare, seed
            refused += 1
            continue
        for image in found.images:
            name = image.path.relative_to(folder).as_posix()
            assert image.annotation != "complete" or len(image.labels) >= len(truth[name]), seed
    assert refused > 60
