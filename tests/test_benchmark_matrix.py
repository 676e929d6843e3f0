"""The matrix of versions: what it reads of a run of the tests."""

from __future__ import annotations

from benchmarks.matrix import list_needs, list_raised, read_outcome, works


def test_counts_and_names_of_failures_are_read():
    text = (
        "..F.s                       [100%]\n"
        "3.2s call tests/test_a.py::test_slow\n"
        "FAILED tests/test_a.py::test_b[1 failed] - assert 0\n"
        "ERROR tests/test_a.py::test_c - OSError\n"
        "1 failed, 6549 passed, 11 skipped, 1 error in 716.31s (0:11:56)\n"
    )
    assert read_outcome(text) == {
        "passed": 6549,
        "failed": 2,
        "skipped": 11,
        "failures": ["tests/test_a.py::test_b[1 failed]", "tests/test_a.py::test_c"],
    }


def test_what_is_above_its_lowest_version_is_listed():
    needs = [
        "keras>=3.7",
        "numpy>=2.0",
        "PyYAML>=6.0.2",
        "tensorflow>=2.18,<2.22",
        "a[b]>=1",
        "c==2",
    ]
    versions = {"keras": "3.7.0", "numpy": "2.1.3", "tensorflow": "2.20.0", "a": "10.0", "c": "3"}
    raised = {"numpy": ("2.0", "2.1.3"), "tensorflow": ("2.18", "2.20.0"), "a": ("1", "10.0")}
    assert list_raised(needs, versions) == raised
    package, every = ({need.split(">=")[0] for need in list_needs(x)} for x in (False, True))
    assert {"tensorflow"} <= package < every and {"openvino", "pytest"} <= every - package


def test_versions_work_if_demo_and_tests_do():
    demo = {"installed": True, "ended_well": True, "seconds": 9}
    passed, none = read_outcome("2 passed in 1s"), read_outcome("Segmentation fault\n")
    refused = {"installed": False, "reason": "no such version"}
    assert works({"demo": demo, "tests": passed})
    assert not works({"demo": demo, "tests": none})
    assert not works({"demo": demo, "tests": passed | {"failed": 1}})
    assert not works({"demo": demo | {"ended_well": False}, "tests": passed})
    assert not works({"demo": refused, "tests": passed})
    assert not works({"demo": demo, "tests": refused})
