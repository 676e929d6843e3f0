"""The sheet of an ingest: a few images with their boxes, to see whether these lie on lesions."""

from __future__ import annotations

import collections
import dataclasses
import os
from pathlib import Path

import tensorflow as tf

from vae_aug.figures.drawing import make_legible
from vae_aug.figures.sheet import Panel, write_sheet
from vae_aug.records.records import parse_example
from vae_aug.records.shards import read_info
from vae_aug.records.tfrecord import get_values
from vae_aug.words import plural

_IMAGES, _COLUMNS = 8, 4


@dataclasses.dataclass(frozen=True)
class _Shown:
    """An image with boxes that the sheet may show."""

    record: bytes
    labels: frozenset[bytes]
    patient: str


class SheetImages:
    """At most eight images with boxes, of as many labels and patients as may be."""

    def __init__(self) -> None:
        """Begin without any."""
        self._shown: list[_Shown] = []

    @property
    def records(self) -> list[bytes]:
        """The images chosen so far, serialized `tf.train.Example`."""
        return [one.record for one in self._shown]

    def offer(self, example: tf.train.Example, patient: str) -> None:
        """Take an image if it has boxes, and drop the one that shows most of what others show.

        That is one whose rarest label is there most often; of those, one whose patient is there
        most often; of those, the last.

        Args:
            example: A record.
            patient: Its patient, `""` if unknown.
        """
        labels = frozenset(get_values(example, "image/object/class/text", "bytes_list"))
        if not labels:
            return
        self._shown.append(_Shown(example.SerializeToString(), labels, patient))
        if len(self._shown) <= _IMAGES:
            return
        by_label = collections.Counter(label for one in self._shown for label in one.labels)
        by_patient = collections.Counter(one.patient for one in self._shown if one.patient)

        def count_alike(place: int) -> tuple[int, int, int]:
            one = self._shown[place]
            return min(by_label[label] for label in one.labels), by_patient[one.patient], place

        del self._shown[max(range(len(self._shown)), key=count_alike)]


def write_ingest_sheet(
    out: str | os.PathLike[str], split: str, images: SheetImages, described: str
) -> None:
    """Write `ingest_<split>.png`, or remove that of an earlier ingest if no image has boxes.

    Images are numbered: not even hashes of files and patients are shown.

    Args:
        out: Folder of the records.
        split: Name of the split.
        images: What to show.
        described: How many images and boxes the split has, and what they were read as.
    """
    path = Path(out) / f"ingest_{split}.png"
    path.unlink(missing_ok=True)
    if not images.records:
        return
    info = read_info(out)
    panels = []
    for number, record in enumerate(images.records, start=1):
        element = parse_example(record, info.dtype, info.channels)
        names = [info.label_names[label] for label in element["objects"]["label"].numpy()]
        image, boxes = element["image"].numpy(), element["objects"]["bbox"].numpy()
        panels.append(
            Panel(image, str(number), _describe(image.shape, names), boxes, names, compared=False)
        )
    rows = [panels[start : start + _COLUMNS] for start in range(0, len(panels), _COLUMNS)]
    shown = "Shown is" if len(panels) == 1 else "Shown are"
    caption = (
        f"Split {split}: {described}. {shown} {plural(len(panels), 'image')} with boxes, of as "
        "many labels and patients as there is room for. Do the boxes lie on what they name?"
    )
    write_sheet(path, rows, caption, label_names=info.label_names)


def _describe(shape: tuple[int, ...], names: list[str]) -> str:
    """Say how large an image is and how many boxes of each label it has."""
    counts = collections.Counter(make_legible(name, "others") for name in names)
    listed = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"{shape[1]} x {shape[0]} pixels, {listed}"
