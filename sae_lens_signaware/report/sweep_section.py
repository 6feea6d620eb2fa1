"""The section of one sweep: verdicts, frontiers, dead latents, and a table of all runs."""

from collections.abc import Sequence

from sae_lens_signaware.experiments.sweep.comparison import (
    DEAD_NOTE,
    VERDICT_COLUMNS,
    VERDICT_NOTE,
)
from sae_lens_signaware.experiments.sweep.frontier import N_GRID
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.summary import (
    SweepSummary,
    marked_l0,
    missed_l0,
    missed_notes,
)
from sae_lens_signaware.report import figures, markup
from sae_lens_signaware.report.colours import DARK, SYMBOLS, Style
from sae_lens_signaware.report.load import Sweep

FULL = "full"
"""The SAE that the others of a sweep called ``ablations`` are compared with."""

AXES = (
    "R² is the share of the activations' variance that the SAE reconstructs, on tokens it was not "
    "trained on; L0 is the mean number of active latents per token. Higher and further left is "
    "better. Each thin line is one seed."
)
COMPARED = " Grey: the L0 range in which two frontiers are compared, one layer for each comparison."
HOLLOW = " Hollow: the run misses the L0 it was asked for; the text at the point says by how much."


def sweep_section(name: str, sweep: Sweep, looks: dict[str, Style]) -> markup.Section:
    """Make the section of one sweep: verdicts, frontiers, dead latents, all runs."""
    summary = sweep.summary
    cells = list(dict.fromkeys(r.cell for r in summary.results))
    parts = [markup.command(summary.command), _unfinished(summary)]
    if sweep.ablations and any(r.sae == FULL for r in summary.results):
        parts += ["<h3>Differences from the full training</h3>", _ablations(summary.results)]
    if summary.comparisons:
        parts += ["<h3>Verdicts</h3>", _verdicts(summary)]
    if cells:
        parts += [
            "<h3>Frontiers</h3>",
            markup.note(_what_frontiers_show(summary)),
            _boxes(name, summary, looks),
            markup.charts(
                (f"{name}-frontier-{i}", cell, figures.frontier(summary, cell, looks))
                for i, cell in enumerate(cells)
            ),
            "<h3>Dead latents</h3>",
            markup.note(
                f"Share of latents that never fired on {_tokens(summary.results)} held-out tokens; "
                "lower is better, and the share shrinks with more tokens. Hollow: none dead, drawn "
                "as half a latent."
            ),
            markup.charts(
                (f"{name}-dead-{i}", cell, figures.dead_shares(summary, cell, looks))
                for i, cell in enumerate(cells)
            ),
            _runs(summary.results),
        ]
    title = "Ablations" if sweep.ablations else f"Sweep {sweep.name}"
    return name, title, f'<div class="sweep">{"".join(parts)}</div>'


def _unfinished(summary: SweepSummary) -> str:
    missing = summary.n_runs - len(summary.results)
    if not missing and not summary.failures:
        return ""
    items = "".join(
        f"<li><b>{markup.text(run)}</b>: {markup.text(reason)}</li>"
        for run, reason in summary.failures.items()
    )
    words = f"{len(summary.results):,} of {summary.n_runs:,} runs are finished."
    return f'<div class="warning"><p>{words}</p>{f"<ul>{items}</ul>" if items else ""}</div>'


def _tokens(results: Sequence[RunResult]) -> str:
    counts = sorted({r.quality.n_tokens for r in results})
    return " or ".join(f"{n:,}" for n in counts)


def _what_frontiers_show(summary: SweepSummary) -> str:
    compared = COMPARED if any(c.summary.n_seeds for c in summary.comparisons) else ""
    hollow = HOLLOW if any(missed_l0(r) for r in summary.results) else ""
    return AXES + compared + hollow


def _verdicts(summary: SweepSummary) -> str:
    all_texts = [c.row() for c in summary.comparisons]
    rows = [(*t[:3], *(x.replace("-", markup.MINUS) for x in t[3:])) for t in all_texts]
    return (
        markup.note(
            f"A against B, at {N_GRID} points of the L0 range that both frontiers cover. The "
            "smallest gap is the least R² of A less R² of B there (mean ± standard deviation over "
            "seeds). " + VERDICT_NOTE
        )
        + markup.note(DEAD_NOTE)
        + markup.table(VERDICT_COLUMNS, rows, n_names=3)
        + "".join(markup.note(words) for words in summary.verdict_notes())
    )


def _boxes(name: str, summary: SweepSummary, looks: dict[str, Style]) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" checked value="{markup.text(sae)}">'
        f'<span class="swatch" aria-hidden="true" style="--light:{looks[sae].colour};'
        f'--dark:{DARK[looks[sae].colour]}">━{SYMBOLS[looks[sae].symbol]}━</span>'
        f"{markup.text(sae)}</label>"
        for sae in dict.fromkeys(r.sae for r in summary.results)
    )
    return (
        f'<fieldset class="controls boxes" id="{markup.text(name)}-boxes">'
        "<legend>Shown in all charts of this section; drag in a chart to zoom, double-click to go "
        "back</legend>"
        f"{boxes}</fieldset>"
    )


def _ablations(results: Sequence[RunResult]) -> str:
    full = {(r.cell, r.seed, r.field, r.value): r for r in results if r.sae == FULL}
    rows = []
    for r in results:
        base = full.get((r.cell, r.seed, r.field, r.value))
        if base is None or r is base:
            continue
        q, b = r.quality, base.quality
        rows.append(
            (
                *(r.cell, r.sae, f"{r.field} {r.value:g}", r.seed),
                markup.number(q.explained_variance, ".4f"),
                markup.number(q.explained_variance - b.explained_variance, "+.4f"),
                markup.number(q.l0, ".2f"),
                markup.number(q.l0 - b.l0, "+.2f"),
                markup.number(q.dead_share, ".2%"),
                markup.number(100 * (q.dead_share - b.dead_share), "+.2f"),
            )
        )
    columns = (
        "cell",
        "SAE",
        "swept",
        "seed",
        "R²",
        "Δ R²",
        "L0",
        "Δ L0",
        "dead",
        "Δ dead (points)",
    )
    return markup.note(
        f"Each SAE, and Δ: less the SAE named {FULL} of the same cell, seed and swept value. A "
        "difference in R² says little where L0 differs as well; the frontiers below compare at "
        "equal L0."
    ) + markup.table(columns, rows, n_names=3)


def _runs(results: Sequence[RunResult]) -> str:
    rows = []
    for r in results:
        q = r.quality
        seconds = None if r.seconds_per_step is None else 1000 * r.seconds_per_step
        rows.append(
            (
                *(r.cell, r.sae, f"{r.field} {r.value:g}", r.seed, q.d_sae, marked_l0(r)),
                *(f"{r.l0_pos:.2f}", f"{r.l0_neg:.2f}"),
                markup.number(q.explained_variance, ".4f"),
                *(f"{q.dead_share:.2%}", f"{q.bipolar_share:.1%}", markup.number(seconds, ".1f")),
            )
        )
    columns = ("cell", "SAE", "swept", "seed", "width", "L0", "L0+", "L0−", "R²", "dead", "bipolar")
    body = markup.table((*columns, "ms / step"), rows, n_names=3)
    body += "".join(markup.note(words) for words in missed_notes(results))
    return f"<details><summary>All {len(rows):,} runs as a table</summary>{body}</details>"
