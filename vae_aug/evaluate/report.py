"""Tables of what was measured, for the terminal, for documents and for programs."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vae_aug.atomic import write_atomic
from vae_aug.evaluate.denoising import MEASURES, REGIONS, DenoisingTable, Estimate, Row
from vae_aug.evaluate.diversity import Diversity
from vae_aug.words import make_markdown_table, plural

_HEADINGS = {"ssim": "SSIM", "psnr": "PSNR, dB", "r2": "R2"}
_DIGITS = {"ssim": 3, "psnr": 1, "r2": 2}


def print_denoising(table: DenoisingTable, console: Console | None = None) -> None:
    """Print a table for each corruption, the best mean of each region in bold.

    Args:
        table: From `evaluate_denoising`.
        console: Where to; None for standard output.
    """
    console = console or Console()
    for corruption in table.settings["corruptions"]:
        grid = Table(title=f"{_describe(table, corruption)}")
        grid.add_column("region, method", overflow="fold")
        for measure in MEASURES:
            grid.add_column(_HEADINGS[measure], no_wrap=True)
        for region, rows in _group(table, corruption):
            # A row of its own: beside the methods, regions make the table wider than 80 columns.
            grid.add_row(f"[italic]{region}[/italic]")
            for position, row in enumerate(rows):
                cells = [
                    f"[bold]{text}[/bold]" if best else text for text, best in _format(row, rows)
                ]
                last = position == len(rows) - 1
                grid.add_row(f"  {escape(row.method)}", *cells, end_section=last)
        console.print(grid)


def print_diversity(rows: Sequence[Diversity], console: Console | None = None) -> None:
    """Print what samples are like, a row for each factor.

    Args:
        rows: From `measure_diversity`.
        console: Where to; None for standard output.
    """
    grid = Table("factor", title="samples; shares of the grey range, of pairs, and of boxes, in %")
    for heading in (
        *("spread\noutside", "spread\ninside", "change", "1-SSIM\npairs"),
        *("contrast\nkept", "of\nvisible", "guarded"),
    ):
        grid.add_column(heading, justify="right")
    for row in rows:
        factor, *shares = dataclasses.astuple(row)
        cells = ["-" if share is None else f"{100 * share:.2f}" for share in shares]
        grid.add_row(f"{factor:g}", *cells)
    (console or Console()).print(grid)


def format_markdown(table: DenoisingTable) -> str:
    """Format a table for each corruption as Markdown, the best mean of each region in bold.

    Args:
        table: From `evaluate_denoising`.

    Returns:
        The text, with the number of images and the command that made it.
    """
    lines = []
    for corruption in table.settings["corruptions"]:
        lines += [f"### {_describe(table, corruption)}", ""]
        headings = ["region", "method", *(_HEADINGS[m] for m in MEASURES)]
        cells = []
        for region, rows in _group(table, corruption):
            for row in rows:
                told = [f"**{text}**" if best else text for text, best in _format(row, rows)]
                cells.append([region, row.method, *told])
        lines += [make_markdown_table(headings, cells), ""]
    unit = "images" if table.settings["patients"] is None else "patients"
    lines += [f"Mean over images [95% interval over {unit}].", ""]
    lines += [f"`{table.settings['command']}`", ""]
    return "\n".join(lines)


def write_report(table: DenoisingTable, path: str | os.PathLike[str]) -> None:
    """Write a table as a file that appears whole.

    Args:
        table: From `evaluate_denoising`.
        path: `.json` for programs, `.md` for documents.

    Raises:
        ValueError: On another suffix.
        OSError: If the file cannot be written.
    """
    match Path(path).suffix:
        case ".json":
            text = table.to_json()
        case ".md":
            text = format_markdown(table)
        case suffix:
            raise ValueError(f"{os.fspath(path)}: expected .json or .md; got {suffix!r}.")
    write_atomic(path, text.encode())


def _describe(table: DenoisingTable, corruption: str) -> str:
    settings = table.settings
    patients = settings["patients"]
    return f"{corruption}, {settings['keep']:.0%} left: {plural(settings['images'], 'image')}" + (
        f", {plural(patients, 'patient')}" if patients else ""
    )


def _group(table: DenoisingTable, corruption: str) -> Iterator[tuple[str, list[Row]]]:
    """Yield the regions in which anything was measured, with their rows."""
    for region in REGIONS:
        rows = [row for row in table.rows if (row.corruption, row.region) == (corruption, region)]
        if any(row.ssim.images for row in rows):
            yield region, rows


def _format(row: Row, rows: list[Row]) -> Iterator[tuple[str, bool]]:
    """Yield the text of each measure, and whether it is the best of its region."""
    for name in MEASURES:
        estimate = getattr(row, name)
        means = [getattr(other, name).mean for other in rows]
        best = max((mean for mean in means if not math.isnan(mean)), default=math.nan)
        yield _format_estimate(estimate, _DIGITS[name]), estimate.mean == best


def _format_estimate(estimate: Estimate, digits: int) -> str:
    if math.isnan(estimate.mean):
        return "-"
    if math.isnan(estimate.low):
        return f"{estimate.mean:.{digits}f}"
    return f"{estimate.mean:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
