"""Exact split of a signed SAE into a plain SAELens SAE of twice the width (docs/architectures.md)."""

import copy
import dataclasses
from typing import Any

import torch
from sae_lens import GatedSAE, GatedSAEConfig, JumpReLUSAE, JumpReLUSAEConfig, SAEConfig
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor

from sae_lens_signaware.saes.bi_jumprelu import BiJumpReLUSAE, BiJumpReLUTrainingSAE
from sae_lens_signaware.saes.sa_gsae import SAGatedSAE, SAGatedTrainingSAE


def _both(param: Tensor, n_sides: int) -> Tensor:
    """(P, H) rows to (n_sides * H,): the + side, then the - side."""
    return torch.cat([param[0], param[-1]][:n_sides])


def _plain_config_fields(sae: Any, n_sides: int) -> dict[str, Any]:
    fields = {f.name: getattr(sae.cfg, f.name) for f in dataclasses.fields(SAEConfig)}
    fields["d_sae"] = n_sides * sae.cfg.d_sae
    metadata = copy.deepcopy(sae.cfg.metadata.to_dict())
    metadata["split_from"] = {
        "architecture": sae.cfg.architecture(),
        "d_sae": sae.cfg.d_sae,
        "index_map": "latent i is i"
        if n_sides == 1
        else "latent i is i (+ side) and i + d_sae (- side)",
    }
    fields["metadata"] = SAEMetadata(**metadata)
    return fields


@torch.no_grad()
def split_polarities(
    sae: SAGatedSAE | SAGatedTrainingSAE | BiJumpReLUSAE | BiJumpReLUTrainingSAE,
) -> GatedSAE | JumpReLUSAE:
    """The plain SAE of width 2H that a signed SAE of width H *is*: same output, latents non-negative.

    Latent i becomes i (its + side) and i + H (its - side). ``sa_gsae`` gives SAELens's ``gated``,
    ``bi_jumprelu`` its ``jumprelu``; the result loads where this package is not installed. A
    ``sa_gsae`` with ``two_sided=False`` has no - side: its plain form keeps the width H.

    Args:
        sae: a signed SAE, width H. It is left as it is.

    Returns:
        A plain inference SAE on the same device and in the same dtype.

    Raises:
        TypeError: ``sae`` is not one of this package's SAEs.
    """
    if isinstance(sae, SAGatedSAE | SAGatedTrainingSAE):
        n_sides = 2 if sae.cfg.two_sided else 1
        plain: Any = GatedSAE(GatedSAEConfig(**_plain_config_fields(sae, n_sides)))
        state = {
            "b_gate": -_both(sae.threshold.clamp(min=0.0), n_sides),
            "r_mag": _both(sae.r_mag, n_sides),
            "b_mag": _both(sae.b_mag, n_sides),
        }
    elif isinstance(sae, BiJumpReLUSAE | BiJumpReLUTrainingSAE):
        n_sides = 2
        plain = JumpReLUSAE(JumpReLUSAEConfig(**_plain_config_fields(sae, n_sides)))
        state = {
            "b_enc": torch.cat([sae.b_enc, -sae.b_enc]),
            "threshold": _both(sae.threshold.clamp(min=0.0), n_sides),
        }
    else:
        raise TypeError(
            f"split_polarities takes a sa_gsae or bi_jumprelu SAE, got {type(sae).__name__}"
        )
    state |= {
        "W_enc": torch.cat([sae.W_enc, -sae.W_enc][:n_sides], dim=1),
        "W_dec": torch.cat([sae.W_dec, -sae.W_dec][:n_sides], dim=0),
        "b_dec": sae.b_dec,
    }
    plain.load_state_dict({k: v.to(sae.dtype).contiguous() for k, v in state.items()})
    return plain


def split_log_sparsity(log_sparsity: Tensor, pos_share: Tensor | None = None) -> Tensor:
    """Sparsity of the split SAE: log10 firing rates, as in SAELens's ``sparsity.safetensors``.

    Args:
        log_sparsity: (H,) log10 of the firing rate of each signed latent, either side.
        pos_share: (H,) share of a latent's firings that are on the + side. None where it was not
            measured: each side is then given the latent's whole rate, an upper bound.

    Returns:
        (2H,) float32: the + sides, then the - sides.
    """
    rate = 10.0 ** log_sparsity.double()
    if pos_share is None:
        sides = torch.cat([rate, rate])
    else:
        sides = torch.cat([rate * pos_share, rate * (1 - pos_share)])
    # 1e-10 is SAELens's own floor for a latent that never fires
    return sides.clamp(min=1e-10).log10().float()
