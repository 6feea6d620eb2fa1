"""The exact split: a signed SAE of width H is a plain SAE of width 2H. Ours."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from sae_lens import SAE, SAEConfig
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor

from sae_lens_signaware.saes.common import SignedSAE

S = TypeVar("S", bound=SAE[Any])


@torch.no_grad()
def split_polarities(sae: SAE[Any]) -> SAE[Any]:
    """The plain SAE of width 2H that a signed one of width H is: same output, no negative latent.

    Latent i becomes i (its + side) and i + H (its - side). ``sa_gsae`` gives SAELens's ``gated``,
    ``bi_topk`` its ``topk``, the others its ``jumprelu``; the result loads where this package is
    not installed. An SAE with ``two_sided=False`` keeps the width H. In 16 bits the sums of two
    biases are rounded: split in float32.

    Args:
        sae: a signed SAE, for inference or training. It is left as it is.

    Returns:
        A plain inference SAE on the same device and in the same dtype.

    Raises:
        TypeError: ``sae`` is no signed SAE.
    """
    if not isinstance(sae, SignedSAE):
        raise TypeError(f"split_polarities takes a signed SAE, got {type(sae).__name__}")
    return sae.to_plain()


def both_sides(rows: Tensor, n_sides: int = 2) -> Tensor:
    """(P, H) rows to (n_sides * H,): the + side, then the - side."""
    return torch.cat([rows[0], rows[-1]][:n_sides])


def make_plain(
    sae: SignedSAE,
    plain_class: type[S],
    config_class: type[SAEConfig],
    parameters: Mapping[str, Tensor],
    n_sides: int = 2,
    fields: Mapping[str, Any] | None = None,
) -> S:
    """The plain twin: [W_enc, -W_enc], [W_dec; -W_dec], b_dec, and ``parameters`` of its own.

    Args:
        parameters: name -> (n_sides * H,).
        n_sides: 1 where the - side is never active.
        fields: of ``config_class`` beyond those of SAELens's ``SAEConfig``.
    """
    shared = shared_fields(sae.cfg, n_sides * sae.cfg.d_sae)
    sides = "i" if n_sides == 1 else "i (+ side) and i + d_sae (- side)"
    shared["metadata"].split_from = {
        "architecture": sae.cfg.architecture(),
        "d_sae": sae.cfg.d_sae,
        "index_map": f"latent i is {sides}",
    }
    with torch.random.fork_rng(devices=[]):  # it draws weights, which are overwritten
        plain = plain_class(config_class(**shared, **(fields or {})))
    state = {
        "W_enc": torch.cat([sae.W_enc, -sae.W_enc][:n_sides], dim=1),
        "W_dec": torch.cat([sae.W_dec, -sae.W_dec][:n_sides], dim=0),
        "b_dec": sae.b_dec,
        **parameters,
    }
    plain.load_state_dict({name: t.to(sae.dtype).contiguous() for name, t in state.items()})
    return plain


def shared_fields(cfg: SAEConfig, d_sae: int) -> dict[str, Any]:
    """The fields of SAELens's base config, for an SAE of ``d_sae`` latents; metadata is a copy.

    Without what the metadata say of the latents: their number, L0 and pages on Neuronpedia.
    """
    fields = {f.name: getattr(cfg, f.name) for f in dataclasses.fields(SAEConfig)}
    metadata = copy.deepcopy(cfg.metadata.to_dict())
    for name in ("split_from", "merged_from", "l0", "num_dead_features", "neuronpedia_id"):
        metadata.pop(name, None)
    return fields | {"d_sae": d_sae, "metadata": SAEMetadata(**metadata)}


def split_log_sparsity(log_sparsity: Tensor, pos_share: Tensor | None = None) -> Tensor:
    """log10 firing rates of the plain twin, (2H,) float32, as in SAELens's sparsity file.

    Args:
        log_sparsity: (H,) of the signed SAE, of either side.
        pos_share: (H,) share of a latent's firings on the + side; None gives each side the whole
            rate, an upper bound.
    """
    rate = 10.0 ** log_sparsity.double()
    share = (1.0, 1.0) if pos_share is None else (pos_share, 1 - pos_share)
    sides = torch.cat([rate * share[0], rate * share[1]])
    return sides.clamp(min=1e-10).log10().float()  # SAELens's floor for one that never fires
