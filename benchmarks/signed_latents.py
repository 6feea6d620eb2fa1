"""Do latents use both sides, and is one a dial? Census, calibration, audit and dial on three hook points.

    python benchmarks/signed_latents.py --out cells_out --json results/signed_latents.json

SmolLM2-135M, layer 15, mlp_out, attn_out and the residual stream: SA-GSAE at 576 latents by target_l0,
bi_jumprelu at 576, SAELens's Gated at 1,152 by three l1, 1,500 steps of 512 on 250,000 cached tokens, measured on
45,000 held out. The dial: the bipolar latents of most energy of SA-GSAE at L0 64, each against the pair
of Gated latents nearest to its two ends, on the logit difference of the two tokens that its direction
speaks for and against most (through the final norm's weight and the unembedding). About 20 minutes on two cores.
"""

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import sae_lens
import torch
from first_frontier import CFG
from rich.console import Console
from sae_lens import GatedTrainingSAEConfig, TrainingSAEConfig
from torch import Tensor

from sae_lens_signaware import BiJumpReLUTrainingSAEConfig, SAGatedTrainingSAEConfig, demo
from sae_lens_signaware import demo_data as data
from sae_lens_signaware.activation_cache import write_json_atomically
from sae_lens_signaware.evaluation import (
    Analysis,
    analyze_sae,
    antipodal_audit,
    nearest_antipodal_pair,
    polarity_dial,
)

TARGETS = (32.0, 64.0, 128.0)
GATED_L1S = (0.5, 1.0, 2.0)  # of these, the SAE whose L0 is nearest to 64 stands for Gated
RANKS = (10, 30, 100, 200, 300, 400, 500, 576)
N_DIALS, DIAL_SIZES = 12, (2.0, 8.0, 32.0)
MIN_SHARE = 0.1


def configs() -> dict[str, tuple[str, TrainingSAEConfig]]:
    shared: dict[str, Any] = {
        "d_in": data.D_IN,
        "normalize_activations": "expected_average_only_in",
    }
    warm_up, d_sae = CFG.n_steps // 5, CFG.d_sae
    out: dict[str, tuple[str, TrainingSAEConfig]] = {
        f"sa_gsae-{t:g}": (
            f"target_l0 {t:g}",
            SAGatedTrainingSAEConfig(d_sae=d_sae, target_l0=t, l1_warm_up_steps=warm_up, **shared),
        )
        for t in TARGETS
    }
    out["bi_jumprelu-64"] = (
        "target_l0 64",
        BiJumpReLUTrainingSAEConfig(d_sae=d_sae, target_l0=64, l0_warm_up_steps=warm_up, **shared),
    )
    for l1 in GATED_L1S:
        out[f"gated-l1-{l1:g}"] = (
            f"l1 {l1:g}",
            GatedTrainingSAEConfig(
                d_sae=2 * d_sae, l1_coefficient=l1, l1_warm_up_steps=warm_up, **shared
            ),
        )
    return out


def summary(analysis: Analysis) -> dict[str, Any]:
    """What of a census and a calibration fits in a table."""
    census = analysis.census
    curve = census.bipolar_share_by_energy_rank(MIN_SHARE)
    gains = {}
    for side in ("pos", "neg"):
        gain = getattr(analysis.calibration, f"gain_{side}")
        gain = gain[~gain.isnan()]
        gains[f"gain_{side}_q05_q50_q95"] = (
            [gain.quantile(q).item() for q in (0.05, 0.5, 0.95)] if len(gain) else None
        )
    energy = (census.energy_pos + census.energy_neg).sort(descending=True).values
    return {
        "l0_pos": census.firing_rate_pos.sum().item(),
        "l0_neg": census.firing_rate_neg.sum().item(),
        "bipolar_share": census.bipolar_share(MIN_SHARE),
        "bipolar_share_at_half": {s: census.bipolar_share(s) for s in (0.2, 0.3, 0.4)},
        "bipolar_share_of_top": {k: curve[min(k, len(curve)) - 1].item() for k in RANKS},
        "energy_share_of_top_10": (energy[:10].sum() / energy.sum()).item(),
        **gains,
    }


def audit_summary(sae: Any, heldout: Tensor) -> dict[str, Any]:
    found = {}
    for bar in (-0.9, -0.7, -0.5):
        audit = antipodal_audit(sae, heldout[:8192], bar)
        found[f"{bar:g}"] = {
            "n_pairs": audit.n_pairs,
            "freed_width": audit.freed_width,
            "co_firing_pairs": int((audit.co_firing_rate > 0).sum()),
        }
    return found


def dials(model: Any, signed: Any, plain: Any, analysis: Analysis, tokens: Tensor) -> list[Any]:
    """The signed latents of most energy among the bipolar, each beside the nearest plain pair."""
    census = analysis.census
    energy = (census.energy_pos + census.energy_neg) * census.bipolar(MIN_SHARE)
    read_out = model.model.get_output_embeddings().weight * model.model.model.norm.weight
    rows = []
    for latent in energy.topk(N_DIALS).indices.tolist():
        direction = signed.W_dec[latent].detach()
        votes = read_out @ direction
        words = (int(votes.argmax()), int(votes.argmin()))
        pair = nearest_antipodal_pair(plain, direction)
        row: dict[str, Any] = {
            "latent": latent,
            "pair": pair,
            "logit_tokens": [model.tokenizer.decode([w]) for w in words],
            "pair_cosines_to_axis": torch.cosine_similarity(
                plain.W_dec[list(pair)].detach(), direction[None]
            ).tolist(),
        }
        for name, sae, which in (("signed", signed, latent), ("plain_pair", plain, pair)):
            for metric, logit_tokens in (("logit_difference", words), ("loss", None)):
                dial = polarity_dial(model, sae, which, tokens, DIAL_SIZES, logit_tokens)
                row[f"{name}_{metric}"] = {
                    "coefficients": dial.coefficients.tolist(),
                    "effect": [round(e, 4) for e in dial.effect.tolist()],
                    "baseline": dial.baseline,
                    "monotone": dial.monotone,
                    "sign_changing": dial.sign_changing,
                    "symmetry": dial.symmetry,
                    "direction_cosine": dial.direction_cosine,
                }
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("cells_out"))
    parser.add_argument("--json", type=Path, default=Path("results/signed_latents.json"))
    args = parser.parse_args()
    console = Console()
    model = data.load_demo_model(data.prepare_model(args.out / "model"))
    texts = data.prepare_text(args.out / "data")
    cells: dict[str, Any] = {}
    for cell, hook_name in data.HOOK_NAMES.items():
        cfg = dataclasses.replace(CFG, hook_name=hook_name)
        cache = args.out / "cache" / f"{cell}.safetensors"
        activations = data.cached_activations(
            model, texts, cfg.token_counts, cache, console, hook_name
        )
        saes, rows, analyses = {}, {}, {}
        for name, (knob, sae_cfg) in configs().items():
            row, sae = demo.train_one(name, knob, sae_cfg, activations, cfg, args.out / cell)
            saes[name], analyses[name] = sae, analyze_sae(sae, activations["heldout"])
            rows[name] = dataclasses.asdict(row) | {"census": summary(analyses[name])}
            q = row.quality
            console.print(
                f"{cell} {name}: L0 {q.l0:.2f} R2 {q.explained_variance:.4f} dead "
                f"{q.dead_share:.4f} bipolar {q.bipolar_share:.4f}"
            )
        gated = min(
            (name for name in saes if name.startswith("gated")),
            key=lambda name: abs(math.log(analyses[name].census.l0 / 64)),
        )
        store = data.make_store(model, texts["heldout"], data.CONTEXT_SIZE, hook_name)
        tokens = store.get_batch_tokens(4)[:, :64]
        cells[cell] = {
            "hook_name": hook_name,
            "saes": rows,
            "plain_sae": gated,
            "audit_of_plain_sae": audit_summary(saes[gated], activations["heldout"]),
            "dials": dials(model, saes["sa_gsae-64"], saes[gated], analyses["sa_gsae-64"], tokens),
        }
    write_json_atomically(
        {
            "command": "python " + " ".join(sys.argv),
            "config": dataclasses.asdict(CFG),
            "threads": torch.get_num_threads(),
            "sae_lens_version": sae_lens.__version__,
            "torch_version": torch.__version__,
            "cells": cells,
        },
        args.json,
    )


if __name__ == "__main__":
    main()
