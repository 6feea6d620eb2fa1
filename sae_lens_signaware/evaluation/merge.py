"""The way back from plain to signed: antipodal pairs of a plain SAE become one latent each. Ours.

Unlike the split it is approximate, and decides by measurement.
"""

from collections.abc import Iterable
from typing import Any

import torch
from sae_lens import SAE, GatedSAE, JumpReLUSAE
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation.audit import AntipodalAudit, antipodal_audit, disjoint_pairs
from sae_lens_signaware.evaluation.inputs import batches_of
from sae_lens_signaware.evaluation.measures import measure_quality
from sae_lens_signaware.saes import (
    BiJumpReLUSAE,
    BiJumpReLUSAEConfig,
    SAGatedSAE,
    SAGatedSAEConfig,
)
from sae_lens_signaware.saes.split import shared_fields

NEVER_ACTIVE = 1e30
"""Threshold of a side that is never active, or the largest of its type where that is less.

inf would make NaN of a product with 0.
"""


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
            empty, of the wrong shape or type, or not finite.
    """
    is_known = isinstance(sae, GatedSAE | JumpReLUSAE)
    require(is_known, "sae", sae.cfg.architecture(), "a plain gated or jumprelu SAE")
    tokens = torch.cat(list(batches_of(activations, sae.cfg.d_in)))
    audit = antipodal_audit(sae, tokens, max_cosine)
    pairs = sorted(disjoint_pairs(audit.latent_a, audit.latent_b, audit.co_firing_rate == 0))
    paired = {i for pair in pairs for i in pair}
    rest = [i for i in range(sae.cfg.d_sae) if i not in paired]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # new weights, which are overwritten
        merged = _merge(sae, pairs, rest, _weights(audit, pairs).to(sae.device))
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
    """(pairs, 1) weight of the first latent in the mean of both; one that never fires has 0."""
    alive = {*audit.latent_a[audit.rate_a > 0].tolist(), *audit.latent_b[audit.rate_b > 0].tolist()}
    weights = [(1 + (a in alive) - (b in alive)) / 2 for a, b in pairs]
    return torch.tensor(weights, device="cpu")[:, None]


def _merge(
    sae: SAE[Any], pairs: list[tuple[int, int]], rest: list[int], weight: Tensor
) -> SAGatedSAE | BiJumpReLUSAE:
    """The signed SAE of which each pair is one latent, and every other latent keeps its + side.

    Args:
        rest: the latents of no pair.
        weight: (pairs, 1) of the first latent in the mean of both.
    """
    pos, neg, n = [a for a, _ in pairs] + rest, [b for _, b in pairs], len(pairs)
    # float16 does not reach as far as the threshold of a side that is never active
    wide = torch.promote_types(sae.dtype, torch.float32)
    plain = {name: param.detach().to(wide) for name, param in sae.named_parameters()}
    W_enc, W_dec = plain["W_enc"].T, plain["W_dec"]
    # Bring the - latents to their partners' norms. Decoder: outputs stay, magnitudes times s_dec.
    # Encoder: gates stay, pre-activations times s_enc; the magnitudes of a gated SAE make up for
    # the difference in r_mag, a JumpReLU has nothing to do so with.
    gated = isinstance(sae, GatedSAE)
    s_dec = _norm_ratio(W_dec[neg], W_dec[pos[:n]])
    s_enc = 1 / _norm_ratio(W_enc[neg], W_enc[pos[:n]]) if gated else s_dec

    def joined(rows: Tensor, scale: Tensor) -> Tensor:
        """(d_sae, d_in) the mean of each pair, then the rest."""
        mean = weight * rows[pos[:n]] - (1 - weight) * rows[neg] * scale[:, None]
        return torch.cat([mean, rows[rest]])

    def sides(of_pos: Tensor, of_neg: Tensor, unpaired: float = 0.0) -> Tensor:
        """A parameter of both sides, (2, d_sae); ``unpaired`` fills the - sides without a pair."""
        return torch.stack([of_pos, torch.cat([of_neg, of_pos.new_full([len(rest)], unpaired)])])

    state = {"b_dec": sae.b_dec, "W_dec": joined(W_dec, 1 / s_dec)}
    state["W_enc"] = joined(W_enc, s_enc).T
    fields = shared_fields(sae.cfg, len(pos))
    if gated:
        merged = SAGatedSAE(SAGatedSAEConfig(polarity_tying="none", **fields))
        b_gate, r_mag, b_mag = plain["b_gate"], plain["r_mag"], plain["b_mag"]
        threshold = sides(-b_gate[pos], -b_gate[neg] * s_enc, NEVER_ACTIVE)
        state["r_mag"] = sides(r_mag[pos], r_mag[neg] + (s_dec / s_enc).log())
        state["b_mag"] = sides(b_mag[pos], b_mag[neg] * s_dec)
    else:
        merged = BiJumpReLUSAE(BiJumpReLUSAEConfig(polarity_tying="none", **fields))
        # biases of the sides are b_mag + b_enc and b_mag - b_enc; thresholds are of h, not of |z|
        b_enc, held = plain["b_enc"], plain["threshold"]
        b_pos, b_neg = b_enc[pos], torch.cat([b_enc[neg] * s_enc, -b_enc[rest]])
        state |= {"b_enc": (b_pos - b_neg) / 2, "b_mag": (b_pos + b_neg)[None] / 2}
        threshold = sides(held[pos], held[neg] * s_enc, NEVER_ACTIVE) - state["b_mag"]
    state["threshold"] = threshold.clamp(0.0, torch.finfo(merged.threshold.dtype).max)
    merged.load_state_dict({name: tensor.contiguous() for name, tensor in state.items()})
    return merged


def _norm_ratio(of: Tensor, to: Tensor) -> Tensor:
    """Norms of rows over those of others; 1 where a row is 0, as no factor changes that."""
    ratio = of.norm(dim=1) / to.norm(dim=1)
    return ratio.where((ratio > 0) & ratio.isfinite(), 1.0)
