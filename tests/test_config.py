"""Strict YAML: what is right is built, what is wrong is named in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sae_lens import TrainingSAE
from sae_lens.llm_sae_training_runner import _parse_cfg_args

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import ConfigError, InvalidInputError
from sae_lens_signaware.training.config import load_runner_config
from sae_lens_signaware.training.values import check_buffer, check_ramps
from tests.support.runners import BASE, write
from tests.support.saes import (
    THRESHOLD_ARCHITECTURES,
    VARIANTS,
    asking_for,
    each_architecture,
    fields_of,
    training_config,
)

CONFIGS = sorted(
    path
    for path in (Path(__file__).parent.parent / "configs").glob("*.yaml")
    if "sae" in yaml.safe_load(path.read_text())  # those of other commands name several, or none
)


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
        ({}, {}, ["--sae.target_l0", "2"], "unknown flag; did you mean '--target_l0'?"),
        ({}, {}, ["xyz"], "xyz: unknown flag; train --list-flags prints all"),
        ({}, {}, ["--logger=x"], "--logger: a section; its fields are flags, as in --logger.log_"),
        ({}, {}, ["--sae.architecture"], "--sae.architecture: expected one argument"),
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


@pytest.mark.parametrize("null", ["null", "None"])
def test_a_flag_can_switch_a_field_off(null: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"output_path": "out", "lr_end": 1e-5, "dtype": "float64"})
    flags = ["--output_path", null, "--lr_end", null, f"--target_l0={null}", f"--run_name={null}"]
    cfg = load_runner_config(path, [*flags, "--d_sae", "40"])
    assert load_runner_config(path, ["--run_name", f"a={null}"]).logger.run_name == f"a={null}"
    assert cfg.output_path is None
    assert cfg.lr_end == cfg.lr / 10  # SAELens's default
    assert cfg.sae.target_l0 is None
    assert cfg.sae.d_sae == 40
    with pytest.raises(ConfigError, match=r"dtype must be a text or a torch.dtype, got None"):
        load_runner_config(path, ["--dtype", null])
    with pytest.raises(ConfigError, match=r"^sae\.dtype must be a text"):
        load_runner_config(path, ["--sae.dtype", null])


@pytest.mark.parametrize(
    ("changes", "sae", "message"),
    [
        ({"training_tokens": 0}, {}, "training_tokens must be at least 1, got 0"),
        ({"training_tokens": 100, "train_batch_size_tokens": 128}, {}, "training_tokens must be"),
        ({"train_batch_size_tokens": 0}, {}, "train_batch_size_tokens must be at least 1, got 0"),
        ({"n_batches_in_buffer": 0}, {}, "n_batches_in_buffer must be at least 1, got 0"),
        ({"store_batch_size_prompts": 0}, {}, "store_batch_size_prompts must be at least 1"),
        ({"context_size": 2**70}, {}, "context_size must be at most 16777216"),
        ({"training_tokens": 2**70}, {}, "training_tokens must be at most 9223372036854775807"),
        ({"n_batches_for_norm_estimate": 0}, {}, "n_batches_for_norm_estimate must be at least"),
        ({"lr": -1}, {}, "lr must be a number above 0 and below 1e30, got -1.0"),
        ({"adam_beta1": 2}, {}, "adam_beta1 must be at least 0 and below 1, got 2.0"),
        ({"adam_beta2": 1}, {}, "adam_beta2 must be at least 0 and below 1, got 1.0"),
        ({"lr_scheduler_name": "foo"}, {}, "lr_scheduler_name must be one of constant, cosinea"),
        ({"model_class_name": "GPT2"}, {}, "model_class_name must be one of HookedTransformer,"),
        ({"dtype": "float8"}, {}, "dtype must be one of float32, float64, float16, bfloat16, got"),
        ({"activations_mixing_fraction": 2}, {}, "activations_mixing_fraction must be between 0"),
        (
            {"logger": {"wandb_log_frequency": 0}},
            {},
            "logger.wandb_log_frequency must be at least 1, got 0",
        ),
        (
            {"lr_scheduler_name": "cosineannealing", "lr_end": 0, "lr_decay_steps": 2},
            {},
            "lr_end must be above 0 where lr_decay_steps is set, got 0",
        ),
        (
            {"lr_scheduler_name": "CosineAnnealing", "lr_warm_up_steps": 10**9},
            {},
            "lr_warm_up_steps + lr_decay_steps must be below the ",
        ),
        (
            {"lr_scheduler_name": "cosineannealingwarmrestarts", "n_restart_cycles": 0},
            {},
            "n_restart_cycles must be between 1 and the ",
        ),
        (
            {"lr_scheduler_name": "cosineannealingwarmrestarts", "n_restart_cycles": 10**9},
            {},
            "n_restart_cycles must be between 1 and the ",
        ),
        ({"lr_end": -1.0}, {}, "lr_end must be at least 0, got -1.0"),
        ({"lr_decay_steps": -1}, {}, "lr_decay_steps must be at least 0, got -1"),
        ({"lr_warm_up_steps": -1}, {}, "lr_warm_up_steps must be at least 0, got -1"),
        ({"seqpos_slice": []}, {}, "seqpos_slice must be one to three numbers, as slice() takes "),
        ({"seqpos_slice": [0, 1, 2, 3]}, {}, "seqpos_slice must be one to three numbers, as sli"),
        ({"seqpos_slice": [0, 9, 1]}, {}, "seqpos_slice must be without a step, or with one abo"),
        ({"seqpos_slice": [5, 5]}, {}, "seqpos_slice must be a slice that leaves a position of c"),
        ({"dtype": "fp16"}, {}, "dtype must be one of float32, float64, float16, bfloat16, got "),
        ({}, {"dtype": "fp16"}, "sae.dtype must be one of float32, float64, bfloat16, got 'fp16'"),
        ({"seed": 2**63}, {}, "seed must be 64 bits, which torch takes, got 92233720"),
        # it would rise to its end
        (
            {"lr_scheduler_name": "cosineannealing", "lr": 1e-4, "lr_end": 1e-3},
            {},
            "lr_end must be at most lr, 0.0001, got 0.001",
        ),
        # Adam divides by 0 there
        ({}, {"dtype": "float16"}, "sae.dtype must be one of float32, float64, bfloat16, got "),
    ],
)
def test_a_value_that_saelens_would_stop_at_later(
    changes: dict[str, Any], sae: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        load_runner_config(write(tmp_path, changes, sae))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"lr_warm_up_steps": 5, "lr_decay_steps": 15},
        {"lr_scheduler_name": "cosineannealing", "lr_end": 0.0},  # it has no decay to end
        {"lr_scheduler_name": "cosineannealing", "lr_warm_up_steps": 4, "lr_decay_steps": 15},
        {"lr_scheduler_name": "cosineannealingwarmrestarts", "n_restart_cycles": 20},
        {"lr_scheduler_name": "cosineannealing", "lr": 1e-3, "lr_end": 1e-3},
        {"adam_beta1": 0.0},
    ],
)
def test_values_that_just_fit_are_taken(changes: dict[str, Any], tmp_path: Path) -> None:
    # 20 steps, and a buffer of one batch
    sizes = {"training_tokens": 1280, "train_batch_size_tokens": 64}
    buffer = {"context_size": 8, "n_batches_in_buffer": 8}
    cfg = load_runner_config(write(tmp_path, {**sizes, **buffer, **changes}))
    check_ramps(cfg)
    check_buffer(cfg)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "must hold a mapping of fields, got list"),
        ("a: [1, 2\n", "not valid YAML"),
        ("lr: 1e-3\na: {b: 1}\nlr: 3e-4\n", "not valid YAML: 'lr' comes twice, again in line 3"),
        ("a: &a {b: 1, c: 2}\nd: {<<: *a, b: 3, b: 4}\n", "'b' comes twice, again in line 2"),
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
    tying = dict(VARIANTS)[architecture]
    ((field, l0),) = asking_for(architecture, 3.0).items()
    flags = f"--architecture {architecture} --d_in 8 --d_sae 12 --polarity_tying {tying}"
    if "matryoshka_widths" in fields_of(architecture):
        flags += " --matryoshka_widths 6 12"
    cfg = _parse_cfg_args([*flags.split(), f"--{field}", "3"])
    assert cfg.sae.architecture() == architecture
    assert (cfg.sae.polarity_tying, getattr(cfg.sae, field)) == (tying, l0)
    with pytest.raises(SystemExit):
        _parse_cfg_args(["--architecture", architecture, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    if architecture in THRESHOLD_ARCHITECTURES:
        assert "mean number of active latents per token to settle at" in text
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
def test_a_mapping_has_the_defaults_of_a_constructor(architecture: str) -> None:
    config_class = type(training_config(architecture))
    fields = {"d_in": 16, "d_sae": 32, "auxk_coefficient": 0.5}
    assert config_class.from_dict(fields) == config_class(**fields)


@pytest.mark.parametrize(
    ("sae", "field"),
    [
        ({"architecture": "sa_gsae", "l1_warm_up_steps": 20}, "l1_warm_up_steps"),
        ({"architecture": "bi_jumprelu", "l0_warm_up_steps": 20}, "l0_warm_up_steps"),
    ],
)
def test_a_warm_up_that_never_ends_is_refused(
    sae: dict[str, Any], field: str, tmp_path: Path
) -> None:
    values = {"d_in": 16, "d_sae": 24, "target_l0": 6, **sae}
    cfg: Any = signaware.load_runner_config(write(tmp_path, sae=values))
    cfg.training_tokens = 20 * cfg.train_batch_size_tokens
    expected = rf"^sae\.{field} must be below the 20 steps of the training where target_l0"
    with pytest.raises(InvalidInputError, match=expected):
        check_ramps(cfg)
    cfg.training_tokens += cfg.train_batch_size_tokens
    check_ramps(cfg)
