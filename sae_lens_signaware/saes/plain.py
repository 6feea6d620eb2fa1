"""Parts of the exact split: the plain twin of an SAE has its weights once for each side."""

import copy
import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from sae_lens import SAE, SAEConfig
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor

from sae_lens_signaware.saes.base import SignedSAEMixin

S = TypeVar("S", bound=SAE[Any])


def both_sides(rows: Tensor, n_sides: int = 2) -> Tensor:
    """(P, H) rows to (n_sides * H,): the + side, then the - side."""
    return torch.cat([rows[0], rows[-1]][:n_sides])


def make_plain(
    sae: SignedSAEMixin,
    plain_class: type[S],
    config_class: type[SAEConfig],
    parameters: Mapping[str, Tensor],
    n_sides: int = 2,
    fields: Mapping[str, Any] | None = None,
) -> S:
    """The plain twin: [W_enc, -W_enc], [W_dec; -W_dec], b_dec, and parameters of its own.

    Args:
        sae: a signed SAE, width H. It is left as it is.
        plain_class, config_class: SAELens's.
        parameters: name -> (n_sides * H,), of :func:`both_sides` or likewise; W_enc and W_dec may
            be among them.
        n_sides: 1 where the - side is never active; the twin then keeps the width H.
        fields: of ``config_class`` beyond those of SAELens's ``SAEConfig``, such as ``k``.

    Returns:
        An inference SAE of width n_sides * H on the same device and in the same dtype.
    """
    all_fields = shared_fields(sae, n_sides * sae.cfg.d_sae) | dict(fields or {})
    sides = "i" if n_sides == 1 else "i (+ side) and i + d_sae (- side)"
    all_fields["metadata"].split_from = {
        "architecture": sae.cfg.architecture(),
        "d_sae": sae.cfg.d_sae,
        "index_map": f"latent i is {sides}",
    }
    with own_random_state(sae.W_dec.device):
        plain = plain_class(config_class(**all_fields))
    state = {
        "W_enc": torch.cat([sae.W_enc, -sae.W_enc][:n_sides], dim=1),
        "W_dec": torch.cat([sae.W_dec, -sae.W_dec][:n_sides], dim=0),
        "b_dec": sae.b_dec,
        **parameters,
    }
    plain.load_state_dict({k: v.to(sae.dtype).contiguous() for k, v in state.items()})
    return plain


def own_random_state(device: torch.device) -> AbstractContextManager[None]:
    """Keep torch's random state as it is: an SAE draws weights, which are then overwritten."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def shared_fields(sae: SAE[Any], d_sae: int) -> dict[str, Any]:
    """Fields of SAELens's base config as ``sae`` has them, of another width; metadata is a copy.

    Without what SAELens's trainer says there of the latents of ``sae`` and their number.
    """
    fields = {f.name: getattr(sae.cfg, f.name) for f in dataclasses.fields(SAEConfig)}
    held = copy.deepcopy(sae.cfg.metadata.to_dict())
    # of another SAE's latents
    for name in ("split_from", "merged_from", "l0", "num_dead_features"):
        held.pop(name, None)
    metadata = SAEMetadata(**held)
    metadata.neuronpedia_id = None  # its pages are numbered as the latents of ``sae``
    return fields | {"d_sae": d_sae, "metadata": metadata}
