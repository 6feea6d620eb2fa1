"""The page "Add an architecture": each of its two files is all that an architecture needs."""

import contextlib
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
from huggingface_hub import HfApi, ModelCard
from sae_lens import SAE, LanguageModelSAETrainingRunner, TrainingSAE
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from transformer_lens import HookedTransformer
from typer.testing import CliRunner

import sae_lens_signaware as signaware
from sae_lens_signaware.cli import app
from tests.support.hub_server import HubServer
from tests.support.models import tiny_model_config, tokens
from tests.support.runners import BASE, runner_config, write
from tests.support.saes import make_sae
from tests.support.training import step_input

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "add_an_architecture.md"
NAME, BY_TOKEN = "signed_standard", "bi_topp"
BLOCKS = {
    NAME: r"<!-- architecture -->\n```python\n(.*?)^```$",
    BY_TOKEN: r"<!-- architecture by token -->\n```python\n(.*?)^```$",
}
MAX_LINES = 65


def source(name: str = NAME) -> str:
    (block,) = re.findall(BLOCKS[name], PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return block


@contextlib.contextmanager
def imported(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A file of the page, imported; the registries are as before afterwards."""
    (folder / f"{name}.py").write_text(source(name))
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module(name)
    del sys.modules[name]
    for registry in (SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY):
        del registry[name]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    with imported(NAME, tmp_path, monkeypatch) as module:
        yield module


@pytest.fixture
def by_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    with imported(BY_TOKEN, tmp_path, monkeypatch) as module:
        yield module


def hub_files(repo: str) -> list[str]:
    return [file.rfilename for file in HfApi().model_info(repo).siblings or []]


@pytest.mark.parametrize("name", BLOCKS)
def test_the_file_is_short(name: str) -> None:
    assert len(source(name).splitlines()) <= MAX_LINES


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


def test_a_choice_by_token_trains_and_has_no_plain_twin(
    by_token: ModuleType, tmp_path: Path, hub: HubServer
) -> None:
    sae = {"architecture": BY_TOKEN, "d_in": 16, "d_sae": 24}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**BASE, "sae": sae}))
    cfg: Any = signaware.load_runner_config(tmp_path / "config.yaml", ["--p", "0.7"])
    with pytest.raises(
        signaware.ConfigError, match=r"^sae\.p must be above 0 and at most 1, got 2"
    ):
        signaware.load_runner_config(tmp_path / "config.yaml", ["--p", "2"])
    cfg = runner_config(cfg.sae, tmp_path, training_tokens=64 * 100, lr=1e-2)
    model = HookedTransformer(tiny_model_config())
    LanguageModelSAETrainingRunner(cfg, override_model=model, override_dataset=tokens()).run()

    loaded = SAE.load_from_disk(tmp_path / "out")
    assert type(loaded) is by_token.InferenceSAE
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    pre = loaded.process_sae_in(x) @ loaded.W_enc + loaded.b_enc
    z, square = loaded.encode(x), pre.square()
    kept = z.square().sum(1) / square.sum(1)
    assert (kept >= 0.7).all()
    smallest = z.square().where(z != 0, torch.inf).amin(1)
    assert (kept - smallest / square.sum(1) < 0.7).all()  # and not one of them too many
    with pytest.raises(NotImplementedError, match="depends on the decoder norm"):
        loaded.fold_W_dec_norm()

    said = CliRunner().invoke(app, ["split", str(tmp_path / "out"), str(tmp_path / "plain")])
    assert said.exit_code == 2
    no_twin = "SAE: bi_topp has no plain twin: InferenceSAE has no to_plain"
    assert said.stderr == f"Error: {no_twin}\n"
    assert not (tmp_path / "plain").exists()
    said = CliRunner().invoke(app, ["push", str(tmp_path / "out"), "someone/own", "--sae-id", "a"])
    assert said.stdout.startswith("a is at http")
    torch.testing.assert_close(SAE.from_pretrained("someone/own", "a")(x), loaded(x))
    card = ModelCard.load("someone/own").text
    assert "import bi_topp  # registers 'bi_topp'" in card
    assert "It has no plain twin" in card
    assert not any("a-plain" in name for name in hub_files("someone/own"))


def test_a_twin_of_an_earlier_push_goes(
    by_token: ModuleType, tmp_path: Path, hub: HubServer
) -> None:
    make_sae("bi_topk").save_model(tmp_path / "with")
    by_token.InferenceSAE(by_token.InferenceConfig(d_in=4, d_sae=8)).save_model(tmp_path / "out")
    signaware.push(tmp_path / "with", "someone/twin", "a")
    assert "a-plain/cfg.json" in hub_files("someone/twin")
    signaware.push(tmp_path / "out", "someone/twin", "a")
    left = hub_files("someone/twin")
    assert [name for name in left if name.startswith("a-plain")] == []
    assert "a/cfg.json" in left


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "files"),
    [
        (NAME, ("architectures", "error_term", "sparse", "conversion")),
        (BY_TOKEN, ("architectures", "error_term", "sparse")),
    ],
)
def test_the_tests_of_every_architecture_pass_for_it(
    name: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / f"{name}.py").write_text(source(name))
    paths = [f"tests/test_{file}.py" for file in files]
    command = [sys.executable, "-m", "pytest", "-q", "-p", name, "-k", name, *paths]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
    assert int(re.findall(r"(\d+) passed", run.stdout)[0]) >= 20


@pytest.mark.slow
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
