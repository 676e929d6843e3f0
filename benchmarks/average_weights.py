"""Write a checkpoint whose weights are a weighted mean of two: of a start and what it became.

    .venv/bin/python -m benchmarks.average_weights START TRAINED OUT --share 0.8 --card CARD.md

It keeps what the start did well and a training forgot. Weights that are equal stay as they are,
bit for bit.

Reference:
    Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from vae_aug.model.checkpoint import load_checkpoint, read_manifest, save_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("start", help="checkpoint")
    parser.add_argument("trained", help="checkpoint of the same network")
    parser.add_argument("out", help="file to write")
    parser.add_argument("--share", type=float, required=True, help="share of what was trained")
    parser.add_argument("--card", type=Path, required=True, help="model card, Markdown")
    arguments = parser.parse_args()
    network, trained = load_checkpoint(arguments.start), load_checkpoint(arguments.trained)
    for variable, other in zip(network.variables, trained.variables, strict=True):
        before, after = variable.numpy(), other.numpy()
        if not np.array_equal(before, after):
            variable.assign(before + arguments.share * (after - before))
    manifest = read_manifest(arguments.trained)
    training = {**manifest["training"], "share": arguments.share}
    del training["validation"]  # of the weights before they were averaged
    fingerprint, card = manifest["fingerprint"], arguments.card.read_text()
    print(
        save_checkpoint(
            network, arguments.out, training=training, fingerprint=fingerprint, card=card
        )
    )


if __name__ == "__main__":
    main()
