"""The controller of ``target_l0``: it steers the sparsity coefficient until L0 settles. Ours."""

import math

import torch
from torch import Tensor

RATE = 0.02
"""Pace: L0 settles in about 1 / RATE steps."""

EMA_DECAY = 0.9
"""Decay a step of the running L0 that the controller reads."""

MAX_LOG_MULTIPLIER = math.log(100.0)
"""Thresholds move by at most the learning rate a step. Where L0 is slow for that reason, more
pressure only crowds the reconstruction out of the clipped gradient (measured on SmolLM2-135M)."""

MIN_LOG_MULTIPLIER = math.log(1e-4)
"""The residual stream of Gemma 3 270M takes about 1/1,000 at L0 128 (measured)."""


def update_l0_control(
    control: Tensor, batch_l0: Tensor, target_l0: float, warms_up: bool
) -> Tensor:
    """One step of an integral controller with damping, of the log of the coefficient.

        l0 <- EMA_DECAY * l0 + (1 - EMA_DECAY) * batch_l0,    e = log(l0 / target_l0)
        log_multiplier <- log_multiplier + RATE * clip(e, -1, 1) + (e - e_before)

    The damping e - e_before lets the coefficient rest while L0 closes its gap at that pace; a bare
    integral overshoots and kills latents. While the schedule of the coefficient warms up, L0 is
    high for another reason: only an L0 below the target counts, and without the damping.

    Args:
        control: (2,) float32, [log_multiplier, running L0]; the latter is 0 before the first step.
        batch_l0: () mean number of active latents a token.

    Returns:
        The new (2,) control. The coefficient in force is exp(log_multiplier) times the scheduled
        one. Nothing waits for the device.
    """
    log_multiplier, before = control[0], control[1]
    before = torch.where(before > 0, before, batch_l0)
    l0 = EMA_DECAY * before + (1 - EMA_DECAY) * batch_l0
    # at L0 = 0 the pull back is strong but finite
    error, error_before = (torch.log(v.clamp(min=1e-2) / target_l0) for v in (l0, before))
    if warms_up:
        change = RATE * error.clamp(-1.0, 0.0)
    else:
        change = RATE * error.clamp(-1.0, 1.0) + (error - error_before)
    log_multiplier = (log_multiplier + change).clamp(MIN_LOG_MULTIPLIER, MAX_LOG_MULTIPLIER)
    return torch.stack([log_multiplier, l0])
