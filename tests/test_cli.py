"""Each command on good input writes and prints what it promises, on bad input one line, no file.

``demo`` is in test_demo.py, ``train`` in test_train.py, ``push`` in test_hub.py.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset
from sae_lens import SAE
from safetensors.torch import save_file
from torch.testing import assert_close

from sae_lens_signaware import __version__
from sae_lens_signaware.report import write_report
from tests.architectures import D_IN, D_SAE, VARIANTS, inference_sae, inputs
from tests.small_sweep import sweep_values, write_data

COMMANDS = (
    "demo", "train", "sweep", "report", "analyze", "audit", "latents", "probe", "split",
    "merge", "push",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: an SAE, activations, and what is wrong with others."""
    monkeypatch.chdir(tmp_path)
    sae = inference_sae("sa_gsae-none")
    sae.save_model(tmp_path / "sae")
    save_file({"heldout": inputs(500), "wide": torch.zeros(4, D_IN + 1)}, tmp_path / "acts")
    save_file({"heldout": inputs(4) / 0}, tmp_path / "nan")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.csv").write_text("text,label\nw1,a\n")
    return tmp_path


WITH_ACTS = ("--activations", "acts")
WRONG_SAE = [
    ("nowhere", "SAE: nowhere is no folder"),
    ("empty", "SAE: empty has no cfg.json"),
]


@pytest.mark.parametrize(("sae", "named"), WRONG_SAE)
@pytest.mark.parametrize(
    "words",
    [
        ("analyze", *WITH_ACTS),
        ("audit",),
        ("split", "new"),
        ("merge", "new", *WITH_ACTS),
        ("probe", "--data", "text.csv"),
        ("latents",),
        ("push", "me/mine"),
    ],
    ids=lambda words: words[0],
)
def test_an_sae_that_is_not_there(words, sae, named, folder, refuses) -> None:
    refuses(folder, named, words[0], sae, *words[1:])


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("--activations", ("analyze", "sae")),
        ("activations: nowhere", ("analyze", "sae", "--activations", "nowhere")),
        ("activations: text.csv", ("analyze", "sae", "--activations", "text.csv")),
        ("did you mean 'heldout'", ("analyze", "sae", *WITH_ACTS, "--key", "heldot")),
        (f"{D_IN}", ("analyze", "sae", *WITH_ACTS, "--key", "wide")),
        ("activations must be finite", ("analyze", "sae", "--activations", "nan")),
        ("out: text.csv", ("analyze", "sae", *WITH_ACTS, "--out", "text.csv")),
        ("out: acts/x", ("analyze", "sae", *WITH_ACTS, "--out", "acts/x")),
        ("--max-cosine", ("audit", "sae", "--max-cosine", "2")),
        ("max_cosine", ("audit", "sae", "--max-cosine", "0")),
        ("--max-cosine", ("audit", "sae", "--max-cosine", "close")),
        ("activations: nowhere", ("audit", "sae", "--activations", "nowhere")),
        ("out must be a file", ("audit", "sae", "--out", "empty")),
        ("out must be a file", ("audit", "sae", "--out", "typo/audit.json")),
        ("OUT: empty exists", ("split", "sae", "empty")),
        ("OUT: text.csv exists", ("split", "sae", "text.csv")),
        ("OUT: acts/new", ("split", "sae", "acts/new")),
        ("OUT: empty exists", ("merge", "sae", "empty", *WITH_ACTS)),
        ("did you mean 'heldout'", ("merge", "sae", "new", *WITH_ACTS, "--key", "heldot")),
        ("gated or jumprelu", ("merge", "sae", "new", *WITH_ACTS)),  # a signed one
        ("--data", ("probe", "sae")),
        ("--data", ("probe", "sae", "--data", "nowhere.csv")),
        ("--k", ("probe", "sae", "--data", "text.csv", "--k", "0")),
        ("--seed", ("probe", "sae", "--data", "text.csv", "--seed", "-1")),
        ("--model-kwargs", ("probe", "sae", "--data", "text.csv", "--model-kwargs", "{")),
        ("hook_name", ("probe", "sae", "--data", "text.csv")),
        ("model_name: nowhere", ("probe", "sae", "--data", "text.csv", "--hook-name", "x",
                            "--model", "nowhere", "--model-class", "AutoModelForCausalLM")),
        ("out must be a file", ("probe", "sae", "--data", "text.csv", "--out", "typo/x.json")),
        ("RESULTS", ("report", "nowhere")),
        ("RESULTS", ("report", "empty")),
        ("out must be a file", ("report", "empty", "--out", "typo/report.html")),
        ("nowhere.yaml", ("sweep", "nowhere.yaml")),
        ("text.csv", ("sweep", "text.csv")),
        ("--executor", ("sweep", "text.csv", "--executor", "slurm")),
        ("nowhere.yaml", ("train", "nowhere.yaml")),
        ("--steps", ("demo", "--steps", "1")),
        ("out: text.csv", ("demo", "--out", "text.csv")),
        ("--import nowhere", ("--import", "nowhere", "audit", "sae")),
        ("analyse", ("analyse", "sae")),
        ("--ky", ("analyze", "sae", *WITH_ACTS, "--ky", "x")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_wrong_input_is_one_line_that_names_it(named, words, folder, refuses, hub) -> None:
    refuses(folder, named, *words)


def test_a_plain_sae_is_not_split(folder, command, refuses) -> None:
    assert command("split", "sae", "plain")[0] == 0
    refuses(folder, "SAE must be a signed SAE, got 'gated'", "split", "plain", "again")


def test_a_wrong_path_name_or_number_does_not_wait_for_torch(folder) -> None:
    calls = [
        ["analyze", "nowhere", *WITH_ACTS],
        ["analyze", "sae", *WITH_ACTS, "--key", "heldot"],
        ["audit", "sae", "--max-cosine", "2"],
        ["split", "sae", "empty"],
        ["probe", "sae", "--data", "nowhere.csv"],
        ["report", "nowhere"],
        ["train", "nowhere.yaml"],
        ["sweep", "text.csv"],
        ["push", "sae", "no-owner"],
        ["--help"],
    ]
    script = f"""
import sys
from sae_lens_signaware.cli import main
for words in {calls!r}:
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as stop:
        assert stop.code == (2 if words != ["--help"] else 0) or stop.code is None, words
    heavy = {{"torch", "sae_lens", "transformers", "pandas"}} & set(sys.modules)
    assert not heavy, (words, heavy)
"""
    program = folder / "sae-lens-signaware"
    program.write_text(script)
    root = str(Path(__file__).parent.parent)
    words, env = [sys.executable, str(program)], {"PYTHONPATH": root}
    found = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_help_and_versions(command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)
    for name in COMMANDS:
        code, out, _ = command(name, "--help")
        assert (code, "Example: " in out) == (0, True)
    code, out, _ = command("--version")
    assert (code, f"sae-lens-signaware {__version__}" in out, "sae-lens 6" in out) == (
        0,
        True,
        True,
    )


def test_quiet_prints_nothing_and_a_module_is_imported_first(folder, command, monkeypatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "")
    (folder / "my_module.py").write_text("open('imported', 'w').close()")
    words = ("--import", "my_module", "-q", "audit", "sae", "--out", "audit.json")
    code, out, err = command(*words)
    assert (code, out, err) == (0, "", "")
    assert (folder / "imported").exists()
    assert (folder / "audit.json").exists()
    monkeypatch.delitem(sys.modules, "my_module")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError("disk\nfull"), 1, "Error: disk full\n"),
        (RuntimeError("no memory"), 1, "Error: no memory\n"),
        (KeyboardInterrupt(), 130, "Error: Interrupted.\n"),
    ],
    ids=["OSError", "RuntimeError", "Ctrl-C"],
)
def test_an_error_that_is_no_input_has_another_code(
    error, code, line, folder, command, monkeypatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("sae_lens_signaware.hub.load_sae", fail)
    found, _, err = command("audit", "sae")
    assert (found, err) == (code, line)


def test_analyze(folder, command) -> None:
    code, out, _ = command("analyze", "sae", *WITH_ACTS, "--out", "new/analysis")
    assert code == 0
    held = {p.name: json.loads(p.read_text()) for p in (folder / "new/analysis").iterdir()}
    assert set(held) == {"analysis.json", "calibration.json", "census.json"}
    x = inputs(500)
    sae = SAE.load_from_disk(folder / "sae")
    z, error = sae.encode(x), (x - sae(x)).pow(2).sum()
    found = held["analysis.json"]
    assert found["n_tokens"] == 500
    assert_close(found["l0"], (z != 0).sum(1).double().mean().item())
    r2 = 1 - (error / (x - x.mean(0)).pow(2).sum()).item()
    assert_close(found["explained_variance"], r2, rtol=1e-4, atol=1e-4)
    assert f"{found['l0']:.2f}" in out
    assert f"{r2:.4f}" in out


def test_audit(folder, command) -> None:
    assert command("split", "sae", "plain")[0] == 0
    code, out, _ = command("audit", "plain", *WITH_ACTS, "--out", "audit.json")
    assert code == 0
    found = json.loads((folder / "audit.json").read_text())
    assert found["freed_width"] == D_SAE  # every latent has its twin
    assert found["cosine"][:D_SAE] == pytest.approx([-1] * D_SAE)
    assert f"free {D_SAE} latents" in out
    assert "100.0% of its firings are in pairs" in " ".join(out.split())


@pytest.mark.parametrize("variant", VARIANTS)
def test_split(variant, tmp_path, command) -> None:
    sae = inference_sae(variant)
    sae.save_model(tmp_path / "sae")
    code, out, _ = command("split", tmp_path / "sae", tmp_path / "new/plain")
    assert code == 0, out
    plain = SAE.load_from_disk(tmp_path / "new/plain")
    x = inputs()
    assert_close(plain(x), sae(x))
    assert (plain.encode(x) >= 0).all()
    width = 2 * D_SAE if (sae.encode(x) < 0).any() else D_SAE
    assert plain.cfg.d_sae == width
    assert f"{plain.cfg.architecture()} of width {width}" in out


def test_merge_takes_back_a_split(folder, command) -> None:
    assert command("split", "sae", "plain")[0] == 0
    code, out, _ = command("merge", "plain", "signed", *WITH_ACTS)
    assert code == 0
    x, signed = inputs(500), SAE.load_from_disk(folder / "signed")
    assert (signed.cfg.architecture(), signed.cfg.d_sae) == ("sa_gsae", D_SAE)
    assert_close(signed(x), SAE.load_from_disk(folder / "sae")(x))
    assert f"{D_SAE} pairs merged: width {2 * D_SAE} -> {D_SAE}" in out


@pytest.fixture
def of_model(tiny_model, tmp_path) -> Path:
    """Folder of an SAE whose metadata name a model."""
    sae = inference_sae("bi_topk", d_in=16)
    sae.cfg.metadata.model_name = str(tiny_model)
    sae.cfg.metadata.model_class_name = "AutoModelForCausalLM"
    sae.cfg.metadata.hook_name = "transformer.h.0.mlp"
    sae.cfg.metadata.context_size = 8
    sae.save_model(tmp_path / "sae")
    return tmp_path / "sae"


def test_latents(of_model, tmp_path, command) -> None:
    (tmp_path / "texts").mkdir()
    texts = [" ".join(f"w{(i * j) % 62}" for j in range(1, 20)) for i in range(20)]
    Dataset.from_dict({"text": texts}).to_parquet(tmp_path / "texts/train.parquet")
    out = tmp_path / "page.html"
    code, _, err = command("latents", of_model, "--out", out)
    assert code == 2
    assert "dataset must be a folder or a Hub id" in err
    words = ("latents", of_model, "--dataset", tmp_path / "texts", "--n-latents", 3, "--out", out)
    code, printed, err = command(*words)
    assert code == 0, err
    found = re.findall(r'data-latent="(\d+)"', out.read_text())
    assert len(found) == 3
    assert all(re.search(rf"│ {latent} ", printed) for latent in found)
    code, _, err = command(*words[:3], tmp_path / "nowhere", "--out", out)
    assert code == 2
    assert "dataset: " in err


def test_probe(of_model, tmp_path, command) -> None:
    pytest.importorskip("sklearn", reason="needs the [probe] extra")
    rows = [f"w{i % 7} w{i % 5} w{40 + i % 2} w{i},{'no' if i % 2 else 'yes'}" for i in range(40)]
    (tmp_path / "data.csv").write_text("\n".join(["text,label", *rows]))
    words = ("probe", of_model, "--data", tmp_path / "data.csv")
    words += ("--k", "1", "--k", "2", "--out", tmp_path / "probe.json")
    code, out, err = command(*words)
    assert code == 0, err
    found = json.loads((tmp_path / "probe.json").read_text())
    assert {row["k"] for row in found["probes"] if row["form"] == "axis"} == {1, 2}
    assert "axis" in out


@pytest.mark.filterwarnings("ignore")
def test_sweep_and_report(tiny_model, tmp_path, command, refuses) -> None:
    values = sweep_values(write_data(tmp_path, tiny_model))
    values |= {"seeds": [0], "cells": {"mlp": values["cells"]["mlp"]}}
    config, out_folder = tmp_path / "sweep.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump({**values, "compare": [["half", "fuller"]]}))
    refuses(tmp_path, "did you mean 'full'", "sweep", config, "--out", out_folder)
    config.write_text(yaml.safe_dump(values))
    code, out, err = command("sweep", config, "--out", out_folder)
    assert code == 0, err
    summary = json.loads((out_folder / "sweep.json").read_text())
    assert summary["n_runs"] == len(summary["results"]) == 4
    assert "half" in out
    cfg = SAE.load_from_disk(out_folder / "saes/mlp/seed-0/half/l1_coefficient-1").cfg
    assert cfg.architecture() == "sa_gsae"
    page = tmp_path / "page.html"
    code, out, err = command("report", out_folder, "--out", page)
    assert code == 0, err
    assert str(page) in out
    assert page.read_text() == write_report(out_folder, tmp_path / "again.html").read_text()
