"""What many images cost on many machines: a simulation from what `workers.py` measured.

    .venv/bin/python -m benchmarks.scale

It reads `results/workers.json`, simulates `vae-aug augment` with two workers, whose times were
measured as well, then with more, and prints the tables of `docs/scale.md`.
"""

from __future__ import annotations

import argparse
import heapq
import json
from pathlib import Path
from typing import Any, NamedTuple

from vae_aug.extras.augment_split import PARTS_FOR_RUNNER, PARTS_PER_WORKER, choose_step
from vae_aug.words import make_markdown_table

RESULTS = Path(__file__).parent / "results"

IMAGES = (1_000_000, 30_000_000)
"""A million radiographs, or single slices; and a million studies of 30 slices."""
CORES = 16
MACHINES = (1, 2, 8, 32, 128)
SHARD = 2_000
"""Images in a shard."""


class Costs(NamedTuple):
    """What was measured on one core, in seconds.

    Attributes:
        start: From the command's start until a worker takes its first part.
        begin: To begin a part.
        image: To augment an image.
        merge: To put an image into the result, which one process does.
    """

    start: float
    begin: float
    image: float
    merge: float


def read_costs(measured: dict[str, Any], way: str) -> Costs:
    """Take the costs of a way from `workers.json`, that of an image from one worker.

    Args:
        measured: Content of the file.
        way: `"processes"`, of which one augments without parts and merging, or `"Beam"`.
    """
    begin = measured["seconds_to_begin_a_part"]
    merge = measured["seconds_to_put_an_image_together"]
    one, two = (measured["seconds"][way][workers] for workers in ("1", "2"))
    parts = count_parts(measured["settings"]["shards"], way, 2)
    image = one["an_image"] - (merge if way == "Beam" else 0.0)
    return Costs(two["start"] - begin * parts / 2, begin, image, merge)


def count_parts(shards: int, way: str, workers: int) -> int:
    """Count the parts that `vae-aug augment` makes."""
    wanted = PARTS_FOR_RUNNER if way == "Beam" else PARTS_PER_WORKER * workers
    return shards * choose_step(shards, wanted)


def simulate(costs: Costs, images: int, workers: int, parts: int) -> float:
    """Return the seconds that workers need, each of which takes the next part when it is free."""
    free = [costs.start] * workers
    for part in range(parts):
        share = images // parts + (part < images % parts)
        heapq.heapreplace(free, free[0] + costs.begin + share * costs.image)
    return max(free) + images * costs.merge


def compare_with_measured(measured: dict[str, Any]) -> list[list[str]]:
    """Compare times that were measured with two workers with those that one predicts."""
    rows = [["way", "images", "measured, s", "simulated, s", "difference"]]
    size, shards = measured["settings"]["sizes"][-1], measured["settings"]["shards"]
    for way in ("processes", "Beam"):
        taken = measured["seconds"][way]["2"][f"{size}_images"]
        costs = read_costs(measured, way)
        told = simulate(costs, size, 2, count_parts(shards, way, 2))
        difference = f"{round(100 * (told / taken - 1)):+d}%"
        rows.append([way, f"{size:,}", f"{taken:.1f}", f"{told:.1f}", difference])
    return rows


def tabulate_machines(measured: dict[str, Any]) -> list[list[str]]:
    """Simulate `vae-aug augment` on Beam with many machines."""
    costs = read_costs(measured, "Beam")
    rows = [["machines of 16 cores"]]
    for images in IMAGES:
        rows[0] += [f"{images:,} images, hours", "share that is merging", "cores in use"]
    for machines in MACHINES:
        workers = machines * CORES
        row = [str(machines)]
        for images in IMAGES:
            seconds = simulate(
                costs, images, workers, count_parts(images // SHARD, "Beam", workers)
            )
            busy = images * costs.image / (workers * seconds)
            merging = images * costs.merge / seconds
            row += [f"{seconds / 3600:.2f}", f"{merging:.0%}", f"{busy:.0%}"]
        rows.append(row)
    return rows


def list_gains(measured: dict[str, Any]) -> list[list[str]]:
    """List what a second worker gains."""
    rows = [["way", "one worker, images/s", "two, images/s", "gain, median", "lowest to highest"]]
    for way, told in measured["seconds"].items():
        rates = [f"{1 / told[workers]['an_image']:.0f}" for workers in ("1", "2")]
        gain = told["gain"]
        between = f"{gain['lowest']:.2f} to {gain['highest']:.2f}"
        rows.append([way, *rates, f"{gain['median']:.2f}", between])
    return rows


def describe_bends(measured: dict[str, Any]) -> list[list[str]]:
    """Tell from which number of workers on each design gains little."""
    costs = read_costs(measured, "processes")
    service = measured["seconds"]["service, batches of 16"]["1"]["an_image"]
    return [
        ["what", "figure"],
        ["images a second of one core, `augment`", f"{1 / costs.image:.0f}"],
        ["images a second of one core, tf.data service", f"{1 / service:.0f}"],
        ["images a second that one process merges", f"{1 / costs.merge:,.0f}"],
        [
            "workers from which merging takes longer than augmenting",
            f"{costs.image / costs.merge:.0f}",
        ],
        [
            "images in a part from which its begin costs under 5%",
            f"{20 * costs.begin / costs.image:.0f}",
        ],
    ]


def make_tables(measured: dict[str, Any]) -> dict[str, str]:
    """Return the tables of `docs/scale.md` in Markdown, by what they show."""
    makers = (list_gains, describe_bends, compare_with_measured, tabulate_machines)
    return {maker.__name__: _format(maker(measured)) for maker in makers}


def _format(rows: list[list[str]]) -> str:
    head, *others = rows
    return make_markdown_table(head, others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", type=Path, default=RESULTS / "workers.json")
    measured = json.loads(parser.parse_args().measured.read_text())
    print(*make_tables(measured).values(), sep="\n\n")


if __name__ == "__main__":
    main()
