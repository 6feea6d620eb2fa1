"""A YAML becomes SAELens's runner config, or one line that names what is wrong in it."""

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from sae_lens import LanguageModelSAERunnerConfig
from sae_lens.llm_sae_training_runner import _parse_cfg_args

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.training.config import build_runner_config
from sae_lens_signaware.training.yaml_files import read_yaml

SAE = {"architecture": "bi_jumprelu", "d_in": 16, "d_sae": 96}
CONFIGS = sorted(Path(__file__).parent.parent.glob("configs/*.yaml"))
TRAINED = [path for path in CONFIGS if "cells" not in read_yaml(path)]


def build(changes: dict[str, Any] | None = None, flags: list[str] | None = None, **sae: Any) -> Any:
    values = {"model_name": "tiny", "sae": {**SAE, **sae}, "logger": {"log_to_wandb": False}}
    return build_runner_config({**values, **(changes or {})}, "test", flags or [])


def load(path: Path) -> Any:
    return build_runner_config(read_yaml(path), str(path))


def test_a_file_becomes_saelens_config(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "lr: 1e-3\nseqpos_slice: [1, -1]\nmodel_kwargs: {a: 1}\n"
        "sae: {architecture: sa_gsae, d_in: 16, d_sae: 32, target_l0: 4}\n"
        "logger: {log_to_wandb: false, run_name: mine}\n"
    )
    cfg = load(path)
    assert isinstance(cfg, LanguageModelSAERunnerConfig)
    assert cfg.lr == 1e-3  # which YAML 1.1 reads as a text
    assert cfg.seqpos_slice == (1, -1)
    assert cfg.model_kwargs == {"a": 1}
    assert (cfg.sae.architecture(), cfg.sae.d_in, cfg.sae.target_l0) == ("sa_gsae", 16, 4.0)
    assert isinstance(cfg.sae.target_l0, float)
    assert (cfg.logger.log_to_wandb, cfg.logger.run_name) == (False, "mine")


def test_what_is_left_out_has_saelens_defaults() -> None:
    cfg, default = build(), LanguageModelSAERunnerConfig(sae=build().sae)
    assert cfg.lr == default.lr
    assert cfg.train_batch_size_tokens == default.train_batch_size_tokens


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_every_config_of_the_repository_is_one(path: Path) -> None:
    assert load(path).sae.d_sae > 0


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (["--lr", "3e-4"], "lr", 3e-4),
        (["--lr=2e-4"], "lr", 2e-4),
        (["--d_sae", "128"], "sae.d_sae", 128),
        (["--target_l0", "8"], "sae.target_l0", 8.0),
        (["--log_to_wandb", "true"], "logger.log_to_wandb", True),
        (["--output_path", "null"], "output_path", None),
        (["--checkpoint_path=None"], "checkpoint_path", None),
        (["--seqpos_slice", "1", "5"], "seqpos_slice", (1, 5)),
        (["--model_kwargs", '{"b": 2}'], "model_kwargs", {"b": 2}),
        (["--exclude_special_tokens", "true"], "exclude_special_tokens", True),
        (["--dtype", "bfloat16"], "dtype", "bfloat16"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_flags_are_saelens_and_win(flags: list[str], field: str, value: Any) -> None:
    found = build({"lr": 1e-3}, flags)
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_a_flag_chooses_the_architecture_and_its_fields() -> None:
    cfg = build(flags=["--architecture", "bi_batchtopk", "--k", "5"])
    assert (cfg.sae.architecture(), cfg.sae.k) == ("bi_batchtopk", 5.0)
    with pytest.raises(InvalidInputError, match=r"sae\.l0_coefficient: unknown field"):
        build(flags=["--architecture", "bi_batchtopk"], l0_coefficient=1.0)


def test_saelens_own_parser_reads_the_same_flags() -> None:
    flags = ["--architecture", "bi_jumprelu", "--d_in", "16", "--d_sae", "96", "--lr", "2e-4"]
    with contextlib.redirect_stderr(io.StringIO()):
        theirs, ours = _parse_cfg_args([*flags, "--log_to_wandb", "false"]), build(flags=flags)
    assert theirs.sae.to_dict() == ours.sae.to_dict()
    assert theirs.lr == ours.lr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-3}, "learning_rate: unknown field"),
        ({"d_sae": 3}, "d_sae: unknown field"),
        ({"hook_nam": "x"}, "hook_nam: unknown field; did you mean 'hook_name'?"),
        ({"lr": "fast"}, "lr: "),
        ({"lr": float("nan")}, "lr: "),
        ({"lr": float("inf")}, "lr: "),
        ({"training_tokens": 1.5}, "training_tokens: "),
        ({"training_tokens": True}, "training_tokens: "),
        ({"streaming": "yes"}, "streaming: "),
        ({"model_name": 3}, "model_name: "),
        ({"seqpos_slice": 3}, "seqpos_slice: "),
        ({"context_size": -1}, "context_size"),
        ({"exclude_special_tokens": ["a"]}, "exclude_special_tokens: "),
        ({"sae": None}, "sae.architecture: missing in test"),
        ({"sae": 3}, "sae: must be a mapping"),
        ({"sae": {"architecture": "bi_jumprelu", "d_in": 16}}, "sae.d_sae: missing"),
        ({"sae": {**SAE, "architecture": "bi_jumpreu"}}, "did you mean 'bi_jumprelu'?"),
        ({"sae": {**SAE, "target_lo": 4}}, "sae.target_lo: unknown field; did you mean"),
        ({"sae": {**SAE, "target_l0": -1}}, "sae.target_l0 must be"),
        ({"sae": {**SAE, "target_l0": "4"}}, "sae.target_l0: "),
        ({"sae": {**SAE, "d_in": 16.5}}, "sae.d_in: "),
        ({"sae": {**SAE, "polarity_tying": "half"}}, "sae.polarity_tying: "),
        ({"logger": {"wandb_projet": "x"}}, "logger.wandb_projet: unknown field; did you mean"),
        ({"logger": {"log_to_wandb": "no"}}, "logger.log_to_wandb: "),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_values_are_one_line_that_names_the_field(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError) as error:
        build(changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning_rate", "1"], "--learning_rate: unknown flag"),
        (["--d_sea", "48"], "did you mean '--d_sae'?"),
        (["--lr", "fast"], "--lr"),
        (["--d_sae", "4.5"], "--d_sae"),
        (["--k", "5"], "--k: unknown flag"),
        (["--architecture", "bi_topkk"], "did you mean 'bi_topk'?"),
        (["--architecture"], "--architecture"),
    ],
    ids=lambda value: str(value),
)
def test_wrong_flags_are_one_line_that_names_the_flag(flags: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        build(flags=flags)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1\n- 2", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("a: 2024-13-01", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("\xff", "cannot be read"),
    ],
)
def test_a_file_that_is_no_config(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInputError, match=message) as error:
        read_yaml(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")


def test_a_saved_config_is_one_again(tmp_path: Path) -> None:
    saved = yaml.safe_load(yaml.safe_dump({"lr": 1e-3, "sae": SAE}))
    assert build(saved).lr == 1e-3
