"""The page of `report` in Chromium: what it makes of results, and that its controls work."""

from __future__ import annotations

import json

import pytest
from chromium import BINARY, open_browser
from test_page import ATTACK
from test_page_in_browser import find_middle

from vae_aug.figures.page import write_report_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="no chromium or google-chrome on the PATH"),
]


def estimate(mean):
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "images": 9}


TABLE = {
    "rows": [
        {"corruption": noise, "method": method, "ssim": estimate(mean), "psnr": estimate(20 + mean)}
        for noise, method, mean in [
            ("replace", "demo", 0.86),
            ("replace", "median", 0.6123456),
            ("blend", "demo", 0.69),
            ("blend", "median", 0.5),
        ]
    ],
    "settings": {"command": ATTACK, "seed": 0, "size": [64, 64], "nothing": None},
}
LOG = [
    {"kind": kind, "step": step, "loss": 100.0 / step} | ({"psnr": 20.0} if kind == "best" else {})
    for step in range(10, 110, 10)
    for kind in (["train", "best"] if step % 20 == 0 else ["train"])
]
AUDIT = {
    "verdict": ["No sign.", "Look again."],
    "notes": ["One sentence.", "Another one."],
    "attacks": [
        {"target": "networks", "auc": 0.54, "auc_low": 0.52, "auc_high": 0.57, "p_value": 0.002},
        {"target": "checkpoint", "auc": 0.52, "auc_low": 0.37, "auc_high": 0.66, "p_value": None},
    ],
    "patients": [0.1 * number for number in range(40)],
    "engines": {"tensorflow": {"rate": 1.5}, "openvino": {"rate": 2.5, "name": "x"}},
    "results": {"64": {"notes": [{"mb": 1}, {"mb": 2}], "rate": 3}},
    "pairs": [[1, 2], [3, 4]],
    "__proto__": {"constructor": 1},
}
SWEEP = {
    "rows": [
        {"mode": mode, "factor": factor, "lowest": 0.8 + 0.01 * factor}
        for mode in ("sample", "denoise")
        for factor in (0.5, 1.0)
    ]
}
EMPTY = [{}, [], 3, None, "text", [None, None]]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    files = {"denoising.json": TABLE, "audit.json": AUDIT, "empty.json": EMPTY}
    (folder / "sweep.json").write_text(json.dumps(SWEEP))
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    (folder / "long.json").write_text(json.dumps([{"a": one, "b": -one} for one in range(1000)]))
    names = (*files, "log.jsonl", "long.json", "sweep.json")
    write_report_page(folder / "page.html", [folder / name for name in names])
    with open_browser(folder / "profile") as browser:
        browser.address = (folder / "page.html").as_uri()
        yield browser
    assert browser.problems == []


@pytest.fixture
def page(browser):
    browser.resize(1280, 900)
    browser.call("Page.navigate", url="about:blank")
    browser.call("Page.navigate", url=browser.address)
    browser.wait_for("document.getElementById('main')?.ariaBusy === 'false'")
    assert browser.evaluate("parts.problem.hidden")
    return browser


def list_rows(page, part, table=0):
    rows = f"[...parts['{part}'].querySelectorAll('table')[{table}].rows]"
    return page.evaluate(f"{rows}.map((row) => [...row.cells].map((cell) => cell.textContent))")


def list_texts(page, part, selector):
    return page.evaluate(
        f"[...parts['{part}'].querySelectorAll('{selector}')].map((one) => one.textContent)"
    )


@pytest.fixture(autouse=True)
def find_parts(page):
    """Files are made by the script, after it has looked for parts."""
    find = "document.querySelectorAll('.file')"
    page.evaluate(f"{find}.forEach((file) => {{ parts[file.id] = file; }})")


def test_estimates_are_cells_with_their_intervals(page):
    headings, first, second, *_ = list_rows(page, "file-0")
    wanted = ["corruption", "method", "ssim", "ssim images", "psnr", "psnr images"]
    assert headings == wanted
    assert first == ["replace", "demo", "0.86 [0.76, 0.96]", "9", "20.86 [20.76, 20.96]", "9"]
    assert second[2] == "0.6123 [0.5123, 0.7123]"
    headings, *rows = list_rows(page, "file-1")
    assert headings == ["target", "auc", "p value"]
    assert rows[1] == ["checkpoint", "0.52 [0.37, 0.66]", "\u2013"]


def test_a_plot_shows_each_row_and_its_interval(page):
    dots = "parts['file-0'].querySelectorAll('.plot .dot')"
    assert page.evaluate(f"{dots}.length") == 4
    assert page.evaluate("parts['file-0'].querySelectorAll('.plot .range').length") == 4
    assert list_texts(page, "file-0", ".plot .name")[1] == "replace, median"
    assert list_texts(page, "file-0", ".plot title")[0] == "replace, demo: 0.86 [0.76, 0.96]"
    places = page.evaluate(f"[...{dots}].map((dot) => Number(dot.getAttribute('cx')))")
    assert places[0] > places[2] > places[1] > places[3]


def test_rows_are_filtered_and_sorted_with_their_plot(page):
    choose = "[...parts['file-0'].querySelectorAll('select')].find((one) => one.parentNode"
    page.evaluate(
        f"((one) => {{ one.selectedIndex = 2; one.dispatchEvent(new Event('change')); }})"
        f"({choose}.textContent.startsWith('corruption')))"
    )
    assert [row[:2] for row in list_rows(page, "file-0")[1:]] == [
        ["blend", "demo"],
        ["blend", "median"],
    ]
    assert list_texts(page, "file-0", ".plot .name") == ["demo", "median"]
    sort = "[...parts['file-0'].querySelectorAll('th button')][2].click()"
    page.evaluate(sort)
    assert [row[1] for row in list_rows(page, "file-0")[1:]] == ["median", "demo"]
    page.evaluate(sort)
    assert [row[1] for row in list_rows(page, "file-0")[1:]] == ["demo", "median"]
    assert page.evaluate("parts['file-0'].querySelectorAll('th')[2].ariaSort") == "descending"
    assert page.evaluate("document.activeElement.textContent") == "ssim"


def test_rows_with_one_text_are_told_apart_by_their_settings(page):
    names = ["sample, factor 0.5", "sample, factor 1"]
    assert list_texts(page, "file-5", ".plot .name")[:2] == names
    assert page.evaluate("parts['file-5'].querySelector('.plot').ariaLabel").startswith("lowest")


def test_a_log_is_curves_over_its_steps(page):
    paths = "[...parts['file-3'].querySelectorAll('.plot path')]"
    points = page.evaluate(f"{paths}.map((path) => path.getAttribute('d').split('L').length)")
    assert points == [10, 5]
    assert list_texts(page, "file-3", ".plot .key") == ["train", "best"]
    assert page.evaluate("parts['file-3'].querySelector('.plot').ariaLabel") == "loss over step"


def test_long_curves_are_smoothed(page):
    paths = "[...parts['file-4'].querySelectorAll('.plot path')]"
    first, smoothed = page.evaluate(f"{paths}.map((path) => path.getAttribute('d'))")
    assert first.count("L") == smoothed.count("L") == 999
    # A straight line stays one, but for its ends.
    assert first.split("L")[50:-50] == smoothed.split("L")[50:-50] and first != smoothed
    assert page.evaluate("smooth([0, 10, 20, 60])") == [5, 10, 30, 40]


def test_a_plot_tells_its_unit_and_where_there_is_no_effect(page):
    chance = "parts['file-1'].querySelector('.plot .none').getAttribute('x1')"
    dots = "[...parts['file-1'].querySelector('.plot').querySelectorAll('.dot')]"
    places = page.evaluate(f"{dots}.map((dot) => Number(dot.getAttribute('cx')))")
    assert float(page.evaluate(chance)) < min(places)
    assert "auc; dashed: 0.5, no effect" in list_texts(page, "file-1", ".plot text")
    assert page.evaluate("['psnr', 'ssim\\npsnr', 'PSNR', 'ssim'].map(titleOf)") == [
        "psnr (dB)",
        "ssim psnr (dB)",
        "PSNR (dB)",
        "ssim",
    ]
    assert page.evaluate("parts['file-0'].querySelectorAll('.none').length") == 0


def test_a_long_table_begins_with_a_part(page):
    assert len(list_rows(page, "file-4")) == 201
    more = "[...parts['file-4'].querySelectorAll('button')].at(-1)"
    assert page.evaluate(f"{more}.textContent") == "Show all 1000 rows"
    page.evaluate(f"{more}.click()")
    assert len(list_rows(page, "file-4")) == 1001
    assert page.evaluate(f"{more}.hidden")


def test_values_that_make_no_table_are_listed(page):
    assert list_texts(page, "file-1", ".lead") == ["No sign.", "Look again."]
    assert list_texts(page, "file-1", "li")[:2] == ["One sentence.", "Another one."]
    names = list_texts(page, "file-1", "h3")
    assert names == ["notes", "attacks", "patients", "engines", "results", "pairs", "  proto  "]
    assert list_rows(page, "file-1", 1) == [
        ["key", "rate", "name"],
        ["tensorflow", "1.5", "\u2013"],
        ["openvino", "2.5", "x"],
    ]
    assert "40 values, mean 1.95, from 0 to 3.9" in list_texts(page, "file-1", ".muted")
    assert page.evaluate("parts['file-1'].querySelectorAll('.column').length") == 24
    told = page.evaluate("parts['file-2'].innerText")
    assert "text" in told
    assert list_texts(page, "file-0", "dd") == [ATTACK, "0", "64, 64", "\u2013"]
    assert list_texts(page, "file-2", "dt") == ["2", "3", "4", "5", "6"]


def test_what_results_say_is_shown_as_text(page):
    assert page.evaluate("document.querySelectorAll('img, iframe').length") == 0
    assert page.evaluate("({}).constructor === Object")


def test_a_table_is_copied_with_all_its_digits(page):
    rows = "data.files[0].content.rows.map((row) => joinIntervals(flatten(row)))"
    text = page.evaluate(
        f"((sheet) => writeTabs(sheet.pick(), sheet.columns))(new Sheet('Table', {rows}))"
    )
    lines = [line.split("\t") for line in text.split("\n")]
    assert lines[0][2:5] == ["ssim", "ssim low", "ssim high"]
    assert float(lines[2][2]) == 0.6123456
    button = "[...parts['file-0'].querySelectorAll('button')][0]"
    page.evaluate(f"{button}.scrollIntoView({{ block: 'center' }})")
    x, y = find_middle(page, button)
    for kind in ("mousePressed", "mouseReleased"):  # Browsers let nobody but the user copy.
        page.point(kind, x, y, button="left", clickCount=1)
    page.wait_for("parts.told.textContent === 'Copied'")


def test_each_file_can_be_saved(page):
    links = page.evaluate(
        "[...document.querySelectorAll('a[download]')].map((link) => link.download)"
    )
    files = ["denoising.json", "audit.json", "empty.json", "log.json", "long.json", "sweep.json"]
    assert links == files
    address = "document.querySelectorAll('a[download]')[1].href"
    assert page.evaluate(f"{address}.startsWith('blob:')")


@pytest.mark.parametrize("width", [1280, 420, 320])
def test_nothing_lies_beside_the_window(page, width):
    page.resize(width, 900)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_themes_can_be_switched(page):
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.evaluate("parts.theme.click()")
    assert page.evaluate(colour) != light
    page.evaluate("parts.theme.click()")
    assert page.evaluate(colour) == light


def test_every_control_has_a_name_for_screen_readers(page):
    roles = {}
    for node in page.call("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value")
        roles.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    for role in ("button", "combobox", "image", "region", "link"):
        assert roles.get(role) and all(roles[role]), role
