"""How SAEs use the two sides of an axis: antipodal pairs of latents, and bipolar latents.

    python benchmarks/side_use.py configs/equal-width-smollm2-135m.yaml \\
        configs/pairs-smollm2-135m.yaml configs/widths-smollm2-135m.yaml \\
        configs/widths-gemma3-270m.yaml --values 32 2 1.1 0.62

Of the SAEs of sweeps that are still on disk, on the held-out activations that the sweep has cached.
To be run where the sweeps were run.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from own_command import own_command
from reproduction_rows import COLUMNS, row_of
from reproduction_tables import markdown
from result_rows import require_same_runs, require_same_sweeps, write_rows
from sweep_source import runs_with_saes

from sae_lens_signaware.evaluation import (
    AntipodalAudit,
    BipolarCensus,
    antipodal_audit,
    bipolar_census,
    load_sae,
)
from sae_lens_signaware.experiments.sweep.result import RunResult

MAX_COSINE = -0.9
"""Of the decoder rows of an antipodal pair."""
FREQUENT = 50
"""So many latents, those that are active on the most tokens."""
RARE = 1e-3
"""A latent that is active on a smaller share of the tokens is rare."""
BATCH = 2048  # tokens


@dataclasses.dataclass(frozen=True)
class SideUse:
    """Of one SAE; shares are of latents that are active at all on the tokens.

    Attributes:
        n_pairs: antipodal pairs.
        frequent_in_pairs: share of the frequent latents that are in such a pair.
        frequent_bipolar: share of the frequent latents that are bipolar.
        rare_share: share of the latents that are rare.
        bipolar_of_rare, bipolar_of_others: share of these latents that are bipolar.
        activity_of_rare: the rare latents' share of the active latents of a token, on average.
        activity_of_bipolar: the same of the bipolar latents.
    """

    n_pairs: int
    frequent_in_pairs: float
    frequent_bipolar: float
    rare_share: float
    bipolar_of_rare: float
    bipolar_of_others: float
    activity_of_rare: float
    activity_of_bipolar: float


def side_use(
    census: BipolarCensus, audit: AntipodalAudit, frequent: int = FREQUENT, rare: float = RARE
) -> SideUse:
    """Count pairs and bipolar latents, by how often a latent is active. A share of none is 0."""
    rate = census.firing_rate_pos + census.firing_rate_neg
    is_bipolar, is_alive = census.bipolar(), census.alive
    is_rare = is_alive & (rate < rare)
    is_other = is_alive & ~is_rare
    is_frequent = torch.zeros_like(is_alive)
    is_frequent[rate.argsort(descending=True)[:frequent]] = True
    is_frequent &= is_alive
    in_pair = torch.zeros_like(is_alive)
    in_pair[audit.latent_a] = in_pair[audit.latent_b] = True
    return SideUse(
        n_pairs=audit.n_pairs,
        frequent_in_pairs=_share(in_pair, is_frequent),
        frequent_bipolar=_share(is_bipolar, is_frequent),
        rare_share=_share(is_rare, is_alive),
        bipolar_of_rare=_share(is_bipolar, is_rare),
        bipolar_of_others=_share(is_bipolar, is_other),
        activity_of_rare=rate[is_rare].sum().item() / census.l0 if census.l0 else 0.0,
        activity_of_bipolar=census.bipolar_activity_share(),
    )


def _share(has: torch.Tensor, of: torch.Tensor) -> float:
    n = of.sum().item()
    return (has & of).sum().item() / n if n else 0.0


def measure(source: Path, root: Path, values: Sequence[float]) -> list[list[object]]:
    """The rows of one sweep: those of ``row_of``, with the width and the fields of SideUse."""
    store, found = runs_with_saes(source, root, values)

    rows = []
    # the runs of a cell come one after the other
    for _, of_cell in itertools.groupby(found, key=lambda run: run.cell):
        runs = list(of_cell)
        batches = store.load_cache(runs[0]).heldout.float().split(BATCH)
        for run in runs:
            sae = load_sae(store.sae_path(run))
            use = side_use(bipolar_census(sae, batches), antipodal_audit(sae, None, MAX_COSINE))
            result = row_of(RunResult.read(store.result_path(run)))
            fields = [round(value, 4) for value in dataclasses.astuple(use)]
            rows.append([*result, sae.cfg.d_sae, *fields])
            print(*rows[-1])
    return rows


def rows_in(measured: Mapping[str, Any], sweep: str) -> list[dict[str, Any]]:
    """The rows of a sweep in what this script writes, each by column."""
    runs: Sequence[Sequence[Any]] = measured["sweeps"][sweep]["runs"]
    return [dict(zip(measured["columns"], run, strict=True)) for run in runs]


def side_use_table(
    rows: Sequence[Mapping[str, Any]],
    cells: Sequence[str],
    saes: Mapping[str, str],
    columns: Mapping[str, str],
) -> str:
    """Columns of SideUse as a table, counts as they are and shares in percent.

    Args:
        cells: names of the cells, in their order.
        saes: name of an SAE -> that in the table, in its order.
        columns: name of a column -> its head.
    """
    found = {(row["cell"], row["sae"]): row for row in rows}
    table = [
        [cell, label, f"{row['d_sae']:,}", *(_field(row[name]) for name in columns)]
        for cell in cells
        for sae, label in saes.items()
        if (row := found.get((cell, sae))) is not None
    ]
    return markdown(["hook point", "SAE", "width", *columns.values()], table, 2)


def _field(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, help="sweeps")
    parser.add_argument("--root", type=Path, default=Path(), help="folder the sweeps were run in")
    parser.add_argument("--values", nargs="+", type=float, default=[32], help="of what is swept")
    parser.add_argument("--json", type=Path, default=Path("results/side_use.json"))
    args = parser.parse_args()
    fields = [field.name for field in dataclasses.fields(SideUse)]
    require_same_sweeps([source.stem for source in args.configs], args.json)
    runs = {source.stem: measure(source, args.root, args.values) for source in args.configs}
    require_same_runs(runs, args.json)
    report = {
        "command": own_command(),
        "max_cosine": MAX_COSINE,
        "frequent": FREQUENT,
        "rare": RARE,
        "columns": [*COLUMNS, "d_sae", *fields],
        "sweeps": {name: {"runs": rows} for name, rows in runs.items()},
    }
    write_rows(report, args.json)


if __name__ == "__main__":
    main()
