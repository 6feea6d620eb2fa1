"""The SAEs in ``pretrained/``: they load with SAELens, and are as good as their card says."""

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress
from sae_lens import SAE
from safetensors.torch import load_file

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation.saved import measured_quality
from sae_lens_signaware.experiments import demo_data
from sae_lens_signaware.experiments.demo import demo_config
from sae_lens_signaware.experiments.sweep.cache import collect, load_hooked_model
from sae_lens_signaware.experiments.sweep.config import Run, load_sweep_config
from tests.support.gguf_files import each_read_once

PRETRAINED = Path(__file__).parent.parent / "pretrained"
FOLDERS = sorted(path.parent for path in PRETRAINED.glob("*/cfg.json"))
each_pretrained = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def test_there_is_one_for_each_place_of_the_layer() -> None:
    hooks = {SAE.load_from_disk(folder).cfg.metadata.hook_name for folder in FOLDERS}
    assert hooks == set(demo_data.HOOK_NAMES.values())
    assert sum(file.stat().st_size for file in PRETRAINED.rglob("*")) < 10e6


@each_pretrained
def test_it_is_stored_in_float16_and_loads_as_float32(folder: Path) -> None:
    stored = load_file(folder / "sae_weights.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    sae = SAE.load_from_disk(folder)
    assert sae.dtype == torch.float32
    assert torch.equal(sae.W_dec.half(), stored["W_dec"])
    assert sae.cfg.metadata.exclude_special_tokens is True  # which activations_store reads


@each_pretrained
def test_the_card_says_what_was_measured_of_these_weights(folder: Path) -> None:
    quality = measured_quality(folder)  # None where the weights are others
    assert quality is not None
    assert quality.n_tokens == 100_000
    lines = (PRETRAINED / "README.md").read_text().splitlines()
    (row,) = [line for line in lines if line.startswith(f"| `{folder.name}` |")]
    r2 = f"{quality.explained_variance:.4f}"
    shares = f"{quality.dead_share:.2%} | {quality.bipolar_share:.0%}"
    assert row.endswith(f"| {quality.l0:.2f} | {r2} | {shares} |")


def test_they_are_chosen_among_the_signed_saes_of_their_width(
    benchmark_script: Callable[[str], Any],
) -> None:
    command = json.loads((PRETRAINED / "check.json").read_text())["command"]
    assert f"    {command}" in (PRETRAINED / "README.md").read_text().splitlines()
    _, script, config, _, value, _, without = command.split()
    runs = load_sweep_config(PRETRAINED.parent / config)[1]
    asked = benchmark_script(Path(script).stem).candidates(runs, float(value), [without])
    names = {"bi_jumprelu", "sa_gsae", "bi_batchtopk", "bi_matryoshka_batchtopk", "bi_topk"}
    assert {(run.cell, run.sae) for run in asked} == {
        (cell, f"{name}-full") for cell in ("mlp_out", "attn_out", "resid") for name in names
    }
    assert len(asked) == 3 * len(names)


@pytest.fixture(scope="module")
def activations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Hook name -> the first held-out activations, as a sweep caches them."""
    folder = tmp_path_factory.mktemp("pretrained")
    demo_data.prepare_model(folder / "model")
    text = demo_data.prepare_text(folder / "data")["heldout"]
    n_tokens = json.loads((PRETRAINED / "check.json").read_text())["n_tokens"]
    run = demo_config(folder, 40, 2048)[1][0]
    cells = {hook: _at(run, hook) for hook in demo_data.HOOK_NAMES.values()}
    with each_read_once():
        model = load_hooked_model(run.cfg, list(cells))
    return collect(model, cells, str(text), n_tokens, Progress(disable=True))


def _at(run: Run, hook_name: str) -> Run:
    cfg = copy.copy(run.cfg)
    cfg.hook_name = hook_name
    return dataclasses.replace(run, cfg=cfg)


@pytest.mark.slow
@each_pretrained
def test_l0_and_r2_measured_again(folder: Path, activations: dict[str, torch.Tensor]) -> None:
    expected = json.loads((PRETRAINED / "check.json").read_text())["saes"][folder.name]
    sae = SAE.load_from_disk(folder)
    quality, _ = signaware.measure_quality(
        sae, activations[sae.cfg.metadata.hook_name], "held-out speeches"
    )
    assert quality.l0 == pytest.approx(expected["l0"], rel=1e-3)
    assert quality.explained_variance == pytest.approx(expected["explained_variance"], abs=1e-4)


@pytest.mark.slow
def test_readmes_example_prints_what_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (PRETRAINED.parent / "README.md").read_text()
    (block,) = re.findall(r"<!-- pretrained -->\n```python\n(.*?)^```$", text, re.DOTALL | re.M)
    (shown,) = re.findall(r"^```text\n(.*?)^```$", text, re.DOTALL | re.M)
    (tmp_path / "pretrained").symlink_to(PRETRAINED)
    monkeypatch.chdir(tmp_path)
    with each_read_once():
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    values = r"(\d+): ([+-]\d+\.\d\d)"
    found = {(latent, round(float(value), 1)) for latent, value in re.findall(values, printed)}
    for latent, value in re.findall(values, shown):
        assert any(latent == other and abs(float(value) - near) <= 0.11 for other, near in found), (
            f"{latent}: {value}"
        )
