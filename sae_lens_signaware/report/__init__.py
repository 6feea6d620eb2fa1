"""Report: self-contained HTML pages from result files; nothing is measured here."""

from pathlib import Path

from sae_lens_signaware.checks import ConfigError, require
from sae_lens_signaware.files import write_text

__all__ = ["write_latent_figure", "write_report"]


def write_report(results: str | Path, out: str | Path, latents_only: bool = False) -> Path:
    """Write the page of all results at or below a folder.

    Args:
        results: the ``--out`` folder of a sweep, or a folder that holds several.
        out: HTML file to write; a reader sees the whole file or none.
        latents_only: whether the page is the browser of latents alone. It is small, as it has no
            chart that needs plotly.

    Raises:
        ConfigError: there is no folder, no result in it, or no plotly, or a file is not a result.
    """
    from sae_lens_signaware.report.load import read_latents, read_results
    from sae_lens_signaware.report.page import latents_page, page
    from sae_lens_signaware.report.sections import sections

    results, out = Path(results), _file_to_write(out)
    if latents_only:
        text = latents_page(read_latents(results))
    else:
        script = plotly_js()  # what is not installed is said before anything is read
        content = read_results(results)
        text = page(content, sections(content), script)
    write_text(text, out)
    return out


def write_latent_figure(
    latents: str | Path,
    latent: int,
    out: str | Path,
    title: str | None = None,
    n_contexts: int = 4,
) -> Path:
    """Write an SVG figure of one latent: both sides with histogram, top logits and contexts.

    Args:
        latents: a file that a sweep wrote to its folder ``latents``.
        latent: its index in the SAE.
        out: SVG file to write.
        title: stands behind the latent's number; None names the cell and the SAE.
        n_contexts: contexts of each side at most.

    Raises:
        ConfigError: ``latents`` is no such file, or has no page of ``latent``, or ``out`` is a
            folder.
        InvalidInputError: ``n_contexts`` is below 1.
    """
    from sae_lens_signaware.report.latent_figure import latent_figure
    from sae_lens_signaware.report.load import read_latents_file

    out = _file_to_write(out)
    require(n_contexts >= 1, "n_contexts", n_contexts, "at least 1")
    found = read_latents_file(Path(latents))
    write_text(latent_figure(found, latent, title, n_contexts), out)
    return out


def _file_to_write(out: str | Path) -> Path:
    if Path(out).is_dir():
        raise ConfigError(f"out: must be a file to write, got the folder {out}")
    return Path(out)


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
