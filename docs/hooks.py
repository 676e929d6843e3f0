"""Hooks of the site: files of the repository outside of `docs/` become part of it.

Pages link to each other as they lie in the repository, so that links work on its host, too. Here
`README.md` becomes the page `repository/README.md` of the site, for example, and links to it and
from it follow. So a page is written once, and the site needs no address of the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
FOLDER = "repository"
"""Where the site has the files that lie outside of `docs/`."""
PATTERNS = (
    "*.md",
    "benchmarks/README.md",
    "benchmarks/results/*.json",
    "tfds_builders/*/README.md",
)
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)[^)\s#]+")
"""The path of a Markdown link, without what follows a `#`."""


def on_files(files: Files, config: Any) -> None:
    """Add the files outside of `docs/` that pages link to, or that the navigation lists."""
    for pattern in PATTERNS:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, f"{FOLDER}/{name}", abs_src_path=str(path)))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of a page from places in the repository to places in the site."""
    uri = page.file.src_uri
    return LINK.sub(lambda link: move_link(link[0], uri), markdown)


def move_link(link: str, uri: str) -> str:
    """Return the link that leads from a page of the site to what a link of the repository names.

    Args:
        link: A relative path, as it is written in the page.
        uri: The page in the site, such as `keras.md` or `repository/README.md`.
    """
    page = uri.removeprefix(f"{FOLDER}/") if uri.startswith(f"{FOLDER}/") else f"docs/{uri}"
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    inside = target.startswith("docs/")
    target = target.removeprefix("docs/") if inside else f"{FOLDER}/{target}"
    return posixpath.relpath(target, posixpath.dirname(uri) or ".")


class Examples(griffe.Extension):
    """Names the section `Example:` of docstrings as griffe knows it, so that it becomes code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section in the docstring of an object."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
