"""Ingest random, mutated sources of every format, and look for boxes that were lost on the way.

    .venv/bin/python benchmarks/ingest_corpus.py --count 2000 --seed 0 --keep-as ingest-corpus

What a source says, in the sense of a human reader, is known from the making of it (`tests/corpus`).
The property: no image that has a box in its source becomes a record without it, and no record has a
box that its source has not. A source may be refused, an image left out or written as unannotated.
Every other source is read with `format="auto"`. A case follows from the seed and its number.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import platform
import random
import resource
import sys
import tempfile
import time
import unicodedata
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_aug.atomic import write_atomic
from vae_aug.errors import VAEAugError
from vae_aug.ingest.formats import READERS
from vae_aug.ingest.ingest import ingest
from vae_aug.ingest.report import IngestReport
from vae_aug.records.check import iterate_examples
from vae_aug.records.shards import list_shards
from vae_aug.records.tfrecord import get_values

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from corpus import CORPORA

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SLOW_S = 5.0
# Relative coordinates of six decimals, and boxes rounded to float32.
TOLERANCE_PX = 0.02

Boxes = list[tuple[str, tuple[float, float, float, float]]]


class Case(NamedTuple):
    """What became of one source.

    Attributes:
        outcome: `"read"`, `"refused"` or `"crashed"`.
        seconds: Time of the ingest.
        counts: Images by what became of them.
        losses: Images with a box that was lost or invented.
    """

    outcome: str
    seconds: float
    counts: collections.Counter[str]
    losses: list[str]


def run_case(format: str, seed: int, number: int, folder: Path) -> Case:
    """Make one source in a folder, ingest it, and compare the records with what it says."""
    corpus = importlib.import_module(f"corpus.{CORPORA[format]}")
    source, out = folder / "source", folder / "out"
    source.mkdir()
    truth = corpus.make(random.Random(f"{format} {seed} {number}"), source)
    told = "auto" if number % 2 else format
    counts: collections.Counter[str] = collections.Counter()
    started = time.perf_counter()
    try:
        report = ingest(source, out, format=told, keep_ids=True)
    except VAEAugError:
        return Case("refused", time.perf_counter() - started, counts, [])
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Case("crashed", time.perf_counter() - started, counts, [reason])
    seconds = time.perf_counter() - started
    return Case("read", seconds, _count(report), _find_losses(source, out, report, truth))


def _count(report: IngestReport) -> collections.Counter[str]:
    counts = {"annotated": report.images, "silent": report.unannotated, "faulty": report.faulty}
    return collections.Counter({**counts, "skipped": len(report.skipped)})


def _find_losses(
    source: Path, out: Path, report: IngestReport, truth: dict[str, Boxes]
) -> list[str]:
    # A coordinate beyond the image was clipped and said so; what it should be, nobody knows.
    clipped = {problem.file for problem in report.problems if problem.effect == "clipped"}
    keys: dict[str, str] | None = None
    losses = []
    for path in list_shards(out, "train"):
        for _, example in iterate_examples(path):
            name = get_values(example, "image/source_id", "bytes_list")[0].decode()
            if name not in truth and keys is None:
                keys = _find_keys(source, report.format, truth)
            key = name if name in truth else (keys or {}).get(name, name)
            if fault := _compare(example, truth.get(key, []), key.partition("#")[0] in clipped):
                losses.append(f"{key}: {fault}")
    return losses


def _find_keys(source: Path, format: str, truth: dict[str, Boxes]) -> dict[str, str]:
    """Return the key of each image that is named by something else than its path."""
    keys = {}
    for image in READERS[format](source).images:
        name = image.path.relative_to(source).as_posix()
        choices = (name, f"{name}#{image.item.index}", Path(name).name)
        keys[image.source_id] = next((key for key in choices if key in truth), image.source_id)
    return keys


def _compare(example: Any, expected: Boxes, is_clipped: bool) -> str:
    """Tell how the boxes of a record differ from those of its source; `""` if they do not."""
    size = [get_values(example, f"image/{side}", "int64_list")[0] for side in ("width", "height")]
    sides = ("xmin", "ymin", "xmax", "ymax")
    relative = [get_values(example, f"image/object/bbox/{side}", "float_list") for side in sides]
    boxes = np.stack([np.asarray(side, np.float64) for side in relative], axis=-1) * (size * 2)
    boxes = boxes.round(2)  # so that float32 does not change the order
    texts = get_values(example, "image/object/class/text", "bytes_list")
    found = sorted(zip([text.decode() for text in texts], boxes.tolist(), strict=True))
    wanted = sorted(
        (unicodedata.normalize("NFC", label).strip(), np.clip(box, 0, size * 2).round(2).tolist())
        for label, box in expected
    )
    labels = [[label for label, _ in entries] for entries in (found, wanted)]
    corners = [[box for _, box in entries] for entries in (found, wanted)]
    if labels[0] != labels[1] or not (is_clipped or np.allclose(*corners, atol=TOLERANCE_PX)):
        return f"{found} for {wanted}"
    return ""


def run_format(format: str, count: int, seed: int) -> dict[str, Any]:
    """Run the cases of a format and sum them up."""
    outcomes: collections.Counter[str] = collections.Counter()
    images: collections.Counter[str] = collections.Counter()
    slowest, slow, losses = 0.0, 0, []
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            case = run_case(format, seed, number, Path(folder))
        outcomes[case.outcome] += 1
        images.update(case.counts)
        slowest, slow = max(slowest, case.seconds), slow + (case.seconds > SLOW_S)
        losses += [f"{number}: {loss}" for loss in case.losses]
    print(f"{format}: {dict(outcomes)}, {dict(images)}, slowest {slowest:.2f} s", flush=True)
    for loss in losses[:10]:
        print(f"  {loss}", flush=True)
    return {
        "sources": dict(sorted(outcomes.items())),
        "images": dict(sorted(images.items())),
        "slowest_s": round(slowest, 3),
        "over_5_s": slow,
        "losses": len(losses),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="sources of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", choices=sorted(CORPORA), default=list(CORPORA))
    parser.add_argument("--keep-as", help="name of the file in benchmarks/results")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    formats = {name: run_format(name, args.count, args.seed) for name in args.formats}
    kept = f" --keep-as {args.keep_as}" if args.keep_as else ""
    options = f"--count {args.count} --seed {args.seed}{kept}"
    result = {
        "command": f"python benchmarks/ingest_corpus.py {options}",
        "version": version("vae-aug"),
        "python": platform.python_version(),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "formats": formats,
    }
    if args.keep_as:
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(result, indent=1) + "\n"
        write_atomic(RESULTS / f"{args.keep_as}.json", text.encode())
    if any(entry["losses"] for entry in formats.values()):
        sys.exit("boxes were lost or invented")


if __name__ == "__main__":
    main()
