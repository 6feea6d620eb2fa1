"""One self-contained HTML page from the result files of sweeps; reads results, computes nothing."""

import os
from pathlib import Path

from sae_lens_signaware.checks import ConfigError

__all__ = ["write_report"]


def write_report(results: Path, out: Path) -> Path:
    """Write the page of all results at or below a folder.

    Args:
        results: the ``--out`` folder of a sweep, or a folder that holds several.
        out: HTML file to write; a reader sees the whole file or none.

    Raises:
        ConfigError: no folder, no result in it, a file that is none, or plotly is missing; one line.
    """
    from sae_lens_signaware.report.load import read_results
    from sae_lens_signaware.report.page import page
    from sae_lens_signaware.report.sections import sections

    if out.is_dir():
        raise ConfigError(f"out: must be a file to write, got the folder {out}")
    found = read_results(results)
    text = page(found, sections(found), plotly_js())
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        # "replace": a token may hold half a surrogate pair, which no file can
        temporary.write_text(text, encoding="utf-8", errors="replace")
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def plotly_js() -> str:
    """plotly.js as the installed plotly brings it.

    Raises:
        ConfigError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ConfigError(
            "report: plotly is not installed; run: pip install 'sae-lens-signaware[report]'"
        ) from None
    return get_plotlyjs()
