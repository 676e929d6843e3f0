"""Sections `ingest` and `real`: every format into records, by the command line."""

from __future__ import annotations

import functools
import importlib
import importlib.resources
import json
import os
import random
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.golden.command import note_command, note_records
from benchmarks.golden.record import Notes, serialize_files
from benchmarks.golden.sources import (
    LABELS,
    make_boxes,
    make_image,
    to_integers,
    write_coco,
    write_series,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from corpus import CORPORA

ROOT = Path(__file__).resolve().parents[2]
Options = tuple[str, ...]
COUNT = 20
"""Sources of each corpus."""

COCO_CASES: Mapping[str, Options] = {
    "plain": (),
    "names kept": ("--keep-ids",),
    "three shards": ("--shards", "3"),
    "labels given": ("--labels", "stone,lesion,other"),
    "one label": ("--labels", "stone"),
    "strict": ("--strict",),
    "keep partial": ("--keep-partial",),
    "exif ignored": ("--exif", "ignore"),
    "by patient": ("--split-by-patient", "0.4,0.3,0.3", "--seed", "1"),
    "two patients' splits": ("--split-by-patient", "0.5,0.5", "--keep-ids"),
    "all splits": ("--split", "all"),
    "no such split": ("--split", "test"),
    "another format": ("--format", "voc"),
    "images alone": ("--format", "images", "--no-leak-check"),
    "two workers": ("--workers", "2"),
    "as JSON": ("--json",),
}
SERIES_CASES: Mapping[str, Options] = {
    "plain": (),
    "neighbours": ("--neighbours", "1"),
    "neighbours in mm": ("--neighbours", "10mm", "--keep-ids"),
    "lung window": ("--window", "lung"),
    "own window, 8 bits": ("--window", "40,400", "--bits", "8"),
    "full window": ("--window", "full"),
}
IMAGES_CASES: Mapping[str, Options] = {
    "unannotated skip": ("--unannotated", "skip"),
    "unannotated negative": ("--unannotated", "negative"),
    "unannotated error": ("--unannotated", "error"),
}
NIFTI_CASES: Mapping[str, Options] = {
    "coronal": ("--axis", "coronal"),
    "sagittal": ("--axis", "sagittal", "--window", "full", "--bits", "8"),
}
COCO_SETS = {
    "kidney_stone_ct": "train.json",
    "lgg_flair": "train.json",
    "ibsi_sts": "train.json",
    "cheng_brain_t1c": "annotations.coco.json",
    "sunnybrook_cine": "annotations.coco.json",
}
"""Real sets to their annotation files; a number of their images is taken."""

WHOLE_SETS: Mapping[str, Options] = {
    "lung_ct_dicom": (),
    "dicom_syntaxes": (),
    "dicom_objects": (),
}
_IMAGES = 24


def note_ingest(notes: Notes, case: str, source: Path, *options: str) -> None:
    """Ingest a source and note all that it gives, and the source, so that a changed one shows."""
    out = Path("out", case)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Protobuf writes the features of an example in another order in every process.
    files = [
        path
        for path in source.rglob("*")
        if path.is_file() and not re.search(r"\.(tf)?record\b", path.name)
    ]
    if files:
        notes.note(f"{case}/source", serialize_files(files, source))
    note_command(notes, case, "ingest", source, out, *options)
    if out.is_dir():
        note_records(notes, case, out)


def note_corpus(notes: Notes, format: str, count: int = COUNT) -> None:
    """Ingest random sources of a format, by turns with the format told and names hidden."""
    corpus = importlib.import_module(f"corpus.{CORPORA[format]}")
    for number in range(count):
        case = f"ingest/{format} {number}"
        source = Path("sources", f"{format} {number}")
        source.mkdir(parents=True)
        corpus.make(random.Random(f"golden {format} {number}"), source)
        told = ("--format", format) if number % 2 else ()
        note_ingest(notes, case, source, *told, *(("--keep-ids",) if number % 4 > 1 else ()))


def note_all_formats(notes: Notes) -> None:
    """Section `ingest`: corpora of every format, options on sources of known content."""
    for format in CORPORA:
        note_corpus(notes, format)
    write_coco(Path("coco"))
    write_series(Path("series"))
    options_of: Mapping[str, tuple[Mapping[str, Options], Path]] = {
        "coco": (COCO_CASES, Path("coco")),
        "a series": (SERIES_CASES, Path("series")),
        "images": (IMAGES_CASES, Path("coco/images")),
        "nifti": (NIFTI_CASES, Path("sources/nifti 1")),
    }
    for name, (cases, source) in options_of.items():
        for case, options in cases.items():
            note_ingest(notes, f"ingest/options of {name}, {case}", source, *options)
    _note_again(notes)
    _note_prepared(notes)
    wheel = importlib.resources.files("pydicom.data") / "test_files"
    with importlib.resources.as_file(wheel) as folder:
        note_ingest(notes, "ingest/pydicom's files", folder, "--format", "dicom", "--keep-ids")


def _note_again(notes: Notes) -> None:
    """Write to a folder that holds records: refused, replaced, and a split with a leak."""
    out = Path("out/ingest/options of coco, plain")
    steps = {"refused": (), "overwritten": ("--overwrite",)}
    for name, options in steps.items():
        note_command(notes, f"ingest/again, {name}", "ingest", "coco", out, *options)
    shutil.copy("coco/train.json", "coco/test.json")
    note_command(notes, "ingest/again, leaking", "ingest", "coco", out, "--split", "test")
    note_records(notes, "ingest/again, leaking", out)


def _note_prepared(notes: Notes) -> None:
    """Ingest a dataset that TFDS wrote."""
    # An extra, which the other formats do without.
    import tensorflow as tf
    import tensorflow_datasets as tfds

    images = [to_integers(make_image(index, 40, 48), "uint8") for index in range(4)]
    objects = {"bbox": [make_boxes(index) for index in range(4)], "label": [[0, 1]] * 4}
    tfds.dataset_builders.store_as_tfds_dataset(
        name="golden",
        version="1.0.0",
        data_dir="prepared",
        split_datasets={
            "train": tf.data.Dataset.from_tensor_slices({"image": images, "objects": objects})
        },
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(40, 48, 1)),
                "objects": tfds.features.Sequence(
                    {
                        "bbox": tfds.features.BBoxFeature(),
                        "label": tfds.features.ClassLabel(names=list(LABELS)),
                    }
                ),
            }
        ),
        disable_shuffling=True,
    )
    source = Path("prepared/golden/1.0.0")
    note_ingest(notes, "ingest/tfds", source)


def find_data() -> Path:
    """Return the folder of real data sets, which need not be there."""
    return Path(os.environ.get("VAE_AUG_DATA") or ROOT.parent / "shared" / "data")


def note_real(notes: Notes) -> None:
    """Section `real`: some images of each real data set, those that are there."""
    data = find_data()
    for name in (*COCO_SETS, *WHOLE_SETS, "bccd"):
        if not (data / name).is_dir():
            notes.absent.append(f"real/{name}")
    absent = [entry.removeprefix("real/") for entry in notes.absent]
    for name, file in COCO_SETS.items():
        if name not in absent:
            _copy_coco(data / name, file, Path(name))
            note_ingest(notes, f"real/{name}", Path(name))
            shares = ("--split-by-patient", "0.7,0.15,0.15")
            note_ingest(notes, f"real/{name}, by patient", Path(name), *shares)
    if "bccd" not in absent:
        _copy_voc(data / "bccd" / "BCCD", Path("bccd"))
        note_ingest(notes, "real/bccd", Path("bccd"), "--keep-ids")
    for name, options in WHOLE_SETS.items():
        if name not in absent:
            note_ingest(notes, f"real/{name}", data / name, *options)
    if "lung_ct_dicom" not in absent:
        options = ("--neighbours", "1", "--window", "lung")
        note_ingest(notes, "real/lung_ct_dicom, neighbours", data / "lung_ct_dicom", *options)


def _copy_coco(source: Path, file: str, target: Path) -> None:
    """Copy evenly spaced images of a COCO set, with their annotations."""
    content = json.loads((source / file).read_bytes())
    chosen = content["images"][:: max(1, len(content["images"]) // _IMAGES)][:_IMAGES]
    keys = {image["id"] for image in chosen}
    kept = [entry for entry in content["annotations"] if entry["image_id"] in keys]
    target.mkdir()
    (target / "train.json").write_text(
        json.dumps({**content, "images": chosen, "annotations": kept})
    )
    find = functools.partial(_find, source)
    for image in chosen:
        path = target / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(find(image["file_name"]), path)


def _find(source: Path, name: str) -> Path:
    return next(path for path in (source / name, source / "images" / name) if path.is_file())


def _copy_voc(source: Path, target: Path) -> None:
    """Copy evenly spaced images of a Pascal VOC set, with their annotations."""
    files = sorted((source / "JPEGImages").glob("*.jpg"))
    for image in files[:: max(1, len(files) // _IMAGES)][:_IMAGES]:
        annotation = source / "Annotations" / f"{image.stem}.xml"
        for path in (image, annotation):
            if path.is_file():
                copy = target / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
