"""SA-GSAE's training with one thing changed at a time, on the activations that a sweep has cached.

    python benchmarks/training_variants.py --cell mlp_out --targets 16 64 --json results/training_variants_mlp_out.json

1,000 steps of 512 as in configs/sweep-smollm2-135m.yaml, seed 0, d_sae 576. Most variants are fields of the
config; four change the training itself and live here, as trials that did not pay:
"ste": the reconstruction reaches the thresholds by a straight-through estimator of bandwidth 0.5,
    dz/dthreshold_s = -+ relu(e^r threshold_s + b) / bandwidth * K((u_s - threshold_s) / bandwidth);
"l0+ste": that, and L0 (by the same estimator) in place of L1, threshold_init 0.1, as bi_jumprelu has it;
"bias": an encoder bias, as bi_jumprelu has it;
"l1-to-threshold": L1 reaches the thresholds alone, and does not shrink the encoder.
"""

import argparse
import contextlib
import io
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from sae_lens import register_sae_class, register_sae_training_class
from sae_lens.config import SAETrainerConfig
from safetensors.torch import load_file
from torch import Tensor, nn

from sae_lens_signaware import (
    SAGatedSAE,
    SAGatedSAEConfig,
    SAGatedTrainingSAE,
    SAGatedTrainingSAEConfig,
)
from sae_lens_signaware.activation_cache import write_json_atomically
from sae_lens_signaware.activations import bi_jump_relu, bi_step_ste, rectangle, soft_threshold
from sae_lens_signaware.cached_training import train_on_cache
from sae_lens_signaware.evaluation import measure_quality

STEPS, BATCH, LR, DECAY, BANDWIDTH = 1000, 512, 3e-3, 300, 0.5
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "aux_coefficient 0.5": {"aux_coefficient": 0.5},
    "aux_coefficient 0.25": {"aux_coefficient": 0.25},
    "aux_coefficient 0.1": {"aux_coefficient": 0.1},
    "warm-up 50": {"l1_warm_up_steps": 50},
    "warm-up 400": {"l1_warm_up_steps": 400},
    "aux 0.25, warm-up 400": {"aux_coefficient": 0.25, "l1_warm_up_steps": 400},
    "aux 0.25, resets every 100": {"aux_coefficient": 0.25, "threshold_reset_interval": 100},
    "aux 0.25, threshold_init 0.1": {"aux_coefficient": 0.25, "threshold_init": 0.1},
    "ste": {"ste": True},
    "l0+ste": {"ste": True, "l0": True, "threshold_init": 0.1},
    "bias": {"bias": True},
    "l1-to-threshold": {"l1_to_threshold": True},
    "l1-to-threshold, aux 0.25": {"l1_to_threshold": True, "aux_coefficient": 0.25},
}
NEW_FIELDS = {"ste", "l0", "bias", "l1_to_threshold"}


@dataclass
class TrialSAEConfig(SAGatedSAEConfig):
    @classmethod
    def architecture(cls) -> str:
        return "sa_gsae_trial"


class TrialSAE(SAGatedSAE):
    pass


@dataclass(kw_only=True)
class TrialConfig(SAGatedTrainingSAEConfig):
    ste: bool = False
    l0: bool = False
    bias: bool = False
    l1_to_threshold: bool = False

    @classmethod
    def architecture(cls) -> str:
        return "sa_gsae_trial"


class _GateSTE(torch.autograd.Function):
    """Adds nothing to z, and the gradient of "ste" to the thresholds."""

    @staticmethod
    def forward(ctx: Any, pi: Tensor, threshold: Tensor, r_mag: Tensor, b_mag: Tensor) -> Tensor:
        ctx.save_for_backward(pi, threshold, r_mag, b_mag)
        return torch.zeros_like(pi)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pi, threshold, r_mag, b_mag = ctx.saved_tensors
        out = torch.zeros_like(threshold)
        for sign, row in ((1, 0), (-1, -1)):
            height = torch.relu(r_mag[row].exp() * threshold[row] + b_mag[row])
            window = rectangle((sign * pi - threshold[row]) / BANDWIDTH)
            out[row] -= (sign * height / BANDWIDTH * window * grads[0]).sum(0)
        return None, out, None, None


class Trial(SAGatedTrainingSAE):
    cfg: Any

    def initialize_weights(self) -> None:
        super().initialize_weights()
        if self.cfg.bias:
            self.b_enc = nn.Parameter(torch.zeros(self.cfg.d_sae))

    def encode_with_hidden_pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pi = self.process_sae_in(x) @ self.W_enc
        pi = pi + self.b_enc if self.cfg.bias else pi
        rows = (self.threshold, self.r_mag, self.b_mag)
        z = bi_jump_relu(pi, *rows)
        return (z + _GateSTE.apply(pi, *rows) if self.cfg.ste else z), pi

    def encode(self, x: Tensor) -> Tensor:
        return self.encode_with_hidden_pre(x)[0]

    def calculate_aux_loss(
        self, step_input: Any, feature_acts: Tensor, hidden_pre: Tensor, sae_out: Tensor
    ) -> dict[str, Tensor]:
        losses = super().calculate_aux_loss(step_input, feature_acts, hidden_pre, sae_out)
        weight = step_input.coefficients["l1"]
        if self.cfg.l1_to_threshold:
            _, l1 = soft_threshold(hidden_pre.detach(), self.threshold, self._l1_norm())
            losses["l1_loss"] = weight * l1.mean()
        if self.cfg.l0:
            steps = bi_step_ste(hidden_pre, self.threshold, BANDWIDTH)
            losses["l1_loss"] = weight * steps.sum(-1).mean()
        return losses


def config_of(variant: str, target: float, d_in: int) -> SAGatedTrainingSAEConfig:
    fields = VARIANTS[variant]
    shared: dict[str, Any] = {
        "d_in": d_in,
        "d_sae": 576,
        "normalize_activations": "expected_average_only_in",
        "target_l0": target,
        "l1_warm_up_steps": 200,
    }
    if set(fields) & NEW_FIELDS:
        return TrialConfig(**{**shared, "use_sparse_activations": False, **fields})
    return SAGatedTrainingSAEConfig(**{**shared, **fields})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cell", default="mlp_out")
    parser.add_argument("--cache", type=Path, default=Path("sweep_out/cache"))
    parser.add_argument("--targets", type=float, nargs="+", default=[16.0, 64.0])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    register_sae_class("sa_gsae_trial", TrialSAE, TrialSAEConfig)
    register_sae_training_class("sa_gsae_trial", Trial, TrialConfig)
    cached = load_file(args.cache / f"{args.cell}.safetensors")
    trainer = SAETrainerConfig(
        total_training_samples=STEPS * BATCH,
        train_batch_size_samples=BATCH,
        lr=LR,
        lr_end=LR / 10,
        lr_decay_steps=DECAY,
        dead_feature_window=150,
        n_batches_for_norm_estimate=488,
    )
    rows: list[dict[str, Any]] = []
    for variant in args.only:
        for target in args.targets:
            cfg = config_of(variant, target, cached["train"].shape[1])
            with contextlib.redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as folder:
                sae, _ = train_on_cache(
                    cfg, trainer, cached["train"], 0, Path(folder) / "checkpoint"
                )
            quality, _ = measure_quality(sae, cached["heldout"].split(2048), "held-out tokens")
            rows.append(
                {
                    "variant": variant,
                    "target_l0": target,
                    "l0": round(quality.l0, 2),
                    "r2": round(quality.explained_variance, 4),
                    "dead_share": round(quality.dead_share, 4),
                }
            )
            Console().print(rows[-1])
            command = "python " + shlex.join(sys.argv)
            write_json_atomically({"command": command, "cell": args.cell, "runs": rows}, args.json)


if __name__ == "__main__":
    main()
