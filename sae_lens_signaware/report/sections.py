"""The sections of the page, in its order, each a name, a title and HTML."""

from collections.abc import Iterable, Sequence

from sae_lens_signaware.experiments.protocols.result import SD, ProtocolResult
from sae_lens_signaware.experiments.sweep.runs import RunResult
from sae_lens_signaware.experiments.sweep.summary import VERDICT_COLUMNS, Comparison, SweepSummary
from sae_lens_signaware.report import figures, markup
from sae_lens_signaware.report.browser import browser
from sae_lens_signaware.report.load import Latents, Results, Sweep

Section = tuple[str, str, str]

FULL = "full"
"""The SAE that the others of a sweep called ``ablations`` are compared with."""

AXES = (
    "R² is the share of the activations' variance that the SAE reconstructs, on tokens it was not trained "
    "on; L0 is the mean number of open latents per token. Higher and further left is better. Each thin "
    "line is one seed."
)
COMPARED = " Grey: the L0 range in which two frontiers are compared, one layer for each comparison."


def sections(results: Results) -> list[Section]:
    """All sections that the results have something for."""
    looks = figures.styles(results.sae_names)
    found: list[Section] = []
    for i, sweep in enumerate(results.sweeps):
        found.append(_sweep(f"sweep-{i}", sweep, looks))
    if results.latents:
        found.append(("census", "Census of the two sides", _census(results.latents, looks)))
        found.append(("calibration", "Calibration", _calibration(results.latents)))
    audited = [one for one in results.latents if one.latents.audit]
    if audited:
        found.append(("audit", "Audit of the plain SAE", _audit(audited)))
    for i, protocol in enumerate(results.protocols):
        found.append((f"protocol-{i}", protocol.title, _protocol(protocol)))
    if any(one.latents.pages for one in results.latents):
        found.append(("latents", "Browser of latents", browser(results.latents)))
    return found


def _protocol(protocol: ProtocolResult) -> str:
    # a deviation stands behind its mean, not in a column of its own
    shown = [i for i, name in enumerate(protocol.columns) if not name.endswith(SD)]
    rows = []
    for row in protocol.rows:
        cells = [row[i] for i in shown]
        for place, i in enumerate(shown):
            deviation = (
                row[i + 1] if protocol.columns[i + 1 :][:1] == [protocol.columns[i] + SD] else None
            )
            if deviation is not None:
                cells[place] = f"{markup.cell(row[i])} ± {float(deviation):.2g}"
        rows.append(cells)
    made_by = ", ".join(f"{name} {version}" for name, version in protocol.versions.items())
    return (
        markup.note(protocol.question)
        + markup.table([protocol.columns[i] for i in shown], rows)
        + "".join(markup.note(words) for words in protocol.notes)
        + _command(protocol.command)
        + markup.note(f"Made with {made_by}.")
    )


def _command(command: str) -> str:
    return f'<p class="command"><code>{markup.text(command)}</code></p>' if command else ""


def _sweep(name: str, sweep: Sweep, looks: dict[str, figures.Style]) -> Section:
    summary = sweep.summary
    cells = list(dict.fromkeys(r.cell for r in summary.results))
    parts = [_command(summary.command), _unfinished(summary)]
    if sweep.ablations and any(r.sae == FULL for r in summary.results):
        parts += ["<h3>Differences from the full training</h3>", _ablations(summary.results)]
    if summary.comparisons:
        parts += ["<h3>Verdicts</h3>", _verdicts(summary.comparisons)]
    if cells:
        parts += [
            "<h3>Frontiers</h3>",
            markup.note(AXES + (COMPARED if summary.comparisons else "")),
            _boxes(name, summary, looks),
            _charts(
                (f"{name}-frontier-{i}", cell, figures.frontier(summary, cell, looks))
                for i, cell in enumerate(cells)
            ),
            "<h3>Dead latents</h3>",
            markup.note(
                f"Share of latents that never fired on {_tokens(summary.results)} held-out tokens; "
                "lower is better, and the share shrinks with more tokens. Hollow: none dead, drawn "
                "as half a latent."
            ),
            _charts(
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


def _verdicts(comparisons: Sequence[Comparison]) -> str:
    all_texts = [c.row() for c in comparisons]
    rows = [(*t[:3], *(x.replace("-", markup.MINUS) for x in t[3:])) for t in all_texts]
    return markup.note(
        "A against B, at 64 points of the L0 range that both frontiers cover. The smallest gap is "
        "the least R² of A less R² of B there (mean ± standard deviation over seeds); A dominates "
        "where it is above 0. The last column is A's dead share over B's, the geometric mean over "
        "the sweep; below 1 is in favour of A."
    ) + markup.table(VERDICT_COLUMNS, rows, n_names=3)


def _boxes(name: str, summary: SweepSummary, looks: dict[str, figures.Style]) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" checked value="{markup.text(sae)}">'
        f'<span class="swatch" style="background:{looks[sae].colour}"></span>{markup.text(sae)}</label>'
        for sae in dict.fromkeys(r.sae for r in summary.results)
    )
    return (
        f'<fieldset class="controls boxes" id="{markup.text(name)}-boxes">'
        "<legend>Shown in this section; drag in a chart to zoom, double-click to go back</legend>"
        f"{boxes}</fieldset>"
    )


def _charts(charts: Iterable[tuple[str, str, figures.Figure]], height: int = 400) -> str:
    drawn = "".join(markup.chart(name, title, f, height) for name, title, f in charts)
    return f'<div class="charts">{drawn}</div>'


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
                *(r.cell, r.sae, f"{r.field} {r.value:g}", r.seed, q.d_sae, f"{q.l0:.2f}"),
                *(f"{r.l0_pos:.2f}", f"{r.l0_neg:.2f}"),
                markup.number(q.explained_variance, ".4f"),
                *(f"{q.dead_share:.2%}", f"{q.bipolar_share:.1%}", markup.number(seconds, ".1f")),
            )
        )
    columns = ("cell", "SAE", "swept", "seed", "width", "L0", "L0+", "L0−", "R²", "dead", "bipolar")
    body = markup.table((*columns, "ms / step"), rows, n_names=3)
    return f"<details><summary>All {len(rows):,} runs as a table</summary>{body}</details>"


def _census(found: Sequence[Latents], looks: dict[str, figures.Style]) -> str:
    rows = []
    for one in found:
        x = one.latents
        rows.append(
            (
                *(one.label, x.architecture, x.d_sae, f"{x.l0:.2f}"),
                *(f"{x.l0_pos:.2f}", f"{x.l0_neg:.2f}", markup.number(x.explained_variance, ".4f")),
                *(f"{x.dead_share:.2%}", f"{x.bipolar_share:.1%}", x.n_tokens),
            )
        )
    columns = (
        "SAE",
        "architecture",
        "width",
        "L0",
        "L0+",
        "L0−",
        "R²",
        "dead",
        "bipolar",
        "tokens",
    )
    cells = list(dict.fromkeys(one.latents.cell for one in found))
    charts = _charts(
        (
            f"census-{i}",
            cell,
            figures.census([one for one in found if one.latents.cell == cell], looks),
        )
        for i, cell in enumerate(cells)
    )
    return (
        markup.note(
            "A latent is bipolar where it fires and its rarer side makes up at least a tenth of its "
            "firings; shares are of the latents that fire at all. L0+ and L0− are the open latents "
            "per token on the + and on the − side. The curves show how many of the k latents of "
            "most energy (mean square of what they write) are bipolar."
        )
        + markup.table(columns, rows, n_names=2)
        + charts
    )


def _calibration(found: Sequence[Latents]) -> str:
    low, high = figures.gain_range(found)
    return markup.note(
        "The gain of a side is the factor by which its magnitude, where it fires, would have to "
        "grow to fit best: 1 is calibrated, above 1 the latent is shrunk. The + side is drawn "
        "upwards, the − side downwards; latents beyond the ends are counted in the outermost bars. "
        "A side that never fires has no gain."
    ) + _charts(
        (
            (f"calibration-{i}", one.label, figures.calibration(one, low, high))
            for i, one in enumerate(found)
        ),
        height=330,
    )


def _audit(found: Sequence[Latents]) -> str:
    rows: dict[tuple[str, str | None, str], tuple[str | int, ...]] = {}
    for one in found:
        x = one.latents
        for cosine, counts in x.audit.items():
            n = (counts["n_pairs"], counts["freed_width"], counts["n_pairs_that_fire_together"])
            # several signed SAEs have one plain SAE to compare with
            rows[x.cell, x.plain_run, cosine] = (
                *(x.cell, x.plain_run or "", cosine.replace("-", markup.MINUS)),
                *n,
            )
    columns = ("cell", "plain SAE", "highest cosine", "pairs", "width freed", "ever fire together")
    return markup.note(
        "Pairs of latents of the plain SAE whose decoder directions have at most this cosine, that "
        "is, point in nearly opposite ways; the width that merging each pair into one signed latent "
        "would free; and how many of the pairs ever fire on the same token."
    ) + markup.table(columns, list(rows.values()), n_names=2)
