"""CVAT's exports of images and of videos, as people have them."""

from __future__ import annotations

import random
import unicodedata
from xml.etree import ElementTree

import numpy as np
import pytest
from corpus import cvat as corpus
from corpus.sources import find_losses, write_image

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.cvat import is_cvat, is_cvat_video, read_cvat
from vae_aug.ingest.formats.source import ReaderOptions

BOX = '<box label="nodule" xtl="10" ytl="12" xbr="30" ybr="20"/>'
NODULE = ("nodule", [10, 12, 30, 20])


def write(folder, *parts, meta="", encoding="utf-8"):
    folder.mkdir(parents=True, exist_ok=True)
    text = f"<annotations><version>1.1</version><meta>{meta}</meta>{''.join(parts)}</annotations>"
    (folder / "annotations.xml").write_bytes(text.encode(encoding))


def make_image(name="a.png", shapes=BOX, **attributes):
    extra = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f'<image name="{name}" width="64" height="48"{extra}>{shapes}</image>'


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


def test_an_image_without_shapes_is_a_negative(tmp_path):
    write_images(tmp_path / "images", "a.png", "b.png", "c.png")
    write(tmp_path, make_image(), make_image("b.png", ""))
    assert summarize(read_cvat(tmp_path)) == {
        "images/a.png": ("complete", [NODULE]),
        "images/b.png": ("complete", []),
    }


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<polyline label="x" points="1,2;3,4"/>', "a polyline is no box"),
        ('<points label="x" points="1,2"/>', "a points is no box"),
        ('<cuboid label="x" xtl1="1"/>', "a cuboid is no box"),
        ('<skeleton label="x"><points label="1" points="1,2"/></skeleton>', "a skeleton is no box"),
        ('<tag label="x"/>', "a tag is no box"),
        ('<Box label="x" xtl="1"/>', "it is of a kind that is not known"),
        ('<polygon label="x" points="1,2;3,4"/>', "a polygon wants at least 3 points x,y"),
        ('<polygon label="x" points="1,2;3,4;5"/>', "a polygon wants at least 3 points x,y"),
        ('<polygon label="x"/>', "a polygon wants at least 3 points x,y"),
        ('<box label=" " xtl="10" ytl="12" xbr="30" ybr="20"/>', "box 0: has no label"),
    ],
)
def test_what_is_no_box_is_a_fault(tmp_path, shape, reason):
    write_images(tmp_path, "a.png", "b.png")
    write(tmp_path, make_image(shapes=shape), make_image("b.png"))
    found = read_cvat(tmp_path)
    assert summarize(found) == {"a.png": ("faulty", []), "b.png": ("complete", [NODULE])}
    (problem,) = found.problems
    assert problem.file == "annotations.xml" and problem.reason.endswith(reason)


@pytest.mark.parametrize("value", ["", "x", "10,5", "NaN"])
def test_attributes_that_are_no_numbers(tmp_path, value):
    """They are left to `clean_boxes`, by which the image counts as faulty."""
    write_images(tmp_path, "a.png")
    write(tmp_path, make_image(shapes=BOX.replace('"10"', f'"{value}"')))
    assert np.isnan(read_cvat(tmp_path).images[0].boxes[0, 0])


def test_names_and_subsets(tmp_path):
    name = unicodedata.normalize("NFD", "é 1.PNG")
    write_images(tmp_path / "images" / "train", "a.png", name)
    write_images(tmp_path / "images" / "Validation", "a.png")
    write_images(tmp_path / "images", "a.png")
    entries = [
        make_image(subset="Train"),
        make_image("scans\\é 1.png".removeprefix("scans\\"), "", subset="Train"),
        make_image(shapes="", subset="Validation"),
    ]
    write(tmp_path, *entries)
    train = {"images/train/a.png": ("complete", [NODULE]), f"images/train/{name}": ("complete", [])}
    validation = {"images/Validation/a.png": ("complete", [])}
    assert summarize(read_cvat(tmp_path)) == train
    assert summarize(read_cvat(tmp_path, "val")) == validation
    assert summarize(read_cvat(tmp_path, "all")) == train | validation


def test_shapes_of_an_image_without_a_name_may_be_anyones(tmp_path):
    write_images(tmp_path, "a.png")
    write(tmp_path, make_image("a.png", ""), make_image(" "))
    assert summarize(read_cvat(tmp_path)) == {"a.png": ("faulty", [])}
    write(tmp_path, make_image("a.png", ""), make_image("", ""))
    assert summarize(read_cvat(tmp_path)) == {"a.png": ("complete", [])}


def test_numbers_that_overflow(tmp_path):
    """They are left to `clean_boxes`, without a warning."""
    shapes = (
        '<mask label="x" left="1e308" top="-inf" width="1e308" height="inf"/>'
        '<ellipse label="x" cx="inf" cy="1" rx="inf" ry="1e308" rotation="45"/>'
        '<box label="x" xtl="-1e308" ytl="0" xbr="1e308" ybr="inf" rotation="1"/>'
    )
    write_images(tmp_path, "a.png")
    write(tmp_path, make_image(shapes=shapes))
    assert not np.isfinite(read_cvat(tmp_path).images[0].boxes).all(axis=1).any()


def test_an_image_of_two_subsets(tmp_path):
    """Which of the two the file is, only a folder of the subset tells."""
    entries = make_image(subset="Validation"), make_image(shapes="", subset="Train")
    write(tmp_path, *entries)
    write_images(tmp_path / "images", "a.png")
    assert summarize(read_cvat(tmp_path)) == {"images/a.png": ("faulty", [])}
    write_images(tmp_path / "images" / "train", "a.png")
    assert summarize(read_cvat(tmp_path)) == {"images/train/a.png": ("complete", [])}


def test_images_of_one_id(tmp_path):
    write_images(tmp_path, "a.png", "b.png")
    write(tmp_path, make_image(id=3), make_image("b.png", id=3))
    with pytest.raises(AnnotationError, match="two images have the id 3"):
        read_cvat(tmp_path)
    write(tmp_path, make_image(id=3, task_id=1), make_image("b.png", id=3, task_id=2))
    assert len(read_cvat(tmp_path).images) == 2


def test_an_image_that_is_listed_twice(tmp_path):
    write_images(tmp_path, "a.png")
    write(tmp_path, make_image(), make_image("C:\\set\\A.png", ""))
    assert summarize(read_cvat(tmp_path)) == {"a.png": ("faulty", [NODULE])}


def test_relative_coordinates(tmp_path):
    write_images(tmp_path, "a.png", "b.png")
    relative = '<box label="x" xtl="0.1" ytl="0.2" xbr="0.3" ybr="0.4"/>'
    write(tmp_path, make_image(shapes=relative), make_image("b.png", ""))
    with pytest.raises(AnnotationError, match="the coordinates are relative"):
        read_cvat(tmp_path)
    write(tmp_path, make_image(shapes=relative), make_image("b.png"))
    assert [image.annotation for image in read_cvat(tmp_path).images] == ["faulty", "complete"]


def test_images_outside_the_source(tmp_path):
    write_images(tmp_path / "out", "a.png")
    write(tmp_path / "in", make_image("../out/a.png"))
    assert read_cvat(tmp_path / "in").images == ()
    found = read_cvat(tmp_path / "in", options=ReaderOptions(images=tmp_path / "out"))
    assert summarize(found) == {"../out/a.png": ("complete", [NODULE])}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings(tmp_path, encoding):
    write_images(tmp_path, "ä.png")
    write(tmp_path, make_image("ä.png", BOX.replace("nodule", "é")), encoding=encoding)
    assert summarize(read_cvat(tmp_path)) == {"ä.png": ("complete", [("é", NODULE[1])])}


def test_elements_that_are_not_known_may_be_shapes(tmp_path):
    write_images(tmp_path, "a.png")
    write(tmp_path, make_image(), '<Track label="x"/>')
    found = read_cvat(tmp_path)
    assert summarize(found) == {"a.png": ("faulty", [NODULE])}
    assert "elements that are not known" in found.notes[0]


# --- Videos


def make_meta(size=6, mode="interpolation", **fields):
    fields = {"size": size, "mode": mode, **fields}
    return f"<task>{''.join(f'<{key}>{value}</{key}>' for key, value in fields.items())}</task>"


def make_track(*shapes, label="nodule"):
    """Make a track of `(frame, left, outside)`; each box is 20 x 8 pixels, its top at 12."""
    parts = [
        f'<box frame="{frame}" keyframe="1" outside="{outside}" occluded="0" xtl="{left}" '
        f'ytl="12" xbr="{left + 20}" ybr="20"/>'
        for frame, left, outside in shapes
    ]
    return f'<track id="0" label="{label}" source="manual">{"".join(parts)}</track>'


def write_frames(folder, numbers, pattern="frame_{:06d}.PNG"):
    write_images(folder / "images", *(pattern.format(number) for number in numbers))


def list_lefts(annotations):
    """Return by image the left sides of its boxes, `"faulty"` if it is."""
    return [
        image.boxes[:, 0].tolist() if image.annotation == "complete" else image.annotation
        for image in annotations.images
    ]


def test_a_track_is_in_the_frames_that_it_names(tmp_path):
    """As CVAT exports it: every frame, and the one in which the object is gone."""
    write_frames(tmp_path, range(6))
    tracks = make_track((1, 10, 0), (2, 11, 0), (3, 11, 1)), make_track((2, 30, 0), (3, 30, 1))
    write(tmp_path, *tracks, meta=make_meta(original_size="<width>64</width><height>48</height>"))
    found = read_cvat(tmp_path)
    assert list_lefts(found) == [[], [10], [11, 30], [], [], []]
    assert found.images[2].boxes.tolist() == [[11, 12, 31, 20], [30, 12, 50, 20]]
    assert found.label_names == ("nodule",) and found.problems == ()
    assert (found.images[0].height, found.images[0].width) == (48, 64)
    assert [image.path.name for image in found.images][:2] == [
        "frame_000000.PNG",
        "frame_000001.PNG",
    ]


def test_between_keyframes_a_box_moves_linearly(tmp_path):
    write_frames(tmp_path, range(6))
    write(tmp_path, make_track((0, 10, 0), (4, 14, 0), (5, 14, 1)), meta=make_meta())
    assert list_lefts(read_cvat(tmp_path)) == [[10], [11], [12], [13], [14], []]
    # An object that is gone comes back where the next keyframe is.
    write(tmp_path, make_track((0, 10, 0), (1, 10, 1), (4, 14, 0), (5, 14, 1)), meta=make_meta())
    assert list_lefts(read_cvat(tmp_path)) == [[10], [], [], [], [14], []]


@pytest.mark.parametrize(
    "track",
    [
        # The end is not told.
        make_track((0, 10, 0), (1, 10, 0)),
        # Frame 2 is left out, though 1 is no keyframe.
        make_track((1, 10, 0), (3, 10, 0), (4, 10, 1)).replace('keyframe="1"', 'keyframe="0"', 1),
        # The points of a polygon have no partners.
        '<track label="x"><polygon frame="1" keyframe="1" outside="0" points="9,9;20,9;9,20"/>'
        '<polygon frame="3" keyframe="1" outside="1" points="9,9;20,9;9,20"/></track>',
        make_track((1, 10, 0), (3, 10, 1)).replace("<box", '<box rotation="10"'),
        # Two boxes in frame 2.
        make_track((2, 10, 0), (2, 11, 0), (3, 11, 1)),
        make_track((2, 10, 0), (3, 11, 1), label=""),
        '<track label="x"><points frame="2" outside="0" points="1,2"/></track>',
    ],
)
def test_a_frame_in_which_a_track_cannot_be_placed_is_faulty(tmp_path, track):
    write_frames(tmp_path, range(6))
    write(tmp_path, track, meta=make_meta())
    found = read_cvat(tmp_path)
    assert found.images[2].annotation == "faulty"
    assert found.images[0].annotation == "complete"
    assert "frame 2:" in found.problems[0].reason or "has no label" in found.problems[0].reason


@pytest.mark.parametrize("frame", ["", "x", "-1", "6", "0.5", "1e400", "nan"])
def test_a_shape_of_no_frame_makes_all_doubtful(tmp_path, frame):
    write_frames(tmp_path, range(6))
    track = make_track((2, 10, 0), (3, 10, 1)).replace('frame="2"', f'frame="{frame}"')
    write(tmp_path, track, meta=make_meta())
    found = read_cvat(tmp_path)
    assert {image.annotation for image in found.images} == {"faulty"}
    assert "track 0: a shape is in no frame of the video" in [p.reason for p in found.problems]
    write(tmp_path, make_track(), meta=make_meta())
    assert read_cvat(tmp_path).problems[0].reason == "track 0: has no shape in any frame"
    write(tmp_path, make_track((2, 10, 1)), meta=make_meta())
    assert {image.annotation for image in read_cvat(tmp_path).images} == {"faulty"}
    # The end of a track may lie behind the video.
    write(tmp_path, make_track((5, 10, 0), (6, 10, 1)), meta=make_meta())
    assert list_lefts(read_cvat(tmp_path)) == [[], [], [], [], [], [10]]


def test_every_third_frame_of_a_part_of_a_video(tmp_path):
    write_frames(tmp_path, (10, 13, 16))
    fields = {"start_frame": 10, "stop_frame": 16, "frame_filter": "step=3"}
    write(tmp_path, make_track((10, 10, 0), (16, 14, 0)), meta=make_meta(3, **fields))
    assert list_lefts(read_cvat(tmp_path)) == [[10], [12], [14]]
    # CVAT saves the frames of some jobs only.
    (tmp_path / "images" / "frame_000013.PNG").unlink()
    write(tmp_path, make_track((10, 10, 0), (13, 9, 0), (16, 14, 0)), meta=make_meta(3, **fields))
    found = read_cvat(tmp_path)
    assert list_lefts(found) == [[10], [14]]
    assert found.problems[0].reason == "frame 13: the image is missing"


def test_deleted_frames_are_unannotated(tmp_path):
    write_frames(tmp_path, range(4))
    meta = make_meta(4, deleted_frames="<frame>1</frame><frame>2</frame>")
    write(tmp_path, make_track((0, 10, 0), (1, 10, 1)), meta=meta)
    assert list_lefts(read_cvat(tmp_path)) == [[10], "none", "none", []]


def test_frames_in_the_order_of_their_names(tmp_path):
    write_images(tmp_path, "p1.png", "p2.png", "p3.png")
    track = make_track((1, 10, 0), (2, 10, 1))
    for meta in (make_meta(3), make_meta(3).replace("task>", "job>")):
        write(tmp_path, track, meta=meta)
        assert list_lefts(read_cvat(tmp_path)) == [[], [10], []]


@pytest.mark.parametrize(
    ("names", "meta", "message"),
    [
        # As ffmpeg counts, from 1: frame 3 would be another.
        (["frame_000001.png", "frame_000002.png", "frame_000003.png"], make_meta(3), "which of 3"),
        (["a.png", "b.png"], make_meta(3), "cannot tell which of 2 images are the 3 frames 0 to 2"),
        (["frame_000000.png", "a.png", "b.png"], make_meta(3), "cannot tell which"),
        (["frame_0.png", "frame_00.png"], make_meta(2), "cannot tell which"),
        # CVAT may have sorted 10 before 2, or behind it.
        (["10.png", "2.png", "3.png"], make_meta(3), "cannot tell which"),
        ([], make_meta(3), "cannot tell which of 0 images"),
        (["a.png"], "", "describes 0 tasks or jobs"),
        (["a.png"], make_meta(1) * 2, "describes 2 tasks or jobs"),
        (["a.png"], make_meta(0), "tells no <size>"),
        (["a.png"], make_meta(1, frame_filter="every other"), "unknown <frame_filter>"),
        (["a.png"], make_meta(1, stop_frame=4), "<size> is 1, but there are 5 frames"),
        (
            ["a.png"],
            make_meta(1, frame_filter="step=2").replace("task>", "job>"),
            "a job of frames 2 apart",
        ),
    ],
)
def test_frames_that_cannot_be_told_are_refused(tmp_path, names, meta, message):
    write_images(tmp_path, *names)
    write(tmp_path, make_track((0, 10, 0), (1, 10, 1)), meta=meta)
    with pytest.raises(AnnotationError, match=message):
        read_cvat(tmp_path)


def test_tracks_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("vae_aug.ingest.formats.cvat_video.MOST_UNLISTED", 10)
    write_frames(tmp_path, range(6))
    tracks = [make_track((0, 10, 0), (5, 10, 0))] * 3
    write(tmp_path, *tracks, meta=make_meta())
    with pytest.raises(AnnotationError, match="leave out more than 10 boxes"):
        read_cvat(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "<annotation/>", "<annotations><image/><track/></annotations>", "<annotations/>"]
)
def test_what_is_none(tmp_path, text):
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(AnnotationError, match=r"no valid XML|expected an export 'CVAT for images'"):
        read_cvat(tmp_path)


def test_the_format_is_told_from_the_root():
    images, video, other = map(
        ElementTree.fromstring,
        (
            "<annotations><image/></annotations>",
            "<annotations><track/></annotations>",
            "<annotations><object/></annotations>",
        ),
    )
    assert [is_cvat(root) for root in (images, video, other)] == [True, False, False]
    assert [is_cvat_video(root) for root in (images, video, other)] == [False, True, False]


def test_no_mutation_loses_a_box(tmp_path):
    read = 0
    for seed in range(400):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth = corpus.make(random.Random(seed), folder)
        try:
            annotations = read_cvat(folder)
        except AnnotationError:
            continue
        read += 1
        assert find_losses(annotations, truth) == [], seed
    assert read > 150
