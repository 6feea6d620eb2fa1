"""AuxK: dead latents learn to reconstruct the error that the others leave, by size, signs kept.

arXiv 2406.04093, appendix A.2, as SAELens's ``topk`` has it; signs are ours.
"""

import torch
from torch import Tensor


def auxk_acts(acts: Tensor, k: int) -> Tensor:
    """The ``k`` of each token that are largest in size; 0 elsewhere. (n_tokens, n)."""
    if k >= acts.shape[-1]:
        return acts
    kept = acts.detach().abs().topk(k, sorted=False).indices
    return torch.zeros_like(acts).scatter(-1, kept, acts.gather(-1, kept))


def auxk_loss(error: Tensor, aux_recons: Tensor, n_dead: int, k: int) -> Tensor:
    """min(n_dead / k, 1) * mean over tokens of ||e - e^||^2.

    Args:
        error: (n_tokens, d_in), x - x^, a constant.
        aux_recons: (n_tokens, d_in), what the dead latents make of it.
        k: dead latents that a token may use; d_in // 2 as in the paper.
    """
    return min(n_dead / k, 1.0) * (aux_recons - error).pow(2).sum(-1).mean()
