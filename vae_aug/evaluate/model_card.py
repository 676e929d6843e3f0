"""The model card of a training: `card.md` beside the checkpoint, filled from what was measured.

It names no patient, image, folder, user or date.

Reference:
    Mitchell et al., Model Cards for Model Reporting, FAT* 2019, doi:10.1145/3287560.3287596
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from vae_aug.atomic import write_atomic
from vae_aug.evaluate.outcome import Difference, Outcome
from vae_aug.model.checkpoint import BEST_CHECKPOINT
from vae_aug.model.stored import read_manifest
from vae_aug.train.feed import VALIDATION_KEEP
from vae_aug.version import __version__
from vae_aug.words import make_markdown_row

MODEL_CARD = "card.md"

_CARD = """# Model card

Written by version {version} of `vae-aug train`, after Mitchell et al., Model Cards for Model
Reporting (2019). Where the images come from, under which licence, and who may use the network, the
command does not know: **add it here before you pass the network on.**

## Model

| | |
| --- | --- |
| checkpoint, SHA-256 | `{digest}` |
| architecture | {architecture} |
| input | grey MRI or CT slices, values in [0, 1] after scaling |
| meant for | denoising and variation of images that a detector is trained on |
| not meant for | images that a diagnosis is made from; other kinds of images than those below |
| went on from | {start} |

## Training data

{images} images. Patients that are known, those of the checkpoint that it went on from included:
{patients}. The checkpoint has their hashes, so that `vae-aug` notices where they are evaluated on.
Settings of the restoration:

```json
{settings}
```

## Figures

{judged} images of {groups} {unit} that it was not trained on, {keep:.0%} of their pixels left:

| restored by | SSIM | PSNR, dB | clean SSIM | clean PSNR, dB |
| --- | --- | --- | --- | --- |
{figures}

| difference of SSIM, with its 95% interval | |
| --- | --- |
{differences}

## Limits

- Reconstructions and samples of patients' images are not anonymous. Whether the network gives away
  whom it was trained on: not measured by this command; run `vae-aug evaluate membership` and
  `vae-aug evaluate audit`.
- What becomes of boxes: not measured by this command; run `vae-aug evaluate fidelity`.
- Noise as scanners make it, other scanners, and groups of patients: not measured by this command.
- Whether a detector gains: not measured by this command.
- It is not a medical device.
"""

_PATHS = ("encoder_weights", "start_from")
"""Settings that may be paths."""

_FIGURES = ("ssim_noisy", "psnr_noisy", "ssim", "psnr")
_NAMES = {
    "noisy": "nothing",
    "filter": "the best classical filter",
    "start": "what it went on from",
    "trained": "this network",
}


def write_model_card(out: Path, outcome: Outcome) -> Path:
    """Write `card.md` into the folder of a training that was judged.

    Args:
        out: The folder, with its checkpoint.
        outcome: What `judge_training` found.

    Returns:
        The path of the card.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        OSError: If the file cannot be written.
    """
    manifest = read_manifest(out / BEST_CHECKPOINT)
    model, seen = manifest["model"], manifest["fingerprint"]
    settings = {
        name: value
        for name, value in manifest["training"]["config"].items()
        if name not in _PATHS and value is not None
    }
    values = {
        "version": __version__,
        "digest": manifest["digest"],
        "architecture": ", ".join(f"{name} {value}" for name, value in model.items()),
        "start": _tell_start(seen.get("start_from")),
        "images": f"{seen['images']:,}",
        "patients": f"{len(seen['patients']):,}",
        "settings": json.dumps(settings),
        "judged": outcome.images,
        "groups": outcome.groups,
        "unit": outcome.unit,
        "keep": VALIDATION_KEEP,
        "figures": "\n".join(map(make_markdown_row, _list_figures(outcome.figures))),
        "differences": "\n".join(map(make_markdown_row, _list_differences(outcome))),
    }
    write_atomic(out / MODEL_CARD, _CARD.format_map(values).encode())
    return out / MODEL_CARD


def _tell_start(digest: str | None) -> str:
    """Name the checkpoint that the training went on from without its path."""
    return f"the checkpoint `{digest}`" if digest else "random weights"


def _list_figures(figures: Mapping[str, Mapping[str, float]]) -> Iterable[list[str]]:
    for key, name in _NAMES.items():
        cells = (
            f"{figures[key][figure]:.3f}" if figure in figures[key] else "" for figure in _FIGURES
        )
        yield [name, *cells]


def _list_differences(outcome: Outcome) -> Iterable[list[str]]:
    yield ["against what it went on from", _tell(outcome.against_start)]
    yield ["against the best classical filter", _tell(outcome.against_filter)]
    yield ["clean images, against what it went on from", _tell(outcome.clean_against_start)]


def _tell(difference: Difference) -> str:
    interval = f"{difference.low:+.3f} to {difference.high:+.3f}"
    return f"{difference.mean:+.3f} ({interval}): {difference.judgement}"
