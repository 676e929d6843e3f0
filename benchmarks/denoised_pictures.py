"""A sheet of denoised images with difference maps: real repeats, and noise that is modelled.

    .venv/bin/python -m benchmarks.denoised_pictures --data DATA

Differences to the reference are shown four times as large, around grey.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.weak_noise import SETS, Pair, make_pairs, make_way, read_repeats, read_some
from vae_aug.evaluate.metrics import psnr, ssim
from vae_aug.figures.drawing import join, make_text, write_png

SIZE_PX, GAP_PX, TEXT_PX = 160, 6, 12
DIFFERENCE = 4.0
NOISES = (
    ("lgg_flair/val.json", "multi_coil", 0.9),
    ("lgg_flair/val.json", "gaussian", 0.9),
    ("ibsi_sts/val.json", "rician", 0.9),
    ("ibsi_sts/val.json", "low_dose", 0.8),
    ("cheng_brain_t1c", "replace", 0.4),
)


def list_rows(data: Path) -> Iterator[tuple[str, Pair]]:
    """Yield a pair of every kind, with what it is."""
    for name in ("repeat_epi_pddl", "repeat_philips_bsd"):
        yield f"{name}, one acquisition", next(read_repeats(data / name))
    for name, noise, keep in NOISES:
        image = read_some(data / name, SETS[name])[:1]
        yield (
            f"{name.split('/')[0]}, {noise}, {keep:.0%} left",
            next(make_pairs(image, noise, keep)),
        )


def draw(image: np.ndarray, text: str) -> Image.Image:
    """Draw an image in [0, 1] as a square with text below."""
    grey = Image.fromarray(np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8))
    square = grey.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC).convert("RGB")
    return join([square, make_text(text, SIZE_PX, TEXT_PX)], 2, axis=0)


def draw_row(title: str, pair: Pair, denoise: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """Draw reference, input, output and the differences of both to the reference."""
    noisy, clean = pair
    output = denoise(noisy)

    def describe(name: str, image: np.ndarray) -> str:
        return f"{name}: {psnr(clean, image):.1f} dB, SSIM {ssim(clean, image):.3f}"

    blocks = [
        draw(clean, title),
        draw(noisy, describe("input", noisy)),
        draw(output, describe("adaptive", output)),
        draw(0.5 + DIFFERENCE * (noisy - clean), "input less reference, x4"),
        draw(0.5 + DIFFERENCE * (output - clean), "output less reference, x4"),
    ]
    return join(blocks, GAP_PX, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--ckpt", default="demo")
    parser.add_argument("--out", type=Path, default=Path("docs/images/denoised.png"))
    arguments = parser.parse_args()
    denoise = make_way(arguments.ckpt, adaptive=True)
    rows = [draw_row(title, pair, denoise) for title, pair in list_rows(arguments.data)]
    write_png(arguments.out, join(rows, GAP_PX, axis=0))


if __name__ == "__main__":
    main()
