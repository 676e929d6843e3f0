"""What an ingest took and what it left out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from vae_aug.codecs.extent import Extent
from vae_aug.ingest.formats.source import Problem
from vae_aug.ingest.splits import Leak

_HASH = re.compile(r"[0-9a-f]{16}")
"""A hash as `hash_identifier` makes it."""


@dataclasses.dataclass(frozen=True)
class IngestReport:
    """What an ingest took and what it left out.

    Attributes:
        split: Name of the split in the records.
        format: Format of the source.
        evidence: What told the format, or that it was given, and a file of it that was read.
        images: Images written for detectors: those with boxes, and those of which the source says
            that they have none.
        boxes: Boxes written.
        unannotated: Images of which the source says nothing.
        faulty: Images of which the source says something that was not understood.
        unannotated_written: Of both, those written to shards of their own.
        turned: Images that were turned as their EXIF orientation says.
        class_counts: Boxes written per label name, in the order of the labels.
        patients: Distinct patients among the images, 0 if the source names none.
        duplicates: Boxes written that equal an earlier one of their image and label. They are
            kept, because the source has them; a large number calls for a look at it.
        box_sizes_px: `"width"` and `"height"` to least, lower quartile, median, upper quartile
            and largest of the boxes written; empty without boxes.
        scanners: Images written by manufacturer and modality, `""` for no DICOM file.
        intensities: The same keys to the mean share of pixels in each of 16 equal ranges of
            grey, from black to white.
        burned_in: Images whose file says that the pixels may identify the patient
            ((0028,0301) Burned In Annotation).
        extent: What the images written that have 16 bits fill of their range.
        neighbours: Slices before and behind the images written, by state of
            `vae_aug.ingest.formats.source.Neighbour`; empty where none are channels.
        problems: What was skipped, not understood, dropped or clipped, and which images are
            unannotated. Files are named by the hash of their path
            relative to the source; under `keep_ids` by that path.
        notes: What else to know of the source.
        resumed: Images that a run of the same command had converted before it was cut short.
            All other counts are those of the whole split.
        restarted: Whether a run that was cut short had other images or settings, so that what it
            left was removed.
        replaced: Images of a former split of this name, which are gone.
        leaks: What this split shares with the folder's others; None if it was not searched for,
            since there are none or `leak_check` was off. Not written: it changes with them.
        files: Those hashes to the paths. Not written: files and folders are often called after
            patients. `find_hashed` finds them again.
    """

    split: str
    format: str
    evidence: str
    images: int
    boxes: int
    unannotated: int
    faulty: int
    unannotated_written: int
    turned: int
    class_counts: Mapping[str, int]
    patients: int
    duplicates: int
    box_sizes_px: Mapping[str, tuple[float, ...]]
    scanners: Mapping[str, int]
    intensities: Mapping[str, tuple[float, ...]]
    extent: Extent
    burned_in: int
    neighbours: Mapping[str, int]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    resumed: int = dataclasses.field(default=0, compare=False)
    restarted: bool = dataclasses.field(default=False, compare=False)
    replaced: int = dataclasses.field(default=0, compare=False)
    leaks: tuple[Leak, ...] | None = dataclasses.field(default=None, compare=False)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def reveal(self, text: str) -> str:
        """Put the paths of files in the place of their hashes, for the eyes of whoever has them."""
        return _HASH.sub(lambda match: self.files.get(match[0], match[0]), text)

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Files left out, as (path relative to the source, reason)."""
        return tuple(
            (self.reveal(p.file), p.reason) for p in self.problems if p.effect == "skipped"
        )

    @property
    def dropped(self) -> int:
        """Boxes left out."""
        return sum(problem.effect == "dropped" for problem in self.problems)

    @property
    def clipped(self) -> int:
        """Boxes cut to the image."""
        return sum(problem.effect == "clipped" for problem in self.problems)

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON takes it: what depends on the source and the settings alone."""
        content = dataclasses.asdict(self)
        for name in ("resumed", "restarted", "replaced", "leaks", "files"):
            del content[name]
        return {
            **content,
            "class_counts": dict(self.class_counts),
            "neighbours": dict(self.neighbours),
            "skipped": len(self.skipped),
            "dropped": self.dropped,
            "clipped": self.clipped,
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
        }
