"""`doctor`: what works on this machine."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from vae_aug.cli.console import make_listing, make_table, publish, say, show, show_work, warn
from vae_aug.cli.entry import command
from vae_aug.cli.loading import calls
from vae_aug.json_values import make_json

if TYPE_CHECKING:
    from vae_aug.extras.doctor import CacheFolder, Diagnosis, Part


@command("vae-aug doctor")
def doctor(
    empty_cache: Annotated[
        bool, typer.Option("--empty-cache", help="Remove the graphs that are kept on disk.")
    ] = False,
) -> None:
    """Print what works on this machine: versions, extras, decoders, engines, devices, caches.

    What is missing is named with the command that installs it; status 1 means that something
    installed is broken. For a report of a fault, paste what `--json` prints: it has `~` for the
    home folder.
    """
    with show_work("looking"):
        found = calls.diagnose()
    # Last, since the engines that were tried leave something in it.
    removed = calls.empty_cache() if empty_cache else []
    if empty_cache:
        found = dataclasses.replace(found, caches=calls.measure_cache())
    result = make_json(found)
    if empty_cache:
        result["removed"] = make_json(removed)
    publish(calls.hide_home(result))
    _print_machine(found)
    extras = [
        dataclasses.replace(part, name=f"{extra}: {part.name}")
        for extra, parts in found.extras.items()
        for part in parts
    ]
    for title, parts in (
        ("extras", extras),
        ("DICOM decoders", found.codecs),
        ("engines", found.engines),
        ("packaged checkpoints", found.checkpoints),
    ):
        _print_parts(title, parts)
    for cache in removed:
        say(f"removed {_describe(cache)}")
    for cache in found.caches:
        say(f"cache {_describe(cache)}")
    if found.broken:
        names = ", ".join(part.name for part in found.broken)
        warn(f"error: installed, but broken: {names}")
        raise typer.Exit(1)


def _print_machine(found: Diagnosis) -> None:
    table = make_listing("vae-aug doctor")
    table.add_row("vae_aug", found.version)
    table.add_row("Python", found.python)
    for part in found.packages:
        table.add_row(part.name, escape(part.detail))
    table.add_row("system", found.platform)
    table.add_row("cores", str(found.cores))
    table.add_row("devices", ", ".join(found.devices))
    show(table)


def _print_parts(title: str, parts: list[Part]) -> None:
    table = make_table(title, ["name", "state", "detail"])
    for part in parts:
        detail = f"{part.detail}; run: {part.remedy}" if part.remedy else part.detail
        table.add_row(part.name, part.state, escape(detail))
    show(table)


def _describe(cache: CacheFolder) -> str:
    return f"{cache.path}: {cache.files} files, {cache.bytes / 1e6:.1f} MB"
