"""Training on cached activations: which batches are served, and what is refused."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.progress import Progress
from sae_lens import GatedTrainingSAEConfig, SAETrainer, TopKTrainingSAEConfig

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.files import write_json, write_tensors
from sae_lens_signaware.saes import finite_losses
from sae_lens_signaware.training import cached as cached_training
from sae_lens_signaware.training.cache import ShuffledEpochs, collect_activations
from sae_lens_signaware.training.cached import train_on_cache
from sae_lens_signaware.training.config import build_sae_config
from tests.support.saes import (
    D_IN,
    make_training_sae,
    training_config,
)
from tests.support.training import trainer_config


def test_every_epoch_serves_every_row_once_in_another_order() -> None:
    rows = torch.arange(12.0)[:, None]
    data = ShuffledEpochs(rows, batch_size=4, seed=0)
    epochs = [torch.cat([next(data) for _ in range(3)]).flatten() for _ in range(2)]
    for epoch in epochs:
        assert epoch.sort().values.tolist() == list(range(12))
    assert epochs[0].tolist() != epochs[1].tolist()


def test_every_seed_and_epoch_has_an_order_of_its_own() -> None:
    orders = set()
    for seed in range(3):
        data = ShuffledEpochs(torch.arange(50.0)[:, None], 50, seed)
        orders |= {tuple(next(data).flatten().tolist()) for _ in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("seed", [2**62, -(2**63), 2**63 - 1])
def test_a_seed_may_be_any_integer_of_64_bits(seed: int) -> None:
    rows = next(ShuffledEpochs(torch.arange(8.0)[:, None], 8, seed))
    assert rows.flatten().sort().values.tolist() == list(range(8))


def test_a_store_gives_just_as_many_activations_as_are_asked_for() -> None:
    def collect(n_tokens: int) -> torch.Tensor:
        batches = iter(torch.arange(10.0).view(5, 2, 1))
        store: Any = SimpleNamespace(get_filtered_llm_batch=lambda **_: next(batches))
        with Progress(disable=True) as progress:
            return collect_activations(store, n_tokens, progress, "x")

    for n in (1, 3, 10):
        assert collect(n).flatten().tolist() == list(range(n))
    with pytest.raises(InvalidInputError, match="n_tokens must be at most the 10 that the text"):
        collect(11)


def test_skip_continues_the_same_order() -> None:
    rows = torch.arange(13.0)[:, None]
    whole = ShuffledEpochs(rows, batch_size=4, seed=3)
    served = [next(whole) for _ in range(9)]
    resumed = ShuffledEpochs(rows, batch_size=4, seed=3)
    resumed.skip(5)
    for batch in served[5:]:
        assert torch.equal(next(resumed), batch)


def test_too_few_rows_for_a_batch() -> None:
    with pytest.raises(ValueError, match="batch_size must be at most the 3 cached tokens, got 4"):
        ShuffledEpochs(torch.zeros(3, 2), batch_size=4, seed=0)


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json({"a": float("nan")}, tmp_path / "x.json")
    with pytest.raises(Exception, match="contiguous"):
        write_tensors({"a": torch.zeros(3, 2).T}, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_long_name_is_written_too(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 250 + ".json")  # the temporary name would have 266
    write_json({"a": 1}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_dtype_that_trains_into_nan_is_refused(tmp_path: Path) -> None:
    cfg = training_config("sa_gsae", dtype="float16")
    with pytest.raises(InvalidInputError, match=r"sae\.dtype must be one of .* got 'float16'"):
        train_on_cache(cfg, trainer_config(2), torch.randn(100, D_IN), 1, tmp_path / "c")


def test_what_saelens_stops_at_later_is_named_at_once(tmp_path: Path) -> None:
    x, place = torch.randn(100, D_IN), tmp_path / "c"
    too_many = TopKTrainingSAEConfig(d_in=D_IN, d_sae=8, k=9)
    with pytest.raises(InvalidInputError, match=r"sae\.k must be above 0 and at most d_sae, 8"):
        train_on_cache(too_many, trainer_config(2), x, 1, place)
    by_token = TopKTrainingSAEConfig(d_in=D_IN, d_sae=8, k=2, normalize_activations="layer_norm")
    with pytest.raises(InvalidInputError, match=r"sae\.normalize_activations must be none"):
        train_on_cache(by_token, trainer_config(2), x, 1, place)
    none = dataclasses.replace(trainer_config(2), train_batch_size_samples=0)
    with pytest.raises(InvalidInputError, match=r"train_batch_size_samples must be at least 1"):
        train_on_cache(training_config("sa_gsae"), none, x, 1, place)


def test_saelens_gated_takes_no_activations_that_are_wider(tmp_path: Path) -> None:
    cfg = GatedTrainingSAEConfig(d_in=D_IN, d_sae=24, dtype="bfloat16")
    x, place = torch.randn(100, D_IN), tmp_path / "c"
    with pytest.raises(InvalidInputError, match=r"sae\.dtype must be as wide as .* torch\.float32"):
        train_on_cache(cfg, trainer_config(2), x, 1, place)
    train_on_cache(cfg, trainer_config(2), x.bfloat16(), 1, place)
    train_on_cache(cfg, dataclasses.replace(trainer_config(2), autocast=True), x, 1, place)


@pytest.mark.parametrize(
    ("activations", "got"),
    [
        (torch.randn(100, 1), r"\(100, 1\) of torch\.float32"),
        (torch.randn(100, D_IN - 1), r"\(100, 15\)"),
        (torch.randn(10, 10, D_IN), r"\(10, 10, 16\)"),
        (torch.ones(100, D_IN, dtype=torch.int64), r"of torch\.int64"),
        (torch.randn(0, D_IN), r"\(0, 16\)"),
        ([[0.0] * D_IN], "'list'"),
    ],
)
def test_other_activations_are_one_line(activations: Any, got: str, tmp_path: Path) -> None:
    message = rf"activations must be a floating-point tensor \(n, {D_IN}\), got .*{got}"
    with pytest.raises(InvalidInputError, match=message):
        train_on_cache(
            training_config("sa_gsae"), trainer_config(2), activations, 1, tmp_path / "c"
        )


def test_activations_without_a_scale_are_one_line(tmp_path: Path) -> None:
    cfg = training_config("sa_gsae", normalize_activations="expected_average_only_in")
    with pytest.raises(InvalidInputError, match="activations must be not 0, for 'expected"):
        train_on_cache(cfg, trainer_config(2), torch.zeros(100, D_IN), 1, tmp_path / "c")


def test_the_decoder_bias_starts_where_the_sae_sees_the_mean(tmp_path: Path) -> None:
    x = torch.randn(800, D_IN, generator=torch.Generator().manual_seed(0)) * 3 + torch.arange(D_IN)
    for normalize in ("none", "layer_norm", "constant_norm_rescale"):
        sae: Any = make_training_sae("sa_gsae", normalize_activations=normalize)
        mean = cached_training._mean_of_input(sae, x)
        expected = sae.run_time_activation_norm_fn_in(x).mean(0)
        torch.testing.assert_close(mean, expected)
    sae = make_training_sae("sa_gsae", normalize_activations="expected_average_only_in")
    expected = (x * D_IN**0.5 / x.norm(dim=1).mean()).mean(0)
    torch.testing.assert_close(cached_training._mean_of_input(sae, x), expected)
    sae = make_training_sae("bi_jumprelu", normalize_activations="covariance_whitening")
    assert not cached_training._mean_of_input(sae, x).any()
    cfg = training_config("sa_gsae"), trainer_config(1, lr=1e-9, lr_end=1e-9)
    trained: Any = train_on_cache(*cfg, x, 1, tmp_path / "c")[0]
    torch.testing.assert_close(trained.b_dec.data, x.mean(0))


def test_steps_are_timed_from_the_first_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def passes(seconds: float, call: Any) -> Any:
        def called(*args: Any) -> Any:
            clock[0] += seconds
            return call(*args)

        return called

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    mean = passes(1000.0, cached_training._mean_of_input)
    monkeypatch.setattr(cached_training, "_mean_of_input", mean)
    monkeypatch.setattr(ShuffledEpochs, "__next__", passes(1.0, ShuffledEpochs.__next__))
    trainer = dataclasses.replace(trainer_config(5), n_batches_for_norm_estimate=3)
    for normalisation in ("none", "expected_average_only_in"):  # the second estimates a scale
        sae = training_config("sa_gsae", normalize_activations=normalisation)
        rows = torch.randn(512, D_IN)
        done = cached_training.train_timed(sae, trainer, rows, 0, tmp_path / normalisation)
        assert (done.n_steps, done.seconds) == (5, 5.0)


def test_saes_with_and_without_an_estimated_scale_train_on_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    real = SAETrainer.step

    def step(self: Any, x: torch.Tensor) -> Any:
        seen.append(x)
        return real(self, x)

    monkeypatch.setattr(SAETrainer, "step", step)
    activations = torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0))
    for normalize in ("none", "expected_average_only_in"):
        cfg = training_config("sa_gsae", normalize_activations=normalize)
        trainer = trainer_config(5, n_batches_for_norm_estimate=3)
        train_on_cache(cfg, trainer, activations, 1, tmp_path / normalize)
    for plain, scaled in zip(seen[:5], seen[5:], strict=True):
        factor = scaled / plain
        torch.testing.assert_close(factor, factor.mean().expand_as(factor))


def test_the_weights_are_on_the_device_before_a_checkpoint_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # an optimiser's state goes to where the weights are, and the trainer moves these only later
    class Reached(Exception):
        pass

    def trainer(cfg: Any, sae: Any, data: Any) -> None:
        raise Reached(sae.W_enc.device.type)

    cfg = dataclasses.replace(trainer_config(3), device="meta")
    monkeypatch.setattr(cached_training, "SAETrainer", trainer)
    with pytest.raises(Reached, match="meta"):
        train_on_cache(training_config("sa_gsae"), cfg, torch.randn(256, D_IN), 0, tmp_path / "c")


def test_a_loss_that_is_not_finite_is_noticed_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    x = torch.randn(256, D_IN)
    x[0] = 1e30  # finite, and its square is not
    # as on a GPU, where only every hundredth step looks
    monkeypatch.setattr(finite_losses, "_is_on_host", lambda _: False)
    with pytest.raises(RuntimeError, match="not finite"):
        train_on_cache(training_config("sa_gsae"), trainer_config(4), x, 0, tmp_path / "c")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    "normalize", ["none", "expected_average_only_in", "covariance_whitening", "layer_norm"]
)
@pytest.mark.parametrize("architecture", ["sa_gsae", "gated"])
def test_activations_that_are_not_finite_are_one_line_before_the_training(
    architecture: str, normalize: str, bad: float, tmp_path: Path
) -> None:
    x = torch.randn(256, D_IN)
    x[7, 3] = bad
    own = {"d_in": D_IN, "d_sae": 24, "normalize_activations": normalize}
    cfg = build_sae_config({"architecture": architecture, **own}, "test")
    with pytest.raises(InvalidInputError, match=r"^activations must be finite .* got 'NaN or inf'"):
        train_on_cache(cfg, trainer_config(4), x, 0, tmp_path / "c")


def test_the_order_does_not_depend_on_the_default_device() -> None:
    rows = torch.arange(8.0)[:, None]
    expected = next(ShuffledEpochs(rows, 8, 0))
    with torch.device("meta"):
        assert torch.equal(next(ShuffledEpochs(rows, 8, 0)), expected)
