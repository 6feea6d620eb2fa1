"""Dead latents become active again by AuxK or by a reset of their thresholds, and not otherwise."""

from typing import Any

import pytest
import torch
from sae_lens import SAETrainer

from tests.support.saes import D_IN, each_threshold_variant, make_training_sae
from tests.support.training import step_input, trainer_config

# Each latent is one direction of the input, and each token one direction of either sign.
TOKENS = 3.0 * torch.cat([torch.eye(D_IN), -torch.eye(D_IN)]).repeat(2, 1)
DEAD = torch.arange(D_IN) < 3
FAR = 100.0  # a threshold above every pre-activation


def sae_of_axes(architecture: str, tying: str, **kwargs: Any) -> Any:
    """A training SAE that reconstructs ``TOKENS``: latent i is the direction i."""
    off = {"auxk_coefficient": 0.0, "dead_threshold_reset": False, "threshold_reset_interval": 10}
    sae = make_training_sae(architecture, tying, d_sae=D_IN, **{**off, **kwargs})
    for name, param in sae.named_parameters():
        param.data = torch.eye(D_IN) if name.startswith("W_") else torch.zeros_like(param)
    sae.threshold.data.fill_(0.5)
    return sae


def train(sae: Any, n_steps: int = 60) -> torch.Tensor:
    """Train, and return the signs of the latents on ``TOKENS``."""
    cfg = trainer_config(n_steps, lr=1e-2, lr_end=1e-2)
    trainer: Any = SAETrainer(cfg, sae, iter(lambda: TOKENS, None))
    trainer.fit()
    sae.threshold.data.clamp_(min=0.0)  # the last step may leave some below 0; saving clamps too
    return sae.encode(TOKENS).sign()


def parameters_of(sae: Any, latents: torch.Tensor) -> list[torch.Tensor]:
    per_latent = [sae.W_enc.T, sae.W_dec, sae.threshold.T]
    return [param.detach()[latents].clone() for param in per_latent]


@each_threshold_variant
@pytest.mark.parametrize("auxk_coefficient", [0.0, 1.0])
def test_dead_latents_come_back(architecture: str, tying: str, auxk_coefficient: float) -> None:
    sae = sae_of_axes(architecture, tying, auxk_coefficient=auxk_coefficient)
    sae.W_enc.data[:, DEAD] *= 0.01
    before = parameters_of(sae, DEAD)
    signs = train(sae)
    assert torch.equal(signs[:, ~DEAD], TOKENS.sign()[:, ~DEAD])
    if auxk_coefficient:
        assert torch.equal(signs[:, DEAD], TOKENS.sign()[:, DEAD])
    else:  # no loss reaches them
        assert (signs[:, DEAD] == 0).all()
        for value, now in zip(before, parameters_of(sae, DEAD), strict=True):
            assert torch.equal(value, now)
    assert sae.n_threshold_resets == 0


@each_threshold_variant
@pytest.mark.parametrize("resets", [False, True])
def test_a_reset_makes_dead_latents_active(architecture: str, tying: str, resets: bool) -> None:
    sae = sae_of_axes(architecture, tying, dead_threshold_reset=resets)
    sae.threshold.data[:, DEAD] = FAR
    signs = train(sae)
    assert torch.equal(signs[:, ~DEAD], TOKENS.sign()[:, ~DEAD])
    if resets:
        assert torch.equal(signs[:, DEAD], TOKENS.sign()[:, DEAD])
        assert sae.n_threshold_resets == DEAD.sum()  # once each: they are active from then on
    else:
        assert (signs[:, DEAD] == 0).all()
        assert (sae.threshold[:, DEAD] == FAR).all()
        assert sae.n_threshold_resets == 0


@pytest.mark.parametrize("tying", ["full", "none"])
def test_a_reset_of_bi_jumprelu_heeds_b_mag(tying: str) -> None:
    sae = make_training_sae(
        "bi_jumprelu",
        tying,
        dead_threshold_reset=True,
        threshold_reset_interval=1,
        dead_threshold_decay=0.0,
        jumprelu_init_threshold=0.1,
    )
    sae.threshold.data.fill_(FAR)
    b_mag = torch.tensor([-1.0, -0.3, 0.04, 0.5])
    sae.b_mag.data[0, :4] = b_mag
    dead = torch.arange(sae.cfg.d_sae) < 4
    x = torch.randn(8, D_IN)
    sae.training_forward_pass(step_input(x, dead_neuron_mask=dead, n_training_steps=1))
    # |z| = |h| + b_mag is 0.1 where a latent becomes active; a threshold is not below 0
    expected = torch.tensor([1.1, 0.4, 0.06, 0.0]).expand(sae.threshold.shape[0], -1)
    torch.testing.assert_close(sae.threshold.data[:, :4], expected)
    assert (sae.threshold[:, 4:] == FAR).all()
    assert sae.n_threshold_resets == 4
