"""Antipodal audit: pairs of latents that are the two ends of one axis (docs/evaluate.md)."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from rich.table import Table
from sae_lens import SAE
from torch import Tensor
from torch.nn.functional import normalize

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation import inputs
from sae_lens_signaware.evaluation.results import Indices, Number, Provenance, Result, Values


@dataclasses.dataclass(frozen=True, repr=False)
class AntipodalAudit(Result):
    """Pairs of latents whose decoder rows are nearly antipodal, most antipodal first.

    Attributes:
        latent_a, latent_b: (n_pairs,) int64, latent_a < latent_b.
        cosine: (n_pairs,) of their decoder rows.
        rate_a, rate_b: (n_pairs,) firing rates. Without activations these and the next are NaN.
        co_firing_rate: (n_pairs,) share of tokens on which both fire; 0 if never together.
        freed_width: latents that merging would free: disjoint pairs, taken greedily, the most
            antipodal first. With activations, only pairs that never fire together count.
        firing_share: share of all firings that are of a latent in a pair, where both ends fire at
            times. It says what half the width with a sign costs. NaN without activations.
        max_cosine: the threshold of the search.
    """

    latent_a: Indices
    latent_b: Indices
    cosine: Values
    rate_a: Values
    rate_b: Values
    co_firing_rate: Values
    freed_width: int
    firing_share: Number
    max_cosine: float

    @property
    def n_pairs(self) -> int:
        """Number of antipodal pairs; one latent can be in several."""
        return len(self.cosine)

    def table(self, n_rows: int = 10) -> Table:
        """A table for the terminal: a headline, and the first pairs."""
        title = (
            f"{self.subject}: {self.n_pairs:,} pairs with cosine <= {self.max_cosine:g}; "
            f"merging would free {self.freed_width:,} latents"
        )
        if self.n_tokens:
            title += f"\n{self.firing_share:.1%} of its firings are in pairs; " + (
                "from 95% on, half the width with a sign kept R² (-0.002 to +0.011), below it lost "
                "up to 0.063 (studies/where_a_sign_pays)"
            )
        columns = {"latent": self.latent_a, "latent ": self.latent_b, "cosine": self.cosine}
        if self.n_tokens:
            columns |= {"rate": self.rate_a, "rate ": self.rate_b, "both": self.co_firing_rate}
        table = Table(*(name.strip() for name in columns), title=title, title_justify="left")
        for row in zip(*(column[:n_rows].tolist() for column in columns.values()), strict=True):
            table.add_row(*(f"{v:.4g}" for v in row))
        return table


@torch.no_grad()
def antipodal_audit(
    sae: SAE[Any],
    activations: Iterable[Tensor] | Tensor | None = None,
    max_cosine: float = -0.9,
) -> AntipodalAudit:
    """Find all antipodal decoder rows, and measure what the pairs do on activations.

    Args:
        sae: any SAELens SAE. The d_sae x d_sae matrix is never in memory, blocks of it are.
        activations: as in :func:`~sae_lens_signaware.bipolar_census`; None searches the decoder
            alone.
        max_cosine: a pair has at most this cosine, from -1 to below 0.

    Raises:
        InvalidInputError: ``max_cosine`` is out of range; or activations are empty, of the wrong
            shape or type, or not finite.
    """
    require_max_cosine(max_cosine)
    inputs.require_autoencoder(sae)
    a, b, cosine = find_antipodal_pairs(inputs.decoder_directions(sae), max_cosine)
    n_fired, n_both = (torch.zeros(n, dtype=torch.int64) for n in (sae.cfg.d_sae, len(a)))
    n_tokens = 0
    with inputs.flat_activations(sae):
        for x in () if activations is None else inputs.batches_of(activations, sae.cfg.d_in):
            fires = inputs.latents_of(sae, x).cpu() != 0
            n_fired += fires.sum(0)
            step = max(1, 10_000_000 // len(x))  # of pairs, for memory
            both = zip(a.split(step), b.split(step), strict=True)
            n_both += torch.cat([(fires[:, i] & fires[:, j]).sum(0) for i, j in both])
            n_tokens += len(x)
    rate, both = ((n.double() / n_tokens) if n_tokens else n * torch.nan for n in (n_fired, n_both))
    fires = (rate[a] > 0) & (rate[b] > 0)
    paired = torch.cat([a[fires], b[fires]]).unique()
    return AntipodalAudit(
        Provenance.of(sae, n_tokens),
        *(a, b, cosine, rate[a], rate[b], both),
        freed_width=len(disjoint_pairs(a, b, ~(both > 0))),  # NaN where nothing was measured
        firing_share=(rate[paired].sum() / rate.sum()).item(),
        max_cosine=float(max_cosine),
    )


def require_max_cosine(max_cosine: float) -> None:
    """Raise InvalidInputError for a cosine that two ends of an axis do not have."""
    require(-1 <= max_cosine < 0, "max_cosine", max_cosine, "from -1 to below 0")


def find_antipodal_pairs(
    directions: Tensor, max_cosine: float, block_size: int = 2048
) -> tuple[Tensor, Tensor, Tensor]:
    """Find all pairs i < j whose directions have a cosine <= max_cosine, most antipodal first.

    Args:
        directions: (d_sae, d_in). A row of zeros has no direction and is in no pair.
        block_size: rows whose cosines are in memory at once.

    Returns:
        latent_a, latent_b (n_pairs,) int64 and cosine (n_pairs,) float64, on the CPU.
    """
    blocks, hits = normalize(directions).split(block_size), []
    for i, rows in enumerate(blocks):
        for j, columns in enumerate(blocks[i:], start=i):
            similarity = (rows @ columns.T).clamp(min=-1)
            hit = similarity <= max_cosine + 1e-6  # of rounding, so that -1 finds exact antipodes
            a, b = (hit.triu(1) if i == j else hit).nonzero(as_tuple=True)
            hits.append((a + i * block_size, b + j * block_size, similarity[a, b]))
    a, b, cosine = (torch.cat(parts).cpu() for parts in zip(*hits, strict=True))
    order = cosine.argsort(stable=True)
    return a[order], b[order], cosine[order].double()


def disjoint_pairs(a: Tensor, b: Tensor, eligible: Tensor) -> list[tuple[int, int]]:
    """Choose among the eligible pairs, greedily in their order, so that no latent is in two."""
    used: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for i, j in zip(a[eligible].tolist(), b[eligible].tolist(), strict=True):
        if not used & {i, j}:
            used |= {i, j}
            pairs.append((i, j))
    return pairs
