"""A training step over all latents, by tiles that stay in the cache of a CPU. Ours.

The products are the same as without tiles. Between them the elementwise passes read what is in the
cache, and neither gradients of size (n_tokens, d_sae) nor latents that are only decoded are kept.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor

from sae_lens_signaware.saes.activations.tiles import TileFormulas
from sae_lens_signaware.saes.gradients import first_derivative_only
from sae_lens_signaware.saes.kernels import CHUNK_ELEMENTS, is_supported, spread
from sae_lens_signaware.saes.latents import AllLatents
from sae_lens_signaware.saes.training import (
    Losses,
    Reconstruction,
    SignedTrainingMixin,
)
from sae_lens_signaware.saes.transforms import is_hooked

TILE_ELEMENTS = 2**17
"""Elements of an elementwise pass by one thread: 512 KiB in float32. A core's cache holds a few."""

MIN_COLUMNS = 256
"""Latents of a product at once: it is slower with fewer (measured)."""


class TiledStep(NamedTuple):
    """What a step over all latents gives.

    Attributes:
        pre: (n_tokens, d_sae) pre-activations.
        z: (n_tokens, d_sae) latents.
        products: (n_tokens, d_in) each: z @ W_dec, then those of the other latents.
        summed: (n_tokens,) what the penalty sums over the latents.
    """

    pre: Tensor
    z: Tensor
    products: tuple[Tensor, ...]
    summed: Tensor


def _columns(n_tokens: int, d_sae: int) -> list[slice]:
    return spread(d_sae, max(MIN_COLUMNS, CHUNK_ELEMENTS // max(1, n_tokens)))


def _width(columns: slice) -> int:
    return columns.stop - columns.start


def _rows(n_tokens: int, columns: slice) -> list[slice]:
    elements = TILE_ELEMENTS * torch.get_num_threads()
    return spread(n_tokens, max(1, elements // _width(columns)))


def _of(params: Sequence[Tensor], columns: slice) -> list[Tensor]:
    return [param[:, columns] for param in params]


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        formulas: TileFormulas,
        x_c: Tensor,
        W_enc: Tensor,
        b_enc: Tensor | None,
        b_dec: Tensor | None,
        W_dec: Tensor,
        *params: Tensor,
    ) -> tuple[Tensor, ...]:
        del b_dec  # in x_c already
        (n_tokens, d_in), n_paths = x_c.shape, formulas.n_paths
        pre = x_c @ W_enc if b_enc is None else torch.addmm(b_enc, x_c, W_enc)
        z, summed = torch.empty_like(pre), pre.new_zeros(n_tokens)
        products = [pre.new_zeros(n_tokens, d_in) for _ in range(n_paths)]
        tiles = _columns(*pre.shape)
        buffer = pre.new_empty(n_paths - 1, n_tokens, max(map(_width, tiles)))
        for columns in tiles:
            paths = [z[:, columns], *buffer[:, :, : _width(columns)]]
            tile_params = _of(params, columns)
            for rows in _rows(n_tokens, columns):
                tile = [path[rows] for path in paths]
                formulas.forward(pre[rows, columns], tile_params, tile, summed[rows])
            for product, path in zip(products, paths, strict=True):
                product.addmm_(path, W_dec[columns])
        ctx.save_for_backward(pre, z, x_c, W_enc, W_dec, *params)
        ctx.formulas = formulas
        ctx.set_materialize_grads(False)
        return pre, z, *products, summed

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        pre, z, x_c, W_enc, W_dec, *params = ctx.saved_tensors
        grad_pre, grad_z, *of_products, grad_summed = grad_outputs
        grad_products = [torch.zeros_like(x_c) if g is None else g for g in of_products]
        grad_summed = pre.new_zeros(len(pre)) if grad_summed is None else grad_summed
        stacked = torch.cat(grad_products)
        grad_W_enc, grad_W_dec = torch.empty_like(W_enc), torch.empty_like(W_dec)
        grad_params = [torch.zeros_like(param) for param in params]
        by_latent = pre.new_empty(pre.shape[1])
        tiles = _columns(*pre.shape)
        buffer = pre.new_empty(stacked.shape[0] * max(map(_width, tiles)))
        for columns in tiles:
            shape = len(stacked), _width(columns)
            grads = torch.mm(stacked, W_dec[columns].T, out=buffer[: math.prod(shape)].view(shape))
            grads = grads.view(len(grad_products), len(pre), -1)
            to_pre = grads[0]
            if grad_z is not None:
                to_pre += grad_z[:, columns]
            tile_params, tile_grads = _of(params, columns), _of(grad_params, columns)
            for rows in _rows(len(pre), columns):
                ctx.formulas.backward(
                    pre[rows, columns],
                    z[rows, columns],
                    tile_params,
                    list(grads[:, rows]),
                    grad_summed[rows],
                    tile_grads,
                )
            if grad_pre is not None:
                to_pre += grad_pre[:, columns]
            torch.sum(to_pre, 0, out=by_latent[columns])
            torch.mm(x_c.T, to_pre, out=grad_W_enc[:, columns])
            torch.mm(z[:, columns].T, grad_products[0], out=grad_W_dec[columns])
        _, _, _, needs_b_enc, needs_b_dec, *_ = ctx.needs_input_grad
        grad_b_enc = by_latent if needs_b_enc else None
        grad_b_dec = -(W_enc @ by_latent) if needs_b_dec else None
        return None, None, grad_W_enc, grad_b_enc, grad_b_dec, grad_W_dec, *grad_params


def tiled_step(
    formulas: TileFormulas,
    x_c: Tensor,
    W_enc: Tensor,
    b_enc: Tensor | None,
    b_dec: Tensor | None,
    W_dec: Tensor,
    params: Sequence[Tensor],
) -> TiledStep:
    """Encode, activate and decode all latents.

    All gradients are those of these steps one after the other, but that only z @ W_dec, not the
    other products, gives one to ``W_dec``. They cannot be differentiated again.

    Args:
        x_c: (n_tokens, d_in), the input less ``b_dec``; a constant here.
        W_enc: (d_in, d_sae).
        b_dec: (d_in,) where it is subtracted from the input, else None.
        params: (P, d_sae) each, those of ``formulas``.
    """
    out = _Tiled.apply(formulas, x_c.detach(), W_enc, b_enc, b_dec, W_dec, *params)
    assert isinstance(out, tuple)
    pre, z, *products, summed = out
    return TiledStep(pre, z, tuple(products), summed)


class TiledStepMixin(SignedTrainingMixin):
    """A signed training SAE whose steps over all latents go by tiles, on a CPU.

    An architecture writes the three methods. Formulas are those of one class: for a subclass, which
    may have changed :meth:`_activate` or :meth:`_losses`, :meth:`_tile_formulas` gives None.
    """

    def _tile_formulas(self) -> TileFormulas | None:
        """What is computed tile by tile; None where all latents are needed at once."""
        raise NotImplementedError

    def _tile_params(self) -> list[Tensor]:
        """The parameters of :meth:`_tile_formulas`, (P, d_sae) each."""
        raise NotImplementedError

    def _tiled_losses(self, step_input: TrainStepInput, step: TiledStep) -> Losses:
        """The losses beside the reconstruction's and AuxK."""
        raise NotImplementedError

    def _dense_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """SAELens's training_forward_pass, by tiles where they can be used."""
        compiles = torch.compiler.is_compiling()
        output = None if compiles else self._tiled_forward_pass(step_input)
        return super()._dense_forward_pass(step_input) if output is None else output

    def _tiled_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput | None:
        sae_in, formulas = step_input.sae_in, self._tile_formulas()
        hooks = self.hook_sae_input, self.hook_sae_acts_pre, self.hook_sae_acts_post
        on_cpu = sae_in.device.type == "cpu"
        if formulas is None or self._redefined_now() or not on_cpu or sae_in.requires_grad:
            return None
        if any(map(is_hooked, hooks)):
            return None
        x_c, W_enc, W_dec = self.process_sae_in(sae_in), self.W_enc, self.W_dec
        if x_c.ndim != 2 or x_c.dtype != W_enc.dtype or not is_supported(x_c, W_enc, W_dec):
            return None
        b_enc, b_dec, params = self._encoder_bias, self._subtracted_bias, self._tile_params()
        step = tiled_step(formulas, x_c, W_enc, b_enc, b_dec, W_dec, params)
        sae_out = self._finish_decode(step.products[0])
        return self._output_of(
            step_input,
            Reconstruction(sae_in, sae_out, step.z, AllLatents.of(step.pre)),
            self._tiled_losses(step_input, step),
            lambda columns: step.pre[:, columns],
            step.z,
            step.pre,
        )
