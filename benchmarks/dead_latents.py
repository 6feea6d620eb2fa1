"""Dead latents of a sweep's SA-GSAEs: dead or rare, and would they carry anything?

    python benchmarks/dead_latents.py sweep_out/main --json results/dead_latents.json

dead    never active on the held-out tokens
rare    of these, active at least once on the cached training tokens
gain    the R2 that the dead latents could add if each were active on the 0.1% of the held-out
        tokens where its |pi| is largest, with the best common scale of its magnitudes; each by
        itself, and added up
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from own_command import own_command
from rich.console import Console
from rich.table import Table
from sae_lens import SAE
from safetensors.torch import load_file
from torch import Tensor

from sae_lens_signaware import SAGatedSAE, bipolar_census
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.files import write_json

CHUNK, ACTIVE_SHARE = 4096, 1e-3


@torch.no_grad()
def possible_gain(sae: SAGatedSAE, x: Tensor, dead: Tensor) -> float:
    """Share of the variance that the dead latents could explain; see the module's docstring."""
    if not dead.any():
        return 0.0
    error = torch.cat([part - sae(part) for part in x.split(CHUNK)])
    pi = torch.cat([sae.process_sae_in(part) @ sae.W_enc[:, dead] for part in x.split(CHUNK)])
    n_active = max(1, int(ACTIVE_SHARE * len(x)))
    gain = 0.0
    for values, direction in zip(pi.T, sae.W_dec[dead], strict=True):
        rows = values.abs().topk(n_active).indices
        z = values[rows]
        # a negative scale is not allowed
        along = (z * (error[rows] @ direction)).sum().clamp(min=0)
        gain += (along**2 / (z.square().sum() * direction.square().sum())).item()
    return gain / (x - x.mean(0)).square().sum().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", type=Path, help="output of sae-lens-signaware sweep")
    parser.add_argument("--cache", type=Path, default=Path("sweep_out/cache"))
    parser.add_argument("--json", type=Path, default=Path("results/dead_latents.json"))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    files = sorted((args.sweep / "runs").glob("*/*/*/*.json"))
    if not files:
        sys.exit(f"sweep: {args.sweep} has no runs/**/*.json")
    for file in files:
        result = RunResult.read(file)
        if result.quality.dead_share == 0:
            continue
        folder = args.sweep / "saes" / file.relative_to(args.sweep / "runs").with_suffix("")
        sae = SAE.load_from_disk(folder, device="cpu")
        if not isinstance(sae, SAGatedSAE):
            continue
        cached = load_file(args.cache / f"{result.cell}.safetensors")
        dead = ~bipolar_census(sae, cached["heldout"]).alive
        rows.append(
            {
                "cell": result.cell,
                "sae": result.sae,
                "seed": result.seed,
                "l0": round(result.quality.l0, 2),
                "d_sae": sae.cfg.d_sae,
                "n_heldout_tokens": len(cached["heldout"]),
                "n_train_tokens": len(cached["train"]),
                "dead": int(dead.sum()),
                "rare": int((dead & bipolar_census(sae, cached["train"]).alive).sum()),
                "possible_gain_in_r2": possible_gain(sae, cached["heldout"], dead),
            }
        )
    table = Table(*rows[0]) if rows else Table("no dead latents")
    for row in rows:
        table.add_row(*(f"{v:.5f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=140).print(table)
    write_json({"command": own_command(), "saes": rows}, args.json)


if __name__ == "__main__":
    main()
