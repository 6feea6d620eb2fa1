"""Figures and tables of the documentation's results, from results/*.json.

    python benchmarks/figures.py

Writes docs/assets/results/*.svg, the tables results/*.md, and these tables into the pages that show
them. Run it after a file in results/ has changed; tests/test_figures.py finds a figure or a table
that is not of the results.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from equal_time_figure import (
    equal_steps_table,
    equal_time_figure,
    equal_time_table,
    reached_of,
)
from figure_drawing import STYLE, save_svg
from figure_labels import (
    ALL_PLAIN,
    ANNEALED,
    BATCHTOPK,
    BI_JUMPRELU,
    BI_TOPK,
    CELLS,
    EQUAL_TIME,
    EQUAL_WIDTH,
    EQUAL_WIDTH_GAP,
    FIRST_SCREEN,
    GATED,
    HALF,
    HALF_WIDTH,
    HALVES,
    L0S,
    L0S_OF_GATED,
    LONGER,
    MLP_OUTPUTS,
    NARROW,
    NARROW_SHORT,
    OF_BATCHTOPK,
    OF_BOTH_SIDES,
    OF_GATED,
    OF_GEMMAS_RESID,
    OF_MATRYOSHKA,
    OF_NARROW_JUMPRELU,
    OF_PAPER_GATED,
    OF_PLAIN_ANNEALED,
    ONE_RECIPE,
    OTHERS,
    PAPER_GATED,
    PEERS,
    PLAIN,
    RATED_TEXTS,
    SA_GSAE,
    SA_GSAE_AUXK,
    SIGNED,
    WARM_UPS,
    WINDOWS,
    WITH_ANNEALED,
    WITH_SHORT,
)
from figure_rows import (
    MODELS,
    ONE_PASS,
    ROOT,
    SHORT,
    annealed_runs,
    both_sides,
    longer,
    one_pass,
    one_recipe,
    read,
    widths,
    with_short_half,
)
from frontier_figure import dead_figure, frontier_figure, gap_figure
from longer_table import longer_table
from loss_table import loss_table
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from other_text_table import other_text_table
from page_files import fill_pages
from pairs_page import pairs_tables
from recipe_tables import (
    best_table,
    dead_table,
    gaps_table,
    peers_table,
    points_table,
    same_l0_table,
    seeds_table,
    two_gaps_table,
)
from result_rows import rows_of
from search_table import (
    HOOK_POINTS,
    jumprelu_table,
    low_rate_table,
    rates_table,
    search_table,
    starts_table,
)
from sign_pages import sign_figures, sign_tables
from speed_figure import speed_figure, speed_table
from two_sided_figure import two_sided_figure, two_sided_table, worlds_of
from wandb_page import wandb_figure
from widths_table import times_of, warm_ups_table, widths_table

from sae_lens_signaware.files import write_text


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
    today, all_seeds, annealed = one_recipe(), one_pass(), annealed_runs()
    equal = [row for row in all_seeds if row.seed == 0]  # the others have three L0s alone
    wider = widths(equal)
    searched = rows_of(read("search.json"))
    rates = searched + rows_of(read("low_rate.json"))
    jumprelu = [
        row._replace(cell=row.cell.removeprefix("SmolLM2, "))
        for row in equal
        if row.sae == "jumprelu"
    ]
    both = [row for row in both_sides() if row.seed == 0]
    with_annealed = equal + annealed
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
        "equal_width_gap": (
            "R² minus that of SAELens's BatchTopK at the same L0 and width, two models",
            lambda: gap_figure(equal, cells, EQUAL_WIDTH_GAP, BATCHTOPK, (8, 32, 128)),
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
        "one_pass.md": points_table(
            with_annealed,
            cells,
            WITH_SHORT | WITH_ANNEALED | OF_GEMMAS_RESID | BI_TOPK | ALL_PLAIN | OF_PLAIN_ANNEALED,
        ),
        "one_pass_dead.md": dead_table(
            all_seeds + annealed,
            cells,
            WITH_SHORT | WITH_ANNEALED | BI_TOPK | ALL_PLAIN | OF_PLAIN_ANNEALED,
        ),
        "equal_steps.md": equal_steps_table(reached, CELLS[:2], ONE_RECIPE, 1152),
        "equal_time.md": equal_time_table(reached, CELLS[:2], ONE_RECIPE),
        "equal_width_at_32.md": same_l0_table(equal, cells, SHORT, FIRST_SCREEN, 32),
        "equal_width_gaps.md": gaps_table(equal, cells, SHORT, PLAIN, L0S),
        # JumpReLU's L0s are up to 14% off, and three of them are too few to interpolate so far
        "equal_width_seeds.md": seeds_table(all_seeds, cells, SHORT, OF_BATCHTOPK),
        "equal_width_seeds_sa_gsae.md": seeds_table(all_seeds, cells, "sa_gsae", OF_BATCHTOPK),
        "equal_width_peers.md": peers_table(equal, cells, SHORT, ALL_PLAIN, 32),
        # those that have run at more than one L0
        "equal_width_others.md": gaps_table(equal, cells, SHORT, OTHERS),
        "equal_width_best.md": best_table(
            with_annealed + both,
            cells,
            {SHORT: SIGNED["bi_jumprelu"]}
            | {name: label for name, label in SIGNED.items() if name != "bi_jumprelu"}
            | BI_TOPK
            | {NARROW_SHORT: OF_GEMMAS_RESID[NARROW], ANNEALED: WITH_ANNEALED[ANNEALED]}
            | OF_BOTH_SIDES,
            ALL_PLAIN | OF_PLAIN_ANNEALED | OF_NARROW_JUMPRELU,
        ),
        "equal_width_bi_topk.md": gaps_table(
            equal,
            cells,
            "bi_topk",
            {name: ALL_PLAIN[name] for name in ("topk", "abstopk")}
            | {SHORT: SIGNED["bi_jumprelu"]},
        ),
        "equal_width_matryoshka.md": gaps_table(
            equal, cells, "bi_matryoshka_batchtopk", OF_MATRYOSHKA | OF_BATCHTOPK
        ),
        "equal_width_long.md": gaps_table(equal, cells, "bi_jumprelu", OF_BATCHTOPK, L0S),
        "equal_width_sa_gsae.md": gaps_table(equal, cells, "sa_gsae", OF_BATCHTOPK, L0S),
        "equal_width_sa_gsae_gated.md": gaps_table(
            equal, cells, "sa_gsae", OF_PAPER_GATED, L0S_OF_GATED
        ),
        "equal_width_bi_batchtopk.md": gaps_table(
            equal, cells, "bi_batchtopk", OF_BATCHTOPK | {SHORT: WITH_SHORT[SHORT]}
        ),
        "equal_width_warm_up.md": gaps_table(
            with_annealed, cells, SHORT, OF_BATCHTOPK | OF_PLAIN_ANNEALED
        ),
        "equal_width_annealed.md": gaps_table(
            with_annealed,
            cells,
            ANNEALED,
            OF_PLAIN_ANNEALED | {name: WITH_SHORT[name] for name in ("bi_batchtopk", SHORT)},
        ),
        "equal_width_narrow.md": gaps_table(
            with_annealed, cells, NARROW_SHORT, OF_BATCHTOPK | OF_PLAIN_ANNEALED
        ),
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
            (f"{SHORT}-full", "batchtopk-full"),
        ),
        "half_width_gaps.md": gaps_table(of_half, cells, HALF.sae, PLAIN, L0S),
        "half_width_plain.md": two_gaps_table(of_half, cells, HALVES, BATCHTOPK.sae, 32),
        "half_width_seeds.md": seeds_table(
            with_short_half(all_seeds), cells, HALF.sae, OF_BATCHTOPK
        ),
        "half_width_paper.md": gaps_table(
            equal, cells, "sa_gsae-half", OF_PAPER_GATED, L0S_OF_GATED
        ),
        "half_width_paper_bi_jumprelu.md": gaps_table(
            of_half, cells, HALF.sae, OF_PAPER_GATED, L0S_OF_GATED
        ),
        "half_width_gated.md": peers_table(equal, cells, "sa_gsae-half", OF_GATED, 32),
        "half_width_sa_gsae.md": gaps_table(equal, cells, "sa_gsae-half", OF_BATCHTOPK, L0S),
        "half_width_seeds_sa_gsae.md": seeds_table(all_seeds, cells, "sa_gsae-half", OF_BATCHTOPK),
        "widths.md": widths_table(
            wider,
            MLP_OUTPUTS,
            ("bi_jumprelu", "batchtopk"),
            (SIGNED["bi_jumprelu"], PLAIN["batchtopk"]),
            ("jumprelu", PLAIN["jumprelu"]),
        ),
        "widths_warm_ups.md": warm_ups_table(
            wider,
            MLP_OUTPUTS,
            WARM_UPS,
            ("batchtopk", PLAIN["batchtopk"]),
            ("jumprelu", PLAIN["jumprelu"]),
        ),
        "widths_windows.md": warm_ups_table(
            [row for row in wider if times_of(row) >= 8],
            MLP_OUTPUTS,
            WINDOWS,
            ("batchtopk", PLAIN["batchtopk"]),
            ("jumprelu", PLAIN["jumprelu"]),
        ),
        "longer.md": longer_table(
            longer(equal), [f"SmolLM2, {cell}" for cell in CELLS], LONGER, "batchtopk"
        ),
        "search.md": search_table(searched, "mlp_out"),
        "search_attn_out.md": search_table(searched, "attn_out"),
        "search_resid.md": search_table(searched, "resid"),
        "search_gemma3.md": rates_table(rows_of(read("search_gemma3.json")), HOOK_POINTS),
        "search_jumprelu.md": jumprelu_table(searched, jumprelu, HOOK_POINTS),
        "search_starts.md": starts_table(searched, HOOK_POINTS),
        **{f"low_rate_{cell}.md": low_rate_table(rates, cell) for cell in ("attn_out", "resid")},
        **sign_tables(read),
        **pairs_tables(read("side_use.json"), of_half + both),
    }
    for name, text in tables.items():
        write_text(text, out / "results" / name)
    fill_pages([*out.glob("README.md"), *sorted((out / "docs").rglob("*.md"))], out)


if __name__ == "__main__":
    main()
