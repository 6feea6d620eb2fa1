"""Training on cached activations: which batches are served, and that an interrupted run ends where another does."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sae_lens_signaware import cached_training
from sae_lens_signaware.activation_cache import (
    ShuffledEpochs,
    write_atomically,
    write_json_atomically,
)
from sae_lens_signaware.cached_training import InterruptedTraining, train_on_cache
from tests.helpers import D_IN, each_variant, training_config
from tests.test_training import trainer_config


def test_every_epoch_serves_every_row_once_in_another_order() -> None:
    rows = torch.arange(12.0)[:, None]
    data = ShuffledEpochs(rows, batch_size=4, seed=0)
    epochs = [torch.cat([next(data) for _ in range(3)]).flatten() for _ in range(2)]
    for epoch in epochs:
        assert epoch.sort().values.tolist() == list(range(12))
    assert epochs[0].tolist() != epochs[1].tolist()


def test_skip_continues_the_same_order() -> None:
    rows = torch.arange(13.0)[:, None]
    whole = ShuffledEpochs(rows, batch_size=4, seed=3)
    served = [next(whole) for _ in range(9)]
    resumed = ShuffledEpochs(rows, batch_size=4, seed=3)
    resumed.skip(5)
    for wanted in served[5:]:
        assert torch.equal(next(resumed), wanted)


def test_too_few_rows_for_a_batch() -> None:
    with pytest.raises(ValueError, match="batch_size must be at most the 3 cached tokens, got 4"):
        ShuffledEpochs(torch.zeros(3, 2), batch_size=4, seed=0)


@each_variant
@pytest.mark.parametrize("normalize", ["none", "expected_average_only_in"])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
    architecture: str,
    tying: str,
    normalize: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    activations = torch.randn(500, D_IN) + 1.0
    sae_cfg = training_config(architecture, tying, target_l0=5.0, normalize_activations=normalize)
    cfg = trainer_config(30, n_batches_for_norm_estimate=4)

    def train(folder: str) -> Any:
        return train_on_cache(sae_cfg, cfg, activations, seed=1, checkpoint=tmp_path / folder)

    whole, n_steps = train("whole")
    assert n_steps == 30

    class Interrupted(ShuffledEpochs):
        def __next__(self) -> torch.Tensor:
            if self.n_served == 17:
                raise KeyboardInterrupt
            return super().__next__()

    with monkeypatch.context() as patch:
        patch.setattr(cached_training, "ShuffledEpochs", Interrupted)
        with pytest.raises(InterruptedTraining) as interruption:
            train("stopped")
    assert interruption.value.checkpoint == tmp_path / "stopped"
    resumed, n_steps = train("stopped")
    assert n_steps == 30 - 13  # the first 4 of 17 batches are kept for an estimate of the scale
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name

    # a checkpoint of another training is left aside
    _, n_steps = train_on_cache(sae_cfg, cfg, activations, seed=2, checkpoint=tmp_path / "stopped")
    assert n_steps == 30


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json_atomically({"a": float("nan")}, tmp_path / "x.json")
    with pytest.raises(Exception, match="contiguous"):
        write_atomically({"a": torch.zeros(3, 2).T}, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []
