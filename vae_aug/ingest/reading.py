"""What a data set says, as it goes into records: read, and completed by what its files say."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from vae_aug.config import Pseudonyms
from vae_aug.errors import VAEAugError
from vae_aug.ingest.dicom.image import read_header
from vae_aug.ingest.dicom.values import Window
from vae_aug.ingest.formats.all_splits import count_unread
from vae_aug.ingest.formats.detect import detect_format
from vae_aug.ingest.formats.source import Annotations, Problem, ReaderOptions
from vae_aug.ingest.formats.unread import read_with_doubts
from vae_aug.ingest.items import DicomFrame
from vae_aug.ingest.pseudonyms import open_table
from vae_aug.ingest.series import find_series_ranges
from vae_aug.ingest.settings import IngestSettings
from vae_aug.ingest.splits import describe_patients
from vae_aug.ingest.stacks import add_neighbours
from vae_aug.words import plural

_IGNORED = "looks like an annotation and is not of the format that was found; it was not read"


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set that was read; `evidence_files` are relative to it."""

    path: Path
    format: str
    evidence: str
    evidence_files: tuple[str, ...]
    annotations: Annotations


def read_source(path: Path, split: str, settings: IngestSettings) -> Source:
    """Read the annotations of a split, or of `"all"`.

    Args:
        path: Folder of the data set, its annotation file, or a pattern.
        split: Which split.
        settings: How it is read.

    Returns:
        What was read.

    Raises:
        AnnotationError: If it cannot be read.
    """
    format, options = settings.format, settings.reader_options
    evidence, link, file = "as told", ", reading", ""
    ignored: tuple[Problem, ...] = ()
    if format == "auto":
        detected = detect_format(path)
        format, evidence, file = detected[:3]
        link = " in" if file else ""
        ignored = tuple(Problem(name, _IGNORED, "skipped") for name in detected.ignored)
    names = [problem.file for problem in ignored]
    is_told = evidence == "as told"
    annotations, read = read_with_doubts(format, path, split, options, names, is_told=is_told)
    root = path if path.is_dir() else path.parent
    files = tuple(relate_path(name, root) for name in read) or (file,) * bool(file)
    annotations = annotations._replace(problems=(*ignored, *annotations.problems))
    if settings.distance is not None:
        images = tuple(add_neighbours(annotations.images, settings.distance))
        annotations = annotations._replace(images=images)
    evidence = f"{evidence}{link}" if files else evidence
    return Source(path, format, evidence, files, annotations)


def name_patients(source: Source) -> Source:
    """Name the patients of DICOM files of which the annotations name none: records name them."""
    images = tuple(
        dataclasses.replace(image, patient=_find_patient(image.path))
        if isinstance(image.item, DicomFrame) and not image.patient
        else image
        for image in source.annotations.images
    )
    return dataclasses.replace(source, annotations=source.annotations._replace(images=images))


def _find_patient(path: Path) -> str:
    with contextlib.suppress(VAEAugError):  # Converting the image tells what is wrong.
        return read_header(path).patient_id
    return ""


def note_sharing(source: Source, split: str, options: ReaderOptions) -> Source:
    """Note of images that are to be shared out whether others were left, and who has no patient."""
    notes = [describe_patients(source.annotations.images)]
    notes.append(
        _describe_unread(
            count_unread(source.format, source.path, split, options, source.annotations)
        )
    )
    notes = [*source.annotations.notes, *filter(None, notes)]
    annotations = source.annotations._replace(notes=tuple(notes))
    return dataclasses.replace(source, annotations=annotations)


def _describe_unread(unread: Mapping[str, int | None]) -> str:
    """Name the splits that were left unread, and how to read them too; `""` if there are none."""
    if not unread:
        return ""
    counts = (
        f"{name} ({'cannot be read' if count is None else plural(count, 'image')})"
        for name, count in unread.items()
    )
    way_out = "--split all shares out all of its images"
    if None in unread.values():
        way_out = "correct or remove what cannot be read, then " + way_out
    return f"the source also has {' and '.join(counts)}, left unread; {way_out}"


def make_comparable(source: Source, window: Window) -> Source:
    """Give DICOM images the range of their series, where they would not compare otherwise."""
    images = source.annotations.images
    frames = (image.path for image in images if isinstance(image.item, DicomFrame))
    ranges = find_series_ranges(dict.fromkeys(frames), window)
    images = tuple(
        dataclasses.replace(image, item=dataclasses.replace(image.item, value_range=found))
        if isinstance(image.item, DicomFrame) and (found := ranges.get(str(image.path)))
        else image
        for image in images
    )
    return dataclasses.replace(source, annotations=source.annotations._replace(images=images))


def find_hashed(
    source: str | os.PathLike[str],
    hashes: Iterable[str],
    *,
    format: str = "auto",
    split: str = "train",
    images: str | os.PathLike[str] | None = None,
    axis: str = "axial",
    salt: str | None = None,
    pseudonyms: Pseudonyms = "hashes",
) -> dict[str, str]:
    """Find what the pseudonyms in records and reports of `ingest` stand for.

    Args:
        source: As `ingest`.
        hashes: Pseudonyms of files, source ids or patients.
        format: As `ingest`.
        split: As `ingest`.
        images: As `ingest`.
        axis: As `ingest`.
        salt: That of the ingest.
        pseudonyms: As `ingest`.

    Returns:
        Pseudonym to the file relative to the source, source id or patient; without those that are
        of nothing in the source.

    Raises:
        ValueError: On a bad argument.
        AnnotationError: If the source cannot be read.
        VAEAugError: If there is no table of pseudonyms.
    """
    if pseudonyms == "random":
        open_table(make=False)  # What there is no table of cannot be found.
    settings = IngestSettings(
        format=format, images=images, axis=axis, salt=salt, pseudonyms=pseudonyms
    )
    found = read_source(Path(source), split, settings)
    table = settings.conversion.pseudonyms
    hide = table.find if table else settings.conversion.hide  # A table draws none for a look.
    root = found.path if found.path.is_dir() else found.path.parent
    annotated = found.annotations.images
    files = [problem.file for problem in found.annotations.problems]
    files += [*found.evidence_files, *(relate_path(image.path, root) for image in annotated)]
    names = {hide("source", name): name for name in files}
    for image in annotated:
        # The file is worth more than the SOP Instance UID of an image in it.
        name = relate_path(image.path, root)
        name = f"{name}, {image.item.place}".removesuffix(", ")
        names[hide("source", image.source_id)] = name
        names[hide("patient", image.patient)] = image.patient
    return {value: names[value] for value in hashes if value in names}


def relate_path(path: Path, root: Path) -> str:
    """Return a path relative to a folder, with forward slashes."""
    return Path(os.path.relpath(path, root)).as_posix()
