"""What is said before a training that will probably miss its L0."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from sae_lens import StandardTrainingSAEConfig

from sae_lens_signaware.training.measured_run import run_and_measure
from sae_lens_signaware.training.notes import notes_on_target_l0
from tests.support.runners import runner_config
from tests.support.saes import training_config

FAR = (
    "target_l0 4 may be missed: at lr 0.0003 thresholds move by at most 0.75 in 4,000 steps; "
    "raise lr or training_tokens"
)
FAST = "target_l0 4 may be missed: target_l0_rate 0.02 is fast for lr {}; take {}"


def notes(
    lr: float, architecture: str = "bi_jumprelu", decay: int = 3000, **fields: Any
) -> list[str]:
    """Of 4,000 steps."""
    sae = training_config(architecture, **fields)
    cfg = runner_config(sae, Path("out"), training_tokens=64 * 4000, lr=lr, lr_decay_steps=decay)
    assert cfg.training_tokens // cfg.train_batch_size_tokens == 4000
    return notes_on_target_l0(cfg)


@pytest.mark.parametrize(
    ("lr", "fields", "expected"),
    [
        (3e-3, {}, []),
        (3e-4, {}, [FAR, FAST.format(0.0003, 0.0009)]),
        (3e-4, {"target_l0_rate": 1e-3}, [FAR]),
        (1e-3, {}, [FAST.format(0.001, 0.003)]),
        (1e-3, {"target_l0_rate": 3e-3}, []),
        (3e-4, {"jumprelu_sparsity_loss_mode": "quadratic"}, []),
    ],
)
def test_what_is_said_of_bi_jumprelu(
    lr: float, fields: dict[str, Any], expected: list[str]
) -> None:
    assert notes(lr, target_l0=4.0, **fields) == expected


def test_without_a_decay_thresholds_move_further() -> None:
    """4,000 * 3e-4 = 1.2."""
    assert notes(3e-4, decay=0, target_l0=4.0, target_l0_rate=1e-3) == []


def test_nothing_is_said_of_others() -> None:
    assert notes(3e-4) == []  # no target_l0
    assert notes(3e-4, "sa_gsae", target_l0=4.0) == []
    assert notes(3e-4, "bi_topk") == []
    plain = runner_config(StandardTrainingSAEConfig(d_in=16, d_sae=24), Path("out"), lr=3e-4)
    assert notes_on_target_l0(plain) == []


def test_a_run_says_it_first() -> None:
    sae = training_config("bi_jumprelu", target_l0=4.0)
    cfg = runner_config(sae, Path("out"), training_tokens=64 * 4000, lr=3e-4, lr_decay_steps=3000)
    cfg.output_path = None
    file = io.StringIO()
    runner: Any = SimpleNamespace(cfg=cfg, run=lambda: file.getvalue())
    said: Any = run_and_measure(runner, Console(file=file))
    assert said.splitlines() == [f"Note: {FAR}", f"Note: {FAST.format(0.0003, 0.0009)}"]
