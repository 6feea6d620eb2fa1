"""Annealing of k in what keeps the largest latents, and the options that go with it."""

from typing import Any

import pytest
import torch
from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig, SAETrainer

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.saes.keeps_largest import annealed_k
from sae_lens_signaware.training.values import check_ramps
from tests.support.saes import D_IN, asking_for, make_training_sae, training_config
from tests.support.training import batches, path, step_input, trainer_config

each_sibling = pytest.mark.parametrize(
    "architecture", ["bi_batchtopk", "bi_matryoshka_batchtopk", "bi_topk"]
)
START = D_IN // 2


def sae_of_k_2(architecture: str) -> Any:
    """Of a k that is annealed in 4 steps; no size is 0, so that as many are active as are kept."""
    k = asking_for(architecture, 2.0)
    return make_training_sae(architecture, **k, k_anneal_steps=4, minus_bias_init=0.0)


def n_kept(architecture: str, n_tokens: int, step: int) -> int:
    """What ``step`` keeps: a BatchTopK of all its tokens, a TopK of each."""
    k = 2 + (START - 2) * max(1 - step / 4, 0)
    return int(k) * n_tokens if architecture == "bi_topk" else int(k * n_tokens)


@pytest.mark.parametrize(
    ("k", "start", "n_steps", "step", "wanted"),
    [
        (8, 320, 400, 0, 320),
        (8, 320, 400, 100, 242),
        (8, 320, 400, 399, 8.78),
        (8, 320, 400, 400, 8),
        (8, 320, 400, 4000, 8),
        (2.5, 320, 0, 0, 2.5),  # off
        (400, 320, 400, 0, 400),  # it never rises
    ],
)
def test_k_by_hand(k: float, start: float, n_steps: int, step: int, wanted: float) -> None:
    assert annealed_k(k, start, n_steps, step) == pytest.approx(wanted)


@each_sibling
@pytest.mark.parametrize("sparse", [True, False])
def test_a_step_keeps_what_its_k_says_and_anything_else_that_of_the_config(
    architecture: str, sparse: bool
) -> None:
    sae = sae_of_k_2(architecture)
    x = next(batches())
    assert START > 2
    for step in range(6):
        with path(sparse):
            out = sae.training_forward_pass(step_input(x, n_training_steps=step))
        assert (out.feature_acts.to_dense() != 0).sum() == n_kept(architecture, len(x), step)
        with torch.no_grad():
            assert (sae.encode(x) != 0).sum() == 2 * len(x)


@each_sibling
def test_a_step_that_fails_leaves_the_k_of_the_config(architecture: str) -> None:
    sae = sae_of_k_2(architecture)
    x = next(batches())
    with pytest.raises(RuntimeError, match="loss"):
        sae.training_forward_pass(step_input(x * torch.nan))
    with torch.no_grad():
        assert (sae.encode(x) != 0).sum() == 2 * len(x)


def test_a_narrow_sae_starts_with_all_of_its_latents() -> None:
    sae = make_training_sae("bi_batchtopk", d_sae=3, k=1.0, k_anneal_steps=2, minus_bias_init=0.0)
    sae.b_mag.data.fill_(1.0)  # no pre-activation has the size 0
    x = next(batches())
    assert START > 3
    for sparse in (True, False):
        with path(sparse):
            out = sae.training_forward_pass(step_input(x))
        assert (out.feature_acts.to_dense() != 0).sum() == 3 * len(x)


@each_sibling
def test_saelens_trainer_counts_the_steps(architecture: str) -> None:
    sae = sae_of_k_2(architecture)
    step, n_active = sae.training_forward_pass, []

    def recorded(step_input: Any) -> Any:
        out = step(step_input)
        n_active.append(int((out.feature_acts.to_dense() != 0).sum()))
        return out

    sae.training_forward_pass = recorded
    trainer: Any = SAETrainer(trainer_config(6), sae, batches())
    trainer.fit()
    assert n_active == [n_kept(architecture, 64, i) for i in range(6)]


def test_an_annealing_that_never_ends_is_refused() -> None:
    cfg: Any = LanguageModelSAERunnerConfig(
        sae=training_config("bi_batchtopk", k_anneal_steps=20),
        training_tokens=20 * 64,
        train_batch_size_tokens=64,
        logger=LoggingConfig(log_to_wandb=False),
        device="cpu",
    )
    line = r"^sae\.k_anneal_steps must be below the 20 steps of the training, got 20$"
    with pytest.raises(InvalidInputError, match=line):
        check_ramps(cfg)
    cfg.training_tokens += 64
    check_ramps(cfg)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"k_anneal_steps": -1}, "k_anneal_steps must be a number >= 0, got -1"),
        ({"k_anneal_steps": 1.5}, "k_anneal_steps must be an integer, got 1.5"),
        ({"aux_k": 0}, "aux_k must be null or an integer >= 1, got 0"),
        ({"aux_k": 2.5}, "aux_k must be an integer or null, got 2.5"),
    ],
)
def test_wrong_options_are_one_line(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        training_config("bi_batchtopk", **fields)
    assert str(caught.value) == line
