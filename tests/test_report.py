from __future__ import annotations

import dataclasses
import json

import pytest

from vae_aug.codecs.extent import Extent
from vae_aug.ingest.formats.source import Problem
from vae_aug.ingest.report import IngestReport

HASHED, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def report():
    return IngestReport(
        split="train",
        format="coco",
        evidence=f"it holds images {HASHED}",
        images=2,
        boxes=3,
        unannotated=0,
        faulty=1,
        unannotated_written=1,
        turned=0,
        class_counts={"cyst": 3},
        patients=1,
        duplicates=0,
        box_sizes_px={},
        scanners={},
        intensities={},
        extent=Extent(),
        burned_in=0,
        neighbours={},
        problems=(
            Problem(HASHED, "no image", "skipped"),
            Problem(OTHER, "box 1: zero area", "dropped"),
            Problem(OTHER, "box 2: partly outside the image", "clipped"),
            Problem(OTHER, "box 3: partly outside the image", "clipped"),
        ),
        leaks=(),
        files={HASHED: "DOE_JANE/1.png"},
        resumed=7,
    )


def test_hashes_are_revealed_where_the_files_are_known(report):
    assert report.reveal(report.evidence) == "it holds images DOE_JANE/1.png"
    text = f"{HASHED}, {OTHER} and {HASHED}"
    assert report.reveal(text) == f"DOE_JANE/1.png, {OTHER} and DOE_JANE/1.png"


def test_problems_are_counted_by_what_became_of_them(report):
    assert report.skipped == (("DOE_JANE/1.png", "no image"),)
    assert (report.dropped, report.clipped) == (1, 2)


def test_what_is_written_names_no_file_and_no_run(report):
    content = report.to_dict()
    assert "DOE" not in json.dumps(content) and "DOE" not in repr(report)
    assert not {"files", "resumed", "restarted", "replaced", "leaks"} & {*content}
    assert (content["skipped"], content["dropped"], content["clipped"]) == (1, 1, 2)
    assert content["problems"][0] == {"file": HASHED, "reason": "no image", "effect": "skipped"}


def test_reports_are_equal_whatever_the_run_went_through(report):
    assert dataclasses.replace(report, resumed=0, restarted=True, files={}) == report
    assert dataclasses.replace(report, boxes=4) != report
