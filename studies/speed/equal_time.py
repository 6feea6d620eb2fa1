"""R² at L0 32 against the time of a training: what each SAE reaches within so many seconds.

    python studies/speed/equal_time.py

Trains SAEs of three widths and six lengths (three days of one core), or goes on with them. Then one
thread trains the shortest schedule of each SAE and width alone, --turns times: its mean step stands
for all lengths, since all have the same shares of warm-up and decay. Writes both into result.json.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # studies/ is no installed package

import torch
import yaml
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class

from sae_lens_signaware.training.cached import train_timed
from studies.common import measured_with, read_result, run_sweeps, write_result

HERE = Path(__file__).parent
CONFIG = HERE / "smollm2-135m.yaml"
PRODUCTS = {"sa_gsae": 7}
"""Products of (batch, d_in, d_sae) in a step. Of the others they are five: encoder, decoder, and
the gradients of latents, decoder and encoder; the auxiliary reconstruction adds two."""
SHORTEST = "250"


def step_costs(config: dict[str, Any], activations: torch.Tensor, n_turns: int) -> list[list[Any]]:
    """Architecture, width, seconds and FLOPs of a step, in trainings that take turns.

    Args:
        config: of the sweep.
        activations: (n, d_in).
    """
    torch.set_num_threads(1)
    batch, d_in = config["runner"]["train_batch_size_tokens"], activations.shape[1]
    jobs = []
    for name, fields in config["saes"].items():
        if name.endswith(f"-{SHORTEST}"):
            widths = fields["d_sae"] if isinstance(fields["d_sae"], list) else [fields["d_sae"]]
            jobs += [(fields, d_sae) for d_sae in widths]
    times: list[list[float]] = [[] for _ in jobs]
    for _ in range(n_turns):
        for of_job, (fields, d_sae) in zip(times, jobs, strict=True):
            own = {k: v for k, v in fields.items() if k not in ("architecture", "runner")}
            if fields["architecture"] == "jumprelu":
                own["l0_coefficient"] = 2.0
            cfg = get_sae_training_class(fields["architecture"])[1](
                **(own | {"d_in": d_in, "d_sae": d_sae})
            )
            trainer = SAETrainerConfig(
                total_training_samples=fields["runner"]["training_tokens"],
                train_batch_size_samples=batch,
                lr=config["runner"]["lr"],
                lr_end=0.0,
                lr_decay_steps=fields["runner"]["lr_decay_steps"],
                dead_feature_window=config["runner"]["dead_feature_window"],
                n_batches_for_norm_estimate=config["runner"]["n_batches_for_norm_estimate"],
            )
            _, seconds, n_steps = train_timed(cfg, trainer, activations, 0)
            of_job.append(seconds / n_steps)
    rows = []
    for (fields, d_sae), of_job in zip(jobs, times, strict=True):
        flops = PRODUCTS.get(fields["architecture"], 5) * 2 * batch * d_in * d_sae
        rows.append([fields["architecture"], d_sae, round(statistics.median(of_job), 5), flops])
    return rows


def points_of(sweeps: Path) -> list[list[Any]]:
    """Cell, architecture, width, steps, L0 and R² of every run; names are "ARCHITECTURE-…-STEPS"."""
    rows = []
    for run in run_sweeps(HERE, sweeps, CONFIG.name):
        architecture, *width, steps = run.sae.split("-")
        d_sae = int(width[0]) if width else int(run.value)
        cell = run.cell.split(", ")[1]
        rows.append([cell, architecture, d_sae, int(steps), run.l0, run.r2])
    return rows


def main() -> None:
    """Train, and time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sweeps", type=Path, default=Path("sweep_out"), help="their output")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    points = points_of(args.sweeps)
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    # what a step costs depends on L0, which is asked for, and not on the text
    activations = torch.randn(120_000, 576, generator=torch.Generator().manual_seed(0))
    result = read_result(HERE) | {
        "timed_on": measured_with() | {"turns": args.turns},
        "step_costs": step_costs(config, activations, args.turns),
        "points": points,
    }
    write_result(result, HERE)


if __name__ == "__main__":
    main()
