"""The skeleton of the page: head, summary, contents; style and script are in files beside it."""

from collections.abc import Sequence
from importlib import resources

import sae_lens_signaware
from sae_lens_signaware.report import markup
from sae_lens_signaware.report.load import Results
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
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the results</a>
<header><h1>{title}</h1><p class="summary">{summary}</p>
<noscript><p class="warning">The charts and the browser of latents need JavaScript.</p></noscript>
<nav aria-label="Contents"><ul>{contents}</ul></nav></header>
<main id="content">{body}</main>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


def page(results: Results, sections: Sequence[Section], plotly_js: str) -> str:
    """Return the HTML of the whole page."""
    contents = "".join(
        f'<li><a href="#{markup.text(name)}">{markup.text(title)}</a></li>'
        for name, title, _ in sections
    )
    return _PAGE.format(
        policy=POLICY,
        title="Signed sparse autoencoders: results",
        style=_file("report.css"),
        summary=markup.text(_summary(results)),
        contents=contents,
        body="\n".join(markup.section(*section) for section in sections),
        plotly=plotly_js,
        script=_file("report.js"),
    )


def _file(name: str) -> str:
    return (resources.files(__package__ or __name__) / name).read_text(encoding="utf-8")


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
        f"{len(runs):,} runs of {len(saes)} SAEs on {len(cells)} "
        f"{'cell' if len(cells) == 1 else 'cells'} ({cell_names}), {len(seeds)} "
        f"{'seed' if len(seeds) == 1 else 'seeds'}; measured on {tokens} held-out tokens "
        f"({sources}) with {measured_by}; page by sae-lens-signaware "
        f"{sae_lens_signaware.__version__}."
    )
