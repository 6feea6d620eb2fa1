"""Cost of a training step against width and against L0, on log-log axes, from speed.py's JSON.

    python benchmarks/plot_speed.py results/speed.json results/speed_scaling.json \\
        --out results/speed.png
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, ScalarFormatter

LINES = {
    "sa_gsae W": ("#0072b2", "o", "-"),
    "bi_jumprelu W": ("#009e73", "^", "-"),
    "gated W": ("#e69f00", "s", "--"),
    "gated 2W": ("#d55e00", "s", "-"),
    "topk W, sparse": ("#cc79a7", "D", "-"),
    "dense floor": ("#777777", None, ":"),
    "sparse floor": ("#777777", None, "--"),
}


def draw(ax: Axes, points: list[tuple[int, dict[str, float]]], xlabel: str, title: str) -> None:
    """Draw the cost of each kind of step at every point."""
    points = sorted(points, key=lambda p: p[0])
    for name, (colour, marker, style) in LINES.items():
        xy = [(at, steps[name]) for at, steps in points if name in steps]
        if xy:
            x, y = zip(*xy, strict=True)
            ax.plot(x, y, color=colour, marker=marker, linestyle=style, label=name, markersize=4)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks([at for at, _ in points])
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="x", labelsize=8)
    ax.set_xlabel(xlabel)
    ax.set_title(title, loc="left", fontsize=10)
    ax.grid(alpha=0.3, which="both")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/speed.png"))
    args = parser.parse_args()
    read = [json.loads(file.read_text()) for file in args.files]
    by_size: dict[tuple[int, ...], Any] = {}
    for result in read:
        for size in result["sizes"]:
            key = tuple(map(int, size["size"].split(":")))
            by_size.setdefault(key, size["step_ms"])
    fig, axes = plt.subplots(1, 2, figsize=(10, 4.2), dpi=130, layout="constrained", sharey=True)
    width = [(k[1], v) for k, v in by_size.items() if k[0] == 576 and k[2:] == (1024, 64)]
    l0 = [(k[3], v) for k, v in by_size.items() if k[:3] == (576, 16_384, 1024)]
    draw(axes[0], width, "W (latents)", "d_in 576, batch 1,024, L0 64")
    draw(axes[1], l0, "L0", "d_in 576, batch 1,024, W 16,384")
    axes[0].set_ylabel("ms per training step")
    axes[0].legend(frameon=False, fontsize=8)
    machine = read[0]["machine"]
    where = machine.get("card") or f"{machine['cpu']}, {machine['threads']} threads"
    fig.suptitle(f"{where}, float32", fontsize=9, x=0.99, ha="right")
    fig.savefig(args.out)


if __name__ == "__main__":
    main()
