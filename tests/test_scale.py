"""A training is right at any scale of the input and at any learning rate; one side stays closed."""

import dataclasses

import pytest
import torch
from sae_lens import SAETrainer, TrainingSAE

from sae_lens_signaware.saes import BiJumpReLUTrainingSAE
from tests.architectures import (
    BATCH,
    D_IN,
    batches,
    config,
    dense,
    each_architecture,
    inputs,
    run_step,
    saved,
    trainer_config,
)


def trained(variant: str, scale: float = 1.0, **fields):
    torch.manual_seed(0)
    sae = TrainingSAE.from_dict(config(variant, **fields).to_dict())
    SAETrainer(trainer_config(30), sae, (scale * x for x in batches())).fit()
    return sae


def test_the_scale_of_the_thresholds_by_hand():
    sae = BiJumpReLUTrainingSAE(config("bi_jumprelu-full", target_l0=2.0))
    sae.W_enc.data.zero_()
    sae.W_enc.data[:, :D_IN] = torch.eye(D_IN)
    x = torch.zeros(2, D_IN)
    x[0, :3], x[1, :3] = torch.tensor([4.0, -3.0, 1.0]), torch.tensor([-2.0, 1.5, 0.5])
    x[:, -1] = torch.tensor([8.0, -8.0])  # sizes 8, 8, 4, 3, 2, ...: two a token are above 2.9
    spread = (x - x.mean(0)).square().mean().sqrt()
    out = run_step(sae, x)
    assert out.feature_acts.to_dense().ne(0).sum() == 3  # that at the threshold is not above it
    assert sae.input_scale == pytest.approx(spread)
    wanted = 3.0 / spread * (1.5 / 2.0) ** 0.1
    assert sae.threshold_scale == pytest.approx(wanted)


@pytest.mark.parametrize("lr", [1e-4, 6e-3])
def test_target_l0_is_met_at_any_learning_rate(lr):
    torch.manual_seed(0)
    sae = BiJumpReLUTrainingSAE(config("bi_jumprelu-full", target_l0=4.0))
    data, n = batches(), 32 * BATCH
    large = (torch.cat([next(data) for _ in range(32)]) for _ in range(400))
    cfg = trainer_config(400, total_training_samples=400 * n, train_batch_size_samples=n)
    SAETrainer(dataclasses.replace(cfg, lr=lr, lr_end=lr), sae, large).fit()
    x = torch.cat([next(data) for _ in range(64)])
    l0 = (saved(sae).encode(x) != 0).float().sum(1).mean()
    assert l0 == pytest.approx(4.0, rel=0.05)


@each_architecture
@pytest.mark.parametrize("scale", [2.0**-7, 2.0**7])
def test_a_training_is_the_same_at_any_scale(variant, scale):
    x = inputs()
    wanted, found = (saved(trained(variant, scale=s)) for s in (1.0, scale))
    torch.testing.assert_close(found(scale * x) / scale, wanted(x))


@each_architecture
def test_saved_and_folded_in_units_of_the_input(variant):
    sae, x = trained(variant, scale=100.0).eval(), 100 * inputs()
    before = sae(x)
    if "topk" not in variant or variant == "bi_topk":  # of a batch there, by threshold when saved
        torch.testing.assert_close(saved(sae)(x), before)
    sae.fold_input_scale()
    torch.testing.assert_close(sae(x), before)


@each_architecture
def test_one_sided_is_never_negative(variant):
    sae, x = trained(variant, two_sided=False), next(batches(seed=3))
    for acts in (dense(run_step(sae, x, step=1).feature_acts), saved(sae).encode(x)):
        assert (acts > 0).any()
        assert not (acts < 0).any()
