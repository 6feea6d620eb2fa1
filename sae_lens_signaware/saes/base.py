"""What the four SAE classes of the package share: validation, parameters, decode, folds, loading."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import torch
from sae_lens import TrainingSAE
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from sae_lens_signaware.checks import InvalidInputError as InvalidInputError
from sae_lens_signaware.checks import require
from sae_lens_signaware.saes.activations import open_mask
from sae_lens_signaware.saes.sparse import (
    MAX_DENSITY,
    OpenLatents,
    decode_open,
    encode_open,
    is_sparse_enough,
    is_supported,
)

PolarityTying = Literal["full", "radii", "none"]

FORMAT_VERSION = 1
"""Format of ``cfg.json`` that this version writes, and the newest that it reads."""

MAX_SIZE = 2**28
"""Largest d_in and d_sae: beyond it a matrix of both would not have a size in bytes that torch can count."""

# State of a training SAE that an inference SAE does not have. It travels in the weights file of a
# checkpoint, since that is the only file of SAELens's checkpoint that the SAE itself writes.
TRAINING_STATE_KEYS = ("l0_control", "n_threshold_resets")


def validate_signed_config(cfg: Any, tyings: Iterable[str]) -> None:
    """Checks that the configs of both architectures share. Raises ValueError, one line."""
    names = tuple(tyings)
    require(
        cfg.polarity_tying in names,
        "polarity_tying",
        cfg.polarity_tying,
        f"one of {', '.join(names)}",
    )
    require(
        1 <= cfg.format_version <= FORMAT_VERSION,
        "format_version",
        cfg.format_version,
        f"an integer from 1 to {FORMAT_VERSION}",
        "a later sae_lens_signaware wrote this cfg.json; upgrade the package to load it",
    )
    for field in ("d_in", "d_sae"):
        value = getattr(cfg, field)
        allowed = 0 < value <= MAX_SIZE
        require(allowed, field, value, "a positive integer", f"at most {MAX_SIZE}")


def is_hooked(hook_point: nn.Module) -> bool:
    """Whether something listens there. Where SAELens switches hooks off it puts an Identity in the place."""
    # transformer-lens 2 has no has_hooks(); for hooks of torch's own register_forward_hook, torch has no
    # public name
    listeners = [hook_point._forward_hooks, hook_point._forward_pre_hooks]
    if isinstance(hook_point, HookPoint):
        listeners += [hook_point.fwd_hooks, hook_point.bwd_hooks]
    return any(map(bool, listeners))


class _EncoderProduct(torch.autograd.Function):
    """(x - b_dec) @ W_enc whose gradient to b_dec is a product with a vector, not one with the batch."""

    @staticmethod
    def forward(x_c: Tensor, W_enc: Tensor, b_dec: Tensor) -> Tensor:
        del b_dec  # in x_c already
        return x_c @ W_enc

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del output
        x_c, W_enc, _ = inputs
        ctx.save_for_backward(x_c, W_enc)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor, Tensor]:
        (grad,) = grad_outputs
        x_c, W_enc = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        return None, x_c.reshape(-1, x_c.shape[-1]).T @ grad, -(W_enc @ grad.sum(0))


class SignedSAEMixin:
    """Mixed into SAELens's ``SAE`` and ``TrainingSAE`` by both architectures.

    ``super()`` in this mixin and its kin is SAELens's class, which a type checker cannot know: hence
    their ``type: ignore[misc]``.

    State (d = d_in, H = d_sae): ``W_enc`` (d, H), ``W_dec`` (H, d), ``b_dec`` (d,) as in every
    SAELens SAE, and per-side parameters of shape (P, H), P in {1, 2}.
    """

    if TYPE_CHECKING:  # what the SAELens base class brings
        cfg: Any  # the architecture's own config
        dtype: torch.dtype
        device: torch.device
        W_dec: nn.Parameter
        b_dec: nn.Parameter
        threshold: nn.Parameter
        hook_sae_input: Any
        hook_sae_recons: Any
        hook_sae_acts_pre: Any
        hook_sae_acts_post: Any
        hook_z_reshaping_mode: bool
        W_enc: nn.Parameter
        process_sae_in: Any
        run_time_activation_norm_fn_in: Any
        run_time_activation_norm_fn_out: Any
        reshape_fn_out: Any
        d_head: int | None
        fold_and_get_W_dec_norm: Any
        state_dict: Any

    # Names of the parameters that scale with pi when the decoder norm moves into the encoder.
    _scales_with_pre_activation: tuple[str, ...] = ("threshold",)

    def _make_rows(
        self, n_rows: int, value: float = 0.0, dtype: torch.dtype | None = None
    ) -> nn.Parameter:
        # On self.device, since loading builds the SAE on the meta device.
        return nn.Parameter(
            torch.full(
                (n_rows, self.cfg.d_sae),
                float(value),  # a config may give an integer that torch cannot hold
                dtype=dtype or self.dtype,
                device=self.device,
            )
        )

    def encode(self, x: Tensor) -> Tensor:
        """Signed latents z of the architecture's activation.

        Args:
            x: (..., d_in), or (..., n_heads, d_head) where hook_z reshaping is on.

        Returns:
            (..., d_sae).
        """
        x_c = self.process_sae_in(x)
        found = None if torch.is_grad_enabled() else self._open_latents(x_c)
        if found is None:
            return self._encode_dense(x, x_c)[0]
        opened, z = found
        return self.hook_sae_acts_post(opened.to_dense(z).view(*x_c.shape[:-1], self.cfg.d_sae))

    @torch.no_grad()
    def encode_sparse(self, x: Tensor) -> Tensor:
        """``encode`` without a gradient, as a sparse tensor that ``decode`` takes: for wide SAEs.

        Args:
            x: as in :meth:`encode`.

        Returns:
            (n_tokens, d_sae) sparse COO, leading dimensions of ``x`` flattened. Where few latents
            are open, on a CPU, the dense matrix is never made.
        """
        # flat before the run-time normalisation, whose statistics decode needs in that shape
        x = x.reshape(-1, *x.shape[-2 if self.hook_z_reshaping_mode else -1 :])
        x_c = self.process_sae_in(x)
        found = self._open_latents(x_c) or OpenLatents.of(self._encode_dense(x, x_c)[0])
        opened, z = found
        fires = z != 0
        return opened.where(fires).to_coo(z[fires])

    def _encode_dense(self, x: Tensor, x_c: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and pre-activations, (..., d_sae) each, of ``x`` and ``x_c = process_sae_in(x)``."""
        raise NotImplementedError

    def _open_latents(self, x_c: Tensor) -> tuple[OpenLatents, Tensor] | None:
        """The latents whose gate is open and their (n_open,) values, or None as in :meth:`_find_open`."""
        raise NotImplementedError

    def decode(self, feature_acts: Tensor) -> Tensor:
        """x^ = z @ W_dec + b_dec, then SAELens's output normalisation and hook_z reshape.

        Args:
            feature_acts: (..., d_sae), signed; or (n_tokens, d_sae) sparse COO.

        Returns:
            (..., d_in), or (..., n_heads, d_head) where hook_z reshaping is on.
        """
        product = self._sparse_product(feature_acts)
        if product is None:
            dense = feature_acts.to_dense() if feature_acts.is_sparse else feature_acts
            product = dense @ self.W_dec
        return self._finish_decode(product)

    def _sparse_product(self, z: Tensor) -> Tensor | None:
        # z @ W_dec from the open latents alone; None where they are many, or a gradient is asked for
        wants_grad = torch.is_grad_enabled() and (z.requires_grad or self.W_dec.requires_grad)
        if wants_grad or not is_supported(z, self.W_dec) or z.dtype != self.W_dec.dtype:
            return None
        flat = z.coalesce() if z.is_sparse else z.reshape(-1, z.shape[-1])
        if not is_sparse_enough(flat, MAX_DENSITY):
            return None
        opened, values = OpenLatents.of(flat)
        return decode_open(values, self.W_dec, opened).view(*z.shape[:-1], self.cfg.d_in)

    def _encoder_product(self, x: Tensor, x_c: Tensor) -> Tensor:
        """x_c @ W_enc, for ``x_c = process_sae_in(x)``."""
        only_b_dec = self.cfg.apply_b_dec_to_input and not x.requires_grad
        # a custom Function has no forward-mode derivative, which may be asked of a trained SAE
        trains = isinstance(self, TrainingSAE) and torch.is_grad_enabled()
        if not trains or not only_b_dec or is_hooked(self.hook_sae_input):
            return x_c @ self.W_enc
        x_c, W_enc, b_dec = x_c.detach(), self.W_enc, self.b_dec
        if torch.is_autocast_enabled(x_c.device.type) and x_c.dtype != torch.float64:
            dtype = torch.get_autocast_dtype(x_c.device.type)
            x_c, W_enc, b_dec = x_c.to(dtype), W_enc.to(dtype), b_dec.to(dtype)
        out = _EncoderProduct.apply(x_c, W_enc, b_dec)
        assert isinstance(out, Tensor)
        return out

    def _find_open(
        self, x_c: Tensor, threshold: Tensor, b_enc: Tensor | None, two_sided: bool, margin: float
    ) -> tuple[OpenLatents, Tensor] | None:
        """The open latents of processed inputs (..., d_in) and their pre-activations.

        None where the dense path has to serve: many are open, this is no CPU, or a hook wants to
        see all of them.
        """
        hooked = is_hooked(self.hook_sae_acts_pre) or is_hooked(self.hook_sae_acts_post)
        if hooked or not is_supported(x_c, self.W_enc) or x_c.dtype != self.W_enc.dtype:
            return None
        return encode_open(
            x_c.detach().reshape(-1, x_c.shape[-1]),
            self.W_enc.detach(),
            None if b_enc is None else b_enc.detach(),
            lambda pre, latents: open_mask(pre, threshold[:, latents], two_sided, margin),
            MAX_DENSITY,
        )

    def _finish_decode(self, product: Tensor) -> Tensor:
        sae_out_pre = self.hook_sae_recons(product + self.b_dec)
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(sae_out_pre), self.d_head)

    @torch.no_grad()
    def fold_W_dec_norm(self) -> None:
        """Give every decoder row unit norm and the encoder its norm: same output, latents times the norm."""
        W_dec_norm = self.fold_and_get_W_dec_norm()
        for name in self._scales_with_pre_activation:
            param = getattr(self, name)
            param.data.mul_(W_dec_norm.to(param.dtype))

    def process_state_dict_for_loading(self, state_dict: dict[str, Any]) -> None:
        """Check names, shapes and values before torch takes them, so that a wrong file gives one clear line.

        Raises:
            InvalidInputError: a tensor is missing, unknown, of the wrong shape or not finite, or a
                threshold is below 0 in a file that no training SAE wrote.
        """
        expected: dict[str, Tensor] = self.state_dict()
        of_training, for_training = (TRAINING_STATE_KEYS[0] in s for s in (state_dict, expected))
        for key in TRAINING_STATE_KEYS:
            if key not in expected:
                # saved by SAELens's save_model from a training SAE, loaded for inference
                state_dict.pop(key, None)
            elif key not in state_dict:
                # saved for inference, loaded for training: training state starts afresh
                state_dict[key] = torch.zeros(expected[key].shape, dtype=expected[key].dtype)
        missing = sorted(set(expected) - set(state_dict))
        unknown = sorted(set(state_dict) - set(expected))
        require(
            not missing and not unknown,
            "sae_weights.safetensors",
            f"missing {missing}, unknown {unknown}",
            f"a file with exactly {sorted(expected)}",
        )
        for key, tensor in expected.items():
            require(
                state_dict[key].shape == tensor.shape,
                f"shape of {key} in sae_weights.safetensors",
                tuple(state_dict[key].shape),
                f"{tuple(tensor.shape)} by d_in, d_sae and polarity_tying of cfg.json",
            )
            bad = ~torch.isfinite(state_dict[key])
            if key == "threshold" and not for_training:
                bad &= state_dict[key] != torch.inf  # never opens: merge's 1e30 in float16
            n_bad = int(bad.sum())
            require(
                n_bad == 0,
                f"{key} in sae_weights.safetensors",
                n_bad,
                f"finite in all of its {tensor.numel()} values",
                "so many are NaN or inf",
            )
            # SAELens's loader casts all to cfg.dtype, what training keeps in float32 as well
            state_dict[key] = state_dict[key].to(tensor.dtype)
        self._check_threshold(state_dict, of_training, for_training)

    @staticmethod
    def _check_threshold(state: dict[str, Tensor], of_training: bool, for_training: bool) -> None:
        threshold = state["threshold"]
        require(
            of_training or bool((threshold >= 0).all()),
            "threshold in sae_weights.safetensors",
            threshold.min().item() if threshold.numel() else None,
            "at least 0 everywhere",
        )
        if not for_training:
            # An optimiser step after the last clamp leaves some below 0. A resumed training clamps
            # before it steps; for inference it is done here, as save_inference_model does.
            state["threshold"] = threshold.clamp(min=0.0)
