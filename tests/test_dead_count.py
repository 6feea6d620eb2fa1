"""Which latents count as dead, in tokens, and what happens to the threshold of such a latent."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE, TrainingSAE

from sae_lens_signaware.saes import ThresholdTrainingMixin
from sae_lens_signaware.saes.metrics import fires, side_metrics
from tests.support.saes import D_IN, D_SAE, VARIANTS, each_variant, make_training_sae
from tests.support.training import batches, path, step_input

with_thresholds = pytest.mark.parametrize(
    ("architecture", "tying"),
    [v for v in VARIANTS if isinstance(make_training_sae(*v), ThresholdTrainingMixin)],
)


def no_other_help(**kwargs: Any) -> dict[str, Any]:
    return {"auxk_coefficient": 0.0, "dead_threshold_reset": False, **kwargs}


def step(sae: Any, x: torch.Tensor, **kwargs: Any) -> None:
    with torch.no_grad():
        sae.training_forward_pass(step_input(x, **kwargs))


def test_fires_by_hand() -> None:
    acts = torch.tensor([[[0.0, -2.0, 0.0]], [[0.0, 1.0, 3.0]]])
    assert fires(acts).tolist() == [False, True, True]
    assert fires(acts[:, 0].to_sparse()).tolist() == [False, True, True]


def test_side_metrics_by_hand() -> None:
    acts = torch.zeros(20, 4)
    acts[:9, 0], acts[9, 0] = 2.0, -1.0  # just a tenth
    acts[:10, 1], acts[10, 1] = -2.0, 1.0  # less than that
    acts[:, 2] = 1.0
    found = {name: value.item() for name, value in side_metrics(acts).items()}
    assert found == pytest.approx(
        {"l0_pos": 30 / 20, "l0_neg": 11 / 20, "bipolar_share_of_batch": 1 / 3}
    )


@each_variant
@pytest.mark.parametrize("sparse", [False, True])
def test_tokens_since_a_latent_was_active(architecture: str, tying: str, sparse: bool) -> None:
    sae = make_training_sae(architecture, tying, dead_after_tokens=100)
    wanted = torch.zeros(D_SAE, dtype=torch.int64)
    for x in (torch.zeros(3, D_IN), *(next(batches(seed, batch_size=7)) for seed in range(4))):
        with path(sparse), torch.no_grad():
            out = sae.training_forward_pass(step_input(x))
        acts = out.feature_acts.to_dense() if out.feature_acts.is_sparse else out.feature_acts
        wanted = torch.where((acts != 0).any(0), 0, wanted + len(x))
        assert torch.equal(sae.tokens_since_active, wanted)
    assert (wanted == 0).sum() > 0


@each_variant
@pytest.mark.parametrize("window", [None, 128])
def test_a_window_of_tokens_takes_the_place_of_the_runners(
    architecture: str, tying: str, window: int | None
) -> None:
    sae = make_training_sae(architecture, tying, dead_after_tokens=window)
    sae.tokens_since_active[:5] = torch.tensor([0, 127, 128, 129, 500])
    runners = torch.arange(D_SAE) % 2 == 0
    with torch.no_grad():
        taken = sae._start_step(step_input(next(batches()), dead_neuron_mask=runners))
    own = torch.isin(torch.arange(D_SAE), torch.tensor([2, 3, 4]))
    assert torch.equal(taken.dead_neuron_mask, runners if window is None else own)


@pytest.mark.parametrize("architecture", ["bi_batchtopk", "bi_matryoshka_batchtopk"])
@pytest.mark.parametrize(("k", "first_dead"), [(8, 3), (64, 3), (128, 1)])
def test_above_a_k_of_64_a_latent_counts_as_dead_sooner(
    architecture: str, k: int, first_dead: int
) -> None:
    sae = make_training_sae(architecture, "full", d_sae=128, k=k, dead_after_tokens=1000)
    sae.tokens_since_active[:4] = torch.tensor([499, 500, 999, 1000])
    with torch.no_grad():
        taken = sae._start_step(step_input(next(batches())))
    assert taken.dead_neuron_mask[:4].tolist() == [i >= first_dead for i in range(4)]
    off = make_training_sae(architecture, "full", d_sae=128, k=k, dead_after_tokens=None)
    assert off._start_step(step_input(next(batches()))).dead_neuron_mask is None


@with_thresholds
def test_the_threshold_of_a_dead_latent_falls_until_it_is_active(
    architecture: str, tying: str
) -> None:
    x = 3.0 * torch.cat([torch.eye(D_IN), -torch.eye(D_IN)])  # 32 tokens
    options = no_other_help(dead_threshold_decay=0.25, dead_after_tokens=64)
    sae = make_training_sae(architecture, tying, d_sae=D_IN, **options)
    for name, param in sae.named_parameters():
        param.data = torch.eye(D_IN) if name.startswith("W_") else torch.zeros_like(param)
    sae.threshold.data.fill_(0.5)
    sae.threshold.data[:, :3] = 6.0  # two tokens have a pre-activation of +-3 there
    seen = []
    for _ in range(7):
        step(sae, x)
        assert (sae.threshold[:, 3:] == 0.5).all()
        seen.append(sae.threshold[:, :3].unique().tolist())
    # dead from the third step on, and active at 6 * 0.75^3
    assert seen == [[6.0], [6.0], [4.5], [3.375], [2.53125], [2.53125], [2.53125]]


@with_thresholds
def test_without_decay_it_stays(architecture: str, tying: str) -> None:
    options = no_other_help(dead_threshold_decay=0.0, dead_after_tokens=1)
    sae = make_training_sae(architecture, tying, **options)
    sae.threshold.data.fill_(100.0)
    for _ in range(3):
        step(sae, next(batches()))
    assert (sae.threshold == 100.0).all()


@each_variant
def test_a_resumed_training_goes_on_counting(architecture: str, tying: str, tmp_path: Path) -> None:
    sae = make_training_sae(architecture, tying, dead_after_tokens=2000, dtype="bfloat16")
    counts = torch.arange(D_SAE) * 1001  # most are no numbers of bfloat16
    sae.tokens_since_active.copy_(counts)
    sae.save_model(tmp_path)
    resumed: Any = TrainingSAE.load_from_disk(tmp_path)
    assert torch.equal(resumed.tokens_since_active, counts)
    sae.save_inference_model(tmp_path / "inference")
    assert "tokens_since_active" not in SAE.load_from_disk(tmp_path / "inference").state_dict()
