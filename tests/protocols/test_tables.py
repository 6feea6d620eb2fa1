"""What the tables of the protocols are made of: trainings, measures, and means in their columns."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.experiments import protocols
from sae_lens_signaware.experiments.protocols import (
    anomaly,
    consolidation,
    dial,
    summary,
    training,
    two_sided,
)
from sae_lens_signaware.experiments.protocols.config import PROTOCOLS, TrainingConfig
from tests.protocols.examples import values_of


def config_of(which: str, **changes: Any) -> Any:
    return PROTOCOLS[which].model_validate(values_of(which) | changes)


def quality(l0: float, r2: float, dead_share: float) -> SAEQuality:
    return SAEQuality(l0, r2, dead_share, 0.0, 100, "gated", 16, "made up")


QUALITIES = quality(2.0, 0.5, 0.25), quality(4.0, 0.75, 0.75)
OTHERS = quality(3.0, 0.25, 0.0), quality(3.0, 0.375, 0.0)


def table_of(module: Any, config: Any, measures: tuple[Any, Any], monkeypatch: Any) -> Any:
    """Rows as mappings, of two runs of the SAE "x" with ``measures``, and of "gated 2H"."""
    runs = list(zip(QUALITIES, measures, strict=True))
    others = list(zip(OTHERS, measures, strict=True))
    collected = summary.Collected(
        {"x": runs, "gated 2H": others}, {"x": ["k 2", "k 2"], "gated 2H": ["l1 1", "l1 2"]}
    )
    monkeypatch.setattr(module, "collect", lambda *args: collected)
    result = module.run(config, "command", lambda name: None)
    assert result.columns == module.COLUMNS
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def test_the_table_of_the_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = (
        dial.DialMeasure(1.0, 0.25, worst=0.125, n_latents=2, crosstalk=0.5, monotone=True),
        dial.DialMeasure(1.5, 0.5, worst=0.375, n_latents=None, crosstalk=0.25, monotone=False),
    )
    row, _ = table_of(dial, config_of("a"), measures, monkeypatch)
    assert row == {
        **{"SAE": "x", "d_sae": 16, "L0": 3.0, "R2": 0.625},
        **{"gain +": 1.25, "gain + sd": pytest.approx(0.5 / 2**0.5)},
        **{"gain -": 0.375, "gain - sd": pytest.approx(0.25 / 2**0.5)},
        **{"asymmetry": 0.875, "worst": 0.25, "latents": 2.0, "crosstalk": 0.375},
        "monotone": "1 of 2",
    }


def test_the_table_of_anomalies_has_a_row_for_each_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = (
        [anomaly.Detection(1, 0.5, 0.25), anomaly.Detection(4, 0.75, 0.375)],
        [anomaly.Detection(1, 0.75, 0.75), anomaly.Detection(4, 1.0, 0.375)],
    )
    one, four, *_ = table_of(anomaly, config_of("b"), measures, monkeypatch)
    assert one == {
        **{"SAE": "x", "d_sae": 16, "L0": 3.0, "R2": 0.625, "latents": 1},
        **{"AUROC": 0.625, "AUROC sd": pytest.approx(0.25 / 2**0.5)},
        **{"direction": 0.5, "direction sd": pytest.approx(0.5 / 2**0.5)},
    }
    assert (four["latents"], four["AUROC"], four["direction"]) == (4, 0.875, 0.375)


def test_the_table_of_consolidation(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = (
        consolidation.Consolidation(0.5, 0.25, 0.75),
        consolidation.Consolidation(1.0, 0.0, 0.875),
    )
    table = table_of(consolidation, config_of("c"), measures, monkeypatch)
    assert [(row["SAE"], row["pair share"]) for row in table] == [
        (name, share) for share in (0.0, 0.5) for name in ("x", "gated 2H")
    ]
    assert table[0] == {
        **{"SAE": "x", "d_sae": 16, "pair share": 0.0},
        **{"by one latent": 0.75, "by one latent sd": pytest.approx(0.5 / 2**0.5)},
        **{"by two": 0.125, "features": 0.8125},
        **{"R2": 0.625, "R2 sd": pytest.approx(0.25 / 2**0.5)},
        # those of the reference are 0.25 and 0.375
        **{"R2 less reference": 0.3125, "L0": 3.0, "dead": 0.5},
    }
    assert table[1]["R2 less reference"] == 0.0


def test_the_table_of_two_sided_features(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = (
        two_sided.Measures(0.5, 0.25, None, 0.75, absorption=0.125, found=0.5),
        two_sided.Measures(1.0, 0.375, 0.25, 0.875, absorption=None, found=1.0),
    )
    table = table_of(two_sided, config_of("e"), measures, monkeypatch)
    worlds = [(row["two-sided share"], row["L0 factor"]) for row in table[::2]]
    assert worlds == [(0.0, 1.0), (0.0, 2.0), (0.5, 1.0), (0.5, 2.0)]
    assert table[0] == {
        **{"SAE": "x", "d_sae": 16, "two-sided share": 0.0, "L0 factor": 1.0},
        **{"R2": 0.625, "R2 sd": pytest.approx(0.25 / 2**0.5)},
        **{"F1": 0.75, "F1 sd": pytest.approx(0.5 / 2**0.5)},
        **{"signed MCC": 0.3125, "signed MCC sd": pytest.approx(0.125 / 2**0.5)},
        **{"MCC": 0.8125, "joined": 0.25, "absorption": 0.125, "absorption sd": None},
        **{"parents found": 0.75, "L0": 3.0, "dead": 0.5},
    }


def test_an_sae_of_every_seed_is_measured_on_samples_that_it_was_not_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def train_all(
        candidates: Any, trained: Any, target_l0: float, activations: Any, seed: int, advance: Any
    ) -> Any:
        asked.append((list(candidates), trained, target_l0, activations, seed))
        yield SimpleNamespace(
            name="x",
            sparsity=f"k {seed}",
            sae=seed,
            quality=lambda heldout: f"R2 on {heldout}",
            failures=(f"x, k 9, seed {seed}: it diverged",),
        )

    prepared: Any = summary.Prepared

    def prepare(seed: int) -> Any:
        return prepared(f"train {seed}", f"heldout {seed}", lambda sae: f"measure of {sae}")

    monkeypatch.setattr(summary, "train_all", train_all)
    config = config_of("b", seeds=[3, 7], saes={"x": {"architecture": "abstopk", "d_sae": 8}})
    found = summary.collect(config, 4.0, prepare, lambda name: None)
    assert asked == [(["x"], config.training, 4.0, f"train {seed}", seed) for seed in (3, 7)]
    expected = [(f"R2 on heldout {seed}", f"measure of {seed}") for seed in (3, 7)]
    assert found.measures == {"x": expected}
    assert found.sparsities == {"x": ["k 3", "k 7"]}
    assert found.failures == [f"x, k 9, seed {seed}: it diverged" for seed in (3, 7)]


def test_the_trainer_is_what_the_config_says() -> None:
    cfg = training.trainer_config(
        TrainingConfig(
            n_steps=12, batch_size=32, lr=3e-3, n_train=128, n_heldout=9, dead_feature_window=7
        )
    )
    assert (cfg.total_training_samples, cfg.train_batch_size_samples) == (12 * 32, 32)
    assert (cfg.lr, cfg.lr_end) == (3e-3, 3e-3)
    assert cfg.dead_feature_window == 7
    assert cfg.n_batches_for_norm_estimate == 4  # one epoch


def test_candidates_are_chosen_by_the_first_samples_of_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples, named = [], []

    def train(candidate: Any, trained: Any, activations: Any, sample: Any, seed: int) -> Any:
        samples.append((len(activations), sample, seed))
        l0 = {"k 1": 1.0, "k 3": 3.0}[candidate.sparsity]
        return SimpleNamespace(sae=candidate.sparsity, quality=SimpleNamespace(l0=l0))

    monkeypatch.setattr(training, "train", train)
    x = torch.arange(20.0)[:, None]
    config: protocols.ProtocolConfig = config_of("b")
    settings = config.training.model_copy(update={"n_heldout": 5})
    choices: Any = {"x": [SimpleNamespace(sparsity=name) for name in ("k 1", "k 3")]}
    (chosen,) = training.train_all(choices, settings, 2.5, x, 11, named.append)
    assert (chosen.name, chosen.sparsity, chosen.sae) == ("x", "k 3", "k 3")
    assert named == ["x", "x"]
    assert [(n, seed) for n, _, seed in samples] == [(20, 11)] * 2
    assert all(torch.equal(sample, x[:5]) for _, sample, _ in samples)
