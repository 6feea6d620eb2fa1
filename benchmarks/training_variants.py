"""SA-GSAE's training with one thing changed at a time, on the activations that a sweep has cached.

    python benchmarks/training_variants.py --cell mlp_out --targets 16 64 --json results/training_variants_mlp_out.json

1,000 steps of 512 as in configs/sweep-smollm2-135m.yaml, d_sae 576; with --times 4 every length of
the schedule, resets' included, is four times as long. Most variants are fields of the
config; some change the training itself and live here, as trials that did not pay:
"ste": the reconstruction reaches the thresholds by a straight-through estimator of bandwidth 0.5,
    dz/dthreshold_s = -+ relu(e^r threshold_s + b) / bandwidth * K((u_s - threshold_s) / bandwidth);
"l0+ste": that, and L0 (by the same estimator) in place of L1, threshold_init 0.1, as bi_jumprelu has it;
"bias": an encoder bias, as bi_jumprelu has it;
"l1-to-threshold": L1 reaches the thresholds alone, and does not shrink the encoder;
"gentle resets": every 100 steps, latents shut for 150 steps open again, on as many tokens of the batch as
    a latent does on average (thresholds at that quantile of |pi|);
"resampled": that, and first they get the direction of a token's error, drawn by its squared norm squared,
    at the mean norms of the other latents.
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
from sae_lens_signaware.evaluation import measure_quality
from sae_lens_signaware.files import write_json
from sae_lens_signaware.saes.activations import bi_jump_relu, bi_step_ste, rectangle, soft_threshold
from sae_lens_signaware.training.cached import train_on_cache

D_SAE, STEPS, BATCH, LR, DECAY, BANDWIDTH = 576, 1000, 512, 3e-3, 300, 0.5
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
    "lr 0.001": {"lr": 1e-3},
    "lr 0.006": {"lr": 6e-3},
    "log-sum": {"sparsity_penalty": "log_sum"},
    "log-sum, aux 0.25": {"sparsity_penalty": "log_sum", "aux_coefficient": 0.25},
    "log-sum, aux 0.25, warm-up 400": {
        "sparsity_penalty": "log_sum",
        "aux_coefficient": 0.25,
        "l1_warm_up_steps": 400,
    },
    "log-sum, aux 0.1": {"sparsity_penalty": "log_sum", "aux_coefficient": 0.1},
    "log-sum, aux 0.25, gentle resets": {
        "sparsity_penalty": "log_sum",
        "aux_coefficient": 0.25,
        "revive": "gentle",
    },
    "log-sum, aux 0.25, resampled": {
        "sparsity_penalty": "log_sum",
        "aux_coefficient": 0.25,
        "revive": "resample",
    },
    "gentle resets": {"revive": "gentle"},
    "auxk": {"auxk_coefficient": 1.0},
    "auxk, gentle resets": {"auxk_coefficient": 1.0, "revive": "gentle"},
    "aux 0.25, auxk, gentle resets": {
        "aux_coefficient": 0.25,
        "auxk_coefficient": 1.0,
        "revive": "gentle",
    },
    "auxk, window 150, no resets": {
        "auxk_coefficient": 1.0,
        "dead_threshold_reset": False,
        "window": 150,
    },
    "aux 0.25, auxk, window 150, no resets": {
        "aux_coefficient": 0.25,
        "auxk_coefficient": 1.0,
        "dead_threshold_reset": False,
        "window": 150,
    },
    "aux 0.25, auxk, window 150": {
        "aux_coefficient": 0.25,
        "auxk_coefficient": 1.0,
        "window": 150,
    },
    "aux 0.125, auxk, window 150, no resets": {
        "aux_coefficient": 0.125,
        "auxk_coefficient": 1.0,
        "dead_threshold_reset": False,
        "window": 150,
    },
    "aux 0.5, auxk, window 150, no resets": {
        "aux_coefficient": 0.5,
        "auxk_coefficient": 1.0,
        "dead_threshold_reset": False,
        "window": 150,
    },
    "aux 0.5, auxk, window 150": {
        "aux_coefficient": 0.5,
        "auxk_coefficient": 1.0,
        "window": 150,
    },
    "ste": {"ste": True},
    "l0+ste": {"ste": True, "l0": True, "threshold_init": 0.1},
    "bias": {"bias": True},
    "l1-to-threshold": {"l1_to_threshold": True},
    "l1-to-threshold, aux 0.25": {"l1_to_threshold": True, "aux_coefficient": 0.25},
}
NEW_FIELDS = {"ste", "l0", "bias", "l1_to_threshold", "revive"}
REVIVE_WINDOW, REVIVE_EVERY = 150, 100


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
    revive: str = ""
    revive_until: int = 0

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

    def _start_step(self, step_input: Any) -> Any:
        step, dead = step_input.n_training_steps, step_input.dead_neuron_mask
        is_due = 0 < step < self.cfg.revive_until and step % REVIVE_EVERY == 0
        if is_due and dead is not None and dead.any():
            self._revive(step_input.sae_in, dead)
        return super()._start_step(step_input)

    @torch.no_grad()
    def _revive(self, sae_in: Tensor, dead: Tensor) -> None:
        of = dead.nonzero()[:, 0]
        if self.cfg.revive == "resample":
            error = sae_in - self(sae_in)
            drawn = torch.multinomial(error.norm(dim=1) ** 4, len(of))
            direction = torch.nn.functional.normalize(error[drawn], dim=1)
            self.W_dec[of] = direction * self.W_dec[~dead].norm(dim=1).mean()
            self.W_enc[:, of] = (direction * self.W_enc[:, ~dead].norm(dim=0).mean()).T
            self.b_mag[:, of] = 0.0
            self.r_mag[:, of] = self.r_mag[:, ~dead].mean()
        size = (self.process_sae_in(sae_in) @ self.W_enc[:, of]).abs()
        n_open = max(1, round(self.cfg.target_l0 / self.cfg.d_sae * len(size)))
        self.threshold[:, of] = size.topk(n_open, dim=0).values[-1] * (1 - 1e-6)
        self.n_threshold_resets += len(of)

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


def config_of(variant: str, target: float, d_in: int, times: int) -> SAGatedTrainingSAEConfig:
    fields = {
        name: value for name, value in VARIANTS[variant].items() if name not in ("lr", "window")
    }
    for name in ("l1_warm_up_steps", "threshold_reset_interval"):
        if name in fields:
            fields[name] *= times
    shared: dict[str, Any] = {
        "d_in": d_in,
        "d_sae": D_SAE,
        "normalize_activations": "expected_average_only_in",
        "target_l0": target,
        "l1_warm_up_steps": 200 * times,
    }
    if "revive" in fields:
        # its own resets in place of the package's; none in the last 30%, where the learning rate falls
        fields |= {"dead_threshold_reset": False, "revive_until": (STEPS - DECAY) * times}
    if set(fields) & NEW_FIELDS:
        return TrialConfig(**{**shared, "use_sparse_activations": False, **fields})
    return SAGatedTrainingSAEConfig(**{**shared, **fields})


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
    register_sae_class("sa_gsae_trial", TrialSAE, TrialSAEConfig)
    register_sae_training_class("sa_gsae_trial", Trial, TrialConfig)
    cached = load_file(args.cache / f"{args.cell}.safetensors")
    rows: list[dict[str, Any]] = []
    for variant in args.only:
        fields = VARIANTS[variant]
        lr, window = fields.get("lr", LR), fields.get("window", 150 * args.times)
        trainer = SAETrainerConfig(
            total_training_samples=STEPS * BATCH * args.times,
            train_batch_size_samples=BATCH,
            lr=lr,
            lr_end=lr / 10,
            lr_decay_steps=DECAY * args.times,
            dead_feature_window=REVIVE_WINDOW if "revive" in fields else window,
            n_batches_for_norm_estimate=488,
        )
        for target in args.targets:
            cfg = config_of(variant, target, cached["train"].shape[1], args.times)
            with contextlib.redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as folder:
                sae, _ = train_on_cache(
                    cfg, trainer, cached["train"], args.seed, Path(folder) / "checkpoint"
                )
            quality, _ = measure_quality(sae, cached["heldout"].split(2048), "held-out tokens")
            rows.append(
                {
                    "variant": variant,
                    "target_l0": target,
                    "l0": round(quality.l0, 2),
                    "r2": round(quality.explained_variance, 4),
                    "dead_share": round(quality.dead_share, 4),
                    "n_resets": int(sae.get_buffer("n_threshold_resets")),
                }
            )
            Console().print(rows[-1])
            command = "python " + shlex.join(sys.argv)
            result = {"command": command, "cell": args.cell, "d_sae": D_SAE, "runs": rows}
            result |= {"steps": STEPS * args.times, "seed": args.seed}
            write_json(result, args.json)


if __name__ == "__main__":
    main()
