"""The sections of the page, in its order, each a name, a title and HTML."""

from collections.abc import Sequence

from sae_lens_signaware.experiments.protocols.result import ProtocolResult
from sae_lens_signaware.experiments.sweep.latent_results import AUDIT_TOKENS
from sae_lens_signaware.report import figures, markup
from sae_lens_signaware.report.browser import browser
from sae_lens_signaware.report.colours import Style, styles
from sae_lens_signaware.report.load import LabelledLatents, Results
from sae_lens_signaware.report.markup import Section
from sae_lens_signaware.report.sweep_section import sweep_section


def sections(results: Results) -> list[Section]:
    """Make all sections for which there are results."""
    looks = styles(results.sae_names)
    parts: list[Section] = []
    for i, sweep in enumerate(results.sweeps):
        parts.append(sweep_section(f"sweep-{i}", sweep, looks))
    if results.latents:
        parts.append(("census", "Census of the two sides", _census(results.latents, looks)))
        parts.append(("calibration", "Calibration", _calibration(results.latents)))
    audited = [one for one in results.latents if one.latents.audit]
    if audited:
        parts.append(("audit", "Audit of the plain SAE", _audit(audited)))
    for i, protocol in enumerate(results.protocols):
        parts.append((f"protocol-{i}", protocol.title, _protocol(protocol)))
    if any(one.latents.pages for one in results.latents):
        parts.append(("latents", "Browser of latents", browser(results.latents)))
    return parts


def _protocol(protocol: ProtocolResult) -> str:
    shown = protocol.shown_columns
    rows = []
    for row in protocol.rows:
        values = [row[i] for i in shown]
        for place, i in enumerate(shown):
            deviation = protocol.deviation_of(row, i)
            if deviation is not None:
                values[place] = f"{markup.in_words(row[i])} ± {float(deviation):.2g}"
        rows.append(values)
    made_by = ", ".join(f"{name} {version}" for name, version in protocol.versions.items())
    return (
        markup.note(protocol.question)
        + markup.table([protocol.columns[i] for i in shown], rows)
        + "".join(markup.note(words) for words in protocol.notes)
        + markup.command(protocol.command)
        + markup.note(f"Made with {made_by}.")
    )


def _census(all_latents: Sequence[LabelledLatents], looks: dict[str, Style]) -> str:
    rows = []
    for one in all_latents:
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
    cells = list(dict.fromkeys(one.latents.cell for one in all_latents))
    charts = markup.charts(
        (
            f"census-{i}",
            cell,
            figures.census([one for one in all_latents if one.latents.cell == cell], looks),
        )
        for i, cell in enumerate(cells)
    )
    return (
        markup.note(
            "A latent is bipolar where it fires and its rarer side makes up at least a tenth of "
            "its firings; shares are of the latents that fire at all. L0+ and L0− are the active "
            "latents per token on the + and on the − side. The curves show how many of the k "
            "latents of most energy (mean square of what they write) are bipolar."
        )
        + markup.table(columns, rows, n_names=2)
        + charts
    )


def _calibration(all_latents: Sequence[LabelledLatents]) -> str:
    low, high = figures.gain_range(all_latents)
    return markup.note(
        "The gain of a side is the factor by which its magnitude, where it fires, would have to "
        "grow to fit best: 1 is calibrated, above 1 the latent is shrunk. The + side is drawn "
        "upwards, the − side downwards; latents beyond the ends are counted in the outermost bars. "
        "A side that never fires has no gain."
    ) + markup.charts(
        (
            (f"calibration-{i}", one.label, figures.calibration(one, low, high))
            for i, one in enumerate(all_latents)
        ),
        height=330,
    )


def _audit(all_latents: Sequence[LabelledLatents]) -> str:
    rows: dict[tuple[str, str | None, str], tuple[str | int, ...]] = {}  # by cell, SAE, cosine
    for one in all_latents:
        x = one.latents
        for cosine, counts in x.audit.items():
            n = (counts["n_pairs"], counts["freed_width"], counts["n_pairs_that_fire_together"])
            # Several signed SAEs of a sweep have one plain SAE to compare with
            cell = " · ".join(filter(None, (x.cell, one.sweep)))
            rows[cell, x.plain_run, cosine] = (
                *(cell, x.plain_run or "", cosine.replace("-", markup.MINUS)),
                *n,
            )
    columns = ("cell", "plain SAE", "highest cosine", "pairs", "width freed", "fire together")
    return markup.note(
        "Pairs of latents of the plain SAE whose decoder directions have at most this cosine, that "
        "is, point in nearly opposite ways; the latents that merging would free, of pairs that "
        "have no latent in common and never fire together; and how many of the pairs fire on the "
        f"same token, of the first {AUDIT_TOKENS:,} held-out ones or of as many as there are."
    ) + markup.table(columns, list(rows.values()), n_names=2)
