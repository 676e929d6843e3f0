"""Tables of boxes in CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vae_aug.data.annotations.layout import (
    find_file,
    find_split_file,
    list_image_folders,
    make_finder,
)
from vae_aug.data.annotations.source import (
    Annotations,
    Box,
    Collector,
    Hounsfield,
    keep_named,
    parse_number,
    parse_size,
)
from vae_aug.data.records import get_split_name
from vae_aug.errors import AnnotationError

_CSV_COLUMNS: dict[str, tuple[str, ...]] = {
    "filename": ("filename", "file_name", "file", "image", "image_name", "image_path", "path"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "label": ("label", "class", "class_name", "cell_type", "category", "name"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
    "patient": ("patient", "patient_id", "patientid"),
}
_SUFFIXES = ("", ".dcm", ".dicom", ".png", ".jpg", ".jpeg")
_CSV_OPTIONAL = frozenset({"width", "height", "patient"})


def read_csv(source: str | os.PathLike[str], split: str = "train") -> Annotations:
    """Read a table of one box a row, as `filename,xmin,ymin,xmax,ymax,label`.

    The columns may be in any order and under their common other names (`class`, `cell_type`,
    `x1`, ...); `width` and `height` of the image and `patient` may be among them. A row with
    neither coordinates nor label is an image without boxes. Labels are those of the table,
    sorted. Image files are sought beside the table, in `images/`, in a folder of the split, and
    last anywhere below, where only one has the name; a name may be without its suffix.

    Three public tables are known by their columns, which differ from the above: VinDr
    (`image_id`, `class_name`, `x_min`, ...: the boxes of every reader are taken), the RSNA
    pneumonia challenge (`patientId`, `x`, `y`, `width`, `height`, `Target`: the label is
    `opacity`), and DeepLesion's `DL_info.csv` (labels by `Coarse_lesion_type`, `lesion` where
    it is unknown; the split by `Train_Val_Test`; boxes that are `Possibly_noisy` are dropped, and
    so are images without another). Their sizes of images are not compared. DeepLesion's PNG files
    of 16 bits hold Hounsfield units + 32768; `DICOM_windows` in the first row of an image says
    which are black and white.

    Args:
        source: The data set's folder, holding `<split>.csv`; or the table itself.
        split: Which split.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If there is no such table, or a column is missing.
    """
    source = Path(source)
    patterns = ("{0}.csv", "{0}/*.csv", "*_{0}.csv", "*_{0}_labels.csv")
    file = find_split_file(source, split, ".csv", patterns)
    collector = Collector(source if source.is_dir() else source.parent)
    rows: dict[str, list[dict[str, str]]] = {}
    for row in _load_csv(file, split):
        rows.setdefault(row["filename"], []).append(row)
    folders = list_image_folders(file.parent, split)
    find_anywhere = make_finder(collector.root)
    for name, entries in rows.items():
        noisy = [row for row in entries if row.get("noisy") == "1"]
        for _ in noisy:
            collector.report(name, "a box is marked as possibly noisy", "dropped")
        entries = [row for row in entries if row not in noisy]
        if not entries:
            continue
        path = _find_named(folders, name) or find_anywhere(name)
        if path is None:
            collector.report(name, "the table names this image, the file is missing or not unique")
            continue
        boxes = [_parse_csv_row(row) for row in entries if _has_box(row)]
        collector.add(
            path,
            keep_named(collector, path, boxes),
            size=(parse_size(entries[0].get("height")), parse_size(entries[0].get("width"))),
            patient=entries[0].get("patient") or "",
            hounsfield=_parse_window(entries[0]),
        )
    names = {row["label"] for entries in rows.values() for row in entries if row["label"]}
    return collector.finish(sorted(names))


def _find_named(folders: Sequence[Path], name: str) -> Path | None:
    """Return the first file of a name, with or without its suffix, in the folders."""
    found = (find_file(folders, f"{name}{suffix}") for suffix in _SUFFIXES)
    return next((path for path in found if path is not None), None)


def _parse_window(row: Mapping[str, str]) -> Hounsfield | None:
    """Return what DeepLesion's pixels stand for; None for other tables."""
    if "hounsfield" not in row:
        return None
    bounds = [parse_number(text) for text in row["hounsfield"].split(",")]
    is_window = len(bounds) == 2 and bounds[0] < bounds[1] < float("inf")
    return Hounsfield(_DEEPLESION_OFFSET, (bounds[0], bounds[1]) if is_window else None)


def is_box_table(file: Path) -> bool:
    """Tell whether the columns of a table are those of boxes."""
    try:
        header, _ = _read_table(file, rows=False)
        return any(columns <= header for columns, _ in _DIALECTS) or not _find_columns(header)[1]
    except AnnotationError:
        return False


def _read_table(file: Path, rows: bool = True) -> tuple[set[str], list[dict[str, str]]]:
    """Return the names of the columns in small letters, and the rows under these names."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            delimiter = max(",;\t", key=stream.readline().count)
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=delimiter, restkey="", restval="")
            names = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            content = [{k: str(row[k]).strip() for k in names} for row in reader] if rows else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"{file}: no readable table in UTF-8; export it again.") from error
    return set(names), content


def _find_columns(header: set[str]) -> tuple[dict[str, str], list[str]]:
    """Return our names of columns with the table's, and what is missing."""
    columns = {
        column: next((name for name in names if name in header), None)
        for column, names in _CSV_COLUMNS.items()
    }
    missing = [c for c, name in columns.items() if name is None and c not in _CSV_OPTIONAL]
    return {column: name for column, name in columns.items() if name is not None}, missing


def _load_csv(file: Path, split: str) -> list[dict[str, str]]:
    """Return the rows under the names of `_CSV_COLUMNS`."""
    header, rows = _read_table(file)
    for known, convert in _DIALECTS:
        if known <= header:
            return convert(rows, split)
    columns, missing = _find_columns(header)
    if missing:
        raise AnnotationError(
            f"{file}: expected the columns filename, xmin, ymin, xmax, ymax, label (or common "
            f"other names); {', '.join(missing)} missing from {sorted(header)}."
        )
    return [{column: row[name] for column, name in columns.items()} for row in rows]


def _convert_vindr(rows: Sequence[Mapping[str, str]], split: str) -> list[dict[str, str]]:
    """VinDr: one row a box and reader; "No finding" marks an image without boxes."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    converted = []
    for row in rows:
        box = {side: row[f"{side[0]}_{side[1:]}"] for side in sides}
        empty = row["class_name"].lower() == "no finding" or not any(box.values())
        label = "" if empty else row["class_name"]
        box = dict.fromkeys(sides, "") if empty else box
        converted.append({"filename": row["image_id"], "label": label, **box})
    return converted


def _convert_rsna(rows: Sequence[Mapping[str, str]], split: str) -> list[dict[str, str]]:
    """RSNA pneumonia: x, y, width, height where Target is 1; the patient names the file."""
    converted = []
    for row in rows:
        result = {"filename": row["patientid"], "patient": row["patientid"], "label": ""}
        result |= dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), "")
        if row["target"] == "1":
            x, y, width, height = (parse_number(row[k]) for k in ("x", "y", "width", "height"))
            result |= {"label": "opacity", "xmin": str(x), "ymin": str(y)}
            result |= {"xmax": str(x + width), "ymax": str(y + height)}
        converted.append(result)
    return converted


def _convert_deeplesion(rows: Sequence[Mapping[str, str]], split: str) -> list[dict[str, str]]:
    """DeepLesion: `a_b_c_109.png` lies at `a_b_c/109.png`; one row a lesion, of all splits."""
    wanted = _DEEPLESION_SPLITS.get(get_split_name(split))
    converted = []
    for row in rows:
        if wanted is not None and row["train_val_test"] not in ("", wanted):
            continue
        series, _, slice_name = row["file_name"].rpartition("_")
        corners = [text.strip() for text in row["bounding_boxes"].split(",")]
        corners = corners if len(corners) == 4 else ["nan"] * 4
        result = {
            "filename": f"{series}/{slice_name}",
            "label": _DEEPLESION_TYPES.get(row["coarse_lesion_type"], "lesion"),
            "patient": row["patient_index"],
            "noisy": row.get("possibly_noisy", ""),
            "hounsfield": row.get("dicom_windows", ""),
        }
        converted.append(result | dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)))
    return converted


_DEEPLESION_OFFSET = 2**15
_DEEPLESION_SPLITS = {"train": "1", "validation": "2", "test": "3"}
_DEEPLESION_TYPES = {
    "1": "bone",
    "2": "abdomen",
    "3": "mediastinum",
    "4": "liver",
    "5": "lung",
    "6": "kidney",
    "7": "soft tissue",
    "8": "pelvis",
}
_Convert = Callable[[Sequence[Mapping[str, str]], str], list[dict[str, str]]]
_DIALECTS: tuple[tuple[frozenset[str], _Convert], ...] = (
    (frozenset(["image_id", "class_name", "x_min", "y_min", "x_max", "y_max"]), _convert_vindr),
    (frozenset(["patientid", "x", "y", "width", "height", "target"]), _convert_rsna),
    (
        frozenset(
            ["file_name", "patient_index", "bounding_boxes", "coarse_lesion_type", "train_val_test"]
        ),
        _convert_deeplesion,
    ),
)


def _has_box(row: Mapping[str, str]) -> bool:
    return any(row[column] for column in ("xmin", "ymin", "xmax", "ymax", "label"))


def _parse_csv_row(row: Mapping[str, str]) -> Box:
    return Box([parse_number(row[s]) for s in ("xmin", "ymin", "xmax", "ymax")], row["label"])
