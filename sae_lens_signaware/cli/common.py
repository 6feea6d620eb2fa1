"""What commands share: what they print, and one line and an exit code for errors."""

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

EXIT_FAILED = 1
GO_ON = "Run the same command again to go on from there."
HTTP_CLIENTS = ("httpx", "requests", "wandb")  # whose errors are of the network, and no defect


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
            code, message = 130, f"Interrupted. {error}".strip()
        except InvalidInputError as error:
            code, message = 2, one_line(error)
        except Exception as error:
            is_of_network = type(error).__module__.split(".")[0] in HTTP_CLIENTS
            if not is_of_network and not isinstance(error, OSError | RuntimeError | MemoryError):
                raise
            code, message = EXIT_FAILED, one_line(error)
        errors.print(f"Error: {message}")
        raise typer.Exit(code)

    return wrapper


def print_and_write(table: object, out: Path | None, write: Callable[[Path], object]) -> None:
    """Print the table of a result, and write the result where ``out`` says so."""
    console.print(table)
    if out is not None:
        write(out)
        console.print(f"Written to {out}")
