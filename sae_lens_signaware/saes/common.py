"""What signed SAEs share beside SAELens's ``SAE`` and ``TrainingSAE``; no formula of an activation.

An architecture's file has its configs, its parameters, its activation, its losses and its plain
twin. :class:`SignedSAE` is mixed into its inference SAE and its training SAE, and
:class:`SignedTraining` into the latter.
"""

import dataclasses
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import torch
from sae_lens import SAE, SAEConfig, TrainingSAE
from sae_lens.saes.sae import TrainCoefficientConfig, TrainStepInput, TrainStepOutput
from torch import Tensor, nn

from sae_lens_signaware.checks import require
from sae_lens_signaware.saes import fast
from sae_lens_signaware.saes.activations import topk

BIPOLAR_MIN_SHARE = 0.1
"""Share of a latent's firings that a bipolar one has on its rarer side at least."""

DEAD_DECAY = 0.01
"""Share of its threshold, and of a size bias below 0, that a dead latent loses in each step, so
that it becomes active again (ours; docs/log.md)."""

STATE = ("input_scale", "l0_control", "threshold_scale", "tokens_since_active")
TRAINING_STATE = (*STATE, "topk_threshold")
"""Buffers of training SAEs, in their weights file; an inference SAE has none of them."""

FLOAT32 = ("threshold", "b_enc", "b_mag", *STATE)
"""Kept in float32 in training whatever the dtype: bfloat16 rounds Adam's steps away."""

Rows = dict[str, Tensor]
"""Name -> (P, n): what the activation and the losses read of each latent and side."""

Losses = dict[str, Tensor]
"""Name in the logs -> (), a mean over tokens."""

# what a type checker knows of `super()`; at run time SAELens's class follows the mixin
_SAE = SAE[Any] if TYPE_CHECKING else object
_TrainingSAE = TrainingSAE[Any] if TYPE_CHECKING else object


@dataclasses.dataclass
class StepValues:
    """What the losses of a training step are of: all latents, or the active ones as a batch of one.

    Attributes:
        inputs: SAELens's, with the coefficients in force and the latents that are dead.
        sae_out: (n_tokens, d_in).
        pre, z: (n_tokens, d_sae) or (1, n_active), pre-activations and latents.
        rows: (P, d_sae) or (P, n_active) each.
        decode: (values like ``pre``, W_dec, columns) -> values[columns] @ W_dec[columns].
        pre_of: numbers of latents -> their pre-activations, (n_tokens, n).
    """

    inputs: TrainStepInput
    sae_out: Tensor
    pre: Tensor
    z: Tensor
    rows: Rows
    decode: Callable[[Tensor, Tensor, slice], Tensor]
    pre_of: Callable[[Tensor], Tensor]


class SignedSAE(_SAE):
    """Pre-activations, encode, decode, folds and loading of every signed SAE.

    State (d = d_in, H = d_sae): ``W_enc`` (d, H), ``W_dec`` (H, d), ``b_dec`` (d,), ``b_enc`` (H,)
    where an architecture has one, and rows (P, H), such as ``threshold``.
    """

    def rows(self, dtype: torch.dtype) -> Rows:
        """The parameters of each latent and side, cast to the dtype of the pre-activations."""
        raise NotImplementedError

    def activate(self, pre: Tensor, rows: Rows) -> Tensor:
        """Signed latents of pre-activations, elementwise."""
        raise NotImplementedError

    def to_plain(self) -> SAE[Any]:
        """The plain twin: see :func:`~sae_lens_signaware.split_polarities`."""
        raise NotImplementedError

    def make_rows(self, n_sides: int, value: float = 0.0) -> nn.Parameter:
        """A new (n_sides, d_sae) parameter, on the SAE's device: loading builds it on meta."""
        shape = (n_sides, self.cfg.d_sae)
        return nn.Parameter(torch.full(shape, value, dtype=self.dtype, device=self.device))

    def hidden_pre(self, x: Tensor) -> Tensor:
        """(..., d_in) -> (..., d_sae): x_c @ W_enc (+ b_enc) for SAELens's x_c."""
        pre = self.process_sae_in(x) @ self.W_enc
        b_enc: nn.Parameter | None = getattr(self, "b_enc", None)
        return self.hook_sae_acts_pre(pre if b_enc is None else pre + b_enc.to(pre.dtype))

    def encode_with_hidden_pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Signed latents and pre-activations of (..., d_in), (..., d_sae) each."""
        pre = self.hidden_pre(x)
        return self.hook_sae_acts_post(self.activate(pre, self.rows(pre.dtype))), pre

    def encode(self, x: Tensor) -> Tensor:
        """Signed latents (..., d_sae) of (..., d_in)."""
        return self.encode_with_hidden_pre(x)[0]

    def decode(self, feature_acts: Tensor) -> Tensor:
        """(..., d_sae) signed latents -> (..., d_in)."""
        return self.finish_decode(feature_acts @ self.W_dec)

    def finish_decode(self, product: Tensor) -> Tensor:
        """z @ W_dec -> the output: b_dec, SAELens's hook, normalisation and hook_z reshape."""
        sae_out = self.run_time_activation_norm_fn_out(self.hook_sae_recons(product + self.b_dec))
        return self.reshape_fn_out(sae_out, self.d_head)

    @torch.no_grad()
    def fold_W_dec_norm(self) -> None:
        """Give decoder rows unit norm; the output stays, latents are multiplied by the norm."""
        norm = self.get_W_dec_norm()
        super().fold_W_dec_norm()
        for name in ("threshold", "b_mag"):
            if hasattr(self, name):
                getattr(self, name).data.mul_(norm)

    def process_state_dict_for_loading(self, state_dict: dict[str, Any]) -> None:
        """Fit a file of an inference or a training SAE to this one: buffers and dtypes."""
        expected = self.state_dict()
        for name in TRAINING_STATE:
            if name not in expected:
                state_dict.pop(name, None)
            elif name not in state_dict:  # a new training of an inference SAE
                start, device = float(name == "threshold_scale"), state_dict["W_dec"].device
                state_dict[name] = torch.full_like(expected[name], start, device=device)
        for name in state_dict.keys() & expected.keys():
            if name in FLOAT32 or name in TRAINING_STATE:
                state_dict[name] = state_dict[name].to(expected[name].dtype)


class SignedTraining(SignedSAE, _TrainingSAE):
    """The training step of every signed SAE: dead latents, AuxK, ``target_l0``, metrics, saving.

    A training runs in units of its data, so that a step of the optimiser is right at any scale. The
    first batch measures the spread s of the input; the SAE then encodes x / s and gives s x^, its
    latents, biases and thresholds are in units of s, and what is minimised is the loss over s^2.
    Where SAELens normalises the activations s is 1. An inference SAE is saved in units of x.

    Buffers, which checkpoints carry: ``tokens_since_active`` (d_sae,) and ``input_scale`` (), s, or
    0 before it is measured; both float32.
    """

    input_scale: Tensor
    tokens_since_active: Tensor
    threshold: nn.Parameter

    closes_latents: tuple[str, ...] = ("threshold", "b_mag")
    """Parameters that keep a latent inactive: where it is dead they decay towards 0."""

    auxk_names = ("auxk_coefficient", "auxk_loss")
    """AuxK's coefficient in the config, and its loss in the logs."""

    in_units_of_input: tuple[str, ...] = ("b_dec", "b_enc", "b_mag", "threshold")
    """Parameters and buffers that are in units of ``input_scale``."""

    dead_after_factor = 1.0
    """Times ``dead_after_tokens``: tokens without activity after which a latent is dead."""

    _loss_is_finite: Tensor | None = None

    def losses(self, step: StepValues) -> Losses:
        """The architecture's losses beside the reconstruction's and AuxK, in units of x^2."""
        raise NotImplementedError

    def ungated(self, pre: Tensor, rows: Rows) -> Tensor:
        """Signed magnitudes as if every gate were open, which AuxK takes of dead latents."""
        raise NotImplementedError

    def find_active(self, x_c: Tensor) -> "fast.Active | None":
        """The latents of which a step can be computed alone; None for all. For the fast step."""
        raise NotImplementedError

    def __init__(self, cfg: Any, use_error_term: bool = False) -> None:
        super().__init__(cfg, use_error_term)
        for name in FLOAT32:
            tensor = getattr(self, name, None)
            if tensor is not None and tensor.dtype in (torch.float16, torch.bfloat16):
                tensor.data = tensor.data.float()

    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.make_state("tokens_since_active", self.cfg.d_sae)
        self.make_state("input_scale")

    def make_state(self, name: str, *shape: int) -> None:
        """A new float32 buffer of zeros, one of TRAINING_STATE."""
        self.register_buffer(name, torch.zeros(shape, dtype=torch.float32, device=self.device))

    @property
    def scale(self) -> Tensor:
        """() the spread s of the input; 1 before the first step."""
        return torch.where(self.input_scale > 0, self.input_scale, 1.0).to(self.W_enc.dtype)

    def start(self, sae_in: Tensor) -> None:
        """Before the first step: measure s in its batch, and put what there is in units of it."""
        x = self.reshape_fn_in(sae_in).flatten(0, -2).float()
        s = (x - x.mean(0)).square().mean().sqrt()
        is_known = self.cfg.normalize_activations == "none" and 0 < s < torch.inf
        self.input_scale.copy_(s if is_known else torch.ones_like(s))
        for name in self.in_units_of_input:
            if (held := getattr(self, name, None)) is not None:
                held.data.div_(self.scale)

    def fold_input_scale(self) -> None:
        """At the end of a training: all in units of x, as SAELens folds the scale it estimates."""
        for name in self.in_units_of_input:
            if (held := getattr(self, name, None)) is not None:
                held.data.mul_(self.scale)
        self.input_scale.fill_(1.0)

    def process_sae_in(self, sae_in: Tensor) -> Tensor:
        """SAELens's x_c, of x / s."""
        return super().process_sae_in(sae_in.to(self.dtype) / self.scale)

    def finish_decode(self, product: Tensor) -> Tensor:
        """As :meth:`SignedSAE.finish_decode`, times s."""
        return super().finish_decode(product) * self.scale

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        # Module.to() casts every float tensor; overriding torch's _apply is how SAELens keeps the
        # thresholds of its jumprelu
        names = (*FLOAT32, "topk_threshold")  # the latter is SAELens's, in float64
        kept = {n: t.data for n in names if (t := getattr(self, n, None)) is not None}
        module = super()._apply(fn, recurse)
        for name, before in kept.items():
            now = getattr(self, name)
            if now.dtype != before.dtype:
                now.data = before.to(now.device)
        return module

    def get_coefficients(self) -> dict[str, float | TrainCoefficientConfig]:
        """Coefficients with SAELens's warm-up: none."""
        return {}

    def calculate_aux_loss(
        self, step_input: TrainStepInput, feature_acts: Tensor, hidden_pre: Tensor, sae_out: Tensor
    ) -> Losses:
        """The architecture's losses and AuxK, of all latents."""
        return self.all_losses(
            StepValues(
                inputs=step_input,
                sae_out=sae_out,
                pre=hidden_pre,
                z=feature_acts,
                rows=self.rows(hidden_pre.dtype),
                decode=lambda values, W_dec, columns: values[..., columns] @ W_dec[columns],
                pre_of=lambda latents: hidden_pre[..., latents],
            )
        )

    def all_losses(self, step: StepValues) -> Losses:
        """The architecture's losses and AuxK."""
        losses, (coefficient, name) = self.losses(step), self.auxk_names
        dead, weight = step.inputs.dead_neuron_mask, getattr(self.cfg, coefficient)
        if weight and dead is not None:
            losses[name] = weight * self.auxk(step, step.sae_out, dead)
        return losses

    def auxk(self, step: StepValues, sae_out: Tensor, dead: Tensor) -> Tensor:
        """AuxK of the latents ``dead`` for the error e that ``sae_out`` leaves, (). Signs are ours.

            min(n_dead / k, 1) * mean over tokens of ||e - e^||^2,    k = d_in // 2

        e^ is of the k dead latents of each token that are largest in size (arXiv 2406.04093, A.2,
        as SAELens's ``topk`` has it).
        """
        latents, k = dead.nonzero().squeeze(-1), max(1, self.cfg.d_in // 2)
        if not len(latents):
            return sae_out.new_zeros(())
        pre = step.pre_of(latents)
        rows = {name: row[:, latents] for name, row in self.rows(pre.dtype).items()}
        acts = topk(self.ungated(pre, rows), min(k, len(latents)))
        product = (acts / rows["scale"] if "scale" in rows else acts) @ self.W_dec[latents]
        sae_in = step.inputs.sae_in
        error, recons = (sae_in - sae_out).detach(), self.in_input_space(sae_in, product)
        if self.cfg.normalize_activations == "layer_norm":  # a difference has no mean to get back
            recons = recons - self.in_input_space(sae_in, torch.zeros_like(product))
        return min(len(latents) / k, 1.0) * (recons - error).pow(2).sum(-1).mean()

    def in_input_space(self, sae_in: Tensor, product: Tensor) -> Tensor:
        """A product with the decoder, scaled back and shaped as SAELens's decode does."""
        # decode has used up the statistics that are kept between input and output
        self.run_time_activation_norm_fn_in(self.reshape_fn_in(sae_in.to(self.dtype)))
        out = self.run_time_activation_norm_fn_out(product) * self.scale
        return self.reshape_fn_out(out, self.d_head)

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """SAELens's training step; on a CPU of active latents alone (see :mod:`.fast`).

        With ``eval()`` it is a validation: what a step counts, steers and decays stays as it is.

        Raises:
            RuntimeError: the loss is not finite.
        """
        with torch.no_grad():
            step_input = self.before_step(step_input)
        output = fast.step(self, step_input) if fast.applies(self, step_input.sae_in) else None
        if output is None:
            # past SAELens's BatchTopK classes, whose threshold and nested losses know the + side
            output = TrainingSAE.training_forward_pass(self, step_input)
        with torch.no_grad():
            self.after_step(step_input, output)
        output.loss = output.loss / self.scale**2
        return output

    def before_step(self, step_input: TrainStepInput) -> TrainStepInput:
        """The input of a step, with the latents that are dead."""
        if self.training and step_input.n_training_steps == 0 and self.input_scale == 0:
            self.start(step_input.sae_in)
        dead = step_input.dead_neuron_mask
        if self.cfg.dead_after_tokens is not None:
            dead = self.tokens_since_active >= self.cfg.dead_after_tokens * self.dead_after_factor
        threshold = getattr(self, "threshold", None)
        if threshold is not None:
            # on .data: a clamp in the graph has no gradient below the bound
            threshold.data.clamp_(min=0.0)
        if self.training and dead is not None:
            for name in self.closes_latents:
                if (row := getattr(self, name, None)) is not None:
                    closes = row < 0 if name == "b_mag" else row > 0
                    row.data.mul_(1 - DEAD_DECAY * (dead & closes))
        return dataclasses.replace(step_input, dead_neuron_mask=dead)

    def after_step(self, step_input: TrainStepInput, output: TrainStepOutput) -> None:
        """The stop at a NaN, counts of a training, and metrics. No parameter may change here."""
        is_finite, before = output.loss.detach().isfinite(), self._loss_is_finite
        self._loss_is_finite = is_finite if before is None else before & is_finite
        # on a CPU at once; elsewhere a look waits for the device, so at logging steps and saves
        is_cheap = is_finite.device.type == "cpu" and not torch.compiler.is_compiling()
        if (step_input.is_logging_step or is_cheap) and not self._loss_is_finite:
            self.require_finite_loss()
        acts = output.feature_acts
        if self.training:
            self.tokens_since_active += acts.shape[:-1].numel()
            self.tokens_since_active.masked_fill_(fires(acts), 0.0)
        if step_input.is_logging_step:
            output.metrics.update(self.metrics(acts))

    def metrics(self, acts: Tensor) -> dict[str, Any]:
        """What a logging step logs beside the losses."""
        acts = (acts.to_dense() if acts.is_sparse else acts).flatten(0, -2)
        n_pos, n_neg = (acts > 0).sum(0), (acts < 0).sum(0)
        alive = n_pos + n_neg > 0
        bipolar = alive & (torch.minimum(n_pos, n_neg) >= BIPOLAR_MIN_SHARE * (n_pos + n_neg))
        metrics: dict[str, Any] = {
            "l0_pos": n_pos.sum() / len(acts),
            "l0_neg": n_neg.sum() / len(acts),
            "bipolar_share_of_batch": bipolar.sum() / alive.sum().clamp(min=1),
        }
        if hasattr(self, "threshold"):
            metrics["mean_threshold"] = self.rows(torch.float32)["threshold"].mean() * self.scale
        return metrics

    def require_finite_loss(self) -> None:
        """Raise RuntimeError where a loss of this training was NaN or inf."""
        if self._loss_is_finite is not None and not self._loss_is_finite:
            raise RuntimeError(
                "the training loss is not finite: this batch, or a weight, holds NaN or inf; "
                "checkpoints written earlier are intact"
            )

    def process_state_dict_for_saving(self, state_dict: dict[str, Any]) -> None:
        """Refuse the weights of a training whose loss was not finite."""
        self.require_finite_loss()
        super().process_state_dict_for_saving(state_dict)

    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """Drop the training's state; thresholds >= 0; all in units of x and in the SAE's dtype."""
        super().process_state_dict_for_saving_inference(state_dict)
        for name in {"b_dec", "b_enc", "b_mag", "threshold"} & state_dict.keys():
            state_dict[name] = state_dict[name] * self.scale
        for name in TRAINING_STATE:
            state_dict.pop(name, None)
        if "threshold" in state_dict:  # the last step may have left one below 0
            state_dict["threshold"] = state_dict["threshold"].clamp(min=0.0)
        for name in FLOAT32:
            if name in state_dict:
                state_dict[name] = state_dict[name].to(self.dtype)

    def to_inference(self) -> SignedSAE:
        """The SAE that ``save_inference_model`` saves, a copy."""
        state = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        self.process_state_dict_for_saving_inference(state)
        cfg = SAEConfig.from_dict(self.cfg.get_inference_sae_cfg_dict())
        with torch.random.fork_rng(devices=[]):  # it draws weights, which are overwritten
            sae_class: Any = SAE.get_sae_class_for_architecture(cfg.architecture())
            sae = sae_class(cfg)
        sae.load_state_dict(state)
        return sae.to(self.device)

    def to_plain(self) -> SAE[Any]:
        """The plain twin of :meth:`to_inference`."""
        return self.to_inference().to_plain()


def l0_of(acts: Tensor) -> Tensor:
    """() mean number of active latents of (..., d_sae) latents, dense or sparse COO."""
    n_tokens = acts.shape[:-1].numel()
    if acts.is_sparse:
        return torch.tensor(acts.values().numel() / n_tokens)
    return (acts != 0).sum() / n_tokens


def fires(acts: Tensor) -> Tensor:
    """(d_sae,) bool: is a latent active on any token of (..., d_sae), dense or sparse COO?"""
    if acts.is_sparse:
        mask = torch.zeros(acts.shape[1], dtype=torch.bool)
        mask[acts.indices()[1]] = True
        return mask
    flat = acts.flatten(0, -2)
    return (flat.amax(0) > 0) | (flat.amin(0) < 0)  # a third of the time of any() (measured)


def check_training(cfg: Any) -> None:
    """Raise InvalidInputError for a field of a training config that is out of its range."""
    for name in ("auxk_coefficient", "aux_coefficient", "l1_coefficient"):
        value = getattr(cfg, name, 0.0)
        require(value >= 0, name, value, "a number >= 0")
    after, target = cfg.dead_after_tokens, getattr(cfg, "target_l0", None)
    require(after is None or after >= 1, "dead_after_tokens", after, "null or an integer >= 1")
    if target is not None:
        allowed = f"a number above 0 and at most d_sae = {cfg.d_sae}"
        require(0 < target <= cfg.d_sae, "target_l0", target, allowed)
        value = getattr(cfg, "l1_coefficient", 1.0)
        require(value > 0, "l1_coefficient", value, "above 0 where target_l0 steers it")


def check_sizes(cfg: Any, tyings: Collection[str] = ()) -> None:
    """Raise InvalidInputError for a width that is not positive, or a tying that is none."""
    for name in ("d_in", "d_sae"):
        require(getattr(cfg, name) > 0, name, getattr(cfg, name), "a positive integer")
    tying, name = getattr(cfg, "polarity_tying", None), "polarity_tying"
    require(not tyings or tying in tyings, name, tying, f"one of {', '.join(tyings)}")
