"""Configs of training SAEs: what they refuse, in one line, and that every field is documented."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sae_lens import StandardTrainingSAEConfig, TrainingSAEConfig

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.training.config import build_runner_config, parse_overrides
from sae_lens_signaware.training.measured_run import train_and_measure
from sae_lens_signaware.training.values import check_ramps_of_l0, check_values
from tests.support.runners import BASE, runner_config
from tests.support.saes import (
    each_architecture,
    each_threshold_architecture,
    make_training_sae,
    training_config,
)


@each_threshold_architecture
def test_a_coefficient_of_zero_cannot_be_steered(architecture: str) -> None:
    name = f"{make_training_sae(architecture)._sparsity_coefficient}_coefficient"
    training_config(architecture, **{name: 0.0})
    with pytest.raises(
        InvalidInputError, match=f"^{name} must be a number above 0 where target_l0"
    ):
        training_config(architecture, target_l0=4.0, **{name: 0.0})


SA, BI = "sa_gsae", "bi_jumprelu"


def test_a_loss_that_holds_l0_by_itself_may_warm_up_until_the_end() -> None:
    args = {"target_l0": 4.0, "l0_warm_up_steps": 100}
    check_ramps_of_l0(training_config(BI, jumprelu_sparsity_loss_mode="quadratic", **args), 100)
    with pytest.raises(InvalidInputError, match=r"sae\.l0_warm_up_steps must be below the 100"):
        check_ramps_of_l0(training_config(BI, **args), 100)


@pytest.mark.parametrize("flags", [["--minus_bias_init", "-1.5e-1"], ["--minus_bias_init=-0.15"]])
def test_a_negative_number_with_an_exponent_is_a_value(flags: list[str]) -> None:
    config_class = type(training_config(BI))
    assert parse_overrides(config_class, flags) == {"sae": {"minus_bias_init": -0.15}}


@pytest.mark.parametrize(
    ("architecture", "kwargs", "message"),
    [
        (SA, {"tying": "both"}, "polarity_tying must be one of full, radii, none, got 'both'"),
        (BI, {"tying": "radii"}, "polarity_tying must be one of full, none, got 'radii'"),
        (SA, {"threshold_init": -0.1}, "threshold_init must be a number >= 0, got -0.1"),
        (SA, {"threshold_init": 1e300}, "threshold_init must be at most 3.4e+38, got 1e+300"),
        (BI, {"jumprelu_init_threshold": -1.0}, "jumprelu_init_threshold must be a number >= 0"),
        (SA, {"target_l0": 25.0}, "at most d_sae = 24, got 25.0"),
        (BI, {"target_l0": 0.0}, "target_l0 must be null or a number above 0"),
        (SA, {"aux_coefficient": -1.0}, "aux_coefficient must be a number >= 0, got -1.0"),
        (BI, {"auxk_coefficient": -1.0}, "auxk_coefficient must be a number >= 0, got -1.0"),
        (SA, {"sparsity_penalty": "l0"}, "sparsity_penalty must be one of l1, log_sum, got 'l0'"),
        (SA, {"threshold_reset_interval": 0}, "threshold_reset_interval must be an integer >= 1"),
        (SA, {"tying": "none", "two_sided": False}, "'full' where two_sided is false, got 'none'"),
        (BI, {"jumprelu_bandwidth": 0.0}, "jumprelu_bandwidth must be a number above 0, got 0.0"),
        (
            BI,
            {"jumprelu_sparsity_loss_mode": "l2"},
            "jumprelu_sparsity_loss_mode must be one of step, tanh, quadratic, got 'l2'",
        ),
        (BI, {"jumprelu_sparsity_loss_mode": "quadratic"}, "target_l0 must be set"),
        (SA, {"d_sae": 0}, "d_sae must be a positive integer, got 0"),
        (
            SA,
            {"normalize_activations": "covariance_whitening", "apply_b_dec_to_input": False},
            "apply_b_dec_to_input must be true",
        ),
    ],
)
def test_wrong_configs_give_one_line(
    architecture: str, kwargs: dict[str, Any], message: str
) -> None:
    kwargs = {"tying": "full", **kwargs}
    with pytest.raises(ValueError, match="must be") as error:
        training_config(architecture, **kwargs)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@each_architecture
def test_every_config_field_is_documented(architecture: str) -> None:
    cfg = training_config(architecture)
    own = {f.name for f in dataclasses.fields(cfg)} - {
        f.name for f in dataclasses.fields(TrainingSAEConfig)
    }
    # Python 3.13 takes a docstring's indentation off, the others do not
    doc = inspect.getdoc(type(cfg)) or ""
    for name in own:
        assert f"\n    {name}: " in doc, name


PER_TOKEN = "sae.normalize_activations must be none, expected_average_only_in or covariance_white"
WIDTHS = "sae.matryoshka_widths must be at least one ascending integer from 1 to d_sae = 32, got "
TARGET = "sae.target_l0 must be above 0 and at most d_sae, 32, for the quadratic loss, got "
QUADRATIC = {"architecture": "jumprelu", "jumprelu_sparsity_loss_mode": "quadratic"}


@pytest.mark.parametrize(
    ("sae", "message"),
    [
        ({"architecture": "matryoshka_batchtopk", "k": 4}, f"{WIDTHS}[]"),
        (
            {"architecture": "matryoshka_batchtopk", "k": 4, "matryoshka_widths": [8, 64]},
            f"{WIDTHS}[8, 64]",
        ),
        (QUADRATIC, f"{TARGET}None"),
        (QUADRATIC | {"target_l0": 33.0}, f"{TARGET}33.0"),
        ({"architecture": "jumprelu", "jumprelu_bandwidth": 0.0}, "sae.jumprelu_bandwidth must be"),
        ({"architecture": "topk", "k": 4, "normalize_activations": "layer_norm"}, PER_TOKEN),
        (
            {"architecture": "abstopk", "k": 4, "normalize_activations": "constant_norm_rescale"},
            PER_TOKEN,
        ),
        (
            {"architecture": "gated", "dtype": "bfloat16"},
            "sae.dtype must be as wide as that of the activations, torch.float32, for SAELens's g",
        ),
    ],
)
def test_what_saelens_stops_at_in_its_own_saes_is_one_line(
    sae: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError) as error:
        build_runner_config({**BASE, "sae": {"d_in": 16, "d_sae": 32, **sae}}, "config")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "sae",
    [
        {"architecture": "matryoshka_batchtopk", "k": 4, "matryoshka_widths": [8, 16]},
        QUADRATIC | {"target_l0": 32.0},
        {"architecture": "topk", "k": 4, "normalize_activations": "expected_average_only_in"},
        {"architecture": "bi_batchtopk", "k": 4, "normalize_activations": "layer_norm"},
        {"architecture": "gated", "dtype": "float64"},
        {"architecture": "sa_gsae", "dtype": "bfloat16"},
    ],
)
def test_what_saelens_trains_is_taken(sae: dict[str, Any]) -> None:
    build_runner_config({**BASE, "sae": {"d_in": 16, "d_sae": 32, **sae}}, "config")


def test_evaluations_of_wandb_need_a_batch() -> None:
    values = {**BASE, "n_eval_batches": 0}
    build_runner_config(values, "config")
    with pytest.raises(InvalidInputError, match=r"^n_eval_batches must be at least 1 where logger"):
        build_runner_config({**values, "logger": {"log_to_wandb": True}}, "config")


@dataclasses.dataclass
class OptionalK(StandardTrainingSAEConfig):
    k: int | None = None


def test_an_own_architecture_may_leave_k_out(tmp_path: Path) -> None:
    check_values(runner_config(OptionalK(d_in=16, d_sae=32), tmp_path))
    with pytest.raises(InvalidInputError, match=r"^sae\.k must be above 0 and at most d_sae, 32"):
        check_values(runner_config(OptionalK(d_in=16, d_sae=32, k=33), tmp_path))


@pytest.mark.parametrize("seed", ["0", None, 1.5])
def test_a_seed_that_is_no_integer_is_one_line(seed: Any, tmp_path: Path) -> None:
    cfg = runner_config(training_config("sa_gsae"), tmp_path, seed=seed)
    with pytest.raises(InvalidInputError, match=f"^seed must be an integer, got {seed!r}"):
        train_and_measure(cfg, Console(quiet=True))
