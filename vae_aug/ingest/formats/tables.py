"""Tables of boxes in CSV."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from vae_aug.config import Exif
from vae_aug.errors import AnnotationError, MissingSplitError, VAEAugError
from vae_aug.ingest.formats.layout import (
    fold_name,
    list_split_names,
    read_size,
)
from vae_aug.ingest.formats.lookup import ImageLookup, find_annotation_file
from vae_aug.ingest.formats.pixels import flag_relative, refuse_relative
from vae_aug.ingest.formats.public_tables import AUTOML, find_dialect, is_automl, is_public
from vae_aug.ingest.formats.source import (
    DEFAULTS,
    Annotations,
    Box,
    Collector,
    Fault,
    ReaderOptions,
    describe_fault,
    reader,
)
from vae_aug.ingest.formats.table_columns import (
    HEADERLESS,
    Row,
    drop_body_mass,
    exceeds,
    is_headerless,
    list_missing,
    name_header,
    scale_boxes,
)
from vae_aug.ingest.formats.table_file import (
    Line,
    fold_column,
    make_records,
    read_lines,
    settle_decimal,
)
from vae_aug.words import plural

_SPLITS = {
    "": "",
    "unassigned": "",
    **{word: name for name in ("train", "validation", "test") for word in list_split_names(name)},
}
"""Splits by the words that a table writes; `""` where it names none."""

_MAX_BROKEN = 100
"""Most rows that may be several, run together: each is searched for the names of all images."""


@reader
def read_csv(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read a table of one box a row, as `filename,xmin,ymin,xmax,ymax,label`.

    The columns may be in any order and under their common other names (`class`, `cell_type`,
    `x1`, ...), parted by commas, semicolons, tabs or `|`; `x, y, width, height` (left and top) and
    `x_center, y_center, width, height` are boxes too, and `xmin_rel` (`_norm`) and so on are in
    parts of the image's sides. `width` and `height` of the image, `patient` and `split` may be
    among them. A table without a header is that of keras-retinanet (`path,x1,y1,x2,y2,class`) or
    of AutoML. Labels are those of the table, sorted. Image files are sought beside the table, in
    `images/`, in a folder of the split, and below these.

    Columns such as `annotated`, `is_labelled`, `reviewed` or `annotation_status` say whether
    somebody has looked for boxes: an image without boxes is unannotated unless each says `1`,
    `true`, `yes`, `done` or the like, and one with boxes is faulty if any says `0`, `false` or
    `no`.

    An image has no boxes if its rows have neither coordinates nor a label, or the label "No
    finding", and nothing in a column of outlines, points or further classes; a row with a box
    counts more. Images that the table does not name are not taken. A row that has one of both,
    numbers that are none, or another number of cells than the header is a fault of its image. An
    image is faulty as well if its rows name several sizes, patients or splits, or if a row whose
    image is missing may mean it. All images are, if a row with a box names no image.

    Public tables are known by their columns: VinDr (`image_id`, `class_name`, `x_min`, ...: the
    boxes of every reader are taken), VinDr-Mammo (`finding_categories`), NIH ChestX-ray14
    (`Bbox [x,y,w,h]`), the RSNA pneumonia challenge (`patientId`, `x`, `y`, `width`, `height`,
    `Target`: the label is `opacity`), Open Images (relative, groups are crowds), and DeepLesion's
    `DL_info.csv` (labels by `Coarse_lesion_type`, `lesion` where it is unknown; the split by
    `Train_Val_Test`; boxes that are `Possibly_noisy` are faults). DeepLesion's PNG files of 16
    bits hold Hounsfield units + 32768; `DICOM_windows` in the first row of an image says which
    are black and white.

    Args:
        source: The data set's folder, holding `<split>.csv`; or the table itself.
        split: Which split.
        options: As in `ReaderOptions`.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If there is no such table, a column is missing, or it cannot be told what
            the numbers mean.
    """
    source = Path(source)
    file = find_annotation_file(source, split, (".csv", ".tsv"), is_box_table)
    rows = _read_rows(file)
    wanted = _choose_rows(file, rows, split)
    collector = Collector(source if source.is_dir() else source.parent, options)
    lookup = ImageLookup(file, split, options, (name for row in rows for name in row.names))
    found = lookup.group(row.names for row in rows)
    broken = [row for row in rows if row.broken]
    for path, positions in found.entries.items():
        if wanted.isdisjoint(positions):
            continue
        mine = [rows[position] for position in positions]
        faults = [*_find_contradictions(mine), *_find_suspicions(path, broken)]
        faults += [
            Fault(f"line {rows[position].line}: its missing image may be this one", "unread")
            for position in found.doubtful.get(path, ())
        ]
        if not wanted.issuperset(positions):
            faults.append(Fault("its rows name several splits", "unread"))
        _add_image(collector, path, file, mine, faults, options.exif)
    _report_missing(
        collector,
        [
            rows[position]
            for position in found.missing
            # A row that is broken may have lost the name of its split.
            if position in wanted or rows[position].broken
        ],
    )
    if len(wanted) < len(rows) and (count := sum(not _name_split(row) for row in rows)):
        collector.notes.append(
            plural(
                count,
                "row",
                "names no split that is known, and is not read",
                "name no split that is known, and are not read",
            )
        )
    refuse_relative(collector)
    return collector.finish(sorted(_list_labels(rows)))


def is_box_table(file: Path) -> bool:
    """Tell whether the columns of a table are those of boxes, also if it cannot be read right."""
    try:
        header = _find_header(list(itertools.islice(read_lines(file), 1)))
    except AnnotationError:
        return False
    if is_public(header):
        return True
    try:
        return list_missing(file, header) in ([], ["label"])
    except AnnotationError:
        return True


def _find_header(lines: Sequence[Line]) -> tuple[str, ...]:
    """Return the folded names of the columns, also of tables without a header."""
    if not lines:
        return ()
    if is_automl(lines[0]):
        return AUTOML
    return HEADERLESS if is_headerless(lines[0]) else name_header(lines[0].cells)


def _read_rows(file: Path) -> list[Row]:
    lines = list(read_lines(file))
    header = _find_header(lines)
    dialect = find_dialect(file, header)
    if lines and name_header(lines[0].cells) == header:
        records = make_records(file, lines[1:], header, len(lines[0].cells))
    else:
        records = make_records(file, lines, header, len(header))
    records = settle_decimal(file, records, dialect.numbers)
    rows = list(map(dialect.convert, drop_body_mass(records, header)))
    if sum(bool(row.broken) for row in rows) > _MAX_BROKEN:
        raise AnnotationError(
            f"{file}: more than {_MAX_BROKEN} rows have another number of cells than the header; "
            "quote the cells that hold the separator, and export it again."
        )
    classes = {fold_column(label): label for label in _list_labels(rows)}
    rows = [_doubt_flagged(row, classes) for row in rows]
    boxes = [e for row in rows if row.relative for e in row.entries if isinstance(e, Box)]
    if boxes and all(map(exceeds, boxes)):
        raise AnnotationError(
            f"{file}: its columns are those of relative coordinates and every box has some beyond "
            "1, so they are pixels; name them xmin, ymin, xmax, ymax."
        )
    return rows


def _list_labels(rows: Iterable[Row]) -> set[str]:
    return {entry.label for row in rows for entry in row.entries if isinstance(entry, Box)}


def _doubt_flagged(row: Row, classes: Mapping[str, str]) -> Row:
    """Add a fault if a row has no box, and says yes in a column with the name of a class."""
    if row.entries or not (found := sorted(row.flags & classes.keys())):
        return row
    reason = f"line {row.line}: has no box, and says yes in the column of {classes[found[0]]!r}"
    return row._replace(entries=(Fault(reason),))


def _choose_rows(file: Path, rows: Sequence[Row], split: str) -> set[int]:
    """Return the positions of the rows of a split; of all if the table does not name splits."""
    names = list(map(_name_split, rows))
    if not any(names):
        return set(range(len(rows)))
    wanted = _SPLITS.get(fold_name(split), split)
    chosen = {position for position, name in enumerate(names) if name == wanted}
    if not chosen:
        there = ", ".join(sorted({name for name in names if name}))
        raise MissingSplitError(f"{file}: has no rows of the split {split!r}; it has {there}.")
    return chosen


def _name_split(row: Row) -> str | None:
    """Return the split of a row, `""` if it names none, None if it names something else."""
    return _SPLITS.get(fold_name(row.split))


def _find_contradictions(rows: Sequence[Row]) -> Iterator[Fault]:
    """Yield faults if the rows of one image do not agree on what it is."""
    if len({row.size for row in rows} - {(None, None)}) > 1:
        yield Fault("its rows name several sizes", "unread")
    if len({row.patient for row in rows} - {""}) > 1:
        yield Fault("its rows name several patients", "unread")


def _find_suspicions(path: Path, broken: Iterable[Row]) -> Iterator[Fault]:
    """Yield faults where an image's name is in a row that may be several, run together."""
    for row in broken:
        if fold_name(path.stem) in fold_name(row.broken):
            yield Fault(f"line {row.line}: names this image, and may be several rows", "unread")


def _add_image(
    collector: Collector,
    path: Path,
    file: Path,
    rows: Sequence[Row],
    faults: Sequence[Fault],
    exif: Exif,
) -> None:
    """Add an image with what its rows and their faults say."""
    size = next((row.size for row in rows if row.size != (None, None)), (None, None))
    entries: list[Box | Fault] = [entry for row in rows for entry in row.entries]
    if any(row.relative for row in rows) and collector.contains(path):
        entries = _scale(path, entries, exif)
    else:
        entries = flag_relative(entries, size)
    unsure = [row.line for row in rows if row.unannotated]
    if unsure and entries:
        reason = f"line {unsure[0]}: says that the image is not annotated, and it has boxes"
        faults = [*faults, Fault(reason, "unread")]
    collector.add(
        path,
        None if unsure and not (entries or faults) else [*entries, *faults],
        file=file,
        size=size,
        patient=next((row.patient for row in rows if row.patient), ""),
        hounsfield=rows[0].hounsfield,
    )


def _scale(path: Path, entries: Sequence[Box | Fault], exif: Exif) -> list[Box | Fault]:
    """Return entries with relative boxes in pixels."""
    try:
        return list(scale_boxes(entries, read_size(path, exif))) if entries else []
    except VAEAugError as error:
        return [Fault(f"its size cannot be read ({describe_fault(path, error)})", "unread")]


def _report_missing(collector: Collector, rows: Sequence[Row]) -> None:
    """Report rows whose image is missing, and doubt all images if one has no name to go by."""
    for name in dict.fromkeys(row.names[0] for row in rows if row.names):
        collector.report(name, "the table names this image, the file is missing or not unique")
    lost = [row.line for row in rows if row.broken or (row.entries and not row.names)]
    if lost:
        collector.doubt(
            f"{len(lost)} rows of the table (the first is line {lost[0]}) name no image that can "
            "be told, so their boxes may be those of any image"
        )
