"""What a command does where something is wrong: one line on standard error and an exit code."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console

# what is printed are paths and messages, in which brackets and colons mean themselves
console = Console(markup=False, emoji=False)
errors = Console(stderr=True, markup=False, emoji=False)

EXIT_WRONG_INPUT = 2
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

# What torch.save says where a write fails: a RuntimeError, and no OSError.
TORCH_WRITER = "PytorchStreamWriter"

HTTP_CLIENTS = ("httpx", "httpx2", "requests")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def reports_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Wrong input: one line, exit code 2. The Hub, the disk or training failed: one line, 1. Ctrl-C: 130."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )
        from safetensors import SafetensorError

        from sae_lens_signaware.checks import InvalidInputError
        from sae_lens_signaware.saes.training import NON_FINITE_MESSAGE

        warnings.filterwarnings("ignore", category=UserWarning)
        try:
            return command(*args, **kwargs)
        except InvalidInputError as error:
            code, message = EXIT_WRONG_INPUT, _one_line(error)
        except LocalEntryNotFoundError as error:
            # before its base class EntryNotFoundError: the Hub failed, and the cache has no copy
            code, message = EXIT_FAILED, f"Hub: {_one_line(error)}"
        except (RepositoryNotFoundError, EntryNotFoundError, HFValidationError) as error:
            code, message = EXIT_WRONG_INPUT, f"Hub: {_one_line(error)}"
        except HfHubHTTPError as error:
            code, message = EXIT_FAILED, f"Hub: {_one_line(error)}"
        except (OSError, SafetensorError) as error:
            code, message = (
                EXIT_FAILED,
                _one_line(error),
            )  # a full disk, a file that may not be read
        except Exception as error:
            if (
                type(error).__module__.split(".")[0] in HTTP_CLIENTS
            ):  # huggingface_hub lets them through
                message = f"Hub: {type(error).__name__}: {_one_line(error)}"
            elif NON_FINITE_MESSAGE in str(error):
                message = NON_FINITE_MESSAGE
            elif TORCH_WRITER in str(error):
                message = "the trainer state could not be written whole; is the disk full?"
            else:
                raise
            code = EXIT_FAILED
        except KeyboardInterrupt as error:
            code, message = EXIT_INTERRUPTED, f"Interrupted. {_one_line(error)}".strip()
        errors.print(f"Error: {message}", soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(code)

    return wrapper
