"""Figures and tables of the documentation's results, from results/*.json.

    python benchmarks/figures.py

Writes docs/assets/results/*.svg, the tables results/*.md, and these tables into the pages that show
them. Run it after a file in results/ has changed; tests/test_figures.py finds a figure or a table
that is not of the results.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from equal_time_figure import (
    equal_steps_table,
    equal_time_figure,
    equal_time_table,
    reached_of,
)
from figure_drawing import (
    ARCHITECTURES,
    RULE,
    STYLE,
    Series,
    l0_axis,
    legend_above,
    panels,
    save_svg,
)
from figure_rows import (
    HALF_SAE,
    MODELS,
    ONE_PASS,
    ROOT,
    SHORT,
    one_pass,
    one_recipe,
    read,
    with_short_half,
)
from loss_table import loss_table
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from other_text_table import other_text_table
from page_files import fill_pages
from recipe_tables import dead_table, gaps_table, peers_table, points_table, seeds_table
from result_rows import Row, means, rows_of
from sign_pages import sign_figures, sign_tables
from speed_figure import speed_figure, speed_table
from two_sided_figure import two_sided_figure, two_sided_table, worlds_of
from wandb_page import wandb_figure

from sae_lens_signaware.experiments.sweep.frontier import MARGIN, overlap_of, read_gaps

CELLS = ("mlp_out", "attn_out", "resid")

SA_GSAE = Series("sa_gsae-half", "SA-GSAE, H", "sa_gsae")
SA_GSAE_AUXK = Series("sa_gsae-half-auxk", "SA-GSAE with AuxK, H", "sa_gsae", dashed=True)
BI_JUMPRELU = Series("bi_jumprelu-half-no-resets", "bi_jumprelu, H", "bi_jumprelu")
GATED = Series("gated-full", "SAELens's Gated, 2H", "gated")
PAPER_GATED = Series("paper-gated-full", "Gated (its paper), 2H", "paper_gated")
PEERS = (
    Series("abstopk-half", "AbsTopK, H", "abstopk"),
    Series("batchtopk-full", "BatchTopK, 2H", "batchtopk"),
    Series("jumprelu-full", "JumpReLU, 2H", "jumprelu"),
)
SIGNED = {name: f"`{name}`" for name in list(ARCHITECTURES)[:4]}
PLAIN = {"batchtopk": "SAELens's `batchtopk`", "jumprelu": "SAELens's `jumprelu`"}
ALL_PLAIN = PLAIN | {
    "matryoshka_batchtopk": "SAELens's `matryoshka_batchtopk`",
    "gated": "SAELens's `gated`",
    "paper-gated": "Gated as its paper trains it",
    "topk": "SAELens's `topk`",
    "abstopk": "SAELens's `abstopk`, signed",
}
GATED_SAES = {name: ALL_PLAIN[name] for name in ("paper-gated", "gated")}
OF_BATCHTOPK = {"batchtopk": PLAIN["batchtopk"]}
ONE_RECIPE = SIGNED | PLAIN
BATCHTOPK = Series("batchtopk", "SAELens's BatchTopK", "batchtopk")
ONE_BI_JUMPRELU = Series("bi_jumprelu", "bi_jumprelu", "bi_jumprelu")
PLAIN_SAES = (Series("jumprelu", "SAELens's JumpReLU", "jumprelu"), BATCHTOPK)
NARROW = "bi_jumprelu-bandwidth-0.1"
"""In results/equal_width.json, on Gemma's residual stream alone."""
NARROW_SHORT = f"{NARROW}-warm-up-400"
WITH_SHORT = (
    {SHORT: "`bi_jumprelu`, warm-up 400"} | SIGNED | {"bi_jumprelu": "`bi_jumprelu`, warm-up 800"}
)
OF_GEMMAS_RESID = {
    NARROW: "`bi_jumprelu`, bandwidth 0.1",
    NARROW_SHORT: "`bi_jumprelu`, bandwidth 0.1, warm-up 400",
}
RATED_TEXTS = {
    "valence_editorials": "editorials",
    "valence_movies": "film reviews",
    "valence_products": "product reviews",
    "valence_tweets": "tweets",
}
L0S = (8, 16, 32, 64, 128)
EQUAL_WIDTH = (
    Series(SHORT, "bi_jumprelu", "bi_jumprelu"),
    Series(NARROW_SHORT, "bi_jumprelu, bandwidth 0.1", "bi_jumprelu", dashed=True),
    Series("sa_gsae", "sa_gsae", "sa_gsae"),
    *PLAIN_SAES,
    Series("jumprelu-bandwidth-0.1", "JumpReLU, bandwidth 0.1", "jumprelu", dashed=True),
)
HALF = Series(HALF_SAE, "bi_jumprelu, half as wide", "bi_jumprelu")
HALF_WIDTH = (HALF, *PLAIN_SAES)
EQUAL_TIME = (
    Series("bi_batchtopk", "bi_batchtopk", "bi_batchtopk"),
    ONE_BI_JUMPRELU,
    *PLAIN_SAES,
)


def gaps(points: Sequence[Row], base: Sequence[Row]) -> tuple[list[float], list[float]]:
    """L0 and R² minus that of ``base``, at each point and at both ends of the overlap.

    Both are lines in log L0, as in the verdicts, and are read near their points alone.
    """
    if not points or not base:
        return [], []
    a, b = ([row.point for row in frontier] for frontier in (points, base))
    overlap = overlap_of(a, b)
    if overlap is None:
        return [], []
    low, high = overlap
    read = read_gaps(a, b, sorted({low, high, *(p.l0 for p in a if low <= p.l0 <= high)}))
    return [l0 for l0, _ in read], [gap for _, gap in read]


def frontier_figure(
    rows: Sequence[Row],
    cells: Sequence[str],
    series: Sequence[Series],
    reference: Series,
    ticks: Sequence[float] = (8, 16, 32, 64, 128),
) -> Figure:
    """R² against L0, and below each panel the gap: R² minus that of ``reference`` at the same L0.

    The gaps have one scale. What a verdict calls level is shaded.

    Args:
        rows: runs; seeds are averaged.
        cells: one column of panels each, at most three beside each other.
        series: what is drawn, the reference too if it is to have a line.
        reference: what the lower panels compare with, on its line in log L0.
        ticks: of the axis of L0.
    """
    n_columns = min(3, len(cells))
    n_blocks = math.ceil(len(cells) / n_columns)
    figure, axes = panels(2 * n_blocks, n_columns, 2.0, top=0.75)
    figure.subplots_adjust(left=0.1, hspace=0.4)  # ticks such as -0.0025; titles of every block
    of_gaps = []
    for i, cell in enumerate(cells):
        block, column = divmod(i, n_columns)
        upper, lower = axes[2 * block][column], axes[2 * block + 1][column]
        of_gaps.append(lower)
        base = means(rows, cell, reference.sae)
        for one in series:
            points = means(rows, cell, one.sae)
            upper.plot([p.l0 for p in points], [p.r2 for p in points], **one.line())
            lower.plot(*gaps(points, base), **one.line())
        upper.set_title(cell, loc="left", fontsize=10)
        l0_axis(lower, ticks)
        lower.tick_params(labelbottom=True)  # of the upper block too, whose axis is shared
        if block < n_blocks - 1:
            lower.set_xlabel("")  # the titles of the next block stand there
        lower.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        lower.axhspan(-MARGIN, MARGIN, color=RULE, alpha=0.5, linewidth=0)
        if column == 0:
            upper.set_ylabel("R²")
            lower.set_ylabel("gap in R²")
    limits = [limit for lower in of_gaps for limit in lower.get_ylim()]
    for lower in of_gaps:
        lower.set_ylim(min(limits), max(limits))
    for unused in range(len(cells), n_blocks * n_columns):
        block, column = divmod(unused, n_columns)
        axes[2 * block][column].axis("off")
        axes[2 * block + 1][column].axis("off")
    legend_above(figure, axes[0][0])
    figure.align_ylabels()
    return figure


def dead_figure(
    rows: Sequence[Row],
    cells: Sequence[str],
    series: Sequence[Series],
    ticks: Sequence[float] = (8, 16, 32, 64, 128),
) -> Figure:
    """Share of dead latents against L0, one panel a cell, on one scale."""
    figure, axes = panels(1, len(cells), 2.6, top=0.85, sharey=True)
    for axis, cell in zip(axes[0], cells, strict=True):
        for one in series:
            points = means(rows, cell, one.sae)
            axis.plot([p.l0 for p in points], [p.dead_share for p in points], **one.line())
        axis.set_title(cell, loc="left", fontsize=10)
        l0_axis(axis, ticks)
    top = axes[0][0].get_ylim()[1]
    axes[0][0].set_ylim(-0.02 * top, top)  # a marker at 0 is seen whole
    axes[0][0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if top > 0.05 else 1))
    axes[0][0].set_ylabel("dead latents")
    legend_above(figure, axes[0][0])
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT, help="folder for docs/ and results/")
    out = parser.parse_args().out
    with plt.rc_context(STYLE):
        write_all(out)


def write_all(out: Path) -> None:
    """Write every figure and table."""
    sweeps = read("sweep.json")
    long = rows_of(sweeps["quadruple"]) + rows_of(sweeps["quadruple_auxk"])
    today, all_seeds = one_recipe(), one_pass()
    equal = [row for row in all_seeds if row.seed == 0]  # the others have three L0s alone
    of_half = with_short_half(equal)
    cells = [f"{model}, {cell}" for model in MODELS for cell in CELLS]
    speed = read("speed.json")["sizes"]
    reached = reached_of(read("equal_time.json"))
    two_sided = read("protocol-e.json")
    worlds = worlds_of(two_sided)
    half = (SA_GSAE, BI_JUMPRELU, GATED, PAPER_GATED)
    peers = (SA_GSAE_AUXK, BI_JUMPRELU, *PEERS)
    dead = (SA_GSAE, SA_GSAE_AUXK, BI_JUMPRELU, PAPER_GATED, *PEERS)
    figures: dict[str, tuple[str, Callable[[], Figure]]] = {
        "half_width": (
            "R² against L0, half width and full width, 4,000 steps",
            lambda: frontier_figure(long, CELLS, half, PAPER_GATED),
        ),
        "half_width_peers": (
            "R² against L0, half width and other SAEs, 4,000 steps",
            lambda: frontier_figure(long, CELLS, peers, PAPER_GATED),
        ),
        "dead_latents": (
            "Share of dead latents against L0, 4,000 steps, earlier defaults",
            lambda: dead_figure(long, CELLS, dead),
        ),
        "dead_latents_wide": (
            "Share of dead latents against L0 at 8 and 16 times d_in, 1,000 steps",
            lambda: dead_figure(
                rows_of(sweeps["widest"]), CELLS, (SA_GSAE, PAPER_GATED), (8, 32, 128)
            ),
        ),
        "speed": ("Time of a training step", lambda: speed_figure(speed)),
        "wandb": (
            "Signed metrics of a Weights & Biases run",
            lambda: wandb_figure(read("wandb.json")["metrics"]),
        ),
        "equal_width": (
            "R² against L0, signed and plain SAEs of one width, 4,000 steps, two models",
            lambda: frontier_figure(equal, cells, EQUAL_WIDTH, BATCHTOPK, (8, 32, 128)),
        ),
        "half_width_today": (
            "R² against L0, bi_jumprelu of half width and plain SAEs of full width, two models",
            lambda: frontier_figure(of_half, cells, HALF_WIDTH, BATCHTOPK, (8, 32, 128)),
        ),
        "equal_time": (
            "R² at L0 32 against seconds and FLOPs of training, signed and plain SAEs",
            lambda: equal_time_figure(reached, CELLS[:2], EQUAL_TIME),
        ),
        "signed_or_plain": (
            "R² and F1 against the share of two-sided features, synthetic worlds",
            lambda: two_sided_figure(worlds, two_sided["config"]["target_l0"]),
        ),
        **sign_figures(read),
    }
    for name, (title, figure) in figures.items():
        save_svg(figure(), out / "docs" / "assets" / "results" / f"{name}.svg", title)
    tables = {
        "speed.md": speed_table(speed),
        "one_recipe_dead.md": dead_table(today, cells, SIGNED),
        "protocol-e.md": two_sided_table(worlds),
        "one_recipe.md": points_table(today, cells, ONE_RECIPE),
        "one_pass.md": points_table(equal, cells, WITH_SHORT | OF_GEMMAS_RESID | ALL_PLAIN),
        "one_pass_dead.md": dead_table(all_seeds, cells, WITH_SHORT | PLAIN),
        "equal_steps.md": equal_steps_table(reached, CELLS[:2], ONE_RECIPE, 1152),
        "equal_time.md": equal_time_table(reached, CELLS[:2], ONE_RECIPE),
        "equal_width_gaps.md": gaps_table(equal, cells, SHORT, PLAIN, L0S),
        "equal_width_seeds.md": seeds_table(all_seeds, cells, SHORT, PLAIN),
        "equal_width_peers.md": peers_table(equal, cells, SHORT, ALL_PLAIN, 32),
        "equal_width_long.md": gaps_table(equal, cells, "bi_jumprelu", OF_BATCHTOPK, L0S),
        "equal_width_sa_gsae.md": gaps_table(equal, cells, "sa_gsae", OF_BATCHTOPK, L0S),
        "equal_width_bi_batchtopk.md": gaps_table(
            equal, cells, "bi_batchtopk", OF_BATCHTOPK | {SHORT: WITH_SHORT[SHORT]}
        ),
        "equal_width_narrow.md": gaps_table(equal, cells, NARROW_SHORT, OF_BATCHTOPK),
        "loss_recovered.md": loss_table(
            read("loss_recovered.json"),
            {"equal-width-smollm2-135m": "SmolLM2"},
            f"{SHORT}-full",
            "batchtopk-full",
        ),
        "other_text.md": other_text_table(
            read("other_text.json"),
            {sweep: model for model, sweep in ONE_PASS.items()},
            RATED_TEXTS,
            (SHORT, "batchtopk"),
            equal,
        ),
        "half_width_gaps.md": gaps_table(of_half, cells, HALF.sae, PLAIN, L0S),
        "half_width_seeds.md": seeds_table(
            with_short_half(all_seeds), cells, HALF.sae, OF_BATCHTOPK
        ),
        "half_width_paper.md": peers_table(equal, cells, "sa_gsae-half", GATED_SAES, 32),
        "half_width_paper_bi_jumprelu.md": peers_table(of_half, cells, HALF.sae, GATED_SAES, 32),
        "half_width_sa_gsae.md": gaps_table(equal, cells, "sa_gsae-half", OF_BATCHTOPK),
        **sign_tables(read),
    }
    (out / "results").mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        (out / "results" / name).write_text(text, encoding="utf-8")
    fill_pages(out / "docs", out)


if __name__ == "__main__":
    main()
