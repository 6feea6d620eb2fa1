"""What both trainings share: thresholds kept >= 0 and in float32, dead-latent resets, target L0, NaN stop."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor, nn

from sae_lens_signaware.checks import require
from sae_lens_signaware.saes.auxk import auxk_loss, dead_columns
from sae_lens_signaware.saes.base import TRAINING_STATE_KEYS, SignedSAEMixin, is_hooked
from sae_lens_signaware.saes.l0_control import update_l0_control
from sae_lens_signaware.saes.sparse import OpenLatents, decode_open, pre_activation

NON_FINITE_MESSAGE = (
    "the training loss is not finite: this batch, or a weight, holds NaN or inf. Training stopped "
    "at this step, before the weights were touched; checkpoints written earlier are intact"
)


def validate_training_config(cfg: Any) -> None:
    """Checks of the training fields that both architectures share. Raises ValueError, one line."""
    interval = cfg.threshold_reset_interval
    require(interval >= 1, "threshold_reset_interval", interval, "an integer >= 1")
    if cfg.target_l0 is not None:
        require(
            0 < cfg.target_l0 <= cfg.d_sae,
            "target_l0",
            cfg.target_l0,
            f"null or a number above 0 and at most d_sae = {cfg.d_sae}",
        )
    require(cfg.target_l0_rate > 0, "target_l0_rate", cfg.target_l0_rate, "a number above 0")
    require(cfg.auxk_coefficient >= 0, "auxk_coefficient", cfg.auxk_coefficient, "a number >= 0")


def _n_open(feature_acts: Tensor) -> Tensor:
    if feature_acts.is_sparse:
        return torch.tensor(float(feature_acts.values().numel()))
    return (feature_acts != 0).sum()


def side_metrics(feature_acts: Tensor, bipolar_min_share: float = 0.1) -> dict[str, Tensor]:
    """L0 of each side, and the share of bipolar latents among those that fire in this batch.

    *Bipolar*: the rarer side makes up at least ``bipolar_min_share`` of a latent's firings. Over
    one batch this is noisy for rare latents; the census over many tokens is the measure to cite.

    Args:
        feature_acts: (batch, d_sae), signed.
    """
    n_plus = (feature_acts > 0).sum(0)
    n_minus = (feature_acts < 0).sum(0)
    n_fired = n_plus + n_minus
    alive = n_fired > 0
    bipolar = alive & (torch.minimum(n_plus, n_minus) >= bipolar_min_share * n_fired)
    batch = feature_acts.shape[0]
    return {
        "l0_plus": n_plus.sum() / batch,
        "l0_minus": n_minus.sum() / batch,
        "bipolar_share_of_batch": bipolar.sum() / alive.sum().clamp(min=1),
    }


# Sizes here depend on the data. Under torch.compile this runs as it is, and only the dense path
# is compiled.
@torch.compiler.disable
def _sparse_forward_pass(sae: Any, step_input: TrainStepInput) -> TrainStepOutput | None:
    """SAELens's training_forward_pass from the open latents alone; None where they are too many."""
    sae_in = step_input.sae_in
    if sae_in.requires_grad or is_hooked(sae.hook_sae_input):
        return None
    x_c = sae.process_sae_in(sae_in)
    if x_c.ndim != 2:
        return None
    found = sae._open_step(step_input, x_c)
    if found is None:
        return None
    opened, hidden_pre, z, aux_losses = found
    # an auxiliary loss has consumed the statistics of SAELens's run-time normalisation
    sae.run_time_activation_norm_fn_in(sae_in.to(sae.dtype))
    sae_out = sae._finish_decode(decode_open(z, sae.W_dec, opened))
    losses = {"mse_loss": sae.mse_loss_fn(sae_out, sae_in).sum(dim=-1).mean(), **aux_losses}
    losses |= sae._auxk_losses(step_input, sae_out, lambda columns: sae._pre_of(x_c, columns))
    fires = z != 0
    output = TrainStepOutput(
        sae_in=sae_in,
        sae_out=sae_out,
        feature_acts=opened.where(fires).to_coo(z.detach()[fires]),
        hidden_pre=opened.to_coo(hidden_pre.detach()),
        loss=torch.stack(list(losses.values())).sum(),
        losses=losses,
    )
    sae._end_step(step_input, output)
    return output


class SignedTrainingMixin(SignedSAEMixin):
    """Mixed into SAELens's ``TrainingSAE`` by both architectures, before it in the MRO.

    Adds two buffers that checkpoints carry and inference SAEs do not: ``l0_control`` (2,) float32,
    [log multiplier on the sparsity coefficient, running L0], and ``n_threshold_resets`` () int64.
    """

    if TYPE_CHECKING:
        mse_loss_fn: Any
        l0_control: Tensor
        n_threshold_resets: Tensor

    # Key of the sparsity coefficient in SAELens's coefficient schedulers.
    _sparsity_coefficient: str

    def initialize_weights(self) -> None:
        super().initialize_weights()  # type: ignore[misc]
        module: Any = self
        module.register_buffer("l0_control", torch.zeros(2, device=self.device))
        module.register_buffer(
            "n_threshold_resets", torch.zeros((), dtype=torch.int64, device=self.device)
        )
        n_rows = self.threshold.shape[0]
        self.threshold = self._make_rows(n_rows, self._threshold_init(), torch.float32)

    def encode_with_hidden_pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Signed latents and pre-activations, (batch, d_sae) each, from one encoder product."""
        return self._encode_dense(x, self.process_sae_in(x))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        # nn.Module.to() casts every float tensor, and SAELens's load paths call it with cfg.dtype.
        # Thresholds stay float32 (bfloat16 rounds Adam's steps away; SAELens does the same for
        # jumprelu), and so does the controller. Overriding torch's _apply is how SAELens does it.
        kept = {
            name: tensor.data
            for name in ("threshold", "l0_control")
            if (tensor := getattr(self, name, None)) is not None
        }
        module = super()._apply(fn, recurse)  # type: ignore[misc]
        for name, before in kept.items():
            now = getattr(self, name)
            if now.dtype != before.dtype:
                now.data = before.to(now.device)
        return module

    @torch.no_grad()
    def _start_step(self, step_input: TrainStepInput) -> TrainStepInput:
        cfg: Any = self.cfg
        # In place on .data, not in the graph: a clamp in the graph has gradient zero below the
        # bound and would pin a latent there for good.
        self.threshold.data.clamp_(min=0.0)
        step = step_input.n_training_steps
        dead = step_input.dead_neuron_mask
        if (
            cfg.dead_threshold_reset
            and dead is not None
            and step > 0
            and step % cfg.threshold_reset_interval == 0
        ):
            moved = dead & (self.threshold != self._threshold_init()).any(0)
            self.n_threshold_resets += moved.sum()
            self.threshold.data.masked_fill_(dead, self._threshold_init())
        if cfg.target_l0 is None or not self._steers_l0():
            return step_input
        coefficients: dict[str, Any] = dict(step_input.coefficients)
        coefficients[self._sparsity_coefficient] = (
            coefficients[self._sparsity_coefficient] * self.l0_control[0].exp()
        )
        return dataclasses.replace(step_input, coefficients=coefficients)

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """SAELens's training step, with the threshold clamp, resets, target L0 and NaN stop around it.

        Raises:
            RuntimeError: the loss is not finite (on CUDA as an asynchronous device assertion, so
                that no step waits for the device).
        """
        step_input = self._start_step(step_input)
        if self.cfg.use_sparse_activations and step_input.sae_in.device.type == "cpu":
            # torch types what its decorator gives as the decorator itself
            output: Any = _sparse_forward_pass(self, step_input)  # pyright: ignore[reportCallIssue]
            if output is not None:
                return output
        output = super().training_forward_pass(step_input)  # type: ignore[misc]
        assert isinstance(output, TrainStepOutput)
        self._end_step(step_input, output)
        return output

    def _open_hidden_pre(
        self, values: Tensor, x_c: Tensor, b_enc: Tensor | None, opened: OpenLatents
    ) -> Tensor:
        b_dec = self.b_dec if self.cfg.apply_b_dec_to_input else None
        return pre_activation(values, x_c.detach(), self.W_enc, b_enc, b_dec, opened)

    def _normalised_out(self, sae_in: Tensor, tensor: Tensor) -> Tensor:
        """``tensor`` from the space of the decoder to that of ``sae_in``, by SAELens's run-time normalisation."""
        # decode has consumed the statistics that are kept between input and output, so compute them again
        self.run_time_activation_norm_fn_in(sae_in.to(self.dtype))
        return self.run_time_activation_norm_fn_out(tensor)

    def _auxk_losses(
        self,
        step_input: TrainStepInput,
        sae_out: Tensor,
        pre_of: Callable[[Tensor | slice], Tensor],
    ) -> dict[str, Tensor]:
        """The AuxK loss by its name in the logs; nothing where it is off.

        Args:
            pre_of: some latents -> their pre-activations, (n_tokens, n).
        """
        coefficient, dead = self.cfg.auxk_coefficient, step_input.dead_neuron_mask
        if coefficient == 0 or dead is None:
            return {}
        columns = dead_columns(dead)
        if isinstance(columns, Tensor) and not len(columns):
            return {"auxk_loss": sae_out.new_zeros(())}
        loss = auxk_loss(self, step_input.sae_in, sae_out, pre_of(columns), columns, dead)
        return {"auxk_loss": coefficient * loss}

    def _ungated(self, pre: Tensor, columns: Tensor | slice) -> Tensor:
        """Magnitudes of the latents ``columns`` as if every gate were open, signed, the shape of ``pre``."""
        raise NotImplementedError

    def _pre_of(self, x_c: Tensor, columns: Tensor | slice) -> Tensor:
        """Pre-activations of the latents ``columns`` alone, (n_tokens, n)."""
        raise NotImplementedError

    def _open_step(
        self, step_input: TrainStepInput, x_c: Tensor
    ) -> tuple[OpenLatents, Tensor, Tensor, dict[str, Tensor]] | None:
        """What an architecture computes from its open latents: them, their pre-activations and values
        (n_open,), and the losses beside the reconstruction's. None asks for the dense path."""
        raise NotImplementedError

    @torch.no_grad()
    def _end_step(self, step_input: TrainStepInput, output: TrainStepOutput) -> None:
        # Private in torch, and the one check that never waits for the device. It raises at once on a CPU.
        torch._assert_async(  # pyright: ignore[reportPrivateImportUsage]
            torch.isfinite(output.loss), NON_FINITE_MESSAGE
        )
        cfg: Any = self.cfg
        acts = output.feature_acts
        if cfg.target_l0 is not None and self._steers_l0():
            self.l0_control.copy_(
                update_l0_control(
                    self.l0_control,
                    _n_open(acts) / acts.shape[0],
                    cfg.target_l0,
                    cfg.target_l0_rate,
                    integrate=step_input.n_training_steps >= self._warm_up_steps(),
                )
            )
        if step_input.is_logging_step:
            output.metrics.update(side_metrics(acts.to_dense() if acts.is_sparse else acts))
            output.metrics["mean_threshold"] = self.threshold.mean()
            output.metrics["threshold_resets"] = self.n_threshold_resets.clone()
            output.metrics[f"{self._sparsity_coefficient}_in_force"] = torch.as_tensor(
                step_input.coefficients[self._sparsity_coefficient]
            )

    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        super().process_state_dict_for_saving_inference(state_dict)  # type: ignore[misc]
        for key in TRAINING_STATE_KEYS:
            state_dict.pop(key, None)
        # Optimiser steps after the last clamp can leave a threshold a step below 0.
        state_dict["threshold"] = state_dict["threshold"].clamp(min=0.0).to(self.dtype)

    def _steers_l0(self) -> bool:
        return True

    def _threshold_init(self) -> float:
        raise NotImplementedError

    def _warm_up_steps(self) -> int:
        raise NotImplementedError


def parameter_histograms(sae: nn.Module, names: tuple[str, ...]) -> dict[str, Any]:
    """numpy arrays for SAELens's ``log_histograms``, one a parameter."""
    return {f"weights/{name}": getattr(sae, name).detach().float().cpu().numpy() for name in names}
