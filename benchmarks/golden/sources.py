"""Small sources of images with boxes, made of NumPy's seeded generators and nothing of vae_aug."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

LABELS = ("lesion", "stone")
ROOT_UID = "1.2.826.0.1.3680043.8.498.7"

_ORIENTATION = 0x0112
_TURNED = 6  # EXIF: shown after a quarter turn clockwise


def make_image(index: int, height: int, width: int, channels: int = 1) -> np.ndarray:
    """Make a body with two bright spots and noise, `[H, W, C] float64` in [0, 1]."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    body = 0.45 * ((y - 0.5) ** 2 + (x - 0.5) ** 2 < 0.2)
    spots = sum(
        0.4 * np.exp(-((y - top) ** 2 + (x - left) ** 2) / 0.004)
        for top, left in rng.uniform(0.3, 0.7, (2, 2))
    )
    image = (body + spots)[..., None] * rng.uniform(0.8, 1.0, channels)
    return np.clip(image + rng.normal(0.05, 0.02, image.shape), 0, 1)


def make_boxes(index: int) -> np.ndarray:
    """Make the boxes of `make_image`'s spots, `[2, 4] float32`, `rel_yxyx`."""
    centers = np.random.default_rng(index).uniform(0.3, 0.7, (2, 2))
    return np.concatenate([centers - 0.12, centers + 0.12], axis=1).astype(np.float32)


def to_integers(image: np.ndarray, dtype: type[np.unsignedinteger]) -> np.ndarray:
    """Spread [0, 1] over the range of an integer dtype."""
    return np.rint(image * np.iinfo(dtype).max).astype(dtype)


def write_pictures(folder: Path) -> dict[str, np.ndarray]:
    """Write pictures of every kind that is read, 8 of them; return names and pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, tuple[int, type[np.unsignedinteger]]] = {
        "a.png": (1, np.uint8),
        "b.png": (1, np.uint16),
        "c.png": (3, np.uint8),
        "d.jpg": (1, np.uint8),
        "e.jpg": (3, np.uint8),
        "f.png": (1, np.uint8),
        "g.tif": (1, np.uint16),
        "h.jpg": (1, np.uint8),
    }
    pictures = {}
    for index, (name, (channels, dtype)) in enumerate(kinds.items()):
        pixels = to_integers(make_image(index, 44 + 4 * (index % 3), 52, channels), dtype)
        pictures[name] = pixels
        if name == "h.jpg":
            exif = Image.Exif()
            exif[_ORIENTATION] = _TURNED
            Image.fromarray(pixels[..., 0]).save(folder / name, exif=exif, quality=95)
        else:
            cv2.imwrite(str(folder / name), pixels)
    return pictures


def write_coco(folder: Path, *, faults: bool = True) -> None:
    """Write `write_pictures` as COCO of three patients, with a negative and an unlisted image.

    Args:
        folder: Made if missing.
        faults: Whether there are a box without area, one partly outside of its image and one twice.
    """
    pictures = write_pictures(folder / "images")
    unlisted = to_integers(make_image(8, 40, 40), np.uint8)
    cv2.imwrite(str(folder / "images" / "unlisted.png"), unlisted)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, (name, pixels) in enumerate(pictures.items()):
        height, width = pixels.shape[:2]
        size = {"height": width, "width": height} if name == "h.jpg" else {}
        size = size or {"height": height, "width": width}
        patient = f"patient {index % 3}"
        images.append({"id": index, "file_name": f"images/{name}", "patient": patient, **size})
        boxes = [] if name == "f.png" else _to_pixels(make_boxes(index), height, width)
        if faults and name == "a.png":
            boxes += [[5.0, 5.0, 0.0, 3.0]]
        if faults and name == "d.jpg":
            boxes += [boxes[0]]
        if faults and name == "c.png":
            boxes += [[width - 6.0, 4.0, 12.0, 8.0]]
        for number, box in enumerate(boxes):
            entry = {"id": len(annotations), "image_id": index, "bbox": box, "iscrowd": 0}
            annotations.append({**entry, "category_id": 1 + number % 2, "area": box[2] * box[3]})
    categories = [{"id": number, "name": name} for number, name in enumerate(LABELS, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "train.json").write_text(json.dumps(content, indent=1))


def _to_pixels(boxes: np.ndarray, height: int, width: int) -> list[list[float]]:
    """Turn `rel_yxyx` into whole pixels, `xywh`."""
    pixels = np.rint(boxes * [height, width, height, width])
    top, left, bottom, right = pixels.T
    return np.stack([left, top, right - left, bottom - top], axis=1).tolist()


def write_series(folder: Path, count: int = 5) -> None:
    """Write a CT series with a gap before its last slice, and a VOC file for the second slice."""
    folder.mkdir(parents=True)
    for index in range(count):
        uid = f"{ROOT_UID}.{index}"
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, uid
        dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, uid
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{ROOT_UID}.8", f"{ROOT_UID}.9"
        dataset.PatientID, dataset.Modality, dataset.Manufacturer = "P", "CT", "GOLDEN"
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows, dataset.Columns, dataset.PixelRepresentation = 40, 48, 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
        dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 5
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [0, 0, 5 * (index + (index == count - 1))]
        dataset.InstanceNumber = index + 1
        values = 900 + 400 * make_image(20 + index, 40, 48)
        dataset.PixelData = np.rint(values).astype("<u2").tobytes()
        dataset.save_as(folder / f"{index}.dcm", enforce_file_format=True)
    corners = {"xmin": 18, "ymin": 12, "xmax": 30, "ymax": 24}
    sides = "".join(f"<{side}>{value}</{side}>" for side, value in corners.items())
    (folder / "1.xml").write_text(
        "<annotation><filename>1.dcm</filename><size><width>48</width><height>40</height></size>"
        f"<object><name>lesion</name><bndbox>{sides}</bndbox></object></annotation>"
    )
