"""Bipolar latents by how often they are active, of the SAEs of sweeps that are still on disk.

    python benchmarks/bipolar_rates.py configs/widths-smollm2-135m.yaml \\
        configs/widths-gemma3-270m.yaml

The share of bipolar latents counts each latent once. In a wide SAE most latents are active on few
tokens, so that share says little of the latents that are active on a token. Read on the held-out
activations that the sweep has cached. To be run where the sweeps were run.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from own_command import own_command
from reproduction_rows import COLUMNS, row_of
from reproduction_tables import markdown
from result_rows import write_rows
from sweep_source import runs_with_saes

from sae_lens_signaware.evaluation import BipolarCensus, bipolar_census, load_sae
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.training.cache import load_named_activations

RARE = 1e-3
"""A latent that is active on a smaller share of the tokens is rare."""
BATCH = 2048  # tokens
_SHARES = {
    "bipolar_share": "bipolar latents",
    "rare_share": "rare latents",
    "bipolar_of_rare": "bipolar among the rare",
    "bipolar_of_others": "bipolar among the others",
    "activity_of_rare": "rare latents per L0",
    "activity_of_bipolar": "bipolar latents per L0",
}
"""Shares that the table has, and its columns."""


@dataclasses.dataclass(frozen=True)
class BipolarRates:
    """Of the latents that are active at all on the tokens.

    Attributes:
        rare_share: share of the latents that are rare.
        bipolar_of_rare, bipolar_of_others: share of these latents that are bipolar.
        activity_of_rare: the rare latents' share of the active latents of a token, on average.
        activity_of_bipolar: the same of the bipolar latents.
    """

    rare_share: float
    bipolar_of_rare: float
    bipolar_of_others: float
    activity_of_rare: float
    activity_of_bipolar: float


def bipolar_rates(census: BipolarCensus, rare: float = RARE) -> BipolarRates:
    """Count the bipolar latents among those of a rate below ``rare``, and among the others.

    A share of no latents is 0.
    """
    rate = census.firing_rate_pos + census.firing_rate_neg
    is_bipolar, is_alive = census.bipolar(), census.alive
    is_rare = is_alive & (rate < rare)
    is_other = is_alive & ~is_rare
    return BipolarRates(
        rare_share=_share(is_rare.sum().item(), is_alive.sum().item()),
        bipolar_of_rare=_share((is_rare & is_bipolar).sum().item(), is_rare.sum().item()),
        bipolar_of_others=_share((is_other & is_bipolar).sum().item(), is_other.sum().item()),
        activity_of_rare=_share(rate[is_rare].sum().item(), census.l0),
        activity_of_bipolar=_share(rate[is_bipolar].sum().item(), census.l0),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def measure(source: Path, root: Path, value: float) -> list[list[object]]:
    """The rows of one sweep: those of ``row_of``, with the width and the rates of a signed SAE."""
    store, found = runs_with_saes(source, root, [value])
    rows = []
    for run in found:
        sae = load_sae(store.sae_path(run))
        heldout = load_named_activations(store.cache_path(run.cell), "heldout").float()
        census = bipolar_census(sae, heldout.split(BATCH))
        if not census.one_sided:
            rates = [round(share, 4) for share in dataclasses.astuple(bipolar_rates(census))]
            result = row_of(RunResult.read(store.result_path(run)))
            rows.append([*result, sae.cfg.d_sae, *rates])
            print(*rows[-1])
    return rows


def bipolar_rates_table(
    measured: Mapping[str, Any], hook_points: Mapping[str, str], saes: Mapping[str, str]
) -> str:
    """Shares of bipolar and of rare latents, of each SAE.

    Args:
        measured: what this script writes.
        hook_points: name of a sweep of one hook point -> that in the table.
        saes: name of an SAE -> that in the table, in its order.
    """
    table = []
    for sweep, hook_point in hook_points.items():
        rows = [
            dict(zip(measured["columns"], r, strict=True))
            for r in measured["sweeps"][sweep]["runs"]
        ]
        found = {row["sae"]: row for row in rows}
        for sae, label in saes.items():
            if sae in found:
                shares = (f"{found[sae][name]:.0%}" for name in _SHARES)
                table.append([hook_point, label, f"{found[sae]['d_sae']:,}", *shares])
    return markdown(["hook point", "SAE", "width", *_SHARES.values()], table, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, help="sweeps")
    parser.add_argument("--root", type=Path, default=Path(), help="folder the sweeps were run in")
    parser.add_argument("--value", type=float, default=32, help="target_l0 or k")
    parser.add_argument("--json", type=Path, default=Path("results/bipolar_rates.json"))
    args = parser.parse_args()
    rates = [field.name for field in dataclasses.fields(BipolarRates)]
    sweeps = {
        source.stem: {"runs": measure(source, args.root, args.value)} for source in args.configs
    }
    write_rows(
        {
            "command": own_command(),
            "rare": RARE,
            "columns": [*COLUMNS, "d_sae", *rates],
            "sweeps": sweeps,
        },
        args.json,
    )


if __name__ == "__main__":
    main()
