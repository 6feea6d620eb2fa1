"""Coefficients that give a wanted L0, for the SAEs of a sweep that cannot be asked for one.

    python benchmarks/l0_grids.py configs/equal-width-gemma3-270m.yaml [--steps 1000]

Reads the cached activations of the sweep, so that one of its runs must have been started. For each
cell and each SAE that is swept by a coefficient, short trainings with the schedule scaled down look
for the coefficients; they print the grid as the config has it. Only L0 is read, and no R².
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from run_alone import train_alone
from sweep_source import command_of

from sae_lens_signaware.experiments.sweep.config import Run, load_sweep_config
from sae_lens_signaware.experiments.sweep.store import CachedActivations, SweepStore

COEFFICIENTS = ("l0_coefficient", "l1_coefficient")
TOLERANCE = 0.05
"""Of log L0 against the one that is wanted."""
MAX_TRAININGS = 6
"""For one wanted L0."""
MAX_FACTOR = 4.0
"""By which one step changes the coefficient: outside of what is known the slope is a guess."""


def coefficient_for(
    wanted: float, known: dict[float, float], l0_of: Callable[[float], float]
) -> float:
    """Find a coefficient whose L0 is ``wanted``; L0 falls where the coefficient grows.

    Args:
        known: coefficient -> L0, at least one; what is measured is added.
        l0_of: measures the L0 of a coefficient.
    """
    for _ in range(MAX_TRAININGS):
        nearest = min(known, key=lambda c: abs(math.log(known[c] / wanted)))
        if abs(math.log(known[nearest] / wanted)) <= TOLERANCE:
            return nearest
        guess = _guess(wanted, known, nearest)
        if guess in known:
            break
        known[guess] = l0_of(guess)
    return min(known, key=lambda c: abs(math.log(known[c] / wanted)))


def _guess(wanted: float, known: dict[float, float], nearest: float) -> float:
    """Interpolate or extrapolate log L0, linearly in the log of the coefficient."""
    above = [c for c, l0 in known.items() if l0 > wanted]
    below = [c for c, l0 in known.items() if l0 <= wanted]
    if above and below and max(above) < min(below):
        low, high = max(above), min(below)
        t = math.log(known[low] / wanted) / math.log(known[low] / known[high])
        return _rounded(low * (high / low) ** t)
    slope = -1.0
    others = [c for c in known if known[c] != known[nearest]]
    if others:
        other = min(others, key=lambda c: abs(math.log(c / nearest)))
        slope = math.log(known[other] / known[nearest]) / math.log(other / nearest)
    # a slope near 0, or one that grows with the coefficient, is noise
    factor = (wanted / known[nearest]) ** (1 / min(slope, -0.25))
    return _rounded(nearest * min(max(factor, 1 / MAX_FACTOR), MAX_FACTOR))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def shortened(run: Run, n_steps: int) -> Run:
    """The run with every length of its schedule scaled down to ``n_steps``."""
    cfg = run.cfg
    scale = min(1.0, n_steps * cfg.train_batch_size_tokens / cfg.training_tokens)
    warm_ups = {
        f.name: round(scale * getattr(cfg.sae, f.name))
        for f in dataclasses.fields(cfg.sae)
        if f.name.endswith("warm_up_steps")
    }
    runner = {
        "sae": dataclasses.replace(cfg.sae, **warm_ups),
        "training_tokens": round(scale * cfg.training_tokens),
        "lr_decay_steps": round(scale * cfg.lr_decay_steps),
        "lr_warm_up_steps": round(scale * cfg.lr_warm_up_steps),
    }
    return dataclasses.replace(run, cfg=dataclasses.replace(cfg, **runner))


def l0_at(run: Run, coefficient: float, activations: CachedActivations) -> float:
    """L0 on the held-out activations of the run with another coefficient."""
    sae = dataclasses.replace(run.cfg.sae, **{run.field: coefficient})
    cfg = dataclasses.replace(run.cfg, sae=sae)
    trained = train_alone(dataclasses.replace(run, cfg=cfg), activations)
    print(f"  {run.cell}, {run.sae}: {run.field} {coefficient:g}: L0 {trained.quality.l0:.1f}")
    return max(trained.quality.l0, 1e-3)


def grid_of(
    run: Run, wanted: Sequence[float], n_steps: int, activations: CachedActivations
) -> list[float]:
    """Coefficients of the run's SAE on its cell, one for each wanted L0."""
    short = shortened(run, n_steps)
    known = {run.value: l0_at(short, run.value, activations)}
    return [coefficient_for(l0, known, lambda c: l0_at(short, c, activations)) for l0 in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--l0", type=float, nargs="+", default=[128, 64, 32, 16, 8])
    args = parser.parse_args()
    config, runs = load_sweep_config(args.config)
    store = SweepStore(config, command_of(args.config)[1])
    swept = [run for run in runs if run.field in COEFFICIENTS and run.seed == config.seeds[0]]
    middle: dict[tuple[str, str], Run] = {}
    for key in dict.fromkeys((run.cell, run.sae) for run in swept):
        of_key = sorted((r for r in swept if (r.cell, r.sae) == key), key=lambda r: r.value)
        middle[key] = of_key[len(of_key) // 2]
    for (cell, sae), run in middle.items():
        if not store.has_cache(run):
            sys.exit(f"{store.cache_path(cell)}: the activations of {cell} are not there yet")
        grid = grid_of(run, args.l0, args.steps, store.load_cache(run))
        print(f"cells.{cell}.saes.{sae}: {{{run.field}: {grid}}}", flush=True)


if __name__ == "__main__":
    main()
