"""Text, JSON, YAML and XML of annotation files: decoded as they declare, and bounded.

What cannot be read without a guess is refused: text in an unknown encoding, a key that an object
has twice, an entity or alias by which a small file grows without end.
"""

from __future__ import annotations

import codecs
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Hashable
from pathlib import Path
from typing import Any
from xml.parsers import expat

import yaml  # type: ignore[import-untyped]

from vae_aug.errors import AnnotationError, VAEAugError
from vae_aug.ingest.formats.borders import check_inside
from vae_aug.limits import (
    MAX_ANNOTATION_BYTES,
    MAX_DEPTH,
    MAX_TEXT_BYTES,
    MAX_YAML_BYTES,
    read_bounded,
)

# The longer marks first: UTF-32's begins as UTF-16's does.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARATION = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._:-]+)["'][^>]*\?>""")


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a text file in UTF-8, or in UTF-16 or UTF-32 behind a byte order mark.

    Args:
        path: The file.
        max_bytes: Most bytes that it may have.

    Returns:
        The text without the mark.

    Raises:
        AnnotationError: If the file cannot be read, is too large, or is in another encoding.
    """
    data = _read(path, max_bytes)
    text = _decode(path, data, _find_mark(data) or "utf-8")
    if "\0" in text:
        raise AnnotationError(f"{path}: is no text: it holds zero bytes; save it as UTF-8.")
    return text


def _decode(path: Path, data: bytes, encoding: str = "utf-8") -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{path}: is no text in UTF-8 (byte {error.start}), and has no byte order mark that "
            "tells another encoding; save it as UTF-8."
        ) from error


def load_json(path: Path, max_bytes: int = MAX_ANNOTATION_BYTES) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        max_bytes: Most bytes that it may have.

    Returns:
        What it holds.

    Raises:
        AnnotationError: If it cannot be read, is too large, no JSON, nested too deeply, or an
            object has a key twice, of which one would be lost.
    """
    data = _read(path, max_bytes)
    try:
        return json.loads(data, object_pairs_hook=_make_object)
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            _decode(path, data)
        raise AnnotationError(f"{path}: no valid JSON ({error}); export it again.") from error


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        # Keys may be names of files, so the key is not told.
        raise ValueError("an object has a key twice")
    return content


def load_yaml(path: Path) -> Any:
    """Read a YAML file of plain values: no tags that make objects, no aliases, no key twice.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        AnnotationError: If it cannot be read, is too large, or no such YAML.
    """
    try:
        return yaml.load(read_text(path, MAX_YAML_BYTES), _PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise AnnotationError(f"{path}: no valid YAML ({problem}{place}); correct it.") from error


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader that refuses aliases, by which ten lines become a billion values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases are not read", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        content = super().construct_mapping(node, deep)
        if len(content) < len(node.value):
            raise yaml.MarkedYAMLError(problem="a key is there twice", problem_mark=node.start_mark)
        return content


def parse_xml(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> ET.Element:
    """Read an XML file in the encoding that it declares, any that Python knows.

    Args:
        path: The file.
        max_bytes: Most bytes that it may have.

    Returns:
        The root.

    Raises:
        AnnotationError: If it cannot be read, is too large, no XML, or defines entities.
    """
    data = _read(path, max_bytes)
    declared = _DECLARATION.match(data)
    encoding = _find_mark(data) or (declared[1].decode() if declared else None)
    try:
        # Expat itself knows no encoding of several bytes besides Unicode's, as GBK.
        text = data.decode(encoding) if encoding else data
        return _parse(text)
    except (expat.ExpatError, ET.ParseError, ValueError, LookupError, RecursionError) as error:
        # Expat finds no more than an invalid token in text of another encoding.
        if not encoding:
            _decode(path, data)
        raise AnnotationError(f"{path}: no valid XML ({error}); export it again.") from error


def _parse(text: str | bytes) -> ET.Element:
    builder = ET.TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser = expat.ParserCreate("utf-8" if isinstance(text, str) else None)
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = _refuse_entity
    # What is left of the declaration would contradict the encoding that the text now has.
    data = text.encode("utf-8") if isinstance(text, str) else text
    parser.Parse(data, True)
    return builder.close()


def _refuse_entity(*declared: object) -> None:
    raise ValueError("it defines entities, by which a small file grows without end")


def _find_mark(data: bytes) -> str | None:
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)


def _read(path: Path, max_bytes: int) -> bytes:
    check_inside(path)
    try:
        return read_bounded(path, max_bytes)
    except VAEAugError as error:
        raise AnnotationError(str(error)) from error
