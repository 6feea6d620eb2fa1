"""A training step computed from the active latents alone, on a CPU; no other file does so. Ours.

At L0 64 and d_sae 16,384 nearly all of a product with all latents is multiplication by zero. Here
the active latents are found in tiles, without a (n_tokens, d_sae) matrix, and what follows costs L0
instead of d_sae: products with the decoder are weighted sums of its rows, by token, and by latent
for the gradients. The formulas are those of the architecture, called with the active latents as a
batch of one token. The results are those of the plain step up to rounding.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

if TYPE_CHECKING:
    from sae_lens_signaware.saes.common import SignedTraining

MAX_DENSITY = 0.1
"""Share of active latents up to which this is faster than the plain step (measured)."""

CHUNK = 2**21
"""Pre-activations made at once, 8 MiB: above 32 MiB glibc maps fresh pages for every buffer."""

MIN_TOKENS = 512
"""Tokens encoded at once where there are as many: with fewer W_enc is read too often (measured).
"""

SAMPLED_TOKENS = 32
"""Tokens of which a first cutoff of the largest latents of a batch is taken."""

SURPLUS = 1.25
"""How many times the latents that are looked for the first cutoff is to let pass."""

_exact_classes: set[type] = set()


def may_be_fast(sae_class: "type[SignedTraining]") -> "type[SignedTraining]":
    """Class decorator: steps of this very class, and of no subclass, may be computed here."""
    _exact_classes.add(sae_class)
    return sae_class


def applies(sae: "SignedTraining", sae_in: Tensor) -> bool:
    """The one rule: a trainer's own call on a CPU, in 32 or 64 bits, that nothing looks into.

    A subclass, a hook, torch.compile, autocast, a transform or an input that wants a gradient gets
    the plain step.
    """
    return (
        type(sae) in _exact_classes
        and not torch.compiler.is_compiling()
        and type(sae_in) is Tensor
        and sae_in.ndim == 2
        and not sae_in.requires_grad
        and sae_in.device.type == sae.W_enc.device.type == "cpu"
        and sae.W_enc.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not any(_is_hooked(hook) for hook in sae.hook_dict.values())
        # torch has no public name for it
        and not torch._C._are_functorch_transforms_active()
    )


def _is_hooked(hook: nn.Module) -> bool:
    forward = hook._forward_hooks or hook._forward_pre_hooks
    return bool(forward or hook._backward_hooks or hook._backward_pre_hooks)


def step(sae: "SignedTraining", step_input: TrainStepInput) -> TrainStepOutput | None:
    """SAELens's ``training_forward_pass``; None where too many latents are active for this to pay.

    ``feature_acts`` and ``hidden_pre`` are sparse COO, as those of SAELens's topk; no gradient.
    """
    from sae_lens_signaware.saes.common import StepValues

    sae_in = step_input.sae_in
    x_c = sae.process_sae_in(sae_in).detach()
    with torch.no_grad():
        active = sae.find_active(x_c)
    if active is None:
        return None
    b_enc: nn.Parameter | None = getattr(sae, "b_enc", None)
    b_enc_used = None if b_enc is None else b_enc.to(x_c.dtype)
    b_dec = sae.b_dec if sae.cfg.apply_b_dec_to_input else None
    pre = active.pre_activation(x_c, sae.W_enc, b_enc_used, b_dec)
    rows = {name: active.gather(row) for name, row in sae.rows(x_c.dtype).items()}
    scale = rows.get("scale")
    pre = pre if scale is None else pre * scale
    z = sae.activate(pre, rows)
    sae_out = sae.finish_decode(active.decode(z if scale is None else z / scale, sae.W_dec))

    def pre_of(latents: Tensor) -> Tensor:
        W_enc = sae.W_enc[:, latents]
        found = x_c @ W_enc if b_enc_used is None else x_c @ W_enc + b_enc_used[latents]
        if b_dec is not None:  # adds 0: the gradient of b_dec by a product with a vector
            found = found + (b_dec.detach() - b_dec) @ W_enc.detach()
        full = sae.rows(x_c.dtype).get("scale")
        return found if full is None else found * full[:, latents]

    values = StepValues(
        inputs=step_input,
        sae_out=sae_out,
        pre=pre,
        z=z,
        rows=rows,
        decode=active.decode,
        pre_of=pre_of,
    )
    mse_loss = sae.mse_loss_fn(sae_out, sae_in).sum(dim=-1).mean()
    losses = {"mse_loss": mse_loss, **sae.all_losses(values)}
    fires = (z != 0)[0]
    return TrainStepOutput(
        sae_in=sae_in,
        sae_out=sae_out,
        feature_acts=active.where(fires).to_coo(z[0].detach()[fires]),
        hidden_pre=active.to_coo(pre[0].detach()),
        loss=torch.stack(list(losses.values())).sum(),
        losses=losses,
    )


@dataclasses.dataclass
class Active:
    """The active latents of a batch, by token, then latent.

    Attributes:
        token, latent: (n,) int64.
        pre: (n,) pre-activations, without a gradient.
        n_tokens, d_sae: shape of the matrix of all latents.
    """

    token: Tensor
    latent: Tensor
    pre: Tensor
    n_tokens: int
    d_sae: int

    @cached_property
    def starts(self) -> Tensor:
        """(n_tokens,) where the latents of each token start."""
        return _starts(self.token, self.n_tokens)

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """The order by latent, the tokens in that order, and where each latent starts."""
        latent, order = self.latent.int().sort(stable=True)  # half the time of int64
        return order, self.token[order], _starts(latent, self.d_sae)

    def gather(self, rows: Tensor) -> Tensor:
        """(P, d_sae) -> (P, n)."""
        # a row at a time: the gradient of a selection in 2-D is far slower
        return torch.stack([row.index_select(0, self.latent) for row in rows])

    def where(self, keep: Tensor) -> "Active":
        """Those at which the (n,) mask is set, or in the order of such indices."""
        held = (self.token[keep], self.latent[keep], self.pre[keep])
        return Active(*held, self.n_tokens, self.d_sae)

    def to_coo(self, values: Tensor) -> Tensor:
        """(n_tokens, d_sae) sparse COO of (n,) values."""
        indices, shape = torch.stack([self.token, self.latent]), (self.n_tokens, self.d_sae)
        return torch.sparse_coo_tensor(
            indices, values, shape, is_coalesced=True, check_invariants=False
        )

    def sum_by_latent(self, values: Tensor, vectors: Tensor) -> Tensor:
        """(d_sae, d): for each latent, the sum over its tokens t of value * vectors[t]."""
        order, token, starts = self.by_latent
        return embedding_bag(token, vectors, starts, mode="sum", per_sample_weights=values[order])

    def pre_activation(
        self, x_c: Tensor, W_enc: Tensor, b_enc: Tensor | None, b_dec: Tensor | None
    ) -> Tensor:
        """(1, n): ``pre`` as x_c @ W_enc + b_enc for autograd; ``b_dec`` where x_c is less it."""
        out = _PreActivation.apply(self.pre, x_c, W_enc, b_enc, b_dec, self)
        assert isinstance(out, Tensor)
        return out[None]

    def decode(self, values: Tensor, W_dec: Tensor, columns: slice = slice(None)) -> Tensor:
        """z[:, columns] @ W_dec[columns], (n_tokens, d_in), for z of the (1, n) ``values``."""
        active, values = self, values[0]
        if columns != slice(None):
            start, stop, _ = columns.indices(self.d_sae)
            inside = (self.latent >= start) & (self.latent < stop)
            active, values = self.where(inside), values[inside]
        product = embedding_bag(
            active.latent, W_dec.detach(), active.starts, mode="sum", per_sample_weights=values
        )
        if not W_dec.requires_grad:
            return product
        out = _DecoderGradient.apply(product, W_dec, values.detach(), active)
        assert isinstance(out, Tensor)
        return out


class _PreActivation(torch.autograd.Function):
    """Hands pre-activations on; backward is that of x_c @ W_enc + b_enc with x_c = x - b_dec."""

    @staticmethod
    def forward(
        ctx: Any,
        pre: Tensor,
        x_c: Tensor,
        W_enc: Tensor,
        b_enc: Tensor | None,
        b_dec: Tensor | None,
        active: Active,
    ) -> Tensor:
        del b_enc, b_dec
        ctx.save_for_backward(x_c, W_enc)
        ctx.active = active
        return pre.clone()

    @staticmethod
    @once_differentiable  # which torch types without its first argument
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        x_c, W_enc = ctx.saved_tensors
        active: Active = ctx.active
        grad_W_enc = active.sum_by_latent(grad, x_c).T.contiguous()
        # bincount adds in float64
        summed = active.latent.bincount(grad, minlength=active.d_sae).to(grad)
        needs_b_enc, needs_b_dec = ctx.needs_input_grad[3:5]
        grad_b_dec = -(W_enc @ summed) if needs_b_dec else None
        return None, None, grad_W_enc, summed if needs_b_enc else None, grad_b_dec, None


class _DecoderGradient(torch.autograd.Function):
    """Hands z @ W_dec on; backward adds the decoder's gradient, for which torch would sort anew."""

    @staticmethod
    def forward(ctx: Any, product: Tensor, W_dec: Tensor, values: Tensor, active: Active) -> Tensor:
        del W_dec
        ctx.save_for_backward(values)
        ctx.active = active
        return product.view_as(product)

    @staticmethod
    @once_differentiable  # which torch types without its first argument
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (values,) = ctx.saved_tensors
        grad = grad_outputs[0].contiguous()
        return grad, ctx.active.sum_by_latent(values, grad), None, None


def _starts(ascending: Tensor, n: int) -> Tensor:
    counts = ascending.bincount(minlength=n)
    return counts.cumsum(0) - counts


def above_threshold(
    x_c: Tensor,
    W_enc: Tensor,
    b_enc: Tensor | None,
    is_active: Callable[[Tensor, slice], Tensor],
    max_density: float = MAX_DENSITY,
) -> Active | None:
    """The latents that ``is_active``; None where more than ``max_density`` are, or a value is NaN.

    Args:
        x_c: (n_tokens, d_in).
        is_active: (rows, n) pre-activations, and the n latents that they are of -> a bool mask.
    """
    (n_tokens, _), d_sae, n_active = x_c.shape, W_enc.shape[1], 0
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for tokens, latents in _tiles(n_tokens, d_sae):
        pre = x_c[tokens] @ W_enc[:, latents]
        pre = pre if b_enc is None else pre.add_(b_enc[latents])
        if not pre.sum().isfinite():
            return None  # every comparison with NaN is False: leave it to the plain step
        mask = is_active(pre, latents)
        in_tile, n = int(mask.count_nonzero()), pre.shape[1]
        n_active += in_tile
        if n_active > max_density * n_tokens * d_sae or in_tile > 5 * max_density * mask.numel():
            return None
        position = _nonzero(mask)
        token, latent = position // n + tokens.start, position % n + latents.start
        found.append((token, latent, pre.view(-1)[position]))
    token, latent, values = (torch.cat(parts) for parts in zip(*found, strict=True))
    active = Active(token, latent, values, n_tokens, d_sae)
    # tiles come by latent: a stable order by token makes it by token, then by latent
    return active.where(active.token.int().sort(stable=True).indices)


def _tiles(n_tokens: int, d_sae: int) -> Iterator[tuple[slice, slice]]:
    n_rows = min(max(MIN_TOKENS, CHUNK // d_sae), n_tokens)
    for latents in _spread(d_sae, max(1, CHUNK // n_rows)):
        for tokens in _spread(n_tokens, n_rows):
            yield tokens, latents


def _spread(n: int, most: int) -> list[slice]:
    """Slices of at most ``most``, as even as they can be."""
    n_slices = -(-n // most)
    bounds = [n * i // n_slices for i in range(n_slices + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def _nonzero(mask: Tensor) -> Tensor:
    """Positions in the flat mask of what is set, ascending: words of 8 first, as few are."""
    flat = mask.reshape(-1)
    if flat.numel() % 8:
        return flat.nonzero().squeeze(1)
    words = flat.view(torch.int64).nonzero().squeeze(1)
    inside = flat.view(-1, 8)[words].view(-1).nonzero().squeeze(1)
    return words[inside // 8] * 8 + inside % 8


def batch_topk(
    x_c: Tensor,
    W_enc: Tensor,
    b_enc: Tensor | None,
    size: Callable[[Tensor, Tensor | slice], Tensor],
    k: int,
) -> Active | None:
    """The ``k`` latents of the batch of largest size; None as in :func:`above_threshold`.

    A cutoff that some more pass is taken of some tokens and lowered until enough pass; the largest
    of those are kept.

    Args:
        size: pre-activations, and the latents that end their shape -> sizes of that shape.
    """
    if k > MAX_DENSITY * len(x_c) * W_enc.shape[1]:
        return None
    sample = x_c[:: max(1, len(x_c) // SAMPLED_TOKENS)] @ W_enc
    sizes = size(sample if b_enc is None else sample + b_enc, slice(None)).flatten()
    n = int(SURPLUS * k * len(sample) / len(x_c)) + 1
    cutoff = sizes.kthvalue(len(sizes) - n + 1).values.item() if n <= len(sizes) else 0.0
    for factor in (1.0, 0.8, 0.5, 0.2, 0.0):
        at = factor * cutoff
        passed = above_threshold(x_c, W_enc, b_enc, lambda pre, of, a=at: size(pre, of) > a, 1.0)
        if passed is None:
            return None
        if len(passed.pre) >= k:
            break
    sizes = size(passed.pre, passed.latent)
    kept = sizes.topk(min(k, len(sizes)), sorted=False).indices
    return passed.where(kept.sort().values)


def topk(
    x_c: Tensor,
    W_enc: Tensor,
    b_enc: Tensor | None,
    size: Callable[[Tensor, Tensor | slice], Tensor],
    k: int,
) -> Active | None:
    """The ``k`` latents of each token of largest size; arguments as :func:`batch_topk`."""
    d_sae = W_enc.shape[1]
    if k > MAX_DENSITY * d_sae:
        return None
    latent, values = [], []
    for tokens in x_c.split(max(1, CHUNK // d_sae)):
        pre = tokens @ W_enc if b_enc is None else tokens @ W_enc + b_enc
        if not pre.sum().isfinite():
            return None
        kept = size(pre, slice(None)).topk(k, sorted=False).indices.sort(dim=-1).values
        latent.append(kept.flatten())
        values.append(pre.gather(1, kept).flatten())
    token = torch.arange(len(x_c)).repeat_interleave(k)
    return Active(token, torch.cat(latent), torch.cat(values), len(x_c), d_sae)
