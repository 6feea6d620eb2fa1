"""What is trained again: the identity of a result is one of content."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile, RepoFolder
from safetensors.torch import load_file, save_file

from sae_lens_signaware.experiments.sweep import content
from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from sae_lens_signaware.experiments.sweep.content import FileDigests, model_digest, text_digest
from sae_lens_signaware.experiments.sweep.store import SweepStore
from tests.support.cli import invoke
from tests.support.configs import write
from tests.sweep.examples import (
    TAKEN_OVER,
    measured,
    sweep_values,
    written_at,
)


@pytest.fixture
def small(data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of model and text, and the config of a sweep of two runs over them."""
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    values = sweep_values(folder)
    del values["latents"], values["saes"]["full"]
    values |= {"seeds": [0], "cells": {"mlp": values["cells"]["mlp"]}, "compare": []}
    return folder, write(values, tmp_path / "s.yaml")


def change_weights(folder: Path) -> None:
    path = folder / "model" / "model.safetensors"
    tensors = {k: 1.5 * v for k, v in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def change_text(folder: Path, name: str) -> None:
    texts = [" ".join(f"w{(i * j) % 63}" for i in range(60)) for j in range(1, 41)]
    Dataset.from_dict({"text": texts}).to_parquet(folder / name / "train.parquet")


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        change_weights,
        lambda folder: change_text(folder, "train"),
        lambda folder: change_text(folder, "heldout"),
    ],
    ids=["weights", "text", "held-out text"],
)
def test_other_content_in_the_same_place_is_trained_again(
    change: Any, small: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, config = small
    out = tmp_path / "out"
    assert invoke("sweep", str(config), "--out", str(out)).exit_code == 0
    before, at = measured(out), written_at(out)
    again = invoke("sweep", str(config), "--out", str(out))
    assert "results are of" not in again.stdout
    assert TAKEN_OVER not in again.stdout
    assert written_at(out) == at
    change(folder)
    result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert "2 results are of another model or text in the same place" in result.stdout
    after = measured(out)
    assert set(after) == set(before)
    for name, values in after.items():
        if name.startswith("runs"):
            assert values["quality"] != before[name]["quality"]


def test_a_digest_is_read_from_the_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, reads = tmp_path / "big", []
    file.write_text("weights")
    real = content.sha256_of
    monkeypatch.setattr(content, "sha256_of", lambda path: reads.append(path) or real(path))
    first = FileDigests(tmp_path / "digests.json").of(file)
    assert FileDigests(tmp_path / "digests.json").of(file) == first
    assert len(reads) == 1
    file.write_text("WEIGHTS")
    os.utime(file, ns=(0, 0))
    assert FileDigests(tmp_path / "digests.json").of(file) != first
    (tmp_path / "digests.json").write_text("[1]")
    assert FileDigests(tmp_path / "digests.json").of(file) != first


@pytest.mark.slow
def test_nothing_is_thrown_away_for_what_does_not_matter(
    whole: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    out, values = tmp_path / "moved", sweep_values(data)
    shutil.copytree(whole[0], out)
    at = written_at(out)
    failure = out / "failed" / "mlp/seed-0/half/l1_coefficient-1.txt"  # of a kill after the result
    failure.parent.mkdir(parents=True)
    failure.write_text("RuntimeError: before")
    for file in (f for name in ("model", "train", "heldout") for f in (data / name).iterdir()):
        file.touch()
    values |= {"threads": 2, "num_cpus": 2}
    result = invoke("sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert "failed" not in result.stderr
    assert "16 of 16 runs" in result.stdout
    assert written_at(out) == at


def test_a_copy_of_the_same_size_and_time_is_read_again(tmp_path: Path) -> None:
    file, digests = tmp_path / "model.safetensors", FileDigests(tmp_path / "digests.json")
    file.write_text("weights")
    first, at = digests.of(file), file.stat()
    file.write_text("WEIGHTS")
    os.utime(file, ns=(at.st_atime_ns, at.st_mtime_ns))
    assert file.stat().st_mtime_ns == at.st_mtime_ns
    assert digests.of(file) != first


def test_digests_of_many_files_are_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, writes = tmp_path / "text", []
    text.mkdir()
    for i in range(5):
        (text / f"{i}.parquet").write_text(str(i))
    real = content.write_json
    monkeypatch.setattr(content, "write_json", lambda *args: writes.append(args) or real(*args))
    first = text_digest(str(text), FileDigests(tmp_path / "digests.json"))
    assert len(writes) == 1
    (text / ".cache").mkdir()
    for name in ("README.md", ".gitattributes", ".cache/lock"):
        (text / name).write_text("x")
    (text / "0.parquet").touch()  # read again, to the same end
    assert text_digest(str(text), FileDigests(tmp_path / "digests.json")) == first
    assert len(writes) == 2

    real_digest, files = content.sha256_of, sorted(text.glob("*.parquet"))

    def stops(path: Path) -> str:
        if path == files[3]:
            raise KeyboardInterrupt
        return real_digest(path)

    monkeypatch.setattr(content, "sha256_of", stops)
    with pytest.raises(KeyboardInterrupt):
        FileDigests(tmp_path / "others.json").of_files(text, files)
    assert len(FileDigests(tmp_path / "others.json").known) == 3


def test_files_that_a_datasets_card_chooses_count(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    for name in ("a", "b"):
        (text / f"{name}.csv").write_text(f"text\n{name}\n")

    def digest(card: str) -> str | None:
        (text / "README.md").write_text(card)
        return text_digest(str(text), FileDigests(tmp_path / "digests.json"))

    plain = digest("No front matter.")
    assert digest("---\nlicense: mit\n---\n") == plain
    config = "---\nlicense: {}\nconfigs:\n- config_name: default\n  data_files: {}.csv\n---\n"
    of_a = digest(config.format("mit", "a"))
    assert of_a == digest(config.format("apache-2.0", "a")) != plain
    assert of_a != digest(config.format("mit", "b")) != plain
    assert digest("---\nconfigs: {1: a, no: b, 2024-01-01: c}\n---\n") != plain


def test_weights_that_are_not_read_do_not_count(tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin", "model.gguf"):
        (tmp_path / name).write_text("x")

    def changed_by(**kwargs: Any) -> list[str]:
        """The files on which the digest depends."""
        names, digests = [], FileDigests(tmp_path / "digests.json")
        for file in sorted(tmp_path.glob("*model*")):
            before = model_digest(str(tmp_path), "AutoModelForCausalLM", kwargs, digests)
            file.write_text(file.read_text() + "x")
            after = model_digest(str(tmp_path), "AutoModelForCausalLM", kwargs, digests)
            names += [file.name] if after != before else []
        return names

    assert changed_by() == ["model.safetensors"]
    assert changed_by(use_safetensors=False) == ["pytorch_model.bin"]
    assert changed_by(gguf_file="model.gguf") == ["model.gguf"]
    gguf = tmp_path / "model.gguf"
    assert changed_by(gguf_file=str(gguf)) == ["model.gguf"]
    (tmp_path / "model.safetensors").unlink()
    assert changed_by() == ["pytorch_model.bin"]


def test_a_gguf_file_outside_of_the_models_folder_counts(tmp_path: Path) -> None:
    model, gguf = tmp_path / "model", tmp_path / "weights.gguf"
    model.mkdir()
    digests, kwargs = FileDigests(tmp_path / "digests.json"), {"gguf_file": str(gguf)}
    seen = []
    for text in ("weights", "others"):
        gguf.write_text(text)
        seen.append(model_digest(str(model), "AutoModelForCausalLM", kwargs, digests))
    assert None not in seen
    assert seen[0] != seen[1]


def test_a_model_in_a_subfolder_counts_by_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    digests, seen = FileDigests(tmp_path / "digests.json"), []
    for text in ("weights", "others"):
        (tmp_path / "sub" / "model.safetensors").write_text(text)
        kwargs = {"subfolder": "sub"}
        seen.append(model_digest(str(tmp_path), "AutoModelForCausalLM", kwargs, digests))
    assert None not in seen
    assert seen[0] != seen[1]


def test_what_counts_of_a_models_folder(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")

    def digest() -> str | None:
        return model_digest(str(model), "AutoModelForCausalLM", {}, FileDigests(tmp_path / "d"))

    digests = [digest()]
    for name in ("README.md", "optimizer.pt", "training_args.bin", "generation_config.json"):
        (model / name).write_text("x")
        assert digest() == digests[0]
    counted = "model-00001-of-00002.safetensors tokenizer.json merges.txt chat_template.jinja"
    for name in counted.split():
        (model / name).write_text("x")
        digests.append(digest())
    assert len(set(digests)) == 5


def test_a_model_of_the_hub_counts_by_its_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def snapshot(repository: str, **kwargs: Any) -> str:
        asked.append((repository, kwargs))
        return str(tmp_path)

    digests = FileDigests(tmp_path / "digests")
    assert model_digest("no/such-model", "AutoModelForCausalLM", {}, digests) is None
    assert model_digest("no name", "AutoModelForCausalLM", {}, digests) is None
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    (tmp_path / "model.safetensors").write_text("weights")
    kwargs = {"revision": "step3000", "cache_dir": "elsewhere", "torch_dtype": "float32"}
    first = model_digest("pythia-70m", "HookedTransformer", kwargs, digests)
    local = {"revision": "step3000", "cache_dir": "elsewhere", "local_files_only": True}
    assert asked == [("EleutherAI/pythia-70m", local)]
    (tmp_path / "model.safetensors").write_text("other weights")
    assert model_digest("pythia-70m", "HookedTransformer", kwargs, digests) not in (None, first)


def test_a_dataset_of_the_hub_counts_by_the_ids_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = FileDigests(tmp_path / "digests")
    entries: list[Any] = [
        RepoFile(path="README.md", size=1, oid="a"),
        RepoFolder(path="data", oid="b"),
        RepoFile(path="train.parquet", size=1, oid="c"),
    ]
    fails = SimpleNamespace(at=False)

    def tree(self: Any, name: str, **kwargs: Any) -> list[Any]:
        assert kwargs["repo_type"] == "dataset"
        if fails.at:
            raise ConnectionError("no network")
        return entries

    def digest() -> str | None:
        content._hub_text_digest.cache_clear()
        return text_digest("someone/text", digests)

    card = tmp_path / "card.md"
    card.write_text("---\nlicense: mit\n---\n")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *args, **kwargs: str(card))
    monkeypatch.setattr(HfApi, "list_repo_tree", tree)
    first = digest()
    assert first is not None
    entries[0] = RepoFile(path="README.md", size=1, oid="another")
    assert digest() == first
    card.write_text("---\nconfigs:\n- config_name: default\n  data_files: train.parquet\n---\n")
    chosen = digest()
    assert chosen not in (None, first)
    entries[1] = RepoFolder(path="data", oid="another")
    assert digest() not in (None, first, chosen)
    fails.at = True
    assert digest() is None
    content._hub_text_digest.cache_clear()


def test_without_a_digest_the_name_alone_counts(
    whole: tuple[Path, str], config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, runs = load_sweep_config(config)
    store = SweepStore(values, whole[0])
    assert store.finished(runs[0]) is not None
    store.content = dict.fromkeys(store.content_of(runs[0]))  # as offline
    assert store.finished(runs[0]) is not None
    store.content = {**store.content, "text": "another"}
    assert store.finished(runs[0]) is None
