"""Sweeps on a small transformers model through real files: resume, failures, bad configs, Ray."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset
from sae_lens import SAE
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from sae_lens_signaware.evaluation import bipolar_census
from sae_lens_signaware.experiments import sweep
from sae_lens_signaware.experiments.latent_results import SAELatents
from tests.helpers import D_IN, tiny_tokenizer
from tests.test_cli import invoke


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of two layers, its tokenizer, and two texts."""
    folder = tmp_path_factory.mktemp("sweep_data")
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=D_IN, n_head=2, vocab_size=64, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    g = torch.Generator().manual_seed(1)
    for name in ("train", "heldout"):
        words = torch.randint(0, 63, (40, 60), generator=g).tolist()
        texts = [" ".join(f"w{i}" for i in row) for row in words]
        (folder / name).mkdir()
        Dataset.from_dict({"text": texts}).to_parquet(folder / name / "train.parquet")
    return folder


def sweep_values(data: Path) -> dict[str, Any]:
    shared = {"d_sae": 24, "normalize_activations": "expected_average_only_in"}
    return {
        "runner": {
            "model_name": str(data / "model"),
            "model_class_name": "AutoModelForCausalLM",
            "dataset_path": str(data / "train"),
            "streaming": False,
            "is_dataset_tokenized": False,
            "context_size": 16,
            "device": "cpu",
            "training_tokens": 64 * 12,
            "train_batch_size_tokens": 64,
            "store_batch_size_prompts": 4,
            "n_batches_in_buffer": 4,
            "n_batches_for_norm_estimate": 4,
            "lr": 3e-3,
        },
        "n_cached_tokens": 512,
        "n_heldout_tokens": 256,
        "heldout_dataset_path": str(data / "heldout"),
        "threads": 1,
        "cells": {
            "mlp": {"hook_name": "transformer.h.0.mlp", "d_in": D_IN},
            "resid": {"hook_name": "transformer.h.0", "d_in": D_IN},
        },
        "seeds": [0, 1],
        "saes": {
            "half": {"architecture": "sa_gsae", "l1_coefficient": [0.1, 1.0], **shared},
            "full": {
                **shared,
                "architecture": "gated",
                "l1_coefficient": [0.1, 1.0],
                "d_sae": 48,
            },
        },
        "compare": [["half", "full"]],
        "latents": {
            "saes": ["half"],
            "value": 0.1,
            "plain": "full",
            "n_latents": 4,
            "n_contexts": 2,
            "n_prompts": 8,
        },
    }


def write(values: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.fixture
def config(data: Path, tmp_path: Path) -> Path:
    return write(sweep_values(data), tmp_path / "sweep.yaml")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and output of an uninterrupted local sweep."""
    folder = tmp_path_factory.mktemp("whole")
    result = invoke(
        "sweep", str(write(sweep_values(data), folder / "s.yaml")), "--out", str(folder / "out")
    )
    assert result.exit_code == 0, result.stderr
    return folder / "out", result.stdout


def last_line(result: Any) -> str:
    """Of standard error; transformers draws a bar there as it loads a model."""
    return result.stderr.strip().splitlines()[-1]


def written_at(out: Path) -> dict[Path, int]:
    """When each result of a run, and each file of latents, was written."""
    files = [f for name in ("runs", "latents") for f in (out / name).rglob("*.json")]
    return {file: file.stat().st_mtime_ns for file in files}


def measured(out: Path) -> dict[str, Any]:
    """Everything in the result files but the time it took, and the weights."""
    found: dict[str, Any] = {}
    for file in sorted((out / "runs").rglob("*.json")):
        values = json.loads(file.read_text())
        del values["seconds_per_step"]
        found[str(file.relative_to(out))] = values
    for file in sorted((out / "saes").rglob("sae_weights.safetensors")):
        found[str(file.relative_to(out))] = {k: v.tolist() for k, v in load_file(file).items()}
    return found


def test_a_sweep_writes_results_saes_verdicts_and_plots(whole: tuple[Path, str]) -> None:
    out, stdout = whole
    summary = json.loads((out / "sweep.json").read_text())
    assert summary["n_runs"] == len(summary["results"]) == 16
    assert summary["failures"] == {}
    assert [(c["cell"], c["a"], c["b"]) for c in summary["comparisons"]] == [
        ("mlp", "half", "full"),
        ("resid", "half", "full"),
    ]
    assert all(set(c["verdicts"]) == {"0", "1"} for c in summary["comparisons"])
    assert "16 of 16 runs" in stdout
    assert "Frontiers: A against B" in stdout
    assert (out / "frontier-mlp.png").read_bytes().startswith(b"\x89PNG")
    result = sweep.RunResult.read(out / "runs/mlp/seed-1/half/l1_coefficient-0.1.json")
    assert result.quality.n_tokens == 256
    assert result.l0_pos + result.l0_neg == pytest.approx(result.quality.l0)
    # seeds differ in weights, and an SAE sees the cell's own activations
    values = [r["quality"]["explained_variance"] for r in summary["results"]]
    assert len(set(values)) == 16


def test_the_latents_for_the_report(whole: tuple[Path, str], data: Path) -> None:
    out, _ = whole
    files = sorted((out / "latents").glob("*.json"))
    assert [file.name for file in files] == ["mlp-half-0.1.json", "resid-half-0.1.json"]
    found = SAELatents.read(files[0])
    sae = SAE.load_from_disk(out / "saes" / found.run, device="cpu")
    heldout = load_file(out / "cache" / "mlp.safetensors")["heldout"]
    census = bipolar_census(sae, heldout)
    energy = census.energy_pos + census.energy_neg
    assert [page.latent for page in found.pages] == energy.topk(4).indices.tolist()
    assert found.l0 == pytest.approx(census.l0)
    assert found.bipolar_share_by_energy_rank[-1] == pytest.approx(found.bipolar_share)
    assert found.plain_run is not None
    assert found.plain_run.startswith("mlp/seed-0/full/")
    assert set(found.audit) == {"-0.9", "-0.7", "-0.5"}
    page = found.pages[0]
    assert page.firing_rate_pos == pytest.approx(census.firing_rate_pos[page.latent].item())
    for sign, contexts in ((1, page.examples_pos), (-1, page.examples_neg)):
        assert len(contexts) <= 2
        assert all(sign * context.value > 0 for context in contexts)
    assert page.examples_pos or page.examples_neg
    assert page.dial is not None
    assert page.pair_dial is not None
    assert page.dial.latents == (page.latent, page.latent)
    assert page.dial.direction_cosine == pytest.approx(-1)
    assert page.dial.effect[4] == 0.0 == page.dial.coefficients[4]
    # the pair is that of the plain SAE of most and of least cosine to the axis
    plain = SAE.load_from_disk(out / "saes" / found.plain_run, device="cpu")
    axis = torch.nn.functional.normalize(sae.W_dec[page.latent], dim=0)
    cosine = torch.nn.functional.normalize(plain.W_dec, dim=1) @ axis
    assert page.pair_dial.latents == (int(cosine.argmax()), int(cosine.argmin()))
    # what is written is what is read
    again = data / "again.json"
    found.write(again)
    assert again.read_text() == files[0].read_text()


def test_a_second_call_runs_nothing(whole: tuple[Path, str], config: Path) -> None:
    out, _ = whole
    before = written_at(out)
    result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert written_at(out) == before


def test_a_changed_field_runs_what_it_changes(
    whole: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    out, _ = whole
    before = written_at(out)
    values = sweep_values(data)
    values["saes"]["half"]["threshold_init"] = 0.01
    try:
        assert (
            invoke("sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(out)).exit_code
            == 0
        )
        changed = {f for f, at in written_at(out).items() if before[f] != at}
        pages = {f for f in changed if f.parent.name == "latents"}  # they are of these runs
        assert {f.name for f in pages} == {"mlp-half-0.1.json", "resid-half-0.1.json"}
        assert {f.parent.name for f in changed - pages} == {"half"}
        assert len(changed - pages) == 8
    finally:  # the others compare with this folder
        invoke("sweep", str(write(sweep_values(data), tmp_path / "s.yaml")), "--out", str(out))


def test_an_interrupted_sweep_ends_with_the_same_results(
    whole: tuple[Path, str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, calls = tmp_path / "out", sweep.run_one, []

    def stops(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(sweep, "run_one", stops)
    result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 130
    assert last_line(result).endswith("Run the same command again to go on from there.")
    assert len(list((out / "runs").rglob("*.json"))) == 5
    monkeypatch.setattr(sweep, "run_one", real)
    assert invoke("sweep", str(config), "--out", str(out)).exit_code == 0
    assert measured(out) == measured(whole[0])


def test_a_failing_run_leaves_the_others_alone_and_is_tried_again(
    whole: tuple[Path, str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", sweep.run_one

    def fails(cfg: Any, run: Any, *args: Any) -> Any:
        if run.name == "resid/seed-0/half/l1_coefficient-1":
            raise RuntimeError("out of\nluck")
        return real(cfg, run, *args)

    monkeypatch.setattr(sweep, "run_one", fails)
    result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 1
    failure = "failed: resid/seed-0/half/l1_coefficient-1: RuntimeError: out of luck"
    assert failure in result.stderr
    assert failure in " ".join(result.stdout.split())  # at once, as well as at the end
    assert "15 of 16 runs" in result.stdout
    summary = json.loads((out / "sweep.json").read_text())
    # the other seed of that cell is still compared
    assert set(summary["comparisons"][1]["verdicts"]) == {"1"}
    monkeypatch.setattr(sweep, "run_one", real)
    assert invoke("sweep", str(config), "--out", str(out)).exit_code == 0
    assert not list((out / "failed").rglob("*.txt"))
    assert measured(out) == measured(whole[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(seed=[0]), "seed: unknown field; did you mean 'seeds'?"),
        (lambda v: v.pop("n_cached_tokens"), "n_cached_tokens: Field required"),
        (lambda v: v.update(n_heldout_tokens=0), "n_heldout_tokens: Input should be greater"),
        (lambda v: v["cells"]["mlp"].update(d=1), "cells.mlp.d: Extra inputs"),
        (
            lambda v: v.update(compare=[["half", "ful"]]),
            "compare: no SAE 'ful'; did you mean 'full'",
        ),
        (
            lambda v: v["saes"]["half"].update(l1_coefficient=1.0),
            "saes.half: exactly one field must",
        ),
        (
            lambda v: v["saes"]["half"].update(l1_coefficient=[]),
            "saes.half: exactly one field must",
        ),
        (lambda v: v["saes"]["half"].update(l1_coefficient=[1, 1]), "comes twice"),
        (lambda v: v["saes"]["half"].update(l1_coefficent=1), "saes.half.l1_coefficent: unknown"),
        (lambda v: v["saes"]["half"].update(architecture="sa_gae"), "saes.half.architecture: unk"),
        (lambda v: v["saes"]["half"].update(seeds=[2]), "saes.half.seeds: must be a list out of"),
        (lambda v: v["cells"]["mlp"].update(saes={"hal": {}}), "cells.mlp.saes: no SAE 'hal'; did"),
        (lambda v: v.update(latents={"saes": ["halb"], "value": 1}), "latents.saes: no SAE 'halb'"),
        (lambda v: v["runner"].update(lrr=1), "runner.lrr: unknown field; did you mean 'lr'"),
        (lambda v: v["runner"].update(seed=1), "runner.seed: is set by the sweep"),
        (lambda v: v.update(n_cached_tokens=10**6), "n_cached_tokens, n_heldout_tokens:"),
        (lambda v: v["cells"]["mlp"].update(hook_name="transformer.h.7"), "no module"),
    ],
)
def test_wrong_configs(change: Any, message: str, data: Path, tmp_path: Path) -> None:
    values = sweep_values(data)
    change(values)
    result = invoke(
        "sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(tmp_path / "out")
    )
    assert result.exit_code == 2, result.stderr
    assert message in last_line(result)
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "out").rglob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_with_a_killed_worker_gives_the_results_of_the_local_executor(
    whole: tuple[Path, str], config: Path, tmp_path: Path
) -> None:
    ray = pytest.importorskip("ray", reason="needs the [ray] extra")
    out = tmp_path / "out"
    killed: list[int] = []

    def kill_a_worker() -> None:
        deadline = time.monotonic() + 300
        while not killed and time.monotonic() < deadline:
            time.sleep(0.05)
            if len(list((out / "runs").rglob("*.json"))) < 3:
                continue
            for status in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    title = status.read_bytes()
                except OSError:
                    continue
                if title.startswith(b"ray::_group_task"):
                    os.kill(int(status.parent.name), signal.SIGKILL)
                    killed.append(int(status.parent.name))
                    return

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    try:
        result = invoke("sweep", str(config), "--out", str(out), "--executor", "ray")
    finally:
        killer.join()
        ray.shutdown()
    assert result.exit_code == 0, result.stderr
    assert len(killed) == 1
    assert measured(out) == measured(whole[0])
