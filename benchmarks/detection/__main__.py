"""Does an augmentation help a detector? The same one is trained per augmentation and seed.

    python -m benchmarks.detection run TRAIN.json TEST.json --out runs/own
    python -m benchmarks.detection run --plan benchmarks/detection/plans/lgg-hospital.json \
        --data DATA --out runs/lgg
    python -m benchmarks.detection report runs/lgg [MORE ...]
    python -m benchmarks.detection power --deviation 0.03
    python -m benchmarks.detection page

The last writes `docs/when-to-use.md` from its template, `when-to-use.md.in`, and the reports in
`benchmarks/results/detection-reports`.

An arm is `real`, or parts joined by "+": `classical`, `strong`, `gin`, `style`; and variants made
by a VAE, `sample` or `interpolate`, with settings behind a colon, which are those of `VAEAugment`:
`strong+sample:ckpt=vector,guard=off,factor=2`; `p` is 0.5 and `ckpt` is `demo`, unless given.
`ckpt=ladder` goes on from `demo` on each run's own training images, and on nothing else.

Every arm of a seed trains on the same patients, starts from the same weights, takes the same number
of steps and sees the same images in the same order; another seed has other patients. Every finished
run is a file of its own, `run-<arm>-<seed>.json`, and is never repeated: the same command goes on,
and files of several machines may be put into one folder.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from benchmarks.detection import inference, report
from benchmarks.detection.plans import Plan, Training, make_plan, make_tests, read_plan
from benchmarks.detection.runs import run_plan
from benchmarks.detection.samples import Source, read_samples
from vae_aug.atomic import write_atomic

PLAN = "plan.json"
"""Name of the plan in a folder of runs."""

ARMS = ("real", "classical", "classical+sample")

REPORTS = Path(__file__).parents[1] / "results" / "detection-reports"
"""Reports of comparisons, by their plan's name, that the page for users is written from."""

PAGE = Path(__file__).parents[2] / "docs" / "when-to-use.md"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.detection",
        description=__doc__.splitlines()[0],
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train the detectors that are missing, then report")
    run.add_argument("files", type=Path, nargs="*", help="COCO files or folders of records")
    run.add_argument("--plan", type=Path, help="a comparison written down; then no other setting")
    run.add_argument(
        "--data", type=Path, default=Path(), help="what a plan's files are relative to"
    )
    run.add_argument("--out", type=Path, required=True, help="folder of runs and report")
    run.add_argument("--processes", type=int, default=os.cpu_count(), help="each on one core")
    run.add_argument("--only-seeds", type=int, nargs="+", help="of the plan: a share of the work")
    run.add_argument("--only-arms", nargs="+", help="of the plan, likewise")
    own = run.add_argument_group("without a plan")
    own.add_argument("--arms", nargs="+", default=list(ARMS))
    own.add_argument("--seeds", type=int, default=5, help="number of seeds (%(default)s)")
    own.add_argument("--size", type=int, default=192, help="side in pixels (%(default)s)")
    own.add_argument("--white", type=float, help="grey value shown as white; else the dtype's")
    own.add_argument("--share", type=float, default=0.7, help="of the first file's patients")
    for field, kind in (("steps", int), ("batch_size", int), ("variants", int)):
        default = getattr(Training, field)
        name = f"--{field.replace('_', '-')}"
        own.add_argument(name, type=kind, default=default, help="(%(default)s)")
    made = commands.add_parser("report", help="tables, plot and pictures of finished runs")
    made.add_argument("folders", type=Path, nargs="+", help="the first also takes the report")
    commands.add_parser("page", help="write docs/when-to-use.md from the reports that are kept")
    power = commands.add_parser("power", help="how many seeds a difference needs")
    power.add_argument("--deviation", type=float, required=True, help="of paired differences, mAP")
    arguments = parser.parse_args()
    if arguments.command == "run" and bool(arguments.plan) == bool(arguments.files):
        run.error("give either files or --plan")
    return arguments


def find_plan(arguments: argparse.Namespace) -> Plan:
    """Read the plan, or make the one of a user's own data."""
    if arguments.plan:
        return read_plan(arguments.plan, arguments.data)
    source = Source(tuple(map(str, arguments.files)), arguments.size, arguments.white)
    sites = read_samples(source).sites
    names = ("arms", "seeds", "size", "white", "share", "steps", "batch_size", "variants")
    options = {name: getattr(arguments, name) for name in names}
    return make_plan(arguments.files, list(dict.fromkeys(sites.tolist())), **options)


def keep_plan(plan: Plan, out: Path) -> None:
    """Keep a plan beside its runs, before the first of them.

    Raises:
        ValueError: If the folder has another plan: what is compared is not changed afterwards.
    """
    path, content = out / PLAN, plan.to_json()
    if path.is_file() and path.read_text() != content:
        raise ValueError(f"{path} holds another plan; choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content.encode())


def write_report(folders: list[Path]) -> str:
    """Report the runs of folders by the plan of the first."""
    plan = read_plan(folders[0] / PLAN, Path())
    samples = read_samples(plan.source)
    return report.write(
        folders,
        lambda run: make_tests(samples, plan.tests, np.array(run["groups"])),
        plan,
    )


def write_page() -> str:
    """Write the page for users from the reports that are kept."""
    reports = {path.stem: path for path in sorted(REPORTS.glob("*.json"))}
    return report.write_when_to_use(reports, PAGE.with_name(f"{PAGE.name}.in"), PAGE)


def main() -> None:
    arguments = parse_arguments()
    if arguments.command == "power":
        print(inference.format_power(arguments.deviation))
        return
    if arguments.command == "page":
        write_page()
        return
    if arguments.command == "run":
        plan = find_plan(arguments)
        keep_plan(plan, arguments.out)
        run_plan(
            plan, arguments.out, arguments.processes, arguments.only_seeds, arguments.only_arms
        )
        arguments.folders = [arguments.out]
    print(write_report(arguments.folders))


if __name__ == "__main__":
    main()
