"""Polarity dial: what a direction does to the model's output (docs/measures.md).

It writes c * d_i into the stream, c from - to +, and measures a logit difference or the loss.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from rich.table import Table
from sae_lens import SAE
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from sae_lens_signaware.checks import checked, require
from sae_lens_signaware.evaluation.inputs import (
    numbers_of_latents,
    require_autoencoder,
    require_folded,
    require_sae,
)
from sae_lens_signaware.evaluation.models import (
    HookedRootModule,
    on_model,
    require_called,
    require_head,
    require_hook,
)
from sae_lens_signaware.evaluation.prompts import hook_of, require_tokens
from sae_lens_signaware.evaluation.results import Provenance, Result
from sae_lens_signaware.evaluation.streaming import decoder_directions


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
        direction_cosine: between the + direction and the - direction as they are written; -1 where
            one axis carries both.
        logit_tokens: (a, b) of a logit difference; None of the loss, and where an earlier file
            lacks it.
    """

    coefficients: Tensor
    effect: Tensor
    baseline: float
    metric: str
    latent_pos: int
    latent_neg: int
    direction_cosine: float
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

    def _summary(self) -> Mapping[str, object]:
        return {
            "monotone": self.monotone,
            "sign_changing": self.sign_changing,
            "symmetry": self.symmetry,
        }

    @classmethod
    def _fields_of(cls, values: dict[str, Any]) -> dict[str, Any]:
        pair = values.pop("logit_tokens", None)
        return {**super()._fields_of(values), "logit_tokens": pair and tuple(pair)}

    def _ends(self) -> tuple[Tensor, Tensor]:
        n = len(self.coefficients) // 2
        return self.effect[-n:], self.effect[:n].flip(0)

    def table(self) -> Table:
        """A table for the terminal: the verdict, and the effect at every coefficient."""
        which = (
            f"latent {self.latent_pos}"
            if self.latent_pos == self.latent_neg
            else f"latents {self.latent_pos} (+) and {self.latent_neg} (-)"
        )
        table = Table(
            title=f"{which}: {'monotone' if self.monotone else 'not monotone'}, "
            f"{'sign-changing' if self.sign_changing else 'not sign-changing'}, "
            f"symmetry {self.symmetry:.2f}; {self.metric} {self.baseline:.4f} with nothing added",
            title_justify="left",
        )
        table.add_column("c", justify="right")
        table.add_column(f"change of {self.metric}", justify="right")
        for c, effect in zip(self.coefficients.tolist(), self.effect.tolist(), strict=True):
            table.add_row(f"{c:+.3g}", f"{effect:+.4f}")
        return table


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
        model: SAELens's hooked model, with the hook ``sae.cfg.metadata.hook_name``.
        sae: any SAELens SAE.
        latent: one latent, dialled both ways along its axis; or a pair of a plain SAE, of which
            positive coefficients write the first one's direction, negative ones the second's.
        tokens: (prompt, position) token ids.
        coefficients: positive, in the units of the activations. Each is written with both signs,
            and 0 is measured as well.
        logit_tokens: (a, b) measures logit(a) - logit(b) at the last position; None the loss.

    Raises:
        ValueError: a latent or a token is out of range; a coefficient is not above 0, or so large
            that the logits are not finite; there are too few tokens for the metric or more than the
            model has positions; the model lacks the SAE's hook or does not call it, or it is of
            another width or lacks the SAE's head; or the scale of the activations is not folded in.
    """
    require_autoencoder(sae)
    latent = checked("latent", latent, int | tuple[int, int])
    logit_tokens = checked("logit_tokens", logit_tokens, tuple[int, int] | None)
    pair = latent if isinstance(latent, tuple) else (latent, latent)
    numbers_of_latents(sae, pair, "latent")
    sizes = _sizes(coefficients)
    shortest = 1 if logit_tokens else 2
    require_tokens(model, tokens, shortest)
    name, head = hook_of(sae)
    hook = require_hook(model, name), head
    require_folded(sae)
    pos, neg = dialled_directions(sae, latent)
    grid = [-c for c in reversed(sizes)] + [0.0, *sizes]
    values = []
    for c in grid:
        of_side = pos if c > 0 else neg
        values.append(_measure(model, hook, tokens, abs(c) * of_side, logit_tokens))
        allowed = "sizes that leave the logits of this model finite"
        require(math.isfinite(values[-1]), "coefficients", c, allowed)
    baseline = values[len(sizes)]
    return PolarityDial(
        provenance=Provenance.of(sae, tokens.numel()),
        coefficients=torch.tensor(grid, dtype=torch.float64, device="cpu"),
        effect=torch.tensor([v - baseline for v in values], dtype=torch.float64, device="cpu"),
        baseline=baseline,
        metric="logit_difference" if logit_tokens else "loss",
        latent_pos=pair[0],
        latent_neg=pair[1],
        direction_cosine=cosine_similarity(pos, neg, dim=0).item(),
        logit_tokens=logit_tokens,
    )


def _sizes(coefficients: Sequence[float] | Tensor) -> list[float]:
    """The coefficients, smallest first."""
    given: Any = coefficients.tolist() if isinstance(coefficients, Tensor) else coefficients
    require(isinstance(given, Iterable), "coefficients", given, "a list of numbers above 0")
    sizes = sorted(checked("coefficients", list(given), list[float]))
    require(bool(sizes) and sizes[0] > 0, "coefficients", list(given), "numbers above 0")
    return sizes


def dialled_directions(sae: SAE[Any], latent: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return what a positive and a negative coefficient write, (d_in,) each, of norm 1.

    They are both ways along the axis of one latent, or the own directions of two.
    """
    pair = latent if isinstance(latent, tuple) else (latent, latent)
    rows = decoder_directions(sae)[list(pair)]
    require(bool(rows.any(1).all()), "latent", latent, "one whose decoder row is not 0")
    unit = normalize(rows, dim=1)
    return unit[0], unit[1] if isinstance(latent, tuple) else -unit[0]


def nearest_antipodal_pair(plain: SAE[Any], direction: Tensor) -> tuple[int, int]:
    """Find the two latents of a plain SAE that are nearest to the + and the - end of an axis.

    Args:
        plain: any SAELens SAE; its decoder rows are searched.
        direction: (d_in,) of the axis, e.g. ``signed.W_dec[i]``.

    Raises:
        InvalidInputError: ``plain`` is no SAE, or ``direction`` no such tensor.
    """
    require_sae(plain)
    is_tensor = isinstance(direction, Tensor)
    require(is_tensor, "direction", type(direction).__name__, "a tensor, such as sae.W_dec[i]")
    rows, shape = decoder_directions(plain), tuple(direction.shape)
    require(shape == rows.shape[1:], "direction", shape, f"({rows.shape[1]},), one of the decoder")
    norm = direction.detach().float().norm().item()
    require(0 < norm < math.inf, "direction", f"of norm {norm:g}", "finite, and not 0 throughout")
    cosine = cosine_similarity(rows, direction.detach().float().to(rows.device)[None], dim=1)
    return int(cosine.argmax()), int(cosine.argmin())


def _measure(
    model: HookedRootModule,
    hook_and_head: tuple[str, int | None],
    tokens: Tensor,
    added: Tensor,
    logit_tokens: tuple[int, int] | None,
) -> float:
    (hook_name, head), calls = hook_and_head, list[None]()

    def add(activations: Tensor, hook: object) -> Tensor:
        del hook
        calls.append(None)
        require_head(hook_name, head, activations.shape)
        # without a head, all heads of hook_z are one activation of the SAE
        width = activations.shape[2 if head is None else 3 :].numel()
        require(width == len(added), "activations at " + hook_name, width, f"{len(added)} wide")
        if head is None:
            return activations + added.to(activations).view(activations.shape[2:])
        activations = activations.clone()
        activations[:, :, head] += added.to(activations)
        return activations

    logits = model.run_with_hooks(
        on_model(model, tokens), return_type="logits", fwd_hooks=[(hook_name, add)]
    )
    require_called(hook_name, bool(calls))
    if logit_tokens is not None:
        a, b = logit_tokens
        n_tokens = logits.shape[-1]
        allowed = f"two token ids from 0 to {n_tokens - 1}"
        require(min(a, b) >= 0 and max(a, b) < n_tokens, "logit_tokens", logit_tokens, allowed)
        last = logits[:, -1, [a, b]].cpu().double()  # bfloat16 would round the difference
        return (last[:, 0] - last[:, 1]).mean().item()
    predicted, actual = logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    return cross_entropy(predicted.float(), actual.long().to(predicted.device)).item()
