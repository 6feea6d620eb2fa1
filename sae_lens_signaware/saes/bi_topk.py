"""``bi_topk``: SAELens's ``topk`` by size, signs kept, with a bias for each side; and what
all share that keep the largest latents of a token or of a batch. Ours.

Without its biases it is AbsTopK (arXiv 2510.00404), SAELens's ``abstopk``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from sae_lens import SAE, TopKSAE, TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor, nn
from typing_extensions import override

from sae_lens_signaware.checks import require
from sae_lens_signaware.saes import fast
from sae_lens_signaware.saes.activations import topk, with_size_bias
from sae_lens_signaware.saes.common import (
    Losses,
    Rows,
    SignedSAE,
    SignedTraining,
    StepValues,
    check_sizes,
    check_training,
)
from sae_lens_signaware.saes.split import both_sides, make_plain


class TopKFamily(SignedSAE):
    """The latents of largest size are kept, all others are 0.

        h = x_c @ W_enc + b_enc,    u = n sign(h) relu(|h| + b_mag),    z = u of the largest |u|
        x^ = (z / n) @ W_dec + b_dec

    n are the norms of the decoder rows where SAELens's ``rescale_acts_by_decoder_norm`` is on, else
    1. ``b_mag`` (1, d_sae): b_mag + b_enc and b_mag - b_enc are the biases of the two sides.
    """

    b_enc: nn.Parameter
    b_mag: nn.Parameter

    @property
    def k(self) -> float:
        """Active latents of a token, or their mean number."""
        return self.cfg.k

    def keep(self, u: Tensor) -> Tensor:
        """``u`` of the latents that are kept, 0 of the others."""
        raise NotImplementedError

    @override
    def get_activation_fn(self) -> Callable[[Tensor], Tensor]:
        return self.keep

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.b_mag = self.make_rows(1)

    @override
    def rows(self, dtype: torch.dtype) -> Rows:
        if not self.cfg.rescale_acts_by_decoder_norm:
            return {"b_mag": self.b_mag.to(dtype)}
        norm = self.get_W_dec_norm().to(dtype)[None]  # a constant: in x^ it cancels out
        return {"b_mag": self.b_mag.to(dtype) * norm, "scale": norm}

    @override
    def activate(self, pre: Tensor, rows: Rows) -> Tensor:
        return with_size_bias(pre, rows["b_mag"], self.cfg.two_sided)

    @override
    def encode_with_hidden_pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Signed latents, and pre-activations times n, of (..., d_in), (..., d_sae) each."""
        pre = self.hidden_pre(x)
        rows = self.rows(pre.dtype)
        pre = pre * rows["scale"][0] if "scale" in rows else pre
        return self.hook_sae_acts_post(self.keep(self.activate(pre, rows))), pre

    @override
    def decode(self, feature_acts: Tensor) -> Tensor:
        """(..., d_sae) signed latents -> (..., d_in)."""
        acts = feature_acts.to_dense() if feature_acts.is_sparse else feature_acts
        scale = self.rows(acts.dtype).get("scale")
        return self.finish_decode((acts if scale is None else acts / scale[0]) @ self.W_dec)

    def size_of(self, dtype: torch.dtype) -> Callable[[Tensor, Tensor | slice], Tensor]:
        """(pre-activations, not scaled; which latents) -> sizes |u|, for the fast step."""
        rows = self.rows(dtype)
        b_mag, scale = rows["b_mag"][0], rows.get("scale")

        def size(pre: Tensor, of: Tensor | slice) -> Tensor:
            u = pre.abs() if self.cfg.two_sided else pre
            return torch.relu((u if scale is None else u * scale[0, of]) + b_mag[of])

        return size


@dataclass
class TopKFamilyFields:
    """Fields beyond those of SAELens's ``topk`` family.

    Args:
        two_sided: False keeps the - sides closed: the plain SAE of the same recipe.
        dead_after_tokens: a latent that has not been active for so many tokens counts as dead, for
            k above 64 for 64 / k times as many (docs/log.md); null counts the runner's
            dead_feature_window of steps instead, 1,000 by default.
        k_anneal_steps: number of first steps in which k falls linearly, from half of d_in to its
            value (a field of dictionary_learning's; up to 0.011 of R², studies/equal_width).
    """

    two_sided: bool = True
    dead_after_tokens: int | None = 25_600
    k_anneal_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()  # pyright: ignore[reportAttributeAccessIssue]  # SAELens's
        cfg: Any = self
        check_sizes(cfg)
        check_training(cfg)
        require(0 < cfg.k <= cfg.d_sae, "k", cfg.k, f"above 0 and at most d_sae = {cfg.d_sae}")
        require(cfg.k_anneal_steps >= 0, "k_anneal_steps", cfg.k_anneal_steps, "0 or more")


class TopKFamilyTraining(SignedTraining, TopKFamily):
    """Training that keeps the largest latents; SAELens's ``TopKTrainingSAE`` follows in the MRO."""

    auxk_names = ("aux_loss_coefficient", "auxiliary_reconstruction_loss")
    _k_of_step: float | None = None

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.dead_after_factor = min(1.0, 64 / self.cfg.k)

    @property
    @override
    def k(self) -> float:
        """k of the step that runs, and that of the config outside of one."""
        return self.cfg.k if self._k_of_step is None else self._k_of_step

    @override
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        cfg, step = self.cfg, step_input.n_training_steps
        if step < cfg.k_anneal_steps:
            start = max(min(cfg.d_in // 2, cfg.d_sae), cfg.k)
            self._k_of_step = cfg.k + (start - cfg.k) * (1 - step / cfg.k_anneal_steps)
        try:
            return super().training_forward_pass(step_input)
        finally:
            self._k_of_step = None

    @override
    def losses(self, step: StepValues) -> Losses:
        return {}

    @override
    def ungated(self, pre: Tensor, rows: Rows) -> Tensor:
        return self.activate(pre, rows)

    @override
    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """Fold the decoder norm where it rescales, as SAELens does with the other weights."""
        super().process_state_dict_for_saving_inference(state_dict)
        state_dict["b_mag"] = (self.rows(self.dtype)["b_mag"] * self.scale).detach()


@dataclass
class BiTopKSAEConfig(TopKSAEConfig):
    """Configuration of the inference SAE: the fields of SAELens's topk, and ``two_sided``."""

    two_sided: bool = True

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self)

    @override
    @classmethod
    def architecture(cls) -> str:
        return "bi_topk"


class _BiTopK(TopKFamily):
    """What both SAEs share; b_mag <= 0, so that one side of a latent alone is above 0."""

    @override
    def keep(self, u: Tensor) -> Tensor:
        return topk(u, int(self.k))

    @override
    def rows(self, dtype: torch.dtype) -> Rows:
        rows = super().rows(dtype)
        return rows | {"b_mag": torch.where(rows["b_mag"] > 0, 0.0, rows["b_mag"])}

    @override
    def to_plain(self) -> SAE[Any]:
        n_sides = 2 if self.cfg.two_sided else 1
        b_enc = torch.stack([self.b_enc, -self.b_enc]) + self.b_mag.clamp(max=0.0)
        parameters = {"b_enc": both_sides(b_enc, n_sides)}
        fields = {n: getattr(self.cfg, n) for n in ("k", "rescale_acts_by_decoder_norm")}
        return make_plain(self, TopKSAE, TopKSAEConfig, parameters, n_sides, fields)


class BiTopKSAE(_BiTopK, TopKSAE):
    """Inference SAE. ``encode`` gives signed latents, at most ``k`` of a token."""


@dataclass
class BiTopKTrainingSAEConfig(TopKFamilyFields, TopKTrainingSAEConfig):
    """Configuration of the training SAE: SAELens's topk, and :class:`TopKFamilyFields`."""

    @override
    @classmethod
    def architecture(cls) -> str:
        return "bi_topk"

    @override
    def get_inference_config_class(self) -> type[BiTopKSAEConfig]:
        return BiTopKSAEConfig


@fast.may_be_fast
class BiTopKTrainingSAE(TopKFamilyTraining, _BiTopK, TopKTrainingSAE):
    """Training SAE that keeps the k latents of each token that are largest in size."""

    @override
    def before_step(self, step_input: TrainStepInput) -> TrainStepInput:
        self.b_mag.data.clamp_(max=0.0)
        return super().before_step(step_input)

    @override
    def find_active(self, x_c: Tensor) -> fast.Active | None:
        size, k = self.size_of(x_c.dtype), int(self.k)
        return fast.topk(x_c, self.W_enc, self.b_enc.to(x_c.dtype), size, k)
