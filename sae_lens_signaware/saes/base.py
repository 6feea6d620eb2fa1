"""What every signed SAE is: pre-activations, encode, decode, folds, loading; no formula."""

from typing import TYPE_CHECKING, Any

import torch
from sae_lens import SAE, TrainingSAE
from torch import Tensor, nn

from sae_lens_signaware.saes.activations import active_mask
from sae_lens_signaware.saes.config import require_whitening_folds
from sae_lens_signaware.saes.kernels import (
    MAX_DENSITY,
    encode_active,
    encoder_product,
    has_csr_product,
    is_sparse_enough,
    is_supported,
)
from sae_lens_signaware.saes.latents import ActiveLatents, AllLatents, Latents
from sae_lens_signaware.saes.state import check_state, require_parameters
from sae_lens_signaware.saes.transforms import is_hooked, is_switched_off, is_transformed

EXTENSION_POINTS = (
    "process_sae_in",
    "encode",
    "encode_with_hidden_pre",
    "decode",
    "calculate_aux_loss",
)
"""What a subclass may redefine of SAELens; steps over active latents have formulas of ours."""

# A mixin's host: what a type checker knows of `super()`. At run time SAELens's class follows it.
_Host = SAE[Any] if TYPE_CHECKING else object


def _is_foreign(method: Any) -> bool:
    module = getattr(method, "__module__", "sae_lens")
    return module.partition(".")[0] not in ("sae_lens", __name__.partition(".")[0])


def redefined(sae: object) -> frozenset[str]:
    """Those of EXTENSION_POINTS that are not SAELens's or ours, of an SAE or of a class."""
    return frozenset(n for n in EXTENSION_POINTS if _is_foreign(getattr(sae, n, None)))


class SignedSAEMixin(_Host):
    """Mixed into SAELens's ``SAE`` and ``TrainingSAE``, before them in the MRO.

    State (d = d_in, H = d_sae): ``W_enc`` (d, H), ``W_dec`` (H, d), ``b_dec`` (d,) as in every
    SAELens SAE, ``b_enc`` (H,) where an architecture has one, and per-side parameters of shape
    (P, H), P in {1, 2}; ``threshold`` is one of them.

    An architecture writes :meth:`_activate`, and :meth:`to_plain` where SAELens has its activation.
    """

    threshold: nn.Parameter
    b_mag: nn.Parameter

    _redefined: frozenset[str] = frozenset()
    """Those of EXTENSION_POINTS that a class outside of SAELens and of this package defines."""

    _scales_with_pre_activation: tuple[str, ...] = ("threshold",)
    """Parameters that scale with the pre-activations when the decoder norm is folded.

    ``threshold`` may be named where there is none.
    """

    _zero_in_format_1: tuple[str, ...] = ()
    """Parameters that files of format 1 do not have, where they are 0."""

    _training_state: tuple[str, ...] = ()
    """Tensors of a training SAE's own that an inference SAE does not have. They start at 0."""

    _saw_all_latents = False
    """Whether the last pass with hooks computed all latents."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._redefined = redefined(cls)

    def _redefined_now(self) -> frozenset[str]:
        """``_redefined``, and what has replaced a method of this object or of its class since."""
        # a compiled graph cannot ask
        return self._redefined if torch.compiler.is_compiling() else redefined(self)

    def __init__(self, cfg: Any, use_error_term: bool = False) -> None:
        super().__init__(cfg, use_error_term)
        require_whitening_folds(self.cfg, has_b_enc=self._encoder_bias is not None)
        require_parameters(self, self._scales_with_pre_activation)

    def _activate(self, pre: Tensor, latents: Latents) -> Tensor:
        """Signed latents z of pre-activations ``pre``, values of ``latents``; the same shape."""
        raise NotImplementedError

    @property
    def has_plain_twin(self) -> bool:
        """Whether the architecture writes :meth:`to_plain`."""
        return type(self).to_plain is not SignedSAEMixin.to_plain

    def to_plain(self) -> SAE[Any]:
        """The plain twin: see :func:`~sae_lens_signaware.split_polarities`."""
        name = self.cfg.architecture()
        raise NotImplementedError(
            f"{name} has no plain twin: {type(self).__name__} has no to_plain"
        )

    @property
    def _encoder_bias(self) -> Tensor | None:
        """``b_enc`` where the architecture has one, in the dtype of ``W_enc``."""
        b_enc: nn.Parameter | None = getattr(self, "b_enc", None)
        return None if b_enc is None else b_enc.to(self.W_enc.dtype)

    @property
    def _size_bias(self) -> Tensor:
        """``b_mag``, for an architecture that has one, in the dtype of ``W_enc``."""
        return self.b_mag.to(self.W_enc.dtype)

    @property
    def _subtracted_bias(self) -> nn.Parameter | None:
        """``b_dec`` where it is subtracted from the input."""
        return self.b_dec if self.cfg.apply_b_dec_to_input else None

    def _latent_scale(self) -> Tensor | None:
        """(d_sae,) factors of the pre-activations, by which decoder rows are divided; None for 1.

        Constants: in a reconstruction they cancel out.
        """
        return None

    def _scaled(self, pre: Tensor, latents: Latents) -> Tensor:
        scale = self._latent_scale()
        return pre if scale is None else pre * latents.columns_of(scale)

    def _unscaled(self, z: Tensor, latents: Latents) -> Tensor:
        # what of z the decoder is multiplied by
        scale = self._latent_scale()
        return z if scale is None else z / latents.columns_of(scale)

    @property
    def _two_sided(self) -> bool:
        """Whether the - side can be active."""
        return True

    def _active_margin(self) -> float:
        """How far below its threshold a side counts as active: 0, but for an estimator's window."""
        return 0.0

    def _make_rows(
        self, n_rows: int, value: float = 0.0, dtype: torch.dtype | None = None
    ) -> nn.Parameter:
        # On self.device, since loading builds the SAE on the meta device.
        shape, dtype = (n_rows, self.cfg.d_sae), dtype or self.dtype
        # a config may give an integer that torch cannot hold
        return nn.Parameter(torch.full(shape, float(value), dtype=dtype, device=self.device))

    def encode(self, x: Tensor) -> Tensor:
        """Signed latents z of the architecture's activation.

        Args:
            x: (..., d_in), or (..., n_heads, d_head) where hook_z reshaping is on.

        Returns:
            (..., d_sae).
        """
        x_c = self.process_sae_in(x)
        # SAELens repeats a pass without hooks and gradients for its error term. The two ways round
        # differently, and a latent at its threshold has to be the same in both.
        repeats = is_switched_off(self.hook_sae_acts_post)
        sees_all = torch.is_grad_enabled() or (repeats and self._saw_all_latents)
        active = None if sees_all else self._encode_active(x_c)
        if not (repeats or torch.compiler.is_compiling()):
            self._saw_all_latents = active is None
        if active is None:
            return self._encode_all(x, x_c)[0]
        latents, z = active
        return self.hook_sae_acts_post(latents.to_dense(z).view(*x_c.shape[:-1], self.cfg.d_sae))

    @torch.no_grad()
    def encode_sparse(self, x: Tensor) -> Tensor:
        """``encode`` without a gradient, as a sparse tensor that ``decode`` takes: for wide SAEs.

        Args:
            x: as in :meth:`encode`.

        Returns:
            (n_tokens, d_sae) sparse COO, leading dimensions of ``x`` flattened. Where few latents
            are active, on a CPU, the dense matrix is never made.
        """
        # flat before the run-time normalisation, whose statistics decode needs in that shape
        x = x.reshape(-1, *x.shape[-2 if self.hook_z_reshaping_mode else -1 :])
        if self._redefined_now() & {"encode", "encode_with_hidden_pre"}:
            latents, z = ActiveLatents.of(self.encode(x))
            return latents.to_coo(z)
        x_c = self.process_sae_in(x)
        active = self._encode_active(x_c)
        if active is None:
            latents, z = ActiveLatents.of(self._encode_all(x, x_c)[0])
            return latents.to_coo(z)
        latents, z = active
        fires = z != 0
        return latents.where(fires).to_coo(z[fires])

    def _encode_all(self, x: Tensor, x_c: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and pre-activations, (..., d_sae) each, for ``x_c = process_sae_in(x)``."""
        pre, b_enc = self._encoder_product(x, x_c), self._encoder_bias
        pre = self.hook_sae_acts_pre(pre if b_enc is None else pre + b_enc)
        latents = AllLatents.of(pre)
        pre = self._scaled(pre, latents)
        return self.hook_sae_acts_post(self._activate(pre, latents)), pre

    def _encode_active(self, x_c: Tensor) -> tuple[ActiveLatents, Tensor] | None:
        """The active latents and their (n_active,) values; None as in :meth:`_active_of`."""
        active = self._active_of(x_c, margin=0.0)
        if active is None:
            return None
        latents, pre = active
        return latents, self._activate(self._scaled(pre, latents), latents)

    def _encoder_product(self, x: Tensor, x_c: Tensor) -> Tensor:
        """x_c @ W_enc, for ``x_c = process_sae_in(x)``."""
        # of what x_c depends on, encoder_product gives b_dec alone a gradient
        only_b_dec = self.cfg.apply_b_dec_to_input and not x.requires_grad
        only_b_dec &= "process_sae_in" not in self._redefined_now()
        # a custom Function cannot be transformed, which may be asked of a trained SAE
        trains = isinstance(self, TrainingSAE) and torch.is_grad_enabled()
        if not trains or not only_b_dec or is_hooked(self.hook_sae_input) or is_transformed(x_c):
            return x_c @ self.W_enc
        return encoder_product(x_c, self.W_enc, self.b_dec)

    def _active_of(self, x_c: Tensor, margin: float) -> tuple[ActiveLatents, Tensor] | None:
        """What :meth:`_find_active` finds, in order and without a gradient.

        None where all latents have to be computed: many are active, this is no CPU, a hook wants to
        see all of them, or the architecture does not say which are active.

        Raises:
            ValueError: a latent of a token was found twice.
        """
        if self._must_see_all_latents(x_c):
            return None
        with torch.no_grad():
            active = self._find_active(x_c.detach(), margin)
            if active is None:
                return None
            latents, pre = active
            if len(pre) > MAX_DENSITY * latents.n_tokens * latents.d_sae:
                return None
            return latents.in_order(pre)

    def _find_active(self, x_c: Tensor, margin: float) -> tuple[ActiveLatents, Tensor] | None:
        """The active latents of processed inputs (..., d_in) and their (n_active,) pre-activations.

        The pre-activations are not scaled. None for all latents, as where there is no
        ``threshold``. An architecture that overrides this need not look at hooks, dtypes, devices
        or the number that it has found: :meth:`_active_of` does.

        Args:
            margin: how far below its threshold a latent counts as active.
        """
        if getattr(self, "threshold", None) is None:
            return None
        threshold, two_sided = self.threshold, self._two_sided
        b_enc, scale = self._encoder_bias, self._latent_scale()

        def is_active(pre: Tensor, columns: slice) -> Tensor:
            pre = pre if scale is None else pre * scale[columns]
            return active_mask(pre, threshold[:, columns], two_sided, margin)

        x = x_c.reshape(-1, x_c.shape[-1])
        return encode_active(x, self.W_enc, b_enc, is_active, MAX_DENSITY)

    def _density(self) -> float:
        """The share of active latents where it is known before they are found; else 0."""
        return 0.0

    def _must_see_all_latents(self, x_c: Tensor) -> bool:
        hooked = is_hooked(self.hook_sae_acts_pre) or is_hooked(self.hook_sae_acts_post)
        unsupported = not is_supported(x_c, self.W_enc) or x_c.dtype != self.W_enc.dtype
        return hooked or unsupported or self._density() > MAX_DENSITY

    def decode(self, feature_acts: Tensor) -> Tensor:
        """x^ = z @ W_dec + b_dec, then SAELens's output normalisation and hook_z reshape.

        Args:
            feature_acts: (..., d_sae), signed, dense or sparse COO.

        Returns:
            (..., d_in), or (..., n_heads, d_head) where hook_z reshaping is on.
        """
        product = self._active_product(feature_acts)
        if product is None:
            is_dense = feature_acts.layout == torch.strided
            dense = feature_acts if is_dense else feature_acts.to_dense()
            product = self._unscaled(dense, AllLatents.of(dense)) @ self.W_dec
        return self._finish_decode(product)

    def _active_product(self, z: Tensor) -> Tensor | None:
        # z @ W_dec of the active latents; None where they are many, a gradient is asked for, or
        # the dense product says what is wrong
        wants_grad = torch.is_grad_enabled() and (z.requires_grad or self.W_dec.requires_grad)
        fits = z.shape[-1] == self.W_dec.shape[0] and z.dtype == self.W_dec.dtype
        is_flat = not z.is_sparse or z.sparse_dim() == 2  # the products take COO matrices alone
        if (
            wants_grad
            or not fits
            or not is_flat
            or z.layout not in (torch.strided, torch.sparse_coo)
        ):
            return None
        if z.is_sparse and has_csr_product(z, self.W_dec):
            flat, active_of = z, ActiveLatents.as_stored
        elif is_supported(z, self.W_dec):
            flat = z.coalesce() if z.is_sparse else z.reshape(-1, z.shape[-1])
            active_of = ActiveLatents.of
        else:
            return None
        if not is_sparse_enough(flat, MAX_DENSITY):
            return None
        latents, values = active_of(flat)
        product = latents.decode(self._unscaled(values, latents), self.W_dec)
        return product.view(*z.shape[:-1], self.cfg.d_in)

    def _finish_decode(self, product: Tensor) -> Tensor:
        sae_out_pre = self.hook_sae_recons(product + self.b_dec)
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(sae_out_pre), self.d_head)

    @torch.no_grad()
    def fold_W_dec_norm(self) -> None:
        """Give every decoder row unit norm and the encoder its norm.

        The output stays; latents are multiplied by the norm.
        """
        W_dec_norm = self.fold_and_get_W_dec_norm()
        for name in self._scales_with_pre_activation:
            param = getattr(self, name, None)  # an architecture need not have a threshold
            if param is not None:
                param.data.mul_(W_dec_norm.to(param.dtype))

    def process_state_dict_for_loading(self, state_dict: dict[str, Any]) -> None:
        """Check a file's tensors: see :func:`~sae_lens_signaware.saes.state.check_state`."""
        expected = self.state_dict()
        for name in self._zero_in_format_1 if self.cfg.format_version == 1 else ():
            shape, dtype = expected[name].shape, expected[name].dtype
            state_dict.setdefault(name, torch.zeros(shape, dtype=dtype))
        for_training = isinstance(self, TrainingSAE)
        check_state(state_dict, expected, for_training, self._training_state)
