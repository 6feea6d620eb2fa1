"""Lines on a console that may be the caller's, and numbers in them."""

from rich.console import Console


def say(console: Console, line: str) -> None:
    """Print a line as it is: names and paths may hold what rich takes for markup; none is cut."""
    console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def percent(share: float) -> str:
    """Return a share in percent, of three digits: ``"0.4%"``."""
    return f"{100 * share:.3g}%"
