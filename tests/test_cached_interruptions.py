"""Checkpoints of training on cached activations, and where an interrupted run ends."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import LoggingConfig

from sae_lens_signaware.training import cached as cached_training
from sae_lens_signaware.training.cache import ShuffledEpochs
from sae_lens_signaware.training.cached import InterruptedTraining, train_on_cache
from sae_lens_signaware.training.interruption import SignalCount, counting_signals
from tests.support.saes import (
    D_IN,
    asking_for,
    each_variant,
    recipe_of_dead_latents,
    training_config,
)
from tests.support.training import StopsAfter, trainer_config


@each_variant
@pytest.mark.parametrize("normalize", ["none", "expected_average_only_in", "covariance_whitening"])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
    architecture: str,
    tying: str,
    normalize: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    activations = torch.randn(500, D_IN) + 1.0
    sae_cfg = training_config(
        architecture,
        tying,
        **asking_for(architecture, 5.0),
        **recipe_of_dead_latents(architecture, 3 * 64),
        normalize_activations=normalize,
    )
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


def test_a_checkpoint_of_other_activations_is_left_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(shift: float) -> Any:
        activations = torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0)) + shift
        cfg = training_config("sa_gsae"), trainer_config(12)
        return train_on_cache(*cfg, activations, 1, tmp_path / "c")

    with monkeypatch.context() as patch:
        patch.setattr(cached_training, "ShuffledEpochs", StopsAfter)
        with pytest.raises(InterruptedTraining):
            train(0.0)
    assert train(5.0)[1] == 12
    assert train(0.0)[1] == 12 - 9


@settings(max_examples=20, deadline=None)
@given(row=st.integers(0, 4_095), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_activations_that_differ_in_any_row_are_others(row: int, dtype: torch.dtype) -> None:
    activations = torch.ones(4_096, 2, dtype=dtype)
    other = activations.clone()
    other[row, 1] = 2.0
    assert cached_training.fingerprint(activations) != cached_training.fingerprint(other)
    assert cached_training.fingerprint(activations) == cached_training.fingerprint(1 * activations)
    integers = torch.int32 if dtype == torch.float32 else torch.int16
    for same_bytes in (activations.view(2_048, 4), activations.view(integers)):
        assert cached_training.fingerprint(activations) != cached_training.fingerprint(same_bytes)


@pytest.mark.parametrize(
    "name",
    [
        cached_training.DONE_FILENAME,
        "sae_weights.safetensors",
        "trainer_state.pt",
        "activation_scaler.json",
    ],
)
@pytest.mark.parametrize("keep", [0, 10])
def test_a_checkpoint_that_was_cut_is_passed_over(
    name: str,
    keep: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    activations = torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0))
    sae_cfg = training_config("sa_gsae", normalize_activations="expected_average_only_in")

    def train(folder: str) -> Any:
        cfg = trainer_config(12, n_batches_for_norm_estimate=2)
        return train_on_cache(sae_cfg, cfg, activations, 1, tmp_path / folder)

    with monkeypatch.context() as patch:
        patch.setattr(cached_training, "ShuffledEpochs", StopsAfter)
        with pytest.raises(InterruptedTraining):
            train("c")
    file = tmp_path / "c" / name
    file.write_bytes(file.read_bytes()[:keep])
    again, n_steps = train("c")
    assert n_steps == 12
    assert f"{tmp_path / 'c'} cannot be read" in caplog.text
    for key, value in train("whole")[0].state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_a_signal_in_the_last_step_is_handed_to_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activations = torch.randn(500, D_IN)

    class SignalAtLast(ShuffledEpochs):
        left = 12

        def __next__(self) -> torch.Tensor:
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGTERM)
            return super().__next__()

    def train(folder: str) -> Any:
        cfg = training_config("sa_gsae"), trainer_config(12)
        return train_on_cache(*cfg, activations, 1, tmp_path / folder)

    monkeypatch.setattr(cached_training, "ShuffledEpochs", SignalAtLast)
    with pytest.raises(KeyboardInterrupt):
        train("alone")
    signals = SignalCount()
    with counting_signals(signals):
        _, n_steps = train("in a caller that counts")
    assert (n_steps, signals.count) == (12, 1)


def test_a_signal_before_the_first_step_that_the_caller_counts_stops_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activations = torch.randn(500, D_IN)

    def interrupted(*args: Any) -> torch.Tensor:
        signal.raise_signal(signal.SIGINT)
        return torch.zeros(D_IN)

    monkeypatch.setattr(cached_training, "_mean_of_input", interrupted)
    cfg = training_config("sa_gsae"), trainer_config(12)
    with counting_signals(SignalCount()), pytest.raises(InterruptedTraining):
        train_on_cache(*cfg, activations, 1, tmp_path / "c")


def test_a_second_signal_stops_at_once_without_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Twice(ShuffledEpochs):
        def __next__(self) -> torch.Tensor:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the second one has stopped it")

    monkeypatch.setattr(cached_training, "ShuffledEpochs", Twice)
    cfg = training_config("sa_gsae"), trainer_config(12)
    with pytest.raises(KeyboardInterrupt) as stopped:
        train_on_cache(*cfg, torch.randn(500, D_IN), 1, tmp_path / "c")
    assert not isinstance(stopped.value, InterruptedTraining)
    assert not (tmp_path / "c").exists()


def test_a_thread_that_no_signal_reaches_trains_too(tmp_path: Path) -> None:
    args = training_config("sa_gsae"), trainer_config(3), torch.randn(128, D_IN), 1, tmp_path / "c"
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train_on_cache, *args).result()[1] == 3


def test_what_the_trainer_config_says_of_checkpoints_and_logs_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activations = torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0))

    def train(name: str) -> Any:
        cfg = trainer_config(
            12,
            checkpoint_path=str(tmp_path / name),  # SAELens's has a new name in each process
            n_checkpoints=2,
            save_final_checkpoint=True,
            logger=LoggingConfig(log_to_wandb=False, run_name=name),
        )
        return train_on_cache(training_config("sa_gsae"), cfg, activations, 1, tmp_path / "c")[1]

    with monkeypatch.context() as patch:
        patch.setattr(cached_training, "ShuffledEpochs", StopsAfter)
        with pytest.raises(InterruptedTraining):
            train("a")
    assert train("b") == 12 - 9
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_an_interruption_before_the_first_step_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(folder: str) -> Any:
        return train_on_cache(
            training_config("sa_gsae", normalize_activations="expected_average_only_in"),
            trainer_config(5, n_batches_for_norm_estimate=4),
            torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0)),
            1,
            tmp_path / folder,
        )[0]

    with monkeypatch.context() as patch:
        patch.setattr(cached_training, "ShuffledEpochs", StopsAfter)
        patch.setattr(StopsAfter, "left", 2)
        with pytest.raises(InterruptedTraining):
            train("stopped")
    assert train("stopped").cfg.to_dict() == train("whole").cfg.to_dict()


@pytest.mark.parametrize("stop_after", [9, 10])
def test_an_interruption_where_a_window_of_firings_begins_can_be_resumed(
    stop_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args: Any = (
        training_config("sa_gsae"),
        trainer_config(20, feature_sampling_window=10),
        torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0)),
        1,
        tmp_path / "c",
    )
    with monkeypatch.context() as patch:
        patch.setattr(cached_training, "ShuffledEpochs", StopsAfter)
        patch.setattr(StopsAfter, "left", stop_after)
        with pytest.raises(InterruptedTraining):
            train_on_cache(*args)
    assert train_on_cache(*args)[1] == 20 - stop_after
