"""Cards of augmented records: `croissant.json` for programs and `card.md` for people.

Both tell what a run did and measured, and nothing else. They name no patient, image, folder, user
or date, so two runs that write the same records write the same cards.

Reference:
    Zamzmi et al., Scorecard for synthetic medical data evaluation, Communications Engineering 4,
    130 (2025), doi:10.1038/s44172-025-00450-1, by the Office of Science and Engineering
    Laboratories (OSEL) of the Food and Drug Administration (FDA)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_aug.atomic import write_atomic
from vae_aug.augment.transform import VAEAugment
from vae_aug.extras.augment_split import SplitReport, make_provenance
from vae_aug.extras.croissant import MEASURED, make_croissant
from vae_aug.records.shards import DatasetInfo, read_info
from vae_aug.words import make_markdown_row

CROISSANT_FILE, CARD_FILE = "croissant.json", "card.md"

_CARD = """# Augmented records

Written by version {version} of `vae-aug augment` with the checkpoint
`{checkpoint}` and the settings `{settings}`.
`croissant.json` beside this file tells the same to programs, with a digest of each file. The
command does not know how the source was collected, nor its licence.

{splits}

## Scorecard

The seven criteria are those of the FDA's OSEL (Zamzmi et al., Scorecard for synthetic medical data
evaluation, Communications Engineering 4, 130, 2025, doi:10.1038/s44172-025-00450-1). The command
alone filled this card; no regulator has seen it.

| criterion | this run |
| --- | --- |
{criteria}
"""

_CRITERIA = {
    "congruence": "Fidelity of boxes to the source: {fidelity}. How whole images are distributed "
    "beside those of patients: not measured by this command.",
    "coverage": "No patient and no lesion is added. Spread of samples: not measured by this "
    "command; run `vae-aug evaluate diversity`.",
    "constraint": "Boxes, {boxes} in all, and their labels are the source's. Anatomy outside of "
    "boxes: not measured by this command; look at samples by `vae-aug preview`.",
    "completeness": "Damaged images of the source that are lost: {lost}. Every record of an "
    "augmented split tells how it was made. Whether images, classes and patients suffice for a "
    "task: not measured by this command.",
    "compliance": "Variants of patients' images are not anonymous. Signs of memorised training "
    "images: not measured by this command; run `vae-aug evaluate audit`.",
    "comprehension": "Settings and checkpoint stand above and in each record; `vae-aug info` "
    "prints the checkpoint's card with its limits.",
    "consistency": "Seed {seed}: `vae-aug replay` makes a record again and compares its bytes. "
    "Boxes by mode and strength: not measured by this command; run `vae-aug evaluate fidelity`. "
    "Scanners and groups of patients: not measured by this command.",
}
"""The criteria, and what is known of each."""


def write_cards(folder: Path, reports: Mapping[str, SplitReport], augment: VAEAugment) -> None:
    """Write the cards of a folder of augmented records, all of whose files are read for it.

    Args:
        folder: The folder, whole but for the cards.
        reports: What became of each split that was augmented.
        augment: The transform.

    Raises:
        RecordError: If the folder has no `dataset.json`.
        OSError: If a file cannot be read or written.
    """
    info, made = read_info(folder), make_provenance(augment)
    measured = _list_measured(info, reports)
    croissant = make_croissant(folder, measured, made)
    text = json.dumps(croissant, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / CROISSANT_FILE, f"{text}\n".encode())
    write_atomic(folder / CARD_FILE, _make_card(measured, made).encode())


def _list_measured(
    info: DatasetInfo, reports: Mapping[str, SplitReport]
) -> dict[str, dict[str, Any]]:
    """Return the values of `MEASURED` for each split; None where nothing was measured."""
    measured = {}
    for name, part in info.parts.items():
        report = reports.get(name) or SplitReport(part.examples, boxes=part.boxes, lost=part.lost)
        values = (
            *(name, report.images, report.augmented, report.lost),
            *(report.boxes, report.judged, report.guarded),
            report.guarded / report.boxes if name in reports and report.boxes else None,
            *(_round(report.lowest_fidelity), _round(report.median_fidelity)),
        )
        measured[name] = dict(zip(MEASURED, values, strict=True))
    return measured


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _make_card(measured: Mapping[str, Mapping[str, Any]], made: Mapping[str, Any]) -> str:
    """Make the scorecard."""
    names = [name.replace("_", " ") for name in MEASURED]
    rows = [[_show(value) for value in values.values()] for values in measured.values()]
    values = {
        **made,
        "splits": "\n".join(map(make_markdown_row, (names, ["---"] * len(names), *rows))),
        "fidelity": _tell_fidelity(measured),
        "boxes": sum(part["boxes"] for part in measured.values()),
        "lost": sum(part["lost_images"] for part in measured.values()),
    }
    criteria = [(name, text.format_map(values)) for name, text in _CRITERIA.items()]
    return _CARD.format_map({**values, "criteria": "\n".join(map(make_markdown_row, criteria))})


def _tell_fidelity(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Tell of each split with boxes that were judged how well they were preserved."""
    told = [
        f"{name}: median {part['median_fidelity']:.3f}, lowest {part['lowest_fidelity']:.3f}, "
        f"{part['judged_boxes']} of {part['boxes']} boxes judged, the guard acted for "
        f"{part['guarded_boxes']} ({100 * part['guarded_share']:.1f}%)"
        for name, part in measured.items()
        if part["judged_boxes"]
    ]
    return "; ".join(told) or "no box was judged"


def _show(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
