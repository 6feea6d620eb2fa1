"""Census by energy rank, calibration, audit and dial of a sweep's signed latents, without texts.

    python benchmarks/signed_latents.py sweep_out/main --json results/signed_latents.json

Reads what `sae-lens-signaware sweep` has written to the folder `latents` of its output. Computes
only shares and quantiles. Prints the table that docs/results/version_0_1_0/sides.md quotes.
"""

import argparse
import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

from own_command import own_command
from rich.console import Console
from rich.table import Table

from sae_lens_signaware.experiments.sweep.latent_results import Dial, LatentPage, SAELatents
from sae_lens_signaware.files import write_json
from sae_lens_signaware.saes.metrics import BIPOLAR_MIN_SHARE

RANKS = (10, 30, 100, 300, 576)


def quantiles(gains: list[float | None]) -> list[float] | None:
    """Quantiles 5%, 50% and 95%."""
    known = [gain for gain in gains if gain is not None]
    if len(known) < 2:
        return None
    cuts = statistics.quantiles(known, n=20, method="inclusive")
    return [round(cuts[i], 4) for i in (0, 9, 18)]


def dial_counts(dials: list[Dial]) -> dict[str, Any]:
    """Numbers of dials that pass, and the median symmetry."""
    return {
        "n": len(dials),
        "monotone": sum(d.monotone for d in dials),
        "sign_changing": sum(d.sign_changing for d in dials),
        "both": sum(d.monotone and d.sign_changing for d in dials),
        "median_symmetry": statistics.median(d.symmetry or 0.0 for d in dials) if dials else None,
    }


def summary(latents: SAELatents) -> dict[str, Any]:
    """The figures of one SAE, as the JSON holds them."""
    curve = latents.bipolar_share_by_energy_rank
    pages: list[LatentPage] = [p for p in latents.pages if p.min_share >= BIPOLAR_MIN_SHARE]
    kept = {
        field.name: getattr(latents, field.name)
        for field in dataclasses.fields(latents)
        if field.name
        not in ("pages", "bipolar_share_by_energy_rank", "gain_pos", "gain_neg", "identity")
    }
    return kept | {
        "bipolar_share_of_top": {k: curve[min(k, len(curve)) - 1] for k in RANKS},
        "gain_pos_q05_q50_q95": quantiles(latents.gain_pos),
        "gain_neg_q05_q50_q95": quantiles(latents.gain_neg),
        "n_bipolar_of_shown": len(pages),
        "dials": dial_counts([p.dial for p in pages if p.dial is not None]),
        "dials_of_nearest_plain_pairs": dial_counts(
            [p.pair_dial for p in pages if p.pair_dial is not None]
        ),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """One row for each SAE."""
    out = Table(title="Signed latents", title_justify="left")
    for name in ("cell", "SAE", "L0 + / -", "bipolar", *(f"top {k}" for k in RANKS)):
        out.add_column(name)
    for name in ("gain + 5/50/95%", "gain -", "dials", "pairs"):
        out.add_column(name)
    for row in rows:
        top = [f"{share:.2f}" for share in row["bipolar_share_of_top"].values()]
        gains = [
            "-"
            if row[f"gain_{s}_q05_q50_q95"] is None
            else " / ".join(f"{g:.2f}" for g in row[f"gain_{s}_q05_q50_q95"])
            for s in ("pos", "neg")
        ]
        dials = [
            f"{d['both']} of {d['n']}" for d in (row["dials"], row["dials_of_nearest_plain_pairs"])
        ]
        l0 = f"{row['l0_pos']:.1f} / {row['l0_neg']:.1f}"
        out.add_row(
            row["cell"],
            row["run"].split("/", 2)[2],
            l0,
            f"{row['bipolar_share']:.2f}",
            *top,
            *gains,
            *dials,
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", type=Path, help="output of sae-lens-signaware sweep")
    parser.add_argument("--json", type=Path, default=Path("results/signed_latents.json"))
    args = parser.parse_args()
    files = sorted((args.sweep / "latents").glob("*.json"))
    if not files:
        sys.exit(f"sweep: {args.sweep} holds no latents/*.json")
    rows = [summary(SAELatents.read(file)) for file in files]
    Console(width=160).print(table(rows))
    write_json({"command": own_command(), "saes": rows}, args.json)


if __name__ == "__main__":
    main()
