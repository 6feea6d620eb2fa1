"""``bi_matryoshka_batchtopk``: SAELens's ``matryoshka_batchtopk`` (arXiv 2503.17547) by size. Ours.

It is saved as ``bi_jumprelu``.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from sae_lens import MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig
from torch import Tensor
from typing_extensions import override

from sae_lens_signaware.checks import require
from sae_lens_signaware.saes import fast
from sae_lens_signaware.saes.bi_batchtopk import (
    BiBatchTopKTrainingSAE,
    BiBatchTopKTrainingSAEConfig,
)
from sae_lens_signaware.saes.common import Losses, StepValues


@dataclass
class BiMatryoshkaBatchTopKTrainingSAEConfig(
    BiBatchTopKTrainingSAEConfig, MatryoshkaBatchTopKTrainingSAEConfig
):
    """Configuration: that of ``bi_batchtopk``, and SAELens's two fields.

    Args:
        matryoshka_widths: ascending widths; the first w latents of each learn to reconstruct the
            input alone. Where the last is not d_sae, SAELens adds d_sae.
        use_matryoshka_aux_loss: whether dead latents learn to reconstruct the error of the
            reconstruction that their own width ends, instead of that of all.
    """

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        widths, allowed = self.matryoshka_widths, f"ascending, from 1 to d_sae = {self.d_sae}"
        ascends = all(a < b for a, b in pairwise([0, *widths]))
        require(ascends and widths[-1:] <= [self.d_sae], "matryoshka_widths", widths, allowed)

    @override
    @classmethod
    def architecture(cls) -> str:
        return "bi_matryoshka_batchtopk"


@fast.may_be_fast
class BiMatryoshkaBatchTopKTrainingSAE(BiBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAE):
    """Training SAE of nested widths: sum over widths w of ||x - x^_w||^2, and AuxK.

    x^_w is the reconstruction by the first w latents; the last is that of all.
    """

    def _groups(self) -> list[slice]:
        return [slice(*bounds) for bounds in pairwise([0, *self.cfg.matryoshka_widths])]

    def _inner(self, step: StepValues) -> list[Tensor]:
        # x^_w of every width but the last, (n_tokens, d_in) each
        scale, sae_in = step.rows.get("scale"), step.inputs.sae_in
        z = step.z if scale is None else step.z / scale
        products = (step.decode(z, self.W_dec, group) for group in self._groups()[:-1])
        return [self.in_input_space(sae_in, p + self.b_dec) for p in accumulate(products)]

    @override
    def losses(self, step: StepValues) -> Losses:
        widths, sae_in = self.cfg.matryoshka_widths, step.inputs.sae_in
        return {
            f"inner_mse_loss_{width}": self.mse_loss_fn(recons, sae_in).sum(-1).mean()
            for width, recons in zip(widths, self._inner(step), strict=False)
        }

    @override
    def auxk(self, step: StepValues, sae_out: Tensor, dead: Tensor) -> Tensor:
        if not self.cfg.use_matryoshka_aux_loss:
            return super().auxk(step, sae_out, dead)
        with torch.no_grad():
            outputs = [*self._inner(step), sae_out]
        total = sae_out.new_zeros(())
        for group, output in zip(self._groups(), outputs, strict=True):
            inside = torch.zeros_like(dead)
            inside[group] = dead[group]
            total = total + super().auxk(step, output, inside)
        return total
