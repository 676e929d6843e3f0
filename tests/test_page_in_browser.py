"""The page of `preview` in Chromium: what it shows, and that each way to use it works."""

from __future__ import annotations

import json

import numpy as np
import pytest
from chromium import BINARY, open_browser
from test_page import ATTACK, SETTINGS

from vae_aug.figures.page import write_page
from vae_aug.figures.sheet import Panel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="no chromium or google-chrome on the PATH"),
]
BOXES = [
    np.array([[0.25, 0.25, 0.5, 0.5]], np.float32),
    np.array([[0.1, 0.1, 0.3, 0.3], [0.5, 0.2, 0.95, 0.9], [0, 0, np.nan, 1]], np.float32),
    np.zeros((0, 4), np.float32),
]
NAMES = [["cyst"], ["cyst", ATTACK, "cyst"], []]
FIDELITY = [[0.9], [0.95, 0.5, np.nan], []]


def make_image(number):
    """Values of 16 bits in all of their range, and of the second image of 8 bits in colour."""
    rng = np.random.default_rng(number)
    if number == 1:
        return rng.integers(0, 256, (100, 120, 3)).astype(np.uint8)
    return rng.integers(0, 65536, (100, 120, 1)).astype(np.uint16)


def make_rows():
    rows = []
    for number in range(3):
        image, boxes, names = make_image(number), BOXES[number], NAMES[number]
        row = [Panel(image, "input", "", boxes, names)]
        for name, other in ("sample 1", image[::-1]), ("sample 2", image // 2):
            fidelity = np.array(FIDELITY[number], np.float32)
            guarded = np.zeros(len(names), bool)
            measures = {"fidelity": fidelity, "contrast": fidelity, "guarded": guarded}
            row.append(Panel(other, name, f"of {name}", boxes, names, True, measures))
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_page(folder / "page.html", make_rows(), "Meaning.", settings=SETTINGS)
    with open_browser(folder / "profile") as browser:
        browser.address = (folder / "page.html").as_uri()
        yield browser
    assert browser.problems == []


@pytest.fixture
def open_page(browser):
    def open_page(fragment="", width=1280, height=900):
        browser.resize(width, height)
        browser.call("Page.navigate", url="about:blank")
        browser.call("Page.navigate", url=f"{browser.address}#{fragment}")
        browser.wait_for("document.getElementById('main')?.ariaBusy === 'false'")
        return browser

    return open_page


def read_values(browser, *names):
    return [browser.evaluate(f"read({name!r})") for name in names]


def find_middle(browser, part):
    bounds = f"(b => [b.x + b.width / 2, b.y + b.height / 2])({part}.getBoundingClientRect())"
    return browser.evaluate(bounds)


@pytest.mark.parametrize("number", range(3))
def test_every_value_arrives_and_is_shown_in_its_window(open_page, number):
    browser = open_page(f"case={number + 1}&variant=2&level=100&width=50")
    image = make_image(number)
    for name, expected in ("input", image), ("output", image // 2):
        values = browser.evaluate(f"Array.from(shown.{name})")
        np.testing.assert_array_equal(values, expected.ravel())
        pixels = f"layers.{name}.getContext('2d').getImageData(0, 0, 120, 100).data"
        grey = np.array(browser.evaluate(f"Array.from({pixels})")).reshape(100, 120, 4)[..., :3]
        wanted = np.clip(255 * ((expected.astype(np.float64) - 100) / 50 + 0.5), 0, 255)
        # A canvas rounds halves to even, as NumPy does.
        np.testing.assert_array_equal(grey, np.broadcast_to(np.rint(wanted), grey.shape))


def test_differences_have_the_colours_of_a_sheet(open_page):
    browser = open_page("case=3&variant=2&show=difference")
    image = make_image(2)[..., 0].astype(np.float64)
    scale = json.loads(browser.evaluate("JSON.stringify(data)"))["scale"]
    strength = np.clip((image - image // 2) / 65535 / scale, 0, 1)[..., None]
    pixels = "layers.difference.getContext('2d').getImageData(0, 0, 120, 100).data"
    shown = np.array(browser.evaluate(f"Array.from({pixels})")).reshape(100, 120, 4)[..., :3]
    # It is darker everywhere, which is blue.
    np.testing.assert_allclose(shown, strength * [70, 150, 255], atol=0.51)
    assert browser.evaluate("[parts.left.textContent, parts.scale.hidden, parts.right.hidden]") == [
        "difference", False, True
    ]  # fmt: skip


def test_what_records_say_is_shown_as_text(open_page):
    browser = open_page("case=2")
    assert browser.evaluate("document.querySelectorAll('img, iframe').length") == 0
    assert ATTACK in browser.evaluate("parts.boxes.textContent")
    assert ATTACK[:20] in browser.evaluate("parts.overlay.textContent")
    assert ATTACK in browser.evaluate("parts.picture.ariaLabel")
    options = browser.evaluate("[...find('class')[0].options].map((option) => option.text)")
    assert options == ["all", "cyst", ATTACK]


def test_the_policy_refuses_other_scripts_and_addresses(open_page):
    browser = open_page()
    attacks = {
        "const one = make('script'); one.append('attacked = 1'); document.body.append(one)": None,
        "document.body.append(make('img', {src: 'http://127.0.0.1:9/a.png'}))": None,
        "document.body.innerHTML = '<b>'": "TypeError",
        "eval('attacked = 1')": "EvalError",
        "await fetch('http://127.0.0.1:9/')": "TypeError",
    }
    for attack, error in attacks.items():
        run = f"(async () => {{ try {{ {attack} }} catch (error) {{ return error.name }} }})()"
        assert browser.evaluate(run) == error, attack
    assert browser.evaluate("window.attacked") is None
    sources = [one["entry"]["source"] for one in browser.problems if "entry" in one]
    assert sources.count("security") >= 4
    browser.problems.clear()


def test_boxes_lie_where_the_records_say(open_page):
    browser = open_page("case=1")
    # 120 x 100 pixels fitted into the viewer, the box from a quarter to a half.
    at = browser.evaluate("locate()")
    corner = [at["x"] + 30 * at["scale"] - 0.75, at["y"] + 25 * at["scale"] - 0.75]
    drawn = browser.evaluate(
        "[...parts.overlay.querySelectorAll('rect')].map((box) => ['x', 'y', 'width', 'height']"
        ".map((name) => Number(box.getAttribute(name))))"
    )
    assert drawn == [pytest.approx([*corner, 30 * at["scale"] + 1.5, 25 * at["scale"] + 1.5])]
    browser.evaluate("find('boxes')[0].click()")
    assert browser.evaluate("parts.overlay.childElementCount") == 0
    # A box that is not finite is listed, and drawn nowhere.
    browser = open_page("case=2")
    assert browser.evaluate("parts.overlay.querySelectorAll('rect').length") == 2
    assert browser.evaluate("parts.boxes.rows[2].textContent") == "3cyst" + 4 * "\u2013"
    assert browser.evaluate("parts.boxes.rows[0].textContent") == "1cyst24 \u00d7 200.950.95\u2013"


def test_the_mouse_pans_zooms_windows_and_wipes(open_page):
    browser = open_page("case=1")
    x, y = find_middle(browser, "parts.viewer")
    browser.drag((x - 50, y), (x - 20, y + 40))
    assert browser.evaluate("[view.x, view.y]") == [30, 40]
    under = "(({ x, scale }) => (200 - x) / scale)(locate())"
    before = browser.evaluate(under)
    left = browser.evaluate("parts.viewer.getBoundingClientRect().x")
    browser.point("mouseWheel", left + 200, y, deltaX=0, deltaY=-200)
    browser.wait_for("view.zoom > 1")
    assert browser.evaluate(under) == pytest.approx(before)  # the place under the pointer stays
    level, width = map(float, read_values(browser, "level", "width"))
    browser.drag((x - 50, y), (x + 50, y + 30), "right")
    wanted = [level + 30 * width / 300, width * np.exp(0.5)]
    assert [*map(float, read_values(browser, "level", "width"))] == pytest.approx(wanted, rel=1e-3)
    browser.evaluate("find('drag')[1].click()")
    browser.drag((x - 50, y), (x + 50, y), "left")
    assert float(read_values(browser, "width")[0]) == pytest.approx(width * np.e, rel=1e-3)
    divider, thumb = find_middle(browser, "parts.divider"), find_middle(browser, "find('wipe')[0]")
    browser.drag((divider[0], thumb[1]), (divider[0] + 100, thumb[1]))
    share = 100 * 100 / browser.evaluate("parts.viewer.clientWidth")
    assert float(read_values(browser, "wipe")[0]) == pytest.approx(50 + share, abs=0.5)


def test_the_keys_do_what_the_page_says(open_page):
    browser = open_page()
    browser.evaluate("parts.viewer.focus()")
    for key, shown in zip("1234", ("wipe", "input", "output", "difference"), strict=True):
        browser.press(key)
        assert read_values(browser, "show") == [shown]
    usual = read_values(browser, "level", "width")
    browser.press("ArrowRight", shift=True)
    browser.press("ArrowDown", shift=True)
    assert read_values(browser, "level", "width") != usual
    browser.press("r")
    assert read_values(browser, "level", "width") == usual
    browser.press("+")
    browser.press("ArrowRight")
    assert browser.evaluate("[view.zoom, view.x, view.y]") == [1.25, -40, 0]
    browser.press("0")
    assert browser.evaluate("[view.zoom, view.x, view.y]") == [1, 0, 0]
    browser.press("n")
    browser.press("v")
    browser.press("b")
    browser.wait_for("parts.title.textContent === 'Image 2, sample 2'")
    assert read_values(browser, "case", "variant", "boxes") == ["2", "2", "off"]
    browser.press("p")
    browser.wait_for("parts.title.textContent === 'Image 1, sample 2'")
    # Outside of the viewer letters are letters.
    browser.evaluate("parts.viewer.blur()")
    browser.press("n")
    assert read_values(browser, "case") == ["1"]


def test_filters_leave_images_and_boxes_out(open_page):
    browser = open_page()
    visible = "find('case').filter((radio) => !radio.parentNode.hidden).map((radio) => radio.value)"
    assert browser.evaluate(visible) == ["1", "2", "3"]
    for fragment, images, boxes in (
        ("class=0", ["1", "2"], 1),
        ("fidelity=0.6", ["2"], 1),
        ("size=small&case=2", ["1", "2"], 2),  # with the box that has no size
        ("class=0&fidelity=0.92", ["1"], 1),
    ):
        browser = open_page(fragment)
        assert browser.evaluate(visible) == images, fragment
        assert browser.evaluate("parts.boxes.rows.length") == boxes, fragment
    # Another image comes with its own window.
    browser = open_page("case=2&level=9&width=9")
    browser.evaluate("choose('fidelity', '0.92')")
    browser.evaluate("choose('class', '1')")
    assert browser.evaluate("[parts.count.textContent, read('case')]") == ["1 of 3 images", "2"]
    browser.evaluate("choose('class', '0')")
    browser.wait_for("parts.title.textContent === 'Image 1, sample 1'")
    usual = browser.evaluate("findWindow(data.cases[0].window)")
    assert [*map(float, read_values(browser, "level", "width"))] == usual
    browser = open_page("size=large")
    assert browser.evaluate("[parts.count.textContent, parts.title.textContent]") == [
        "No image has such a box.", "Image 1, sample 1"
    ]  # fmt: skip


def test_an_address_brings_back_what_was_chosen(open_page):
    fragment = "case=2&variant=2&show=output&level=90&width=60&fidelity=0.6&theme=dark"
    browser = open_page(fragment)
    browser.evaluate("find('show')[3].click()")
    wanted = fragment.replace("output", "difference")
    browser.wait_for(f"location.hash === '#{wanted}'")
    # What it cannot mean changes nothing.
    browser = open_page("case=99&variant=x&show=&class=7&level=high&unknown=1&theme=red")
    browser.wait_for("parts.title.textContent === 'Image 1, sample 1'")
    assert read_values(browser, "show", "class", "theme") == ["wipe", "", ""]


def test_themes_follow_the_system_until_one_is_chosen(open_page):
    browser = open_page()
    colour = "getComputedStyle(document.body).backgroundColor"
    light = browser.evaluate(colour)
    for scheme, dark in ("dark", True), ("light", False):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.call("Emulation.setEmulatedMedia", features=features)
        assert (browser.evaluate(colour) != light) == dark
        browser.wait_for(f"parts.theme.ariaPressed === '{str(dark).lower()}'")
    browser.evaluate("parts.theme.click()")
    assert browser.evaluate(colour) != light
    browser.evaluate("parts.theme.click()")
    assert browser.evaluate(colour) == light


@pytest.mark.parametrize("width", [1280, 900, 420, 320])
def test_nothing_lies_beside_the_window(open_page, width):
    browser = open_page("case=2", width=width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    at, height = browser.evaluate("locate()"), browser.evaluate("parts.viewer.clientHeight")
    assert at["scale"] == pytest.approx(min(at["w"] / 120, height / 100)) and at["scale"] > 2


def test_every_control_has_a_name_for_screen_readers(open_page):
    browser = open_page("case=2")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {}
    for node in nodes:
        role = node.get("role", {}).get("value")
        roles.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    wanted = ("button", "radio", "checkbox", "slider", "spinbutton", "image", "table")
    for role in wanted:
        assert roles.get(role) and all(roles[role]), role
    assert {"View", "Variant", "Image"} <= {*roles.get("group", []), *roles.get("radiogroup", [])}
