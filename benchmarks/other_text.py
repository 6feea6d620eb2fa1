"""R² of the SAEs of a sweep on text of another kind than they were trained on.

    python benchmarks/other_text.py configs/equal-width-smollm2-135m.yaml \\
        configs/equal-width-gemma3-270m.yaml --texts opposites_out/data/valence_*.csv

To be run where the sweeps were run, on those of their SAEs that are still on disk. The texts are
CSV files as ``python -m sae_lens_signaware.experiments.opposites`` writes them; each text is a
prompt of its own. All SAEs of a cell get the same tokens, so the difference of two has a standard
error over blocks of texts. On another text the L0 of an SAE is not the one it was asked for, so
two SAEs differ in it. ``slope`` says what that gives: the R² that lower thresholds of the same SAE
gain on the same tokens, per unit of ln L0.
"""

import argparse
import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from own_command import own_command
from result_rows import require_same_runs, require_same_sweeps, write_rows
from sae_lens import SAE
from sweep_source import runs_with_saes, without_ending
from torch import Tensor

from sae_lens_signaware import TextActivations, read_labelled_texts, text_activations
from sae_lens_signaware.evaluation import load_sae
from sae_lens_signaware.experiments.sweep.cache import d_ins_of, load_hooked_model

N_BLOCKS = 20
COLUMNS = ("cell", "sae", "seed", "value", "text", "n_tokens", "l0", "r2", "slope")
SHIFT = 0.05
"""Share by which thresholds are lowered and raised for the slope."""


@torch.no_grad()
def block_errors(sae: SAE[Any], x: Tensor) -> tuple[list[float], float]:
    """The squared error of each block of tokens, over the variance of all blocks; and the L0.

    R² is 1 less the sum of the errors.

    Args:
        x: (n, d_in), in text order; what does not fill the last block is left out.
    """
    x = x[: len(x) // N_BLOCKS * N_BLOCKS]
    variance = (x - x.mean(0)).square().sum().item()
    errors, n_active = [], 0
    for block in x.chunk(N_BLOCKS):
        z = sae.encode(block)
        errors.append((block - sae.decode(z)).square().sum().item() / variance)
        n_active += int((z != 0).sum())
    return errors, n_active / len(x)


def slope_of(sae: SAE[Any], x: Tensor) -> float | None:
    """The R² per unit of ln L0 that an SAE gains as all its thresholds fall, at those it has.

    None where it has none, as of TopK.

    Its own frontier has about this slope: where an SAE is the best one at its L0, one with moved
    thresholds is below the frontier, and touches it where they are not moved.
    """
    if not hasattr(sae, "threshold"):
        return None
    points = []
    for factor in (1 + SHIFT, 1 - SHIFT):
        moved: Any = copy.deepcopy(sae)
        moved.threshold.data *= factor
        errors, l0 = block_errors(moved, x)
        points.append((math.log(l0), 1 - sum(errors)))
    (low, r2_low), (high, r2_high) = points
    return round((r2_high - r2_low) / (high - low), 4)


def texts_of(path: Path, n_tokens: int) -> list[str]:
    """The texts of a file that are needed for so many tokens, at four letters a token."""
    texts, n_letters = [], 0
    for text in read_labelled_texts(path).texts:
        if n_letters >= 4 * n_tokens:
            break
        texts.append(text)
        n_letters += len(text)
    return texts


def measure(
    source: Path, root: Path, values: Sequence[float], texts: dict[str, list[str]]
) -> list[list[object]]:
    """The rows of one sweep: :data:`COLUMNS`, and the errors of the blocks."""
    store, found = runs_with_saes(source, root, values)
    if not found:
        return []
    hooks = list(d_ins_of(found))
    model = load_hooked_model(found[0].cfg, hooks)
    rows: list[list[object]] = []
    for name, of_name in texts.items():
        held: dict[str, TextActivations] = dict(
            zip(hooks, text_activations(model, of_name, hooks), strict=True)
        )
        for run in found:
            x = held[run.cfg.hook_name].activations
            sae = load_sae(store.sae_path(run))
            errors, l0 = block_errors(sae, x)
            of_run = [run.cell, without_ending(run.sae), run.seed, run.value, name, len(x)]
            found_here = [round(l0, 3), round(1 - sum(errors), 5), slope_of(sae, x)]
            rows.append([*of_run, *found_here, *(round(e, 7) for e in errors)])
            print(*rows[-1][: len(COLUMNS)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, help="sweeps")
    parser.add_argument("--texts", nargs="+", type=Path, required=True, help="CSV files")
    parser.add_argument("--root", type=Path, default=Path(), help="folder the sweeps were run in")
    parser.add_argument("--values", type=float, nargs="+", default=[32], help="target_l0 or k")
    parser.add_argument("--n-tokens", type=int, default=20_000, help="of each file, about")
    parser.add_argument("--json", type=Path, default=Path("results/other_text.json"))
    args = parser.parse_args()
    require_same_sweeps([source.stem for source in args.configs], args.json)
    texts = {path.stem: texts_of(path, args.n_tokens) for path in args.texts}
    found = {source.stem: measure(source, args.root, args.values, texts) for source in args.configs}
    require_same_runs(found, args.json)
    sweeps = {name: {"runs": rows} for name, rows in found.items()}
    columns = [*COLUMNS, *(f"error_{i}" for i in range(N_BLOCKS))]
    write_rows({"command": own_command(), "columns": columns, "sweeps": sweeps}, args.json)


if __name__ == "__main__":
    main()
