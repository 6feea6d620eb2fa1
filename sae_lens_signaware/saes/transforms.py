"""Whether a transform of torch is at work that our autograd Functions cannot follow."""

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual


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
