"""Antipodal audit: pairs of latents that are the two ends of one axis (docs/measures.md)."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from rich.table import Table
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import checked, require
from sae_lens_signaware.evaluation.inputs import (
    batches_of,
    dense_and_finite,
    dense_latents,
    flat_activations,
    require_activations,
    require_autoencoder,
    require_sae,
)
from sae_lens_signaware.evaluation.results import Provenance, Result
from sae_lens_signaware.evaluation.streaming import decoder_directions

HOOK_PRE, HOOK_POST = "hook_sae_acts_pre", "hook_sae_acts_post"
MAX_GATHERED = 10_000_000
"""Tokens times pairs that a step gathers at most: 40 MB in float32."""

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

    latent_a: Tensor
    latent_b: Tensor
    cosine: Tensor
    rate_a: Tensor
    rate_b: Tensor
    co_firing_rate: Tensor
    correlation: Tensor
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

    @classmethod
    def _fields_of(cls, values: dict[str, Any]) -> dict[str, Any]:
        fields = super()._fields_of(values)
        # an empty list does not say that it is of integers
        return fields | {name: fields[name].long() for name in ("latent_a", "latent_b")}

    def table(self, n_rows: int = 10) -> Table:
        """A table for the terminal: a headline, and the first pairs."""
        cfg = self.provenance.sae_cfg
        pairs = f"{self.n_pairs:,} pair" + ("" if self.n_pairs == 1 else "s")
        table = Table(
            title=f"{cfg['architecture']} {cfg['d_sae']:,}: {pairs} with cosine <= "
            f"{self.max_cosine:g}; merging would free {self.freed_width:,} latents "
            f"({self.freed_share:.2%})",
            title_justify="left",
        )
        columns = ("latent", "latent", "cosine", "rate", "rate", "together", "correlation")
        for name in columns:
            table.add_column(name, justify="right")
        for k in range(min(n_rows, self.n_pairs)):
            values = (self.rate_a, self.rate_b, self.co_firing_rate, self.correlation)
            table.add_row(
                f"{int(self.latent_a[k])}",
                f"{int(self.latent_b[k])}",
                f"{self.cosine[k]:.3f}",
                *("-" if v[k].isnan() else f"{v[k]:.4g}" for v in values),
            )
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
        activations: (n, d_in) or (batch, position, d_in) tensors, or one such tensor, scaled as
            the SAE expects them; None searches the decoder alone.
        max_cosine: a pair has at most this cosine, from -1 to below 0.
        block_size: rows of a block of the search, at least 1.

    Raises:
        ValueError: ``max_cosine`` or ``block_size`` is out of range; activations are empty, of the
            wrong shape or type, or not finite.
    """
    require_sae(sae)
    max_cosine = checked_max_cosine(max_cosine)
    require(checked("block_size", block_size, int) >= 1, "block_size", block_size, "at least 1")
    if activations is not None:  # before the search, which takes long
        require_autoencoder(sae)
        require_activations(activations, sae.cfg.d_in)
    a, b, cosine = find_antipodal_pairs(decoder_directions(sae), max_cosine, block_size)
    if activations is None:
        stats = _PairSums(len(a)).result()
        n_tokens = 0
    else:
        sums = _PairSums(len(a))
        with flat_activations(sae):
            for x in batches_of(activations, sae.cfg.d_in):
                sums.add_batch(sae, x.to(sae.device), a.to(sae.device), b.to(sae.device))
        stats, n_tokens = sums.result(), sums.n_tokens
    return AntipodalAudit(
        provenance=Provenance.of(sae, n_tokens),
        latent_a=a,
        latent_b=b,
        cosine=cosine,
        **stats,
        freed_width=len(disjoint_pairs(a, b, ~(stats["co_firing_rate"] > 0))),
        max_cosine=max_cosine,
    )


def checked_max_cosine(max_cosine: float) -> float:
    """Return it as Python's own number, which JSON holds.

    Raises:
        InvalidInputError: two ends of an axis do not have such a cosine.
    """
    max_cosine = checked("max_cosine", max_cosine, float)
    require(-1 <= max_cosine < 0, "max_cosine", max_cosine, "from -1 to below 0")
    return max_cosine


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
    for start, rows in _blocks(unit, block_size):
        for other, columns in _blocks(unit[start:], block_size):
            with torch.autocast(rows.device.type, enabled=False):
                similarity = (rows @ columns.T).clamp(min=-1)
            hit = similarity <= max_cosine + ROUNDING
            if other == 0:
                hit = hit.triu(1)
            i, j = hit.nonzero(as_tuple=True)
            hits.append((i + start, j + start + other, similarity[i, j]))
    a, b, cosine = (torch.cat(parts).cpu() for parts in zip(*hits, strict=True))
    order = cosine.argsort(stable=True)
    return a[order], b[order], cosine[order].double()


def _blocks(tensor: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(tensor), size):
        yield start, tensor[start : start + size]


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
    """Running sums of each pair in float64: firings, joint firings, moments of pre-activations."""

    def __init__(self, n_pairs: int) -> None:
        self.n_tokens = 0
        # on the CPU whatever torch's default device is
        sums = torch.zeros(8, n_pairs, dtype=torch.float64, device="cpu")
        self.fired, self.moments = sums[:3], sums[3:]  # of a, b, both; of a, b, aa, bb, ab

    def add_batch(self, sae: SAE[Any], x: Tensor, a: Tensor, b: Tensor) -> None:
        _, cache = sae.run_with_cache(x, names_filter=[HOOK_PRE, HOOK_POST])
        # matching pursuit calls neither hook: its correlation is NaN
        post = dense_and_finite(cache[HOOK_POST]) if HOOK_POST in cache else dense_latents(sae, x)
        pre = (
            cache[HOOK_PRE]
            if HOOK_PRE in cache
            else torch.full(post.shape, torch.nan, device=post.device)
        )
        fires = post != 0
        self.n_tokens += x.shape[0]
        step = max(1, MAX_GATHERED // x.shape[0])
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
        rate_a, rate_b, both = (
            self.fired / self.n_tokens if self.n_tokens else self.fired * torch.nan
        )
        mean_a, mean_b, aa, bb, ab = self.moments / max(1, self.n_tokens)
        covariance = ab - mean_a * mean_b
        var_a, var_b = aa - mean_a**2, bb - mean_b**2
        # what rounding leaves of the variance of a constant is no variance
        varies = (var_a > CONSTANT_VARIANCE_SHARE * aa) & (var_b > CONSTANT_VARIANCE_SHARE * bb)
        correlation = (covariance / (var_a * var_b).sqrt()).clamp(-1, 1)
        return {
            "rate_a": rate_a,
            "rate_b": rate_b,
            "co_firing_rate": both,
            "correlation": correlation.where(varies, torch.nan),
        }
