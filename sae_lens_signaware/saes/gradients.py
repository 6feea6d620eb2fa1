"""What the gradients that are written out as formulas of our own have in common."""

import functools
from collections.abc import Callable
from typing import Any

import torch

NO_SECOND_DERIVATIVE = (
    "the gradients of this step are formulas of their own, which cannot be differentiated again; "
    "leave create_graph=True out"
)


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the backward of an autograd Function that cannot be differentiated again.

    torch's ``once_differentiable`` raises where the second derivative arrives, and not at all where
    ``torch.autograd.grad`` asks for one of other inputs: those terms would be missing in silence.
    This raises when the graph of a second derivative is asked for.

    Raises:
        RuntimeError: of the decorated function, under ``create_graph=True``.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *grad_outputs: Any) -> Any:
        if torch.is_grad_enabled():  # within a backward: whether create_graph is on
            raise RuntimeError(NO_SECOND_DERIVATIVE)
        return backward(ctx, *grad_outputs)

    return checked
