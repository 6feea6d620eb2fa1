"""Inputs of the measures: activations as batches, an SAE that can read them, and checks of both."""

import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, SupportsIndex

import numpy as np
import torch
from sae_lens import SAE, ActivationsStore
from sae_lens.constants import ACTIVATION_SCALER_CFG_FILENAME
from torch import Tensor

from sae_lens_signaware.checks import ConfigError, InvalidInputError, require, short

ESTIMATED = ("expected_average_only_in", "covariance_whitening")
"""Normalisations whose scale SAELens estimates in a training, and folds into the SAE at its end."""

OF_LAST_INPUT = (
    "hook_z_reshaping_mode",
    "reshape_fn_in",
    "reshape_fn_out",
    "d_head",
    "ln_mu",
    "ln_std",
    "x_norm_coeff",
)
"""What an SAE keeps of the tokens that it encoded last, to decode them."""

MAX_TOKENS = 4096
"""Tokens of a batch."""

MAX_ACTIVATION = 1e15
"""Largest size of an activation: the squares of a batch 16,384 wide then sum to a float32."""


def batches_of(activations: Iterable[Tensor] | Tensor, d_in: int) -> Iterator[Tensor]:
    """Yield activations as batches (n, d_in) of at most 4,096 tokens.

    Args:
        activations: (n, d_in) or (batch, position, d_in) tensors of any floating-point type of 16
            bits or more, or one such tensor.

    Raises:
        InvalidInputError: an ``ActivationsStore``, which never ends; what is no tensor, or has
            another shape or type; a value that is not finite or out of range; no token at all.
    """
    _require_that_it_ends(activations)
    n_tokens = 0
    for chunk in _tensors_of(activations):
        _require_shape_and_dtype(chunk, d_in)
        for batch in chunk.reshape(-1, d_in).split(MAX_TOKENS) if chunk.numel() else ():
            require_in_range(batch)
            n_tokens += len(batch)
            yield batch
    if n_tokens == 0:
        raise InvalidInputError("activations must hold at least one token, got none")


def require_activations(activations: Iterable[Tensor] | Tensor, d_in: int) -> None:
    """Raise what :func:`batches_of` would, as far as that is known without using them up."""
    if isinstance(activations, Tensor | list | tuple):
        for _ in batches_of(activations, d_in):
            pass
        return
    _require_that_it_ends(activations)
    _require_iterable(activations)


def _require_that_it_ends(activations: object) -> None:
    if isinstance(activations, ActivationsStore):
        raise InvalidInputError(
            "activations must come to an end, got an ActivationsStore; "
            "take itertools.islice(store, n_batches) of it"
        )


def _tensors_of(activations: object) -> Iterator[Tensor]:
    if isinstance(activations, Tensor):
        yield activations
        return
    for i, item in enumerate(_require_iterable(activations)):
        yield required_tensor(f"activations[{i}]", item)


def _require_iterable(activations: object) -> Iterable[object]:
    # an array would iterate as rows, a mapping as its keys
    if isinstance(activations, np.ndarray | str | Mapping) or not isinstance(activations, Iterable):
        raise _no_tensor("activations", "a tensor or an iterable of tensors", activations)
    return activations


def required_tensor(field: str, value: object) -> Tensor:
    """Return ``value``, or raise InvalidInputError where it is no tensor."""
    if not isinstance(value, Tensor):
        raise _no_tensor(field, "a tensor", value)
    return value


def _no_tensor(field: str, allowed: str, value: object) -> InvalidInputError:
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    advice = "; torch.from_numpy(...) makes a tensor of it" if isinstance(value, np.ndarray) else ""
    return InvalidInputError(f"{field} must be {allowed}, got {name}{advice}")


def _require_shape_and_dtype(chunk: Tensor, d_in: int) -> None:
    if chunk.ndim not in (2, 3) or chunk.shape[-1] != d_in:
        raise InvalidInputError(
            f"activations must be (n, {d_in}) or (batch, position, {d_in}) for this SAE, "
            f"got {tuple(chunk.shape)}"
        )
    require(chunk.layout == torch.strided, "activations", chunk.layout, "dense; see .to_dense()")
    if not chunk.is_floating_point() or chunk.element_size() < 2:
        raise InvalidInputError(
            "activations must be floating-point numbers of 16 bits or more, "
            f"got {chunk.dtype}; .float() converts them"
        )


@contextmanager
def flat_activations(sae: SAE[Any]) -> Iterator[None]:
    """Let the SAE take (..., d_in), as a store gives it, also where it was trained on hook_z.

    After it the SAE decodes what it encoded before.
    """
    held = vars(sae)
    kept = {name: held[name] for name in OF_LAST_INPUT if name in held}
    if sae.hook_z_reshaping_mode:
        sae.turn_off_forward_pass_hook_z_reshaping()
    try:
        yield
    finally:
        for name in OF_LAST_INPUT:
            held.pop(name, None)
        held.update(kept)


def dense_latents(sae: SAE[Any], activations: Tensor) -> Tensor:
    """Encode activations (..., d_in); (..., d_sae) also where the SAE gives a sparse tensor."""
    return dense_and_finite(sae.encode(activations.to(sae.device)))


def dense_and_finite(z: Tensor) -> Tensor:
    """Latents as a dense tensor.

    Raises:
        InvalidInputError: one is NaN or inf.
    """
    z = z.to_dense() if z.is_sparse else z
    require_finite_latents(z)
    return z


def require_finite_latents(values: Tensor) -> None:
    """Raise InvalidInputError for a latent that is NaN or inf, which would count as active."""
    if not values.isfinite().all():
        raise InvalidInputError(
            "SAE must give finite latents, got NaN or inf: its training diverged, or its dtype or "
            "its normalize_activations does not take these activations, as of a token that is 0 "
            "throughout"
        )


def require_autoencoder(sae: SAE[Any]) -> None:
    """Raise InvalidInputError for a transcoder, for an SAE of whole sequences, and for no SAE."""
    require_sae(sae)
    architecture = sae.cfg.architecture()
    if hasattr(sae.cfg, "d_out") or architecture == "temporal":
        raise InvalidInputError(
            f"SAE must be one that reconstructs its own input token by token, got {architecture!r}"
        )


def require_sae(sae: object) -> None:
    """Raise InvalidInputError where the first argument of a measure is another one's."""
    require(isinstance(sae, SAE), "sae", type(sae).__name__, "an SAE of SAELens")


def require_folded(sae: SAE[Any], source: str = "it") -> None:
    """Raise ConfigError where an SAE is of scaled activations, and has not taken up the scale.

    Args:
        source: where the SAE is from.
    """
    normalisation = sae.cfg.normalize_activations
    if normalisation in ESTIMATED:
        raise ConfigError(
            f"SAE: {source} is of activations that {normalisation!r} scales, and its scale is not "
            f"there, in {ACTIVATION_SCALER_CFG_FILENAME}; give the SAE that a training saved at "
            "its end"
        )


def numbers_of_latents(
    sae: SAE[Any], latents: Iterable[SupportsIndex] | None, field: str = "latents"
) -> list[int]:
    """The numbers of some latents as Python's own, which JSON and a mapping take.

    Args:
        latents: a list, an array or a tensor of them, such as ``mask.nonzero()`` gives, or what
            gives them once; None are all.

    Raises:
        InvalidInputError: that is no list; or the first that is no whole number, as of a mask, or
            that no latent of ``sae`` has.
    """
    if latents is None:
        return list(range(sae.cfg.d_sae))
    try:
        given = list(latents)
    except TypeError:  # one number, of Python or of torch
        allowed = "a list of numbers of latents"
        raise InvalidInputError(f"{field} must be {allowed}, got {short(latents)}") from None
    numbers, allowed = [], f"from 0 to {sae.cfg.d_sae - 1}"
    for i in given:
        is_mask = "bool" in str(getattr(i, "dtype", type(i)))
        advice = "of a mask take mask.nonzero()" if is_mask else ""
        require(not is_mask and _is_index(i), field, i, "whole numbers", advice)
        numbers.append(operator.index(i))
        require(0 <= numbers[-1] < sae.cfg.d_sae, field, i, allowed)
    return numbers


def _is_index(value: Any) -> bool:
    """Whether Python takes ``value`` for an index; a tensor says so only when it is asked."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def require_in_range(activations: Tensor) -> None:
    """Raise InvalidInputError for a NaN, an inf, or a value whose square overflows in sums."""
    if not activations.numel():
        return
    low, high = torch.stack(activations.aminmax()).tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InvalidInputError("activations must be finite, got NaN or inf")
    largest = low if -low > high else high
    require(
        abs(largest) <= MAX_ACTIVATION,
        "activations",
        largest,
        f"from {-MAX_ACTIVATION:g} to {MAX_ACTIVATION:g}",
        "sums of their squares overflow float32",
    )
