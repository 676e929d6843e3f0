"""Random sources of every format, mutated as tools, users and disks mutate them."""

CORPORA = {
    "coco": "coco",
    "voc": "voc",
    "yolo": "yolo",
    "csv": "csv_table",
    "labelme": "labelme",
    "cvat": "cvat",
    "via": "via",
    "supervisely": "supervisely",
    "lidc": "lidc",
    "masks": "masks",
    "dicom": "dicom_folder",
    "nifti": "nifti",
    "records": "tfrecords",
    "images": "images",
}
"""Format to its module of this package, whose `make` writes a source, damaged or not."""
