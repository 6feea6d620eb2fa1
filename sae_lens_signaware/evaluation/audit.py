"""Antipodal audit: pairs of latents that are the two ends of one axis (docs/measures.md)."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from rich.table import Table
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation import inputs
from sae_lens_signaware.evaluation.results import Indices, Provenance, Result, Values

HOOK_PRE, HOOK_POST = "hook_sae_acts_pre", "hook_sae_acts_post"
MAX_GATHERED = 10_000_000
"""Tokens times pairs that a step gathers at most."""

CONSTANT_VARIANCE_SHARE = 1e-12
"""Variance of a pre-activation that varies, as a share of its mean square."""

ROUNDING = 1e-6
"""Error of a cosine in float32, allowed for so that ``max_cosine=-1`` finds exact antipodes."""


@dataclasses.dataclass(frozen=True, repr=False)
class AntipodalAudit(Result):
    """Pairs of latents whose decoder rows are nearly antipodal, most antipodal first.

    Attributes:
        latent_a, latent_b: (n_pairs,) int64, latent_a < latent_b.
        cosine: (n_pairs,) of their decoder rows.
        rate_a, rate_b: (n_pairs,) firing rates. Without activations these and the next two are NaN.
        co_firing_rate: (n_pairs,) share of tokens on which both fire; 0 if never together.
        correlation: (n_pairs,) Pearson correlation of their pre-activations; near -1 for one axis.
        freed_width: latents that merging would free: disjoint pairs, taken greedily, the most
            antipodal first. With activations, only pairs that never fire together count.
        max_cosine: the threshold of the search.
    """

    latent_a: Indices
    latent_b: Indices
    cosine: Values
    rate_a: Values
    rate_b: Values
    co_firing_rate: Values
    correlation: Values
    freed_width: int
    max_cosine: float

    @property
    def n_pairs(self) -> int:
        """Number of antipodal pairs; one latent can be in several."""
        return len(self.cosine)

    @property
    def freed_share(self) -> float:
        """``freed_width`` over the width of the dictionary."""
        return self.freed_width / self.provenance.sae_cfg["d_sae"]

    def _summary(self) -> Mapping[str, object]:
        return {"n_pairs": self.n_pairs, "freed_share": self.freed_share}

    def table(self, n_rows: int = 10) -> Table:
        """A table for the terminal: a headline, and the first pairs."""
        title = (
            f"{self.subject}: {self.n_pairs:,} pairs with cosine <= {self.max_cosine:g}; "
            f"merging would free {self.freed_width:,} latents ({self.freed_share:.2%})"
        )
        names = ("latent", "latent", "cosine", "rate", "rate", "together", "correlation")
        table = Table(*names, title=title, title_justify="left")
        values = (self.cosine, self.rate_a, self.rate_b, self.co_firing_rate, self.correlation)
        for k in range(min(n_rows, self.n_pairs)):
            numbers = ["-" if v[k].isnan() else f"{v[k]:.4g}" for v in values]
            table.add_row(str(self.latent_a[k].item()), str(self.latent_b[k].item()), *numbers)
        return table


@torch.no_grad()
def antipodal_audit(
    sae: SAE[Any],
    activations: Iterable[Tensor] | Tensor | None = None,
    max_cosine: float = -0.9,
    block_size: int = 2048,
) -> AntipodalAudit:
    """Find all antipodal decoder rows, and measure what the pairs do on activations.

    Args:
        sae: any SAELens SAE. The d_sae x d_sae matrix is never in memory, blocks of it are.
        activations: as in :func:`~sae_lens_signaware.bipolar_census`; None searches the decoder
            alone.
        max_cosine: a pair has at most this cosine, from -1 to below 0.
        block_size: rows of a block of the search.

    Raises:
        InvalidInputError: ``max_cosine`` is out of range; or activations are empty, of the wrong
            shape or type, or not finite.
    """
    require_max_cosine(max_cosine)
    inputs.require_autoencoder(sae)
    a, b, cosine = find_antipodal_pairs(inputs.decoder_directions(sae), max_cosine, block_size)
    sums = _PairSums(len(a))
    if activations is not None:
        with inputs.flat_activations(sae):
            for x in inputs.batches_of(activations, sae.cfg.d_in):
                sums.add_batch(sae, x.to(sae.device), a.to(sae.device), b.to(sae.device))
    found = sums.result()
    never_together = ~(found["co_firing_rate"] > 0)  # NaN where nothing was measured
    return AntipodalAudit(
        provenance=Provenance.of(sae, sums.n_tokens),
        latent_a=a,
        latent_b=b,
        cosine=cosine,
        **found,
        freed_width=len(disjoint_pairs(a, b, never_together)),
        max_cosine=float(max_cosine),
    )


def require_max_cosine(max_cosine: float) -> None:
    """Raise InvalidInputError for a cosine that two ends of an axis do not have."""
    is_number = isinstance(max_cosine, int | float)
    require(is_number and -1 <= max_cosine < 0, "max_cosine", max_cosine, "from -1 to below 0")


def find_antipodal_pairs(
    directions: Tensor, max_cosine: float, block_size: int = 2048
) -> tuple[Tensor, Tensor, Tensor]:
    """Find all pairs i < j whose directions have a cosine <= max_cosine, most antipodal first.

    Args:
        directions: (d_sae, d_in). A row of zeros has no direction and is in no pair.

    Returns:
        latent_a, latent_b (n_pairs,) int64 and cosine (n_pairs,) float64, on the CPU.
    """
    unit = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-12)
    nothing = torch.empty(0, dtype=torch.int64, device=unit.device)
    hits = [(nothing, nothing, unit.new_empty(0))]  # so that there is one where no row is
    for start in range(0, len(unit), block_size):
        for other in range(start, len(unit), block_size):
            columns = unit[other : other + block_size]
            similarity = (unit[start : start + block_size] @ columns.T).clamp(min=-1)
            hit = similarity <= max_cosine + ROUNDING
            i, j = (hit.triu(1) if other == start else hit).nonzero(as_tuple=True)
            hits.append((i + start, j + other, similarity[i, j]))
    a, b, cosine = (torch.cat(parts).cpu() for parts in zip(*hits, strict=True))
    order = cosine.argsort(stable=True)
    return a[order], b[order], cosine[order].double()


def disjoint_pairs(a: Tensor, b: Tensor, eligible: Tensor) -> list[tuple[int, int]]:
    """Choose among the eligible pairs, greedily in their order, so that no latent is in two."""
    used: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for i, j, ok in zip(a.tolist(), b.tolist(), eligible.tolist(), strict=True):
        if ok and i not in used and j not in used:
            used |= {i, j}
            pairs.append((i, j))
    return pairs


class _PairSums:
    """Running sums of each pair in float64: firings, joint firings, moments of pre-activations.

    The moments are about those of the first token, so that a large mean takes no digits.
    """

    def __init__(self, n_pairs: int) -> None:
        self.n_tokens = 0
        sums = torch.zeros(8, n_pairs, dtype=torch.float64, device="cpu")
        self.fired, self.moments = sums[:3], sums[3:]  # of a, b, both; of a, b, aa, bb, ab
        self.first: Tensor | None = None

    def add_batch(self, sae: SAE[Any], x: Tensor, a: Tensor, b: Tensor) -> None:
        _, cache = sae.run_with_cache(x, names_filter=[HOOK_PRE, HOOK_POST])
        # SAELens's matching pursuit calls neither hook: its correlation is NaN
        post = (
            inputs.dense_and_finite(cache[HOOK_POST])
            if HOOK_POST in cache
            else inputs.latents_of(sae, x)
        )
        pre = cache[HOOK_PRE] if HOOK_PRE in cache else torch.full_like(post, torch.nan)
        if self.first is None:
            self.first = pre[0]
        pre, fires = pre - self.first, post != 0
        self.n_tokens += len(x)
        step = max(1, MAX_GATHERED // len(x))
        for s in range(0, len(a), step):
            i, j = a[s : s + step], b[s : s + step]
            fire_a, fire_b = fires[:, i], fires[:, j]
            counts = [fire_a.sum(0), fire_b.sum(0), (fire_a & fire_b).sum(0)]
            self.fired[:, s : s + step] += torch.stack(counts).cpu()
            h_a, h_b = pre[:, i].cpu().double(), pre[:, j].cpu().double()  # MPS has no float64
            moments = [h_a, h_b, h_a * h_a, h_b * h_b, h_a * h_b]
            self.moments[:, s : s + step] += torch.stack([m.sum(0) for m in moments])

    def result(self) -> dict[str, Tensor]:
        """Rates and correlation; NaN where no token was seen, or a pre-activation is constant."""
        # 0 / 0 is NaN, which is what "not measured" means here
        n = torch.tensor(self.n_tokens, dtype=torch.float64, device="cpu")
        rate_a, rate_b, both = self.fired / n
        mean_a, mean_b, aa, bb, ab = self.moments / n
        var_a, var_b = aa - mean_a**2, bb - mean_b**2
        # what rounding leaves of the variance of a constant is no variance
        varies = (var_a > CONSTANT_VARIANCE_SHARE * aa) & (var_b > CONSTANT_VARIANCE_SHARE * bb)
        correlation = ((ab - mean_a * mean_b) / (var_a * var_b).sqrt()).clamp(-1, 1)
        return {
            "rate_a": rate_a,
            "rate_b": rate_b,
            "co_firing_rate": both,
            "correlation": correlation.where(varies, torch.nan),
        }
