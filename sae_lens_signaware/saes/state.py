"""The weights file of a signed SAE: what may be in it, and training state that a cast would round.

State of a training SAE that an inference SAE does not have travels in the weights file, since that
is the only file of SAELens's checkpoint that the SAE itself writes. SAELens casts every tensor of
the file to the SAE's dtype when it loads one. So a 16-bit training SAE writes its exact state a
second time, as bytes: numbers from 0 to 255, which every dtype holds.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sae_lens_signaware.checks import require

WEIGHTS_FILE = "sae_weights.safetensors"
RESTARTED_STATE = ("l0_control", "n_threshold_resets", "tokens_since_active")
"""State that starts afresh where an inference SAE is trained on."""

TRAINING_STATE = (*RESTARTED_STATE, "topk_threshold")
BYTES = "_bytes"

_declared: set[str] = set()


def declare_training_state(names: Iterable[str]) -> None:
    """Say which more tensors a training SAE has that an inference SAE does not. They start at 0.

    An SAE for inference leaves them out where it has no tensor of that name.
    """
    _declared.update(names)


def names_of_bases(cls: type, attribute: str) -> list[str]:
    """The names that a class and its bases list in an attribute, each once."""
    named = (vars(c).get(attribute, ()) for c in cls.__mro__)
    return list(dict.fromkeys(name for names in named for name in names))


def require_parameters(sae: nn.Module, names: Iterable[str]) -> None:
    """Raise TypeError for a name that no tensor of the SAE has, which a fold would pass over.

    A ``threshold`` may be missing.
    """
    held = dict(sae.named_parameters()) | dict(sae.named_buffers())
    for name in names:
        if name not in held and (name != "threshold" or hasattr(sae, name)):
            raise TypeError(
                f"{type(sae).__name__}._scales_with_pre_activation names {name!r}, "
                f"which is none of its parameters and buffers {', '.join(held)}"
            )


def to_bytes(tensor: Tensor) -> Tensor:
    """The memory of a tensor, (n_bytes,) uint8."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).clone()


def from_bytes(data: Tensor, like: Tensor) -> Tensor:
    """The tensor of :func:`to_bytes`, after any cast of it, of the dtype and shape of ``like``.

    A floating point one may have been written in 32 or in 64 bits.
    """
    written = torch.float32, torch.float64
    dtypes = written if like.dtype.is_floating_point else (like.dtype,)
    of_length = {like.numel() * dtype.itemsize: dtype for dtype in dtypes}
    whole = data.ndim == 1 and len(data) in of_length
    allowed = " or ".join(f"({n_bytes},)" for n_bytes in of_length)
    require(whole, f"shape of exact state in {WEIGHTS_FILE}", tuple(data.shape), allowed)
    plain = data.to(torch.uint8).cpu().contiguous().view(of_length[len(data)])
    return plain.to(like.dtype).reshape(like.shape).to(data.device)


def is_wider(dtype: torch.dtype, than: torch.dtype) -> bool:
    """Whether it is a type of floating point numbers with more bytes."""
    return dtype.is_floating_point and dtype.itemsize > than.itemsize


def add_exact_state(state: dict[str, Tensor], dtype: torch.dtype, more: Iterable[str] = ()) -> None:
    """Add the bytes of what a cast to ``dtype`` would round, in place. A count fits in 32 bits.

    Args:
        more: names of tensors that are to be exact, beside TRAINING_STATE.
    """
    state |= {
        name + BYTES: to_bytes(state[name])
        for name in dict.fromkeys((*TRAINING_STATE, *more))
        if name in state
        and state[name].dtype != dtype
        and (dtype.itemsize < 4 or is_wider(state[name].dtype, dtype))
    }


def drop_training_state(state: dict[str, Tensor], of_training: set[str]) -> None:
    """Remove what only a training SAE has, in place.

    Args:
        of_training: names of such tensors.
    """
    exact = [name + BYTES for name in {*state, *of_training}]
    for name in (*of_training, *exact):
        state.pop(name, None)


def check_state(
    state: dict[str, Tensor],
    expected: dict[str, Tensor],
    for_training: bool,
    own: Iterable[str] = (),
) -> None:
    """Check a file's tensors before torch takes them, so that a wrong file gives one clear line.

    Args:
        state: of the file. Training state is dropped or added, dtypes become those expected.
        expected: ``state_dict()`` of the SAE that loads it.
        for_training: whether that is a training SAE.
        own: names of training state of its own.

    Raises:
        InvalidInputError: a tensor is missing, unknown, of the wrong shape or not finite, or a
            threshold is below 0 in a file that no training SAE wrote.
    """
    declared = _declared - expected.keys()
    of_training = any(name in state for name in (*TRAINING_STATE, *declared))
    if for_training:
        restarted = {*RESTARTED_STATE, *own}
        for name, tensor in expected.items():
            if name + BYTES in state:
                state[name] = from_bytes(state.pop(name + BYTES), tensor)
            elif name not in state and name in restarted:
                # saved for inference, loaded for training: training state starts afresh
                state[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    else:
        # saved by SAELens's save_model from a training SAE. One with a topk_threshold has another
        # architecture, so that its file is refused here
        drop_training_state(state, {*RESTARTED_STATE, *declared})
    missing, unknown = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    require(
        not missing and not unknown,
        WEIGHTS_FILE,
        f"missing {missing}, unknown {unknown}",
        f"a file with exactly {sorted(expected)}",
    )
    for name, tensor in expected.items():
        if not tensor.is_floating_point() and state[name].is_floating_point():
            # a count that SAELens's loader has cast to float16, which ends at 65,504
            state[name] = state[name].clamp(max=torch.finfo(state[name].dtype).max)
        _check_tensor(
            name, state[name], tensor, may_be_inf=name == "threshold" and not for_training
        )
        # SAELens's loader casts all to cfg.dtype, what training keeps in float32 as well
        state[name] = state[name].to(tensor.dtype)
    if "threshold" in expected:
        state["threshold"] = _checked_threshold(state["threshold"], of_training, for_training)


def _check_tensor(name: str, value: Tensor, expected: Tensor, may_be_inf: bool) -> None:
    require(
        value.shape == expected.shape,
        f"shape of {name} in {WEIGHTS_FILE}",
        tuple(value.shape),
        f"{tuple(expected.shape)} by d_in, d_sae and polarity_tying of cfg.json",
    )
    bad = ~torch.isfinite(value)
    if may_be_inf:
        bad &= value != torch.inf  # a gate that never opens: merge's 1e30 in float16
    n_bad = int(bad.sum())
    allowed = f"finite in all of its {value.numel()} values"
    require(n_bad == 0, f"{name} in {WEIGHTS_FILE}", n_bad, allowed, "so many are NaN or inf")


def _checked_threshold(threshold: Tensor, of_training: bool, for_training: bool) -> Tensor:
    require(
        of_training or bool((threshold >= 0).all()),
        f"threshold in {WEIGHTS_FILE}",
        threshold.min().item() if threshold.numel() else None,
        "at least 0 everywhere",
    )
    # An optimiser step after the last clamp leaves some below 0. A resumed training clamps before
    # it steps; for inference it is done here, as save_inference_model does.
    return threshold if for_training else threshold.clamp(min=0.0)
