"""What the four SAE classes of the package share: validation, parameters, decode, folds, loading."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

PolarityTying = Literal["full", "radii", "none"]

FORMAT_VERSION = 1
"""Format of ``cfg.json`` that this version writes, and the newest that it reads."""

# State of a training SAE that an inference SAE does not have. It travels in the weights file of a
# checkpoint, since that is the only file of SAELens's checkpoint that the SAE itself writes.
TRAINING_STATE_KEYS = ("l0_control", "n_threshold_resets")


class InvalidInputError(ValueError):
    """A wrong input, in one line: the field, the value, what is allowed."""


def require(condition: bool, field: str, value: object, allowed: str, why: str = "") -> None:
    """Raise InvalidInputError with one line: the field, its value, what is allowed."""
    if not condition:
        raise InvalidInputError(
            f"{field} must be {allowed}, got {value!r}{f': {why}' if why else ''}"
        )


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
        isinstance(cfg.format_version, int) and 1 <= cfg.format_version <= FORMAT_VERSION,
        "format_version",
        cfg.format_version,
        f"an integer from 1 to {FORMAT_VERSION}",
        "a later sae_lens_signaware wrote this cfg.json; upgrade the package to load it",
    )
    for field in ("d_in", "d_sae"):
        value = getattr(cfg, field)
        require(isinstance(value, int) and value > 0, field, value, "a positive integer")


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
        hook_sae_recons: Any
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
                value,
                dtype=dtype or self.dtype,
                device=self.device,
            )
        )

    def decode(self, feature_acts: Tensor) -> Tensor:
        """x^ = z @ W_dec + b_dec, then SAELens's output normalisation and hook_z reshape.

        Args:
            feature_acts: (..., d_sae), signed.

        Returns:
            (..., d_in), or (..., n_heads, d_head) where hook_z reshaping is on.
        """
        sae_out_pre = self.hook_sae_recons(feature_acts @ self.W_dec + self.b_dec)
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(sae_out_pre), self.d_head)

    @torch.no_grad()
    def fold_W_dec_norm(self) -> None:
        """Give every decoder row unit norm and the encoder its norm: same output, latents times the norm."""
        W_dec_norm = self.fold_and_get_W_dec_norm()
        for name in self._scales_with_pre_activation:
            param = getattr(self, name)
            param.data.mul_(W_dec_norm.to(param.dtype))

    def process_state_dict_for_loading(self, state_dict: dict[str, Any]) -> None:
        """Check names and shapes before torch does, so that a wrong file gives one clear line.

        Raises:
            InvalidInputError: a tensor is missing, unknown, or of the wrong shape.
        """
        expected: dict[str, Tensor] = self.state_dict()
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
                f"{tuple(tensor.shape)} by cfg.json",
            )
