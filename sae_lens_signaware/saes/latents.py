"""One interface for a computation over all latents and for one over the active latents alone. Ours.

An architecture writes its activation and its losses once, against :class:`Latents`. At L0 64 and
d_sae 16,384 nearly all of a product with all latents is multiplication by zero. With
:class:`ActiveLatents` the same formulas cost L0 instead of d_sae. Products with the decoder are
then bags of its rows (torch's ``embedding_bag``): by token, and by latent for its gradient.
"""

from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


class Latents(Protocol):
    """The latents that values are of, and what depends on which they are.

    *Values* are (..., d_sae) for :class:`AllLatents` and (n_active,) for :class:`ActiveLatents`.

    Attributes:
        n_tokens: tokens that the values are of.
    """

    n_tokens: int

    def rows_of(self, param: Tensor) -> Tensor:
        """Parameters of each latent, by side: (P, d_sae) -> (P, d_sae) or (P, n_active)."""
        ...

    def columns_of(self, vector: Tensor) -> Tensor:
        """One number of each latent: (d_sae,) -> (d_sae,) or (n_active,)."""
        ...

    def sum_by_token(self, values: Tensor) -> Tensor:
        """Sum over the latents of a token: values -> (...,) or (n_tokens,)."""
        ...

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        """values @ W_dec, (..., d_in) or (n_tokens, d_in), differentiable in both."""
        ...


class AllLatents:
    """Every latent of every token: values are (..., d_sae)."""

    def __init__(self, n_tokens: int) -> None:
        self.n_tokens = n_tokens

    @classmethod
    def of(cls, values: Tensor) -> "AllLatents":
        """Those of values (..., d_sae)."""
        return cls(values.shape[:-1].numel())

    def rows_of(self, param: Tensor) -> Tensor:
        """``param`` itself, (P, d_sae)."""
        return param

    def columns_of(self, vector: Tensor) -> Tensor:
        """``vector`` itself, (d_sae,)."""
        return vector

    def sum_by_token(self, values: Tensor) -> Tensor:
        """(..., d_sae) -> (...,)."""
        return values.sum(-1)

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        """(..., d_sae) @ (d_sae, d_in)."""
        return values @ W_dec


class ActiveLatents:
    """The active latents of each token, ordered by token, then latent: values are (n_active,).

    For a CPU.

    Attributes:
        token, latent: (n_active,) int64.
        n_tokens, d_sae: shape of the matrix of all latents.
    """

    def __init__(self, token: Tensor, latent: Tensor, n_tokens: int, d_sae: int) -> None:
        self.token, self.latent = token, latent
        self.n_tokens, self.d_sae = n_tokens, d_sae

    @classmethod
    def of(cls, z: Tensor) -> "tuple[ActiveLatents, Tensor]":
        """The nonzero ones of (n_tokens, d_sae) latents, dense or sparse COO, and their values."""
        if z.is_sparse:
            z = z.coalesce()
            values, (token, latent) = z.values(), z.indices()
            keep = values != 0  # COO may hold zeros
            return cls(token[keep], latent[keep], *z.shape), values[keep]
        position = nonzero_positions(z)
        n_tokens, d_sae = z.shape
        values = z.reshape(-1)[position]
        return cls(position // d_sae, position % d_sae, n_tokens, d_sae), values

    @cached_property
    def offsets(self) -> Tensor:
        """(n_tokens,) where each token's latents start."""
        counts = self.token.bincount(minlength=self.n_tokens)
        return counts.cumsum(0) - counts

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """The order by latent, the tokens in that order, and (d_sae,) where each latent starts."""
        # sorting int32 takes half the time of int64
        order = self.latent.int().sort(stable=True).indices
        counts = self.latent.bincount(minlength=self.d_sae)
        return order, self.token[order], counts.cumsum(0) - counts

    def rows_of(self, param: Tensor) -> Tensor:
        """(P, n_active): each active latent's column of a (P, d_sae) parameter."""
        # a row at a time: the gradient of a selection in 2-D is far slower
        return torch.stack([row.index_select(0, self.latent) for row in param])

    def columns_of(self, vector: Tensor) -> Tensor:
        """(n_active,): each active latent's entry of a (d_sae,) vector."""
        return vector.index_select(0, self.latent)

    def sum_by_token(self, values: Tensor) -> Tensor:
        """(n_active,) -> (n_tokens,)."""
        return values.new_zeros(self.n_tokens).index_add(0, self.token, values)

    def sum_by_latent(self, values: Tensor, rows: Tensor) -> Tensor:
        """Sum over tokens t of values[t, i] * rows[t], (d_sae, rows.shape[1])."""
        order, token, offsets = self.by_latent
        return embedding_bag(token, rows, offsets, mode="sum", per_sample_weights=values[order])

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        """z @ W_dec for z of these ``values``, (n_tokens, d_in)."""
        bags = {"mode": "sum", "per_sample_weights": values}
        recons = embedding_bag(self.latent, W_dec.detach(), self.offsets, **bags)
        if not (W_dec.requires_grad and torch.is_grad_enabled()):
            return recons
        # torch's own gradient sorts again, and once for every product
        out = _DecoderGradient.apply(recons, W_dec, values.detach(), self)
        assert isinstance(out, Tensor)
        return out

    def where(self, keep: Tensor) -> "ActiveLatents":
        """Those at which the (n_active,) mask is set, or in the order of such indices."""
        return ActiveLatents(self.token[keep], self.latent[keep], self.n_tokens, self.d_sae)

    def to_coo(self, values: Tensor) -> Tensor:
        """(n_tokens, d_sae) sparse COO."""
        indices = torch.stack([self.token, self.latent])
        shape = (self.n_tokens, self.d_sae)
        return torch.sparse_coo_tensor(
            indices, values, shape, is_coalesced=True, check_invariants=False
        )

    def to_dense(self, values: Tensor) -> Tensor:
        """(n_tokens, d_sae), zero where inactive."""
        out = values.new_zeros(self.n_tokens * self.d_sae)
        out[self.token * self.d_sae + self.latent] = values
        return out.view(self.n_tokens, self.d_sae)


class _DecoderGradient(torch.autograd.Function):
    """Hands x^ on; backward adds the decoder's gradient."""

    @staticmethod
    def forward(
        ctx: Any, recons: Tensor, W_dec: Tensor, values: Tensor, latents: ActiveLatents
    ) -> Tensor:
        del W_dec
        ctx.save_for_backward(values)
        ctx.latents = latents
        return recons.view_as(recons)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        (values,) = ctx.saved_tensors
        return grad, ctx.latents.sum_by_latent(values, grad.contiguous()), None, None


def nonzero_positions(matrix: Tensor) -> Tensor:
    """Positions in the flat matrix of what is not 0, ascending, (n,) int64.

    Words of 8 bytes are tested first, then the elements of those that are not 0: few are, and
    ``nonzero`` costs by the element.
    """
    flat = matrix.reshape(-1).contiguous()  # of one column, reshape gives a view with its stride
    per_word = 8 // flat.element_size()
    if per_word < 2 or flat.numel() % per_word or flat.storage_offset() % per_word:
        return flat.nonzero().squeeze(1)
    words = flat.view(torch.int64)
    if flat.dtype == torch.bool:
        nonzero_words = words.nonzero().squeeze(1)
    else:
        nonzero_words = nonzero_positions(words != 0)
    inside = words[nonzero_words].view(flat.dtype).nonzero().squeeze(1)
    return nonzero_words[inside // per_word] * per_word + inside % per_word
