"""Inputs of the measures: activations as batches, and an SAE that encodes them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sae_lens import SAE, ActivationsStore
from torch import Tensor
from torch.nn.functional import normalize

from sae_lens_signaware.checks import require

ESTIMATED = ("expected_average_only_in", "covariance_whitening")
"""Normalisations whose scale SAELens estimates in a training, and folds into the SAE at its end."""

MAX_TOKENS = 4096
"""Tokens of a batch."""


def batches_of(activations: Iterable[Tensor] | Tensor, d_in: int) -> Iterator[Tensor]:
    """Yield activations as batches (n, d_in) of at most 4,096 tokens.

    Args:
        activations: (n, d_in) or (batch, position, d_in) floating-point tensors, or one of them.

    Raises:
        InvalidInputError: an ``ActivationsStore``, which never ends; no tensor; another shape or
            type; a value that is not finite; or no token at all.
    """
    is_endless = isinstance(activations, ActivationsStore)
    allowed = "tensors that come to an end, such as itertools.islice(store, n)"
    require(not is_endless, "activations", type(activations).__name__, allowed)
    n_tokens = 0
    for chunk in [activations] if isinstance(activations, Tensor) else activations:
        require(isinstance(chunk, Tensor), "activations", type(chunk).__name__, "tensors")
        fits = chunk.ndim in (2, 3) and chunk.shape[-1] == d_in
        allowed = f"(n, {d_in}) or (batch, position, {d_in}) for this SAE"
        require(fits, "activations", tuple(chunk.shape), allowed)
        require(chunk.is_floating_point(), "activations", chunk.dtype, "floating-point numbers")
        for batch in chunk.reshape(-1, d_in).split(MAX_TOKENS) if chunk.numel() else ():
            require_finite("activations", batch)
            n_tokens += len(batch)
            yield batch
    require(n_tokens > 0, "activations", "none", "at least one token")


def require_finite(field: str, values: Tensor) -> None:
    """Raise InvalidInputError for a value that is NaN or inf."""
    require(bool(values.isfinite().all()), field, "NaN or inf", "finite")


@contextmanager
def flat_activations(sae: SAE[Any]) -> Iterator[None]:
    """Let the SAE take (..., d_in), as a store gives it, also where it was trained on hook_z."""
    was_on = sae.hook_z_reshaping_mode
    if was_on:
        sae.turn_off_forward_pass_hook_z_reshaping()
    try:
        yield
    finally:
        if was_on:
            sae.turn_on_forward_pass_hook_z_reshaping()


def latents_of(sae: SAE[Any], activations: Tensor) -> Tensor:
    """Encode (..., d_in) as latents (..., d_sae), dense; InvalidInputError for NaN or inf."""
    z = sae.encode(activations.to(sae.device))
    z = z.to_dense() if z.is_sparse else z  # SAELens's TopK trains with sparse ones
    require_finite("latents of the SAE", z)
    return z


def decoder_directions(sae: SAE[Any]) -> Tensor:
    """The directions d_i that one unit of latent i writes, (d_sae, d_in) float32.

    They are the rows of W_dec, but for SAELens's TopK, which can divide by their norms; while a
    signed SAE trains, its latents are in units of a scale.
    """
    W_dec = sae.W_dec.detach().float()
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        W_dec = normalize(W_dec, eps=1e-8)
    return W_dec * getattr(sae, "scale", 1.0)


def require_autoencoder(sae: SAE[Any]) -> None:
    """Raise InvalidInputError for a transcoder, and for an SAE of whole sequences."""
    architecture = sae.cfg.architecture()
    is_other = hasattr(sae.cfg, "d_out") or architecture == "temporal"
    require(not is_other, "sae", architecture, "one that reconstructs its input token by token")


def require_folded(sae: SAE[Any]) -> None:
    """Raise InvalidInputError where an SAE has not taken up the scale of its activations."""
    require_autoencoder(sae)
    found, allowed = sae.cfg.normalize_activations, "folded in, as in the SAE a training saved last"
    require(found not in ESTIMATED, "normalize_activations", found, allowed)


def numbers_of_latents(sae: SAE[Any], latents: Sequence[int] | Tensor | None) -> list[int]:
    """The numbers of some latents, None for all; InvalidInputError for one out of range."""
    d_sae = sae.cfg.d_sae
    numbers = [int(i) for i in (range(d_sae) if latents is None else latents)]
    for i in numbers:
        require(0 <= i < d_sae, "latents", i, f"from 0 to {d_sae - 1}")
    return numbers
