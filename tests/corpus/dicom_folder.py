"""Random folders of DICOM files with VOC files, segmentations and structure sets, mutated.

The key of an image is its path; where its file has several frames, that, `#` and the frame from 0.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    SegmentationStorage,
)

Box = tuple[str, tuple[float, float, float, float]]
Truth = dict[str, list[Box]]

HEIGHT, WIDTH = 12, 16
NAMES = ("nodule", "Läsion", "7")
ROOT = "1.2.826.0.1.3680043.8.498.9"


def make(rng: random.Random, folder: Path) -> Truth:
    """Write one source; see the module for the keys of what is returned."""
    truth: Truth = {}
    images = []
    for index in range(rng.randint(1, 4)):
        uid = f"{ROOT}.{index}"
        frames = 2 if rng.random() < 0.15 else 1
        path = folder / _name_image(rng, index, uid)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_image(path, uid, frames, index)
        name = path.relative_to(folder).as_posix()
        keys = [name] if frames == 1 else [f"{name}#{frame}" for frame in range(frames)]
        truth |= {key: [] for key in keys}
        images.append((path, uid, keys))
    for path, uid, keys in images:
        if rng.random() < 0.5:
            boxes = [_make_box(rng) for _ in range(rng.randint(0, 2))]
            _write_xml(rng, folder, path, uid, boxes)
            # With several frames it names none of them, so that any may be meant.
            for key in keys:
                truth[key] += boxes
    if rng.random() < 0.5:
        _write_segmentation(rng, folder / "seg.dcm", images, truth)
    if rng.random() < 0.1:
        _write_structures(folder / "rt.dcm")
    if rng.random() < 0.1:
        _damage(rng, rng.choice(sorted(p for p in folder.rglob("*") if p.is_file())))
    return truth


def _name_image(rng: random.Random, index: int, uid: str) -> str:
    names = (f"{index}.dcm", f"IM{index:04}", f"{uid}.dcm", uid, f"s/{index}.DCM", f"{index}.dicom")
    return rng.choice(names)


def _make_box(rng: random.Random) -> Box:
    left, top = rng.randint(0, WIDTH - 6), rng.randint(0, HEIGHT - 6)
    right, bottom = left + rng.randint(2, 5), top + rng.randint(2, 5)
    return rng.choice(NAMES), (float(left), float(top), float(right), float(bottom))


def _start(kind: str, uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, uid
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.PatientID = kind, uid, "P"
    dataset.StudyInstanceUID = f"{ROOT}.1000"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelRepresentation = 0
    return dataset


def _write_image(path: Path, uid: str, frames: int, value: int) -> None:
    dataset = _start(CTImageStorage, uid)
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = HEIGHT, WIDTH, 16
    dataset.BitsStored, dataset.HighBit = 12, 11
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PixelData = np.full((frames, HEIGHT, WIDTH), value, np.uint16).tobytes()
    dataset.save_as(path, enforce_file_format=True)


def _write_xml(rng: random.Random, folder: Path, image: Path, uid: str, boxes: list[Box]) -> None:
    encoding = rng.choice(("utf-8", "utf-16", "latin-1"))
    objects = "".join(
        f"<object><name>{rng.choice(('', ' '))}{name}</name><bndbox>"
        + "".join(
            f"<{side}>{value:g}</{side}>"
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox></object>"
        for name, box in boxes
    )
    filename = rng.choice((image.name, f"{uid}.png", "stale.dcm", ""))
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?>\n<annotation><filename>{filename}</filename>'
        f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>{objects}</annotation>"
    )
    # What tells the image is the UID, or the name of its file.
    stem = rng.choice((uid, image.name, image.stem if image.suffix else image.name))
    if image.suffix.lower() not in (".dcm", ".dicom"):
        stem = rng.choice((uid, image.name))
    path = rng.choice((folder / "annotations", image.parent)) / f"{stem}.xml"
    path.parent.mkdir(exist_ok=True)
    data = text.encode(encoding)
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data))]
    path.write_bytes(data)


def _write_segmentation(
    rng: random.Random, path: Path, images: list[tuple[Path, str, list[str]]], truth: Truth
) -> None:
    """Write a segmentation of some images, now and then of one that is not there."""
    dataset = _start(SegmentationStorage, f"{ROOT}.2000")
    masks, groups = [], []
    for _, uid, keys in rng.sample(images, rng.randint(1, len(images))):
        frame = rng.randrange(len(keys))
        name, box = _make_box(rng)
        left, top, right, bottom = map(int, box)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[top:bottom, left:right] = 1
        masks.append(mask)
        missing = rng.random() < 0.15
        groups.append(_make_group(f"{ROOT}.3000" if missing else uid, frame, NAMES.index(name) + 1))
        if not missing:
            truth[keys[frame]].append((name, box))
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = HEIGHT, WIDTH, 8
    dataset.BitsStored, dataset.HighBit = 8, 7
    dataset.SegmentationType, dataset.MaximumFractionalValue = "FRACTIONAL", 1
    dataset.NumberOfFrames = len(masks)
    dataset.PixelData = np.stack(masks).tobytes()
    dataset.SegmentSequence = []
    for number, name in enumerate(NAMES, start=1):
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel = number, name
        dataset.SegmentSequence.append(segment)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PerFrameFunctionalGroupsSequence = groups
    if rng.random() < 0.1:
        del groups[-1].DerivationImageSequence
    dataset.save_as(path, enforce_file_format=True)


def _make_group(uid: str, frame: int, segment: int) -> Dataset:
    source, derivation, identification, group = Dataset(), Dataset(), Dataset(), Dataset()
    source.ReferencedSOPInstanceUID = uid
    source.ReferencedFrameNumber = frame + 1
    derivation.SourceImageSequence = [source]
    identification.ReferencedSegmentNumber = segment
    group.DerivationImageSequence = [derivation]
    group.SegmentIdentificationSequence = [identification]
    return group


def _write_structures(path: Path) -> None:
    dataset = _start(RTStructureSetStorage, f"{ROOT}.4000")
    dataset.Modality = "RTSTRUCT"
    dataset.save_as(path, enforce_file_format=True)


def _damage(rng: random.Random, path: Path) -> None:
    """Cut off or flip a bit; of an object that marks images only so that its kind is still told."""
    data = bytearray(path.read_bytes())
    is_object = path.name in ("seg.dcm", "rt.dcm")
    if is_object or rng.random() < 0.5:
        del data[rng.randrange(len(data) * 3 // 5 if is_object else 0, len(data)) :]
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
