"""Strict YAML: what is right is built, what is wrong is named in one line."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import Field
from sae_lens import TrainingSAE, TrainingSAEConfig
from sae_lens.llm_sae_training_runner import _parse_cfg_args
from sae_lens.registry import get_sae_training_class

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import ConfigError, InvalidInputError
from sae_lens_signaware.training.config import load_runner_config
from sae_lens_signaware.training.strict import StrictModel, read_yaml, validated
from tests.support.runners import BASE
from tests.support.saes import each_architecture, training_config

CONFIGS = sorted(
    path
    for path in (Path(__file__).parent.parent / "configs").glob("*.yaml")
    if "sae" in yaml.safe_load(path.read_text())  # those of other commands name several, or none
)


def write(tmp_path: Path, changes: dict[str, Any] | None = None, sae: Any = None) -> Path:
    values = {**BASE, **(changes or {}), "sae": {**BASE["sae"], **(sae or {})}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_yaml_becomes_a_saelens_runner_config(tmp_path: Path) -> None:
    cfg = load_runner_config(write(tmp_path, {"seqpos_slice": [1, None]}))
    assert type(cfg.sae) is signaware.SAGatedTrainingSAEConfig
    assert cfg.sae.target_l0 == 4.0
    assert cfg.lr == 1e-3
    assert cfg.seqpos_slice == (1, None)
    assert cfg.logger.log_to_wandb is False


def test_overrides_are_saelens_flags(tmp_path: Path) -> None:
    flags = [
        "--lr",
        "3e-4",
        "--d_sae",
        "64",
        "--polarity_tying",
        "none",
        "--streaming",
        "false",
        "--run_name",
        "x",
    ]
    cfg = load_runner_config(write(tmp_path), [*flags, "--model_kwargs", '{"a": 1}'])
    assert (cfg.lr, cfg.streaming, cfg.logger.run_name) == (3e-4, False, "x")
    assert (cfg.sae.d_sae, cfg.sae.polarity_tying, cfg.sae.target_l0) == (64, "none", 4.0)
    assert cfg.model_kwargs == {"a": 1}


def test_architecture_flag_changes_which_fields_exist(tmp_path: Path) -> None:
    cfg = load_runner_config(
        write(tmp_path), ["--architecture", "bi_jumprelu", "--jumprelu_bandwidth", "0.3"]
    )
    assert type(cfg.sae) is signaware.BiJumpReLUTrainingSAEConfig
    assert cfg.sae.jumprelu_bandwidth == 0.3
    with pytest.raises(ConfigError, match=r"sae\.target_l0: unknown field"):
        load_runner_config(write(tmp_path), ["--architecture", "gated"])


def test_text_floats_of_yaml_are_floats(tmp_path: Path) -> None:
    # YAML 1.1 reads 3e-4 as a text
    path = write(tmp_path)
    path.write_text(path.read_text().replace("lr: 0.001", "lr: 3e-4"))
    assert load_runner_config(path).lr == 3e-4


def test_a_saved_runner_cfg_json_loads_again(tmp_path: Path) -> None:
    cfg = load_runner_config(write(tmp_path))
    saved = tmp_path / "runner_cfg.json"
    saved.write_text(json.dumps(cfg.to_dict()))
    again = load_runner_config(saved)
    assert again.sae.target_l0 == 4.0
    assert again.to_dict()["lr"] == cfg.lr


@pytest.mark.parametrize(
    ("changes", "sae", "flags", "message"),
    [
        ({"learning_rat": 1}, {}, [], "learning_rat: unknown field"),
        ({"model_nam": "x"}, {}, [], "model_nam: unknown field; did you mean 'model_name'?"),
        ({}, {"l1_coeficient": 1}, [], "sae.l1_coeficient: unknown field; did you mean 'l1_coeff"),
        ({"logger": {"wandb": 1}}, {}, [], "logger.wandb: unknown field"),
        ({"lr": "fast"}, {}, [], "lr must be a number, got 'fast'"),
        ({"context_size": 1.5}, {}, [], "context_size must be an integer, got 1.5"),
        ({}, {"polarity_tying": "half"}, [], "sae.polarity_tying must be one of full, radii"),
        ({}, {"threshold_init": -1}, [], "sae.threshold_init must be a number >= 0, got -1"),
        ({}, {"target_l0": 33}, [], "at most d_sae = 32, got 33"),
        ({}, {"architecture": "sa_gase"}, [], "unknown value 'sa_gase'; did you mean 'sa_gsae'?"),
        ({}, {}, ["--l1_coef", "2"], "--l1_coef: unknown flag; did you mean '--l1_coefficient'?"),
        ({}, {}, ["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        ({"sae": None}, {}, [], "sae.architecture: missing"),
        ({"sae": [1]}, {}, [], "sae: must be a mapping"),
    ],
)
def test_wrong_input_is_one_line_that_names_it(
    tmp_path: Path, changes: dict[str, Any], sae: dict[str, Any], flags: list[str], message: str
) -> None:
    path = write(tmp_path, changes, sae)
    if "sae" in changes:
        path.write_text(yaml.safe_dump({**BASE, **changes}))
    with pytest.raises(ConfigError) as error:
        load_runner_config(path, flags)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "must hold a mapping of fields, got list"),
        ("a: [1, 2\n", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_broken_yaml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_runner_config(path)
    assert "\n" not in str(error.value)


def test_missing_file_and_missing_field(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_runner_config(tmp_path / "none.yaml")
    path = write(tmp_path)
    path.write_text(path.read_text().replace("  d_in: 16\n", ""))
    with pytest.raises(ConfigError, match=r"sae\.d_in: missing"):
        load_runner_config(path)


def test_there_are_the_papers_six_cells_twice_and_the_demos() -> None:
    names = {path.stem for path in CONFIGS}
    cells = {
        f"{model}-{hook}"
        for model in ("pythia-1b", "smollm3-3b")
        for hook in ("mlp_out", "attn_out", "resid")
    }
    for cell in cells:
        assert {f"{cell}-sa_gsae", f"{cell}-gated"} <= names
    assert any(name.startswith("smollm2-135m") for name in names)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_opens_with_its_command_and_builds_its_sae(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first == f"# sae-lens-signaware train configs/{path.name}"
    cfg = load_runner_config(path)
    sae: Any = TrainingSAE.from_dict({**cfg.get_training_sae_cfg_dict(), "device": "meta"})
    assert sae.W_enc.shape == (cfg.sae.d_in, cfg.sae.d_sae)
    assert sae.W_enc.device == torch.device("meta")


def test_half_width_against_full_width_in_every_cell() -> None:
    for path in CONFIGS:
        if path.stem.endswith("-sa_gsae") and not path.stem.startswith("smollm2"):
            half = load_runner_config(path)
            full = load_runner_config(path.with_name(path.name.replace("sa_gsae", "gated")))
            assert 2 * half.sae.d_sae == full.sae.d_sae
            for field in ("model_name", "hook_name", "training_tokens", "lr", "dataset_path"):
                assert getattr(half, field) == getattr(full, field)


@each_architecture
def test_saelens_own_parser(architecture: str, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = _parse_cfg_args(
        f"--architecture {architecture} --d_in 8 --d_sae 12 --polarity_tying none --target_l0 3".split()
    )
    assert cfg.sae.architecture() == architecture
    assert (cfg.sae.polarity_tying, cfg.sae.target_l0) == ("none", 3.0)  # type: ignore[attr-defined]
    with pytest.raises(SystemExit):
        _parse_cfg_args(["--architecture", architecture, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "mean number of open latents per token to settle at" in text
    assert "number of training steps between resets" in text


def test_a_normalisation_that_saelens_knows_beyond_its_annotation(tmp_path: Path) -> None:
    sae = {**BASE["sae"], "normalize_activations": "constant_norm_rescale"}
    cfg = load_runner_config(write(tmp_path, sae=sae))
    assert cfg.sae.normalize_activations == "constant_norm_rescale"


def test_numpys_numbers_are_saved_as_pythons(tmp_path: Path) -> None:
    cfg = signaware.SAGatedTrainingSAEConfig(
        d_in=16, d_sae=np.int64(32), l1_coefficient=np.float32(0.5)
    )
    assert type(cfg.d_sae) is int
    assert type(cfg.l1_coefficient) is float
    TrainingSAE.from_dict(cfg.to_dict()).save_model(tmp_path)


@pytest.mark.parametrize("architecture", ["sa_gsae", "bi_jumprelu"])
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("d_in", "16", "d_in must be an integer, got '16': it is a text; write the number without"),
        ("d_sae", 32.0, "d_sae must be an integer, got 32.0: write 32"),
        ("d_sae", True, "d_sae must be an integer, got True"),
        ("dead_threshold_reset", "yes", "dead_threshold_reset must be true or false, got 'yes'"),
        ("use_sparse_activations", 1, "use_sparse_activations must be true or false, got 1"),
        ("target_l0", "4", "target_l0 must be a number or null, got '4': it is a text"),
        ("target_l0_rate", math.inf, "target_l0_rate must be a number, got inf"),
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
