"""What a result says of its run."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from tests.report.pages import run_result
from tests.support.configs import write
from tests.sweep.examples import sweep_values

SHARED = {"d_sae": 24}


@pytest.mark.parametrize(
    ("sae", "target"),
    [
        ({"architecture": "sa_gsae", "target_l0": [4.0]}, 4.0),
        ({"architecture": "sa_gsae", "l1_coefficient": [0.1]}, None),
        ({"architecture": "sa_gsae", "target_l0": 4.0, "target_l0_rate": [0.01]}, 4.0),
        ({"architecture": "batchtopk", "k": [3.0]}, 3.0),
        ({"architecture": "topk", "k": 3, "aux_loss_coefficient": [1.0]}, 3.0),
        ({"architecture": "jumprelu", "target_l0": 4.0, "l0_coefficient": [1.0]}, None),
        (
            {
                "architecture": "jumprelu",
                "jumprelu_sparsity_loss_mode": "quadratic",
                "target_l0": 4.0,
                "l0_coefficient": [1.0],
            },
            4.0,
        ),
        ({"architecture": "gated", "l1_coefficient": [1.0]}, None),
    ],
)
def test_the_target_that_was_asked_for(
    sae: dict[str, Any], target: float | None, data: Path, tmp_path: Path
) -> None:
    values = sweep_values(data) | {"saes": {"one": {**sae, **SHARED}}, "compare": []}
    del values["latents"]
    run = load_sweep_config(write(values, tmp_path / "s.yaml"))[1][0]
    assert run.target_l0 == target
    result = dataclasses.replace(
        run_result(0, 0, 0, 1.0),
        field=run.field,
        value=run.value,
        identity={"sae": run.cfg.sae.to_dict()},
    )
    assert result.target_l0 == target
    from_summary = dataclasses.replace(result, identity={})
    assert from_summary.target_l0 == (target if run.field in ("target_l0", "k") else None)
