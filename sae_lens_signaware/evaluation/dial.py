"""Polarity dial: what a direction does to the model's output (docs/evaluate.md).

It writes c * d_i into the stream, c from - to +, and measures a logit difference or the loss.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation.inputs import (
    decoder_directions,
    numbers_of_latents,
    require_folded,
)
from sae_lens_signaware.evaluation.models import HookedRootModule, hook_of, on_model, require_hook
from sae_lens_signaware.evaluation.results import Number, Provenance, Result, Values


@dataclasses.dataclass(frozen=True, repr=False)
class PolarityDial(Result):
    """Effect of a latent's direction at every coefficient, and the verdict with its numbers.

    Attributes:
        coefficients: (n,) float64, ascending, symmetric about 0: norm of what is added to the
            stream at every position, in the units of the activations. Its sign is the side.
        effect: (n,) mean of the metric over sequences, less ``baseline``.
        baseline: mean with nothing added, of the logit difference in nats or of the loss in nats
            per token.
        metric: "logit_difference" or "loss".
        latent_pos, latent_neg: the latent that each sign writes; one and the same for a signed
            latent, a pair for a plain SAE.
        logit_tokens: (a, b) of a logit difference; None of the loss.
    """

    coefficients: Values
    effect: Values
    baseline: Number
    metric: str
    latent_pos: int
    latent_neg: int
    logit_tokens: tuple[int, int] | None = None

    @property
    def monotone(self) -> bool:
        """Whether the effect only rises, or only falls, from the first coefficient to the last."""
        steps = self.effect.diff()
        return bool((steps >= 0).all() or (steps <= 0).all())

    @property
    def sign_changing(self) -> bool:
        """Whether the two ends of every pair +-c push the metric in opposite ways."""
        pos, neg = self._ends()
        return bool((pos * neg < 0).all())

    @property
    def symmetry(self) -> float:
        """Share of the effect that is odd in c: 1 = mirrored, 0 = the same both ways.

        Over c > 0 it is
            sum |e(c) - e(-c)| / sum (|e(c) - e(-c)| + |e(c) + e(-c)|)
        and NaN without any effect.
        """
        pos, neg = self._ends()
        odd, even = (pos - neg).abs().sum(), (pos + neg).abs().sum()
        return (odd / (odd + even)).item()

    def _ends(self) -> tuple[Tensor, Tensor]:
        n = len(self.coefficients) // 2
        return self.effect[-n:], self.effect[:n].flip(0)


@torch.no_grad()
def polarity_dial(
    model: HookedRootModule,
    sae: SAE[Any],
    latent: int | tuple[int, int],
    tokens: Tensor,
    coefficients: Sequence[float] | Tensor,
    logit_tokens: tuple[int, int] | None = None,
) -> PolarityDial:
    """Add c * d / ||d|| at the SAE's hook, at every position, and measure the model's output.

    The direction has norm 1, so that a signed latent and a pair of plain ones are dialled alike.

    Args:
        model: SAELens's hooked model.
        sae: any SAELens SAE.
        latent: one latent, dialled both ways along its axis; or a pair of a plain SAE, of which
            positive coefficients write the first one's direction, negative ones the second's.
        tokens: (prompt, position) token ids.
        coefficients: positive, in the units of the activations. Each is written with both signs,
            and 0 is measured as well.
        logit_tokens: (a, b) measures logit(a) - logit(b) at the last position; None the loss.

    Raises:
        InvalidInputError: there is no such latent, or its decoder row is 0; a coefficient is not
            above 0, or so large that the logits are not finite; the model lacks the hook, does not
            call it, or it is of another width; or the scale of the activations is not folded in.
    """
    require_folded(sae)
    pair = latent if isinstance(latent, tuple) else (latent, latent)
    numbers_of_latents(sae, pair)
    sizes = sorted(torch.as_tensor(coefficients, dtype=torch.float64).tolist())
    require(bool(sizes) and sizes[0] > 0, "coefficients", sizes, "numbers above 0")
    hook = require_hook(model, hook_of(sae)), sae.cfg.metadata.hook_head_index
    rows = decoder_directions(sae)[list(pair)]
    require(bool(rows.any(1).all()), "latent", latent, "one whose decoder row is not 0")
    pos, neg = normalize(rows, dim=1)
    neg = neg if isinstance(latent, tuple) else -neg
    grid = [-c for c in reversed(sizes)] + [0.0, *sizes]
    values = []
    for c in grid:
        added = abs(c) * (pos if c > 0 else neg)
        values.append(_measure(model, hook, tokens, added, logit_tokens))
        allowed = "sizes that leave the logits of this model finite"
        require(math.isfinite(values[-1]), "coefficients", c, allowed)
    baseline = values[len(sizes)]
    return PolarityDial(
        provenance=Provenance.of(sae, tokens.numel()),
        coefficients=torch.tensor(grid, dtype=torch.float64, device="cpu"),
        effect=torch.tensor([v - baseline for v in values], dtype=torch.float64, device="cpu"),
        baseline=baseline,
        metric="logit_difference" if logit_tokens else "loss",
        latent_pos=int(pair[0]),
        latent_neg=int(pair[1]),
        logit_tokens=logit_tokens,
    )


def _measure(
    model: HookedRootModule,
    hook_and_head: tuple[str, int | None],
    tokens: Tensor,
    added: Tensor,
    logit_tokens: tuple[int, int] | None,
) -> float:
    (hook_name, head), n_calls = hook_and_head, [0]

    def add(activations: Tensor, hook: object) -> Tensor:
        del hook
        n_calls[0] += 1
        # without a head, all heads of hook_z are one activation of the SAE
        width = activations.shape[2 if head is None else 3 :].numel()
        require(width == len(added), f"width of {hook_name!r}", width, f"{len(added)}, as the SAE")
        if head is None:
            return activations + added.to(activations).view(activations.shape[2:])
        activations = activations.clone()
        activations[:, :, head] += added.to(activations)
        return activations

    logits = model.run_with_hooks(
        on_model(model, tokens), return_type="logits", fwd_hooks=[(hook_name, add)]
    )
    # some hooks of TransformerLens are off by default
    require(n_calls[0] > 0, "hook_name", hook_name, "a hook that this model calls, with a tensor")
    if logit_tokens is not None:
        last = logits[:, -1, list(logit_tokens)].cpu().double()  # bfloat16 would round it
        return (last[:, 0] - last[:, 1]).mean().item()
    predicted, actual = logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    return cross_entropy(predicted.float(), actual.long().to(predicted.device)).item()
