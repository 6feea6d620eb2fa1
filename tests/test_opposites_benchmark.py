"""``benchmarks/opposites.py``: one run of the model for a set, and nothing twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sae_lens.load_model import HookedProxyLM

import sae_lens_signaware as signaware
from sae_lens_signaware.experiments.opposites.write import Row, write_opposites
from tests.support.models import tiny_gpt2, tiny_tokenizer
from tests.support.saes import make_sae

HOOKS = ("transformer.h.0.mlp", "transformer.h.1.mlp")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, a signed SAE with its plain twin at two hook points, and two sets of texts."""
    tiny_gpt2().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    for i, hook in enumerate(HOOKS):
        sae = make_sae("sa_gsae")
        sae.cfg.metadata.hook_name = hook
        sae.save_model(tmp_path / "saes" / f"signed-{i}")
        signaware.split_polarities(sae).save_model(tmp_path / "saes" / f"plain-{i}")
    rng = np.random.default_rng(0)
    sets: dict[str, list[Row]] = {}
    for name in ("numbers", "classes"):
        texts = [" ".join(f"w{i}" for i in rng.integers(0, 63, 5)) for _ in range(80)]
        labels = [str(n) if name == "numbers" else "ab"[n % 4 // 2] for n in range(80)]
        parts = ["fit", "report"] * 40
        sets[name] = [Row(*row) for row in zip(texts, labels, parts, strict=True)]
    write_opposites(sets, tmp_path / "data")
    return tmp_path


@pytest.fixture
def opposites(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("opposites")


def call(
    opposites: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> list[dict[str, Any]]:
    args = ["x", str(folder / "data"), "--saes", str(folder / "saes")]
    args += ["--model", str(folder / "model"), "--model-class", "AutoModelForCausalLM"]
    args += ["--cache", str(folder / "cache"), "--json", str(folder / "out.json")]
    monkeypatch.setattr("sys.argv", [*args, "--resamples", "20", *more])
    opposites.main()
    return json.loads((folder / "out.json").read_text())["rows"]


def test_the_model_runs_once_and_results_are_those_of_probe(
    opposites: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    run = HookedProxyLM.run_with_cache

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return run(self, *args, **kwargs)

    monkeypatch.setattr(HookedProxyLM, "run_with_cache", counted)
    rows = call(opposites, folder, monkeypatch)
    assert len(calls) == 2  # all texts of a set have one length
    assert [(row["set"], Path(row["sae"]).name) for row in rows] == [
        (name, sae)
        for name in ("classes", "numbers")
        for sae in ("plain-0", "plain-1", "signed-0", "signed-1")
    ]
    assert {(row["metric"], row["n_fit"], row["n_report"]) for row in rows} == {
        ("auc", 40, 40),
        ("rho", 40, 40),
    }
    row = rows[-1]
    model = signaware.training.hooks.load_model_with_hooks(
        str(folder / "model"), "AutoModelForCausalLM", None, [HOOKS[1]]
    )
    held = signaware.read_labelled_texts(folder / "data" / "numbers.csv", part_column="part")
    (source,) = signaware.text_activations(model, held.texts, [HOOKS[1]])
    sae = signaware.load_sae_reference(str(folder / "saes" / "signed-1"))
    expected = signaware.probe(sae, source, held.labels, parts=held.parts, n_resamples=20)
    assert [p[:3] for p in row["probes"]] == [
        [p.form, p.k, pytest.approx(p.value, abs=1e-4)] for p in expected.probes
    ]
    assert [end[:3] for end in row["ends"]] == [
        [e.form, e.feature, e.verdict] for e in expected.ends
    ]
    # the raw activations are probed once for a hook point, and stand at each of its SAEs
    assert row["probes"][-1][2] == pytest.approx(expected.of("raw").value, abs=1e-4)
    calls.clear()

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("probed again")

    monkeypatch.setattr(signaware, "probe", fails)
    assert call(opposites, folder, monkeypatch) == rows
    assert calls == []


def test_of_each_part_the_first_texts_are_taken(opposites: Any, folder: Path) -> None:
    texts = opposites.read_texts(folder / "data" / "classes.csv", 15)
    assert texts.held.parts == ["fit", "report"] * 15
    whole = opposites.read_texts(folder / "data" / "classes.csv", None)
    assert texts.held.texts == whole.held.texts[:30]
    assert texts.sha256 != whole.sha256


def test_what_is_not_there_is_one_line(
    opposites: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="holds no SAE"):
        call(opposites, folder, monkeypatch, "--saes", str(folder / "data"))
    (folder / "data" / "numbers.csv").unlink()
    (folder / "data" / "classes.csv").unlink()
    with pytest.raises(SystemExit, match=r"holds no \*\.csv"):
        call(opposites, folder, monkeypatch)
