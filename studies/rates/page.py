"""The figure and the table of this study, from its result."""

from typing import Any

from matplotlib.figure import Figure

from studies.common import CELLS, LABELS, Run, legend_above, line_of, markdown, panels, runs_of

TITLE = "R² and L0 against the learning rate, SmolLM2, MLP output and attention output"
RATES = ("3e-4", "1e-3", "3e-3", "6e-3")
DRAWN = ("bi_jumprelu", "batchtopk", "jumprelu")
MEASURED = {**{sae: LABELS[sae] for sae in DRAWN}, "one_sided": "`bi_jumprelu`, one-sided"}
HOOKS = CELLS[:2]
Found = dict[tuple[str, str, str], Run]


def _by_rate(result: dict[str, Any]) -> Found:
    """(cell, SAE, rate) -> run; the name of a run ends in its rate."""
    rate = len("3e-4")
    return {(r.cell, r.sae[: -rate - 1], r.sae[-rate:]): r for r in runs_of(result)}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """R² at every rate, with L0 where that is further than a twentieth from what was asked for."""
    found, rows = _by_rate(result), []
    for cell in HOOKS:
        for sae, label in MEASURED.items():
            runs = [found[cell, sae, rate] for rate in RATES]
            far = [f" at L0 {r.l0:.0f}" if abs(r.l0 / 32 - 1) > 0.05 else "" for r in runs]
            shown = [f"{r.r2:.4f}{l0}" for r, l0 in zip(runs, far, strict=True)]
            rows.append([cell, label, *shown])
    return {"rates": markdown(["hook point", "SAE", *RATES], rows, 2)}


def figure(result: dict[str, Any]) -> Figure:
    """R² above, L0 below, a column a hook point."""
    found = _by_rate(result)
    figure, axes = panels(2, 2, 2.3, sharex=True)
    for i, cell in enumerate(HOOKS):
        for sae in DRAWN:
            runs, at = [found[cell, sae, rate] for rate in RATES], [float(r) for r in RATES]
            near = [(lr, r.r2) for lr, r in zip(at, runs, strict=True) if r.l0 < 32 * 1.1]
            axes[0][i].plot(*zip(*near, strict=True), **line_of(sae))
            axes[1][i].plot(at, [r.l0 for r in runs], **line_of(sae))
        axes[0][i].set_title(cell, loc="left", fontsize=10)
        axes[1][i].set_yscale("log", base=2)
        axes[1][i].set_yticks([32, 64, 128, 256, 512], ["32", "64", "128", "256", "512"])
        axes[1][i].set_xscale("log")
        axes[1][i].set_xticks([float(rate) for rate in RATES], RATES)
        axes[1][i].minorticks_off()
        axes[1][i].set_xlabel("learning rate")
    axes[0][0].set_ylabel("R²")
    axes[1][0].set_ylabel("L0, asked for 32")
    legend_above(figure, axes[0][0])
    return figure
