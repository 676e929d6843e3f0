"""The files that name the classes of a YOLO data set, and say where its images are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from vae_aug.errors import AnnotationError, VAEAugError
from vae_aug.ingest.formats.borders import check_inside
from vae_aug.ingest.formats.layout import FileFinder, fold_name
from vae_aug.ingest.formats.source import clean_label
from vae_aug.ingest.formats.text import load_yaml, read_text
from vae_aug.limits import MAX_TEXT_BYTES, read_bounded

LIST_NAMES = frozenset(
    {"classes.txt", "class.txt", "class_names.txt", "names.txt", "labels.txt"}
    | {"predefined_classes.txt", "_darknet.labels", "obj.names"}
)
"""Files that name classes, one a line; Roboflow's `_darknet.labels` is in each split's folder."""

# As deep as labelImg writes classes.txt: `images/train/classes.txt`.
_DEPTH = 2
# Lines of a text that is looked into; a header may come first.
_SAMPLES = 20
CLASS = re.compile(r"\d{1,9}(\.0*)?", re.ASCII)
"""The number of a class, which some tools write as `0.0`."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
"""A number as every tool reads it: Python alone takes `1_0` and the digits of other scripts."""


class Description(NamedTuple):
    """What a YAML file or Darknet's obj.data says.

    Attributes:
        file: The file; None if there is neither.
        content: Its keys: `names`, `nc`, `path`, `kpt_shape` and the splits.
    """

    file: Path | None
    content: Mapping[str, Any]


def is_yolo_text(path: Path, least: int = 4) -> bool:
    """Tell whether a text file looks like YOLO: a line has a class and at least four numbers.

    Only the first lines are looked at. A file in another encoding, also in UTF-16 without a mark,
    looks like YOLO too, so that it is named and not passed over. An empty file looks like nothing.

    Args:
        path: The file.
        least: How many numbers are needed; fewer than four for lines that may be cut short.
    """
    try:
        text = read_text(path)
    except AnnotationError:
        try:
            check_inside(path)
            text = read_bounded(path, MAX_TEXT_BYTES).replace(b"\0", b"").decode("latin-1")
        except VAEAugError:
            return False
    lines = islice(split_lines(text), _SAMPLES)
    return any(_is_shape(re.split(r"[\s,;]+", line), least) for _, line in lines)


def holds_numbers(path: Path) -> bool:
    """Tell whether half of the words in the first lines of a text are numbers, or it is no text."""
    try:
        text = read_text(path)
    except AnnotationError:
        return path.is_file()
    words = [w for _, line in islice(split_lines(text), _SAMPLES) for w in line.split()]
    return bool(words) and 2 * sum(bool(NUMBER.fullmatch(word)) for word in words) >= len(words)


def is_blank(path: Path) -> bool:
    """Tell whether a text file holds nothing; one that cannot be read does."""
    try:
        return next(split_lines(read_text(path)), None) is None
    except AnnotationError:
        return False


def _is_shape(words: Sequence[str], least: int) -> bool:
    numbers = all(NUMBER.fullmatch(word) for word in words[1 : least + 1])
    return len(words) > least and numbers and CLASS.fullmatch(words[0]) is not None


def split_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a label file that are not empty, with their numbers from 1.

    Letters and blanks of full width count as the ordinary ones (Unicode NFKC), and marks in front
    of joined files as nothing.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        line = unicodedata.normalize("NFKC", line.replace("\ufeff", "")).strip()
        if line:
            yield number, line


def is_darknet(root: Path) -> bool:
    """Tell whether a folder has Darknet's obj.data, under this or another name."""
    return next(_find_darknet(root), None) is not None


def find_yolo_names(root: Path) -> Path | None:
    """Find the file that names the classes of a YOLO data set; None if there is none.

    A YAML file that cannot be read counts if it has a key `names`.
    """
    found = [path for path in _list_yaml(root) if _may_have_names(path)]
    found += [*_find_darknet(root), *_find_lists(root)]
    return next(iter(found), None)


def read_description(root: Path, file: Path | None) -> Description:
    """Read the YAML file or obj.data of a data set.

    Args:
        root: The data set's folder.
        file: The file, None to look for it.

    Returns:
        What it says; nothing if there is neither.

    Raises:
        AnnotationError: If it cannot be read, or there are several that differ.
    """
    paths = [file] if file else [path for path in _list_yaml(root) if _may_have_names(path)]
    found = [_read(path) for path in paths]
    found = [description for description in found if description.content]
    if not file and not found:
        found = [_read(path) for path in _find_darknet(root)]
    for other in found[1:]:
        if other.content != found[0].content:
            raise AnnotationError(
                f"{root}: {_get_name(found[0], root)} and {_get_name(other, root)} differ; give "
                "the one that counts instead of the folder."
            )
    return found[0] if found else Description(None, {})


def _get_name(description: Description, root: Path) -> str:
    return str(description.file.relative_to(root)) if description.file else ""


def _read(path: Path) -> Description:
    if path.suffix.lower() == ".data":
        return Description(path, _read_darknet(path))
    content = load_yaml(path)
    if not isinstance(content, dict) or "names" not in content:
        return Description(path, {})
    return Description(path, content)


def read_names(root: Path, description: Description, *, is_told: bool) -> dict[int, str]:
    """Read the names of the classes.

    Args:
        root: The data set's folder.
        description: What its YAML file or obj.data says.
        is_told: Whether the user named this file, so that no other counts.

    Returns:
        Names by number. A number without a name is not there.

    Raises:
        AnnotationError: If there are none, or two files differ.
    """
    found: list[tuple[Path, dict[int, str]]] = []
    if description.file is not None:
        found.append((description.file, _parse_names(root, description)))
    if not is_told:
        found += [(path, _read_list(path)) for path in _find_lists(root)]
    found = [(path, names) for path, names in found if names]
    for path, names in found[1:]:
        if names != found[0][1]:
            raise AnnotationError(
                f"{root}: {found[0][0].relative_to(root)} and {path.relative_to(root)} name the "
                "classes differently; remove the wrong one."
            )
    if found:
        return found[0][1]
    raise AnnotationError(
        f"{root}: expected the names of the classes in data.yaml ('names': a list, or numbers "
        "from 0 to names), obj.names or classes.txt; write classes.txt, one name a line, that of "
        "class 0 first."
    )


def _parse_names(root: Path, description: Description) -> dict[int, str]:
    """Return the names in a YAML file, or in the list that it points to."""
    file, content = description.file, description.content
    names = content["names"]
    if isinstance(names, str):
        listed = FileFinder([root, file.parent if file else root]).find(f"/{names}")
        if listed is None:
            raise AnnotationError(
                f"{file}: 'names' is neither a list nor a file of the data set; write a list."
            )
        names = list(_read_list(listed, gaps=True).values())
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        raise AnnotationError(f"{file}: 'names' is no list; write one, also for a single class.")
    count = content.get("nc")
    if count is not None and str(count).strip() != str(len(names)):
        raise AnnotationError(
            f"{file}: 'nc' (in obj.data 'classes') is {str(count)[:20]!r}, but there are "
            f"{len(names)} names; correct one."
        )
    parsed = {_parse_class(key, file): _parse_name(name, file) for key, name in names.items()}
    if len(parsed) < len(names):
        raise AnnotationError(f"{file}: 'names' has a number twice; correct it.")
    return {number: name for number, name in parsed.items() if name}


def _parse_class(key: object, file: Path | None) -> int:
    if isinstance(key, bool) or not CLASS.fullmatch(str(key).strip()):
        raise AnnotationError(f"{file}: expected numbers from 0 as keys of 'names'; correct it.")
    return int(float(str(key)))


def _parse_name(name: object, file: Path | None) -> str:
    """Return a name as it is written; YAML makes of `no` and `2024-01-01` what is no text."""
    if name is None:
        return ""
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        raise AnnotationError(f"{file}: a name in 'names' is no text; put it in quotes.")
    return clean_label(str(name))


def _read_list(path: Path, *, gaps: bool = False) -> dict[int, str]:
    """Read names, one a line: line k, from 0, is class k, so that empty lines count."""
    lines = [clean_label(line) for line in read_text(path).replace("\ufeff", "").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return {number: name for number, name in enumerate(lines) if name or gaps}


def _list_yaml(root: Path) -> list[Path]:
    return [path for path in _list_files(root) if path.suffix.lower() in (".yaml", ".yml")]


def _may_have_names(path: Path) -> bool:
    """Tell whether a YAML file has `names`, as far as one can without understanding it."""
    try:
        return re.search(r"""(^|[{,\s'"])names['"]?\s*:""", read_text(path)) is not None
    except AnnotationError:
        return fold_name(path.stem) in ("data", "dataset")


def _find_darknet(root: Path) -> Iterator[Path]:
    """Yield files like obj.data: names, and the list of a split."""
    for folder in (root, root / "data", root / "cfg"):
        for path in _list_files(folder):
            if path.suffix.lower() == ".data":
                check_inside(path)
                content = _read_darknet(path)
                if "names" in content and len(content) > 1:
                    yield path


def _read_darknet(path: Path) -> dict[str, Any]:
    """Read lines of `key = value`; nothing from what is no text."""
    try:
        lines = read_text(path).splitlines()
    except AnnotationError:
        return {}
    pairs = [line.split("=", 1) for line in lines if "=" in line and line.strip()[:1] != "#"]
    content: dict[str, Any] = {key.strip(): value.strip() for key, value in pairs}
    if "classes" in content:
        content["nc"] = content.pop("classes")
    return content


def _find_lists(root: Path) -> list[Path]:
    """Find files of names, one a line, also where labelImg leaves them beside images and boxes."""
    folders = [root]
    for _ in range(_DEPTH):
        folders += [child for folder in folders for child in _list_folders(folder)]
    found = []
    for path in (path for folder in dict.fromkeys(folders) for path in _list_files(folder)):
        name = fold_name(path.name)
        if (name in LIST_NAMES or name.endswith(".names")) and not is_yolo_text(path):
            found.append(path)
    return found


def _list_files(folder: Path) -> list[Path]:
    """List the files of a folder; those whose names begin with a point are no part of a set."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if path.name[0] != "." and path.is_file()]


def _list_folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.name[0] != "." and path.is_dir()]
