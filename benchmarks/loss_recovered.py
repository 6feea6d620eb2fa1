"""Loss recovered: how much of the language model's loss is kept with an SAE's reconstruction in it.

    python benchmarks/loss_recovered.py configs/equal-width-smollm2-135m.yaml \\
        configs/equal-width-gemma3-270m.yaml --value 32

(CE_zero - CE_sae) / (CE_zero - CE_orig) by SAELens's ``run_evals``, of each of the first batches of
held-out prompts: 1 keeps the loss, and 0 is as bad as zeros at the hook point. To be run where the
sweeps were run, on those of their SAEs that are still on disk. All SAEs of a model get the same
batches, so the difference of two has a standard error over them.
"""

import argparse
from pathlib import Path

from own_command import own_command
from reproduction_rows import COLUMNS, row_of
from result_rows import require_same_runs, require_same_sweeps, write_rows
from sweep_source import runs_with_saes

from sae_lens_signaware.evaluation import load_sae
from sae_lens_signaware.evaluation.quality import add_loss_recovered
from sae_lens_signaware.experiments.sweep.cache import d_ins_of, load_hooked_model, make_store
from sae_lens_signaware.experiments.sweep.result import RunResult


def measure(source: Path, root: Path, value: float, n_batches: int) -> list[list[object]]:
    """The rows of one sweep: those of ``row_of``, with the loss recovered of each batch."""
    store, found = runs_with_saes(source, root, [value])
    if not found:
        return []
    model = load_hooked_model(found[0].cfg, list(d_ins_of(found)))
    rows = []
    for run in found:
        result = RunResult.read(store.result_path(run))
        text = store.config.heldout_dataset_path or run.cfg.dataset_path
        tokens = make_store(model, run.cfg, text, d_ins_of([run]))
        sae = load_sae(store.sae_path(run))
        batches = [add_loss_recovered(result.quality, sae, model, tokens) for _ in range(n_batches)]
        values = [batch.loss_recovered for batch in batches]
        rows.append([*row_of(result), *(value and round(value, 5) for value in values)])
        print(*rows[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, help="sweeps")
    parser.add_argument("--root", type=Path, default=Path(), help="folder the sweeps were run in")
    parser.add_argument("--value", type=float, default=32, help="target_l0 or k")
    parser.add_argument("--n-batches", type=int, default=8, help="batches of the model's prompts")
    parser.add_argument("--json", type=Path, default=Path("results/loss_recovered.json"))
    args = parser.parse_args()
    require_same_sweeps([source.stem for source in args.configs], args.json)
    sweeps = {
        source.stem: measure(source, args.root, args.value, args.n_batches)
        for source in args.configs
    }
    require_same_runs(sweeps, args.json)
    columns = [*COLUMNS, *(f"loss_recovered_{i}" for i in range(args.n_batches))]
    write_rows(
        {
            "command": own_command(),
            "columns": columns,
            "sweeps": {name: {"runs": rows} for name, rows in sweeps.items()},
        },
        args.json,
    )


if __name__ == "__main__":
    main()
