"""A stand-in for a device without float64, as Apple's MPS is, on a machine that has none.

Within ``MPSDevice()`` tensors live in the memory of the CPU, but some are marked as on the device:
those that ``place`` was given, and what is computed of them or is asked for on ``DEVICE``. As on
MPS, a marked tensor of float64 is a TypeError, and an operation on tensors of both places is a
RuntimeError.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("mps")
CPU = torch.device("cpu")


def place(*tensors: Tensor) -> None:
    """Mark tensors as on the device."""
    for tensor in tensors:
        tensor.on_device = True  # type: ignore[attr-defined]


def is_on_device(value: object) -> bool:
    return isinstance(value, Tensor) and getattr(value, "on_device", False)


class MPSDevice(TorchFunctionMode):
    """Follows the mark through every operation; see above."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        given = [v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
        if func == torch.Tensor.device.__get__:
            return DEVICE if is_on_device(given[0]) else CPU
        asked = [v for v in tree_leaves((args, kwargs)) if v in ("cpu", "mps", CPU, DEVICE)]
        moves = bool(asked) or func is torch.Tensor.cpu
        marked = any(is_on_device(v) for v in given)
        if marked and not moves:
            # a scalar may come from anywhere
            stray = [v for v in given if v.ndim and not is_on_device(v)]
            if stray:
                raise RuntimeError(f"{func}: tensors on {DEVICE} and on {CPU}")
        lands = torch.device(asked[0]) == DEVICE if asked else marked and not moves
        args, kwargs = tree_map(lambda v: "cpu" if v == DEVICE or v == "mps" else v, (args, kwargs))
        out = func(*args, **kwargs)
        if moves and any(out is v for v in given):
            out = out.view_as(out)  # another object, since the place is marked on the object
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and lands:
                if tensor.dtype == torch.float64:
                    raise TypeError(f"{func}: MPS has no float64")
                place(tensor)
        return out
