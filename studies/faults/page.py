"""The figure and the table of this study, from its result."""

from typing import Any

from matplotlib.figure import Figure

from studies.common import LOOKS, markdown, panels, records

TITLE = "What comes of faults: mutated files, killed and poisoned trainings"
OUTCOMES = {
    "right": LOOKS["bi_jumprelu"][0],
    "refused in one line": LOOKS["sa_gsae"][0],
    "refused by a library": LOOKS["batchtopk"][0],
    "loads with NaN or inf": LOOKS["gated"][0],
    "BAD": LOOKS["paper_gated"][0],
}


def counts(result: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Kind of fault -> outcome -> number of cases."""
    found: dict[str, dict[str, int]] = {}
    for row in records(result, "rows"):
        found.setdefault(row["kind"], dict.fromkeys(OUTCOMES, 0))[row["outcome"]] += row["n"]
    return found


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Cases by kind and outcome."""
    rows = [[kind, *map(str, of_kind.values())] for kind, of_kind in counts(result).items()]
    return {"faults": markdown(["fault", *OUTCOMES], rows).replace("BAD", "not caught")}


def figure(result: dict[str, Any]) -> Figure:
    """A bar for each kind."""
    drawn, axes = panels(1, 1, 2.8, top=0.4)
    drawn.subplots_adjust(left=0.27)
    found, axis = counts(result), axes[0][0]
    left = [0] * len(found)
    for outcome, colour in OUTCOMES.items():
        n = [of_kind[outcome] for of_kind in found.values()]
        label = outcome.replace("BAD", "not caught")
        axis.barh(list(found), n, left=left, color=colour, label=label)
        left = [a + b for a, b in zip(left, n, strict=True)]
    axis.invert_yaxis()
    axis.set_xlabel("cases")
    axis.legend(fontsize=8)
    return drawn
