"""One interface for a computation over all latents and for one over the active latents alone. Ours.

An architecture writes its activation and its losses once, against :class:`Latents`. At L0 64 and
d_sae 16,384 nearly all of a product with all latents is multiplication by zero. With
:class:`ActiveLatents` the same formulas cost L0 instead of d_sae. Products with the decoder are
then weighted sums of its rows: by token, and by latent for its gradient.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from sae_lens_signaware.saes.gradients import first_derivative_only
from sae_lens_signaware.saes.row_sums import has_bags, row_starts, sum_of_rows


class Latents(Protocol):
    """The latents that values are of, and what depends on which they are.

    *Values* are (..., d_sae) for :class:`AllLatents`, (..., n) where it is of n of them alone, and
    (n_active,) for :class:`ActiveLatents`.

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

    def decode_nested(self, values: Tensor, W_dec: Tensor, widths: Sequence[int]) -> list[Tensor]:
        """For each of the ascending ``widths`` w, ``decode`` of the first w latents alone."""
        ...


class AllLatents:
    """Every latent of every token, or some, the same of each token: values are (..., n).

    Attributes:
        n_tokens: tokens that the values are of.
        columns: (n,) int64 numbers of the latents, or a slice.
    """

    def __init__(self, n_tokens: int, columns: Tensor | slice = slice(None)) -> None:
        self.n_tokens, self.columns = n_tokens, columns

    @classmethod
    def of(cls, values: Tensor, columns: Tensor | slice = slice(None)) -> "AllLatents":
        """Those of values (..., n)."""
        # not numel(), which torch.export takes for a constant
        return cls(math.prod(values.shape[:-1]), columns)

    def rows_of(self, param: Tensor) -> Tensor:
        """(P, d_sae) -> (P, n)."""
        return param[:, self.columns]

    def columns_of(self, vector: Tensor) -> Tensor:
        """(d_sae,) -> (n,)."""
        return vector[self.columns]

    def sum_by_token(self, values: Tensor) -> Tensor:
        """(..., n) -> (...,)."""
        return values.sum(-1)

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        """(..., n) @ (n, d_in)."""
        return values @ W_dec[self.columns]

    def decode_nested(self, values: Tensor, W_dec: Tensor, widths: Sequence[int]) -> list[Tensor]:
        """(..., w) @ (w, d_in) for each w, of all latents."""
        groups = zip(_groups(values, -1, widths), _groups(W_dec, 0, widths), strict=True)
        return list(accumulate(z @ rows for z, rows in groups))


class ActiveLatents:
    """The active latents of each token, ordered by token, then latent: values are (n_active,).

    Off the CPU no method waits for the device but :meth:`of`, and :meth:`where` with a mask: both
    have to know how many latents are active.

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

    @classmethod
    def as_stored(cls, z: Tensor) -> "tuple[ActiveLatents, Tensor]":
        """What a (n_tokens, d_sae) sparse COO tensor stores, and its values, without a wait.

        Zeros stay, and so do several values of one latent, which add up in every sum.
        """
        # indices() and values() need it coalesced, which waits for the number of values
        (token, latent), values = z._indices(), z._values()
        if not z.is_coalesced():
            token, order = token.sort(stable=True)
            latent, values = latent[order], values[order]
        # what was made of transposed indices is stored so, and CSR needs it in one piece
        return cls(token.contiguous(), latent.contiguous(), *z.shape), values.contiguous()

    @cached_property
    def starts(self) -> Tensor:
        """Where each token's latents start, as ``row_starts`` has it."""
        return row_starts(self.token, self.n_tokens)

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The order by latent, latents and tokens in that order, and where each latent starts."""
        # sorting int32 takes half the time of int64
        latent, order = self.latent.int().sort(stable=True)
        return order, latent, self.token[order], row_starts(latent, self.d_sae)

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
        order, latent, token, starts = self.by_latent
        return sum_of_rows(values[order], rows, latent, token, starts)

    def total_by_latent(self, weights: Tensor) -> Tensor:
        """Sum of the (n_active,) ``weights`` of each latent, (d_sae,)."""
        if has_bags(weights):
            # bincount adds in float64
            return self.latent.bincount(weights, minlength=self.d_sae).to(weights)
        return weights.new_zeros(self.d_sae).index_add(0, self.latent, weights)

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        """z @ W_dec for z of these ``values``, (n_tokens, d_in)."""
        recons = sum_of_rows(values, W_dec.detach(), self.token, self.latent, self.starts)
        if not (W_dec.requires_grad and torch.is_grad_enabled()):
            return recons
        # torch's own gradient sorts again, and once for every product
        out = _DecoderGradient.apply(recons, W_dec, values.detach(), self)
        assert isinstance(out, Tensor)
        return out

    def decode_nested(self, values: Tensor, W_dec: Tensor, widths: Sequence[int]) -> list[Tensor]:
        """z[:, :w] @ W_dec[:w] for each w, (n_tokens, d_in)."""
        if not has_bags(values):
            # zeros in place of the others, since how many are inside would be waited for
            bounds = pairwise([0, *widths])
            inside = [(self.latent >= start) & (self.latent < end) for start, end in bounds]
            return list(accumulate(self.decode(values.where(i, 0.0), W_dec) for i in inside))
        products, start = [], 0
        for rows, width in zip(_groups(W_dec, 0, widths), widths, strict=True):
            inside = (self.latent >= start) & (self.latent < width)
            token, latent = self.token[inside], self.latent[inside] - start
            group = ActiveLatents(token, latent, self.n_tokens, width - start)
            products.append(group.decode(values[inside], rows))
            start = width
        return list(accumulate(products))

    def in_order(self, values: Tensor) -> "tuple[ActiveLatents, Tensor]":
        """These by token, then latent, and their (n_active,) values in that order.

        Raises:
            ValueError: a latent of a token is among them twice.
        """
        position = self.token * self.d_sae + self.latent
        if (position.diff() > 0).all():
            return self, values
        position, order = position.sort()
        twice = position[1:][position.diff() == 0]
        if len(twice):
            token, latent = divmod(int(twice[0]), self.d_sae)
            raise ValueError(f"latent {latent} of token {token} is twice among the active latents")
        return self.where(order), values[order]

    def where(self, keep: Tensor) -> "ActiveLatents":
        """Those at which the (n_active,) mask is set, or in the order of such indices."""
        return ActiveLatents(self.token[keep], self.latent[keep], self.n_tokens, self.d_sae)

    def to_coo(self, values: Tensor) -> Tensor:
        """(n_tokens, d_sae) sparse COO."""
        indices = torch.stack([self.token, self.latent])
        shape = (self.n_tokens, self.d_sae)
        return torch.sparse_coo_tensor(
            indices, values, shape, device=values.device, is_coalesced=True, check_invariants=False
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
    @first_derivative_only
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        (values,) = ctx.saved_tensors
        return grad, ctx.latents.sum_by_latent(values, grad.contiguous()), None, None


def _groups(tensor: Tensor, dim: int, widths: Sequence[int]) -> Sequence[Tensor]:
    # one split: its gradient is one tensor, where each slice would make one of the whole size
    bounds = [0, *widths]
    sizes = [end - start for start, end in pairwise(bounds)]
    rest = tensor.shape[dim] - bounds[-1]
    return tensor.split([*sizes, rest], dim)[: len(sizes)]


def nonzero_positions(matrix: Tensor) -> Tensor:
    """Positions in the flat matrix of what is not 0, ascending, (n,) int64.

    Words of 8 bytes are tested first, then the elements of those that are not 0: few are, and
    ``nonzero`` costs by the element.
    """
    flat = matrix.reshape(-1).contiguous()  # of one column, reshape gives a view with its stride
    per_word = 8 // flat.element_size()
    if flat.device.type != "cpu":
        return flat.nonzero().squeeze(1)  # one wait for the device, where words need several
    if per_word < 2 or flat.numel() % per_word or flat.storage_offset() % per_word:
        return flat.nonzero().squeeze(1)
    words = flat.view(torch.int64)
    if flat.dtype == torch.bool:
        nonzero_words = words.nonzero().squeeze(1)
    else:
        nonzero_words = nonzero_positions(words != 0)
    inside = words[nonzero_words].view(flat.dtype).nonzero().squeeze(1)
    return nonzero_words[inside // per_word] * per_word + inside % per_word
