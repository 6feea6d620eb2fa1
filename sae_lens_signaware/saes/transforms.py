"""What stands in the way of formulas of ours: a transform of torch, or a hook that listens."""

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from transformer_lens.hook_points import HookPoint


def is_transformed(*tensors: Tensor) -> bool:
    """Whether torch.func (vmap, grad, jvp, ...) or forward-mode AD differentiates or batches these.

    What is in their way then takes plain operations instead, which torch transforms by itself.
    """
    if torch.compiler.is_compiling():
        return False
    # torch.autograd.Function asks itself the same; torch has no public name for it
    if torch._C._are_functorch_transforms_active():
        return True
    return any(unpack_dual(t).tangent is not None for t in tensors)


def is_switched_off(hook_point: nn.Module) -> bool:
    """Whether SAELens has put its Identity in the place of a hook point, as for its error term."""
    return not isinstance(hook_point, HookPoint)


def is_hooked(hook_point: nn.Module) -> bool:
    """Whether something listens at a hook point. A switched-off one is SAELens's Identity."""
    # transformer-lens 2 has no has_hooks(), and torch has no public name for its own hooks
    listeners = [
        hook_point._forward_hooks,
        hook_point._forward_pre_hooks,
        hook_point._backward_hooks,
        hook_point._backward_pre_hooks,
    ]
    if isinstance(hook_point, HookPoint):
        listeners += [hook_point.fwd_hooks, hook_point.bwd_hooks]
    return any(map(bool, listeners))
