"""What the SAEs of pretrained/ measure with the special tokens, on which they were not trained.

    python benchmarks/special_tokens.py

By ``activations_store`` on the held-out text of ``benchmarks/prepare_models.py``. A BOS token
stands at the start of each context.
"""

import argparse
from pathlib import Path

import torch
from datasets import load_dataset
from own_command import own_command
from result_rows import write_rows

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation import load_sae

COLUMNS = ["sae", "special_tokens", "n_tokens", "l0", "r2", "norm_median", "norm_max"]
N_BATCHES, BATCH = 6, 512


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("demo_out"), help="model and text")
    parser.add_argument("--json", type=Path, default=Path("results/special_tokens.json"))
    args = parser.parse_args()
    model = signaware.load_demo_model(args.folder / "model")
    text = load_dataset(str(args.folder / "data/heldout"), split="train")
    rows = []
    for folder in sorted(path.parent for path in Path("pretrained").glob("*/cfg.json")):
        sae = load_sae(folder)
        for excluded in (True, False):
            store = signaware.activations_store(
                model,
                sae,
                text,
                exclude_special_tokens=excluded,
                streaming=False,
                train_batch_size_tokens=BATCH,
                n_batches_in_buffer=4,
            )
            x = torch.cat([next(store) for _ in range(N_BATCHES)])
            quality, _ = signaware.measure_quality(sae, x.split(BATCH), "held-out speeches")
            norms = x.norm(dim=1)
            sizes = (round(norms.median().item(), 1), round(norms.max().item(), 1))
            measured = (round(quality.l0, 2), round(quality.explained_variance, 4), *sizes)
            rows.append([folder.name, not excluded, len(x), *measured])
            print(*rows[-1])
    write_rows({"command": own_command(), "columns": COLUMNS, "rows": rows}, args.json)


if __name__ == "__main__":
    main()
