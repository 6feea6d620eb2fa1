"""What the runner checks before training."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sae_lens import (
    SAE,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    LanguageModelSAETrainingRunner,
    TopKTrainingSAEConfig,
)
from transformer_lens import HookedTransformer

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.training.runner import SignawareTrainingRunner
from sae_lens_signaware.training.values import check_counts
from tests.support.checked_runs import make_runner, proxy_model
from tests.support.models import tiny_model_config, tokens
from tests.support.runners import runner_config
from tests.support.saes import D_IN, training_config

with pytest.raises(ValueError, match="null") as null_in_path:
    os.lstat("\0")
NULL_IN_PATH = str(null_in_path.value)  # "embedded null byte", or as a newer Python says it


def test_hook_z_is_for_hooks_of_that_name_alone(tmp_path: Path) -> None:
    sae_cfg = training_config("sa_gsae", reshape_activations="hook_z")
    cfg = runner_config(sae_cfg, tmp_path)
    with pytest.raises(InvalidInputError, match=r"^sae\.reshape_activations must be none, as hook"):
        SignawareTrainingRunner(cfg, override_model=proxy_model())


def test_a_context_is_no_longer_than_memory() -> None:
    # SAELens would make a list of as many numbers
    with pytest.raises(
        InvalidInputError, match=r"^context_size must be at most 16777216, got 10+$"
    ):
        check_counts({"context_size": 10**9}, {})


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return HookedTransformer(tiny_model_config())


@pytest.mark.parametrize(
    ("hook", "head", "width"),
    [
        ("blocks.0.hook_mlp_out", None, 16),
        ("blocks.1.hook_resid_post", None, 16),
        ("blocks.0.mlp.hook_post", None, 64),
        ("blocks.0.attn.hook_z", None, 16),
        ("blocks.0.attn.hook_z", 1, 8),
        ("blocks.0.attn.hook_z", -1, 8),
    ],
)
def test_a_wrong_d_in_is_one_line_before_training(
    hook: str, head: int | None, width: int, model: HookedTransformer, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"hook_name": hook, "hook_head_index": head, "training_tokens": 128}
    with pytest.raises(InvalidInputError) as error:
        make_runner(tmp_path, model, d_in=width + 1, **options)
    assert str(error.value) == (
        f"sae.d_in must be {width}, the width of hook {hook!r}, got {width + 1}"
    )
    make_runner(tmp_path, model, d_in=width, **options).run()
    assert SAE.load_from_disk(tmp_path / "out").cfg.d_in == width


@pytest.mark.parametrize("token", [-1, 64])
def test_a_separator_that_is_no_token_is_one_line_before_training(
    token: int, model: HookedTransformer, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError) as error:
        make_runner(tmp_path, model, sequence_separator_token=token)
    assert str(error.value) == (
        f"sequence_separator_token must be a token id from 0 to 63, got {token}"
    )


def test_a_wrong_d_in_for_a_model_of_transformers(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "model_class_name": "AutoModelForCausalLM",
        "hook_name": "transformer.h.0.mlp",
    }
    with pytest.raises(InvalidInputError, match=r"sae\.d_in must be 16, the width of hook 'transf"):
        make_runner(tmp_path, proxy_model(), d_in=24, **options)
    make_runner(tmp_path, proxy_model(), **options).run()


@pytest.mark.parametrize(
    ("hook", "head", "message"),
    [
        ("blocks.0.attn.hook_z", 2, "hook_head_index must be below 2, got 2"),
        ("blocks.0.attn.hook_z", -3, "hook_head_index must be below 2, got -3"),
        (
            "blocks.0.hook_mlp_out",
            0,
            "hook_head_index must be null: 'blocks.0.hook_mlp_out' has no",
        ),
    ],
)
def test_a_head_that_the_hook_lacks(
    hook: str, head: int, message: str, model: HookedTransformer, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make_runner(tmp_path, model, hook_name=hook, hook_head_index=head)


@pytest.mark.parametrize(
    ("change", "product"),
    [
        ({"n_batches_in_buffer": 1}, "1 * 8"),
        ({"n_batches_in_buffer": 7, "seqpos_slice": (1, -1)}, "7 * 6"),
    ],
)
def test_a_buffer_that_holds_no_batch(
    change: dict[str, Any], product: str, model: HookedTransformer, tmp_path: Path
) -> None:
    message = (
        "n_batches_in_buffer * positions of a context must be at least "
        f"train_batch_size_tokens, 64, got {product!r}"
    )
    with pytest.raises(InvalidInputError) as error:
        make_runner(tmp_path, model, context_size=8, **change)
    assert str(error.value) == message


def test_a_context_of_special_tokens_alone(model: HookedTransformer, tmp_path: Path) -> None:
    line = r"^seqpos_slice must be a slice of more than the BOS token, .* got \(0, 1\)$"
    with pytest.raises(InvalidInputError, match=line):
        make_runner(tmp_path, model, seqpos_slice=(0, 1), exclude_special_tokens=True)


def test_cached_activations_that_are_not_there(model: HookedTransformer, tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    line = f"^cached_activations_path must be a folder of cached activations, got '{path}'$"
    with pytest.raises(InvalidInputError, match=line):
        make_runner(tmp_path, model, use_cached_activations=True, cached_activations_path=path)


@pytest.mark.parametrize("hooked_by", ["transformer_lens", "transformers"])
def test_the_checks_leave_a_run_as_it_is_bit_for_bit(hooked_by: str, tmp_path: Path) -> None:
    def trained(runner_class: Any) -> dict[str, torch.Tensor]:
        options: dict[str, Any] = {}
        if hooked_by == "transformers":
            options["hook_name"] = "transformer.h.0.mlp"
            model: Any = proxy_model()
        else:
            model = HookedTransformer(tiny_model_config())
        torch.manual_seed(3)
        sae = training_config("sa_gsae", normalize_activations="expected_average_only_in")
        cfg = runner_config(sae, tmp_path, output_path=None, **options)
        runner = runner_class(cfg, override_model=model, override_dataset=tokens())
        return runner.run().state_dict()

    plain, checked = map(trained, (LanguageModelSAETrainingRunner, SignawareTrainingRunner))
    for name, value in plain.items():
        assert torch.equal(checked[name], value), name


def test_a_config_built_by_hand_is_checked_as_a_yaml_is(
    model: HookedTransformer, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="lr must be a number, got '3e-4': it is a text"):
        make_runner(tmp_path, model, lr="3e-4", lr_end=1e-5)


def test_a_dtype_and_a_device_of_torch_are_saved_by_their_names(
    model: HookedTransformer, tmp_path: Path
) -> None:
    sae = training_config("sa_gsae", dtype=torch.float64, device=torch.device("cpu"))
    assert (sae.dtype, sae.device) == ("float64", "cpu")
    options: dict[str, Any] = {
        "device": torch.device("cpu"),
        "model_from_pretrained_kwargs": {"torch_dtype": torch.bfloat16},
    }
    cfg = runner_config(sae, tmp_path, training_tokens=128, **options)
    SignawareTrainingRunner(cfg, override_model=model, override_dataset=tokens()).run()
    assert cfg.model_from_pretrained_kwargs == {"torch_dtype": "bfloat16"}
    assert SAE.load_from_disk(tmp_path / "out").dtype == torch.float64


def test_what_no_file_can_hold_is_found_before_training(
    model: HookedTransformer, tmp_path: Path
) -> None:
    message = r"^model_from_pretrained_kwargs\.device_map must be a number, a text or another"
    kwargs = {"torch_dtype": torch.bfloat16, "device_map": object()}
    with pytest.raises(InvalidInputError, match=message) as error:
        make_runner(tmp_path, model, model_from_pretrained_kwargs=kwargs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("sae", "message"),
    [
        (GatedTrainingSAEConfig(d_in=D_IN, d_sae=-8), "sae.d_sae must be at least 1, got -8"),
        (GatedTrainingSAEConfig(d_in=0, d_sae=8), "sae.d_in must be at least 1, got 0"),
        (TopKTrainingSAEConfig(d_in=D_IN, d_sae=8, k=9), "sae.k must be above 0 and at most d_"),
        (BatchTopKTrainingSAEConfig(d_in=D_IN, d_sae=8, k=0), "sae.k must be above 0 and at m"),
    ],
)
def test_a_shape_that_saelens_takes_as_it_is(
    sae: Any, message: str, model: HookedTransformer, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError) as error:
        make_runner(tmp_path, model, sae=sae)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_here(device: str, model: HookedTransformer, tmp_path: Path) -> None:
    cfg = runner_config(training_config("sa_gsae"), tmp_path)
    cfg.device = device
    message = f"^device must be a device that computes here, such as .* got '{device}': .+"
    with pytest.raises(InvalidInputError, match=message) as error:
        SignawareTrainingRunner(cfg, override_model=model, override_dataset=tokens())
    assert "\n" not in str(error.value)


def test_a_context_that_is_too_long_for_the_model(model: HookedTransformer, tmp_path: Path) -> None:
    text = Dataset.from_dict({"tokens": [[1] * 40] * 100})
    of_transformers = {
        "model_class_name": "AutoModelForCausalLM",
        "hook_name": "transformer.h.0.mlp",
    }
    message = r"context_size must be at most 32, the positions of the model, got 33"
    for used, options in ((model, {}), (proxy_model(), of_transformers)):
        with pytest.raises(InvalidInputError, match=message):
            make_runner(tmp_path, used, text, context_size=33, **options)


@pytest.mark.parametrize(
    ("field", "path", "message"),
    [
        ("output_path", "file", "file is a file"),
        ("output_path", "file/below/it", "file is a file"),
        ("output_path", "/", "a folder of its own"),
        ("output_path", "a" * 300, "a folder that can be written, .*File name too long"),
        ("output_path", "file\0", f"a folder that can be written, .*{NULL_IN_PATH}"),
        ("checkpoint_path", "file", "file is a file"),
    ],
)
def test_a_folder_that_cannot_be_written_is_found_before_training(
    field: str, path: str, message: str, model: HookedTransformer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    writes: Any
    # without a setting that writes checkpoints an interruption writes one
    for writes in ({}, {"n_checkpoints": 1}, {"save_final_checkpoint": True}):
        with pytest.raises(InvalidInputError, match=rf"^{field} must be .*{message}") as error:
            make_runner(tmp_path, model, **writes, **{field: str(tmp_path / path)})
        assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_loop_of_links_is_no_folder(model: HookedTransformer, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InvalidInputError, match=r"^output_path must be a folder"):
        make_runner(tmp_path, model, output_path=str(tmp_path / "loop"))


@pytest.mark.parametrize("target", ["there", "not/there/yet"])
def test_a_link_to_a_folder_can_be_the_output(
    target: str, model: HookedTransformer, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / target)
    make_runner(tmp_path, model, output_path=str(tmp_path / "link"), training_tokens=128).run()
    SAE.load_from_disk(tmp_path / target)


def test_the_current_folder_can_be_the_output(
    model: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_runner(tmp_path, model, output_path=".").run()
    SAE.load_from_disk(tmp_path)


def test_a_model_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: Any, **kwargs: Any) -> None:
        raise OSError("We couldn't connect to the Hub")

    monkeypatch.setattr("sae_lens.llm_sae_training_runner.load_model", load)
    cfg = runner_config(training_config("sa_gsae"), tmp_path, model_name="no/model")
    with pytest.raises(
        OSError, match=r"model_name: 'no/model' is no folder here.*couldn't connect"
    ):
        SignawareTrainingRunner(cfg, override_dataset=tokens())


def test_a_decay_that_is_longer_than_a_short_try_is_a_warning(
    model: HookedTransformer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_runner(tmp_path, model, lr_decay_steps=30).run()
    assert "lr_decay_steps must be at most the 20 steps of the training" in caplog.text
