"""Annotated images of any supported format, into records."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vae_aug.data.annotations import READERS
from vae_aug.data.annotations.detect import detect_format
from vae_aug.data.annotations.source import (
    AnnotatedImage,
    Annotations,
    Effect,
    Problem,
    clean_boxes,
    describe_fault,
)
from vae_aug.data.atomic import write_atomic
from vae_aug.data.boxes import convert_boxes
from vae_aug.data.dicom import Window, check_window, is_dicom, read_dicom
from vae_aug.data.images import EncodedImage, encode_image, read_encoded
from vae_aug.data.privacy import hash_identifier, read_salt
from vae_aug.data.records import get_split_name, make_example, read_info, write_records
from vae_aug.errors import AnnotationError, VAEAugError


@dataclasses.dataclass(frozen=True)
class IngestReport:
    """What an ingest took and what it left out.

    Attributes:
        split: Name of the split in the records.
        format: Format of the source.
        evidence: What told the format: a file relative to the source, or that it was given.
        images: Images written.
        boxes: Boxes written.
        class_counts: Boxes written per label name, in the order of the labels.
        patients: Distinct patients among the images, 0 if the source names none.
        duplicates: Boxes written that equal an earlier one of their image and label. They are
            kept, because the source has them; a large number calls for a look at it.
        problems: What was skipped, dropped or clipped, with files relative to the source.
    """

    split: str
    format: str
    evidence: str
    images: int
    boxes: int
    class_counts: Mapping[str, int]
    patients: int
    duplicates: int
    problems: tuple[Problem, ...]

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Files left out, as (file, reason)."""
        return tuple((p.file, p.reason) for p in self.problems if p.effect == "skipped")

    @property
    def dropped(self) -> int:
        """Boxes left out."""
        return sum(problem.effect == "dropped" for problem in self.problems)

    @property
    def clipped(self) -> int:
        """Boxes cut to the image."""
        return sum(problem.effect == "clipped" for problem in self.problems)

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON takes it."""
        return {
            **dataclasses.asdict(self),
            "class_counts": dict(self.class_counts),
            "skipped": len(self.skipped),
            "dropped": self.dropped,
            "clipped": self.clipped,
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
        }


def ingest(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: str = "auto",
    split: str = "train",
    shards: int = 1,
    labels: Sequence[str] | None = None,
    strict: bool = False,
    window: Window | None = None,
    bits: int | None = None,
    salt: str | None = None,
    keep_ids: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> IngestReport:
    """Write one split of a data set as records.

    Nothing appears under its final name before it is whole; an interrupt (Ctrl-C) leaves the
    folder as it was. A split that is there already is replaced.

    Records carry `image/source_id` and `image/patient` as salted hashes, and so does the
    report `ingest_<split>.json` in `out`: names of medical files are often names of patients.
    The report returned names the files.

    Args:
        source: Folder of the data set, or its annotation file, as the format's reader in
            `vae_aug.data.annotations` takes it.
        out: Folder of the records; made if missing.
        format: `"coco"`, `"voc"`, `"yolo"`, `"csv"`, `"labelme"`, `"cvat"`, `"masks"`,
            `"dicom"`, `"images"` (without annotations), or `"auto"`, which tells it from the
            files as `vae_aug.data.annotations.detect.detect_format`.
        split: Split to read, where the source has splits, and its name in the records, where
            `"val"` and `"valid"` become `"validation"`.
        shards: Number of files.
        labels: Names of the labels in their order; boxes of other labels are dropped. None
            takes those of the folder `out` if they cover the source's, else the source's.
        strict: Raise at the first problem instead of leaving the file or box out.
        window: For DICOM images, as `read_dicom`.
        bits: For DICOM images, as `read_dicom`.
        salt: For the hashes, as `vae_aug.data.privacy.read_salt`.
        keep_ids: Keep the source's own names and patients, for public data.
        progress: Called with (images done, images in all) after each image.

    Returns:
        The report.

    Raises:
        ValueError: On a bad argument.
        AnnotationError: If the source cannot be read, holds no usable image, has labels that
            the folder does not know, or, under `strict`, has any problem.
        RecordError: If the records cannot be written.
    """
    if format not in (*READERS, "auto"):
        raise ValueError(f"format must be auto or one of {', '.join(READERS)}; got {format!r}.")
    name = get_split_name(split)
    window = check_window("auto" if window is None else window)
    if bits not in (None, 8, 16):
        raise ValueError(f"bits must be 8, 16 or None; got {bits!r}.")
    if not 1 <= shards <= 99999:
        raise ValueError(f"shards must be in [1, 99999]; got {shards!r}.")
    hide = _make_hasher(salt, keep_ids)
    source = Path(source)
    format, evidence = detect_format(source) if format == "auto" else (format, "as told")
    annotations = READERS[format](source, split)
    label_names = _choose_labels(annotations, Path(out), name, labels)
    run = _Run(source, annotations, label_names, hide, window, bits, strict, progress)
    info = write_records(run.iterate_examples(), out, name, shards, label_names=label_names)
    report = IngestReport(
        split=name,
        format=format,
        evidence=evidence,
        images=info.examples,
        boxes=info.boxes,
        class_counts=info.class_counts,
        patients=len(run.patients),
        duplicates=run.duplicates,
        problems=tuple(run.problems),
    )
    hidden = [dataclasses.replace(p, file=hide("source", p.file)) for p in report.problems]
    # The evidence names a file.
    shown = evidence if keep_ids else ""
    written = dataclasses.replace(report, problems=tuple(hidden), evidence=shown).to_dict()
    content = json.dumps(written, indent=2).encode() + b"\n"
    write_atomic(Path(out) / f"ingest_{name}.json", content)
    return report


def _make_hasher(salt: str | None, keep_ids: bool) -> Callable[[str, str], str]:
    if keep_ids:
        return lambda kind, identifier: identifier
    secret = read_salt(salt)
    return lambda kind, identifier: hash_identifier(kind, identifier, secret)


def _choose_labels(
    annotations: Annotations, out: Path, split: str, labels: Sequence[str] | None
) -> tuple[str, ...]:
    """Decide on the labels and their order."""
    if labels is not None:
        return tuple(labels)
    if not (out / "dataset.json").is_file():
        return annotations.label_names
    former = read_info(out)
    if not set(former.splits) - {split}:
        return annotations.label_names
    unknown = [label for label in annotations.label_names if label not in former.label_names]
    if unknown:
        raise AnnotationError(
            f"{out}: its labels are {list(former.label_names)}, the source has also {unknown}. "
            "Write to another folder, or pass labels= to drop or to declare them."
        )
    return former.label_names


class _Run:
    """One pass over the images of a source."""

    def __init__(
        self,
        source: Path,
        annotations: Annotations,
        label_names: tuple[str, ...],
        hide: Callable[[str, str], str],
        window: Window,
        bits: int | None,
        strict: bool,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._root = source if source.is_dir() else source.parent
        self._images = annotations.images
        self._label_names = label_names
        self._hide = hide
        self._window = window
        self._bits = bits
        self._strict = strict
        self._progress = progress
        self.problems: list[Problem] = []
        self.patients: set[str] = set()
        self.duplicates = 0
        for problem in annotations.problems:
            self._add(problem)

    def iterate_examples(self) -> Iterator[tf.train.Example]:
        """Yield a record for each usable image."""
        count = 0
        for done, item in enumerate(self._images, start=1):
            example = self._make_example(item)
            if example is not None:
                count += 1
                yield example
            if self._progress is not None:
                self._progress(done, len(self._images))
        if not count:
            reasons = "; ".join(f"{p.file}: {p.reason}" for p in self.problems[:3])
            raise AnnotationError(f"the source holds no usable image. {reasons}".rstrip())

    def _report(self, item: AnnotatedImage, reason: str, effect: Effect) -> None:
        file = Path(os.path.relpath(item.path, self._root)).as_posix()
        self._add(Problem(file, reason, effect))

    def _add(self, problem: Problem) -> None:
        if self._strict:
            raise AnnotationError(
                f"{problem.file}: {problem.reason}. Correct it, or run without strict to have "
                f"it {problem.effect}."
            )
        self.problems.append(problem)

    def _make_example(self, item: AnnotatedImage) -> tf.train.Example | None:
        try:
            image, patient = self._load(item)
        except VAEAugError as error:
            self._report(item, describe_fault(item.path, error), "skipped")
            return None
        size = (item.height or image.height, item.width or image.width)
        if size != (image.height, image.width):
            reason = (
                f"the annotation is for {size[0]} x {size[1]} pixels (height x width), the image "
                f"has {image.height} x {image.width}"
            )
            self._report(item, reason, "skipped")
            return None
        boxes, kept = self._clean(item, image)
        labels = [self._label_names.index(item.labels[i]) for i in kept]
        rows = [(label, *box) for label, box in zip(labels, boxes.tolist(), strict=True)]
        self.duplicates += sum(n - 1 for n in collections.Counter(rows).values())
        if patient:
            self.patients.add(patient)
        return make_example(
            image,
            source_id=self._hide("source", item.source_id),
            boxes=convert_boxes(boxes, "xyxy", "rel_yxyx", height=image.height, width=image.width),
            labels=labels,
            label_names=self._label_names,
            patient=self._hide("patient", patient),
            is_crowd=[item.is_crowd[i] for i in kept],
            difficult=[item.difficult[i] for i in kept],
            truncated=[item.truncated[i] for i in kept],
        )

    def _load(self, item: AnnotatedImage) -> tuple[EncodedImage, str]:
        if not is_dicom(item.path):
            return read_encoded(item.path), item.patient
        dicom = read_dicom(item.path, self._window, bits=self._bits)
        return encode_image(dicom.pixels), item.patient or dicom.patient_id

    def _clean(self, item: AnnotatedImage, image: EncodedImage) -> tuple[np.ndarray, list[int]]:
        """Return the usable boxes `[M, 4]` and their indices."""
        boxes, usable, faults = clean_boxes(item.boxes, image.height, image.width)
        kept = []
        for index, label in enumerate(item.labels):
            where = f"box {index} ({label})"
            if label not in self._label_names:
                reason = f"{where}: the label is not in the list {list(self._label_names)}"
                self._report(item, reason, "dropped")
                continue
            if usable[index]:
                kept.append(index)
            if faults[index]:
                corners = ", ".join(f"{value:g}" for value in item.boxes[index])
                reason = f"{where}: {faults[index]}, ({corners}) in {image.height} x {image.width}"
                effect: Effect = "clipped" if usable[index] else "dropped"
                self._report(item, reason, effect)
        return boxes[kept], kept
