"""benchmarks/loss_recovered.py on a small sweep."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.experiments.sweep.cache import load_hooked_model, make_store
from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from tests.support.saes import D_IN


@pytest.mark.slow
def test_it_measures_each_sae_on_disk_on_the_same_tokens(
    source: Path, data: Path, benchmark_script: Callable[[str], Any]
) -> None:
    rows = benchmark_script("loss_recovered").measure(source, source.parent, 0.1, 2)
    measured = {tuple(row[:3]): row[-2:] for row in rows}
    expected = {(c, s, i) for c in ("mlp", "resid") for s in ("half", "full") for i in (0, 1)}
    assert set(measured) == expected - {("resid", "half", 1)}
    for (cell, sae, seed), values in measured.items():
        folder = source.parent / f"out/saes/{cell}/seed-{seed}/{sae}/l1_coefficient-0.1"
        # SAELens takes the means in float32, and the losses of this model differ little
        assert values == pytest.approx(by_hand(source, data, cell, folder), rel=0.02, abs=2e-3)


def by_hand(source: Path, data: Path, cell: str, folder: Path) -> list[float]:
    """(CE_zero - CE_sae) / (CE_zero - CE_orig) of two batches, by a hook on the model's module."""
    run = next(run for run in load_sweep_config(source)[1] if run.cell == cell)
    hooked = load_hooked_model(run.cfg, [run.cfg.hook_name])
    store = make_store(hooked, run.cfg, str(data / "heldout"), {run.cfg.hook_name: D_IN})
    batches = [store.get_batch_tokens() for _ in range(2)]
    model: Any = hooked.model
    module = model.get_submodule(run.cfg.hook_name)
    sae = SAE.load_from_disk(folder)

    def loss(tokens: Tensor, replace: Callable[[Tensor], Tensor]) -> float:
        def hook(_: object, __: object, output: Any) -> Any:
            if isinstance(output, tuple):
                return (replace(output[0]), *output[1:])
            return replace(output)

        handle = module.register_forward_hook(hook)
        with torch.no_grad():
            logits = model(tokens).logits[:, :-1]
        handle.remove()
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).double(), tokens[:, 1:].flatten()
        ).item()

    found = []
    for batch in batches:
        zero, kept, orig = (loss(batch, f) for f in (torch.zeros_like, sae, lambda x: x))
        found.append((zero - kept) / (zero - orig))
    return found
