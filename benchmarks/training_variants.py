"""SA-GSAE's training with one option changed at a time, on the activations that a sweep has cached.

    python benchmarks/training_variants.py --cell mlp_out --targets 16 64 --json results/FILE.json

A run has 1,000 steps of 512 tokens, as in configs/sweep-smollm2-135m.yaml, and d_sae 576. With
--times 4 every length of the schedule is four times as long; "window 150" is 150 steps in either
case. A variant changes options of the package and nothing else. Variants that needed code of their
own were rejected: docs/log.md has their figures and the commit that holds their code.
"""

import argparse
import contextlib
import io
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from own_command import own_command
from rich.console import Console
from sae_lens.config import SAETrainerConfig
from safetensors.torch import load_file

from sae_lens_signaware import SAGatedTrainingSAEConfig
from sae_lens_signaware.evaluation import measure_quality
from sae_lens_signaware.files import write_json
from sae_lens_signaware.training.cached import train_on_cache

D_SAE, STEPS, BATCH, LR, WARM_UP, DECAY, WINDOW = 576, 1000, 512, 3e-3, 200, 300, 150
AUXK = {"auxk_coefficient": 1.0}
AUXK_NO_RESETS = AUXK | {"dead_threshold_reset": False}
LOG_SUM = {"sparsity_penalty": "log_sum"}
# The defaults when these were trained.
EARLIER_DEFAULTS = {
    "dead_after_tokens": None,
    "dead_threshold_decay": 0.0,
    "dead_threshold_reset": True,
    "auxk_coefficient": 0.0,
    "aux_coefficient": 1.0,
}


def aux(coefficient: float) -> dict[str, Any]:
    return {"aux_coefficient": coefficient}


def warm_up(steps: int) -> dict[str, Any]:
    return {"l1_warm_up_steps": steps}


@dataclass(frozen=True)
class Variant:
    """What differs from the training of the main sweep.

    Attributes:
        fields: fields of the SAE's config; lengths are for a training of 1,000 steps.
        lr: the learning rate before it falls.
        window: `dead_feature_window` in steps, whatever the length of the training; None is 150
            steps for a training of 1,000.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    lr: float = LR
    window: int | None = None


# The names are those of the results in results/training_variants_*.json.
VARIANTS = {
    "as it is": Variant(),
    "aux_coefficient 0.5": Variant(aux(0.5)),
    "aux_coefficient 0.25": Variant(aux(0.25)),
    "aux_coefficient 0.1": Variant(aux(0.1)),
    "warm-up 50": Variant(warm_up(50)),
    "warm-up 400": Variant(warm_up(400)),
    "aux 0.25, warm-up 400": Variant(aux(0.25) | warm_up(400)),
    "aux 0.25, resets every 100": Variant(aux(0.25) | {"threshold_reset_interval": 100}),
    "aux 0.25, threshold_init 0.1": Variant(aux(0.25) | {"threshold_init": 0.1}),
    "lr 0.001": Variant(lr=1e-3),
    "lr 0.006": Variant(lr=6e-3),
    "log-sum": Variant(LOG_SUM),
    "log-sum, aux 0.25": Variant(LOG_SUM | aux(0.25)),
    "log-sum, aux 0.25, warm-up 400": Variant(LOG_SUM | aux(0.25) | warm_up(400)),
    "log-sum, aux 0.1": Variant(LOG_SUM | aux(0.1)),
    "auxk": Variant(AUXK),
    "auxk, window 150, no resets": Variant(AUXK_NO_RESETS, window=150),
    "aux 0.125, auxk, window 150, no resets": Variant(AUXK_NO_RESETS | aux(0.125), window=150),
    "aux 0.25, auxk, window 150, no resets": Variant(AUXK_NO_RESETS | aux(0.25), window=150),
    "aux 0.5, auxk, window 150, no resets": Variant(AUXK_NO_RESETS | aux(0.5), window=150),
    "aux 0.25, auxk, window 150": Variant(AUXK | aux(0.25), window=150),
    "aux 0.5, auxk, window 150": Variant(AUXK | aux(0.5), window=150),
}


def sae_config_of(
    variant: Variant, target: float, d_in: int, times: int
) -> SAGatedTrainingSAEConfig:
    fields = EARLIER_DEFAULTS | warm_up(WARM_UP) | variant.fields
    for name in ("l1_warm_up_steps", "threshold_reset_interval"):
        if name in fields:
            fields[name] *= times
    return SAGatedTrainingSAEConfig(
        d_in=d_in,
        d_sae=D_SAE,
        normalize_activations="expected_average_only_in",
        target_l0=target,
        **fields,
    )


def trainer_config_of(variant: Variant, times: int) -> SAETrainerConfig:
    return SAETrainerConfig(
        total_training_samples=STEPS * BATCH * times,
        train_batch_size_samples=BATCH,
        lr=variant.lr,
        lr_end=variant.lr / 10,
        lr_decay_steps=DECAY * times,
        dead_feature_window=WINDOW * times if variant.window is None else variant.window,
        n_batches_for_norm_estimate=488,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cell", default="mlp_out")
    parser.add_argument("--cache", type=Path, default=Path("sweep_out/cache"))
    parser.add_argument("--targets", type=float, nargs="+", default=[16.0, 64.0])
    parser.add_argument(
        "--times", type=int, default=1, help="length of the training over 1,000 steps"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cached = load_file(args.cache / f"{args.cell}.safetensors")
    result: dict[str, Any] = {
        "command": own_command(),
        "cell": args.cell,
        "d_sae": D_SAE,
        "steps": STEPS * args.times,
        "seed": args.seed,
        "runs": [],
    }
    for name in args.only:
        trainer = trainer_config_of(VARIANTS[name], args.times)
        for target in args.targets:
            cfg = sae_config_of(VARIANTS[name], target, cached["train"].shape[1], args.times)
            with contextlib.redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as folder:
                sae, _ = train_on_cache(
                    cfg, trainer, cached["train"], args.seed, Path(folder) / "checkpoint"
                )
            quality, _ = measure_quality(sae, cached["heldout"].split(2048), "held-out tokens")
            result["runs"].append(
                {
                    "variant": name,
                    "target_l0": target,
                    "l0": round(quality.l0, 2),
                    "r2": round(quality.explained_variance, 4),
                    "dead_share": round(quality.dead_share, 4),
                    "n_resets": int(sae.get_buffer("n_threshold_resets")),
                }
            )
            Console().print(result["runs"][-1])
            write_json(result, args.json)


if __name__ == "__main__":
    main()
