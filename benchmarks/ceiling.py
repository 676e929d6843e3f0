"""How much of a clean image is noise of its own, which no denoiser can restore.

    .venv/bin/python benchmarks/ceiling.py --records RECORDS --keep-as ceiling-lgg

Each image, fitted into the square that networks are measured on, is compared with itself after
non-local means at the strength of its own noise, as estimated by Immerkaer's operator (1996). What
that filter takes away is for the most part noise: a restoration that equals the noiseless image
would score about as much against the recorded one. Noise that was recorded as black, and anatomy
that the filter smooths away, make it an estimate.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy import ndimage
from skimage.restoration import denoise_nl_means

from vae_aug.atomic import write_atomic
from vae_aug.evaluate.metrics import find_body, ssim_map
from vae_aug.records.records import read_records
from vae_aug.train.feed import fit

RESULTS = Path(__file__).parent / "results"


def measure(clean: np.ndarray) -> dict[str, float]:
    """Compare `[H, W] float32 in [0, 1]` with what is left of it without its noise."""
    body = find_body(clean)
    bent = ndimage.convolve(clean, np.outer([1, -2, 1], [1, -2, 1]), mode="mirror")
    # The median, unlike the mean, is not moved by the few pixels where anatomy bends.
    sigma = float(np.median(np.abs(bent[body])) / (6 * 0.6745))
    smooth = denoise_nl_means(clean, 5, 6, h=0.8 * sigma, sigma=sigma, fast_mode=True)
    similarity = ssim_map(clean, smooth.astype(np.float32))
    return {
        "sigma": sigma,
        "ssim_whole": float(similarity.mean()),
        "ssim_body": float(similarity[body].mean()),
        "psnr_whole": float(-10 * np.log10(np.mean((clean - smooth) ** 2))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--keep-as", help="name in benchmarks/results, without .json")
    args = parser.parse_args()
    rows = [
        measure(tf.squeeze(fit(element, args.size, 1.0)[0], -1).numpy())
        for element in read_records(args.records, args.split)
    ]
    report = {
        "split": args.split,
        "size": args.size,
        "images": len(rows),
        "means": {name: float(np.mean([row[name] for row in rows])) for name in rows[0]},
    }
    text = json.dumps(report, indent=1) + "\n"
    print(text)
    if args.keep_as:
        write_atomic(RESULTS / f"{args.keep_as}.json", text.encode())


if __name__ == "__main__":
    main()
