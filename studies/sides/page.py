"""The figure and the table of this study, from its result."""

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from studies.common import INK, LABELS, bootstrap, line_of, markdown, panels, records, signed

TITLE = "The score of the best axis against that of the best side of signed SAEs"
SAES = (
    *("bi_jumprelu", "sa_gsae", "bi_batchtopk", "bi_matryoshka_batchtopk"),
    *("batchtopk", "jumprelu", "batchtopk-double"),
)
REFERENCE = "batchtopk-double"
METRICS = {"auc": (0.45, 1.02), "rho": (0.1, 0.7)}
"""Of the templates, of the rated texts -> what the figure shows of them."""
TITLES = {"auc": "templates (AUC)", "rho": "rated texts (rho)"}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """One row an SAE: effects of its sides, scores of its probes, and what has both ends."""
    probes = records(result, "probes", "probe_columns")
    effects = records(result, "opposition", "opposition_columns")
    rows = []
    for sae in SAES:
        row = [LABELS[sae], *_effects([r for r in effects if r["sae"] == sae])]
        mine = sorted((r for r in probes if r["sae"] == sae), key=_field)
        base = sorted((r for r in probes if r["sae"] == REFERENCE), key=_field)
        for metric in METRICS:
            scores, others = (
                [r["sides_8"] for r in found if r["metric"] == metric] for found in (mine, base)
            )
            row.append(f"{statistics.fmean(scores):.2f}")
            if sae != REFERENCE:
                gaps = [a - b for a, b in zip(scores, others, strict=True)]
                low, high = bootstrap(gaps)
                row[-1] += f" ({signed(low, 2)} to {signed(high, 2)})"
        rows.append([*row, _ends(mine, "axis_ends"), _ends(mine, "pair_ends")])
    columns = ["SAE", "opposition, median", "chance", "latents above chance"]
    columns += ["auc, 8 sides", "rho, 8 sides", "axes with both ends", "pairs with both ends"]
    return {"sides": markdown(columns, rows, 1)}


def _field(row: dict[str, Any]) -> tuple[str, str]:
    return row["cell"], row["set"]


def _effects(rows: Sequence[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["", "", ""]
    median, chance = (statistics.fmean(r[k] for r in rows) for k in ("opposition_median", "chance"))
    above, measured = (sum(row[key] for row in rows) for key in ("above_chance", "measured"))
    return [f"{median:.2f}", f"{chance:.2f}", f"{above} of {measured}"]


def _ends(rows: Sequence[dict[str, Any]], name: str) -> str:
    known = [row[name] for row in rows if row[name] is not None]
    return f"{sum(known)} of {len(known)}" if known else "–"


def figure(result: dict[str, Any]) -> Figure:
    """A point is an SAE on a set at a hook point, filled where its axis has both ends."""
    drawn, axes = panels(1, 2, 3.2, top=0.5)
    probes = records(result, "probes", "probe_columns")
    signed_saes = SAES[:4]
    for axis, (metric, limits) in zip(axes[0], METRICS.items(), strict=True):
        axis.plot(limits, limits, color=INK, linestyle="--", linewidth=0.8)
        axis.set(xlim=limits, ylim=limits, xlabel="best side", ylabel="best axis")
        axis.set_title(TITLES[metric], loc="left", fontsize=10)
        for sae in signed_saes:
            for ends, fill in ((0, {"markerfacecolor": "none"}), (1, {})):
                mine = [r for r in probes if (r["sae"], r["metric"]) == (sae, metric)]
                mine = [r for r in mine if r["axis_ends"] == ends]
                look = line_of(sae) | {"linestyle": "", "label": None} | fill
                axis.plot([r["side"] for r in mine], [r["axis"] for r in mine], **look)
    look = {"linestyle": "", "markerfacecolor": "none"}
    handles = [Line2D([], [], **(line_of(sae) | look)) for sae in signed_saes]
    both = Line2D([], [], color=INK, marker="o", linestyle="", label="filled: both ends")
    drawn.legend(handles=[*handles, both], loc="upper center", ncols=5)
    return drawn
