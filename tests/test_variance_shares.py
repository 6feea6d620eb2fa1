"""Shares of variance of cached activations, by hand, and through the command."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_lens_signaware.files import write_tensors


@pytest.fixture
def script(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("variance_shares")


def test_shares_by_hand(script: Any) -> None:
    # means 3 and 0, variances 1 and 4; squared norms 4 + 4 and 16 + 4
    shares = script.variance_shares(torch.tensor([[2.0, 2.0], [4.0, -2.0]]))
    assert shares.of_mean_square == pytest.approx(5 / 14)
    assert shares.of_largest_dimension == pytest.approx(4 / 5)


def test_a_scale_changes_neither(script: Any) -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 1
    scaled, plain = script.variance_shares(7 * x), script.variance_shares(x)
    assert scaled.of_mean_square == pytest.approx(plain.of_mean_square)
    assert scaled.of_largest_dimension == pytest.approx(plain.of_largest_dimension)


def test_the_command_writes_a_row_for_each_cache(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "cache", tmp_path / "out.json"
    folder.mkdir()
    write_tensors(
        {"heldout": torch.tensor([[2.0, 2.0], [4.0, -2.0]]).half()}, folder / "mlp.safetensors"
    )
    monkeypatch.setattr(sys, "argv", ["variance_shares.py", str(folder), "--json", str(out)])
    script.main()
    assert json.loads(out.read_text())["rows"] == [["cache", "mlp", 0.3571, 0.8]]


def test_a_file_without_held_out_activations_is_one_line(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tensors({"train": torch.ones(2, 2)}, tmp_path / "mlp.safetensors")
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["variance_shares.py", str(tmp_path), "--json", str(out)])
    with pytest.raises(
        SystemExit, match=r"^activations: .* has no tensor 'heldout'; it has train$"
    ):
        script.main()
    assert not out.exists()


def test_a_folder_without_caches_is_one_line(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["variance_shares.py", str(tmp_path), "--json", str(out)])
    with pytest.raises(SystemExit, match=r"^CACHE_FOLDER: none of .* has a \*\.safetensors$"):
        script.main()
    assert not out.exists()
