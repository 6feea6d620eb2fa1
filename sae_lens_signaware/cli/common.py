"""What commands share: what they print, one line and an exit code for errors, cheap checks first.

Nothing here imports torch or sae_lens, which take seconds.
"""

import functools
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import typer
from rich.console import Console

from sae_lens_signaware.checks import InvalidInputError, one_line

# what is printed are paths and messages, in which brackets and colons mean themselves
console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
errors = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)

EXIT_WRONG_INPUT = 2
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
GO_ON = "Run the same command again to go on from there."
HTTP_CLIENTS = ("httpx", "requests", "wandb")
"""Modules of errors that are a failure of the network, and no defect."""


def set_verbosity(quiet: bool, verbose: bool) -> None:
    """Say what commands print from here on: errors alone, or messages of libraries too."""
    console.quiet = quiet
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"  # tqdm reads it when it is imported
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    else:
        warnings.filterwarnings("ignore", category=UserWarning)
        # SAELens sets trust_remote_code by default, and datasets answers with three lines
        logging.getLogger("datasets.load").setLevel(logging.CRITICAL)


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a command raises into one line and an exit code.

    The code is 2 for wrong input; 1 where the Hub, the disk, the memory or the training failed; 130
    for Ctrl-C. Any other error is a defect, and keeps its traceback.
    """

    @functools.wraps(command)
    def wrapper(*args: object, **kwargs: object) -> None:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as error:
            code, message = EXIT_INTERRUPTED, f"Interrupted. {error}".strip()
        except InvalidInputError as error:
            code, message = EXIT_WRONG_INPUT, one_line(error)
        except (OSError, RuntimeError, MemoryError) as error:
            code, message = EXIT_FAILED, one_line(error)
        except Exception as error:
            if type(error).__module__.split(".")[0] not in HTTP_CLIENTS:
                raise
            code, message = EXIT_FAILED, one_line(error)
        errors.print(f"Error: {message}")
        raise typer.Exit(code)

    return wrapper


def require_file(field: str, path: Path) -> None:
    """Raise InvalidInputError where there is no file to read."""
    if not path.is_file():
        raise InvalidInputError(f"{field}: {path} is no file")


def require_free(field: str, path: Path) -> None:
    """Raise InvalidInputError where something is at ``path`` already."""
    if os.path.lexists(path):
        raise InvalidInputError(f"{field}: {path} exists already; name a new one")


def require_sae(reference: str) -> None:
    """Raise InvalidInputError where an SAE is neither a folder nor REPO:ID."""
    if not Path(reference).is_dir() and ":" not in reference:
        raise InvalidInputError(f"SAE: {reference} is no folder, and no REPO:ID on the Hub")


def require_output(path: Path | None) -> None:
    """Raise InvalidInputError where no file can be made at ``path``, if one is asked for."""
    if path is None:
        return
    if path.is_dir():
        raise InvalidInputError(f"out: {path} is a folder; name a file")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InvalidInputError(f"out: {path} cannot be written")


def write_and_print(out: Path | None, write: Callable[[Path], object], *tables: object) -> None:
    """Write a result, where ``out`` says so, and print its tables."""
    if out is not None:
        write(out)
    for table in tables:
        console.print(table)
    if out is not None:
        console.print(f"Written to {out}")
