from __future__ import annotations

import math
import struct

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    SegmentationStorage,
    VLWholeSlideMicroscopyImageStorage,
)
from test_dicom import RAMP, write_dicom

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.regions import read_drawn, read_regions


def make_item(**elements):
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def make_source(uid="1.2.3", **elements):
    source = make_item(ReferencedSOPInstanceUID=uid, **elements)
    return [make_item(SourceImageSequence=[source])]


def make_frame(segment=1, sources=None):
    identification = [make_item(ReferencedSegmentNumber=segment)]
    derivation = make_source() if sources is None else sources
    return make_item(
        SegmentIdentificationSequence=identification, DerivationImageSequence=derivation
    )


def write_segmentation(path, frames, groups, kind="BINARY", **elements):
    """Write frames `[N, H, W] uint8`; binary ones of one bit a pixel."""
    data = np.packbits(frames.ravel(), bitorder="little") if kind == "BINARY" else frames
    bits = 1 if kind == "BINARY" else 8
    write_dicom(
        path,
        frames[0],
        bits_stored=bits,
        BitsAllocated=bits,
        SOPClassUID=SegmentationStorage,
        NumberOfFrames=len(frames),
        SegmentationType=kind,
        SegmentSequence=[
            make_item(SegmentNumber=number, SegmentLabel=label)
            for number, label in ((1, "nodule"), (2, "rib"))
        ],
        PerFrameFunctionalGroupsSequence=groups,
        PixelData=data.tobytes() + b"\0" * (data.nbytes % 2),
        **elements,
    )


@pytest.fixture
def mask():
    """Two parts: one of rows 1..2 and columns 2..4, and one that touches it nowhere."""
    mask = np.zeros((1, 8, 8), np.uint8)
    mask[0, 1:3, 2:5] = 1
    mask[0, 6, 0] = mask[0, 7, 1] = 1  # joined by a corner
    return mask


def test_each_part_of_a_binary_segment_is_a_box(tmp_path, mask):
    sources = make_source("1.2.3", ReferencedFrameNumber=7)
    write_segmentation(tmp_path / "a.dcm", mask, [make_frame(2, sources)])
    assert read_regions(tmp_path / "a.dcm") == [
        ("1.2.3", 6, "rib", (2, 1, 5, 3)),
        ("1.2.3", 6, "rib", (0, 6, 2, 8)),
    ]


def test_whole_segments(tmp_path, mask):
    write_segmentation(tmp_path / "a.dcm", mask, [make_frame()])
    (region,) = read_regions(tmp_path / "a.dcm", whole_segments=True)
    assert region == ("1.2.3", 0, "nodule", (0, 1, 5, 8))


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, (2, 0, 4, 1)), (0.6, (3, 0, 4, 1))])
def test_fractional_segments_have_a_threshold(tmp_path, threshold, expected):
    frames = np.array([[[0, 40, 50, 100]]], np.uint8)
    groups = [make_frame()]
    write_segmentation(tmp_path / "a.dcm", frames, groups, "FRACTIONAL", MaximumFractionalValue=100)
    (region,) = read_regions(tmp_path / "a.dcm", threshold=threshold)
    assert region.box == expected


def test_label_maps_hold_several_segments(tmp_path):
    frames = np.array([[[0, 0, 0]], [[1, 2, 2]]], np.uint8)
    write_segmentation(tmp_path / "a.dcm", frames, [make_frame(), make_frame()], "LABELMAP")
    assert [(r.label, r.box) for r in read_regions(tmp_path / "a.dcm")] == [
        ("nodule", (0, 0, 1, 1)),
        ("rib", (1, 0, 3, 1)),
    ]


def test_background_of_a_label_map_is_its_padding(tmp_path):
    frames = np.array([[[2, 1, 2]]], np.uint8)
    write_segmentation(tmp_path / "a.dcm", frames, [make_frame()], "LABELMAP", PixelPaddingValue=2)
    (region,) = read_regions(tmp_path / "a.dcm")
    assert (region.label, region.box) == ("nodule", (1, 0, 2, 1))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (make_frame(sources=[]), "names 0 images for its frame 0"),
        (make_frame(sources=make_source(ReferencedFrameNumber=[1, 2])), "names 2 frames"),
        (make_frame(sources=make_source(ReferencedFrameNumber=0)), r"\(0008,1160\) .* got 0"),
        (make_frame(sources=make_source(SpatialLocationsPreserved="NO")), r"\(0028,135A\)"),
        (make_frame(segment=5), r"\(0062,0002\) does not describe the segment 5"),
        (make_item(DerivationImageSequence=make_source()), r"\(0062,000A\)"),
    ],
)
def test_segmentations_without_a_place_are_refused(tmp_path, mask, group, message):
    write_segmentation(tmp_path / "a.dcm", mask, [group])
    with pytest.raises(DicomError, match=message):
        read_regions(tmp_path / "a.dcm")


def test_single_frame_may_name_its_image_in_the_series(tmp_path, mask):
    series = [make_item(ReferencedInstanceSequence=[make_item(ReferencedSOPInstanceUID="1.9")])]
    groups = [make_frame(sources=[])]
    write_segmentation(tmp_path / "a.dcm", mask, groups, ReferencedSeriesSequence=series)
    assert {region.sop_instance_uid for region in read_regions(tmp_path / "a.dcm")} == {"1.9"}


def make_code(value, scheme, meaning):
    return [make_item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)]


def make_outline(kind, data, children=None, **elements):
    image = make_item(
        ValueType="IMAGE", ReferencedSOPSequence=[make_item(ReferencedSOPInstanceUID="1.2.3")]
    )
    return make_item(
        ValueType="SCOORD",
        ConceptNameCodeSequence=make_code("111030", "DCM", "Image Region"),
        GraphicType=kind,
        GraphicData=data,
        ContentSequence=[image] if children is None else children,
        **elements,
    )


def make_finding(meaning, value="121071", scheme="DCM"):
    return make_item(
        ValueType="CODE",
        ConceptNameCodeSequence=make_code(value, scheme, "Finding"),
        ConceptCodeSequence=make_code("1", "SCT", meaning),
    )


def write_report(path, *groups):
    containers = [make_item(ValueType="CONTAINER", ContentSequence=list(g)) for g in groups]
    dataset = write_dicom(path, RAMP)
    del dataset.PixelData, dataset.Rows, dataset.Columns
    dataset.SOPClassUID = ComprehensiveSRStorage
    dataset.ContentSequence = containers
    dataset.save_as(path)


# Axes of 10 and 4 pixels around (20, 30), turned by 45 degrees: the half axes reach
# 5 / sqrt(2) and 2 / sqrt(2) along both coordinates, together sqrt(12.5 + 2).
TURN = 1 / math.sqrt(2)
REACH = math.sqrt(14.5)
ELLIPSE = [
    *(20 - 5 * TURN, 30 - 5 * TURN, 20 + 5 * TURN, 30 + 5 * TURN),
    *(20 + 2 * TURN, 30 - 2 * TURN, 20 - 2 * TURN, 30 + 2 * TURN),
]


@pytest.mark.parametrize(
    ("kind", "data", "box"),
    [
        ("POLYLINE", [25, 45, 45, 44, 45, 65, 25, 45], (25, 44, 45, 65)),
        ("CIRCLE", [45, 55, 48, 59], (40, 50, 50, 60)),
        ("ELLIPSE", ELLIPSE, (20 - REACH, 30 - REACH, 20 + REACH, 30 + REACH)),
    ],
)
def test_outlines_of_a_report(tmp_path, kind, data, box):
    write_report(tmp_path / "a.dcm", [make_outline(kind, data), make_finding("Nodule")])
    (region,) = read_regions(tmp_path / "a.dcm")
    assert region[:3] == ("1.2.3", 0, "Nodule")
    np.testing.assert_allclose(region.box, box, rtol=1e-6)


def test_labels_of_a_report(tmp_path):
    circle = [5, 5, 5, 6]
    inner = make_item(ValueType="NUM", ContentSequence=[make_outline("CIRCLE", circle)])
    category = make_finding("Structure", "276214006", "SCT")
    write_report(
        tmp_path / "a.dcm",
        [category, make_finding("Aorta"), inner],
        [category, make_outline("CIRCLE", circle)],
        [make_outline("POINT", [1, 2]), make_outline("CIRCLE", circle)],
    )
    labels = [region.label for region in read_regions(tmp_path / "a.dcm")]
    assert labels == ["Aorta", "Structure", "Image Region"]


def test_image_named_by_reference(tmp_path):
    images = [make_item(ReferencedSOPInstanceUID="1.9", ReferencedFrameNumber=[2, 5])]
    library = make_item(ValueType="IMAGE", ReferencedSOPSequence=images)
    reference = make_item(ReferencedContentItemIdentifier=[1, 1, 1])
    outline = make_outline("CIRCLE", [5, 5, 5, 6], [reference])
    write_report(tmp_path / "a.dcm", [library], [outline])
    found = [region[:2] for region in read_regions(tmp_path / "a.dcm")]
    assert found == [("1.9", 1), ("1.9", 4)]


def test_volume_of_an_image_without_tiles_is_its_frame(tmp_path):
    outline = make_outline("CIRCLE", [5, 5, 5, 6], PixelOriginInterpretation="VOLUME")
    write_report(tmp_path / "a.dcm", [outline])
    assert read_regions(tmp_path / "a.dcm")[0].box == (4, 4, 6, 6)


SLIDE = make_item(
    ReferencedSOPSequence=[
        make_item(
            ReferencedSOPInstanceUID="1.2.3",
            ReferencedSOPClassUID=VLWholeSlideMicroscopyImageStorage,
        )
    ]
)


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        (make_outline("CIRCLE", [1, 2, 3, 4], []), "drawn in no image"),
        (make_outline("CIRCLE", [1, 2, 3, 4, 5, 6]), r"\(0070,0022\) .* CIRCLE: 3 points"),
        (make_outline("SQUARE", [1, 2, 3, 4]), r"\(0070,0023\) Graphic Type must be"),
        (
            make_outline("CIRCLE", [1, 2, 3, 4], [SLIDE], PixelOriginInterpretation="VOLUME"),
            r"\(0048,0301\)",
        ),
    ],
)
def test_outlines_that_cannot_be_placed(tmp_path, outline, message):
    write_report(tmp_path / "a.dcm", [outline])
    with pytest.raises(DicomError, match=message):
        read_regions(tmp_path / "a.dcm")


def test_images_have_no_regions(tmp_path):
    write_dicom(tmp_path / "a.dcm", RAMP)
    with pytest.raises(DicomError, match="neither a segmentation nor a structured report"):
        read_regions(tmp_path / "a.dcm")
    with pytest.raises(ValueError, match=r"threshold must be in \(0, 1\]; got 0"):
        read_regions(tmp_path / "a.dcm", threshold=0)


@pytest.mark.real_data
def test_real_segmentation_agrees_with_its_pixels(data_dir):
    """One box for each segment and frame encloses just the pixels that pydicom decodes."""
    path = data_dir / "dicom_objects" / "seg_image_ct_binary_overlap.dcm"
    dataset = pydicom.dcmread(path)
    expected = []
    for mask, group in zip(
        dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True
    ):
        rows, columns = np.nonzero(mask)
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        expected.append((source.ReferencedSOPInstanceUID, box))
    found = [(r.sop_instance_uid, r.box) for r in read_regions(path, whole_segments=True)]
    assert found == expected


@pytest.mark.real_data
def test_real_report(data_dir):
    path = data_dir / "dicom_objects" / "sr_document_with_multiple_groups.dcm"
    found = [(region.label, region.box) for region in read_regions(path)]
    assert found == [("Nodule", (35, 45, 55, 65)), ("Aorta", (25, 45, 45, 65))]


def refer_to(*uids):
    """Return a (0008,1115) Referenced Series Sequence of images."""
    instances = [make_item(ReferencedSOPInstanceUID=uid) for uid in uids]
    return [make_item(ReferencedInstanceSequence=instances)]


def test_a_segmentation_covers_what_it_was_made_from(tmp_path, mask):
    """Frame 1 has no pixel set, and the image 1.5 no frame at all: both were looked at."""
    frames = np.concatenate([mask, np.zeros_like(mask)])
    groups = [
        make_frame(1, make_source("1.3", ReferencedFrameNumber=4)),
        make_frame(1, make_source("1.4")),
    ]
    series = refer_to("1.3", "1.4", "1.5")
    write_segmentation(tmp_path / "a.dcm", frames, groups, ReferencedSeriesSequence=series)
    drawn = read_drawn(tmp_path / "a.dcm", whole_segments=True)
    assert drawn.regions == [("1.3", 3, "nodule", (0, 1, 5, 8))] and drawn.faults == []
    assert drawn.covered == {("1.3", 3), ("1.4", None), ("1.3", None), ("1.5", None)}
    assert drawn.unframed == {"1.4"}


@pytest.mark.parametrize(
    ("group", "places"),
    [
        (make_frame(sources=[]), [("", None)]),
        (make_frame(5), [("1.2.3", 0)]),
        (
            make_frame(sources=make_source(ReferencedFrameNumber=[1, 2])),
            [("1.2.3", 0), ("1.2.3", 1)],
        ),
        (make_frame(sources=make_source(ReferencedFrameNumber=0)), [("1.2.3", None)]),
        (make_frame(sources=make_source(SpatialLocationsPreserved="NO")), [("1.2.3", None)]),
        (make_item(DerivationImageSequence=make_source()), [("1.2.3", None)]),
    ],
)
def test_what_a_segmentation_marks_without_a_box_is_a_fault_of_its_image(
    tmp_path, mask, group, places
):
    """The other frame is read all the same."""
    frames = np.concatenate([mask, mask])
    write_segmentation(tmp_path / "a.dcm", frames, [group, make_frame(1, make_source("1.9"))])
    drawn = read_drawn(tmp_path / "a.dcm", whole_segments=True)
    assert [fault[:2] for fault in drawn.faults] == places
    assert not any(fault.is_legal for fault in drawn.faults)
    assert [region.sop_instance_uid for region in drawn.regions] == ["1.9"]


def test_a_segment_without_a_label_is_a_fault(tmp_path, mask):
    write_segmentation(tmp_path / "a.dcm", mask, [make_frame()])
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.SegmentSequence[0].SegmentLabel = ""
    dataset.save_as(tmp_path / "a.dcm")
    drawn = read_drawn(tmp_path / "a.dcm", whole_segments=True)
    assert drawn.regions == [] and [fault[:2] for fault in drawn.faults] == [("1.2.3", 0)]


def test_marks_of_a_report_that_are_no_boxes_are_faults(tmp_path):
    nowhere = make_item(ReferencedContentItemIdentifier=[1, 9, 9])
    write_report(
        tmp_path / "a.dcm",
        [
            make_outline("CIRCLE", [5, 5, 5, 6]),
            make_outline("POINT", [1, 2]),
            make_outline("MULTIPOINT", [1, 2, 8, 9]),
            make_outline("POLYLINE", [1, 2, 8, 2]),  # a line along a row
            make_outline("CIRCLE", [5, 5, 5, 5]),
            make_outline("SQUARE", [1, 2, 3, 4]),
            make_outline("CIRCLE", [1, 2, 3]),
            make_outline("CIRCLE", [1, 2, 3, 4], []),
            make_outline("CIRCLE", [1, 2, 3, 4], [nowhere]),
        ],
    )
    drawn = read_drawn(tmp_path / "a.dcm")
    assert [region.box for region in drawn.regions] == [(4, 4, 6, 6)]
    assert drawn.covered == {("1.2.3", None)} and drawn.unframed == {"1.2.3"}
    reasons = [(fault.sop_instance_uid, fault.is_legal, fault.reason) for fault in drawn.faults]
    assert reasons == [
        ("1.2.3", True, "has a POINT, which has no area."),
        ("1.2.3", True, "has a MULTIPOINT, which has no area."),
        ("1.2.3", True, "has a POLYLINE, which encloses no area."),
        ("1.2.3", True, "has a CIRCLE, which encloses no area."),
        (
            "1.2.3",
            False,
            "(0070,0023) Graphic Type must be POLYLINE, CIRCLE or ELLIPSE; got another.",
        ),
        ("1.2.3", False, "(0070,0022) Graphic Data do not suit a CIRCLE: 1.5 points."),
        ("", False, "has a region that is drawn in no image."),
        ("", False, "(0040,DB73) Referenced Content Item Identifier leads nowhere."),
    ]
    with pytest.raises(DicomError, match="Graphic Type must be"):
        read_regions(tmp_path / "a.dcm")


def test_regions_in_space_are_faults_of_the_images_of_the_report(tmp_path):
    write_report(tmp_path / "a.dcm", [make_item(ValueType="SCOORD3D", GraphicType="POLYGON")])
    assert [fault[:2] for fault in read_drawn(tmp_path / "a.dcm").faults] == [("", None)]
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    series = make_item(ReferencedSOPSequence=[make_item(ReferencedSOPInstanceUID="1.7")])
    evidence = [make_item(ReferencedSeriesSequence=[series])]
    dataset.CurrentRequestedProcedureEvidenceSequence = evidence
    dataset.save_as(tmp_path / "a.dcm")
    drawn = read_drawn(tmp_path / "a.dcm")
    assert drawn.faults == [
        ("1.7", None, "has 1 regions in space, SCOORD3D, which are not read.", True)
    ]
    assert read_regions(tmp_path / "a.dcm") == [] and drawn.covered == frozenset()


def test_a_report_without_end_is_refused(tmp_path):
    """100,000 levels of stated length, in 2 MB."""
    write_report(tmp_path / "a.dcm", [make_outline("CIRCLE", [1, 2, 3, 4])])
    data = (tmp_path / "a.dcm").read_bytes()
    head = data[: data.index(b"\x40\x00\x30\xa7SQ")]
    for depth in (100, 100_000):
        lengths = [20 * (depth - 1 - level) for level in range(depth)]
        levels = (
            b"\x40\x00\x30\xa7SQ\0\0"
            + struct.pack("<L", n + 8)
            + b"\xfe\xff\x00\xe0"
            + struct.pack("<L", n)
            for n in lengths
        )
        (tmp_path / "a.dcm").write_bytes(head + b"".join(levels))
        with pytest.raises(
            DicomError, match=r"\(0040,A730\) Content Sequence is nested deeper than 64"
        ):
            read_drawn(tmp_path / "a.dcm")


def test_an_outline_of_many_points(tmp_path):
    """A million points, as bytes; as objects they would take seconds."""
    points = np.random.default_rng(4).uniform(10, 20, 2 * 10**6).round(3)
    points[:4] = 10, 10, 20, 20
    with pytest.warns(UserWarning, match="VR is changed from 'FL' to 'UN'"):
        write_report(tmp_path / "a.dcm", [make_outline("POLYLINE", points.tolist())])
    (region,) = read_regions(tmp_path / "a.dcm")
    assert region.box == (10, 10, 20, 20)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"NumberOfFrames": 30_000}, r"\(0028,0008\) Number of Frames is 30000, .*room for 2"),
        ({"NumberOfFrames": 10**6}, "has 1000000 frames; at most 32768"),
        ({"Rows": 65535, "Columns": 65535}, "declares 65535 x 65535 pixels"),
        ({"BitsAllocated": 3}, r"\(0028,0100\) Bits Allocated must be 1, 8"),
    ],
)
def test_segmentations_beyond_the_bounds(tmp_path, mask, elements, message):
    write_segmentation(tmp_path / "a.dcm", np.concatenate([mask, mask]), [make_frame()] * 2)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(DicomError, match=message):
        read_drawn(tmp_path / "a.dcm")


def test_bounds_of_parts_and_pixels(tmp_path, mask, monkeypatch):
    write_segmentation(tmp_path / "a.dcm", mask, [make_frame()])
    monkeypatch.setattr("vae_aug.ingest.dicom.regions.MAX_PARTS", 1)
    with pytest.raises(DicomError, match="has more than 1 parts"):
        read_drawn(tmp_path / "a.dcm")
    # A quarter of 8 x 8, and twice the 7 x 5 pixels around the segment: 16 + 70.
    monkeypatch.setattr("vae_aug.ingest.dicom.regions.MAX_PARTS", 2)
    monkeypatch.setattr("vae_aug.ingest.dicom.regions.MAX_MARKED_PIXELS", 86)
    assert len(read_drawn(tmp_path / "a.dcm").regions) == 2
    monkeypatch.setattr("vae_aug.ingest.dicom.regions.MAX_MARKED_PIXELS", 85)
    with pytest.raises(DicomError, match="has more than 85 pixels in its frames"):
        read_drawn(tmp_path / "a.dcm")


def test_frames_that_begin_within_a_byte(tmp_path):
    """Nine frames of 11 pixels, of which frame n has the pixel n set."""
    frames = np.zeros((9, 1, 11), np.uint8)
    frames[range(9), 0, range(9)] = 1
    write_segmentation(tmp_path / "a.dcm", frames, [make_frame()] * 9)
    boxes = [region.box for region in read_regions(tmp_path / "a.dcm")]
    assert boxes == [(n, 0, n + 1, 1) for n in range(9)]
