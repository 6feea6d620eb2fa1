"""The page "Add an architecture": its file is all that a third architecture needs."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from sae_lens import SAE, LanguageModelSAETrainingRunner, TrainingSAE
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from transformer_lens import HookedTransformer

import sae_lens_signaware as signaware
from tests.support.hub_server import HubServer
from tests.support.models import tiny_model_config, tokens
from tests.support.runners import BASE, runner_config, write
from tests.support.training import step_input

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "add_an_architecture.md"
NAME = "signed_standard"
MAX_LINES = 60


def source() -> str:
    text = PAGE.read_text()
    pattern = r"<!-- architecture -->\n```python\n(.*?)^```$"
    (block,) = re.findall(pattern, text, re.DOTALL | re.MULTILINE)
    return block


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's file, imported; the registries are as before afterwards."""
    (tmp_path / f"{NAME}.py").write_text(source())
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(NAME)
    del sys.modules[NAME]
    for registry in (SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY):
        del registry[NAME]


def test_the_file_is_short() -> None:
    assert len(source().splitlines()) <= MAX_LINES


def test_it_trains_folds_saves_loads_splits_and_goes_up(
    module: ModuleType, tmp_path: Path, hub: HubServer
) -> None:
    sae = {"architecture": NAME, "d_in": 16, "d_sae": 24, "target_l0": 6}
    cfg: Any = signaware.load_runner_config(
        write(tmp_path, sae=sae), ["--auxk_coefficient", "0.03"]
    )
    assert type(cfg.sae) is module.TrainingConfig
    cfg = runner_config(cfg.sae, tmp_path, training_tokens=64 * 300, lr=1e-2)
    model = HookedTransformer(tiny_model_config())
    runner = LanguageModelSAETrainingRunner(cfg, override_model=model, override_dataset=tokens())
    trained: Any = runner.run()
    assert type(trained) is module.Training
    assert trained.l0_control[1].item() == pytest.approx(6, rel=0.5)  # target_l0 steers it

    loaded = SAE.load_from_disk(tmp_path / "out")
    assert type(loaded) is module.InferenceSAE
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    z = loaded.encode(x)
    assert (z > 0).any()
    assert (z < 0).any()
    torch.testing.assert_close(loaded(x), trained(x))

    output = loaded(x)
    loaded.fold_W_dec_norm()
    torch.testing.assert_close(loaded(x), output)
    torch.testing.assert_close(loaded.W_dec.norm(dim=1), torch.ones(24))

    plain = signaware.split_polarities(loaded)
    assert plain.cfg.architecture() == "standard"
    z, both = loaded.encode(x), plain.encode(x)
    torch.testing.assert_close(both, torch.cat([z, -z], dim=1).relu())
    torch.testing.assert_close(plain(x), output)

    census = signaware.bipolar_census(loaded, x)
    assert census.firing_rate_neg.sum() > 0
    signaware.push(tmp_path / "out", "someone/third", "mid")
    torch.testing.assert_close(SAE.from_pretrained("someone/third", "mid")(x), output)
    torch.testing.assert_close(SAE.from_pretrained("someone/third", "mid-plain")(x), output)


def test_it_computes_the_same_over_all_and_over_active_latents(module: ModuleType) -> None:
    def step(use_sparse: bool) -> tuple[Any, Any]:
        torch.manual_seed(0)
        cfg = module.TrainingConfig(d_in=16, d_sae=200, use_sparse_activations=use_sparse)
        sae: Any = TrainingSAE.from_dict(cfg.to_dict())
        sae.threshold.data.fill_(3.0)
        sae.W_enc.data.mul_(8.0)
        x = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
        out = sae.training_forward_pass(step_input(x))
        out.loss.backward()
        return sae, out

    (dense_sae, dense), (sparse_sae, sparse) = step(False), step(True)
    assert sparse.feature_acts.is_sparse
    assert sparse.feature_acts.values().numel() > 0
    assert not dense.feature_acts.is_sparse
    torch.testing.assert_close(sparse.feature_acts.to_dense(), dense.feature_acts)
    torch.testing.assert_close(sparse.losses, dense.losses)
    for name, param in dense_sae.named_parameters():
        torch.testing.assert_close(getattr(sparse_sae, name).grad, param.grad, msg=name)


@pytest.mark.slow
def test_the_tests_of_every_architecture_pass_for_it(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.py").write_text(source())
    files = [f"tests/test_{name}.py" for name in ("architectures", "conversion", "sparse")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", NAME, "-k", NAME, *files]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
    assert int(re.findall(r"(\d+) passed", run.stdout)[0]) >= 20


def test_a_module_of_the_user_registers_an_architecture(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.py").write_text(source())
    values = {**BASE, "sae": {"architecture": NAME, "d_in": 16, "d_sae": 32}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values | {"model_class_name": "none"}))
    with pytest.raises(signaware.ConfigError, match=f"unknown value '{NAME}'"):
        signaware.load_runner_config(tmp_path / "c.yaml")
    # the architecture is known: the next thing that is wrong is named
    command = [sys.executable, "-m", "sae_lens_signaware", "--import", NAME, "train", "c.yaml"]
    known = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert known.returncode == 2
    assert "model_class_name must be one of" in known.stderr
