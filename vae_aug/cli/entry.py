"""The application: what makes a function a command, and an exception an exit status.

Exit status: 0 done; 1 failed, or problems under `--strict`; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from vae_aug.cli.choices import shorten_choices
from vae_aug.cli.console import answer, warn
from vae_aug.config import REMOVED_ENGINES
from vae_aug.errors import VAEAugError
from vae_aug.version import __version__

_FAILED, _INTERRUPTED = 1, 130
_FORMER = {
    "augment": {"--augment-split": "--split"},
    "audit": {"--held-out-split": "--split"},
}
"""Options that changed their names, by command. Accepted until 0.3."""

_MOVED = {"audit", "bench", "diversity", "fidelity"}
"""Commands of `evaluate` that were commands of `vae-aug` itself. Accepted as such until 0.3."""

_JSON = inspect.Parameter(
    "json",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option("--json", help="Print the result as JSON, and all else to standard error."),
    ],
)

app = typer.Typer(
    name="vae-aug",
    no_args_is_help=True,
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


class _Command(TyperCommand):
    """A command that still takes former names: those of its options, and, hidden, its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if self.hidden and not ctx.resilient_parsing:
            warn_of_former(f"vae-aug {self.name}", f"vae-aug evaluate {self.name}")
        former = _FORMER.get(self.name or "", {})
        try:
            return super().parse_args(ctx, [_rename(argument, former) for argument in args])
        except typer.BadParameter as error:
            removed = [
                hint for name, hint in REMOVED_ENGINES.items() if repr(name) in error.message
            ]
            error.message = " ".join([error.message, *removed])
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the line of usage, without hidden arguments, which typer shows."""
        shown = [param for param in self.get_params(ctx) if not getattr(param, "hidden", False)]
        pieces = [piece for param in shown for piece in param.get_usage_pieces(ctx)]
        return [*([self.options_metavar] if self.options_metavar else []), *pieces]


class _Group(TyperGroup):
    """A command with arguments, in the place of which a command of the group may stand."""

    # Without one, arguments are parsed as those of any command.
    allow_extra_args = False
    allow_interspersed_args = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            return super().parse_args(ctx, args)
        ctx.args = args
        return args

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named, or, without one, the group's own."""
        if not ctx.args:
            return super().invoke(ctx)
        name, *rest = ctx.args
        named = self.commands[name]
        # Beside the group: below it, a line of usage would show the group's arguments.
        with named.make_context(f"{self.name} {name}", rest, parent=ctx.parent) as context:
            return named.invoke(context)


def _rename(argument: str, former: dict[str, str]) -> str:
    name, equals, value = argument.partition("=")
    if name not in former:
        return argument
    warn_of_former(name, former[name])
    return former[name] + equals + value


def warn_of_former(former: str, present: str) -> None:
    """Say what to write from now on in the place of something that is still accepted."""
    warn(f"note: write {present} in the place of {former}, which the next version does not take.")


def command(
    example: str, of: typer.Typer = app
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command of its name, with the option `--json`.

    Before it runs, its options are checked by the functions that their annotations hold, none of
    which loads TensorFlow. Its exceptions become a line and an exit status.

    Args:
        example: A call of the command that works in the order of the help of `vae-aug`, from a
            folder `scans`.
        of: What it is a command of: `vae-aug` itself or a group.

    Returns:
        The decorator.
    """

    def register(body: Callable[..., None]) -> Callable[..., None]:
        run, epilog = _make_callback(body), f"Example: `{example}`"
        if body.__name__ in _MOVED:
            app.command(cls=_Command, epilog=epilog, hidden=True)(run)
        return of.command(cls=_Command, epilog=epilog)(run)

    return register


def command_group(example: str) -> Callable[[Callable[..., None]], typer.Typer]:
    """Make a function a command as `command` does, and a group that takes further commands.

    Args:
        example: As `command`.

    Returns:
        The decorator, which returns the group.
    """

    def register(body: Callable[..., None]) -> typer.Typer:
        commands = typer.Typer(name=body.__name__)
        commands.callback(
            cls=_Group,
            invoke_without_command=True,
            subcommand_metavar="| COMMAND [ARGS]...",
            epilog=f"Example: `{example}`",
        )(_make_callback(body))
        app.add_typer(commands)
        return commands

    return register


def _make_callback(body: Callable[..., None]) -> Callable[..., None]:
    """Make what typer calls: the function, with `--json`, checks, and a status for exceptions."""
    signature = inspect.signature(body, eval_str=True)
    parameters = list(signature.parameters.values())

    @functools.wraps(body)
    def run(json: bool, **options: Any) -> None:
        with answer(json), _turn_into_status(options):
            for parameter in parameters:
                _check(parameter, options[parameter.name])
            body(**options)

    shown = [*map(shorten_choices, parameters), _JSON]
    run.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    return run


def _check(parameter: inspect.Parameter, value: Any) -> None:
    """Call the functions of an option's annotation on its value, or on each of several."""
    checks = [part for part in get_args(parameter.annotation) if inspect.isfunction(part)]
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    for check in checks:
        for each in values:
            if each is not None:
                check(each)


@contextlib.contextmanager
def _turn_into_status(options: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        warn(f"interrupted{': ' + str(interrupt) if str(interrupt) else ''}")
        raise typer.Exit(_INTERRUPTED) from None
    except Exception as error:
        if not is_expected(error):
            raise
        warn(f"error: {name_options(describe_error(error), options)}")
        raise typer.Exit(_FAILED) from None


def is_expected(error: Exception) -> bool:
    """Tell what input, disk or arguments can cause from a fault of the program."""
    if isinstance(error, VAEAugError | ValueError | OSError):
        return True
    # What tf.data raises on damaged input; the class can be named only where it is loaded.
    tensorflow = sys.modules.get("tensorflow")
    return isinstance(tensorflow, types.ModuleType) and isinstance(error, tensorflow.errors.OpError)


def describe_error(error: Exception) -> str:
    """Return what an error says, in one line."""
    text = str(getattr(error, "message", None) or error) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}."
    # TensorFlow wraps its messages in the names of nodes and operations.
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", text, flags=re.DOTALL)
    return " ".join(text.split())


def name_options(text: str, options: dict[str, Any]) -> str:
    """Put options in the place of the arguments of Python that a message names."""
    for name in options:
        option = f"--{name.replace('_', '-')}"
        for both in (f"{name}=True ({option})", f"{option} ({name}=True)"):
            text = text.replace(both, option)
        text = re.sub(rf"^{name} (?=must|wants)", f"{option} ", text)
        text = re.sub(rf"(?<![\w(.-]){name}=(?=\w|['\"])", f"{option} ", text)
        text = re.sub(rf"(?<![\w(.-]){name}=", option, text)
    return text
