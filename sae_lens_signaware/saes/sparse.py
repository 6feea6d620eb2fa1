"""Products over open latents alone: the same numbers as the dense ones, at the cost of L0 instead of d_sae.

At L0 64 and d_sae 16,384 nearly all of a dense product with the latents is multiplication by zero.
What is nonzero is found once; reads and writes of the decoder are then bags of its rows (torch's
``embedding_bag``), by token for products with it, by latent for gradients of it. Pre-activations are
made in tiles, so that there is no (n_tokens, d_sae) matrix. CPU; ours.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

MAX_DENSITY = 0.1
"""Share of open latents up to which bags are faster than dense products (measured, see benchmarks/)."""

CHUNK_ELEMENTS = 2**21
"""Pre-activations made at once: 8 MiB in float32. Above 32 MiB glibc maps fresh pages for every
buffer, and clearing those costs more than the arithmetic (measured)."""

MIN_ROWS = 512
"""Tokens encoded at once where there are as many: with fewer, reading W_enc again for each few takes
longer than the product (measured)."""

DTYPES = (torch.float32, torch.float64)


class OpenLatents:
    """Which latents of which token are open, ordered by token, then latent.

    Attributes:
        token, latent: (n_open,) int64.
        n_tokens, d_sae: shape of the matrix of latents.
    """

    def __init__(self, token: Tensor, latent: Tensor, n_tokens: int, d_sae: int) -> None:
        self.token, self.latent = token, latent
        self.n_tokens, self.d_sae = n_tokens, d_sae

    @classmethod
    def of(cls, z: Tensor) -> "tuple[OpenLatents, Tensor]":
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

    def rows_of(self, param: Tensor) -> Tensor:
        """(P, n_open): each open latent's column of a (P, d_sae) parameter."""
        # a row at a time: the gradient of a selection in 2-D is far slower
        return torch.stack([row.index_select(0, self.latent) for row in param])

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """Order that sorts by latent, the tokens in that order, and (d_sae,) where each latent starts."""
        # sorting int32 takes half the time of int64
        order = self.latent.int().sort(stable=True).indices
        counts = self.latent.bincount(minlength=self.d_sae)
        return order, self.token[order], counts.cumsum(0) - counts

    def sum_by_latent(self, values: Tensor, rows: Tensor) -> Tensor:
        """Sum over tokens of values[t, i] * rows[t]: the transposed product, (d_sae, rows.shape[1])."""
        order, token, offsets = self.by_latent
        return embedding_bag(token, rows, offsets, mode="sum", per_sample_weights=values[order])

    def where(self, keep: Tensor) -> "OpenLatents":
        """Those at which the (n_open,) mask is set, or in the order of such indices."""
        return OpenLatents(self.token[keep], self.latent[keep], self.n_tokens, self.d_sae)

    def to_coo(self, values: Tensor) -> Tensor:
        """(n_tokens, d_sae) sparse COO."""
        indices = torch.stack([self.token, self.latent])
        return torch.sparse_coo_tensor(
            indices,
            values,
            (self.n_tokens, self.d_sae),
            is_coalesced=True,
            check_invariants=False,
        )

    def to_dense(self, values: Tensor) -> Tensor:
        """(n_tokens, d_sae), zero where shut."""
        out = values.new_zeros(self.n_tokens * self.d_sae)
        out[self.token * self.d_sae + self.latent] = values
        return out.view(self.n_tokens, self.d_sae)


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
        found = words.nonzero().squeeze(1)
    else:
        found = nonzero_positions(words != 0)
    inside = words[found].view(flat.dtype).nonzero().squeeze(1)
    return found[inside // per_word] * per_word + inside % per_word


def is_sparse_enough(z: Tensor, max_density: float, n_sampled: int = 32) -> bool:
    """Whether at most that share of (n_tokens, d_sae) latents is open; of dense ones by a few of the rows."""
    if z.is_sparse:
        return z.values().numel() <= max_density * z.numel()
    sample = z[:: max(1, len(z) // n_sampled)]
    return sample.count_nonzero().item() <= max_density * sample.numel()


def is_supported(*tensors: Tensor) -> bool:
    """Whether the products here can be used: on a CPU, in float32 or float64, eager, without autocast."""
    return (
        not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and all(t.device.type == "cpu" and t.dtype in DTYPES for t in tensors)
    )


def _tiles(n_tokens: int, d_sae: int) -> Iterator[tuple[slice, slice]]:
    """Tokens and latents of tiles that cover all of both, by latent, then by token."""
    rows = min(max(MIN_ROWS, CHUNK_ELEMENTS // d_sae), n_tokens)
    columns = min(max(1, CHUNK_ELEMENTS // max(1, rows)), d_sae)
    for latents in _spread(d_sae, columns):
        for tokens in _spread(n_tokens, rows):
            yield tokens, latents


def _spread(n: int, most: int) -> list[slice]:
    """Slices of at most ``most``, as even as they can be."""
    size = -(-n // max(1, -(-n // most))) if n else 1
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


@torch.no_grad()
def encode_open(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor | None,
    is_open: Callable[[Tensor, slice], Tensor],
    max_density: float,
) -> tuple[OpenLatents, Tensor] | None:
    """Pre-activations x @ W_enc (+ b_enc) where ``is_open`` says so.

    Args:
        x: (n_tokens, d_in).
        is_open: (rows, n) pre-activations, and which n latents they are of -> bool mask of the same shape.
        max_density: as soon as more than this share of all latents is open, or five times this share
            of a tile, None is returned.

    Returns:
        The open latents and their (n_open,) pre-activations; None where they are too many, or where
        an input or a weight is not finite.
    """
    n_tokens, d_sae, n_open = x.shape[0], W_enc.shape[1], 0
    if not x.sum().isfinite():
        return None  # every comparison with NaN is False, so leave it to the dense path
    buffer = x.new_empty(min(n_tokens * d_sae, max(CHUNK_ELEMENTS, MIN_ROWS)))
    none = torch.empty(0, dtype=torch.int64)
    token, latent, values = [none], [none], [x.new_empty(0)]
    tiles = list(_tiles(n_tokens, d_sae))
    n_ranges = len({latents.start for _, latents in tiles})
    for tokens, latents in tiles:
        chunk, weights = x[tokens], W_enc[:, latents]
        shape = len(chunk), weights.shape[1]
        pre = buffer[: shape[0] * shape[1]].view(shape)
        if b_enc is None:
            torch.mm(chunk, weights, out=pre)
        else:
            torch.addmm(b_enc[latents], chunk, weights, out=pre)
        mask = is_open(pre, latents)
        in_tile = int(mask.count_nonzero())
        n_open += in_tile
        if n_open > max_density * n_tokens * d_sae or in_tile > 5 * max_density * mask.numel():
            return None
        if not pre[0].sum().isfinite():
            return None  # a NaN weight
        position = nonzero_positions(mask)
        values.append(pre.view(-1)[position])
        token.append(position // shape[1] + tokens.start)
        latent.append(position % shape[1] + latents.start)
    opened, pre = (
        OpenLatents(torch.cat(token), torch.cat(latent), n_tokens, d_sae),
        torch.cat(values),
    )
    if n_ranges > 1:
        # tiles come by latent: a stable order by token makes it by token, then by latent
        order = opened.token.int().sort(stable=True).indices
        opened, pre = opened.where(order), pre[order]
    return opened, pre


class _PreActivation(torch.autograd.Function):
    """Hands the open pre-activations on; backward is that of x @ W_enc + b_enc with x = input - b_dec."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        x: Tensor,
        W_enc: Tensor,
        b_enc: Tensor | None,
        b_dec: Tensor | None,
        opened: OpenLatents,
    ) -> Tensor:
        del b_enc, b_dec
        ctx.save_for_backward(x, W_enc)
        ctx.opened = opened
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        x, W_enc = ctx.saved_tensors
        _, _, needs_W_enc, needs_b_enc, needs_b_dec, _ = ctx.needs_input_grad
        grad_W_enc = grad_b_enc = grad_b_dec = None
        if needs_W_enc:
            grad_W_enc = ctx.opened.sum_by_latent(grad, x).T.contiguous()
        if needs_b_enc or needs_b_dec:
            # bincount adds in float64
            summed = ctx.opened.latent.bincount(grad, minlength=W_enc.shape[1]).to(grad)
            grad_b_enc = summed if needs_b_enc else None
            grad_b_dec = -(W_enc @ summed) if needs_b_dec else None
        return None, None, grad_W_enc, grad_b_enc, grad_b_dec, None


def pre_activation(
    values: Tensor,
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor | None,
    b_dec: Tensor | None,
    opened: OpenLatents,
) -> Tensor:
    """The (n_open,) values of :func:`encode_open` as a function of the encoder, for autograd.

    Args:
        values: from :func:`encode_open`.
        x: (n_tokens, d_in), the input less ``b_dec``; a constant here.
        b_dec: (d_in,) where it is subtracted from the input, else None; its gradient comes from the
            summed gradient of the pre-activations, a product with a vector.
    """
    out = _PreActivation.apply(values, x, W_enc, b_enc, b_dec, opened)
    assert isinstance(out, Tensor)
    return out


class _DecoderGradient(torch.autograd.Function):
    """Hands x^ on; backward adds the decoder's gradient."""

    @staticmethod
    def forward(
        ctx: Any, recons: Tensor, W_dec: Tensor, values: Tensor, opened: OpenLatents
    ) -> Tensor:
        del W_dec
        ctx.save_for_backward(values)
        ctx.opened = opened
        return recons.view_as(recons)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        (values,) = ctx.saved_tensors
        return grad, ctx.opened.sum_by_latent(values, grad.contiguous()), None, None


def decode_open(values: Tensor, W_dec: Tensor, opened: OpenLatents) -> Tensor:
    """z @ W_dec from the open latents, (n_tokens, d_in), differentiable in both.

    Args:
        values: (n_open,) of z.
        W_dec: (d_sae, d_in).
    """
    recons = embedding_bag(
        opened.latent, W_dec.detach(), opened.offsets, mode="sum", per_sample_weights=values
    )
    if W_dec.requires_grad and torch.is_grad_enabled():
        # torch's own gradient sorts again, and once for every product
        out = _DecoderGradient.apply(recons, W_dec, values.detach(), opened)
        assert isinstance(out, Tensor)
        return out
    return recons
