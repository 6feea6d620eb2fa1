"""Folds into the weights leave the output, and the latents up to their scale."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sae_lens_signaware.checks import InvalidInputError
from tests.architectures import (
    D_IN,
    config,
    each_variant,
    inference_sae,
    inputs,
    saved,
    training_sae,
)

KINDS = (inference_sae, training_sae)


def make_one(make: Any, variant: str, **fields: Any) -> tuple[Any, Tensor, Tensor, Tensor]:
    """An SAE in float64 with uneven decoder norms, inputs, and their latents and output."""
    sae = make(variant, 0.4, dtype="float64", **fields)
    scale = torch.linspace(0.3, 3.0, sae.cfg.d_sae, dtype=torch.float64)[:, None]
    sae.W_dec.data.mul_(scale)
    x = 2 * inputs(dtype=torch.float64)
    with torch.no_grad():
        z, output = sae.encode(x), sae(x)
    assert (z != 0).sum() > 64
    return sae, x, z, output


def close(found: Tensor, wanted: Tensor) -> None:
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@each_variant
def test_the_norm_of_the_decoder(variant):
    for make in KINDS:
        sae, x, z, output = make_one(make, variant)
        norm = sae.W_dec.detach().norm(dim=1)
        rescales = getattr(sae.cfg, "rescale_acts_by_decoder_norm", None)
        if rescales is False:  # its choice of latents depends on the norms
            with pytest.raises(NotImplementedError):
                sae.fold_W_dec_norm()
            continue
        sae.fold_W_dec_norm()
        close(sae.W_dec.norm(dim=1), torch.ones_like(norm))
        close(sae.encode(x), z if rescales else z * norm)
        close(sae(x), output)


@each_variant
def test_the_scaling_factor_of_the_activations(variant):
    fields = {"normalize_activations": "expected_average_only_in"}
    for make in KINDS:
        sae, x, z, output = make_one(make, variant, **fields)
        sae.fold_activation_norm_scaling_factor(2.5)
        assert sae.cfg.normalize_activations == "none"
        close(sae(x / 2.5), output / 2.5)
        rescales = getattr(sae.cfg, "rescale_acts_by_decoder_norm", False)
        close(sae.encode(x / 2.5), z / 2.5 if rescales else z)


def test_the_running_threshold_is_scaled_with_the_activations():
    x = inputs(dtype=torch.float64)
    for rescales in (True, False):
        fields = {"rescale_acts_by_decoder_norm": rescales, "dtype": "float64"}
        sae = training_sae("bi_batchtopk", **fields)
        before = saved(sae)
        sae.fold_activation_norm_scaling_factor(2.5)
        close(saved(sae)(x / 2.5), before(x) / 2.5)


@each_variant
def test_the_whitening_of_the_activations(variant):
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(D_IN, D_IN, generator=generator, dtype=torch.float64)
    matrix, mean = matrix + 3 * torch.eye(D_IN), torch.linspace(-1, 1, D_IN, dtype=torch.float64)
    inverse, whitened = torch.linalg.inv(matrix), {"normalize_activations": "covariance_whitening"}
    for make in KINDS:
        for centred in (True, False):
            if "sa_gsae" in variant and not centred:
                continue
            fields = whitened | {"apply_b_dec_to_input": centred}
            sae, z_in, z, output = make_one(make, variant, **fields)
            sae.fold_activation_whitening(mean, matrix, inverse)
            x = z_in @ inverse + mean  # whose whitening is z_in
            close(sae.encode(x), z)
            close(sae(x), output @ inverse + mean)


def test_the_gate_has_no_bias_that_takes_up_the_shift_of_a_whitening():
    fields = {"normalize_activations": "covariance_whitening", "apply_b_dec_to_input": False}
    with pytest.raises(InvalidInputError, match=r"^apply_b_dec_to_input must be true with"):
        config("sa_gsae-full", **fields)
