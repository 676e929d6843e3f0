"""Cards of augmented records: `croissant.json` for programs and `card.md` for people.

Both tell what a run did and measured, and what the owner of the source says in `about.json`. Of
their own they name no patient, image, folder, user or date, so two runs that write the same records
write the same cards.

Reference:
    Zamzmi et al., Scorecard for synthetic medical data evaluation, Communications Engineering 4,
    130 (2025), doi:10.1038/s44172-025-00450-1, by the Office of Science and Engineering
    Laboratories (OSEL) of the Food and Drug Administration (FDA)
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vae_aug.augment.transform import VAEAugment
from vae_aug.extras.augment_split import SplitReport, make_provenance
from vae_aug.extras.croissant import MEASURED, Layout, make_croissant
from vae_aug.extras.patients import PatientCounts
from vae_aug.words import make_markdown_row, make_markdown_table

CROISSANT_FILE, CARD_FILE = "croissant.json", "card.md"

_CARD = """# Augmented records

Written by version {version} of `{command}` with the checkpoint
`{checkpoint}` (its digest as `vae-aug info` prints it)
and the settings `{settings}`.
Augmented images are those that the transform chose; the guard may have left some as they were.
Seen patients are those of the split whom the checkpoint was trained on, by their hashes; empty if
it is not known, as for records that were ingested with another salt.
`croissant.json` beside this file tells the same to programs, with a digest of each file.

{splits}

## Origin and licence

{about}

## Scorecard

The seven criteria are those of the FDA's OSEL (Zamzmi et al., Scorecard for synthetic medical data
evaluation, Communications Engineering 4, 130, 2025, doi:10.1038/s44172-025-00450-1). The command
alone filled this card; no regulator has seen it.

| criterion | this run |
| --- | --- |
{criteria}
"""

_CRITERIA = {
    "congruence": "Fidelity of boxes to the source, after the guard: {fidelity}. One that did not "
    "stand out there counts as preserved. How whole images are distributed beside those of "
    "patients: not measured by this command.",
    "coverage": "No patient and no lesion is added. Patients and images of each split stand above. "
    "Spread of samples: not measured by this "
    "command; run `vae-aug evaluate diversity`.",
    "constraint": "Boxes, {boxes} in all, and their labels are the source's. Grey values of "
    "changed images are not calibrated: CT is no longer in Hounsfield units, and values may lie "
    "beyond those of the source. Anatomy outside of boxes: not measured by this command; look at "
    "samples by `vae-aug preview`.",
    "completeness": "Damaged images of the source that are lost: {lost}. Every record of an "
    "augmented split tells how it was made. Whether images, classes and patients suffice for a "
    "task, and whether a detector gains: not measured by this command.",
    "compliance": "Variants of patients' images are not anonymous. Signs of memorised training "
    "images: not measured by this command; run `vae-aug evaluate audit` and `membership`.",
    "comprehension": "Settings and checkpoint stand above and in each record; `vae-aug info` "
    "prints the checkpoint's card with its limits.",
    "consistency": "Seed {seed}: {replay}. "
    "Boxes by mode and strength: not measured by this command; run `vae-aug evaluate fidelity`. "
    "Scanners and groups of patients: not measured by this command.",
}
"""The criteria, and what is known of each."""


def make_cards(
    folder: Path,
    layout: Layout,
    reports: Mapping[str, SplitReport],
    augmented: Collection[str],
    patients: Mapping[str, PatientCounts],
    augment: VAEAugment,
    about: Mapping[str, str],
) -> dict[str, str]:
    """Make the cards of a folder of augmented records, all of whose files are read for it.

    Args:
        folder: The folder, whole but for the cards.
        layout: How the records lie in it.
        reports: What each split has.
        augmented: The splits that were augmented.
        patients: Of the splits whose patients are known.
        augment: The transform.
        about: What the source's owner says, see `vae_aug.records.about`.

    Returns:
        Names of files, and what they shall hold.

    Raises:
        OSError: If a file cannot be read.
    """
    made = make_provenance(augment)
    measured = {
        name: _list_measured(name, report, name in augmented, patients.get(name))
        for name, report in reports.items()
    }
    croissant = make_croissant(folder, layout, measured, made, about)
    text = json.dumps(croissant, indent=2, ensure_ascii=False, allow_nan=False)
    return {
        CROISSANT_FILE: f"{text}\n",
        CARD_FILE: _make_card(layout, measured, reports, made, about),
    }


def _list_measured(
    name: str, report: SplitReport, is_augmented: bool, patients: PatientCounts | None
) -> dict[str, Any]:
    """Return the values of `MEASURED` for a split; None where nothing was measured."""
    if not is_augmented:
        report = SplitReport(report.images, boxes=report.boxes, lost=report.lost)
    values = (
        name,
        *((None, None) if patients is None else (patients.patients, patients.seen)),
        *(report.images, report.augmented, report.lost),
        *(report.boxes, report.judged, report.guarded),
        report.guarded / report.boxes if is_augmented and report.boxes else None,
        *(_round(report.lowest_fidelity), _round(report.median_fidelity)),
    )
    return dict(zip(MEASURED, values, strict=True))


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _make_card(
    layout: Layout,
    measured: Mapping[str, Mapping[str, Any]],
    reports: Mapping[str, SplitReport],
    made: Mapping[str, Any],
    about: Mapping[str, str],
) -> str:
    """Make the scorecard."""
    names = [name.replace("_", " ") for name in MEASURED]
    rows = [[_show(value) for value in values.values()] for values in measured.values()]
    values = {
        **made,
        "command": layout.command,
        "replay": layout.replay,
        "splits": make_markdown_table(names, rows),
        "about": _tell_origin(about),
        "fidelity": _tell_fidelity(measured, reports),
        "boxes": sum(part["boxes"] for part in measured.values()),
        "lost": sum(part["lost_images"] for part in measured.values()),
    }
    criteria = [(name, text.format_map(values)) for name, text in _CRITERIA.items()]
    return _CARD.format_map({**values, "criteria": "\n".join(map(make_markdown_row, criteria))})


def _tell_origin(about: Mapping[str, str]) -> str:
    """Repeat what the source's owner says, and say what nobody has said."""
    told = ["Nobody has stated where the images come from."]
    if about:
        rows = ((key.replace("_", " "), text.replace("|", r"\|")) for key, text in about.items())
        table = make_markdown_table(("", "stated"), rows)
        told = [
            "As stated in the file `about.json` of the source, which nobody has checked:",
            table,
        ]
    if "license" not in about:
        told.append(
            "**No licence is stated.** Ask whoever collected the images before they are used or "
            "passed on."
        )
    return "\n\n".join(told)


def _tell_fidelity(
    measured: Mapping[str, Mapping[str, Any]], reports: Mapping[str, SplitReport]
) -> str:
    """Tell of each split with boxes that were judged how well they were preserved."""
    told = [
        f"{name}: median {part['median_fidelity']:.3f}, lowest {part['lowest_fidelity']:.3f}, "
        f"{part['judged_boxes']} of {part['boxes']} boxes judged, the guard acted for "
        f"{part['guarded_boxes']} ({100 * part['guarded_share']:.1f}%)"
        + (", so most boxes of augmented images hardly vary" * reports[name].is_mostly_guarded)
        for name, part in measured.items()
        if part["judged_boxes"]
    ]
    return "; ".join(told) or "no box was judged"


def _show(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
