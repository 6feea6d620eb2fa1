"""Command line: parse, call, print; no maths.

Nothing here imports torch, sae_lens or what needs them before a command runs, so that ``--help``
answers at once.
"""

import importlib
import importlib.metadata
import signal
import sys
from typing import Annotated, Any

import typer
from typer import Option

from sae_lens_signaware import __version__
from sae_lens_signaware.checks import one_line
from sae_lens_signaware.cli.common import errors, reports_errors, set_verbosity
from sae_lens_signaware.cli.running import demo, report, sweep, train
from sae_lens_signaware.cli.saes import analyze, audit, latents, merge, probe, push, split

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Sign-aware sparse autoencoders for SAELens.",
)

USAGE_ERROR: Any = typer.BadParameter.__base__
"""UsageError of click, or of the copy of click in newer typers, which has no public name."""


def _print_versions(asked: bool) -> None:
    if asked:
        lens = importlib.metadata.version("sae-lens")
        typer.echo(f"sae-lens-signaware {__version__}\nsae-lens {lens}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        Option("--version", callback=_print_versions, is_eager=True, help="Print versions; stop."),
    ] = False,
    quiet: Annotated[
        bool, Option("-q", "--quiet", help="Print errors alone; results go to their files.")
    ] = False,
    verbose: Annotated[
        bool, Option("-v", "--verbose", help="Print warnings and messages of libraries too.")
    ] = False,
    modules: Annotated[
        list[str] | None,
        Option(
            "--import", metavar="MODULE", help="Import a module of yours that registers an SAE."
        ),
    ] = None,
) -> None:
    """Take the options that stand before a command."""
    del version  # its callback has printed it
    if "" not in sys.path:
        sys.path.insert(0, "")  # as python -m has it
    for name in modules or ():
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever the module of a user raises
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise typer.BadParameter(f"--import {name}: {reason}") from None
    set_verbosity(quiet, verbose)


# train hands every flag that it does not know to SAELens's parser
_TRAIN = {"allow_extra_args": True, "ignore_unknown_options": True}
for _command in (demo, train, sweep, report, analyze, audit, latents, probe, split, merge, push):
    app.command(context_settings=_TRAIN if _command is train else None)(reports_errors(_command))


def main() -> None:
    """Entry point of ``sae-lens-signaware``."""
    # As Ctrl-C: what can be gone on with is saved, and nothing half-written stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(app(standalone_mode=False))
    except USAGE_ERROR as error:
        message = error.format_message()
        if "\n" in message:  # no error, but the help that a call without a command prints
            error.show()
        else:
            errors.print(f"Error: {message}")
        sys.exit(error.exit_code)
