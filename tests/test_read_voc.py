"""Pascal VOC as people have it: encodings, names, tags in any spelling, objects of all kinds."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from corpus import voc as corpus
from corpus.sources import find_losses, write_image

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.source import ReaderOptions
from vae_aug.ingest.formats.voc import is_voc, parse_voc, read_voc

BNDBOX = "<bndbox><xmin>10</xmin><ymin>12</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
OBJECT = f"<object><name>nodule</name>{BNDBOX}</object>"
NODULE = ("nodule", [10, 12, 30, 20])
OTHER = OBJECT.replace("nodule", "cyst")
CYST = ("cyst", NODULE[1])


def write(path, body=OBJECT, filename=None):
    name = "" if filename is None else f"<filename>{filename}</filename>"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation>{name}{body}</annotation>", encoding="utf-8")


def write_images(folder, *names):
    for name in names:
        write_image(folder / name)


def summarize(annotations):
    """Return by image what the source says of it, and its labels and boxes."""
    return {
        image.source_id: (
            image.annotation,
            list(zip(image.labels, image.boxes.tolist(), strict=True)),
        )
        for image in annotations.images
    }


def states(annotations):
    return {image.source_id: image.annotation for image in annotations.images}


def test_what_says_that_there_are_no_boxes(tmp_path):
    write_images(tmp_path, "a.png", "b.png", "c.png")
    write(tmp_path / "a.xml")
    write(tmp_path / "b.xml", "")
    assert summarize(read_voc(tmp_path)) == {
        "a.png": ("complete", [NODULE]),
        "b.png": ("complete", []),
        "c.png": ("none", []),
    }


@pytest.mark.parametrize(
    ("names", "filename", "expected"),
    [
        # The file's own name outlives renaming.
        (("a.png",), "gone.png", {"a.png": "complete"}),
        (("a.png",), None, {"a.png": "complete"}),
        # An image of another format may be another one, unless a size is claimed.
        (("a.png",), "a.jpg", {"a.png": "faulty"}),
        (("a.png",), "old.jpg", {"a.png": "faulty"}),
        (("a.png",), "a.jp2", {"a.png": "faulty"}),
        (("a.png",), "old.b", {"a.png": "complete"}),
        (("a.1.png",), "a.1", {"a.1.png": "complete"}),
        (("a.jpeg",), "A.JPG", {"a.jpeg": "complete"}),
        (("a.png", "b.png"), "b.png", {"a.png": "complete", "b.png": "complete"}),
        # Between images of one stem <filename> decides.
        (("a.jpg", "a.png"), "a.png", {"a.jpg": "none", "a.png": "complete"}),
        (("a.jpg", "a.png"), "D:\\set\\A.JPG", {"a.jpg": "complete", "a.png": "none"}),
        (("a.jpg", "a.png"), "old.png", {"a.jpg": "faulty", "a.png": "faulty"}),
        (("a.jpg", "a.png"), "a", {"a.jpg": "faulty", "a.png": "faulty"}),
        # Where there is none of the stem, <filename> counts.
        (("c.png",), "c.png", {"c.png": "complete"}),
        (("c.png",), "/home/me/c.jpg", {"c.png": "faulty"}),
        # The name of the file and <filename> are two images, of which one has no file.
        (("a.png", "c.png"), "c.png", {"a.png": "faulty", "c.png": "faulty"}),
    ],
)
def test_which_image_a_file_describes(tmp_path, names, filename, expected):
    write_images(tmp_path / "JPEGImages", *names)
    stem = "a.1" if "a.1.png" in names else "a"
    write(tmp_path / "Annotations" / f"{stem}.xml", filename=filename)
    if "b.png" in names:
        write(tmp_path / "Annotations" / "b.xml", filename="a.png")
    found = {name.removeprefix("JPEGImages/"): s for name, s in states(read_voc(tmp_path)).items()}
    assert found == expected


@pytest.mark.parametrize(
    ("size", "state"),
    [
        ("<width>64</width><height>48</height>", "complete"),
        ("<width>64</width>", "faulty"),
        ("<width>0</width><height>0</height>", "faulty"),
    ],
)
@pytest.mark.parametrize("body", [OBJECT, ""])
def test_an_image_of_another_format_needs_a_size(tmp_path, size, state, body):
    write_images(tmp_path, "a.png")
    write(tmp_path / "a.xml", f"<size>{size}</size>{body}", filename="a.dcm")
    assert states(read_voc(tmp_path)) == {"a.png": state}


def test_two_files_of_one_image(tmp_path):
    write_images(tmp_path, "a.png")
    write(tmp_path / "a.xml")
    write(tmp_path / "second.xml", OTHER, filename="a.png")
    assert summarize(read_voc(tmp_path)) == {"a.png": ("faulty", [NODULE])}
    write(tmp_path / "second.xml", filename="a.png")
    assert summarize(read_voc(tmp_path)) == {"a.png": ("complete", [NODULE])}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<annotation>",
        b"<svg/>",
        b"<annotations><image/></annotations>",
        b"<annotation>\xff</annotation>",
        b'<?xml version="1.0" encoding="klingon"?><annotation/>',
        b'<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>',
        b"<annotations><annotation/><annotation/></annotations>",
    ],
)
def test_a_file_that_cannot_be_read_is_a_fault_of_the_image_of_its_name(tmp_path, data):
    write_images(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "a.xml").write_bytes(data)
    (tmp_path / "stray.xml").write_bytes(data)
    write(tmp_path / "b.xml")
    write(tmp_path / "other.xml", OTHER, filename="c.png")
    found = read_voc(tmp_path)
    # What stray.xml describes is not known; it may be c.png, but hardly b.png.
    assert summarize(found) == {
        "a.png": ("faulty", []),
        "b.png": ("complete", [NODULE]),
        "c.png": ("faulty", [CYST]),
    }
    assert ("stray.xml", "skipped") in [(p.file, p.effect) for p in found.problems]
    with pytest.raises(AnnotationError, match=r"no (valid )?XML|no text in UTF-8"):
        parse_voc(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("label", "encoding", "declared"),
    [
        ("肿瘤", "gbk", "gbk"),
        ("肿瘤", "gb18030", "GB2312"),
        ("腫瘍", "shift_jis", "Shift_JIS"),
        ("kyste rénal", "latin-1", "ISO-8859-1"),
        ("5 µm “x”", "cp1252", "windows-1252"),
        ("опухоль", "cp1251", "windows-1251"),
        ("опухоль", "utf-16", "UTF-16"),
        ("опухоль", "utf-16", None),
        ("опухоль", "utf-8-sig", None),
        ("опухоль", "utf-8", None),
    ],
)
def test_any_declared_encoding(tmp_path, label, encoding, declared):
    write_images(tmp_path, "a.png")
    head = "" if declared is None else f'<?xml version="1.0" encoding="{declared}"?>\n'
    text = f"{head}<annotation>{OBJECT.replace('nodule', label)}</annotation>"
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    assert summarize(read_voc(tmp_path)) == {"a.png": ("complete", [(label, NODULE[1])])}


def test_tags_in_other_spellings(tmp_path):
    bodies = {
        "upper": f"<annotation>{OBJECT}</annotation>".upper().replace("NODULE", "nodule"),
        "title": f"<Annotation>{OBJECT}</Annotation>".replace("xmin", "XMin").replace("nd", "nd"),
        "order": "<annotation><object><bndbox><ymax>20</ymax><xmax> 30.0\n</xmax><ymin>12</ymin>"
        "<xmin>1e1</xmin></bndbox><name> nodule </name></object></annotation>",
        "wrapper": f"<annotation><objects>{OBJECT}</objects></annotation>",
        "root": f"<annotations>{OBJECT}</annotations>",
        "both": f"<annotations><annotation>{OBJECT}</annotation></annotations>",
        "prefix": f'<annotation xmlns="urn:voc">{OBJECT}</annotation>',
        "namespace": f'<v:annotation xmlns:v="urn:v">{OBJECT}</v:annotation>',
    }
    for name, text in bodies.items():
        write_image(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.XML").write_text(text)
    expected = {f"{name}.png": ("complete", [NODULE]) for name in bodies}
    assert summarize(read_voc(tmp_path)) == expected


PART = f"<part><name>head</name>{BNDBOX.replace('10', '11')}</part>"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("<object><name>x</name></object>", "object 0: expected one <bndbox>, got none"),
        (f"<object><name>x</name>{PART}</object>", "object 0: expected one <bndbox>, got none"),
        (
            f"{OBJECT}<object><name>x</name><robndbox><cx>1</cx></robndbox></object>",
            "object 1: expected one <bndbox>, got <robndbox>",
        ),
        ("<object><name>x</name><polygon/></object>", "expected one <bndbox>, got <polygon>"),
        (
            f"<object><name>x</name>{BNDBOX}{BNDBOX}</object>",
            "object 0: expected one <bndbox>, got <bndbox> and <bndbox>",
        ),
        (f"<object>{BNDBOX}</object>", "box 0: has no label"),
        (f"<object><name> </name>{BNDBOX}</object>", "box 0: has no label"),
        (f"<object><name>x</name><name>y</name>{BNDBOX}</object>", "box 0: has no label"),
        (f"<item>{BNDBOX}</item>", "a <bndbox> lies outside of every <object>"),
        ("<item><name>x</name></item>", "a <item> has a name, as an <object> has"),
        ("<label>nodule</label>", "a <label> lies outside of every <object>"),
        ("<segmented>1</segmented>", "it is <segmented>, and has no <object>"),
        (f"<items>{OBJECT}</items>", "a <object> lies outside of every <object>"),
        (f"<object><name>x</name>{BNDBOX}{OBJECT}</object>", "another <object> or <bndbox> lies"),
        (f"<object><name>x</name>{BNDBOX}<more>{BNDBOX}</more></object>", "or <bndbox> lies in it"),
        ("<polygon><pt><x>1</x><y>2</y></pt></polygon>", "a <polygon> lies outside"),
        ("<Polygons/>", "a <polygons> lies outside"),
        ("<points>1,2;3,4</points>", "a <points> lies outside"),
        ("<rect x='1' y='2' w='3' h='4'/>", "a <rect> lies outside"),
        ("<thing xmin='1'/>", "a <xmin> lies outside"),
        ("<objects><item><bbox>1 2 3 4</bbox></item></objects>", "a <bbox> lies outside"),
        (f"<data><objects>{OBJECT}</objects></data>", "a <objects> lies outside"),
        (f"<objects><objects>{OBJECT}</objects></objects>", "a <objects> lies outside"),
        (f"<source>{OBJECT}</source>", "a <object> lies outside"),
        ("<lesion>10 12 30 20</lesion>", "a <lesion> outside of every <object> holds numbers"),
        ("<a><b>10</b><b>12</b><b>30</b><b>20</b></a>", "a <a> outside of every <object> holds"),
        ("<a left='10' top='12' right='30' bottom='20'/>", "a <a> outside of every <object> holds"),
    ],
)
def test_what_is_no_box_is_a_fault(tmp_path, body, reason):
    write_images(tmp_path, "a.png")
    write(tmp_path / "a.xml", body)
    found = read_voc(tmp_path)
    assert states(found) == {"a.png": "faulty"}
    assert reason in " ".join(problem.reason for problem in found.problems)


@pytest.mark.parametrize(
    "body",
    [
        "<Lesion><Type>malignant</Type></Lesion>",
        "<Lesion/><Lesion type='malignant'/>",
        "<finding>nodule</finding>",
        "<class>nodule</class>",
        "<metadata><diagnosis>Malignant</diagnosis></metadata>",
        "<patient><pathology>BENIGN_WITHOUT_CALLBACK</pathology></patient>",
        "<num_objects>2</num_objects>",
        "<has_lesion>1</has_lesion>",
        "<quadrant><side>left</side></quadrant>",
        "<note>a nodule at the left</note>",
        "<objects>nodule</objects>",
        "<objects count='2'/><object_count>2</object_count>",
        "nodule",
    ],
)
def test_what_speaks_of_lesions_without_objects_is_no_negative(tmp_path, body):
    write_images(tmp_path, "a.png", "b.png")
    write(tmp_path / "a.xml", body)
    write(tmp_path / "b.xml")
    assert states(read_voc(tmp_path)) == {"a.png": "faulty", "b.png": "complete"}


@pytest.mark.parametrize(
    "body",
    [
        "<folder>nodules</folder><source><database>x</database><annotation>VOC</annotation>"
        "<image>flickr</image></source><size><width>64</width><height>48</height></size>"
        "<owner><flickrid>I</flickrid></owner><segmented>0</segmented>",
        "<Lesions/><finding>none</finding><diagnosis>Normal</diagnosis>",
        "<metadata><pathology>no acute abnormality</pathology><modality>MR</modality></metadata>",
        "<num_objects>0</num_objects><has_lesion>false</has_lesion><objects count='0'/>",
        "<patient><id>7</id><age>61</age></patient><timestamp>2024</timestamp>",
        "<note>no nodule</note><camera><model>lesion-finder</model></camera>"
        "<imgsize><w>64</w></imgsize>",
    ],
)
def test_what_says_nothing_of_lesions_leaves_a_negative(tmp_path, body):
    write_images(tmp_path, "a.png", "b.png")
    write(tmp_path / "a.xml", body)
    write(tmp_path / "b.xml")
    assert states(read_voc(tmp_path)) == {"a.png": "complete", "b.png": "complete"}


def test_what_speaks_of_lesions_beside_objects_is_no_fault(tmp_path):
    write_images(tmp_path, "a.png")
    write(tmp_path / "a.xml", f"<diagnosis>malignant</diagnosis>{OBJECT}<lesion>yes</lesion>")
    assert summarize(read_voc(tmp_path)) == {"a.png": ("complete", [NODULE])}


def test_parts_of_an_object_and_its_outline_are_no_objects(tmp_path):
    write_images(tmp_path, "a.png")
    inner = f"{PART}<polygon><x1>1</x1></polygon><robndbox/></object>"
    write(tmp_path / "a.xml", OBJECT.replace("</object>", inner))
    assert summarize(read_voc(tmp_path)) == {"a.png": ("complete", [NODULE])}


@pytest.mark.parametrize(
    ("polygon", "state"),
    [
        ("<x1>10</x1><y1>12</y1><x2>30</x2><y2>12</y2><x3>30</x3><y3>20</y3>", "complete"),
        ("<x1>20</x1><y1>24</y1><x2>60</x2><y2>24</y2><x3>60</x3><y3>40</y3>", "faulty"),
        (
            "<pt><x>40</x><y>30</y></pt><pt><x>60</x><y>30</y></pt><pt><x>60</x><y>45</y></pt>",
            "faulty",
        ),
        ("<x1>40</x1><y1>30</y1>", "complete"),
        ("<x1>1</x1>", "complete"),
    ],
)
def test_a_box_is_that_of_its_own_polygon(tmp_path, polygon, state):
    write_images(tmp_path, "a.png")
    inner = f"<polygon>{polygon}</polygon></object>"
    write(tmp_path / "a.xml", OBJECT.replace("</object>", inner))
    assert states(read_voc(tmp_path)) == {"a.png": state}


TURN = "<attributes><attribute><name>rotation</name><value>{}</value></attribute></attributes>"


@pytest.mark.parametrize(
    ("within", "state"),
    [
        (TURN.format("30.0"), "faulty"),  # CVAT
        (TURN.format("0.0"), "complete"),
        ("<angle>0.5</angle>", "faulty"),
        ("<deleted>1</deleted>", "faulty"),
        ("<deleted>0</deleted>", "complete"),
    ],
)
def test_a_box_that_is_turned_or_was_deleted_is_a_fault(tmp_path, within, state):
    write_images(tmp_path, "a.png")
    write(tmp_path / "a.xml", OBJECT.replace("</object>", f"{within}</object>"))
    assert states(read_voc(tmp_path)) == {"a.png": state}


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("<annotation><annotated>0</annotated></annotation>", "none"),
        ("<annotation><reviewed>yes</reviewed></annotation>", "complete"),
        ("<annotation><status>To_Do</status></annotation>", "none"),
        ("<annotation><status>final</status></annotation>", "complete"),
        ("<annotation><skipped>1</skipped></annotation>", "none"),
        ('<annotation verified="no"/>', "none"),
        ('<annotation verified="yes"/>', "complete"),  # labelImg
    ],
)
def test_an_image_that_nobody_annotated_is_no_negative(tmp_path, text, state):
    write_images(tmp_path, "a.png", "b.png")
    write(tmp_path / "a.xml")
    (tmp_path / "b.xml").write_text(text, "utf-8")
    assert states(read_voc(tmp_path)) == {"a.png": "complete", "b.png": state}


@pytest.mark.parametrize("text", ["", "x", "10,5", "NaN", "<b>10</b>", "1 2", "</xmin><xmin>11"])
def test_coordinates_that_are_no_numbers(tmp_path, text):
    """They are left to `clean_boxes`, by which the image counts as faulty."""
    write_images(tmp_path, "a.png")
    write(tmp_path / "a.xml", OBJECT.replace("<xmin>10", f"<xmin>{text}"))
    boxes = read_voc(tmp_path).images[0].boxes
    assert np.isnan(boxes[0, 0]) and boxes[0, 1:].tolist() == [12, 30, 20]


def test_marks_and_size(tmp_path):
    marks = "<Difficult>1</Difficult><truncated> 1 </truncated></object>"
    size = "<size><Width>64</Width><height>48</height></size>"
    write(tmp_path / "a.xml", size + OBJECT.replace("</object>", marks), "a.png")
    voc = parse_voc(tmp_path / "a.xml")
    assert (voc.filename, voc.size) == ("a.png", (48, 64))
    (box,) = voc.entries
    assert box.difficult and box.truncated and box.label == "nodule"
    write(tmp_path / "a.xml", size + size.replace("64", "65"))
    assert parse_voc(tmp_path / "a.xml").size == (48, 64)


def test_relative_coordinates(tmp_path):
    relative = OBJECT.replace("10", "0.1").replace("12", "0.1").replace("30", "0.5")
    relative = relative.replace("20", "0.6")
    write_images(tmp_path, "a.png", "b.png")
    write(tmp_path / "a.xml", relative)
    with pytest.raises(AnnotationError, match="the coordinates are relative"):
        read_voc(tmp_path)
    write(tmp_path / "b.xml")
    assert summarize(read_voc(tmp_path)) == {
        "a.png": ("faulty", []),
        "b.png": ("complete", [NODULE]),
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a", ["a.png"]),
        ("a.png", ["a.png"]),
        ("a.jpg", ["a.png"]),
        ("a.xml -1", ["a.png"]),
        ("a  1", ["a.png"]),
        ("JPEGImages/a.png Annotations/a.xml", ["a.png"]),
        (".\\JPEGImages\\a.png", ["a.png"]),
        ("A", ["a.png"]),
        ("scan 1", ["scan 1.png"]),
        ("scan 1 1", ["scan 1.png"]),
        ("scan 1.png", ["scan 1.png"]),
        ("v1.2", ["v1.2.png"]),
        ("c", ["c.png"]),
        ("renamed", ["b.png"]),
        ("b", ["b.png"]),
        ("d", ["d.jpg", "d.png"]),
        ("d.png", ["d.png"]),
        ("a\n\na\n", ["a.png"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lines_of_split_lists(tmp_path, line, expected, encoding):
    names = ("a.png", "b.png", "c.png", "d.jpg", "d.png", "scan 1.png", "v1.2.png")
    write_images(tmp_path / "jpegimages", *names)
    for name in ("a", "d", "scan 1", "v1.2"):
        write(tmp_path / "annotations" / f"{name}.xml", filename=f"{name}.png")
    write(tmp_path / "annotations" / "renamed.xml", filename="b.png")
    path = tmp_path / "ImageSets" / "Main" / "train.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(f"{line}\r\n".encode(encoding))
    found = read_voc(tmp_path)
    assert sorted(image.path.name for image in found.images) == expected
    # An image that the list names has no boxes only if a file says so.
    bare = {"c.png", "d.jpg"}
    for image in found.images:
        assert image.annotation == ("none" if image.path.name in bare else "complete")
    assert found.problems == ()


@pytest.mark.parametrize("line", ["gone", "gone.png -1", "..", "/", "a b"])
def test_lines_that_name_nothing_are_reported(tmp_path, line):
    write_images(tmp_path / "JPEGImages", "a.png")
    write(tmp_path / "Annotations" / "a.xml")
    path = tmp_path / "ImageSets" / "Main" / "train.txt"
    path.parent.mkdir(parents=True)
    path.write_text(f"{line}\n" if line != "a b" else "b\n")
    found = read_voc(tmp_path)
    assert found.images == () and [problem.effect for problem in found.problems] == ["skipped"]


def test_images_of_a_folder_that_the_user_names(tmp_path):
    write_images(tmp_path / "out", "a.png", "b.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.png").symlink_to(tmp_path / "out" / "b.png")
    write(tmp_path / "in" / "a.xml", filename="../out/a.png")
    write(tmp_path / "in" / "b.xml")
    found = read_voc(tmp_path / "in")
    assert found.images == ()
    assert all("lies outside the source" in problem.reason for problem in found.problems)
    found = read_voc(tmp_path / "in", options=ReaderOptions(images=tmp_path / "out"))
    assert states(found) == {"../out/a.png": "complete", "../out/b.png": "complete"}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_other_unicode_forms_and_letter_case(tmp_path, forms):
    image, file = (unicodedata.normalize(form, "Röntgen_é") for form in forms)
    write_images(tmp_path / "images", f"{image}.PNG")
    write(tmp_path / "Annotations" / f"{file.upper()}.xml")
    assert summarize(read_voc(tmp_path)) == {f"images/{image}.PNG": ("complete", [NODULE])}


def test_the_format_is_told_from_the_root():
    yes = ("<annotation/>", "<Annotation/>", "<annotations><object/></annotations>")
    no = ("<annotations/>", "<annotations><image/></annotations>", "<svg/>")
    assert all(is_voc(ElementTree.fromstring(text)) for text in yes)
    assert not any(is_voc(ElementTree.fromstring(text)) for text in no)


def test_a_reported_case():
    folder = Path(__file__).resolve().parent.parent.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"no cases: {folder} is not a folder")
    found = read_voc(folder / "field" / "15-voc-two-images-of-one-stem" / "vocsamestem")
    assert summarize(found) == {
        "JPEGImages/a.png": ("complete", [("n", [10, 12, 30, 20])]),
        "JPEGImages/a.jpg": ("none", []),
    }


def test_no_mutation_loses_a_box(tmp_path):
    read = 0
    for seed in range(400):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth = corpus.make(random.Random(seed), folder)
        try:
            annotations = read_voc(folder)
        except AnnotationError:
            continue
        read += 1
        assert find_losses(annotations, truth) == [], seed
    assert read > 150


# --- Shapes that are not read, and what is none


def test_metadata_are_no_shapes(tmp_path):
    write_images(tmp_path, "a.png")
    metadata = (
        "<folder>1 2 3 4</folder><path>/1/2/3/4</path><segmented>0</segmented>"
        "<source><database>x</database><annotation>PASCAL VOC2007</annotation><image>flickr</image>"
        "<flickrid>341012865</flickrid></source><owner><flickrid>x</flickrid><name>y</name></owner>"
        "<size><width>64</width><height>48</height><depth>3</depth></size>"
        "<date>2024-01-02 10:11:12</date><spacing><x>0.5</x><y>0.5</y><z>1</z></spacing>"
    )
    write(tmp_path / "a.xml", metadata)
    assert states(read_voc(tmp_path)) == {"a.png": "complete"}


def test_a_shape_beside_the_annotation_of_a_wrapped_file_is_a_fault(tmp_path):
    write_images(tmp_path, "a.png")
    text = f"<annotations><annotation>{OBJECT}</annotation>{OTHER}</annotations>"
    (tmp_path / "a.xml").write_text(text)
    assert summarize(read_voc(tmp_path)) == {"a.png": ("faulty", [NODULE])}


# --- Folders in folders


@pytest.mark.parametrize("images", ["JPEGImages", "images", "Annotations"])
def test_folders_of_patients(tmp_path, images):
    for patient, body in (("p1", OBJECT), ("p2/s1", OTHER), ("p3", "")):
        write_images(tmp_path / images / patient, "a.png")
        write(tmp_path / "Annotations" / patient / "a.xml", body, filename="a.png")
    write_images(tmp_path / images, "b.png")
    write(tmp_path / "Annotations" / "b.xml")
    write_images(tmp_path / images / "p4", "a.png")
    assert summarize(read_voc(tmp_path)) == {
        f"{images}/p1/a.png": ("complete", [NODULE]),
        f"{images}/p2/s1/a.png": ("complete", [CYST]),
        f"{images}/p3/a.png": ("complete", []),
        f"{images}/b.png": ("complete", [NODULE]),
        f"{images}/p4/a.png": ("none", []),
    }


def test_folders_of_patients_beside_their_images(tmp_path):
    for patient, body in (("p1", OBJECT), ("p2", OTHER)):
        write_images(tmp_path / patient, "a.png")
        write(tmp_path / patient / "a.xml", body)
    assert summarize(read_voc(tmp_path)) == {
        "p1/a.png": ("complete", [NODULE]),
        "p2/a.png": ("complete", [CYST]),
    }


def test_folders_of_patients_with_folders_of_their_own_are_given_one_by_one(tmp_path):
    for patient in ("p1", "p2"):
        write_images(tmp_path / patient / "JPEGImages", "a.png")
        write(tmp_path / patient / "Annotations" / "a.xml")
    with pytest.raises(AnnotationError, match="found p1, p2; give them one by one"):
        read_voc(tmp_path)


def test_xml_files_in_folders_and_all_images_in_one(tmp_path):
    write_images(tmp_path / "JPEGImages", "a.png", "b.png", "c.png")
    write(tmp_path / "Annotations" / "p1" / "a.xml")
    write(tmp_path / "Annotations" / "p2" / "b.xml", "")
    assert summarize(read_voc(tmp_path)) == {
        "JPEGImages/a.png": ("complete", [NODULE]),
        "JPEGImages/b.png": ("complete", []),
        "JPEGImages/c.png": ("none", []),
    }


def test_an_image_of_another_patient_is_not_taken(tmp_path):
    write_images(tmp_path / "JPEGImages" / "p1", "b.png")
    write_images(tmp_path / "JPEGImages" / "p2", "a.png")
    write(tmp_path / "Annotations" / "p1" / "a.xml", filename="a.png")
    assert set(states(read_voc(tmp_path)).values()) == {"faulty"}


def test_folders_of_splits_below_the_annotations(tmp_path):
    for split, body in (("train", OBJECT), ("val", OTHER)):
        write_images(tmp_path / "JPEGImages" / split, "a.png")
        write(tmp_path / "Annotations" / split / "a.xml", body)
    found = {split: summarize(read_voc(tmp_path, split)) for split in ("train", "valid", "all")}
    train = {"JPEGImages/train/a.png": ("complete", [NODULE])}
    val = {"JPEGImages/val/a.png": ("complete", [CYST])}
    assert found == {"train": train, "valid": val, "all": train | val}
    with pytest.raises(AnnotationError, match="has no folder for the split 'test'"):
        read_voc(tmp_path, "test")


def test_split_lists_name_folders(tmp_path):
    for patient, body in (("p1", OBJECT), ("p2", OTHER), ("p3", "")):
        write_images(tmp_path / "JPEGImages" / patient, "a.png")
        write(tmp_path / "Annotations" / patient / "a.xml", body)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("p1/a\nJPEGImages/p3/a.png\n")
    (lists / "val.txt").write_text("a\n")
    assert summarize(read_voc(tmp_path)) == {
        "JPEGImages/p1/a.png": ("complete", [NODULE]),
        "JPEGImages/p3/a.png": ("complete", []),
    }
    # The bare name may mean any of three.
    assert set(states(read_voc(tmp_path, "val")).values()) == {"faulty"}
