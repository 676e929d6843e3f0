"""The documentation site: its navigation, its reference, its gallery, and that it is built."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from conftest import ROOT
from PIL import Image

import vae_aug
from benchmarks.gallery import draw, list_blocks, write_pair
from vae_aug.config import Mode
from vae_aug.train.corrupt import CORRUPTIONS

DOCS = ROOT / "docs"
OUTSIDE = "repository/"
GALLERY = (DOCS / "gallery.md").read_text(encoding="utf-8")
MOST_BYTES_OF_PICTURES = 1_500_000
# What a browser would fetch from elsewhere; an address that a reader may follow is none.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|audio|video)[^>]*\ssrc=["']?(?:https?:)?//[^>]*"""
    r"""|<link(?![^>]*rel=["']?canonical)[^>]*\shref=["']?(?:https?:)?//[^>]*"""
    r"""|@import[^;]*//[^;]*|url\(["']?(?:https?:)?//[^)]*"""
)


def list_entries(part: Any) -> Iterator[str]:
    """Yield the paths of a part of the navigation: a path, `{title: part}` or a list of parts."""
    if isinstance(part, str):
        yield part
        return
    for child in part.values() if isinstance(part, dict) else part:
        yield from list_entries(child)


def read_navigation() -> list[str]:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    return list(list_entries(yaml.safe_load(settings)["nav"]))


def list_documented() -> list[str]:
    """List the names that the API pages describe."""
    pages = (path.read_text(encoding="utf-8") for path in sorted((DOCS / "api").glob("*.md")))
    return [name for page in pages for name in re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)]


def test_every_page_is_in_the_navigation_once():
    inside = [entry for entry in read_navigation() if not entry.startswith(OUTSIDE)]
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(inside) == sorted(pages)


def test_the_navigation_names_files_that_are_there():
    outside = [entry for entry in read_navigation() if entry.startswith(OUTSIDE)]
    assert f"{OUTSIDE}README.md" in outside
    for entry in outside:
        assert (ROOT / entry.removeprefix(OUTSIDE)).is_file(), entry


def test_every_public_name_is_in_the_reference():
    documented = list_documented()
    assert len(documented) == len(set(documented))
    public = {f"vae_aug.{name}" for name in vae_aug.__all__} - {"vae_aug.__version__"}
    extras = (ROOT / "vae_aug" / "extras").glob("[!_]*.py")
    public |= {"vae_aug.keras.VAEAugmentation", *(f"vae_aug.extras.{path.stem}" for path in extras)}
    assert public <= set(documented)


def test_links_work_in_the_repository():
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")):
        text = re.sub(r"```.+?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", text):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_troubleshooting_quotes_messages_that_there_are():
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    trees = (ast.parse(path.read_bytes()) for path in (ROOT / "vae_aug").rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    said = "\n".join(text for text in texts if isinstance(text, str))
    assert len(quoted) > 10
    assert [message for message in quoted if message not in said] == []


def test_the_gallery_has_every_mode_and_corruption():
    shown = [names[0] for _, names in list_blocks(GALLERY) if names]
    assert set(CORRUPTIONS) <= set(shown)
    for mode in get_args(Mode):
        assert f'mode="{mode}"' in GALLERY
    pictures = sorted((DOCS / "images" / "gallery").iterdir())
    assert [path.stem for path in pictures] == sorted(shown)
    assert re.findall(r"images/gallery/(\w+)\.png", GALLERY) == shown
    assert sum(path.stat().st_size for path in pictures) < MOST_BYTES_OF_PICTURES


def test_a_picture_shows_source_and_result_with_boxes(tmp_path):
    box = np.array([[0.25, 0.25, 0.5, 0.5]], np.float32)
    source, result = (
        {"image": np.full([16, 16, 1], grey, np.uint8), "objects": {"bbox": box}}
        for grey in (10, 200)
    )
    drawn = np.asarray(draw(source))
    assert drawn[3, 3] == 255 and drawn[4, 4] == 10 and drawn[8, 8] == 255
    write_pair(tmp_path / "pair.png", source, result)
    pair = np.asarray(Image.open(tmp_path / "pair.png"))
    assert pair.shape == (16, 36) and pair[0, 0] == 10 and pair[0, 35] == 200


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="install vae-aug[docs]")
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VAEAugment" in (tmp_path / "api" / "transform.html").read_text(encoding="utf-8")
    for path in (*tmp_path.rglob("*.html"), *tmp_path.rglob("*.css")):
        assert not FETCHED.findall(path.read_text(encoding="utf-8")), path
