"""The description of augmented records in Croissant, with its vocabulary for responsible AI.

What a run cannot know is left out, unless `about.json` beside the records says it: who collected
the source's images, and under which licence. The specification asks for `license`, `url`, `creator`
and `datePublished`.

Reference:
    Croissant Format Specification 1.0 and Croissant RAI Specification 1.0, MLCommons, 2024,
    http://mlcommons.org/croissant/1.0 and http://mlcommons.org/croissant/RAI/1.0
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_aug.words import plural

_TFRECORD = "https://www.tensorflow.org/tutorials/load_data/tfrecord"
"""What Croissant takes for a kind of file without a media type: the address of a description."""

_KINDS = {".json": "application/json", ".pbtxt": "text/plain"}

_AT_ONCE = 1 << 20
"""Bytes of a file that are read at once."""

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

_OF_BOTH = {
    "modality": "measurementTechnique",
    "collection": "rai:dataCollection",
    "annotation": "rai:dataAnnotationProtocol",
}
_OF_SOURCE = {
    "name": "name",
    "url": "url",
    "date_published": "datePublished",
    "license": "license",
    "citation": "citeAs",
}
"""Terms for what `about.json` says, of the source and what is made from it, or of the source."""

Feature = tuple[str, str, bool, str]
"""Its name, its type, whether a record has a list of them, and what it is."""

_HOW: tuple[Feature, ...] = (
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


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a command lays out its records.

    Attributes:
        command: The command.
        replay: What makes a record again, as a clause.
        shards: Pattern of the names of the files with records.
        encoding: Their media type, or the address of a description.
        features: What a record has beside `augment/*`.
        untouched: Which `augment/*` the records of splits have that were not augmented, as a
            clause.
        unchanged: How images are stored that were not changed, as a clause.
        identifiers: The features with identifiers of the source.
    """

    command: str
    replay: str
    shards: str
    encoding: str
    features: tuple[Feature, ...]
    untouched: str
    unchanged: str
    identifiers: str


RECORDS = Layout(
    command="vae-aug augment",
    replay="`vae-aug replay` makes a record again and compares its bytes",
    shards="*.tfrecord",
    encoding=_TFRECORD,
    features=(
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
        ("image/object/class/label", "sc:Integer", True, "Number of each box's label, from 1."),
    ),
    untouched="splits that were copied have no augment/*",
    unchanged="all others have the bytes of the source",
    identifiers="image/source_id, image/patient and image/filename",
)
"""Records as `vae_aug.extras.augment_records` writes them."""


def make_tfds_layout(suffix: str) -> Layout:
    """Describe the layout of a data set that TFDS builds.

    Args:
        suffix: TFDS's suffix of its files, e.g. `"tfrecord"`.

    Returns:
        The layout.
    """
    return Layout(
        command="tfds build med_vae_augmented",
        replay="`vae_aug.extras.replay.restore_transform` makes the pixels again",
        shards=f"*.{suffix}*",  # TFDS puts the number of a Parquet file before the suffix
        encoding=_TFRECORD if suffix == "tfrecord" else "application/octet-stream",
        features=(
            ("image", "sc:ImageObject", False, "PNG."),
            ("image/id", "sc:Text", False, "Identifier of the image in the source."),
            (
                "objects/bbox",
                "sc:Float",
                True,
                "Four numbers a box: upper, left, lower and right edge, 0 to 1.",
            ),
            ("objects/label", "sc:Integer", True, "Number of each box's label, from 0."),
        ),
        untouched='in splits that were not augmented, augment/mode is "none"',
        unchanged="all others are PNG with the pixels of the source",
        identifiers="image/id",
    )


MEASURED = {
    "split": ("sc:Text", "cr:Split"),
    "patients": "sc:Integer",
    "seen_patients": "sc:Integer",
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
    folder: Path,
    layout: Layout,
    measured: Mapping[str, Mapping[str, Any]],
    made: Mapping[str, Any],
    about: Mapping[str, str],
) -> dict[str, Any]:
    """Describe a folder of augmented records, all of whose files are read for it.

    Args:
        folder: The folder, on this machine or in an object store.
        layout: How the records lie in it.
        measured: For each split, the values of `MEASURED`; None where nothing was measured.
        made: How it was made, as `make_provenance` tells.
        about: What the source's owner says, see `vae_aug.records.about`.

    Returns:
        JSON-LD, which names files by their names alone.

    Raises:
        OSError: If a file cannot be read.
    """
    kinds = {path: _find_kind(path, layout) for path in sorted(folder.iterdir())}
    files = [_describe_file(path, kind) for path, kind in kinds.items() if kind]
    shards = {
        "@type": "cr:FileSet",
        "@id": "shards",
        "name": "shards",
        "description": "Files of tf.train.Example.",
        "encodingFormat": layout.encoding,
        "includes": layout.shards,
    }
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [f"{_CROISSANT}1.0", f"{_RAI}1.0"],
        "name": "augmented-records",
        **_state_origin(about),
        "description": (
            f"Images with boxes, written by `{layout.command}`. Images of some splits were varied "
            "or denoised by a variational autoencoder; boxes are the source's."
        ),
        **_make_rai(layout, measured, made, about),
        "distribution": [*files, shards],
        "recordSet": [_make_examples(layout), _make_splits(measured)],
    }


def _state_origin(about: Mapping[str, str]) -> dict[str, Any]:
    """Say in the words of schema.org and Croissant what the source's owner says.

    Name, page, makers, date, licence and citation are those of the source, and not of what was made
    from it: whoever publishes that states its own.
    """
    if not about:
        return {}
    source: dict[str, Any] = {term: about[key] for key, term in _OF_SOURCE.items() if key in about}
    own = {term: about[key] for key, term in _OF_BOTH.items() if key in about}
    source |= own
    kinds = {"person": "sc:Person", "organization": "sc:Organization"}
    makers = [{"@type": kind, "name": about[key]} for key, kind in kinds.items() if key in about]
    if makers:
        source["creator"] = makers
    return {**own, "isBasedOn": {"@type": "sc:Dataset", **source}}


def _find_kind(path: Path, layout: Layout) -> str | None:
    """Find the media type of a file that belongs to the records."""
    return layout.encoding if path.match(layout.shards) else _KINDS.get(path.suffix)


def _describe_file(path: Path, kind: str) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:  # of an object store, it may have no more than `read`
        while chunk := file.read(_AT_ONCE):
            digest.update(chunk)
            size += len(chunk)
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{size} B",
        "encodingFormat": kind,
        "sha256": digest.hexdigest(),
    }


def _make_examples(layout: Layout) -> dict[str, Any]:
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
        for name, kind, is_list, text in (*layout.features, *_HOW)
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "examples",
        "name": "examples",
        "description": f"One record an image; {layout.untouched}.",
        "field": fields,
    }


def _make_splits(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Tell what was counted and measured of each split."""
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": (
            "Counts and measurements of each split. Seen patients are those whom the checkpoint "
            "was trained on, as far as hashes tell; null if it is not known. The fidelity of a "
            "box compares its content "
            "as written, after the guard, with the source: 1 if it is preserved, or if there was "
            "nothing to lose, since the box did not stand out in the source; null if nothing was "
            "judged."
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


def _make_rai(
    layout: Layout,
    measured: Mapping[str, Mapping[str, Any]],
    made: Mapping[str, Any],
    about: Mapping[str, str],
) -> dict[str, Any]:
    """Tell in the vocabulary for responsible AI what the run knows of its records."""
    judged = [values for values in measured.values() if values["guarded_share"] is not None]
    unjudged = sum(values["boxes"] - values["judged_boxes"] for values in judged)
    return {
        "rai:dataManipulationProtocol": (
            f"vae_aug {made['version']} passed images through the checkpoint with the digest "
            f"{made['checkpoint']} (as `vae-aug info` prints it) under these settings: "
            f"{made['settings']}. How many images of each split it chose stands in the record set "
            "`splits`; the guard may have left some of these as they were. Boxes and labels are "
            "unchanged."
        ),
        "rai:dataPreprocessingProtocol": [
            "Images that were changed are PNG with the size, bit depth and channels of the source; "
            f"{layout.unchanged}."
        ],
        "rai:dataLimitations": [
            "Changed images are variants of images of the source: they add no patient and no "
            "annotation.",
            "Grey values of changed images are not calibrated: CT is no longer in Hounsfield "
            "units, and values may lie beyond those of the source.",
            "A network may add structures that the patient does not have, and remove others; "
            "outside of boxes nothing was judged.",
            f"In augmented splits {plural(unjudged, 'box')} could not be judged.",
            *([f"As stated of the source: {about['caveats']}"] if "caveats" in about else []),
        ],
        "rai:personalSensitiveInformation": [
            "Images of patients, changed or not, are not anonymous.",
            f"{layout.identifiers}: as in the source, where vae-aug ingest without --keep-ids "
            "writes pseudonyms.",
        ],
        "rai:dataUseCases": [
            "Training of detectors, for each of which a gain has yet to be shown. A detector is "
            "measured on splits of which no image was changed. Not for diagnosis, nor for "
            "measuring grey values."
        ],
    }
