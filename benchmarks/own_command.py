"""The command line of a benchmark, as results/*.json hold it beside the numbers that it made."""

import shlex
import sys


def own_command() -> str:
    """Return the command that runs this process, as one types it into a shell."""
    return "python " + shlex.join(sys.argv)
