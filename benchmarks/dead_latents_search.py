"""Recipes against dead latents, one at a time, on the activations that a sweep has cached.

    python benchmarks/dead_latents_search.py --only earlier --cells attn_out --out FOLDER
    python benchmarks/dead_latents_search.py --out FOLDER --collect results/FILE.json

A run has 4,000 steps of 512 tokens. Each finished run is a JSON file of FOLDER and is not repeated;
--collect gathers them. "earlier" is the training before the search. Latents count as dead by the
runner's `dead_feature_window`: 50 steps are the 25,600 tokens of `dead_after_tokens`.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from own_command import own_command
from sae_lens import TrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from safetensors.torch import load_file

import sae_lens_signaware  # noqa: F401  (registers the architectures)
from sae_lens_signaware.evaluation import measure_quality
from sae_lens_signaware.files import write_json
from sae_lens_signaware.training.cached import train_on_cache

STEPS, BATCH = 4000, 512
COEFFICIENT = {"sa_gsae": "l1", "bi_jumprelu": "l0"}
TOPK = ("bi_batchtopk",)
ARCHITECTURES = (*COEFFICIENT, *TOPK)


@dataclass(frozen=True)
class Variant:
    """A recipe: what all architectures share, and what one has of its own.

    Attributes:
        fields: of the SAE's config.
        own: architecture -> fields that it alone has.
        lr: learning rate before it falls.
        lr_warm_up: steps over which it rises.
        decay: steps over which it falls to 0 at the end.
        warm_up: steps over which the sparsity coefficient rises.
        window: `dead_feature_window` in steps.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    lr: float = 3e-3
    lr_warm_up: int = 0
    decay: int = 1200
    warm_up: int = 800
    window: int = 600


EARLIER = {"dead_threshold_decay": 0.0, "dead_threshold_reset": False, "auxk_coefficient": 0.0}
SLOW = {"target_l0_rate": 0.005}
AUXK = {"auxk_coefficient": 1.0}


def falling(share: float) -> dict[str, Any]:
    """Thresholds of dead latents fall by this share a step."""
    return {"dead_threshold_decay": share}


def with_aux(coefficient: float) -> dict[str, dict[str, Any]]:
    """The weight of the auxiliary loss, which sa_gsae alone has; 1 elsewhere."""
    return {"sa_gsae": {"aux_coefficient": coefficient}}


# In a name, "fall" is dead_threshold_decay, "window" the number of steps in which a latent that is
# not active becomes dead, and "aux" the weight of sa_gsae's auxiliary loss.
VARIANTS = {
    "earlier": Variant(own={"sa_gsae": {"dead_threshold_reset": True}}),
    "lr 1e-3, auxk": Variant(SLOW | AUXK, lr=1e-3, window=150),
    "lr 1e-3, auxk, aux 0.25": Variant(SLOW | AUXK, with_aux(0.25), lr=1e-3, window=150),
    "lr 1e-3, auxk, aux 0.125": Variant(SLOW | AUXK, with_aux(0.125), lr=1e-3, window=150),
    "window 50, lr_decay 3000": Variant(window=50, decay=3000),
    "fall 0.01": Variant(falling(0.01), window=50),
    "fall 0.03": Variant(falling(0.03), window=50),
    "fall 0.01, window 25": Variant(falling(0.01), window=25),
    "fall 0.01, lr_decay 3000": Variant(falling(0.01), window=50, decay=3000),
    "fall 0.003, lr_decay 3000": Variant(falling(0.003), window=50, decay=3000),
    "fall 0.01, auxk": Variant(falling(0.01) | AUXK, with_aux(0.25), window=50),
    "fall 0.01, auxk, aux 0.25, lr_decay 3000": Variant(
        falling(0.01) | AUXK, with_aux(0.25), window=50, decay=3000
    ),
}


def fields_of(variant: Variant, architecture: str) -> dict[str, Any]:
    """Fields of the SAE's config: those of the variant over the defaults before the search."""
    if architecture in TOPK:
        return {}
    aux = {"aux_coefficient": 1.0} if architecture == "sa_gsae" else {}
    return EARLIER | aux | variant.fields | variant.own.get(architecture, {})


def configs_of(
    variant: Variant, architecture: str, d_in: int, d_sae: int, target: float
) -> tuple[TrainingSAEConfig, SAETrainerConfig]:
    config_class = get_sae_training_class(architecture)[1]
    fields: dict[str, Any] = {
        "d_in": d_in,
        "d_sae": d_sae,
        "normalize_activations": "expected_average_only_in",
        "dead_after_tokens": None,
        **fields_of(variant, architecture),
    }
    if architecture in TOPK:
        fields["k"] = target
    else:
        fields |= {
            f"{COEFFICIENT[architecture]}_warm_up_steps": variant.warm_up,
            "target_l0": target,
        }
    trainer = SAETrainerConfig(
        total_training_samples=STEPS * BATCH,
        train_batch_size_samples=BATCH,
        lr=variant.lr,
        lr_end=variant.lr / 10,
        lr_warm_up_steps=variant.lr_warm_up,
        lr_decay_steps=variant.decay,
        dead_feature_window=variant.window,
        n_batches_for_norm_estimate=488,
    )
    return config_class(**fields), trainer


def run(
    name: str, architecture: str, cell: str, cache: Path, d_sae: int, target: float, seed: int
) -> dict:
    cached, started = load_file(cache / f"{cell}.safetensors"), time.perf_counter()
    sae_cfg, trainer = configs_of(
        VARIANTS[name], architecture, cached["train"].shape[1], d_sae, target
    )
    with contextlib.redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        sae, _ = train_on_cache(sae_cfg, trainer, cached["train"], seed, Path(folder) / "c")
    quality, _ = measure_quality(sae, cached["heldout"].split(2048), "held-out tokens")
    variant = VARIANTS[name]
    return {
        "variant": name,
        "architecture": architecture,
        "cell": cell,
        "d_sae": d_sae,
        "seed": seed,
        "target_l0": target,
        "l0": round(quality.l0, 2),
        "r2": round(quality.explained_variance, 4),
        "dead_share": round(quality.dead_share, 4),
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "settings": fields_of(variant, architecture)
        | {
            "lr": variant.lr,
            "lr_warm_up_steps": variant.lr_warm_up,
            "lr_decay_steps": variant.decay,
            "warm_up_steps": variant.warm_up,
            "dead_feature_window": variant.window,
        },
    }


def collect(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    order = ("variant", "architecture", "cell", "target_l0", "seed")
    return sorted(rows, key=lambda row: [row[name] for name in order])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", nargs="+", default=["attn_out", "mlp_out", "resid"])
    parser.add_argument("--cache", type=Path, default=Path("sweep_out/cache"))
    parser.add_argument(
        "--architectures", nargs="+", default=list(COEFFICIENT), choices=ARCHITECTURES
    )
    parser.add_argument("--targets", type=float, nargs="+", default=[8.0, 32.0, 128.0])
    parser.add_argument("--d-sae", type=int, default=1152)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--collect", type=Path)
    args = parser.parse_args()
    if args.collect:
        write_json({"steps": STEPS, "runs": collect(args.out)}, args.collect)
        return
    torch.set_num_threads(1)
    command = own_command()
    todo = [
        (name, architecture, cell, target, seed)
        for name in args.only
        for seed in args.seeds
        for cell in args.cells
        for target in args.targets
        for architecture in args.architectures
    ]
    for name, architecture, cell, target, seed in todo:
        file = args.out / f"{name}+{architecture}+{cell}+{args.d_sae}+{target:g}+{seed}.json"
        if not file.exists():
            row = run(name, architecture, cell, args.cache, args.d_sae, target, seed)
            write_json(row | {"command": command}, file)
            print({k: row[k] for k in row if k != "settings"}, flush=True)


if __name__ == "__main__":
    main()
