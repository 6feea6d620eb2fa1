"""``bi_batchtopk``: SAELens's ``batchtopk`` (arXiv 2412.06410) by size, signs kept. Ours.

It is saved as ``bi_jumprelu``, as SAELens saves its ``batchtopk`` as ``jumprelu``.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, SAEConfig
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor
from typing_extensions import override

from sae_lens_signaware.saes import fast
from sae_lens_signaware.saes.activations import batch_topk
from sae_lens_signaware.saes.bi_jumprelu import BiJumpReLUSAEConfig
from sae_lens_signaware.saes.bi_topk import TopKFamilyFields, TopKFamilyTraining


@dataclass
class BiBatchTopKTrainingSAEConfig(TopKFamilyFields, BatchTopKTrainingSAEConfig):
    """Configuration: SAELens's batchtopk, and :class:`~.bi_topk.TopKFamilyFields`.

    Args:
        k: mean number of active latents per token. A batch of n tokens has int(k * n) of them.
        topk_threshold_lr: pace at which the running threshold follows the smallest size that a
            batch keeps; it becomes the threshold of the saved ``bi_jumprelu``.
    """

    polarity_tying: ClassVar[str] = "full"  # a field of the saved config, and none here

    @override
    @classmethod
    def architecture(cls) -> str:
        return "bi_batchtopk"

    @override
    def get_inference_config_class(self) -> type[SAEConfig]:
        return BiJumpReLUSAEConfig


@fast.may_be_fast
class BiBatchTopKTrainingSAE(TopKFamilyTraining, BatchTopKTrainingSAE):
    """Training SAE that keeps the k * n latents of n tokens that are largest in size."""

    in_units_of_input = ("b_dec", "b_enc", "b_mag", "topk_threshold")

    @override
    def keep(self, u: Tensor) -> Tensor:
        return batch_topk(u, int(self.k * u.shape[:-1].numel()))

    @override
    def find_active(self, x_c: Tensor) -> fast.Active | None:
        size, k = self.size_of(x_c.dtype), int(self.k * len(x_c))
        return fast.batch_topk(x_c, self.W_enc, self.b_enc.to(x_c.dtype), size, k)

    @override
    def after_step(self, step_input: TrainStepInput, output: TrainStepOutput) -> None:
        super().after_step(step_input, output)
        acts = output.feature_acts
        if self.training:  # SAELens's update reads what is above 0
            self.update_topk_threshold((acts.values() if acts.is_sparse else acts).detach().abs())
        output.metrics["topk_threshold"] = self.topk_threshold

    @override
    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """The thresholds of h: the running one, of |z|, less b_mag."""
        super().process_state_dict_for_saving_inference(state_dict)
        threshold = torch.relu(state_dict["threshold"] - state_dict["b_mag"])
        state_dict["threshold"] = threshold.to(self.dtype)
