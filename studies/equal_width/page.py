"""The figure and the tables of this study, from its result."""

from typing import Any

from matplotlib.figure import Figure

from studies.common import (
    CELLS,
    LABELS,
    MARGIN,
    Run,
    gap_figure,
    gaps_over_seeds,
    line_of,
    markdown,
    of_sae,
    r2_at,
    runs_of,
    spread,
)

TITLE = "R² minus that of SAELens's BatchTopK at the same L0 and width, six hook points"
SIGNED = (
    *("bi_jumprelu", "bi_batchtopk", "bi_batchtopk-annealed"),
    *("sa_gsae", "bi_topk", "bi_matryoshka_batchtopk"),
)
PLAIN = (
    *("batchtopk", "batchtopk-annealed", "jumprelu", "topk", "abstopk", "matryoshka_batchtopk"),
    "paper_gated",
)
DRAWN = ("bi_jumprelu", "sa_gsae", "jumprelu", "batchtopk-annealed")


def tables(result: dict[str, Any]) -> dict[str, str]:
    """All SAEs at three L0s."""
    return {"r2": _r2_table(runs_of(result))}


def _r2_table(runs: list[Run]) -> str:
    """R² at the L0 that ``bi_jumprelu`` has; bold is the highest and what is level with it."""
    rows = []
    for cell in CELLS:
        for target in (8, 32, 128):
            (ours,) = (r for r in of_sae(runs, cell, "bi_jumprelu") if r.value == target)
            found = [r2_at(of_sae(runs, cell, sae), ours.l0) for sae in (*SIGNED, *PLAIN)]
            top = max(r2 for r2 in found if r2 is not None)
            gaps = gaps_over_seeds(runs, cell, "bi_jumprelu", "batchtopk", target)
            rows.append([cell, f"{target}", *(_bold(r2, top) for r2 in found), spread(gaps)])
    labels = (LABELS[sae] for sae in (*SIGNED, *PLAIN))
    return markdown(["hook point", "L0", *labels, "`bi_jumprelu` − BatchTopK, 3 seeds"], rows, 1)


def _bold(r2: float | None, top: float) -> str:
    if r2 is None:
        return ""
    return f"**{r2:.4f}**" if top - r2 <= MARGIN else f"{r2:.4f}"


def figure(result: dict[str, Any]) -> Figure:
    """The gap to BatchTopK against L0."""
    looks = {(sae, "batchtopk"): line_of(sae) for sae in DRAWN}
    return gap_figure(runs_of(result), looks)
