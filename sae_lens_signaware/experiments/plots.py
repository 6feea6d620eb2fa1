"""The picture of frontiers that the demo and a sweep draw: R2 against L0, on a log scale."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sae_lens_signaware.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUARTERS = (1.0, 1.25, 1.5, 1.75)
"""Ticks between one power of two and the next."""


@contextlib.contextmanager
def frontier_axes(path: Path, title: str, size: tuple[float, float]) -> Iterator["Axes"]:
    """Yield the axes to draw in, then write the picture to ``path``.

    Args:
        size: width and height in inches.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    # without pyplot, whose backend is the caller's, as in a notebook
    fig = Figure(figsize=size, dpi=150, layout="constrained")
    ax = fig.subplots()
    yield ax
    ax.set_xscale("log", base=2)
    low, high = ax.get_xlim()
    # powers of two alone would give a narrow range one tick or none
    ax.xaxis.set_major_locator(LogLocator(2, subs=(1.0,) if high > 4 * low else QUARTERS))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("L0 (active latents per token)")
    ax.set_ylabel("R² on held-out tokens")
    ax.set_title(as_text(title), loc="left", fontsize=10)
    ax.grid(alpha=0.3)
    with replacing(path) as temporary:
        fig.savefig(temporary, format=path.suffix.removeprefix("."))


def as_text(name: str) -> str:
    """A name of a user as matplotlib shows it: no part of it is a formula.

    A legend leaves out a label that starts with an underscore, so a space of no width goes before.
    """
    return ("\u200b" if name.startswith("_") else "") + name.replace("$", r"\$")
