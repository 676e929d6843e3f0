"""Share the images of COCO files out by hospital, so that a detector is tested on another's.

    .venv/bin/python benchmarks/by_hospital.py LGG/train.json LGG/val.json --out sites

The hospital is what a pattern finds in the patient's name, e.g. the second part of TCGA's
barcodes, the "tissue source site". For each file and hospital there is a COCO file
`<hospital>-<file>.json` whose images are named by their absolute paths.

Reference: https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode/, for the barcodes.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from vae_aug.data.annotations.layout import FileFinder
from vae_aug.data.atomic import write_atomic

TCGA = r"TCGA[-_](\w\w)[-_]"


def split_by_hospital(coco: dict[str, Any], folder: Path, pattern: str) -> dict[str, Any]:
    """Return a COCO file for each hospital.

    Args:
        coco: The content of a file whose images name a `"patient"`.
        folder: Where it lies, with the images in it or in `images`.
        pattern: Regular expression, whose first group in a patient's name is the hospital.

    Raises:
        ValueError: If a patient's name does not have it.
    """
    sites: dict[str, list[dict[str, Any]]] = {}
    for image in coco["images"]:
        match = re.search(pattern, image["patient"])
        if match is None:
            raise ValueError(f"image {image['id']}: its patient does not have {pattern!r}.")
        name = image["file_name"]
        path = FileFinder((folder, folder / "images")).find(name) or folder / "images" / name
        sites.setdefault(match[1], []).append({**image, "file_name": str(path.resolve())})
    return {site: _keep(coco, images) for site, images in sites.items()}


def _keep(coco: dict[str, Any], images: list[dict[str, Any]]) -> dict[str, Any]:
    ids = {image["id"] for image in images}
    marks = [mark for mark in coco["annotations"] if mark["image_id"] in ids]
    return {**coco, "images": images, "annotations": marks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="COCO files with patients")
    parser.add_argument("--pattern", default=TCGA, help="of the hospital in a patient's name")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for file in arguments.files:
        parts = split_by_hospital(json.loads(file.read_text()), file.parent, arguments.pattern)
        for site, part in parts.items():
            path = arguments.out / f"{site}-{file.stem}.json"
            write_atomic(path, json.dumps(part).encode())
            patients = len({image["patient"] for image in part["images"]})
            print(
                f"{path}: {len(part['images'])} images, {patients} patients, "
                f"{len(part['annotations'])} boxes"
            )


if __name__ == "__main__":
    main()
