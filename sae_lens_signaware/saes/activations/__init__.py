"""Every activation formula of the package, as pure functions. Nothing else defines one.

Shapes: ``pi`` and ``hidden_pre`` are (..., d_sae) pre-activations. ``threshold``, ``r_mag`` and
``b_mag`` are (P, d_sae): P = 1 where both sides of a latent share one row, P = 2 where row 0
belongs to the + side and row 1 to the - side. Two rules serve both cases: the + side reads
``row 0``, the - side ``row -1``; and since thresholds are >= 0, the gate of at most one side of a
latent is open, so one evaluation at ``|pi|`` with the row that the sign selects computes both.

Values may be of all latents, (..., d_sae) with parameters (P, d_sae), or of the active ones alone,
(n_active,) with parameters (P, n_active): see :mod:`sae_lens_signaware.saes.latents`.
"""

from sae_lens_signaware.saes.activations.gate import log_sum, signed_gate, soft_threshold
from sae_lens_signaware.saes.activations.jump import (
    bi_jump_relu_ste,
    bi_jump_step,
    bi_step_ste,
    nearest_threshold_gap,
    rectangle,
)
from sae_lens_signaware.saes.activations.sides import active_mask, select_side, shifted
from sae_lens_signaware.saes.activations.topk import bi_batch_topk, bi_topk, largest_of_tokens

__all__ = [
    "active_mask",
    "bi_batch_topk",
    "bi_jump_relu_ste",
    "bi_jump_step",
    "bi_step_ste",
    "bi_topk",
    "largest_of_tokens",
    "log_sum",
    "nearest_threshold_gap",
    "rectangle",
    "select_side",
    "shifted",
    "signed_gate",
    "soft_threshold",
]
