"""The skeletons of the pages; style and script are files in ``assets``."""

from collections.abc import Sequence
from importlib import resources

import sae_lens_signaware
from sae_lens_signaware.report import markup
from sae_lens_signaware.report.browser import browser
from sae_lens_signaware.report.colours import DARK
from sae_lens_signaware.report.load import LabelledLatents, Results
from sae_lens_signaware.report.markup import Section

# Nothing may be loaded from anywhere; the page holds all it needs.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
<script>{before}</script>
</head>
<body>
<a class="skip" href="#content">Skip to the results</a>
<header><div class="top"><h1>{title}</h1><button type="button" id="scheme"></button></div>
<p class="summary">{summary}</p>
<noscript><p class="warning">The charts and the browser of latents need JavaScript.</p></noscript>
</header>
{body}
{scripts}
</body>
</html>
"""

_COLUMNS = """<div class="columns"><nav aria-label="Contents">
<p>Contents</p><ul>{contents}</ul></nav>
<main id="content">{body}</main></div>"""

_START = """startScheme();
if (byId("latents-data")) new LatentBrowser(parsed("latents-data")).start();
"""
_READY = 'document.documentElement.dataset.ready = "yes";'
_BROWSER = ("drawing.js", "latent.js", "browser.js")


def page(results: Results, sections: Sequence[Section], plotly_js: str) -> str:
    """Return the HTML of the whole report."""
    contents = "".join(
        f'<li><a href="#{markup.text(name)}">{markup.text(title)}</a></li>'
        for name, title, _ in sections
    )
    body = "\n".join(markup.section(*section) for section in sections)
    start = f"{_START}startCharts().then(() => {{ {_READY} }});"
    scripts = (
        f"{markup.data('dark-colours', DARK)}<script>{plotly_js}</script>"
        f"<script>{_script(*_BROWSER, 'charts.js', start=start)}</script>"
    )
    return _filled(
        title="Signed sparse autoencoders: results",
        summary=_summary(results),
        style=_files("base.css", "report.css", "browser.css"),
        body=_COLUMNS.format(contents=contents, body=body),
        scripts=scripts,
    )


def latents_page(latents: Sequence[LabelledLatents]) -> str:
    """Return the HTML of a page of the browser of latents alone, which needs no plotly."""
    n_latents = sum(len(one.latents.pages) for one in latents)
    return _filled(
        title="Signed latents",
        summary=(
            f"{n_latents:,} latents of {_number_of(len(latents), 'SAE')}; page by "
            f"sae-lens-signaware {sae_lens_signaware.__version__}."
        ),
        style=_files("base.css", "browser.css"),
        body=f'<main id="content">{browser(latents)}</main>',
        scripts=f"<script>{_script(*_BROWSER, start=_START + _READY)}</script>",
    )


def _filled(title: str, summary: str, style: str, body: str, scripts: str) -> str:
    return _PAGE.format(
        policy=POLICY,
        title=title,
        summary=markup.text(summary),
        style=style,
        before=_files("before.js"),
        body=body,
        scripts=scripts,
    )


def _script(*names: str, start: str) -> str:
    return f'"use strict";\n(() => {{\n{_files("common.js", *names)}\n{start}\n}})();'


def _files(*names: str) -> str:
    folder = resources.files(__package__ or __name__) / "assets"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def _number_of(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def _summary(results: Results) -> str:
    runs = [r for sweep in results.sweeps for r in sweep.summary.results]
    if not runs:
        return (
            f"No finished run; read from {results.folder} by "
            f"sae-lens-signaware {sae_lens_signaware.__version__}."
        )
    saes, cells, seeds = ({getattr(r, name) for r in runs} for name in ("sae", "cell", "seed"))
    cell_names = ", ".join(dict.fromkeys(r.cell for r in runs))
    tokens = " or ".join(f"{n:,}" for n in sorted({r.quality.n_tokens for r in runs}))
    sources = ", ".join(dict.fromkeys(r.quality.tokens_from for r in runs))
    versions = sorted({(r.quality.sae_lens_version, r.quality.torch_version) for r in runs})
    measured_by = " or ".join(
        f"sae-lens {sae_lens} and torch {torch}" for sae_lens, torch in versions
    )
    return (
        f"{len(runs):,} runs of {_number_of(len(saes), 'SAE')} on "
        f"{_number_of(len(cells), 'cell')} ({cell_names}), {_number_of(len(seeds), 'seed')}; "
        f"measured on {tokens} held-out tokens ({sources}) with {measured_by}; page by "
        f"sae-lens-signaware {sae_lens_signaware.__version__}."
    )
