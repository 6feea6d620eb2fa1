"""The model card: what it says of the measures that a folder has."""

import dataclasses

import torch

import sae_lens_signaware as signaware
from sae_lens_signaware.hub.model_card import _section
from tests.support.saes import D_IN, make_sae


def test_a_card_without_the_number_of_tokens_of_the_loss() -> None:
    sae = make_sae("sa_gsae")
    measured, _ = signaware.measure_quality(sae, torch.randn(64, D_IN), "noise")
    measured = dataclasses.replace(measured, loss_recovered=0.9)
    assert "| loss recovered | 0.9000 |" in _section("me/repo", "a", sae, measured)
    measured = dataclasses.replace(measured, loss_recovered_tokens=8192)
    assert "| loss recovered over 8,192 tokens | 0.9000 |" in _section(
        "me/repo", "a", sae, measured
    )
