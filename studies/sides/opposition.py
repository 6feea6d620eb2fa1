"""Are the two sides of a latent opposites, in the model's own terms?

In a context c the model predicts p_c, and p'_c where what latent i writes, z_i d_i, is taken away:

    e_c = log p_c - log p'_c
    opposition_i = -cos(mean of e_c over + contexts, mean of e_c over - contexts)

where c are the contexts in which a side is strongest. The inner product weighs tokens by how often
the model predicts them, and a mean change of all tokens counts for nothing:
<a, b> = sum_v q_v (a_v - q.a) (b_v - q.b). 1 means that the - side does the opposite of the + side
where each of them is active; 0, that they have nothing to do with each other.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from sae_lens import SAE
from torch import Tensor
from torch.nn.functional import normalize

ROWS_AT_ONCE = 4
PROMPTS_OF_Q = 16
MIN_SHARE = 0.1
"""Of the prompts of both sides that the rarer side of a bipolar latent has."""


class Peaks(NamedTuple):
    """The strongest activation of each side in each prompt.

    Attributes:
        values: (2, prompt, d_sae), >= 0; 0 where the side is not active. Row 0 is the + side.
        positions: (2, prompt, d_sae) of it.
    """

    values: Tensor
    positions: Tensor


def _logits(model: Any, tokens: Tensor, hook_name: str, hook: Any) -> Tensor:
    """(prompt, position, vocabulary) logits with a hook on the activations at ``hook_name``."""
    device = next(model.parameters()).device
    return model.run_with_hooks(
        tokens.to(device).contiguous(),
        return_type="logits",
        prepend_bos=False,
        fwd_hooks=[(hook_name, hook)],
    )


@torch.no_grad()
def peaks_of(model: Any, sae: SAE[Any], prompts: Tensor) -> Peaks:
    """Run the model over prompts that start with BOS, which does not count."""
    found: list[tuple[Tensor, Tensor]] = []

    def read(activations: Tensor, hook: Any = None) -> None:
        del hook
        z = sae.encode(activations[:, 1:].to(sae.W_dec.dtype))
        values, positions = torch.stack([z, -z]).clamp(min=0).max(2)
        found.append((values.cpu(), positions.cpu() + 1))

    for batch in prompts.split(16):
        _logits(model, batch, sae.cfg.metadata.hook_name, read)
    values, positions = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    return Peaks(values, positions)


def bipolar_latents(peaks: Peaks, least: int) -> Tensor:
    """Latents whose rarer side is active in ``least`` prompts and a tenth of those of both sides."""
    counts = (peaks.values > 0).sum(1)
    rarer = counts.min(0).values
    return ((rarer >= least) & (rarer >= MIN_SHARE * counts.sum(0))).nonzero().flatten()


@torch.no_grad()
def mean_prediction(model: Any, prompts: Tensor, hook_name: str) -> Tensor:
    """q, the (vocabulary,) mean probability of each token over the first prompts."""
    means = [
        _logits(model, prompt, hook_name, lambda x, hook=None: x)[0].float().softmax(-1).mean(0)
        for prompt in prompts[:PROMPTS_OF_Q].split(1)
    ]
    return torch.stack(means).mean(0).cpu()


@torch.no_grad()
def side_effects(
    model: Any,
    sae: SAE[Any],
    prompts: Tensor,
    peaks: Peaks,
    latent: int,
    side: int,
    k: int,
    q: Tensor,
) -> Tensor:
    """(k, vocabulary) effects of a side, 0 or 1, in its k strongest contexts, each of a prompt.

    Their plain inner products are the weighted ones of the module's docstring.
    """
    values, which = peaks.values[side, :, latent].topk(k)
    at, sign = peaks.positions[side, which, latent], 1 - 2 * side
    written = sign * values[:, None].to(sae.W_dec.device) * sae.W_dec[latent]
    effects = []
    for i in range(0, k, ROWS_AT_ONCE):
        part = slice(i, i + ROWS_AT_ONCE)
        rows, here = prompts[which[part]], at[part]
        each = torch.arange(len(rows))

        def take_away(
            x: Tensor, hook: Any = None, part: slice = part, here: Tensor = here
        ) -> Tensor:
            del hook
            x = x.clone()
            x[torch.arange(len(here)), here] -= written[part].to(x)
            return x

        name = sae.cfg.metadata.hook_name
        log_p, without = (
            _logits(model, rows, name, hook)[each, here].float().log_softmax(-1).cpu()
            for hook in (lambda x, hook=None: x, take_away)
        )
        effects.append(log_p - without)
    e = torch.cat(effects)
    return (e - (e @ q)[:, None]) * q.sqrt()


class Interval(NamedTuple):
    """A value with its 95% interval."""

    value: float
    low: float
    high: float


def minus_cosine(a: Tensor, b: Tensor) -> float:
    """-cos of two vectors."""
    return -(normalize(a.double(), dim=0) @ normalize(b.double(), dim=0)).item()


def opposition_of(plus: Tensor, minus: Tensor) -> Interval:
    """-cos of the two means, with a 95% interval by the jackknife over the rows of both.

    A bootstrap of this cosine is off to one side: a mean of resampled rows is longer than the mean.

    Args:
        plus, minus: (n, dim) and (m, dim), at least two rows each.
    """
    plus, minus = plus.double(), minus.double()
    value, variance = minus_cosine(plus.sum(0), minus.sum(0)), 0.0
    for rows, other in ((plus, minus), (minus, plus)):
        without = normalize(rows.sum(0) - rows, dim=1)  # one row left out, of each in turn
        values = -(without @ normalize(other.sum(0), dim=0))
        variance += (len(rows) - 1) * values.var(correction=0).item()
    reach = 1.96 * variance**0.5
    return Interval(value, max(-1.0, value - reach), min(1.0, value + reach))


def chance_level(means: Tensor) -> float:
    """The 95th percentile of -cos over pairs of sides of different latents.

    Args:
        means: (2, n, dim) mean effect of each side of n latents.
    """
    unit = normalize(means.double(), dim=2)
    pairs = -torch.einsum("and,bmd->abnm", unit, unit)
    other = ~torch.eye(unit.shape[1], dtype=torch.bool)
    return float(np.quantile(pairs[:, :, other].numpy(), 0.95))


def measure(
    model: Any, sae: SAE[Any], prompts: Tensor, n_latents: int, k: int, seed: int = 0
) -> dict[str, Any]:
    """The opposition of ``n_latents`` bipolar latents, drawn among all.

    A latent is above chance where the lower end of its interval is above the chance level.
    """
    peaks = peaks_of(model, sae, prompts)
    bipolar = bipolar_latents(peaks, k)
    order = torch.randperm(len(bipolar), generator=torch.Generator().manual_seed(seed))
    drawn = sorted(bipolar[order[:n_latents]].tolist())
    found = {"d_sae": sae.cfg.d_sae, "bipolar": len(bipolar), "measured": len(drawn)}
    if len(drawn) < 2:
        return found | {"above_chance": 0, "opposition_median": None, "chance": None}
    q = mean_prediction(model, prompts, sae.cfg.metadata.hook_name)
    oppositions, means = [], []
    for latent in drawn:
        plus, minus = (side_effects(model, sae, prompts, peaks, latent, s, k, q) for s in (0, 1))
        oppositions.append(opposition_of(plus, minus))
        means.append(torch.stack([plus.mean(0), minus.mean(0)]))
    chance = chance_level(torch.stack(means, dim=1))
    return found | {
        "above_chance": sum(one.low > chance for one in oppositions),
        "opposition_median": round(float(np.median([one.value for one in oppositions])), 4),
        "chance": round(chance, 4),
    }
