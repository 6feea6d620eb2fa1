"""Configs of small protocols, and SAEs built by hand."""

import json
import math
from pathlib import Path
from typing import Any

from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig
from torch import Tensor

from sae_lens_signaware import SAGatedSAE, SAGatedSAEConfig

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("protocol-*.yaml"))

WORLD: dict[str, Any] = {
    "d_in": 8,
    "n_background": 6,
    "signed_share": 0.5,
    "firing_probability": 0.25,
    "magnitude_sd": 0.25,
    "noise": 0.0,
}
DIAL: dict[str, Any] = {
    **WORLD,
    "gain_pos": 1.0,
    "gain_neg": 0.4,
    "axis_probability": 0.3,
    "dial_max": 1.5,
    "n_points": 4,
    "n_base": 20,
}
ANOMALY: dict[str, Any] = {
    **WORLD,
    "n_planted": 2,
    "planted_rate": 0.1,
    "delta": 2.0,
    "n_labelled": 200,
    "budgets": [1, 4],
    "false_alarms": 0.05,
}
CONSOLIDATION: dict[str, Any] = {
    "d_in": 8,
    "n_features": 8,
    "pair_shares": [0.0, 0.5],
    "firing_probability": 0.2,
    "magnitude_sd": 0.25,
    "noise": 0.0,
}
TWO_SIDED: dict[str, Any] = {
    "d_in": 8,
    "n_features": 10,
    "shares": [0.0, 0.5],
    "l0_factors": [1.0, 2.0],
    "n_children": 2,
    "magnitude_sd": 0.25,
    "noise": 0.0,
}
SAES: dict[str, dict[str, Any]] = {
    "sa_gsae H": {"architecture": "sa_gsae", "d_sae": 8},
    "bi_jumprelu H": {"architecture": "bi_jumprelu", "d_sae": 8},
    "gated H": {"architecture": "gated", "d_sae": 8, "l1_coefficient": [0.5, 2]},
    "gated 2H": {"architecture": "gated", "d_sae": 16, "l1_coefficient": [2]},
    "jumprelu 2H": {"architecture": "jumprelu", "d_sae": 16, "l0_coefficient": [2]},
    "abstopk H": {"architecture": "abstopk", "d_sae": 8},
    "batchtopk 2H": {"architecture": "batchtopk", "d_sae": 16},
}
DATA = {"a": DIAL, "b": ANOMALY, "c": CONSOLIDATION, "e": TWO_SIDED}


def values_of(which: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "protocol": which,
        "seeds": [0, 1] if which == "a" else [0],
        "target_l0": 2,
        "threads": 1,
        "data": json.loads(json.dumps(DATA[which])),
        "training": {
            "n_steps": 12,
            "batch_size": 32,
            "lr": 3e-3,
            "n_train": 128,
            "n_heldout": 100,
        },
        "saes": json.loads(json.dumps(SAES)),
    }
    return values | ({"reference": "gated 2H"} if which == "c" else {})


def signed_sae(W_enc: Tensor, W_dec: Tensor, sides: tuple[float, float] = (1.0, 1.0)) -> SAE[Any]:
    """sa_gsae without thresholds whose two sides scale by ``sides``; a side of 0 stays inactive."""
    cfg = SAGatedSAEConfig(d_in=W_enc.shape[0], d_sae=W_enc.shape[1], polarity_tying="none")
    sae = SAGatedSAE(cfg)
    sae.W_enc.data, sae.W_dec.data = W_enc, W_dec
    for row, scale in enumerate(sides):
        sae.r_mag.data[row] = math.log(scale or 1.0)
        sae.threshold.data[row] = 0.0 if scale else 1e9
    return sae


def plain_sae(W_enc: Tensor, W_dec: Tensor, threshold: float = 0.0) -> SAE[Any]:
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=W_enc.shape[0], d_sae=W_enc.shape[1]))
    sae.W_enc.data, sae.W_dec.data = W_enc, W_dec
    sae.threshold.data.fill_(threshold)
    return sae
