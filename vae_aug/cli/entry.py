"""The application, and what becomes of an exception: one line and an exit status.

Exit status: 0 done; 1 failed, or problems under `--strict`; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, ParamSpec

import typer

from vae_aug.errors import VAEAugError
from vae_aug.version import __version__

_FAILED, _INTERRUPTED = 1, 130
_Options = ParamSpec("_Options")

app = typer.Typer(
    name="vae-aug",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    # A traceback with local variables could show a patient's data.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A variational autoencoder as augmentation and denoiser in a detector's input pipeline, "
    "for medical images. Start with: vae-aug demo",
    epilog="Exit status: 0 done; 1 failed, or problems under --strict; 2 wrong usage; "
    "130 interrupted.",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"vae-aug {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take options that stand before a command."""


def command(body: Callable[_Options, None]) -> Callable[_Options, None]:
    """Make a function a command of its name, whose exceptions become exit statuses."""

    @functools.wraps(body)
    def run(*arguments: _Options.args, **options: _Options.kwargs) -> None:
        with _turn_into_status():
            body(*arguments, **options)

    return app.command()(run)


@contextlib.contextmanager
def _turn_into_status() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        _say(f"interrupted{': ' + str(interrupt) if str(interrupt) else ''}")
        raise typer.Exit(_INTERRUPTED) from None
    except Exception as error:
        if not _is_expected(error):
            raise
        _say(f"error: {_describe(error)}")
        raise typer.Exit(_FAILED) from None


def _is_expected(error: Exception) -> bool:
    """Tell what input, disk or arguments can cause from a fault of the program."""
    if isinstance(error, VAEAugError | ValueError | OSError):
        return True
    # What tf.data raises on damaged input; the class can be named only where it is loaded.
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(error, tensorflow.errors.OpError)


def _describe(error: Exception) -> str:
    """Return what an error says, in one line."""
    text = str(getattr(error, "message", None) or error) or type(error).__name__
    # TensorFlow wraps its messages in the names of nodes and operations.
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", text, flags=re.DOTALL)
    return " ".join(text.split())


def _say(line: str) -> None:
    print(line, file=sys.stderr)
