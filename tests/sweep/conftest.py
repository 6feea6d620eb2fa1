"""A small transformers model and text, and a whole sweep over them."""

import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from tests.support.cli import invoke
from tests.support.configs import write
from tests.support.models import tiny_gpt2, tiny_tokenizer
from tests.sweep.examples import sweep_values


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of two layers, its tokenizer, and two texts."""
    folder = tmp_path_factory.mktemp("sweep_data")
    torch.manual_seed(0)
    tiny_gpt2().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    g = torch.Generator().manual_seed(1)
    for name in ("train", "heldout"):
        words = torch.randint(0, 63, (40, 60), generator=g).tolist()
        texts = [" ".join(f"w{i}" for i in row) for row in words]
        (folder / name).mkdir()
        Dataset.from_dict({"text": texts}).to_parquet(folder / name / "train.parquet")
    return folder


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


@pytest.fixture
def source(data: Path, whole: tuple[Path, str], tmp_path: Path) -> Path:
    """The config of a sweep that was run beside it, with one SAE gone from the disk."""
    config = write(sweep_values(data), tmp_path / "s.yaml")
    config.write_text("# sae-lens-signaware sweep s.yaml --out out\n" + config.read_text())
    shutil.copytree(whole[0], tmp_path / "out")
    shutil.rmtree(tmp_path / "out/saes/resid/seed-1/half/l1_coefficient-0.1")
    return config
