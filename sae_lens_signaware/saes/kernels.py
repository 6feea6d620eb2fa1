"""Products with the encoder, of all latents and of the active ones alone. Ours.

Active latents are found in tiles, so that there is no (n_tokens, d_sae) matrix.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sae_lens_signaware.saes.gradients import first_derivative_only
from sae_lens_signaware.saes.latents import ActiveLatents, nonzero_positions
from sae_lens_signaware.saes.transforms import is_transformed

MAX_DENSITY = 0.1
"""Share of active latents up to which bags are faster than dense products (measured)."""

CHUNK_ELEMENTS = 2**21
"""Pre-activations made at once: 8 MiB in float32. Above 32 MiB glibc maps fresh pages for every
buffer, and clearing those costs more than the arithmetic (measured)."""

MIN_ROWS = 512
"""Tokens encoded at once where there are as many: with fewer, reading W_enc again for each few
takes longer than the product (measured)."""

DTYPES = (torch.float32, torch.float64)

CSR_DEVICES: tuple[str, ...] = ("cuda",)
"""Types of device where sparse latents are decoded by a CSR product, in those dtypes."""


class _EncoderProduct(torch.autograd.Function):
    """Gives b_dec its gradient by a product with a vector, not by one with the batch.

    ``x_c`` gets none, and is saved as a function of b_dec for the second derivative.
    """

    @staticmethod
    def forward(x_c: Tensor, W_enc: Tensor, b_dec: Tensor) -> Tensor:
        del b_dec  # in x_c already
        return x_c @ W_enc

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del output
        x_c, W_enc, _ = inputs
        ctx.save_for_backward(x_c, W_enc)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor, Tensor]:
        (grad,) = grad_outputs
        x_c, W_enc = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        return None, x_c.reshape(-1, x_c.shape[-1]).T @ grad, -(W_enc @ grad.sum(0))


def encoder_product(x_c: Tensor, W_enc: Tensor, b_dec: Tensor) -> Tensor:
    """x_c @ W_enc for x_c = x - b_dec with a constant x, in autocast's dtype where that is on.

    Args:
        x_c: (..., d_in); its own gradient is that of b_dec.
        W_enc: (d_in, d_sae).
        b_dec: (d_in,); it is in ``x_c`` already, and gets its gradient through it.
    """
    if _is_autocast(x_c) and x_c.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x_c.device.type)
        x_c, W_enc, b_dec = x_c.to(dtype), W_enc.to(dtype), b_dec.to(dtype)
    out = _EncoderProduct.apply(x_c, W_enc, b_dec)
    assert isinstance(out, Tensor)
    return out


def is_sparse_enough(z: Tensor, max_density: float, n_sampled: int = 32) -> bool:
    """Whether at most that share of (n_tokens, d_sae) latents is active.

    Of dense latents some of the rows are looked at.
    """
    if z.is_sparse:
        return z._nnz() <= max_density * z.numel()  # values() needs it coalesced
    sample = z[:: max(1, len(z) // n_sampled)]
    return sample.count_nonzero().item() <= max_density * sample.numel()


def is_supported(*tensors: Tensor) -> bool:
    """Whether active latents can be computed alone: a CPU, 32 or 64 bits, eager, no autocast."""
    return _is_eager(("cpu",), *tensors)


def has_csr_product(*tensors: Tensor) -> bool:
    """Whether sparse latents are decoded by a CSR product: on CUDA, 32 or 64 bits, eager."""
    return _is_eager(CSR_DEVICES, *tensors)


def _is_eager(device_types: tuple[str, ...], *tensors: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and not is_transformed(*tensors)
        # of no subclass, such as the tensors without data that torch traces with
        and all(type(t) in (Tensor, nn.Parameter) for t in tensors)
        and all(t.device.type in device_types and t.dtype in DTYPES for t in tensors)
        and not any(map(_is_autocast, tensors))
    )


def _is_autocast(tensor: Tensor) -> bool:
    device = tensor.device.type
    # torch raises where a device, such as meta, has no autocast at all
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _tiles(n_tokens: int, d_sae: int) -> Iterator[tuple[slice, slice]]:
    """Tokens and latents of tiles that cover all of both, by latent, then by token."""
    rows = min(max(MIN_ROWS, CHUNK_ELEMENTS // d_sae), n_tokens)
    columns = min(max(1, CHUNK_ELEMENTS // max(1, rows)), d_sae)
    for latents in spread(d_sae, columns):
        for tokens in spread(n_tokens, rows):
            yield tokens, latents


def spread(n: int, most: int) -> list[slice]:
    """Slices of at most ``most``, as even as they can be."""
    size = -(-n // max(1, -(-n // most))) if n else 1
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


@torch.no_grad()
def encode_active(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor | None,
    is_active: Callable[[Tensor, slice], Tensor],
    max_density: float,
) -> tuple[ActiveLatents, Tensor] | None:
    """Pre-activations x @ W_enc (+ b_enc) where ``is_active`` says so.

    Args:
        x: (n_tokens, d_in).
        is_active: (rows, n) pre-activations, and which n latents they are of -> a bool mask of
            that shape.
        max_density: as soon as more than this share of all latents is active, or five times this
            share of a tile, None is returned.

    Returns:
        The active latents and their (n_active,) pre-activations; None where they are too many, or
        where an input or a weight is not finite.
    """
    n_tokens, d_sae, n_active = x.shape[0], W_enc.shape[1], 0
    if not x.sum().isfinite():
        return None  # every comparison with NaN is False, so leave it to the dense path
    buffer = x.new_empty(min(n_tokens * d_sae, max(CHUNK_ELEMENTS, MIN_ROWS)))
    none = torch.empty(0, dtype=torch.int64, device=x.device)
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
        mask = is_active(pre, latents)
        in_tile = int(mask.count_nonzero())
        n_active += in_tile
        if n_active > max_density * n_tokens * d_sae or in_tile > 5 * max_density * mask.numel():
            return None
        if not pre[0].sum().isfinite():
            return None  # a NaN weight
        position = nonzero_positions(mask)
        values.append(pre.view(-1)[position])
        token.append(position // shape[1] + tokens.start)
        latent.append(position % shape[1] + latents.start)
    active = ActiveLatents(torch.cat(token), torch.cat(latent), n_tokens, d_sae)
    pre = torch.cat(values)
    if n_ranges > 1:
        # tiles come by latent: a stable order by token makes it by token, then by latent
        order = active.token.int().sort(stable=True).indices
        active, pre = active.where(order), pre[order]
    return active, pre


class _PreActivation(torch.autograd.Function):
    """Hands pre-activations on; backward is that of x @ W_enc + b_enc with x = input - b_dec."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        x: Tensor,
        W_enc: Tensor,
        b_enc: Tensor | None,
        b_dec: Tensor | None,
        latents: ActiveLatents,
    ) -> Tensor:
        del b_enc, b_dec
        ctx.save_for_backward(x, W_enc)
        ctx.latents = latents
        return values.clone()

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        x, W_enc = ctx.saved_tensors
        _, _, needs_W_enc, needs_b_enc, needs_b_dec, _ = ctx.needs_input_grad
        grad_W_enc = grad_b_enc = grad_b_dec = None
        if needs_W_enc:
            grad_W_enc = ctx.latents.sum_by_latent(grad, x).T.contiguous()
        if needs_b_enc or needs_b_dec:
            summed = ctx.latents.total_by_latent(grad)
            grad_b_enc = summed if needs_b_enc else None
            grad_b_dec = -(W_enc @ summed) if needs_b_dec else None
        return None, None, grad_W_enc, grad_b_enc, grad_b_dec, None


def pre_activation(
    values: Tensor,
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor | None,
    b_dec: Tensor | None,
    latents: ActiveLatents,
) -> Tensor:
    """The (n_active,) values of :func:`encode_active` as a function of the encoder, for autograd.

    Args:
        values: from :func:`encode_active`.
        x: (n_tokens, d_in), the input less ``b_dec``; a constant here.
        b_dec: (d_in,) where it is subtracted from the input, else None; its gradient comes from the
            summed gradient of the pre-activations, a product with a vector.
    """
    out = _PreActivation.apply(values, x, W_enc, b_enc, b_dec, latents)
    assert isinstance(out, Tensor)
    return out
