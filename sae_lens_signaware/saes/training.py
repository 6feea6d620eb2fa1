"""Training of every signed SAE: steps over active latents, AuxK, what is logged and saved.

What concerns a sparsity loss is in :mod:`sae_lens_signaware.saes.sparsity_loss`, what concerns
thresholds that are parameters in :mod:`sae_lens_signaware.saes.thresholds`, and the stop at a NaN
in :mod:`sae_lens_signaware.saes.finite_losses`.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from sae_lens import TrainingSAE
from sae_lens.saes.sae import TrainCoefficientConfig, TrainStepInput, TrainStepOutput
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.saes.auxk import auxk_loss, dead_columns
from sae_lens_signaware.saes.base import SignedSAEMixin
from sae_lens_signaware.saes.finite_losses import FiniteLossMixin
from sae_lens_signaware.saes.kernels import pre_activation
from sae_lens_signaware.saes.latents import AllLatents, Latents
from sae_lens_signaware.saes.metrics import parameter_histograms, side_metrics
from sae_lens_signaware.saes.state import (
    TRAINING_STATE,
    add_exact_state,
    drop_training_state,
    names_of_bases,
)
from sae_lens_signaware.saes.transforms import is_hooked

_Host = TrainingSAE[Any] if TYPE_CHECKING else object

Losses = dict[str, Tensor]
"""Name in the logs -> loss, a mean over tokens."""


class Reconstruction(NamedTuple):
    """What a step has reconstructed: input, output, and the latents that the output is of."""

    sae_in: Tensor
    sae_out: Tensor
    z: Tensor
    latents: Latents


# Sizes here depend on the data. Under torch.compile this runs as it is, and only the dense path
# is compiled.
@torch.compiler.disable
def _active_forward_pass(
    sae: "SignedTrainingMixin", step_input: TrainStepInput
) -> TrainStepOutput | None:
    """SAELens's training_forward_pass over active latents; None where they are too many."""
    sae_in = step_input.sae_in
    if (
        sae._redefined_now()
        or sae_in.requires_grad
        or is_hooked(sae.hook_sae_input)
        or sae._needs_all_latents(step_input)
    ):
        return None
    x_c = sae.process_sae_in(sae_in)
    active = sae._active_of(x_c, sae._active_margin()) if x_c.ndim == 2 else None
    if active is None:
        return None
    latents, values = active
    biases = sae._encoder_bias, sae._subtracted_bias
    pre = sae._scaled(pre_activation(values, x_c.detach(), sae.W_enc, *biases, latents), latents)
    z = sae._activate(pre, latents)
    sae_out = sae._finish_decode(latents.decode(sae._unscaled(z, latents), sae.W_dec))
    fires = z != 0
    return sae._output_of(
        step_input,
        Reconstruction(sae_in, sae_out, z, latents),
        sae._losses(step_input, pre, z, latents),
        lambda columns: sae._pre_of(x_c, columns),
        latents.where(fires).to_coo(z.detach()[fires]),
        latents.to_coo(pre.detach()),
    )


class SignedTrainingMixin(FiniteLossMixin, SignedSAEMixin, _Host):
    """Mixed into SAELens's ``TrainingSAE``, before it in the MRO.

    An architecture writes :meth:`_losses` where it has any.
    """

    _kept_in_own_dtype: tuple[str, ...] = ()
    """Parameters and buffers that keep their dtype whatever the SAE's is, in files too.

    Each class names its own, and those of its bases count as well.
    """

    _auxk_names = ("auxk_coefficient", "auxk_loss")
    """AuxK's coefficient in the config, and its loss in the logs."""

    def _aux_k(self) -> int | None:
        """Dead latents of a token that AuxK teaches; None for half of d_in."""
        return None

    def get_coefficients(self) -> dict[str, float | TrainCoefficientConfig]:
        """Those of an architecture's own class; without a sparsity loss there need be none."""
        # SAELens's is abstract, and its body gives None
        return super().get_coefficients() or {}  # pyright: ignore[reportAbstractUsage]

    def _losses(
        self, step_input: TrainStepInput, pre: Tensor, z: Tensor, latents: Latents
    ) -> Losses:
        """The losses beside the reconstruction's and AuxK.

        Args:
            pre, z: pre-activations and latents, values of ``latents``.
        """
        del step_input, pre, z, latents
        return {}

    def _ungated(self, pre: Tensor, latents: Latents) -> Tensor:
        """Magnitudes, signed, with every gate open; the shape of ``pre``, values of ``latents``."""
        del latents
        return pre

    def _needs_all_latents(self, step_input: TrainStepInput) -> bool:
        """Whether a loss of this step is about inactive latents."""
        del step_input
        return False

    def encode(self, x: Tensor) -> Tensor:
        """As in :class:`SignedSAEMixin`, or of a subclass's own ``encode_with_hidden_pre``."""
        if "encode_with_hidden_pre" in self._redefined_now():
            return self.encode_with_hidden_pre(x)[0]
        return super().encode(x)

    def encode_with_hidden_pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Signed latents and pre-activations, (batch, d_sae) each, from one encoder product."""
        return self._encode_all(x, self.process_sae_in(x))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        # nn.Module.to() casts every float tensor, and SAELens's load paths call it with cfg.dtype.
        # bfloat16 would round Adam's steps of a threshold away (SAELens keeps those of jumprelu in
        # float32 as well). Overriding torch's _apply is how SAELens does it.
        kept = {
            name: tensor.data
            for name in names_of_bases(type(self), "_kept_in_own_dtype")
            if (tensor := getattr(self, name, None)) is not None
        }
        module = super()._apply(fn, recurse)
        for name, before in kept.items():
            now = getattr(self, name)
            if now.dtype != before.dtype:
                now.data = before.to(now.device)
        return module

    def _start_step(self, step_input: TrainStepInput) -> TrainStepInput:
        """What happens before a step; gives the input that the step takes."""
        return step_input

    def _dense_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """A step over all latents, SAELens's."""
        return super().training_forward_pass(step_input)

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """SAELens's training step, over the active latents alone where that is faster.

        With ``eval()`` it is a validation: what a step counts, steers and decays stays as it is.

        Raises:
            RuntimeError: the loss is not finite. On a CPU the optimiser then takes no step. On
                other devices, where asking would wait, it is raised within 100 steps or at the next
                logging step, and no such weights are saved.
        """
        with torch.no_grad():
            step_input = self._start_step(step_input)
        output: TrainStepOutput | None = None
        if self.cfg.use_sparse_activations and step_input.sae_in.device.type == "cpu":
            # torch types what its decorator gives as the decorator itself
            output = _active_forward_pass(self, step_input)  # pyright: ignore[reportCallIssue]
        if output is None:
            output = self._dense_forward_pass(step_input)
        with torch.no_grad():
            self._end_step(step_input, output)
        return output

    def calculate_aux_loss(
        self, step_input: TrainStepInput, feature_acts: Tensor, hidden_pre: Tensor, sae_out: Tensor
    ) -> Losses:
        """The architecture's losses and AuxK (docs/architectures.md), over all latents."""
        latents = AllLatents.of(hidden_pre)
        losses = self._losses(step_input, hidden_pre, feature_acts, latents)
        self._require_own_names(losses)
        recons = Reconstruction(step_input.sae_in, sae_out, feature_acts, latents)
        return losses | self._auxk_losses(step_input, recons, lambda of: hidden_pre[..., of])

    def _require_own_names(self, losses: Losses) -> None:
        """Raise InvalidInputError where an architecture's loss would take another's place."""
        for name in ("mse_loss", self._auxk_names[1]):
            require(name not in losses, "_losses", name, "names of the architecture's own")

    def _normalised_out(self, sae_in: Tensor, tensor: Tensor) -> Tensor:
        """``tensor`` from the decoder's space to that of ``sae_in``, by SAELens's normalisation."""
        # decode has consumed the statistics that are kept between input and output
        self.run_time_activation_norm_fn_in(self.reshape_fn_in(sae_in.to(self.dtype)))
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(tensor), self.d_head)

    def _scaled_out(self, sae_in: Tensor, product: Tensor) -> Tensor:
        """A difference of two activations from the decoder's space to that of ``sae_in``.

        A run-time normalisation scales it back and does not shift it; SAELens's does both.
        """
        shift = self._normalised_out(sae_in, torch.zeros_like(product))
        return self._normalised_out(sae_in, product) - shift

    def _output_of(
        self,
        step_input: TrainStepInput,
        recons: Reconstruction,
        own_losses: Losses,
        pre_of: Callable[[Tensor | slice], Tensor],
        feature_acts: Tensor,
        hidden_pre: Tensor,
    ) -> TrainStepOutput:
        """SAELens's output of a step that is not SAELens's own.

        Args:
            own_losses: of the architecture, beside the reconstruction's and AuxK.
            pre_of: as in :meth:`_auxk_losses`.
        """
        sae_in, sae_out = recons.sae_in, recons.sae_out
        self._require_own_names(own_losses)
        losses = {"mse_loss": self._reconstruction_loss(sae_out, sae_in)}
        losses |= own_losses | self._auxk_losses(step_input, recons, pre_of)
        return TrainStepOutput(
            sae_in=sae_in,
            sae_out=sae_out,
            feature_acts=feature_acts,
            hidden_pre=hidden_pre,
            loss=torch.stack(list(losses.values())).sum(),
            losses=losses,
        )

    def _reconstruction_loss(self, recons: Tensor, sae_in: Tensor) -> Tensor:
        """() mean over tokens of ||x - x^||^2, as a dense step of SAELens's computes it."""
        return self.mse_loss_fn(recons, sae_in).sum(dim=-1).mean()

    def _auxk_losses(
        self,
        step_input: TrainStepInput,
        recons: Reconstruction,
        pre_of: Callable[[Tensor | slice], Tensor],
    ) -> Losses:
        """The AuxK loss by its name in the logs; nothing where it is off.

        Args:
            pre_of: some latents -> their pre-activations, (n_tokens, n).
        """
        coefficient_name, name = self._auxk_names
        coefficient, dead = getattr(self.cfg, coefficient_name), step_input.dead_neuron_mask
        if coefficient == 0 or dead is None:
            return {}
        terms = [
            self._auxk_term(recons.sae_in, sae_out, dead, columns, pre_of)
            for sae_out, columns in self._auxk_parts(recons, dead)
        ]
        return {name: coefficient * sum(terms, start=recons.sae_out.new_zeros(()))}

    def _auxk_parts(
        self, recons: Reconstruction, dead: Tensor
    ) -> Iterable[tuple[Tensor, Tensor | slice]]:
        """Reconstructions, and the latents that learn to reconstruct the error of each."""
        return [(recons.sae_out, dead_columns(dead))]

    def _auxk_term(
        self,
        sae_in: Tensor,
        sae_out: Tensor,
        dead: Tensor,
        columns: Tensor | slice,
        pre_of: Callable[[Tensor | slice], Tensor],
    ) -> Tensor:
        if isinstance(columns, Tensor) and not len(columns):
            return sae_out.new_zeros(())
        pre, W_dec, scale = pre_of(columns), self.W_dec[columns], self._latent_scale()
        return auxk_loss(
            self._ungated(pre, AllLatents.of(pre, columns)),
            W_dec if scale is None else W_dec / scale[columns, None],
            (sae_in - sae_out).detach(),
            dead[columns],
            lambda product: self._scaled_out(sae_in, product),
            self._aux_k(),
        )

    def _pre_of(self, x_c: Tensor, columns: Tensor | slice) -> Tensor:
        """Pre-activations of the latents ``columns`` alone, (n_tokens, n)."""
        W_enc, b_enc, b_dec = self.W_enc[:, columns], self._encoder_bias, self._subtracted_bias
        pre = x_c.detach() @ W_enc
        if b_dec is not None:
            # adds 0: the gradient of b_dec, without one for each row of x_c
            pre = pre + (b_dec.detach() - b_dec) @ W_enc.detach()
        pre = pre if b_enc is None else pre + b_enc[columns]
        return self._scaled(pre, AllLatents.of(pre, columns))

    def _end_step(self, step_input: TrainStepInput, output: TrainStepOutput) -> None:
        """What happens after a forward pass: the NaN stop and the metrics.

        SAELens computes gradients after it, so no parameter may change here.
        """
        self._note_loss(step_input, output.loss)
        if step_input.is_logging_step:
            output.metrics.update(self._metrics(step_input, output.feature_acts))

    def _metrics(self, step_input: TrainStepInput, acts: Tensor) -> dict[str, Any]:
        """What a logging step logs beside the losses; ``acts`` (batch, d_sae), dense or sparse."""
        del step_input
        return side_metrics(acts.to_dense() if acts.is_sparse else acts)

    def log_histograms(self) -> dict[str, Any]:
        """SAELens's, and those of the architecture's own parameters."""
        return super().log_histograms() | parameter_histograms(self)

    def process_state_dict_for_saving(self, state_dict: dict[str, Any]) -> None:
        """Add exact training state where the dtype would round it; refuse a failed run's."""
        self.require_finite_losses()
        super().process_state_dict_for_saving(state_dict)
        kept = names_of_bases(type(self), "_kept_in_own_dtype")
        add_exact_state(state_dict, self.dtype, [*kept, *self._training_state])

    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """Drop what only training needs."""
        super().process_state_dict_for_saving_inference(state_dict)
        drop_training_state(state_dict, {*TRAINING_STATE, *self._training_state})
