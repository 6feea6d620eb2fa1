"""L0, R2, dead share and firing by side of any SAELens SAE, in one streaming pass."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sae_lens
import torch
from sae_lens import SAE, ActivationsStore, run_evals
from sae_lens.evals import EvalConfig, ExplainedVarianceCalculator
from sae_lens.training.activation_scaler import ActivationScaler
from torch import Tensor

QUALITY_FILENAME = "quality.json"


@dataclasses.dataclass(frozen=True)
class SAEQuality:
    """What one pass over ``n_tokens`` activations measured. Written to ``quality.json`` as it is.

    Attributes:
        l0: mean number of nonzero latents per token, either side.
        explained_variance: R2 by SAELens's ExplainedVarianceCalculator; 1 is perfect.
        dead_share: share of latents that never fired on either side over ``n_tokens``; it shrinks
            as ``n_tokens`` grows, so cite both.
        bipolar_share: share of the alive latents whose rarer side makes up >= 0.1 of their firings.
        n_tokens: tokens measured on.
        loss_recovered: (CE_zero - CE_sae) / (CE_zero - CE_orig), None where it was not measured.
        loss_recovered_tokens: tokens that was measured on, None likewise.
        architecture, d_sae: of the SAE.
        tokens_from: what the tokens are, e.g. "held-out speeches".
        sae_lens_version, torch_version: provenance.
    """

    l0: float
    explained_variance: float
    dead_share: float
    bipolar_share: float
    n_tokens: int
    architecture: str
    d_sae: int
    tokens_from: str
    loss_recovered: float | None = None
    loss_recovered_tokens: int | None = None
    sae_lens_version: str = sae_lens.__version__
    torch_version: str = torch.__version__

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, path: Path) -> "SAEQuality":
        """Read what ``to_dict`` gave, from JSON.

        Raises:
            ValueError: not such a file.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: not a {QUALITY_FILENAME}: {error}") from None


@dataclasses.dataclass(frozen=True)
class Firing:
    """Firings by side over ``n_tokens``: ``n_pos`` and ``n_neg``, (d_sae,) int64 each, on the CPU."""

    n_pos: Tensor
    n_neg: Tensor
    n_tokens: int

    @property
    def log_sparsity(self) -> Tensor:
        """(d_sae,) log10 of the firing rate, as SAELens's ``sparsity.safetensors`` holds it."""
        rate = (self.n_pos + self.n_neg).double() / self.n_tokens
        return rate.clamp(min=1e-10).log10().float()

    @property
    def pos_share(self) -> Tensor:
        """(d_sae,) share of a latent's firings that are on the + side; 1/2 where it never fires."""
        n = self.n_pos + self.n_neg
        return torch.where(n > 0, self.n_pos / n.clamp(min=1), 0.5)


@torch.no_grad()
def measure_quality(
    sae: SAE[Any],
    activations: Iterable[Tensor],
    tokens_from: str,
    bipolar_min_share: float = 0.1,
) -> tuple[SAEQuality, Firing]:
    """Encode and decode every batch once.

    Args:
        sae: any SAELens SAE, inference or training.
        activations: batches of shape (n, d_in), scaled as the SAE expects them.
        tokens_from: goes into the result, word for word.
        bipolar_min_share: see :class:`SAEQuality`.

    Raises:
        ValueError: no activations, or some that are not finite.
    """
    variance = ExplainedVarianceCalculator()
    n_pos = torch.zeros(sae.cfg.d_sae, dtype=torch.int64, device=sae.device)
    n_neg = torch.zeros_like(n_pos)
    n_tokens = 0
    for batch in activations:
        x = batch.to(sae.device)
        z = sae.encode(x)
        variance.add_batch(sae.decode(z), x)
        n_pos += (z > 0).sum(0)
        n_neg += (z < 0).sum(0)
        n_tokens += x.shape[0]
    if n_tokens == 0:
        raise ValueError("activations must hold at least one token, got none")
    r2 = variance.compute()
    if r2 != r2:
        raise ValueError("activations must be finite, got NaN or inf")
    firing = Firing(n_pos.cpu(), n_neg.cpu(), n_tokens)
    n_fired = firing.n_pos + firing.n_neg
    alive = n_fired > 0
    rarer = torch.minimum(firing.n_pos, firing.n_neg)
    bipolar = alive & (rarer >= bipolar_min_share * n_fired)
    quality = SAEQuality(
        l0=n_fired.sum().item() / n_tokens,
        explained_variance=r2,
        dead_share=1 - alive.sum().item() / sae.cfg.d_sae,
        bipolar_share=bipolar.sum().item() / max(1, alive.sum().item()),
        n_tokens=n_tokens,
        architecture=sae.cfg.architecture(),
        d_sae=sae.cfg.d_sae,
        tokens_from=tokens_from,
    )
    return quality, firing


def add_loss_recovered(
    quality: SAEQuality,
    sae: SAE[Any],
    model: Any,
    store: ActivationsStore,
    n_batches: int = 1,
) -> SAEQuality:
    """Loss recovered by SAELens's own ``run_evals``, on the next tokens of ``store``.

    Args:
        quality: result to extend.
        sae: as saved: activation normalisation is folded in.
        model: SAELens's hooked model.
        n_batches: batches of ``store.store_batch_size_prompts`` contexts.
    """
    excluded = store.exclude_special_tokens
    metrics, _ = run_evals(
        sae=sae,
        activation_store=store,
        model=model,
        activation_scaler=ActivationScaler(),
        eval_config=EvalConfig(n_eval_reconstruction_batches=n_batches, compute_ce_loss=True),
        exclude_special_tokens=False if excluded is None else excluded.tolist(),
    )
    return dataclasses.replace(
        quality,
        loss_recovered=metrics["model_performance_preservation"]["ce_loss_score"],
        loss_recovered_tokens=n_batches * store.store_batch_size_prompts * store.context_size,
    )
