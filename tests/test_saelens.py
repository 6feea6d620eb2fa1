"""SAELens's own runners, command line and models take every architecture, unchanged."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sae_lens import (
    SAE,
    HookedSAETransformer,
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
    MultiSAETrainingRunner,
    MultiSAETrainingRunnerConfig,
)
from sae_lens.llm_sae_training_runner import _parse_cfg_args
from sae_lens.registry import get_sae_class
from sae_lens.synthetic import SyntheticModelConfig, SyntheticSAERunner, SyntheticSAERunnerConfig
from torch.testing import assert_close
from transformer_lens import HookedTransformerConfig

from tests.architectures import (
    D_SAE,
    ONE_EACH,
    TABLE,
    VARIANTS,
    config,
    each_architecture,
    inference_sae,
    inputs,
    run_step,
    training_sae,
)

HOOK = "blocks.0.hook_mlp_out"
D_MODEL = 16
QUIET = {"log_to_wandb": False}


@pytest.fixture(scope="module")
def model() -> HookedSAETransformer:
    cfg = {"n_layers": 1, "d_model": D_MODEL, "n_ctx": 32, "d_head": 8, "n_heads": 2}
    return HookedSAETransformer(
        HookedTransformerConfig(**cfg, d_vocab=64, act_fn="relu", seed=0)  # type: ignore[arg-type]
    )


def tokens() -> Dataset:
    generator = torch.Generator().manual_seed(5)
    return Dataset.from_dict(
        {"tokens": torch.randint(0, 64, (100, 16), generator=generator).tolist()}
    )


def wide(variant: str, **fields: Any) -> Any:
    """A training config for the model, with the fields that users set."""
    steered = {} if "topk" in variant else {"target_l0": 4.0}
    return config(variant, d_in=D_MODEL, **steered, **fields)


def runner_config(sae: Any, folder: Path, **fields: Any) -> LanguageModelSAERunnerConfig[Any]:
    values: dict[str, Any] = {
        "sae": sae,
        "model_name": "tiny",
        "hook_name": HOOK,
        "dataset_path": "tiny",
        "context_size": 16,
        "training_tokens": 64 * 8,
        "train_batch_size_tokens": 64,
        "store_batch_size_prompts": 4,
        "n_batches_in_buffer": 8,
        "lr": 1e-3,
        "logger": LoggingConfig(**QUIET),
        "n_batches_for_norm_estimate": 4,
        "output_path": str(folder / "out"),
        "checkpoint_path": None,
        "verbose": False,
        **fields,
    }
    return LanguageModelSAERunnerConfig(**values)


def trained_as(variant: str) -> type[SAE[Any]]:
    """Class of the inference SAE that a training is saved as."""
    return get_sae_class(config(variant).get_inference_config_class().architecture())[0]


@each_architecture
def test_the_language_model_runner(variant, model, tmp_path):
    sae_cfg = wide(variant, normalize_activations="expected_average_only_in")
    cfg = runner_config(sae_cfg, tmp_path, checkpoint_path=str(tmp_path), n_checkpoints=1)
    runner = LanguageModelSAETrainingRunner(cfg, override_model=model, override_dataset=tokens())
    sae: Any = runner.run()
    loaded = SAE.load_from_disk(tmp_path / "out")
    assert type(loaded) is trained_as(variant)
    assert loaded.cfg.normalize_activations == "none"
    metadata = loaded.cfg.metadata
    assert metadata.hook_name == HOOK
    assert metadata.training_architecture == TABLE[variant][0]
    assert metadata.l0 > 0
    x = torch.randn(8, D_MODEL)
    assert_close(loaded(x), (sae.to_inference() if "batchtopk" in variant else sae)(x))


def test_the_multi_sae_runner_trains_every_variant_at_once(model, tmp_path):
    cfg = MultiSAETrainingRunnerConfig(
        saes={variant: wide(variant) for variant in VARIANTS},
        hook_names=HOOK,
        model_name="tiny",
        dataset_path="tiny",
        context_size=16,
        training_tokens=64 * 8,
        train_batch_size_tokens=64,
        store_batch_size_prompts=4,
        n_batches_in_buffer=8,
        logger=LoggingConfig(**QUIET),
        output_path=str(tmp_path / "out"),
        checkpoint_path=None,
    )
    trained = MultiSAETrainingRunner(cfg, override_model=model, override_dataset=tokens()).run()
    x = torch.randn(8, D_MODEL)
    assert set(trained) == set(VARIANTS)
    for variant, sae in trained.items():
        loaded = SAE.load_from_disk(tmp_path / "out" / variant)
        assert type(loaded) is trained_as(variant)
        assert_close(loaded(x), (sae.to_inference() if "batchtopk" in variant else sae)(x))


@each_architecture
def test_the_synthetic_runner(variant, tmp_path):
    cfg = SyntheticSAERunnerConfig(
        synthetic_model=SyntheticModelConfig(num_features=32, hidden_dim=D_MODEL),
        sae=wide(variant),
        training_samples=64 * 8,
        batch_size=64,
        eval_samples=256,
        logger=LoggingConfig(**QUIET),
        output_path=str(tmp_path / "out"),
        checkpoint_path=None,
    )
    result = SyntheticSAERunner(cfg).run()
    assert result.final_eval is not None
    assert type(SAE.load_from_disk(tmp_path / "out")) is trained_as(variant)


@pytest.mark.parametrize(
    ("architecture", "flags"),
    [
        ("sa_gsae", {"polarity_tying": "none", "target_l0": 8.0, "threshold_reset_interval": 7}),
        ("bi_jumprelu", {"target_l0": 12.0, "dead_after_tokens": 900}),
        ("bi_topk", {"k": 5, "k_anneal_steps": 20}),
        ("bi_batchtopk", {"k": 2.5, "topk_threshold_lr": 0.5}),
    ],
)
def test_the_command_line_of_saelens_knows_the_fields(architecture, flags):
    words = ["--architecture", architecture, "--d_in", "16", "--d_sae", "32"]
    words += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    sae = _parse_cfg_args(words).sae
    assert sae.architecture() == architecture
    assert {name: getattr(sae, name) for name in flags} == flags


@each_architecture
def test_a_hooked_transformer_runs_with_it(variant, model):
    sae = inference_sae(variant, 0.02, d_in=D_MODEL)
    sae.cfg.metadata.hook_name = HOOK
    ids = torch.randint(0, 64, (2, 16))
    plain = model(ids)
    with_sae, cache = model.run_with_cache_with_saes(ids, saes=[sae])
    assert not torch.allclose(with_sae, plain)
    z = cache[f"{HOOK}.hook_sae_acts_post"]
    assert z.shape == (2, 16, D_SAE)
    assert (z < 0).any()
    restored = model.run_with_saes(ids, saes=[sae], use_error_term=True)
    assert_close(restored, plain, rtol=1e-4, atol=1e-4)
    assert_close(model(ids), plain)


@pytest.mark.filterwarnings("ignore:Setting use_error_term")
def test_a_bridge_to_transformers_runs_with_it(tiny_model):
    pytest.importorskip("transformer_lens.model_bridge", reason="needs transformer-lens 3")
    from sae_lens import SAETransformerBridge

    bridge = SAETransformerBridge.boot_transformers(str(tiny_model))
    ids = torch.randint(0, 63, (2, 16))
    plain = bridge(ids)
    for variant in ONE_EACH:
        sae = inference_sae(variant, 0.02, d_in=D_MODEL)
        sae.cfg.metadata.hook_name = HOOK
        _, cache = bridge.run_with_cache_with_saes(ids, saes=[sae])
        (z,) = (t for name, t in cache.items() if name.endswith("hook_sae_acts_post"))
        assert z.shape == (2, 16, D_SAE)
        assert (z < 0).any()
        with bridge.saes(saes=[sae]):
            assert not torch.allclose(bridge(ids), plain)
        assert_close(bridge(ids), plain)
        sae.use_error_term = True
        with bridge.saes(saes=[sae]):
            assert_close(bridge(ids), plain, rtol=1e-4, atol=1e-4)


HOOK_POINTS = ("input", "acts_pre", "acts_post", "recons", "error", "output")


@each_architecture
@pytest.mark.filterwarnings("ignore:Setting use_error_term")
def test_every_hook_point_is_called_and_an_error_term_restores_the_input(variant):
    for sae in (inference_sae(variant), training_sae(variant)):
        x = inputs()
        assert not torch.allclose(sae(x), x)
        sae.use_error_term = True
        output, cache = sae.run_with_cache(x)
        assert_close(output, x)
        assert {f"hook_sae_{name}" for name in HOOK_POINTS} <= set(cache)
        assert cache["hook_sae_acts_pre"].shape == (len(x), D_SAE)
        assert_close(cache["hook_sae_acts_post"], sae.encode(x))


@each_architecture
def test_heads_of_attention(variant):
    flat = inference_sae(variant)
    heads = inference_sae(variant, reshape_activations="hook_z")
    x = inputs(12).view(3, 4, 2, 4)  # (batch, position, head, d_head)
    assert_close(heads.encode(x), flat.encode(x.flatten(-2)))
    assert heads(x).shape == x.shape
    assert_close(heads(x).flatten(-2), flat(x.flatten(-2)))
    # a training step of heads, whose errors have their shape
    sae = training_sae(variant, reshape_activations="hook_z", dead_after_tokens=None)
    sae.turn_on_forward_pass_hook_z_reshaping()
    step = run_step(sae, x.flatten(0, 1), dead=torch.arange(D_SAE) % 4 == 3)
    assert step.sae_out.shape == (12, 2, 4)
    assert step.losses[sae.auxk_names[1]] > 0


@pytest.mark.slow  # a compilation takes half a minute
@pytest.mark.parametrize("variant", ["sa_gsae-full", "bi_jumprelu-full", "bi_matryoshka_batchtopk"])
def test_compile_sae(variant, model, tmp_path):
    def run(folder: str, compile_sae: bool) -> Any:
        torch.manual_seed(0)
        options = {"compile_sae": compile_sae, "dead_feature_window": 3}
        cfg = runner_config(wide(variant, dead_after_tokens=256), tmp_path / folder, **options)
        data = {"override_model": model, "override_dataset": tokens()}
        return LanguageModelSAETrainingRunner(cfg, **data).run().state_dict()

    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=16, fail_on_recompile_limit_hit=True):
        compiled = run("compiled", True)
    for name, tensor in run("eager", False).items():
        assert_close(compiled[name], tensor, rtol=2e-3, atol=2e-4, msg=name)
