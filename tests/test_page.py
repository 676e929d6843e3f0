"""Pages: what they hold, that nothing in it acts, and that equal inputs make equal bytes."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import zlib

import numpy as np
import pytest

from vae_aug.errors import VAEAugError
from vae_aug.figures import page
from vae_aug.figures.page import (
    escape_json,
    fill_page,
    pack_pixels,
    read_part,
    write_page,
    write_report_page,
)
from vae_aug.figures.sheet import Panel

ATTACK = "</script><img src=x onerror=alert(1)>"
SETTINGS = {"checkpoint": "mine (0123)", "mode": "sample", "factor": "1", "seed": "0"}
# float32 values whose decimal text is long, one next to 1, and one that is no number.
BOXES = np.array([[0.1, 1 / 3, np.nextafter(np.float32(1), 0), 0.7], [0, 0, np.nan, 1]], np.float32)


def make_row(name="cyst", dtype=np.uint8, change=10):
    """An image of 6 x 8 pixels with two boxes, and one variant, which is brighter."""
    image = np.arange(48, dtype=dtype).reshape(6, 8, 1)
    measures = {
        "fidelity": np.array([0.75, np.nan], np.float32),
        "contrast": np.array([0.5, np.nan], np.float32),
        "guarded": np.array([True, False]),
    }
    first = Panel(image, "input", "", BOXES, [name, name])
    other = Panel(image + dtype(change), "sample", "SSIM 0.9", BOXES, [name, name], True, measures)
    return [first, other]


def write(tmp_path, rows, **options):
    path = tmp_path / "page.html"
    write_page(path, rows, "What it means.", settings=SETTINGS, **options)
    return path.read_text()


def write_report(tmp_path, **files):
    """Write files of results, of which `log` has lines, and the page of them."""
    paths = []
    for name, content in files.items():
        lines = [json.dumps(line) for line in content] if name == "log" else [json.dumps(content)]
        paths.append(tmp_path / f"{name}.json{'l' * (name == 'log')}")
        paths[-1].write_text("\n".join(lines) + "\n")
    path = tmp_path / "report.html"
    write_report_page(path, paths)
    return path.read_text()


def read_data(text):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )


class Elements(html.parser.HTMLParser):
    """Lists the elements of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


# --- Data ------------------------------------------------------------------------------------


def test_boxes_are_the_records_bit_for_bit(tmp_path):
    (case,) = read_data(write(tmp_path, [make_row()]))["cases"]
    assert case["boxes"][1] == [0, 0, None, 1]  # JSON has no NaN
    boxes = np.array(case["boxes"], np.float64)  # as JavaScript has numbers
    np.testing.assert_array_equal(boxes, BOXES.astype(np.float64))
    assert boxes[:1].astype(np.float32).tobytes() == BOXES[:1].tobytes()


def test_a_case_has_its_window_its_labels_and_what_was_measured(tmp_path):
    rows = [make_row("cyst"), make_row("stone")]
    data = read_data(write(tmp_path, rows, label_names=["stone", "mass"]))
    assert [one["name"] for one in data["classes"]] == ["stone", "mass", "cyst"]
    assert [one["colour"] for one in data["classes"]] == ["#ffd200", "#00dcff", "#ff6edc"]
    first, second = data["cases"]
    assert first["labels"] == [2, 2] and second["labels"] == [0, 0]
    shape = {"height": 6, "width": 8, "channels": 1, "bits": 8, "range": [0, 255]}
    assert first.items() >= shape.items()
    # Values 0 to 47: percentiles 0.5 and 99.5 are 0.235 and 46.765.
    assert first["window"] == pytest.approx([0.235, 46.765])
    kept = {"heading": "sample", "note": "SSIM 0.9", "guarded": [True, False]}
    kept |= {"fidelity": [0.75, None], "contrast": [0.5, None]}
    assert first["states"][1].items() >= kept.items()
    assert data["scale"] == 0.05  # 10 of 255 is 3.9%
    assert data["settings"] == SETTINGS and data["explanation"] == "What it means."


def test_a_window_is_in_the_values_of_the_records(tmp_path):
    (case,) = read_data(write(tmp_path, [make_row(dtype=np.uint16)]))["cases"]
    assert (case["bits"], case["range"]) == (16, [0, 65535])
    assert case["window"] == pytest.approx([0.235, 46.765], abs=1e-3)
    data = read_data(write(tmp_path, [make_row(dtype=np.uint16)], value_range=(-10.0, 90.0)))
    assert data["cases"][0]["range"] == [-10, 90]
    assert data["cases"][0]["window"] == pytest.approx([0.235, 46.765], abs=1e-3)
    assert data["scale"] == 0.1  # 10 of 100


def test_pixels_are_packed_as_differences_high_bytes_first():
    def unpack(image):
        return list(zlib.decompress(base64.b64decode(pack_pixels(image))))

    assert unpack(np.array([[[1], [3], [2]], [[7], [7], [0]]], np.uint8)) == [1, 2, 255, 7, 0, 249]
    # 256, then 1 less: 0x0100 and 0xffff.
    assert unpack(np.array([[[256], [255]]], np.uint16)) == [0x01, 0xFF, 0x00, 0xFF]
    # Each colour has its own left neighbour.
    assert unpack(np.array([[[1, 2, 3], [2, 4, 6]]], np.uint8)) == [1, 2, 3, 1, 2, 3]


def test_equal_inputs_make_equal_bytes(tmp_path):
    first = write(tmp_path, [make_row()])
    assert write(tmp_path, [make_row()]) == first
    assert write(tmp_path, [make_row(change=11)]) != first


def test_a_report_holds_all_that_is_in_its_files(tmp_path):
    best, log = {"psnr": 31.5, "of": [1, {"a": None}]}, [{"step": 10}, {"step": 20}]
    data = read_data(write_report(tmp_path, best=best, log=log))
    files = [{"name": "best.json", "content": best}, {"name": "log.jsonl", "content": log}]
    assert data == {"files": files}


def test_whole_numbers_that_a_browser_rounds_are_text(tmp_path):
    (file,) = read_data(write_report(tmp_path, best=[2**53, 2**53 + 1, -(2**63)]))["files"]
    assert file["content"] == [2**53, str(2**53 + 1), str(-(2**63))]


# --- Safety ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [ATTACK, "<!--<script>", "]]>&lt;", "\u2028\u2029\ud800", 'a"\\b'])
def test_json_is_text_to_html_and_the_same_to_json(text):
    escaped = escape_json({"name": text, "of": [text]})
    assert escaped.isascii() and not re.search("[<>&\n]", escaped)
    assert json.loads(escaped) == {"name": text, "of": [text]}


def test_what_records_say_makes_no_element(tmp_path):
    usual, attacked = (write(tmp_path, [make_row(name)]) for name in ("cyst", ATTACK))
    assert Elements(attacked).found == Elements(usual).found
    assert "onerror=alert(1)>" not in attacked
    assert read_data(attacked)["classes"][0]["name"] == ATTACK


def test_what_results_say_makes_no_element(tmp_path):
    usual, attacked = (write_report(tmp_path, best={name: name}) for name in ("a", ATTACK))
    assert Elements(attacked).found == Elements(usual).found
    assert "onerror=alert(1)>" not in attacked


@pytest.mark.parametrize("kind", ["preview", "report"])
def test_only_the_page_s_own_script_and_style_may_act(tmp_path, kind):
    is_report = kind == "report"
    text = write_report(tmp_path, best={}) if is_report else write(tmp_path, [make_row()])
    elements = Elements(text).found
    (policy,) = (one["content"] for _, one in elements if one.get("http-equiv"))
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    for tag, rule in ("script", "script-src"), ("style", "style-src"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert sum(tag == "script" for tag, _ in elements) == 2  # with the data
    # Nothing is loaded, and no attribute holds a script or a style, which the policy would refuse.
    named = {name for _, attributes in elements for name in attributes}
    assert not named & {"src", "href", "style", "action"}
    assert not [name for name in named if name.startswith("on")]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_scripts_write_text_and_never_html():
    for name in ("page.js", "pixels.js", "preview.js", "report.js"):
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(",
            read_part(name),
        )
        assert found == []


def test_a_template_takes_what_looks_like_a_placeholder(tmp_path):
    assert read_data(fill_page("preview", {"name": "$script $$ ${style}"}).decode()) == {
        "name": "$script $$ ${style}"
    }


# --- Refusals --------------------------------------------------------------------------------


def test_a_page_that_no_browser_opens_is_refused(tmp_path, monkeypatch):
    size = sum(len(pack_pixels(panel.image)) for panel in make_row())
    monkeypatch.setattr(page, "MAX_PIXEL_BYTES", 2 * size)
    write(tmp_path, [make_row()] * 2)
    with pytest.raises(VAEAugError, match=r"page\.html.*Show fewer images or variants"):
        write(tmp_path, [make_row()] * 3)


def test_pixels_of_another_dtype_are_refused(tmp_path):
    with pytest.raises(VAEAugError, match="uint8 or uint16; got float32"):
        write(tmp_path, [[Panel(np.zeros((4, 4, 1), np.float32))]])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"a,b", r"a\.csv: expected \.json or \.jsonl; got '\.csv'"),
        ("a.json", b'{"a": 1', r"a\.json: is no valid JSON"),
        ("a.json", b"\xff\xfe", r"a\.json: is no valid JSON"),
        ("a.json", b"[" * 100_000, r"a\.json: is no valid JSON"),
        ("a.json", b"[" * 100_000 + b"]" * 100_000, r"a\.json: is no valid JSON"),
        ("a.jsonl", b'{"a": 1}\n\n{"a"', r"a\.jsonl, line 3: is no valid JSON"),
    ],
)
def test_what_is_no_result_is_named(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VAEAugError, match=told):
        write_report_page(tmp_path / "page.html", [tmp_path / name])
    assert not (tmp_path / "page.html").exists()


def test_results_that_are_too_large_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MAX_RESULT_BYTES", 30)
    write_report(tmp_path, best={"a": 1})
    with pytest.raises(VAEAugError, match=r"last\.json"):
        write_report(tmp_path, best={"a": 1}, last={"b": "c" * 20})


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        write(tmp_path / "absent", [make_row()])
