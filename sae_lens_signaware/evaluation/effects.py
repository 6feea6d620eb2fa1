"""What a side of a latent does to the next token, in a context in which it is active. Ours.

In a context c the model predicts p_c, and p'_c where what latent i writes, z_i d_i, is taken away:

    e_c = log p_c - log p'_c

The inner product of two such effects weighs tokens by how often the model predicts them, and a mean
change of all tokens counts for nothing: <a, b> = sum_v q_v (a_v - q.a) (b_v - q.b).
"""

from collections.abc import Sequence
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.evaluation.examples import Context
from sae_lens_signaware.evaluation.models import (
    HookedRootModule,
    logits_after,
    on_model,
    require_called,
    require_hook,
)
from sae_lens_signaware.evaluation.prompts import hook_of
from sae_lens_signaware.evaluation.streaming import decoder_directions

ROWS_AT_ONCE = 4
"""Contexts that the model runs at once."""

PROMPTS_OF_Q = 16
"""Prompts whose predictions weigh the tokens."""

AS_IS, TURNED = 1.0, -1.0
"""Factors of what a latent writes: what it does, and what the dial does."""


def side_effects(
    model: HookedRootModule,
    sae: SAE[Any],
    tokens: Tensor,
    latent: int,
    contexts: Sequence[Context],
    q: Tensor,
    factors: Sequence[float],
) -> Tensor:
    """What a multiple of what a side writes does to the next token in each of its contexts.

    Args:
        tokens: (prompt, position), which the contexts are of.
        q: (vocabulary,) weights of the inner product, 1 in sum.
        factors: of z_i d_i; 1 is what the side does, and -1 what the dial would do.

    Returns:
        (factor, n, vocabulary) whose inner products are those of the module's docstring, of
        log p - log p': p with the factor times z_i d_i in the place of z_i d_i, p' without it.
    """
    direction = decoder_directions(sae)[latent]
    effects = q.new_zeros(len(factors), len(contexts), len(q))
    # short ones together: a row is run to the last peak of its batch
    order = sorted(range(len(contexts)), key=lambda i: contexts[i].position)
    for start in range(0, len(order), ROWS_AT_ONCE):
        these = order[start : start + ROWS_AT_ONCE]
        part = [contexts[i] for i in these]
        at = torch.tensor([context.position for context in part], device="cpu")
        rows = tokens[[context.prompt for context in part], : int(at.max()) + 1]
        values = torch.tensor([context.value for context in part], device=direction.device)
        written = values[:, None] * direction
        without = _log_prediction(model, sae, rows, at, -written)
        for out, factor in zip(effects, factors, strict=True):
            log_p = _log_prediction(model, sae, rows, at, (factor - 1) * written)
            out[these] = _in_inner_product(log_p - without, q)
    return effects


def _in_inner_product(effects: Tensor, q: Tensor) -> Tensor:
    """Vectors whose plain inner products are the weighted ones of ``effects``."""
    return (effects - (effects @ q)[:, None]) * q.sqrt()


def _log_prediction(
    model: HookedRootModule, sae: SAE[Any], rows: Tensor, at: Tensor, added: Tensor
) -> Tensor:
    """(n, vocabulary) log p of the token after ``at``, with ``added`` (n, d_in) written there."""
    each, calls = torch.arange(len(rows), device="cpu"), list[None]()
    hook_name = require_hook(model, hook_of(sae)[0])

    def write(activations: Tensor, hook: object) -> Tensor:
        del hook
        calls.append(None)
        activations = activations.clone()
        here = activations[each, at]
        activations[each, at] = here + added.to(activations).view(here.shape)
        return activations

    logits = logits_after(model, rows, at, [(hook_name, write)])
    require_called(hook_name, bool(calls))
    return logits.float().log_softmax(-1).cpu()


def mean_prediction(model: HookedRootModule, tokens: Tensor) -> Tensor:
    """(vocabulary,) mean probability of each token over the first prompts."""
    first = on_model(model, tokens[:PROMPTS_OF_Q])
    # one by one: the logits of a prompt can be hundreds of megabytes
    means = [
        model(prompt, return_type="logits", prepend_bos=False)[0].float().softmax(-1).mean(0)
        for prompt in first.split(1)
    ]
    return torch.stack(means).mean(0).cpu()
