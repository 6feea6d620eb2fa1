"""Shared fixtures. The Hub on loopback starts before sae_lens or transformers is imported."""

import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub_server import HubServer

# Read by huggingface_hub at import, so it cannot wait for a fixture.
HUB = HubServer()
os.environ["HF_ENDPOINT"] = HUB.url
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf-home-")
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["NO_PROXY"] = "127.0.0.1"
os.environ["WANDB_MODE"] = "offline"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
    os.environ.pop(name, None)
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker a core: its child processes have one thread too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402

torch.set_num_threads(1)  # xdist runs a worker a core


# The slow tests that take minutes. They begin, so that no worker waits for the last of them.
FIRST = ("test_tools.py", "test_presets.py", "test_notebook.py")


def pytest_configure(config: pytest.Config) -> None:
    """Let xdist's ``--dist loadfile`` keep the order of the files."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in FIRST)


def pytest_unconfigure() -> None:
    """Remove what this process has loaded from the Hub on loopback."""
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """The Hub on loopback, empty, its log cleared; afterwards too, so that no fault stays in it."""
    HUB.clear()
    yield HUB
    HUB.clear()


@pytest.fixture
def benchmark_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A script of benchmarks/ by its name, as a module that finds the others as it does."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def figures(benchmark_script: Callable[[str], Any]) -> Any:
    """``benchmarks/figures.py``, which needs the [demo] extra."""
    return benchmark_script("figures")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
