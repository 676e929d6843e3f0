"""The description of augmented records in Croissant, with its vocabulary for responsible AI.

What a run cannot know is left out: who collected the source's images, and under which licence. The
specification asks for `license`, `url`, `creator` and `datePublished`, so whoever publishes the
records adds these.

Reference:
    Croissant Format Specification 1.0 and Croissant RAI Specification 1.0, MLCommons, 2024,
    http://mlcommons.org/croissant/1.0 and http://mlcommons.org/croissant/RAI/1.0
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_aug.words import plural

_TFRECORD = "https://www.tensorflow.org/tutorials/load_data/tfrecord"
"""What Croissant takes for a kind of file without a media type: the address of a description."""

_KINDS = {".json": "application/json", ".pbtxt": "text/plain", ".tfrecord": _TFRECORD}

_CROISSANT, _RAI = "http://mlcommons.org/croissant/", "http://mlcommons.org/croissant/RAI/"
_TERMS = (
    "citeAs column equivalentProperty extract field fileObject fileProperty fileSet format "
    "includes isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated "
    "replace samplingRate separator source subField transform"
)
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": _CROISSANT,
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": _RAI,
    "sc": "https://schema.org/",
    **{term: f"cr:{term}" for term in _TERMS.split()},
}
"""The JSON-LD context that Croissant 1.0 prescribes."""

# Feature, type, whether a record has a list of them, and what it is.
_FEATURES = (
    ("image/source_id", "sc:Text", False, "Identifier of the image in the source."),
    ("image/encoded", "sc:ImageObject", False, "PNG or JPEG."),
    ("image/format", "sc:Text", False, "png or jpeg."),
    ("image/height", "sc:Integer", False, "Pixels."),
    ("image/width", "sc:Integer", False, "Pixels."),
    ("image/object/bbox/ymin", "sc:Float", True, "Upper edge of each box, 0 to 1."),
    ("image/object/bbox/xmin", "sc:Float", True, "Left edge of each box, 0 to 1."),
    ("image/object/bbox/ymax", "sc:Float", True, "Lower edge of each box, 0 to 1."),
    ("image/object/bbox/xmax", "sc:Float", True, "Right edge of each box, 0 to 1."),
    ("image/object/class/text", "sc:Text", True, "Label of each box."),
    ("image/object/class/label", "sc:Integer", True, "Number of the label of each box, from 1."),
    ("augment/augmented", "sc:Integer", False, "1 if the transform chose the image, else 0."),
    ("augment/checkpoint", "sc:Text", False, "Digest of the checkpoint."),
    ("augment/mode", "sc:Text", False, "Mode of the transform."),
    ("augment/factor", "sc:Float", False, "Strength of the transform."),
    ("augment/detail", "sc:Float", False, "Share of what the network cannot represent, kept."),
    ("augment/guard", "sc:Text", False, "What happens where a box's content is harmed."),
    ("augment/min_fidelity", "sc:Float", False, "Fidelity below which the guard acts."),
    ("augment/seed", "sc:Integer", False, "Seed of the transform."),
    ("augment/settings", "sc:Text", False, "All settings as JSON."),
    ("augment/version", "sc:Text", False, "Version of vae_aug."),
    ("augment/fidelity", "sc:Float", True, "Of each box, NaN where it cannot be judged."),
    (
        "augment/contrast",
        "sc:Float",
        True,
        "Of each box: its contrast-to-noise ratio over that in the source.",
    ),
    ("augment/guarded", "sc:Integer", True, "Of each box, 1 if the guard acted for it."),
)

MEASURED = {
    "split": ("sc:Text", "cr:Split"),
    "images": "sc:Integer",
    "augmented_images": "sc:Integer",
    "lost_images": "sc:Integer",
    "boxes": "sc:Integer",
    "judged_boxes": "sc:Integer",
    "guarded_boxes": "sc:Integer",
    "guarded_share": "sc:Float",
    "lowest_fidelity": "sc:Float",
    "median_fidelity": "sc:Float",
}
"""What is told of each split, and its types."""


def make_croissant(
    folder: Path, measured: Mapping[str, Mapping[str, Any]], made: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe a folder of augmented records, all of whose files are read for it.

    Args:
        folder: The folder.
        measured: For each split, the values of `MEASURED`; None where nothing was measured.
        made: How it was made, as `make_provenance` tells.

    Returns:
        JSON-LD, which names files by their names alone.

    Raises:
        OSError: If a file cannot be read.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in _KINDS)
    shards = {
        "@type": "cr:FileSet",
        "@id": "shards",
        "name": "shards",
        "description": "TFRecord files of tf.train.Example.",
        "encodingFormat": _TFRECORD,
        "includes": "*.tfrecord",
    }
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [f"{_CROISSANT}1.0", f"{_RAI}1.0"],
        "name": "augmented-records",
        "description": (
            "Images with boxes in TFRecords of the TF Object Detection API. Images of some splits "
            "were varied or denoised by a variational autoencoder; boxes are the source's."
        ),
        **_make_rai(measured, made),
        "distribution": [*map(_describe_file, files), shards],
        "recordSet": [_make_examples(), _make_splits(measured)],
    }


def _describe_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": _KINDS[path.suffix],
        "sha256": digest,
    }


def _make_examples() -> dict[str, Any]:
    """Describe the features of a record; each is a field whose column is its name."""
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"examples/{name}",
            "name": name,
            "description": text,
            "dataType": kind,
            "source": {"fileSet": {"@id": "shards"}, "extract": {"column": name}},
            **({"repeated": True} if is_list else {}),
        }
        for name, kind, is_list, text in _FEATURES
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "examples",
        "name": "examples",
        "description": "One record an image; splits that were copied have no augment/*.",
        "field": fields,
    }


def _make_splits(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Tell what was counted and measured of each split."""
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": (
            "Counts and measurements of each split. The fidelity of a box compares its content "
            "with the source, 1 if it is preserved; null if nothing was judged."
        ),
        "key": {"@id": "splits/split"},
        "field": [
            {"@type": "cr:Field", "@id": f"splits/{name}", "name": name, "dataType": kind}
            for name, kind in MEASURED.items()
        ],
        "data": [
            {f"splits/{name}": value for name, value in values.items()}
            for values in measured.values()
        ],
    }


def _make_rai(measured: Mapping[str, Mapping[str, Any]], made: Mapping[str, Any]) -> dict[str, Any]:
    """Tell in the vocabulary for responsible AI what the run knows of its records."""
    judged = [values for values in measured.values() if values["guarded_share"] is not None]
    unjudged = sum(values["boxes"] - values["judged_boxes"] for values in judged)
    return {
        "rai:dataManipulationProtocol": (
            f"vae_aug {made['version']} passed images through the checkpoint with the digest "
            f"{made['checkpoint']} under these settings: {made['settings']}. How many images of "
            "each split it changed stands in the record set `splits`; boxes and labels are "
            "unchanged."
        ),
        "rai:dataPreprocessingProtocol": [
            "Images that were changed are PNG with the size, bit depth and channels of the source; "
            "all others have the bytes of the source."
        ],
        "rai:dataLimitations": [
            "Changed images are variants of images of the source: they add no patient and no "
            "annotation.",
            "A network may add structures that the patient does not have, and remove others; "
            "outside of boxes nothing was judged.",
            f"In augmented splits {plural(unjudged, 'box')} could not be judged.",
        ],
        "rai:personalSensitiveInformation": [
            "Images of patients, changed or not, are not anonymous.",
            "image/source_id, image/patient and image/filename are the source's: salted hashes "
            "where vae-aug ingest wrote them without --keep-ids.",
        ],
        "rai:dataUseCases": [
            "Training of detectors. A detector is measured on splits of which no image was "
            "changed. Not for diagnosis."
        ],
    }
