"""The bias of each side, at first and of a dead latent: of every architecture that has one."""

import math
from typing import Any

import pytest
import torch
from sae_lens import TrainingSAE

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.saes.config import minus_bias_init_of
from tests.support.saes import training_config
from tests.support.training import step_input

SIDE_BIASED = ("bi_jumprelu", "bi_batchtopk", "bi_matryoshka_batchtopk", "bi_topk")
each_side_biased = pytest.mark.parametrize("architecture", SIDE_BIASED)


def config(architecture: str, d_in: int = 8, **fields: Any) -> Any:
    widths = {"matryoshka_widths": [8, 16]} if architecture == "bi_matryoshka_batchtopk" else {}
    return training_config(architecture, d_in=d_in, d_sae=16, **widths, **fields)


@each_side_biased
@pytest.mark.parametrize(
    ("d_in", "l0", "expected"),
    [
        (576, 8, -2.0),  # sqrt(72) / 2 is above 2
        (64, 4, -2.0),
        (64, 16, -1.0),
        (8, 4, -math.sqrt(2) / 2),
        (8, 16, -math.sqrt(2) / 4),
    ],
)
def test_the_bias_is_half_the_size_of_a_latent_and_at_most_2(
    architecture: str, d_in: int, l0: int, expected: float
) -> None:
    asked = {"target_l0": float(l0)} if architecture == "bi_jumprelu" else {"k": l0}
    assert minus_bias_init_of(config(architecture, d_in, **asked)) == pytest.approx(expected)


def test_without_an_l0_that_is_asked_for_it_is_2() -> None:
    assert minus_bias_init_of(config("bi_jumprelu", target_l0=None)) == -2.0


@each_side_biased
@pytest.mark.parametrize("value", [0.0, -0.5, -7.0])
def test_a_value_of_ones_own_is_taken_as_it_is(architecture: str, value: float) -> None:
    sae: Any = TrainingSAE.from_dict(config(architecture, minus_bias_init=value).to_dict())
    torch.testing.assert_close(sae.b_mag[0] + sae.b_enc, torch.zeros(16))
    torch.testing.assert_close(sae.b_mag[0] - sae.b_enc, torch.full((16,), value))
    if architecture == "bi_jumprelu":  # a z of jumprelu_init_threshold is at the threshold
        expected = torch.full_like(sae.threshold, sae.cfg.jumprelu_init_threshold)
        torch.testing.assert_close(sae.threshold + sae.b_mag, expected)


@each_side_biased
@pytest.mark.parametrize("decay", [0.25, 0.0])
def test_a_bias_of_both_sides_below_0_falls_away_from_a_dead_latent(
    architecture: str, decay: float
) -> None:
    cfg = config(architecture, dead_threshold_decay=decay, dead_after_tokens=64)
    sae: Any = TrainingSAE.from_dict(cfg.to_dict())
    sae.b_mag.data.fill_(-1.0)
    sae.b_mag.data[0, 2:4] = 0.5
    sae.tokens_since_active[:4] = torch.tensor([64, 63, 64, 63])
    with torch.no_grad():
        sae._start_step(step_input(torch.zeros(2, 8)))
    above = 0.0 if architecture == "bi_topk" else 0.5  # there it is at most 0
    assert sae.b_mag[0].tolist() == [decay - 1.0, -1.0, above, above, *[-1.0] * 12]


@each_side_biased
@pytest.mark.parametrize("value", [0.5, math.nan, -math.inf, -1e39])
def test_a_wrong_value_is_one_line(architecture: str, value: float) -> None:
    with pytest.raises(
        InvalidInputError,
        match=r"minus_bias_init must be (null or a number <= 0|a number or null), got",
    ):
        config(architecture, minus_bias_init=value)
