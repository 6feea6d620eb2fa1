"""What a command prints, and what it does where something is wrong: one line and an exit code."""

import functools
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import typer
from rich.console import Console

from sae_lens_signaware.checks import (
    ConfigError,
    FailedTraining,
    InvalidInputError,
    one_line,
    require_writable,
)
from sae_lens_signaware.printing import say

# what is printed are paths and messages, in which brackets and colons mean themselves
console = Console(markup=False, emoji=False)
errors = Console(stderr=True, markup=False, emoji=False)

EXIT_WRONG_INPUT = 2
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

GO_ON = "Run the same command again to go on from there."
"""What follows "Interrupted." of a command that resumes."""

# What torch.save says where a write fails: a RuntimeError, and no OSError.
TORCH_WRITER = "PytorchStreamWriter"

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says where a device, or the machine, has no room for a tensor."""


def set_verbosity(quiet: bool, verbose: bool) -> None:
    """Say what commands print from here on.

    Args:
        quiet: errors alone. No progress bar either, of SAELens's included.
        verbose: warnings and log messages of libraries too.
    """
    console.quiet = quiet
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"  # tqdm reads it when it is imported
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    else:
        warnings.filterwarnings("ignore", category=UserWarning)
        logging.getLogger("datasets.load").addFilter(_is_of_use)


def _is_of_use(record: logging.LogRecord) -> bool:
    # SAELens sets trust_remote_code by default, and datasets answers with three lines of errors
    return "trust_remote_code" not in record.getMessage()


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
            code, message = EXIT_INTERRUPTED, f"Interrupted. {one_line(error)}".strip()
        except Exception as error:
            expected = _code_and_message(error)
            if expected is None:
                raise
            code, message = expected
        print_error(message)
        raise typer.Exit(code)

    return wrapper


def print_error(message: str) -> None:
    """Print the one line of an error."""
    say(errors, f"Error: {message}")


def print_failures(failures: Mapping[str, str]) -> None:
    """Print a line for each run of a sweep that failed.

    Args:
        failures: name of the run -> reason.
    """
    for name, reason in failures.items():
        say(errors, f"failed: {name}: {reason}")


def write_and_print(out: Path | None, write: Callable[[Path], object], *tables: object) -> None:
    """Write a result, where ``out`` says so, and print its tables.

    It is written first, since printing may fail, as where the reader of a pipe is gone.
    """
    if out is not None:
        write(out)
    for table in tables:
        console.print(table)
    if out is not None:
        say(console, f"Written to {out}")


def require_file(out: Path) -> None:
    """Raise ConfigError, before long work starts, where no file can be made at ``out``."""
    if out.is_dir():
        raise ConfigError(f"out: {out} is a folder; name a file")
    # /dev/stdout may lead to a file, which the tables are printed to as well
    is_stream = str(out.absolute()).startswith(("/dev/std", "/dev/fd/", "/proc/"))
    if is_stream or (out.exists() and not out.is_file()):
        raise ConfigError(f"out: {out} is a device or a pipe; name a file")
    require_writable("out's folder", out.parent)


def _code_and_message(error: Exception) -> tuple[int, str] | None:
    """The exit code and the line for an error that a user can meet; None for a defect."""
    # here, since they import torch and the Hub's client
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )
    from safetensors import SafetensorError

    from sae_lens_signaware.hub.load import is_of_http_client
    from sae_lens_signaware.saes.finite_losses import NON_FINITE_MESSAGE

    message = one_line(error)
    if isinstance(error, InvalidInputError):
        return EXIT_WRONG_INPUT, message
    if isinstance(error, FailedTraining):
        return EXIT_FAILED, message
    # before its base class EntryNotFoundError: the Hub failed, and the cache has no copy
    if isinstance(error, LocalEntryNotFoundError):
        return EXIT_FAILED, f"Hub: {message}"
    if isinstance(error, RepositoryNotFoundError | EntryNotFoundError | HFValidationError):
        return EXIT_WRONG_INPUT, f"Hub: {message}"
    if isinstance(error, HfHubHTTPError):
        return EXIT_FAILED, f"Hub: {message}"
    if isinstance(error, OSError | SafetensorError):  # a full disk, a file that may not be read
        return EXIT_FAILED, message
    if is_of_http_client(error):
        return EXIT_FAILED, f"Hub: {type(error).__name__}: {message}"
    if type(error).__module__.startswith("wandb."):  # without a login, or a server
        return EXIT_FAILED, f"W&B: {message}; logger.log_to_wandb: false trains without it"
    if NON_FINITE_MESSAGE in message:
        return EXIT_FAILED, NON_FINITE_MESSAGE
    if TORCH_WRITER in message:
        return EXIT_FAILED, "the trainer state could not be written whole; is the disk full?"
    if isinstance(error, MemoryError) or any(words in message for words in OUT_OF_MEMORY):
        return EXIT_FAILED, f"out of memory: {message or type(error).__name__}"
    return None
