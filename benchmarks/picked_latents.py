"""Pages of latents that were picked by hand, put before those in a file of latents.

    python benchmarks/picked_latents.py configs/equal-width-smollm2-135m.yaml \
        results/latents/smollm2-135m-layer15-mlp_out.json \
        --sae pretrained/smollm2-135m-layer15-mlp_out --latents 701 199 600 198

A sweep shows the latents of most energy. These are others, without dials. The file is one that
``benchmarks/pretrained.py --latents`` has written; model, text and cache are those of the sweep.
"""

import argparse
import dataclasses
from pathlib import Path

from sweep_source import command_of

from pretrained import N_PROMPTS, PREFIX
from sae_lens_signaware.evaluation import analyze_sae, load_sae
from sae_lens_signaware.experiments.sweep.cache import load_hooked_model
from sae_lens_signaware.experiments.sweep.config import LatentsConfig, load_sweep_config
from sae_lens_signaware.experiments.sweep.latent_pages import pages_without_dials, prompts_of
from sae_lens_signaware.experiments.sweep.latent_results import SAELatents
from sae_lens_signaware.experiments.sweep.store import SweepStore


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", type=Path, metavar="CONFIG", help="config of the sweep")
    parser.add_argument("file", type=Path, metavar="LATENTS_JSON")
    parser.add_argument("--sae", type=Path, required=True, help="folder of the SAE")
    parser.add_argument("--latents", type=int, nargs="+", required=True)
    args = parser.parse_args()
    held = SAELatents.read(args.file)
    config, runs = load_sweep_config(args.sweep)
    cell = args.sae.name.removeprefix(f"{PREFIX}-")
    run = next(run for run in runs if run.cell == cell)
    sae = load_sae(args.sae)
    model = load_hooked_model(run.cfg, [run.cfg.hook_name])
    heldout = SweepStore(config, command_of(args.sweep)[1]).load_cache(run).heldout
    shown = LatentsConfig(saes=(run.sae,), value=run.value, n_prompts=N_PROMPTS)
    tokens = prompts_of(model, run, config.heldout_dataset_path or run.cfg.dataset_path, shown)
    analysis = analyze_sae(sae, heldout)
    pages = pages_without_dials(
        model, sae, analysis, args.latents, heldout, tokens, shown.n_contexts, run.cfg
    )
    others = [page for page in held.pages if page.latent not in args.latents]
    dataclasses.replace(held, pages=(*pages, *others)).write(args.file)


if __name__ == "__main__":
    main()
