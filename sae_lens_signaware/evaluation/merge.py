"""The way back from plain to signed: antipodal pairs of a plain SAE become one latent each. Ours.

Unlike the split it is approximate, and decides by measurement.
"""

from collections.abc import Iterable
from typing import Any

import torch
from sae_lens import SAE, GatedSAE, JumpReLUSAE
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.evaluation.audit import AntipodalAudit, antipodal_audit, disjoint_pairs
from sae_lens_signaware.evaluation.inputs import batches_of
from sae_lens_signaware.evaluation.quality import measure_quality
from sae_lens_signaware.saes import (
    BiJumpReLUSAE,
    BiJumpReLUSAEConfig,
    SAGatedSAE,
    SAGatedSAEConfig,
)
from sae_lens_signaware.saes.split import shared_fields

NEVER_ACTIVE = 1e30
"""Threshold of a side that is never active, or the largest of its type where that is less."""


def merge_antipodal(
    sae: SAE[Any],
    activations: Iterable[Tensor] | Tensor,
    max_cosine: float = -0.9,
) -> SAGatedSAE | BiJumpReLUSAE:
    """Merge antipodal latents of a plain SAE that never fire together into signed latents.

    A pair becomes the mean of one latent and the negated other, brought to the same norms. Where
    one of them never fires on these activations, the pair takes the direction of the other. Each
    side keeps its own threshold and, of a ``gated`` SAE, its own magnitude. A latent without a
    partner keeps its + side; its - side is never active. The result is approximate, but for a split
    SAE, which it restores. A gate that is open at pi = 0 (``b_gate > 0``) has no counterpart: its
    threshold becomes 0.

    Args:
        sae: a plain ``gated`` or ``jumprelu`` SAE, width W. It is left as it is.
        activations: as in :func:`~sae_lens_signaware.bipolar_census`. They are read three times,
            and so kept.
        max_cosine: a pair has at most this cosine, from -1 to below 0.

    Returns:
        ``sa_gsae`` or ``bi_jumprelu`` of width W - pairs, tying "none": pairs first, by their first
        latent, then the rest. ``cfg.metadata.merged_from`` holds R² and L0 before and after,
        the numbers of pairs and of tokens, and ``latents``: of each latent, the one or two latents
        of ``sae`` that it is made of, that of the + side first.

    Raises:
        InvalidInputError: another architecture; ``max_cosine`` is out of range; activations are
            empty, of the wrong shape or type, not finite, or do not differ.
    """
    if not isinstance(sae, GatedSAE | JumpReLUSAE):
        raise InvalidInputError(f"sae must be a gated or jumprelu SAE, got {type(sae).__name__}")
    is_whole = isinstance(activations, Tensor)
    tokens = activations if is_whole else torch.cat(list(batches_of(activations, sae.cfg.d_in)))
    audit = antipodal_audit(sae, tokens, max_cosine)
    pairs = sorted(disjoint_pairs(audit.latent_a, audit.latent_b, audit.co_firing_rate == 0))
    paired = {i for pair in pairs for i in pair}
    rest = [i for i in range(sae.cfg.d_sae) if i not in paired]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # new weights, which are overwritten
        merged = _merge(sae, pairs, rest, _weights(audit, pairs).to(sae.W_dec))
    before, after = (measure_quality(s, tokens)[0] for s in (sae, merged))
    merged.cfg.metadata.merged_from = {
        "architecture": sae.cfg.architecture(),
        "d_sae": sae.cfg.d_sae,
        "n_pairs": len(pairs),
        "max_cosine": audit.max_cosine,
        "n_tokens": before.n_tokens,
        "l0_before": before.l0,
        "l0_after": after.l0,
        "explained_variance_before": before.explained_variance,
        "explained_variance_after": after.explained_variance,
        "latents": [*map(list, pairs), *([i] for i in rest)],
    }
    return merged


def _weights(audit: AntipodalAudit, pairs: list[tuple[int, int]]) -> Tensor:
    """(pairs,) weight of the first latent of each in its mean; a latent that never fires has 0."""
    latents = torch.cat([audit.latent_a, audit.latent_b])
    alive = set(latents[torch.cat([audit.rate_a, audit.rate_b]) > 0].tolist())
    return torch.tensor([(1 + (a in alive) - (b in alive)) / 2 for a, b in pairs], device="cpu")


def _merge(
    sae: GatedSAE | JumpReLUSAE, pairs: list[tuple[int, int]], rest: list[int], weight: Tensor
) -> SAGatedSAE | BiJumpReLUSAE:
    """The signed SAE of which each pair is one latent, and every other latent keeps its + side.

    Args:
        rest: the latents of no pair.
        weight: (pairs,) of the first latent in the mean of both.
    """
    device = sae.W_dec.device
    pos = torch.tensor([a for a, _ in pairs] + rest, dtype=torch.int64, device=device)
    neg = torch.tensor([b for _, b in pairs], dtype=torch.int64, device=device)
    n = len(pairs)
    # Bring the - latents to their partners' norms. Decoder: outputs stay, magnitudes times s_dec.
    # Encoder: gates stay, pre-activations times s_enc; the magnitudes of a gated SAE make up for
    # the difference in r_mag, a JumpReLU has nothing to do so with.
    s_dec = _norm_ratio(sae.W_dec, neg, pos[:n])
    gated = isinstance(sae, GatedSAE)
    s_enc = 1 / _norm_ratio(sae.W_enc.T, neg, pos[:n]) if gated else s_dec

    W_enc, W_dec = sae.W_enc[:, pos].clone(), sae.W_dec[pos].clone()
    W_enc[:, :n] = weight * W_enc[:, :n] - (1 - weight) * sae.W_enc[:, neg] * s_enc
    of_rows = weight[:, None]
    W_dec[:n] = of_rows * W_dec[:n] - (1 - of_rows) * sae.W_dec[neg] / s_dec[:, None]

    def rows(param: Tensor, of_neg: Tensor, unpaired: float = 0.0) -> Tensor:
        """A parameter of both sides, (2, d_sae); ``unpaired`` fills the - sides without a pair."""
        # float16 does not reach as far as the threshold of a side that is never active
        param = param.to(torch.promote_types(param.dtype, torch.float32)) if unpaired else param
        other = torch.full_like(param[pos], unpaired)
        other[:n] = of_neg
        return torch.stack([param[pos], other])

    state = {"W_enc": W_enc, "W_dec": W_dec, "b_dec": sae.b_dec.clone()}
    fields = shared_fields(sae.cfg, len(pos))
    if isinstance(sae, GatedSAE):
        merged = SAGatedSAE(SAGatedSAEConfig(polarity_tying="none", **fields))
        threshold = rows(-sae.b_gate, -sae.b_gate[neg] * s_enc, NEVER_ACTIVE)
        state["r_mag"] = rows(sae.r_mag, sae.r_mag[neg] + (s_dec / s_enc).log())
        state["b_mag"] = rows(sae.b_mag, sae.b_mag[neg] * s_dec)
    else:
        merged = BiJumpReLUSAE(BiJumpReLUSAEConfig(polarity_tying="none", **fields))
        # biases of the sides are b_mag + b_enc and b_mag - b_enc; thresholds are of h, not of |z|
        b_pos, b_neg = sae.b_enc[pos], sae.b_enc[neg] * s_enc
        state["b_enc"], state["b_mag"] = b_pos.clone(), torch.zeros_like(b_pos)[None]
        state["b_enc"][:n] = (b_pos[:n] - b_neg) / 2
        state["b_mag"][0, :n] = (b_pos[:n] + b_neg) / 2
        threshold = rows(sae.threshold, sae.threshold[neg] * s_enc, NEVER_ACTIVE) - state["b_mag"]
    # inf would make NaN of a product with 0
    state["threshold"] = threshold.clamp(0.0, torch.finfo(merged.threshold.dtype).max)
    merged.load_state_dict({k: v.contiguous() for k, v in state.items()})
    return merged


def _norm_ratio(rows: Tensor, of: Tensor, to: Tensor) -> Tensor:
    """Norms of some rows over those of others; 1 where a row is 0, as no factor changes that."""
    norm = rows.to(torch.promote_types(rows.dtype, torch.float32)).norm(dim=1)
    is_zero = (norm[of] == 0) | (norm[to] == 0)
    return torch.where(is_zero, 1.0, norm[of] / norm[to]).to(rows.dtype)
