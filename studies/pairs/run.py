"""Train SAEs at L0 32, and count pairs of latents that point opposite ways (half a day).

    python studies/pairs/run.py

The activity of latents is that on the held-out tokens of the sweep. The both-sides rows of the committed
result are of an option that is gone: the SAEs of this package start with both sides open now.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # studies/ is no installed package

import torch
from sae_lens import SAE
from safetensors.torch import load_file

from sae_lens_signaware.evaluation.audit import antipodal_audit
from studies.common import measured_with, run_sweeps, sae_folder, write_result

HERE = Path(__file__).parent
MAX_COSINE = -0.9
FREQUENT = 50
COLUMNS = (
    *("cell", "sae", "d_sae", "l0", "r2", "n_pairs"),
    *("frequent_in_pairs", "frequent_bipolar", "activity_of_bipolar"),
)


def side_use(folder: Path, frequent: int = FREQUENT) -> tuple[int, list[float]]:
    """Width, and the last four of ``COLUMNS``, of a saved SAE and its rates on held-out tokens."""
    sae = SAE.load_from_disk(folder)
    audit = antipodal_audit(sae, None, MAX_COSINE)
    measured = load_file(folder / "sparsity.safetensors")
    rate, share = 10 ** measured["sparsity"].double(), measured["pos_share"].double()
    is_alive = rate > 1e-9  # SAELens writes 1e-10 for a rate of 0
    bipolar = is_alive & (torch.minimum(share, 1 - share) >= 0.1)
    is_frequent = torch.zeros(len(rate), dtype=torch.bool)
    is_frequent[rate.argsort(descending=True)[:frequent]] = True
    is_frequent &= is_alive
    in_pair = torch.zeros(len(rate), dtype=torch.bool)
    in_pair[audit.latent_a] = in_pair[audit.latent_b] = True
    n_frequent = max(1, int(is_frequent.sum()))
    return sae.cfg.d_sae, [
        len(audit.latent_a),
        round(int((in_pair & is_frequent).sum()) / n_frequent, 4),
        round(int((bipolar & is_frequent).sum()) / n_frequent, 4),
        round((rate[bipolar].sum() / rate[is_alive].sum()).item(), 4),
    ]


def main() -> None:
    """Run the sweeps beside this file, and read their SAEs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sweeps", type=Path, default=Path("sweep_out"), help="their output")
    args = parser.parse_args()
    rows = []
    for config in sorted(HERE.glob("*.yaml")):
        for run in run_sweeps(HERE, args.sweeps, config.name):
            d_sae, use = side_use(sae_folder(config, args.sweeps, run))
            rows.append([run.cell, run.sae, d_sae, run.l0, run.r2, *use])
    result = {
        "measured_with": measured_with(),
        "max_cosine": MAX_COSINE,
        "frequent": FREQUENT,
        "pair_columns": list(COLUMNS),
        "pairs": rows,
    }
    write_result(result, HERE)


if __name__ == "__main__":
    main()
