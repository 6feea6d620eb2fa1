"""Shared fixtures. Nothing here imports torch before a test does."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hub_server import HubServer

# Read by huggingface_hub, torch and wandb at their import, so they cannot wait for a fixture.
HUB = HubServer()
os.environ |= {
    "HF_ENDPOINT": HUB.url,
    "HF_HOME": tempfile.mkdtemp(prefix="hf-home-"),
    "HF_HUB_DISABLE_XET": "1",
    "NO_PROXY": "127.0.0.1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_MODE": "offline",
}
for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
    os.environ.pop(_name, None)


def pytest_unconfigure() -> None:
    """Remove what this process has loaded from the Hub on loopback."""
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """The Hub on loopback, empty, its log cleared; ``hub.url`` is its address."""
    HUB.clear()
    yield HUB
    HUB.clear()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a GPT-2 of width 16, 2 layers and 64 words "w0".."w62", with its tokenizer.

    SAELens loads it with ``model_class_name: AutoModelForCausalLM``; a hook is
    ``transformer.h.0.mlp``.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_model")
    words = {f"w{i}": i for i in range(63)} | {"<eos>": 63}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<eos>")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=64, n_positions=32)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the program in this process: ``code, out, err = command("split", sae, "plain")``."""
    from sae_lens_signaware.cli import main

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sae-lens-signaware", *map(str, words)])
        handler = signal.getsignal(signal.SIGTERM)
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as stopped:
                main()
        finally:
            signal.signal(signal.SIGTERM, handler)
        return int(stopped.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture
def refuses(command: Callable[..., tuple[int, str, str]]) -> Callable[..., None]:
    """Asserts that a call exits with 2 and one line that has ``named`` in it, and writes nothing.

    ``refuses(folder, named, *words)``: the folder is where it could have written.
    """

    def call(folder: Path, named: str, *words: object) -> None:
        def held() -> dict[Path, int]:
            return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}

        before, paths = held(), set(folder.rglob("*"))
        code, _, err = command(*words)
        lines = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert (code, len(lines)) == (2, 1), err
        assert named in lines[0]
        assert "Traceback" not in err
        assert (held(), set(folder.rglob("*"))) == (before, paths)

    return call


@pytest.fixture(autouse=True)
def _seed() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
