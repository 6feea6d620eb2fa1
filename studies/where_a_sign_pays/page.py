"""The figure and the tables of this study, from its result."""

from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy import stats

from studies.common import Run, gaps_over_seeds, markdown, panels, records, signed

KS = (4, 8, 16)
TITLE = "R² that a sign is worth against the share of firings in antipodal pairs"
GAINS = {  # name -> SAE, the one that it is compared with, the plain one that is asked
    "half width": ("half", "plain", "plain"),
    "half width, 6,000 steps": ("half, long", "plain, long", "plain, long"),
    "half width, JumpReLU": ("jumprelu, half", "jumprelu", "jumprelu"),
    "equal width": ("signed", "control", "plain"),
}
SHARES = {"pair_activity": "firings in pairs", "pair_latents": "latents in pairs",
          "weighted_cosine": "mean lowest cosine"}  # fmt: skip


def values_of(
    result: dict[str, Any], gain: str, k: int
) -> dict[str, tuple[dict[str, float], float]]:
    """Domain -> means over seeds of the shares of the plain SAE, and of the gain at its L0."""
    sae, base, asked = GAINS[gain]
    rows = records(result, "runs")
    names = ("domain", "arm", "seed", "k", "l0", "r2", "dead_share", "bipolar_share")
    runs = [Run(*(row[name] for name in names)) for row in rows]
    found = {}
    for domain in dict.fromkeys(run.cell for run in runs):
        plain = [r for r in rows if (r["domain"], r["arm"], r["k"]) == (domain, asked, k)]
        gaps = gaps_over_seeds(runs, domain, sae, base, k)
        if gaps:
            found[domain] = ({s: fmean(r[s] for r in plain) for s in SHARES}, fmean(gaps))
    return found


def law(x: np.ndarray, y: np.ndarray) -> tuple[str, str]:
    """Spearman's correlation with its interval, and the squared error of predicting half."""
    whole: Any = stats.spearmanr(x, y)
    drawn = np.random.default_rng(0).integers(len(x), size=(2000, len(x)))
    low, high = np.nanquantile(
        [np.asarray(stats.spearmanr(x[i], y[i]))[0] for i in drawn], [0.025, 0.975]
    )
    error = y[1::2] - np.polyval(np.polyfit(x[::2], y[::2], 1), x[1::2])
    share = (error**2).sum() / ((y[1::2] - y[1::2].mean()) ** 2).sum()
    return f"{whole[0]:.2f} ({low:.2f} to {high:.2f})".replace("-", "−"), f"{share:.0%}"


def tables(result: dict[str, Any]) -> dict[str, str]:
    """The gains of every domain, and the law by gain and k."""
    at = {(gain, k): values_of(result, gain, k) for gain in GAINS for k in KS}
    gains = []
    for domain in at["half width", KS[0]]:
        pairs = (f"{at['half width', k][domain][0]['pair_activity']:.0%}" for k in KS)
        worth = (signed(at[g, k][domain][1], 3) for g in ("half width", "equal width") for k in KS)
        gains.append([domain, *pairs, *worth])
    laws = []
    for (gain, k), found in ((of, found) for of, found in at.items() if found):
        y = np.array([value for _, value in found.values()])
        of = [law(np.array([shares[s] for shares, _ in found.values()]), y) for s in SHARES]
        laws.append([gain, str(k), *(text for text, _ in of), of[0][1]])
    heads = [f"{name}, L0 {k}" for name in ("in pairs", "half width", "equal width") for k in KS]
    return {
        "gains": markdown(["activations", *heads], gains),
        "law": markdown(["gain", "L0", *SHARES.values(), "error of prediction"], laws),
    }


def figure(result: dict[str, Any]) -> Figure:
    """Gains at half and at equal width against the share of firings in pairs."""
    drawn, axes = panels(1, 2, 3.2, top=0.4)
    for axis, gain in zip(axes[0], ("half width", "equal width"), strict=True):
        for k, colour, marker in zip(KS, ("#0072b2", "#008a64", "#d55e00"), "o^s", strict=True):
            found = values_of(result, gain, k).values()
            x, y = zip(*((shares["pair_activity"], value) for shares, value in found), strict=True)
            axis.plot(x, y, marker, color=colour, label=f"L0 {k}")
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_xlabel("firings of the plain SAE that are in antipodal pairs")
        axis.set_title(f"gain in R², {gain}", loc="left", fontsize=10)
    axes[0][0].legend()
    return drawn
