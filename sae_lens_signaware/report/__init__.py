"""Report: one self-contained HTML page from result files; nothing is measured here."""

from pathlib import Path

from sae_lens_signaware.checks import ConfigError

__all__ = ["write_report"]


def write_report(results: Path, out: Path) -> Path:
    """Write the page of all results at or below a folder.

    Args:
        results: the ``--out`` folder of a sweep, or a folder that holds several.
        out: HTML file to write; a reader sees the whole file or none.

    Raises:
        ConfigError: there is no folder, no result in it, or no plotly, or a file is not a result.
    """
    from sae_lens_signaware.files import write_text
    from sae_lens_signaware.report.load import read_results
    from sae_lens_signaware.report.page import page
    from sae_lens_signaware.report.sections import sections

    if out.is_dir():
        raise ConfigError(f"out: must be a file to write, got the folder {out}")
    content = read_results(results)
    write_text(page(content, sections(content), plotly_js()), out)
    return out


def plotly_js() -> str:
    """Return the source of plotly.js, from the installed plotly.

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
