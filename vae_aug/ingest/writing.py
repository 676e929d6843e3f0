"""The splits of one ingest, as records: what one pass over their images writes and counts."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vae_aug.atomic import lock_folder, remove_temporaries, write_atomic
from vae_aug.codecs.extent import Extent, join_extents
from vae_aug.errors import AnnotationError, RecordError
from vae_aug.ingest.blocks import convert_in_blocks, list_blocks, make_key
from vae_aug.ingest.convert import HISTOGRAM_BINS, Conversion, Converted
from vae_aug.ingest.formats.source import (
    AnnotatedImage,
    Annotations,
    AnnotationState,
    Effect,
    Problem,
)
from vae_aug.ingest.picture import SheetImages, write_ingest_sheet
from vae_aug.ingest.reading import Source, relate_path
from vae_aug.ingest.report import IngestReport
from vae_aug.ingest.settings import IngestSettings
from vae_aug.ingest.splits import find_leaks
from vae_aug.records.records import write_split
from vae_aug.records.shards import INFO_FILE, list_parts, read_info
from vae_aug.words import plural

_UNANNOTATED_REASONS = {
    "none": "the source does not say whether the image has boxes",
    "faulty": "the image's annotation was not understood as a whole",
}
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


class Job(NamedTuple):
    """Where records are written, how, and who is told.

    Attributes:
        out: Folder of the records.
        settings: How.
        progress: Called with (images done, images in all) after each image.
    """

    out: Path
    settings: IngestSettings
    progress: Callable[[int, int], None] | None


def write_splits(
    source: Source,
    job: Job,
    conversion: Conversion,
    splits: Mapping[str, Sequence[AnnotatedImage]],
) -> tuple[IngestReport, ...]:
    """Write the splits; what is wrong with the source as a whole is told of the first."""
    try:
        job.out.mkdir(parents=True, exist_ok=True)
        with lock_folder(job.out):
            reports = _write_locked(source, job, conversion, splits)
            return _search_leaks(reports, job) if job.settings.leak_check else reports
    except OSError as error:
        raise RecordError(
            f"{job.out}: cannot be written ({error.strerror}); free space or fix permissions."
        ) from error


def refuse_replacing(job: Job, works: Mapping[str, _Work | None]) -> None:
    """Refuse to replace splits, but those that a run which was cut short had written before.

    Args:
        job: Where records are written, and whether splits may be replaced.
        works: The names of the splits to what is known of them; None before the source was read,
            when any unfinished run of that name may be the one that goes on.

    Raises:
        RecordError: If a split is there.
    """
    out = job.out
    if job.settings.overwrite:
        return
    there = {
        name: _count_images(out, name)
        for name, work in works.items()
        if not (work.folder.is_dir() if work else any(out.glob(f".ingest_{name}.*")))
    }
    if counts := [f"{name} ({plural(count, 'image')})" for name, count in there.items() if count]:
        raise RecordError(
            f"{out}: has {', '.join(counts)} already; nothing was changed. If this is "
            "the same command again, its work is done. To write anew what is there, add "
            "--overwrite (overwrite=True); to keep it, name another folder or --split."
        )


def _count_images(out: Path, name: str) -> int:
    """Count the images of a split in a folder of records, annotated or not."""
    if not (out / INFO_FILE).is_file():
        return 0
    parts = read_info(out).parts
    return sum(parts[part].examples for part in list_parts(name) if part in parts)


def _search_leaks(reports: tuple[IngestReport, ...], job: Job) -> tuple[IngestReport, ...]:
    """Put into the reports what their splits share with others of the folder."""
    written = [report.split for report in reports]
    if len(read_info(job.out).image_splits) < 2:
        return reports
    try:
        leaks = find_leaks(job.out, among=written, progress=job.progress)
    except RecordError as error:
        raise RecordError(
            f"{', '.join(written)} is written; the search for patients and images that are in two "
            f"splits failed: {error}"
        ) from error
    return tuple(
        dataclasses.replace(
            report, leaks=tuple(leak for leak in leaks if report.split in leak.splits)
        )
        for report in reports
    )


def _write_locked(
    source: Source,
    job: Job,
    conversion: Conversion,
    splits: Mapping[str, Sequence[AnnotatedImage]],
) -> tuple[IngestReport, ...]:
    works = [_Work(job.out, name, images, conversion) for name, images in splits.items()]
    refuse_replacing(job, {work.name: work for work in works})
    restarted = [work.remove_others() for work in works]
    problems = [source.annotations.problems, *[()] * len(works)]
    try:
        reports = tuple(
            dataclasses.replace(_write_split(source, job, conversion, work, wrong), restarted=r)
            for work, wrong, r in zip(works, problems, restarted, strict=False)
        )
    except AnnotationError:
        # The source is at fault; corrected, it would not fit what was converted of it.
        for work in works:
            work.remove()
        raise
    # Only now, so that a run killed in the last split need not convert the first again.
    for work in works:
        work.remove()
    return reports


class _Work:
    """A split to be written, and the folder that keeps its converted images until then."""

    def __init__(
        self, out: Path, name: str, images: Sequence[AnnotatedImage], conversion: Conversion
    ) -> None:
        self.name, self.images = name, images
        self.folder = out / f".ingest_{name}.{make_key(images, conversion)}"
        blocks = list_blocks(images, self.folder)
        self.resumed = sum(len(part) for path, part in blocks.items() if path.is_file())

    def remove_others(self) -> bool:
        """Remove what runs of other images or settings left of this split."""
        pattern = re.compile(rf"\.ingest_{re.escape(self.name)}\.[0-9a-f]{{16}}")
        out = self.folder.parent
        found = (
            [path for path in out.iterdir() if pattern.fullmatch(path.name)] if out.is_dir() else []
        )
        others = [path for path in found if path != self.folder]
        for path in others:
            shutil.rmtree(path)
        return bool(others)

    def remove(self) -> None:
        """Remove the folder."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)


def _write_split(
    source: Source,
    job: Job,
    conversion: Conversion,
    work: _Work,
    problems: Sequence[Problem],
) -> IngestReport:
    run = _Run(source.path, work, problems, job, conversion)
    name = work.name
    replaced = _count_images(job.out, name) if job.settings.overwrite else 0
    annotated, unannotated = write_split(
        run.iterate_examples(),
        job.out,
        name,
        job.settings.shards,
        label_names=conversion.label_names,
    )
    report = IngestReport(
        split=name,
        format=source.format,
        evidence=_describe_evidence(source, conversion),
        images=annotated.examples if annotated else 0,
        boxes=annotated.boxes if annotated else 0,
        unannotated=run.states["none"],
        faulty=run.states["faulty"],
        unannotated_written=unannotated.examples if unannotated else 0,
        turned=run.turned,
        class_counts=annotated.class_counts if annotated else {},
        patients=len(run.patients),
        duplicates=run.duplicates,
        box_sizes_px=run.summarize_sizes(),
        scanners=dict(sorted(run.scanners.items())),
        intensities=run.summarize_intensities(),
        extent=run.extent,
        burned_in=run.burned_in,
        neighbours=dict(sorted(run.neighbours.items())),
        problems=tuple(run.problems),
        notes=source.annotations.notes,
        resumed=work.resumed,
        replaced=replaced,
        files=run.files | _name_evidence(source, conversion),
    )
    content = json.dumps(report.to_dict(), indent=2).encode() + b"\n"
    write_atomic(job.out / f"ingest_{name}.json", content)
    source_line = (
        f"{plural(report.images, 'image')} and {plural(report.boxes, 'box')}, "
        f"read as {report.format}"
    )
    write_ingest_sheet(job.out, name, run.shown, source_line)
    for file in ("dataset.json", "label_map.pbtxt", f"ingest_{name}.json", f"ingest_{name}.png"):
        remove_temporaries(job.out / file)
    return report


def _describe_evidence(source: Source, conversion: Conversion) -> str:
    files = (conversion.hide("source", file) for file in source.evidence_files)
    return " ".join(filter(None, (source.evidence, ", ".join(files))))


def _name_evidence(source: Source, conversion: Conversion) -> dict[str, str]:
    return {conversion.hide("source", file): file for file in source.evidence_files}


def choose_labels(
    annotations: Annotations, out: Path, splits: set[str], labels: Sequence[str] | None
) -> tuple[str, ...]:
    """Decide on the labels and their order."""
    if labels is not None:
        if annotations.label_names and not set(labels) & set(annotations.label_names):
            raise AnnotationError(
                f"labels: none of {list(labels)} is a label of the source, which has "
                f"{list(annotations.label_names)}."
            )
        return tuple(labels)
    if not (out / "dataset.json").is_file():
        return annotations.label_names
    former = read_info(out)
    if not set(former.splits) - splits:
        return annotations.label_names
    unknown = [label for label in annotations.label_names if label not in former.label_names]
    if unknown:
        raise AnnotationError(
            f"{out}: its labels are {list(former.label_names)}, the source has also {unknown}. "
            "Write to another folder, or pass labels= to drop or to declare them."
        )
    return former.label_names


class _Run:
    """One pass over the images of a split, and what it counts."""

    def __init__(
        self,
        source: Path,
        work: _Work,
        problems: Sequence[Problem],
        job: Job,
        conversion: Conversion,
    ) -> None:
        self._root = source if source.is_dir() else source.parent
        self._work = work
        self._job = job
        self._conversion = conversion
        self._sizes: list[np.ndarray] = []
        self._levels: dict[str, np.ndarray] = {}
        self.problems: list[Problem] = []
        self.files: dict[str, str] = {}
        self.patients: set[str] = set()
        self.scanners: collections.Counter[str] = collections.Counter()
        self.neighbours: collections.Counter[str] = collections.Counter()
        self.states: collections.Counter[AnnotationState] = collections.Counter()
        self.duplicates = self.burned_in = self.turned = 0
        self.extent = Extent()
        self.shown = SheetImages()
        for problem in problems:
            self._report(problem.file, problem.reason, problem.effect)

    def iterate_examples(self) -> Iterator[tuple[tf.train.Example, bool]]:
        """Yield a record for each usable image, and whether it is annotated."""
        images = self._work.images
        converted = convert_in_blocks(
            images, self._conversion, self._work.folder, self._job.settings.workers_or_runner
        )
        for done, (image, result) in enumerate(zip(images, converted, strict=True), start=1):
            file = relate_path(image.path, self._root)
            for reason, effect in result.problems:
                self._report(file, image.item.locate(reason), effect)
            if result.record is not None and self._keeps(image, result):
                example = tf.train.Example.FromString(result.record)
                self.shown.offer(example, result.patient)
                yield example, result.annotation == "complete"
            if self._job.progress is not None:
                self._job.progress(done, len(images))
        if not self.scanners and self.states:
            raise AnnotationError(
                f"none of the {plural(self.states.total(), 'image')} is annotated; nothing was "
                "written. Leave out --unannotated skip to keep them for the training of an "
                "autoencoder."
            )
        if not self.scanners:
            reasons = "; ".join(f"{self.files[p.file]}: {p.reason}" for p in self.problems[:3])
            raise AnnotationError(f"the source holds no usable image. {reasons}".rstrip())

    def _keeps(self, image: AnnotatedImage, result: Converted) -> bool:
        """Count a converted image and tell whether it is written."""
        self.states[result.annotation] += 1
        self.turned += result.turned
        if result.annotation != "complete":
            self._report_unannotated(image, result.annotation)
            if self._job.settings.what_of_unannotated == "skip":
                return False
        self._count(result)
        return True

    def _report_unannotated(self, image: AnnotatedImage, annotation: AnnotationState) -> None:
        file = relate_path(image.path, self._root)
        reason = image.item.locate(_UNANNOTATED_REASONS[annotation])
        if self._job.settings.strict and annotation == "faulty":
            self._report(file, reason, "unannotated")
        if self._job.settings.what_of_unannotated == "error":
            raise AnnotationError(
                f"{file}: {reason}. Correct the source, or pass --unannotated keep, skip, or "
                "negative if no such image has a box."
            )
        self._note(file, reason, "unannotated")

    def _report(self, file: str, reason: str, effect: Effect) -> None:
        if self._job.settings.strict:
            raise AnnotationError(
                f"{file}: {reason}. Correct it, or run without strict to have it {effect}."
            )
        self._note(file, reason, effect)

    def _note(self, file: str, reason: str, effect: Effect) -> None:
        hidden = self._conversion.hide("source", file)
        self.files[hidden] = file
        self.problems.append(Problem(hidden, reason, effect))

    def _count(self, result: Converted) -> None:
        self.patients |= {result.patient} - {""}
        self.duplicates += result.duplicates
        self.burned_in += result.burned_in
        self.extent = join_extents((self.extent, result.extent))
        self.scanners[result.scanner] += 1
        self.neighbours.update(result.neighbours)
        self._sizes.append(result.box_sizes_px)
        levels = self._levels.setdefault(result.scanner, np.zeros(HISTOGRAM_BINS))
        levels += result.histogram

    def summarize_sizes(self) -> dict[str, tuple[float, ...]]:
        """Return the quantiles of the widths and heights of the boxes."""
        sizes = np.concatenate([np.zeros((0, 2)), *self._sizes])
        if not len(sizes):
            return {}
        widths, heights = np.quantile(sizes, _QUANTILES, axis=0).T.round(3).tolist()
        return {"width": tuple(widths), "height": tuple(heights)}

    def summarize_intensities(self) -> dict[str, tuple[float, ...]]:
        """Return the mean histogram of each scanner."""
        return {
            scanner: tuple((self._levels[scanner] / count).round(5).tolist())
            for scanner, count in sorted(self.scanners.items())
        }
