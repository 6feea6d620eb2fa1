"""An SAE of ``from_pretrained_path`` that the runner trains on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import (
    TrainingSAE,
)
from transformer_lens import HookedTransformer

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.training.runner import SignawareTrainingRunner
from tests.support.checked_runs import make_runner
from tests.support.models import tiny_model_config, tokens
from tests.support.runners import runner_config
from tests.support.saes import asking_for, each_variant, training_config


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return HookedTransformer(tiny_model_config())


@pytest.mark.parametrize(
    ("cfg_json", "kind"),
    [(None, "FileNotFoundError"), ("{", "JSONDecodeError"), ("{}", "KeyError"), ("[]", "Type")],
    ids=["no-folder", "cut", "empty", "list"],
)
def test_an_sae_to_go_on_from_is_loaded_before_the_model(
    cfg_json: str | None, kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / "trained"
    if cfg_json is not None:
        folder.mkdir()
        (folder / "cfg.json").write_text(cfg_json)
    cfg = runner_config(training_config("sa_gsae"), tmp_path, from_pretrained_path=str(folder))
    cfg.model_name = "no/model"  # which would be named
    line = f"^from_pretrained_path: '{folder}' cannot be loaded: {kind}"
    with pytest.raises(InvalidInputError, match=line) as error:
        SignawareTrainingRunner(cfg)
    assert "\n" not in str(error.value)


def test_another_width_to_go_on_from(model: HookedTransformer, tmp_path: Path) -> None:
    pretrained = TrainingSAE.from_dict(training_config("sa_gsae", d_in=8).to_dict())
    pretrained.save_model(tmp_path / "pretrained")
    with pytest.raises(InvalidInputError, match=r"^sae.d_in must be 8, as in from_pretrained_path"):
        make_runner(tmp_path, model, from_pretrained_path=str(tmp_path / "pretrained"))
    cfg = runner_config(training_config("sa_gsae"), tmp_path)
    with pytest.raises(InvalidInputError, match=r"d_in of the SAE to train must be sae.d_in, 16, "):
        SignawareTrainingRunner(cfg, tokens(), model, pretrained)


@each_variant
def test_a_pretrained_sae_goes_on_with_the_settings_of_the_config(
    architecture: str, tying: str, model: HookedTransformer, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    trained: Any = TrainingSAE.from_dict(training_config(architecture, tying).to_dict())
    trained.save_model(tmp_path / "pretrained")
    asked = training_config(architecture, tying, **asking_for(architecture, 3.0))
    # a step so small that the weights stay what they were
    options: dict[str, Any] = {"training_tokens": 64, "lr": 1e-12}
    runner = make_runner(
        tmp_path, model, sae=asked, from_pretrained_path=str(tmp_path / "pretrained"), **options
    )
    assert runner.sae.cfg.to_dict() == asked.to_dict()
    sae: Any = runner.run()
    torch.testing.assert_close(sae.W_enc, trained.W_enc)
    if "target_l0" in asked.to_dict():
        assert sae.l0_control[1] > 0  # it is steered


@pytest.mark.parametrize(
    ("there", "asked", "message"),
    [
        (
            ("bi_jumprelu", {}),
            ("sa_gsae", {}),
            "sae.architecture must be 'bi_jumprelu', as in from_pretrained_path, got 'sa_gsae'",
        ),
        (
            ("sa_gsae", {}),
            ("sa_gsae", {"d_sae": 40}),
            "sae.d_sae must be 24, as in from_pretrained_path, got 40",
        ),
        (
            ("sa_gsae", {}),
            ("sa_gsae", {"normalize_activations": "expected_average_only_in"}),
            "sae.normalize_activations must be 'none', as in from_pretrained_path, got 'expected",
        ),
        (
            ("sa_gsae", {"apply_b_dec_to_input": False}),
            ("sa_gsae", {}),
            "sae.apply_b_dec_to_input must be False, as in from_pretrained_path, got True",
        ),
        (
            ("sa_gsae", {"two_sided": False}),
            ("sa_gsae", {}),
            "sae.two_sided must be False, as in from_pretrained_path, got True",
        ),
        (
            ("bi_batchtopk", {"rescale_acts_by_decoder_norm": False}),
            ("bi_batchtopk", {}),
            "sae.rescale_acts_by_decoder_norm must be False, as in from_pretrained_path, got True",
        ),
        (
            ("sa_gsae", {"tying": "none"}),
            ("sa_gsae", {}),
            "sae.polarity_tying must be 'none', as in from_pretrained_path, got 'full'",
        ),
    ],
)
def test_a_pretrained_sae_of_another_kind(
    there: Any, asked: Any, message: str, model: HookedTransformer, tmp_path: Path
) -> None:
    pretrained = TrainingSAE.from_dict(training_config(there[0], **there[1]).to_dict())
    pretrained.save_model(tmp_path / "pretrained")
    with pytest.raises(InvalidInputError) as error:
        make_runner(
            tmp_path,
            model,
            sae=training_config(asked[0], **asked[1]),
            from_pretrained_path=str(tmp_path / "pretrained"),
        )
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
