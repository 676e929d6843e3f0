"""Annotated images as the formats of annotation tools, DICOM and TFRecords describe them.

Every reader resolves the layout of its format and yields the same thing: images with boxes in
pixels, as written in the file. Coordinates are taken as continuous and never shifted: Pascal
VOC's habit of counting pixels from 1 is not undone, because most tools that write VOC files do
not follow it. A box over a whole image of 640 x 480 is `(0, 0, 640, 480)` in every format.

Every image is annotated as a whole, or faulty, or the source says nothing of it
(`AnnotatedImage.annotation`). Only the first kind may become a negative.

The rules for boxes are one for all formats (`clean_boxes`): a box that reaches out of its image
is clipped; one outside of it, inverted, without area, with coordinates that are no numbers, or
of an unknown or missing label is dropped, and makes its image faulty; one that is there twice is
kept, as the source has it. All are counted in the report of an ingest. An image that is there twice
is taken once.

What is wrong with one image or box is a `Problem` beside the result; what leaves nothing to read
(no such split, malformed JSON), or could only be guessed at, is an `AnnotationError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vae_aug.ingest.formats.coco import read_coco
from vae_aug.ingest.formats.cvat import read_cvat
from vae_aug.ingest.formats.dicom_folder import read_dicom_folder
from vae_aug.ingest.formats.images import read_images
from vae_aug.ingest.formats.labelme import read_labelme
from vae_aug.ingest.formats.lidc import read_lidc
from vae_aug.ingest.formats.masks import read_masks
from vae_aug.ingest.formats.nifti_folder import read_nifti
from vae_aug.ingest.formats.source import Annotations
from vae_aug.ingest.formats.supervisely import read_supervisely
from vae_aug.ingest.formats.tables import read_csv
from vae_aug.ingest.formats.tfds_folder import read_tfds
from vae_aug.ingest.formats.tfrecords import read_tfrecords
from vae_aug.ingest.formats.via import read_via
from vae_aug.ingest.formats.voc import read_voc
from vae_aug.ingest.formats.yolo import read_yolo

READERS: Mapping[str, Callable[..., Annotations]] = {
    "coco": read_coco,
    "voc": read_voc,
    "yolo": read_yolo,
    "csv": read_csv,
    "labelme": read_labelme,
    "cvat": read_cvat,
    "via": read_via,
    "supervisely": read_supervisely,
    "lidc": read_lidc,
    "masks": read_masks,
    "dicom": read_dicom_folder,
    "nifti": read_nifti,
    "records": read_tfrecords,
    "tfds": read_tfds,
    "images": read_images,
}
