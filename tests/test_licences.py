"""Every set that a packaged checkpoint was trained on has its licence in NOTICE and in the card."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from conftest import ROOT

from benchmarks.permitted import SETS
from vae_aug.model.checkpoint import read_card, read_manifest

FOLDER = ROOT / "docs" / "checkpoints"
SOURCES = json.loads((FOLDER / "sources.json").read_text(encoding="utf-8"))
CHECKPOINTS = sorted(path.stem for path in (ROOT / "vae_aug" / "checkpoints").glob("*.keras"))
# Licences under which trained weights may ship, and how texts write them.
PERMITTED = {
    "Apache-2.0": "Apache-2.0",
    "BSD-2-Clause": "BSD-2",
    "CC-BY-3.0": "CC BY 3.0",
    "CC-BY-4.0": "CC BY 4.0",
    "CC0-1.0": "CC0",
    "LicenseRef-CC-BY": "CC BY",  # SPDX has no identifier without a version
    "MIT": "MIT",
    "PDDL-1.0": "PDDL",
}


def read_notice() -> list[str]:
    """Return the paragraphs of NOTICE that are in its lists, each in one line."""
    text = (ROOT / "NOTICE").read_text(encoding="utf-8")
    found = re.findall(r"^- (.+?)(?=\n- |\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return [" ".join(item.split()) for item in found]


def read_rows(card: str) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a card's table of data, without its heading."""
    table = card.partition("## Data")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*) \|$", table, re.MULTILINE)
    yield from (tuple(cell.strip() for cell in row.split("|")) for row in rows[2:])


def find_licences(text: str) -> set[str]:
    """Return the licences of a cell such as `public domain (PDDL)` or `BSD-2, MIT, CC BY`."""
    names = {text: name for name, text in PERMITTED.items()}
    return {names[part.strip()] for part in re.sub(r".*\((.*)\)", r"\1", text).split(",")}


def test_licences_are_permitted() -> None:
    assert {name for source in SOURCES for name in source["licences"]} <= set(PERMITTED)
    assert {name for source in SOURCES for name in source["checkpoints"]} == set(CHECKPOINTS)


def test_each_source_is_in_notice_and_nothing_else_is() -> None:
    items = read_notice()
    for source in SOURCES:
        (item,) = [item for item in items if item.startswith(source["notice"])]
        items.remove(item)
        assert [text for text in source["attribution"] if text not in item] == []
        assert [name for name in source["licences"] if PERMITTED[name] not in item] == []
    assert items == []


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_each_source_is_in_the_card_and_nothing_else_is(checkpoint: str) -> None:
    sources = [source for source in SOURCES if checkpoint in source["checkpoints"]]
    for name, *_, licences in read_rows(read_card(checkpoint)):
        found = [source for source in sources if name.startswith(source["card"])]
        expected = {licence for source in found for licence in source["licences"]}
        own = {"Apache-2.0"} if "phantoms of vae_aug" in name else set()
        assert found and find_licences(licences) == expected | own
        sources = [source for source in sources if source not in found]
    assert sources == []


def test_the_card_that_is_packaged_is_the_one_of_the_documents() -> None:
    assert read_card("demo") == (FOLDER / "demo.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_cards_count_the_images_and_patients_that_the_checkpoint_tells_of(checkpoint: str) -> None:
    manifest = read_manifest(checkpoint)
    columns = list(zip(*read_rows(read_card(checkpoint)), strict=True))
    # The last column before patients and licences is that of the last training.
    images = columns[1 if len(columns) == 3 else 2]
    assert sum(int(cell or 0) for cell in images) == manifest["fingerprint"]["images"]
    if len(columns) > 3:
        patients = sum(int(cell or 0) for cell in columns[3])
        assert patients == manifest["training"]["variation"]["patients"]


def test_what_the_recipes_read_is_listed() -> None:
    listed = {name: source for source in SOURCES for name in source["sets"]}
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    first = set(re.findall(r"^\| `?(\w+)`?[ ,].*?\| \d+ \|", readme, re.MULTILINE))
    assert {"kidney_stone_ct", "phantoms"} < first
    assert first | set(SETS) == set(listed)
    assert {name for name in listed if "vector" in listed[name]["checkpoints"]} == first
