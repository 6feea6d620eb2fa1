"""SAELens's own runners, unchanged, on a small real transformer; checkpoint and resume."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import (
    SAE,
    HookedSAETransformer,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
    MultiSAETrainingRunner,
    MultiSAETrainingRunnerConfig,
)
from sae_lens.synthetic import SyntheticModelConfig, SyntheticSAERunner, SyntheticSAERunnerConfig
from transformer_lens import HookedTransformer

from sae_lens_signaware.checks import ConfigError, InvalidInputError
from sae_lens_signaware.training.runner import SignawareTrainingRunner, find_checkpoint
from tests.support.models import HOOK, booted_bridge, tiny_model_config, tokens
from tests.support.runners import QUIET, runner_config, running_state
from tests.support.saes import (
    D_IN,
    D_SAE,
    THRESHOLD_ARCHITECTURES,
    VARIANTS,
    as_saved,
    asking_for,
    auxk_field,
    each_variant,
    inference_classes,
    make_sae,
    resetting_every,
    training_config,
    training_field,
)


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return HookedTransformer(tiny_model_config())


@each_variant
def test_language_model_runner(
    architecture: str, tying: str, model: HookedTransformer, tmp_path: Path
) -> None:
    sae_cfg = training_config(
        architecture,
        tying,
        **asking_for(architecture, 6.0),
        normalize_activations="expected_average_only_in",
    )
    cfg = runner_config(sae_cfg, tmp_path)
    runner = LanguageModelSAETrainingRunner(cfg, override_model=model, override_dataset=tokens())
    sae: Any = runner.run()
    loaded = SAE.load_from_disk(tmp_path / "out")
    assert type(loaded) is inference_classes(architecture)[0]
    assert loaded.cfg.metadata.training_architecture == architecture
    assert loaded.cfg.metadata.hook_name == HOOK
    details = loaded.cfg.metadata.training_architecture_details
    # what the saved SAE has as well, as bi_topk its k, is no detail of the training
    asked = loaded.cfg.to_dict() if architecture == "bi_topk" else details
    assert asking_for(architecture, 6.0).items() <= asked.items()
    assert loaded.cfg.metadata.l0 > 0
    x = torch.randn(8, D_IN)
    torch.testing.assert_close(loaded(x), as_saved(sae)(x))


def test_multi_sae_runner_trains_every_variant_at_once(
    model: HookedTransformer, tmp_path: Path
) -> None:
    saes = {f"{a}-{t}": training_config(a, t, **asking_for(a, 6.0)) for a, t in VARIANTS}
    cfg = MultiSAETrainingRunnerConfig(
        saes=saes,
        hook_names=HOOK,
        model_name="tiny",
        dataset_path="tiny",
        context_size=16,
        training_tokens=64 * 10,
        train_batch_size_tokens=64,
        store_batch_size_prompts=4,
        n_batches_in_buffer=8,
        logger=LoggingConfig(**QUIET),
        output_path=str(tmp_path / "out"),
        checkpoint_path=None,
    )
    trained = MultiSAETrainingRunner(cfg, override_model=model, override_dataset=tokens()).run()
    for name, sae in trained.items():
        loaded = SAE.load_from_disk(tmp_path / "out" / name)
        x = torch.randn(8, D_IN)
        torch.testing.assert_close(loaded(x), as_saved(sae)(x))


@each_variant
def test_synthetic_runner(architecture: str, tying: str, tmp_path: Path) -> None:
    cfg = SyntheticSAERunnerConfig(
        synthetic_model=SyntheticModelConfig(num_features=32, hidden_dim=D_IN),
        sae=training_config(architecture, tying, **asking_for(architecture, 6.0)),
        training_samples=64 * 10,
        batch_size=64,
        eval_samples=256,
        logger=LoggingConfig(**QUIET),
        output_path=str(tmp_path / "out"),
        checkpoint_path=None,
    )
    result = SyntheticSAERunner(cfg).run()
    assert result.final_eval is not None
    assert type(SAE.load_from_disk(tmp_path / "out")) is inference_classes(architecture)[0]


@each_variant
def test_resume_continues_the_state_of_the_training(
    architecture: str, tying: str, model: HookedTransformer, tmp_path: Path
) -> None:
    def run(folder: str, **kwargs: Any) -> tuple[Any, Path]:
        sae_cfg = training_config(architecture, tying, **asking_for(architecture, 4.0))
        cfg = runner_config(sae_cfg, tmp_path / folder, **kwargs)
        runner = SignawareTrainingRunner(cfg, override_model=model, override_dataset=tokens())
        return runner.run(), Path(str(cfg.checkpoint_path))

    sae, checkpoints = run("first", n_checkpoints=1, save_final_checkpoint=True)
    running = running_state(sae)
    assert running[-1] > 0
    final = find_checkpoint(checkpoints)
    assert final.name.startswith("final_")
    resumed, _ = run("second", training_tokens=64 * 30, resume_from_checkpoint=str(checkpoints))
    assert running_state(resumed)[0] != running[0]
    # where nothing is left to train, a resumed run is the checkpoint, bit for bit
    same, _ = run("third", resume_from_checkpoint=str(final))
    for key, value in sae.state_dict().items():
        assert torch.equal(same.state_dict()[key], value), key


def test_resume_needs_a_whole_checkpoint(tmp_path: Path, model: HookedTransformer) -> None:
    half = tmp_path / "640"
    half.mkdir()
    (half / "sae_weights.safetensors").write_bytes(b"")
    cfg = runner_config(training_config("sa_gsae"), tmp_path, resume_from_checkpoint=str(tmp_path))
    with pytest.raises(ConfigError, match="resume_from_checkpoint: no whole checkpoint") as error:
        SignawareTrainingRunner(cfg, override_model=model, override_dataset=tokens())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 1e-6, "lr_end": 1e-7}, r"lr is 0.\d+ there, and 1e-06 in the config"),
        ({"train_batch_size_tokens": 32}, "train_batch_size_tokens is 64 there, and 32"),
        ({"lr_warm_up_steps": 3}, "lr_warm_up_steps is 0 there, and 3 in"),
        ({"dataset_path": "me/other"}, "dataset_path is '.*' there, and 'other' in"),
        ({"lr_decay_steps": 2}, "lr_decay_steps is 0 there, and 2 in"),
        ({"adam_beta2": 0.5}, "adam_beta2 is 0.9* there, and 0.5 in"),
    ],
)
def test_resume_of_another_training_is_one_line(
    change: dict[str, Any], named: str, tmp_path: Path, model: HookedTransformer
) -> None:
    # SAELens goes on with what the checkpoint has of these, and records what the config says
    def runner(**kwargs: Any) -> SignawareTrainingRunner:
        cfg = runner_config(training_config("sa_gsae"), tmp_path, **kwargs)
        return SignawareTrainingRunner(cfg, override_model=model, override_dataset=tokens())

    runner(training_tokens=128, n_checkpoints=1).run()
    with pytest.raises(InvalidInputError, match=named) as error:
        runner(resume_from_checkpoint=str(tmp_path), **change)
    assert "\n" not in str(error.value)
    runner(resume_from_checkpoint=str(tmp_path), training_tokens=256).run()


def test_resume_with_fewer_tokens_than_were_seen_is_one_line(
    tmp_path: Path, model: HookedTransformer
) -> None:
    def runner(training_tokens: int, **kwargs: Any) -> SignawareTrainingRunner:
        values = {"training_tokens": training_tokens, "lr_scheduler_name": "constant", **kwargs}
        cfg = runner_config(training_config("sa_gsae"), tmp_path, **values)
        return SignawareTrainingRunner(cfg, override_model=model, override_dataset=tokens())

    runner(256, n_checkpoints=1).run()
    with pytest.raises(InvalidInputError, match="training_tokens must be at least 192, the tokens"):
        runner(64, resume_from_checkpoint=str(tmp_path))
    runner(192, resume_from_checkpoint=str(tmp_path)).run()


def test_resume_of_another_function_is_one_line(tmp_path: Path, model: HookedTransformer) -> None:
    def runner(sae: dict[str, Any], **kwargs: Any) -> SignawareTrainingRunner:
        sae["tying"] = sae.pop("polarity_tying", "full")
        cfg = runner_config(training_config("sa_gsae", **sae), tmp_path, **kwargs)
        return SignawareTrainingRunner(cfg, override_model=model, override_dataset=tokens())

    runner({}, training_tokens=128, n_checkpoints=1).run()
    for name, held, asked in (
        ("apply_b_dec_to_input", True, False),
        ("two_sided", True, False),
        ("polarity_tying", "full", "none"),
        ("dtype", "float32", "float64"),
    ):
        message = f"sae.{name} is {held!r} there, and {asked!r} in"
        with pytest.raises(InvalidInputError, match=message):
            runner({name: asked}, resume_from_checkpoint=str(tmp_path))


def test_a_training_whose_learning_rate_falls_to_0_is_not_made_longer(
    tmp_path: Path, model: HookedTransformer
) -> None:
    def runner(training_tokens: int, **kwargs: Any) -> SignawareTrainingRunner:
        cfg = runner_config(
            training_config("sa_gsae"),
            tmp_path,
            training_tokens=training_tokens,
            lr_decay_steps=2,
            **kwargs,
        )
        return SignawareTrainingRunner(cfg, override_model=model, override_dataset=tokens())

    runner(256, n_checkpoints=1).run()
    with pytest.raises(InvalidInputError, match="training_tokens is 256 there, and 512 in the"):
        runner(512, resume_from_checkpoint=str(tmp_path))
    runner(256, resume_from_checkpoint=str(tmp_path)).run()


def test_resume_of_another_width_is_one_line(tmp_path: Path, model: HookedTransformer) -> None:
    def runner(d_sae: int, **kwargs: Any) -> SignawareTrainingRunner:
        cfg = runner_config(training_config("sa_gsae", d_sae=d_sae), tmp_path, **kwargs)
        return SignawareTrainingRunner(cfg, override_model=model, override_dataset=tokens())

    runner(8, training_tokens=128, save_final_checkpoint=True).run()
    with pytest.raises(InvalidInputError, match=r"sae.d_sae is 8 there, and 9 in") as error:
        runner(9, resume_from_checkpoint=str(tmp_path)).run()
    assert "\n" not in str(error.value)


def test_a_hook_that_the_model_lacks(tmp_path: Path, model: HookedTransformer) -> None:
    cfg = runner_config(training_config("sa_gsae"), tmp_path, hook_name="blocks.0.hook_mlp_ou")
    with pytest.raises(
        ConfigError,
        match="hook_name: the model has no hook 'blocks.0.hook_mlp_ou'; "
        r"did you mean 'blocks.0.hook_mlp_out'\?",
    ):
        SignawareTrainingRunner(cfg, override_model=model, override_dataset=tokens())


@each_variant
def test_hooked_sae_transformer(architecture: str, tying: str, model: HookedTransformer) -> None:
    sae = make_sae(architecture, tying)
    sae.cfg.metadata.hook_name = HOOK
    hooked = HookedSAETransformer(model.cfg)
    hooked.load_state_dict(model.state_dict())
    ids = torch.randint(0, 64, (2, 16))
    plain = hooked(ids)
    with_sae, cache = hooked.run_with_cache_with_saes(ids, saes=[sae])
    assert not torch.allclose(with_sae, plain)
    z = cache[f"{HOOK}.hook_sae_acts_post"]
    assert z.shape == (2, 16, D_SAE)
    assert (z < 0).any()
    restored = hooked.run_with_saes(ids, saes=[sae], use_error_term=True)
    torch.testing.assert_close(restored, plain, rtol=1e-4, atol=1e-4)


@each_variant
def test_sae_transformer_bridge(architecture: str, tying: str, tmp_path: Path) -> None:
    bridge = booted_bridge(tmp_path)
    sae = make_sae(architecture, tying)
    sae.cfg.metadata.hook_name = "blocks.0.hook_mlp_out"
    ids = torch.randint(0, 64, (2, 16))
    plain = bridge(ids)
    with bridge.saes(saes=[sae]):
        assert not torch.allclose(bridge(ids), plain)
    torch.testing.assert_close(bridge(ids), plain)
    _, cache = bridge.run_with_cache_with_saes(ids, saes=[sae])
    z = next(v for k, v in cache.items() if k.endswith("hook_sae_acts_post"))
    assert (z < 0).any()


@pytest.mark.slow  # a compilation takes half a minute; test_sparse.py has the other variants' steps
@pytest.mark.parametrize(("architecture", "tying"), dict(VARIANTS).items())
def test_compile_sae(
    architecture: str, tying: str, model: HookedTransformer, tmp_path: Path
) -> None:
    is_warmed_up = architecture in THRESHOLD_ARCHITECTURES
    warm_up = {training_field(architecture, "warm_up_steps"): 4} if is_warmed_up else {}

    def run(folder: str, compile_sae: bool) -> Any:
        torch.manual_seed(0)
        cfg = runner_config(
            training_config(
                architecture,
                tying,
                **asking_for(architecture, 4.0),
                **resetting_every(architecture, 5),
                **{auxk_field(architecture): 1.0},
                **warm_up,
            ),
            tmp_path / folder,
            compile_sae=compile_sae,
            dead_feature_window=3,
        )
        return LanguageModelSAETrainingRunner(
            cfg, override_model=model, override_dataset=tokens()
        ).run()

    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=16, fail_on_recompile_limit_hit=True):
        compiled = run("compiled", True)
    eager = run("eager", False)
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(
            compiled.state_dict()[name], value, rtol=2e-3, atol=2e-4, msg=name
        )


def test_the_runner_cfg_is_json_with_our_fields(tmp_path: Path, model: HookedTransformer) -> None:
    cfg = runner_config(training_config("sa_gsae", "none"), tmp_path, training_tokens=128)
    SignawareTrainingRunner(cfg, override_model=model, override_dataset=tokens()).run()
    saved = json.loads((tmp_path / "out" / "runner_cfg.json").read_text())
    assert saved["sae"]["polarity_tying"] == "none"
    assert not list(tmp_path.glob(".*partial"))
