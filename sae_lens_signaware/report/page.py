"""The page: a section for each sweep, and the browser of latents."""

from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from sae_lens_signaware import __version__
from sae_lens_signaware.checks import InvalidInputError, require
from sae_lens_signaware.files import write_text
from sae_lens_signaware.report import charts
from sae_lens_signaware.report.drawing import bars, curve, largest_act
from sae_lens_signaware.report.load import Results, read_results
from sae_lens_signaware.report.text import render

if TYPE_CHECKING:
    from sae_lens_signaware.report.latents import LatentPages
    from sae_lens_signaware.sweep.results import SweepSummary


def write_report(results: str | Path, out: str | Path) -> Path:
    """Write one self-contained HTML page of all results at or below a folder.

    A folder of latents alone gives a small page, as no chart of it needs plotly.

    Args:
        results: the ``--out`` folder of a sweep, a folder that holds several, or its ``latents``.
        out: HTML file to write; a reader sees the whole file or none.

    Returns:
        ``out``.

    Raises:
        InvalidInputError: ``results`` is no such folder, a file in it is none of a sweep's, ``out``
            is a folder, or plotly is not installed.
    """
    out = Path(out)
    require(not out.is_dir(), "out", str(out), "a file to write")
    write_text(page(read_results(Path(results))), out)
    return out


def write_browser(latents: "LatentPages", out: str | Path) -> None:
    """Write the browser of the latents of one SAE as a self-contained HTML page."""
    write_text(page(Results({}, {latents.name: latents})), out)


def page(results: Results) -> str:
    """Return the HTML of the page."""
    look = charts.looks(results.saes)
    return render(
        "page.html",
        version=__version__,
        plotly=_plotly_js() if results.sweeps else None,
        sweeps=[_sweep(name, summary, look) for name, summary in results.sweeps.items()],
        latents=[_latents(name, latents) for name, latents in results.latents.items()],
    )


def _sweep(name: str, summary: "SweepSummary", look: dict[str, charts.Look]) -> dict[str, object]:
    cells = []
    for cell in dict.fromkeys(r.cell for r in summary.results):
        runs = [r for r in summary.results if r.cell == cell]
        compared = [c for c in summary.comparisons if c.cell == cell]
        figure = charts.frontier(runs, compared, look)
        cells.append({"name": cell, "frontier": figure, "dead": charts.dead_shares(runs, look)})
    shown = {r.sae: look[r.sae] for r in summary.results}
    return {"name": name, "summary": summary, "cells": cells, "looks": shown}


def _latents(name: str, latents: "LatentPages") -> dict[str, object]:
    pages = []
    for one in latents.pages:
        dial = one["dial"] and one["dial"] | {"curve": curve(one["dial"])}
        drawn = {"bars": bars(one["histogram"]), "largest": largest_act(one), "dial": dial}
        pages.append(one | drawn)
    return {"name": name, "hook_name": latents.hook_name, "pages": pages}


def _plotly_js() -> Markup:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise InvalidInputError(
            "report: plotly is not installed; run: pip install 'sae-lens-signaware[report]'"
        ) from None
    return Markup(get_plotlyjs())
