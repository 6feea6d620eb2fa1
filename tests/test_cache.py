"""Training on cached activations: the order of the rows, and a resume bit for bit."""

import os
import pickle
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAETrainer
from sae_lens.config import SAETrainerConfig
from safetensors.torch import save_file
from torch import Tensor

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.training.cache import ShuffledEpochs, load_named_activations
from sae_lens_signaware.training.cached import InterruptedTraining, train_on_cache, train_timed

D_IN, D_SAE, BATCH = 8, 16, 32
SIZES: dict[str, Any] = {"d_in": D_IN, "d_sae": D_SAE}
CONFIGS: dict[str, Any] = {
    "sa_gsae": signaware.SAGatedTrainingSAEConfig(target_l0=4, dead_after_tokens=96, **SIZES),
    "bi_jumprelu": signaware.BiJumpReLUTrainingSAEConfig(
        target_l0=4, dead_after_tokens=96, normalize_activations="expected_average_only_in", **SIZES
    ),
    "bi_topk": signaware.BiTopKTrainingSAEConfig(k=4, **SIZES),
    "bi_batchtopk": signaware.BiBatchTopKTrainingSAEConfig(
        k=4, k_anneal_steps=15, normalize_activations="covariance_whitening", **SIZES
    ),
    "bi_matryoshka_batchtopk": signaware.BiMatryoshkaBatchTopKTrainingSAEConfig(
        k=4, matryoshka_widths=[8], **SIZES
    ),
}


def rows(n: int = 400) -> Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(1)) + 0.3


def trainer(n_steps: int = 20, **kwargs: Any) -> SAETrainerConfig:
    values: dict[str, Any] = {"lr": 3e-3, "n_batches_for_norm_estimate": 4, **kwargs}
    return SAETrainerConfig(n_steps * BATCH, BATCH, **values)


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sends a signal to this process within the n-th step that is run from now on."""

    def stop(n: int, *numbers: int) -> None:
        step, done = SAETrainer.step, []

        def counted(self: Any, batch: Tensor) -> Any:
            done.append(1)
            for number in numbers or (signal.SIGINT,):
                if len(done) == n:
                    os.kill(os.getpid(), number)
            return step(self, batch)

        monkeypatch.setattr(SAETrainer, "step", counted)

    return stop


def assert_same(a: Any, b: Any) -> None:
    of_a, of_b = a.state_dict(), b.state_dict()
    assert of_a.keys() == of_b.keys()
    for name in of_a:
        assert torch.equal(of_a[name], of_b[name]), name


def test_an_epoch_serves_every_row_once_and_the_next_one_in_another_order() -> None:
    x = torch.arange(40.0).unsqueeze(1)
    data = ShuffledEpochs(x, 8, seed=3)
    epochs = [torch.cat([next(data) for _ in range(5)]).flatten() for _ in range(2)]
    for epoch in epochs:
        assert torch.equal(epoch.sort().values, x.flatten())
    assert not torch.equal(*epochs)


def test_batches_depend_on_the_seed_and_the_step_alone() -> None:
    x = rows(50)
    first = [next(data) for data in [ShuffledEpochs(x, 8, seed=3)] for _ in range(20)]
    torch.manual_seed(77)
    later = ShuffledEpochs(x, 8, seed=3)
    later.n_served = 15
    for batch in first[15:]:
        assert torch.equal(next(later), batch)
    assert not torch.equal(next(ShuffledEpochs(x, 8, seed=4)), first[0])


def test_the_tail_of_an_epoch_is_dropped_and_half_precision_widened() -> None:
    data = ShuffledEpochs(rows(11).bfloat16(), 4, seed=0, dtype=torch.float32)
    batches = [next(data) for _ in range(4)]
    assert {(tuple(batch.shape), batch.dtype) for batch in batches} == {((4, D_IN), torch.float32)}


@pytest.mark.parametrize("batch_size", [0, 12])
def test_a_batch_that_the_rows_do_not_fill(batch_size: int) -> None:
    with pytest.raises(InvalidInputError, match="batch_size must be at most the 11"):
        ShuffledEpochs(rows(11), batch_size, seed=0)


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_training_ends_where_an_undisturbed_one_does(
    architecture: str, number: int, stop_at: Any, tmp_path: Path
) -> None:
    args = CONFIGS[architecture], trainer(lr_decay_steps=8, lr_warm_up_steps=4), rows(), 5
    whole, folder = train_on_cache(*args), tmp_path / "checkpoint"
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop_at(12, number)
    with pytest.raises(InterruptedTraining) as stopped:
        train_on_cache(*args, folder)
    assert stopped.value.checkpoint == folder
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    resumed = train_timed(*args, folder)
    assert resumed.n_steps == 20 - 12
    assert_same(resumed.sae, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_it_may_be_interrupted_twice(stop_at: Any, tmp_path: Path) -> None:
    args = CONFIGS["bi_jumprelu"], trainer(feature_sampling_window=5), rows(), 5
    whole = train_on_cache(*args)
    for _ in range(2):
        stop_at(5)  # where a window of firings ends
        with pytest.raises(InterruptedTraining):
            train_on_cache(*args, tmp_path / "c")
    resumed = train_timed(*args, tmp_path / "c")
    assert resumed.n_steps == 10
    assert_same(resumed.sae, whole)


def test_without_a_folder_an_interruption_writes_nothing(stop_at: Any, tmp_path: Path) -> None:
    stop_at(3)
    with pytest.raises(InterruptedTraining) as stopped:
        train_on_cache(CONFIGS["bi_topk"], trainer(), rows(), 5)
    assert stopped.value.checkpoint is None


def test_a_second_signal_does_not_wait_for_the_step(stop_at: Any, tmp_path: Path) -> None:
    stop_at(3, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as stopped:
        train_on_cache(CONFIGS["bi_topk"], trainer(), rows(), 5, tmp_path / "c")
    assert not isinstance(stopped.value, InterruptedTraining)
    assert not (tmp_path / "c").exists()


def test_a_signal_in_the_last_step_stops_the_caller_too(stop_at: Any) -> None:
    stop_at(20)
    with pytest.raises(KeyboardInterrupt):
        train_on_cache(CONFIGS["bi_topk"], trainer(20), rows(), 5)


@pytest.mark.parametrize("other", ["seed", "rows", "sae", "trainer"])
def test_a_checkpoint_of_another_training_is_left_aside(
    other: str, stop_at: Any, tmp_path: Path
) -> None:
    x, folder = rows(), tmp_path / "c"
    stop_at(12)
    with pytest.raises(InterruptedTraining):
        train_on_cache(CONFIGS["bi_topk"], trainer(), x, 5, folder)
    if other == "rows":
        x[-1, -1] += 1
    cfg = signaware.BiTopKTrainingSAEConfig(k=3, **SIZES) if other == "sae" else CONFIGS["bi_topk"]
    lr, seed = (1e-3 if other == "trainer" else 3e-3), (6 if other == "seed" else 5)
    args = cfg, trainer(lr=lr), x, seed
    found = train_timed(*args, folder)
    assert found.n_steps == 20
    assert_same(found.sae, train_on_cache(*args))


def test_a_broken_checkpoint_is_one_line_and_no_pickle_is_run(stop_at: Any, tmp_path: Path) -> None:
    args = CONFIGS["bi_topk"], trainer(), rows(), 5, tmp_path / "c"
    stop_at(12)
    with pytest.raises(InterruptedTraining):
        train_on_cache(*args)

    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"optimizer": Payload()}, tmp_path / "c" / "trainer_state.pt")
    with pytest.raises(InvalidInputError, match=r"checkpoint: .* is broken") as error:
        train_on_cache(*args)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Payload()))  # the payload works
    assert (tmp_path / "executed").exists()


def test_a_folder_of_something_else_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidInputError, match="checkpoint must be"):
        train_on_cache(CONFIGS["bi_topk"], trainer(), rows(), 5, tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_thread_that_no_signal_reaches_trains_too() -> None:
    found: list[Any] = []
    args = CONFIGS["bi_topk"], trainer(3), rows(), 5
    thread = threading.Thread(target=lambda: found.append(train_on_cache(*args)))
    thread.start()
    thread.join()
    assert_same(found[0], train_on_cache(*args))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(400, D_IN + 1), r"\(n, 8\)"),
        (torch.zeros(20, 20, D_IN), r"\(n, 8\)"),
        (torch.zeros(0, D_IN), r"\(n, 8\)"),
        (torch.zeros(400, D_IN, dtype=torch.int64), "floating-point"),
        (torch.full((400, D_IN), torch.nan), "finite"),
        (torch.full((400, D_IN), torch.inf), "finite"),
        (torch.zeros(20, D_IN), "at most the 20 tokens"),
    ],
    ids=["width", "shape", "empty", "integers", "nan", "inf", "few"],
)
def test_wrong_activations_are_one_line_before_the_training(x: Tensor, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        train_on_cache(CONFIGS["bi_topk"], trainer(), x, 5)


@pytest.mark.parametrize("normalisation", ["none", "expected_average_only_in", "layer_norm"])
def test_the_decoder_bias_starts_at_the_mean_of_what_the_sae_sees(normalisation: str) -> None:
    cfg = signaware.BiTopKTrainingSAEConfig(k=4, normalize_activations=normalisation, **SIZES)
    x = rows()
    seen = {
        "none": x,
        "expected_average_only_in": x * D_IN**0.5 / x.norm(dim=1).mean(),
        "layer_norm": (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True),
    }[normalisation]
    sae = train_on_cache(cfg, trainer(1, lr=1e-20), x, 5)
    scale = x.norm(dim=1).mean() / D_IN**0.5 if normalisation.startswith("expected") else 1.0
    # the trainer's own estimate of the scale, which it folds in, is of four batches
    torch.testing.assert_close(sae.b_dec.data, seen.mean(0) * scale, rtol=0.05, atol=1e-3)


def test_saes_of_a_comparison_see_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Tensor]] = []
    step = SAETrainer.step

    def noted(self: Any, batch: Tensor) -> Any:
        seen[-1].append(batch)
        return step(self, batch)

    monkeypatch.setattr(SAETrainer, "step", noted)
    for architecture in ("bi_topk", "bi_jumprelu"):  # without and with an estimate of the scale
        seen.append([])
        train_on_cache(CONFIGS[architecture], trainer(6), rows(), 5)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_steps_are_counted_and_timed_and_saelens_checkpoints_left_out(tmp_path: Path) -> None:
    cfg = trainer(7, checkpoint_path=str(tmp_path / "of_saelens"), n_checkpoints=3)
    _, seconds, n_steps = train_timed(CONFIGS["bi_topk"], cfg, rows(), 5)
    assert n_steps == 7
    assert 0 < seconds < 60
    assert not list(tmp_path.iterdir())


def test_a_tensor_of_a_file_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "acts.safetensors"
    save_file({"train": rows(), "heldout": rows(3)}, path)
    assert torch.equal(load_named_activations(path, "heldout"), rows(3))
    with pytest.raises(InvalidInputError, match="no tensor 'heldot'; did you mean 'heldout'"):
        load_named_activations(path, "heldot")
    with pytest.raises(InvalidInputError, match=r"it has .*train"):
        load_named_activations(path, "zzz")
    (tmp_path / "text").write_text("no tensors")
    for wrong in (tmp_path / "none", tmp_path / "text", tmp_path):
        with pytest.raises(InvalidInputError, match=f"activations: {wrong}") as error:
            load_named_activations(wrong, "heldout")
        assert "\n" not in str(error.value)
