"""The controller of ``target_l0``: it steers the sparsity coefficient until L0 settles (ours)."""

import math

import torch
from torch import Tensor

L0_EMA_DECAY = 0.9
"""Per-step decay of the running L0 that the controller reads: about 10 steps of memory (ours)."""

MAX_LOG_ERROR = 1.0
"""The controller reads log(L0 / target) within +-1: right after warm-up L0 can be 30 times the
target, and a faster climb overshoots and kills latents (ours, measured on SmolLM2-135M)."""

MAX_LOG_MULTIPLIER = math.log(100.0)
"""The controller's multiplier is at most 100. Thresholds move by at most the learning rate a step.
Where L0 follows slowly for that reason, more pressure does not make it faster: it only crowds the
reconstruction out of the clipped gradient, and takes long to unwind (ours, measured)."""

MIN_LOG_MULTIPLIER = math.log(1e-4)
"""The controller's multiplier is at least 1/10,000. Where a few directions hold most of the norm,
as in the residual stream of Gemma 3 270M, an L0 of 128 takes about 1/1,000 (ours, measured)."""


def update_l0_control(
    control: Tensor, batch_l0: Tensor, target_l0: float, rate: float, warms_up: bool
) -> Tensor:
    """One step of the controller of log(sparsity coefficient), an integral one with damping (ours).

        l0_ema <- decay * l0_ema + (1 - decay) * batch_l0
        e = log(l0_ema / target_l0), before and after
        log_multiplier <- log_multiplier + rate * clip(e, -1, 1) + (e - e_before)
        log_multiplier <- log_multiplier + rate * clip(e, -1, 0), while the schedule warms up

    The term e - e_before is the damping: while log L0 closes its gap at the pace of ``rate`` per
    step the coefficient rests, where a bare integral would go on, overshoot and kill latents.
    1 / rate is about the number of steps in which L0 settles.

    The coefficient in force is exp(log_multiplier) times the scheduled one. While the schedule
    still warms up, L0 is high for a reason that is not the coefficient's. An L0 below the target
    says that the coefficient is too strong already, so it falls. Without that, latents die before
    the schedule has warmed up.

    Args:
        control: (2,) float32, [log_multiplier, l0_ema]; l0_ema is 0 before the first step.
        batch_l0: () mean number of active latents per token.
        warms_up: whether the schedule of the coefficient still warms up.

    Returns:
        The new (2,) control. No device synchronisation.
    """
    log_multiplier, before = control[0], control[1]
    before = torch.where(before > 0, before, batch_l0)
    l0_ema = L0_EMA_DECAY * before + (1 - L0_EMA_DECAY) * batch_l0
    # at L0 = 0 (of at least 1e-2 latents) the pull back is strong but finite
    error, error_before = (
        torch.log(value.clamp(min=1e-2) / target_l0) for value in (l0_ema, before)
    )
    if warms_up:
        change = rate * error.clamp(-MAX_LOG_ERROR, 0.0)
    else:
        change = rate * error.clamp(-MAX_LOG_ERROR, MAX_LOG_ERROR) + (error - error_before)
    log_multiplier = (log_multiplier + change).clamp(MIN_LOG_MULTIPLIER, MAX_LOG_MULTIPLIER)
    return torch.stack([log_multiplier, l0_ema])
