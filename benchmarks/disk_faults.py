"""What commands say, and leave, where the disk is full or nothing may be written.

    sudo .venv/bin/python benchmarks/disk_faults.py

The commands of `faults.py` write into a file system in memory, mounted for each: one without room,
one with room for a half of the result, and one that is read-only. Told are the exit status, and
whether the last line on standard error names the folder and the reason. Then there is room, the
command runs again, and what it leaves is compared with what a run without a fault does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from faults import Command, describe, list_commands, make_sources
from throughput import RESULTS, describe_machine

from vae_aug.atomic import write_atomic
from vae_aug.words import make_markdown_table

_NO_ROOM, _ROOM, _BLOCK = 16 * 1024, 2**30, 4096
_REASONS = ("No space left on device", "Read-only file system")


@contextlib.contextmanager
def mount(size: int) -> Iterator[Path]:
    """Mount a file system of so many bytes; of 0 bytes, one that is read-only."""
    with tempfile.TemporaryDirectory() as folder:
        options = f"size={size or _NO_ROOM}" + (",ro" if not size else "")
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def run(command: Command, folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    line = [argument.format(out=out) for argument in command.line]
    return subprocess.run(
        [sys.executable, *line],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def try_disk(
    command: Command, folder: Path, expected: Mapping[str, Any], size: int
) -> dict[str, Any]:
    """Run a command on a small disk.

    Args:
        command: The command.
        folder: Where it runs.
        expected: What a run without a fault leaves, from `faults.describe`.
        size: Of the disk in bytes; 0 for one that is read-only.

    Returns:
        What was found.
    """
    with mount(size) as disk:
        done = run(command, folder, disk / "out")
        plain = re.sub(r"\x1b\[\w*", "", done.stderr)  # without what moves the cursor
        said = [line for line in plain.splitlines() if line.strip()] or [""]
        named = str(disk) in said[-1] and any(reason in said[-1] for reason in _REASONS)
        remount = ["mount", "-o", f"remount,rw,size={_ROOM}", str(disk)]
        subprocess.run(remount, check=True)
        again = run(command, folder, disk / "out")
        return {
            "status": done.returncode,
            "names_path_and_reason": named,
            "said": said[-1].replace(str(disk), "DISK")[:400],
            "tracebacks": done.stderr.count("Traceback (most recent call last)"),
            "status_again": again.returncode,
            "whole_again": describe(command, disk) == expected,
        }


def measure(command: Command, folder: Path) -> dict[str, Any]:
    """Try a command on all disks."""
    with tempfile.TemporaryDirectory() as around:
        done = run(command, folder, Path(around) / "out")
        if done.returncode:
            raise RuntimeError(f"{command.line}: status {done.returncode}\n{done.stderr[-2000:]}")
        expected = describe(command, Path(around))
        files = [path.stat().st_size for path in Path(around).rglob("*") if path.is_file()]
    half = sum(-(-size // _BLOCK) * _BLOCK for size in files) // 2
    sizes = {"full": _NO_ROOM, "half": max(half, 2 * _NO_ROOM), "read-only": 0}
    return {name: try_disk(command, folder, expected, size) for name, size in sizes.items()}


def make_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Make the table of docs/large-sets.md."""
    keys = ("names_path_and_reason", "whole_again")
    headings = ("command", "disk", "status", "names path and reason", "whole once there is room")
    rows = [
        (name, disk, *map(_show, (one[key] for key in ("status", *keys))))
        for name, disks in results.items()
        for disk, one in disks.items()
    ]
    return make_markdown_table(headings, rows)


def _show(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def main() -> None:
    commands = list_commands()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", nargs="*", default=list(commands), choices=list(commands))
    parser.add_argument("--out", type=Path, default=RESULTS / "disk-faults.json")
    arguments = parser.parse_args()
    machine = describe_machine()  # its load, before commands add to it
    results = json.loads(arguments.out.read_text())["results"] if arguments.out.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        make_sources(Path(folder))
        for name in arguments.commands:
            results[name] = measure(commands[name], Path(folder))
            print(name, json.dumps(results[name], indent=1), flush=True)
            told = {"benchmark": "disk faults", "environment": machine}
            text = json.dumps({**told, "results": results}, indent=1) + "\n"
            write_atomic(arguments.out, text.encode())


if __name__ == "__main__":
    main()
