"""One strict checker for YAML, mapping and constructor, and strict models for the other files."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import Field
from sae_lens import TrainingSAEConfig
from sae_lens.registry import get_sae_training_class

from sae_lens_signaware.checks import ConfigError, InvalidInputError
from sae_lens_signaware.training.config import load_runner_config
from sae_lens_signaware.training.strict import (
    OF_COMMAND,
    StrictModel,
    read_config,
    read_yaml,
    validated,
)
from tests.support.runners import write
from tests.support.saes import THRESHOLD_ARCHITECTURES, TRAINING_CONFIGS, training_config


@pytest.mark.parametrize("architecture", TRAINING_CONFIGS)
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("d_in", "16", "d_in must be an integer, got '16': it is a text; write the number without"),
        ("d_sae", 32.0, "d_sae must be an integer, got 32.0: write 32"),
        ("d_sae", True, "d_sae must be an integer, got True"),
        ("apply_b_dec_to_input", "yes", "apply_b_dec_to_input must be true or false, got 'yes'"),
        ("use_sparse_activations", 1, "use_sparse_activations must be true or false, got 1"),
        ("decoder_init_norm", "4", "decoder_init_norm must be a number or null, got '4': it is a"),
        ("decoder_init_norm", math.inf, "decoder_init_norm must be a number or null, got inf"),
        ("dead_after_tokens", 2.0, "dead_after_tokens must be an integer or null, got 2.0"),
        ("normalize_activations", "layernorm", "normalize_activations must be one of none, exp"),
        ("dtype", 32, "dtype must be a text or a torch.dtype, got 32"),
        ("device", ["cpu"], "device must be a text or a torch.device, got ['cpu']"),
        ("metadata", [1], "metadata must be a mapping, without the names of its own methods"),
    ],
)
def test_yaml_dict_and_constructor_refuse_the_same_with_the_same_line(
    architecture: str, field: str, value: Any, message: str, tmp_path: Path
) -> None:
    values = {"d_in": 16, "d_sae": 32, field: value}
    with pytest.raises(InvalidInputError) as constructor:
        get_sae_training_class(architecture)[1](**values)
    # SAELens makes an object of the metadata itself, and raises a TypeError where it cannot
    with pytest.raises(TypeError if field == "metadata" else InvalidInputError) as mapping:
        TrainingSAEConfig.from_dict({"architecture": architecture, **values})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"sae": {"architecture": architecture, **values}}))
    with pytest.raises(InvalidInputError) as read:
        load_runner_config(path)
    assert str(constructor.value).startswith(message)
    if field != "metadata":
        assert str(mapping.value) == str(constructor.value)
    assert str(read.value) == f"sae.{constructor.value}"


@pytest.mark.parametrize("architecture", THRESHOLD_ARCHITECTURES)
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dead_threshold_reset", "yes", "dead_threshold_reset must be true or false, got 'yes'"),
        ("target_l0", "4", "target_l0 must be a number or null, got '4': it is a text"),
        ("target_l0_rate", math.inf, "target_l0_rate must be a number, got inf"),
        ("target_l0_rate", 0.0, "target_l0_rate must be a number above 0, got 0.0"),
        ("target_l0", 0.0, "target_l0 must be null or a number above 0 and at most d_sae = "),
        ("target_l0", 1e9, "target_l0 must be null or a number above 0 and at most d_sae = "),
        ("dead_threshold_decay", 1.0, "dead_threshold_decay must be a number from 0 to below 1, "),
        ("threshold_reset_interval", 0, "threshold_reset_interval must be an integer >= 1, got 0"),
    ],
)
def test_fields_of_thresholds_are_checked_alike(
    architecture: str, field: str, value: Any, message: str, tmp_path: Path
) -> None:
    test_yaml_dict_and_constructor_refuse_the_same_with_the_same_line(
        architecture, field, value, message, tmp_path
    )


def test_two_sided_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sae\.two_sided must be true or false, got 'yes'"):
        load_runner_config(write(tmp_path, sae={"two_sided": "yes"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": "0.001"}, "lr must be a number, got '0.001': it is a text; write the number"),
        ({"training_tokens": 2e6}, "training_tokens must be an integer, got 2000000.0: write 2000"),
        ({"streaming": "no"}, "streaming must be true or false, got 'no'"),
        ({"lr_end": math.nan}, "lr_end must be a number or null, got nan"),
        ({"seqpos_slice": [1, "2"]}, "seqpos_slice must be a list, each item an integer or null"),
        ({"exclude_special_tokens": [1, True]}, "must be true or false or a list, each item an i"),
        ({"model_kwargs": {1: 2}}, "model_kwargs must be a mapping with texts as keys, got {1: 2}"),
        (
            {"prefetch_llm_batches": None},
            "prefetch_llm_batches must be true or false or an integer",
        ),
        ({"sequence_separator_token": "cls"}, "must be an integer or one of bos, eos, sep or null"),
        ({"logger": {"log_to_wandb": 0}}, "logger.log_to_wandb must be true or false, got 0"),
        ({"logger": False}, "logger: must be a mapping of fields, got False"),
        ({"dtype": 16}, "dtype must be a text or a torch.dtype, got 16"),
    ],
)
def test_the_runners_own_fields_are_checked_as_well(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        load_runner_config(write(tmp_path, changes))
    assert message in str(error.value)


def test_what_fits_is_converted(tmp_path: Path) -> None:
    changes = {
        "lr": 1,
        "seqpos_slice": [1, None],
        "exclude_special_tokens": [3],
        "sequence_separator_token": 5,
        "model_kwargs": {"a": {"b": [1]}},
        "prefetch_llm_batches": 2,
    }
    cfg = load_runner_config(write(tmp_path, changes, {"metadata": {"note": "x"}, "target_l0": 4}))
    assert {name: getattr(cfg, name) for name in changes} == {**changes, "seqpos_slice": (1, None)}
    assert type(cfg.lr) is type(cfg.sae.target_l0) is float
    assert type(cfg.prefetch_llm_batches) is int
    assert cfg.sae.metadata.note == "x"
    assert training_config("sa_gsae", dtype=torch.float32, device=torch.device("cpu")).d_in == 16


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "10e-4", ".1e-2", "+1e-3", "0.001"])
def test_yaml_floats_need_no_dot(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"lr: {text}\nname: '{text}'\nhash: 1e3a\nversion: 1e\n")
    values = read_yaml(path)
    assert values == {"lr": 0.001, "name": text, "hash": "1e3a", "version": "1e"}
    assert type(values["lr"]) is float


class _Part(StrictModel):
    size: int
    pairs: tuple[tuple[str, float], ...] = ()


class _Whole(StrictModel):
    parts: dict[str, _Part]
    free: dict[str, Any] = Field(default={})
    last: _Part | None = None


def test_a_strict_model_takes_integers_for_floats_and_lists_for_tuples() -> None:
    values = {"parts": {"a": {"size": 1, "pairs": [["x", 2]]}}, "free": {"b": [1]}, "last": None}
    whole = validated(_Whole, values)
    assert whole.parts["a"].pairs == (("x", 2.0),)
    assert whole.free == {"b": [1]}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"size": "1"},
            "size: Input should be a valid integer, got '1': it is a text; write the nu",
        ),
        ({"size": 1.0}, "size: Input should be a valid integer, got 1.0"),
        ({"size": True}, "size: Input should be a valid integer, got True"),
        (
            {"size": 1, "pairs": [["x", "2"]]},
            "pairs.0.1: Input should be a valid number, got '2': ",
        ),
        ({"size": 1, "pairs": [["x", math.inf]]}, "pairs.0.1: Input should be a finite number"),
        ({"size": 1, "sizes": 2}, "sizes: unknown field; did you mean 'size'?"),
        ({}, "size: missing; it has no default"),
    ],
)
def test_a_strict_model_refuses_in_one_line(part: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        validated(_Whole, {"parts": {"a": part}})
    assert str(error.value).startswith(f"parts.a.{message}")
    with pytest.raises(ConfigError) as error:
        validated(_Whole, {"parts": {}, "last": part})
    assert str(error.value).startswith(f"last.{message}")


def test_checks_import_nothing_heavy() -> None:
    code = "import sys, sae_lens_signaware.checks; print({'torch', 'sae_lens'} & set(sys.modules))"
    # as in the package's own commands, which leave the registration for later
    command = [sys.executable, "-c", f"import sys; sys.argv[0] = 'sae-lens-signaware'; {code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("architecture", "coefficient"),
    [("sa_gsae", "l1_coefficient"), ("bi_jumprelu", "l0_coefficient")],
)
def test_a_coefficient_of_0_cannot_be_steered(architecture: str, coefficient: str) -> None:
    training_config(architecture, target_l0=None, **{coefficient: 0.0})
    with pytest.raises(InvalidInputError, match=f"{coefficient} must be a number above 0 where"):
        training_config(architecture, target_l0=4.0, **{coefficient: 0.0})
    quadratic = {"jumprelu_sparsity_loss_mode": "quadratic"}  # holds L0 by itself
    if architecture == "bi_jumprelu":
        training_config(architecture, target_l0=4.0, l0_coefficient=0.0, **quadratic)


@pytest.mark.parametrize("command", OF_COMMAND)
def test_a_config_of_another_command_is_named(command: str, tmp_path: Path) -> None:
    configs = {
        "train": "smollm2-135m-mlp_out-sa_gsae.yaml",
        "sweep": "sweep-smollm2-135m.yaml",
        "protocol": "protocol-a-polarity-dial.yaml",
    }
    for other, name in configs.items():
        path = Path(__file__).parent.parent / "configs" / name
        if other == command:
            assert read_config(path, command) == read_yaml(path)
        else:
            with pytest.raises(ConfigError, match=rf"it is for {other}, and not for {command}$"):
                read_config(path, command)
    path = tmp_path / "other.yaml"
    path.write_text("sae: {}")  # what is missing there is for the command to say
    assert read_config(path, command) == {"sae": {}}
