"""The presets in configs/, the best signed SAE of each hook point, and the demo's configs, trained
for a while."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sae_lens import SAE

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.experiments.demo_data import prepare_text
from sae_lens_signaware.experiments.packaged_models import MODELS, prepare_model
from sae_lens_signaware.training.config import load_runner_config
from tests.support.cli import invoke
from tests.support.gguf_files import each_loaded_once

ROOT = Path(__file__).parent.parent
PRESETS = sorted((ROOT / "configs").glob("best-*.yaml"))
# the presets are of bi_jumprelu and bi_batchtopk
OF_THE_DEMO = [
    ROOT / "configs" / f"smollm2-135m-mlp_out-{architecture}.yaml"
    for architecture in ("sa_gsae", "bi_matryoshka_batchtopk")
]
SHORT = {"training_tokens": 512, "train_batch_size_tokens": 128, "context_size": 64}
SHORT |= {"n_batches_in_buffer": 4, "store_batch_size_prompts": 1}
SHORT |= {"n_batches_for_norm_estimate": 1, "n_eval_batches": 1}


def model_of(config: Path) -> str:
    """The folder of its model in demo_out, a key of MODELS."""
    return Path(load_runner_config(config).model_name).name


def test_there_is_one_for_each_model_and_place() -> None:
    hooks = {(model_of(path), load_runner_config(path).hook_name) for path in PRESETS}
    assert hooks == {(name, h) for name, m in MODELS.items() for h in m.hook_names.values()}
    assert len(PRESETS) == len(hooks)


@pytest.mark.parametrize("config", PRESETS, ids=lambda path: path.stem)
def test_it_asks_for_twice_the_width_and_trains_by_the_recipe(config: Path) -> None:
    cfg = load_runner_config(config)
    assert cfg.sae.d_sae == 2 * cfg.sae.d_in == 2 * MODELS[model_of(config)].d_in
    assert {getattr(cfg.sae, "target_l0", None), getattr(cfg.sae, "k", None)} == {32, None}
    assert cfg.training_tokens == 4_000 * cfg.train_batch_size_tokens
    assert cfg.lr_decay_steps == 3_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("presets")
    prepare_text(folder / "demo_out" / "data")
    return folder


@pytest.fixture(scope="module")
def _each_model_loaded_once() -> Iterator[None]:
    with each_loaded_once():
        yield


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_each_model_loaded_once")
@pytest.mark.parametrize("config", [*PRESETS, *OF_THE_DEMO], ids=lambda path: path.stem)
def test_it_trains_for_a_short_run(
    folder: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(config)
    try:
        prepare_model(folder / "demo_out" / model, MODELS[model])
    except ConfigError as error:  # CONTRIBUTING says how to install the second model
        if "is not installed" not in str(error):
            raise
        pytest.skip(str(error))
    monkeypatch.chdir(folder)
    flags = (arg for name, value in SHORT.items() for arg in (f"--{name}", str(value)))
    done = invoke("train", str(config), *flags)
    assert done.exit_code == 0, done.output[-2000:]
    out = folder / "output" / config.stem
    asked = load_runner_config(config)
    cfg = SAE.load_from_disk(out).cfg
    assert cfg.metadata.training_architecture == asked.sae.architecture()
    assert (cfg.metadata.hook_name, cfg.d_sae) == (asked.hook_name, asked.sae.d_sae)
    l0 = json.loads((out / "quality.json").read_text())["l0"]
    assert l0 > 0
    assert f"L0 {l0:.1f}" in done.output
    assert (out / "sparsity.safetensors").exists()
