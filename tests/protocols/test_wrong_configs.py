"""Protocol files that are refused, in one line that names the field."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.protocols.examples import values_of
from tests.support.cli import assert_one_line_error, invoke
from tests.support.configs import write


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        ("a", lambda v: v.pop("protocol"), "protocol: must be one of a, b, c, e, got None"),
        ("a", lambda v: v.update(protocol="d"), "protocol: must be one of a, b, c, e, got 'd'"),
        ("a", lambda v: v.update(protocol=["a"]), "protocol: must be one of a, b, c, e, got ['a']"),
        ("a", lambda v: v.update(seed=1), "seed: unknown field; did you mean 'seeds'?"),
        ("a", lambda v: v.update(seeds=[1, 1]), "seeds: must be different ones, got [1, 1]"),
        ("a", lambda v: v["data"].update(gain=1), "data.gain: unknown field; did you mean 'gain_"),
        ("a", lambda v: v["data"].pop("dial_max"), "data.dial_max: missing"),
        ("a", lambda v: v["data"].update(gain_neg=0), "data.gain_neg: Input should be greater"),
        ("a", lambda v: v["data"].update(noise=math.nan), "data.noise: Input should be"),
        ("a", lambda v: v["training"].update(n_train=8), "training.n_train: must be at least"),
        ("a", lambda v: v["training"].update(n_step=8), "training.n_step: unknown field; did you"),
        ("a", lambda v: v.update(saes={}), "saes: "),
        ("a", lambda v: v.update(threads=10**5), "threads: Input should be less than or equal to"),
        ("a", lambda v: v["data"].update(n_base=2**63), "data.n_base: Input should be less than"),
        ("a", lambda v: v["training"].update(dead_feature_window=10**30), "training.dead_feature_"),
        ("a", lambda v: v["saes"]["gated H"].pop("architecture"), "saes.gated H.architecture: mis"),
        (
            "a",
            lambda v: v["saes"]["gated H"].update(architecture="gted"),
            "saes.gated H.architecture: unknown value 'gted'; did you mean 'gated'?",
        ),
        (
            "a",
            lambda v: v["saes"]["gated H"].update(architecture=["gated"]),
            "saes.gated H.architecture: unknown value ['gated']",
        ),
        (
            "a",
            lambda v: v["saes"]["gated H"].update(l1_coefficient=1),
            "saes.gated H: exactly one field must hold a list",
        ),
        (
            "a",
            lambda v: v["saes"]["gated H"].update(l1_coefficent=1),
            "saes.gated H.l1_coefficent: unknown field; did you mean 'l1_coefficient'?",
        ),
        (
            "a",
            lambda v: v["saes"]["abstopk H"].update(k=3),
            "saes.abstopk H.k: is set by the protocol's target_l0",
        ),
        (
            "a",
            lambda v: v["saes"]["sa_gsae H"].update(l1_coefficient=[1, 2]),
            "saes.sa_gsae H.l1_coefficient: must be one value, got [1, 2]",
        ),
        (
            "a",
            lambda v: v["saes"]["sa_gsae H"].update(d_in=8),
            "saes.sa_gsae H.d_in: is set by the protocol",
        ),
        (
            "a",
            lambda v: v["saes"]["sa_gsae H"].update(dtype="bfloat16"),
            "saes.sa_gsae H.dtype: is set by the protocol",
        ),
        (
            "c",
            lambda v: v["saes"]["gated H"].update(reshape_activations="hook_z"),
            "saes.gated H.reshape_activations: is set by the protocol",
        ),
        (
            "b",
            lambda v: v.update(seeds=[2**32]),
            "seeds.0: Input should be less than 4294967296, got 4294967296",
        ),
        (
            "a",
            lambda v: v.update(target_l0="2"),
            "target_l0: Input should be a valid number, got '2'",
        ),
        ("a", lambda v: v.update(seeds=[True]), "seeds.0: Input should be a valid integer, got Tr"),
        (
            "a",
            lambda v: v["saes"]["gated H"].update(d_sae="8"),
            "saes.gated H.d_sae must be an int",
        ),
        ("a", lambda v: v.update(target_l0=2.5), "saes.abstopk H.k must be an integer, got 2.5"),
        ("a", lambda v: v.update(target_l0=9), "saes.sa_gsae H.target_l0 must be"),
        (
            "a",
            lambda v: v["saes"]["bi_jumprelu H"].update(l0_warm_up_steps=12),
            "saes.bi_jumprelu H.l0_warm_up_steps must be below the 12 steps of the training",
        ),
        ("b", lambda v: v["data"].update(budgets=[9]), "data.budgets: must be from 1 to the narr"),
        ("b", lambda v: v["data"].update(budgets=[0]), "data.budgets: must be from 1 to the narr"),
        ("c", lambda v: v.update(reference="gated"), "reference: no SAE 'gated'; did you mean"),
        ("c", lambda v: v["data"].update(pair_shares=[2]), "data.pair_shares: must be from 0 to 1"),
        ("c", lambda v: v["data"].update(firing_probability=0.5), "data.firing_probability: Inp"),
        ("e", lambda v: v["data"].update(shares=[-0.1]), "data.shares: must be from 0 to 1"),
        ("e", lambda v: v["data"].update(l0_factors=[0]), "data.l0_factors: must be above 0"),
        ("e", lambda v: v["data"].update(n_children=6), "data.n_children: must be at most half of"),
        (
            "e",
            lambda v: v["data"].update(min_probability=0.5),
            "data.min_probability: must be below",
        ),
        (
            "e",
            lambda v: v["data"].update(min_probability=0.1, max_probability=0.1),
            "data.min_probability: must be below max_probability = 0.1, got 0.1",
        ),
        ("a", lambda v: v["training"].update(n_heldout=1), "training.n_heldout: Input should be"),
        ("e", lambda v: v.update(target_l0=6), "target_l0: must leave the most frequent feature"),
        (
            "e",
            lambda v: v["data"].update(l0_factors=[1, 9]),
            "saes.sa_gsae H.target_l0",
        ),
        (
            "b",
            lambda v: v["saes"]["gated H"].update(d_sae=[2, 8], l1_coefficient=1),
            "data.budgets: must be from 1 to the narrowest d_sae, 2, got 4",
        ),
        ("a", lambda v: v["saes"]["gated H"].update(d_sae=0), "saes.gated H.d_sae must be at lea"),
        (
            "a",
            lambda v: v.update(saes={"t": {"architecture": "topk", "d_sae": 8}}, target_l0=9),
            "saes.t.k must be above 0 and at most d_sae, 8, got 9",
        ),
        (
            "a",
            lambda v: v["saes"].update(
                j={
                    "architecture": "jumprelu",
                    "d_sae": 8,
                    "l0_coefficient": [1],
                    "jumprelu_bandwidth": 0,
                }
            ),
            "saes.j.jumprelu_bandwidth must be a number above 0",
        ),
    ],
)
def test_wrong_configs(which: str, change: Any, message: str, tmp_path: Path) -> None:
    values = values_of(which)
    change(values)
    config = write(values, tmp_path / "p.yaml")
    result = invoke("protocol", str(config), "--out", str(tmp_path / "out"))
    assert_one_line_error(result, 2, message)
    assert not (tmp_path / "out").exists()
