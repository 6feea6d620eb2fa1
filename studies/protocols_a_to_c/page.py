"""The figure and the table of this study, from its result."""

from typing import Any

from matplotlib.figure import Figure

from studies.common import LABELS, legend_above, line_of, markdown, panels, records

TITLE = "Gains of a dial, detection of anomalies, and pairs on one latent, synthetic worlds"


def tables(result: dict[str, Any]) -> dict[str, str]:
    """One row an SAE, with the columns of the three protocols."""
    a = {row["sae"]: row for row in records(result["a"], "rows")}
    b = {row["sae"]: row for row in records(result["b"], "rows") if row["latents"] == 4}
    c = {(row["sae"], row["pair_share"]): row for row in records(result["c"], "rows")}
    table = []
    for sae in dict.fromkeys([*a, *b]):
        row = [name_of(sae)]
        dial = a[sae]
        row += [f"{dial['gain_pos']:.2f} / {dial['gain_neg']:.2f}", _number(dial["latents"])]
        if sae in b:
            row += [f"{b[sae]['auroc']:.3f}", f"{b[sae]['direction']:.2f}"]
            row += [f"{c[sae, 1.0]['by_one_latent']:.0%} / {c[sae, 1.0]['by_two']:.0%}"]
            row += [f"{c[sae, share]['r2']:.3f}" for share in (0.0, 1.0)]
        table.append([*row, *[""] * (8 - len(row))])
    columns = ["SAE", "A: gain + / −", "A: latents", "B: AUROC", "B: direction"]
    columns += ["C: pairs on one / two", "C: R², no pairs", "C: R², all pairs"]
    return {"protocols": markdown(columns, table, 1)}


def name_of(sae: str) -> str:
    """Such as "Gated 2H"."""
    name, _, width = sae.partition(" ")
    return f"{LABELS[name]} {width}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def figure(result: dict[str, Any]) -> Figure:
    """A: the two gains. B: AUROC against the budget. C: pairs on one latent against their share."""
    drawn, axes = panels(1, 3, 2.8, top=0.8)
    drawn.subplots_adjust(left=0.08)
    saes = dict.fromkeys(row[0] for row in result["b"]["rows"])
    for sae in saes:
        look = line_of(sae.split()[0], name_of(sae).replace("`", ""), dashed=sae.endswith("2H"))
        for axis, key, x, y in (
            (axes[0][0], "a", "gain_pos", "gain_neg"),
            (axes[0][1], "b", "latents", "auroc"),
            (axes[0][2], "c", "pair_share", "by_one_latent"),
        ):
            rows = [row for row in records(result[key], "rows") if row["sae"] == sae]
            rows = [row for row in rows if row[y] is not None]
            axis.plot([row[x] for row in rows], [row[y] for row in rows], **look)
    axes[0][0].set(xlabel="gain of the + side", ylabel="gain of the − side")
    axes[0][1].set(xlabel="latents that may be read", ylabel="AUROC")
    axes[0][1].set_xscale("log", base=2)
    axes[0][1].set_xticks((1, 2, 4, 8), ("1", "2", "4", "8"))
    axes[0][2].set(xlabel="share of paired features", ylabel="pairs on one latent")
    for axis, title in zip(axes[0], ("A: dial", "B: anomalies", "C: pairs"), strict=True):
        axis.set_title(title, loc="left", fontsize=10)
    legend_above(drawn, axes[0][1])
    return drawn
