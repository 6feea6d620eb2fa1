"""Opposition of the two sides of latents, for SAEs on disk: ``side_opposition`` on held-out text.

    python benchmarks/opposition.py pretrained/smollm2-135m-layer15-* --model demo_out/model \\
        --text demo_out/data/heldout --out results/opposition.json

Of each SAE it measures latents that are drawn among the bipolar ones, which are counted by prompts
here: the rarer side is active in at least K prompts, and in a tenth of those of both sides
together. The result of an SAE that is in --out already, by its folder, is kept. The latents that
stand out most have two contexts of each side there: the text before, at and after the peak.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from own_command import own_command
from result_rows import read_json, write_rows
from sae_lens import SAE
from torch import Tensor

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation.examples import Context, LatentExamples
from sae_lens_signaware.evaluation.models import (
    HookedRootModule,
    bos_ids,
    required_tokenizer,
    token_ids,
)
from sae_lens_signaware.evaluation.prompts import hooked_activations
from sae_lens_signaware.experiments.demo_data import GGUF_FILE
from sae_lens_signaware.saes.metrics import BIPOLAR_MIN_SHARE
from sae_lens_signaware.training.hooks import load_model_with_hooks

LENGTH = 64
N_BEST = 10
N_CONTEXTS = 2
WINDOW = (10, 3)
"""Tokens before and after the peak of a context."""


def prompts_of(model: HookedRootModule, folder: Path, n: int) -> Tensor:
    """(n, LENGTH) token ids of the texts in a folder, each prompt from BOS on.

    What is left at the end of a text is no prompt, even where it has the length of one.
    """
    tokenizer = required_tokenizer(model)
    bos, width = bos_ids(tokenizer), LENGTH - len(bos_ids(tokenizer))
    rows: list[list[int]] = []
    for row in datasets.Dataset.from_parquet(str(folder / "train.parquet")):
        # a dataset declares that it may give lists of rows; one that is iterated gives rows
        ids = token_ids(tokenizer, row["text"])  # type: ignore[index]
        rows += [bos + ids[at : at + width] for at in range(0, len(ids) - width, width)]
    step = max(1, len(rows) // n)
    return torch.tensor(rows[::step][:n])


@torch.no_grad()
def count_sides(model: HookedRootModule, saes: Sequence[Any], prompts: Tensor) -> list[Tensor]:
    """(2, d_sae) prompts in which each side of each latent is active; the model runs once."""
    hooks = [(sae.cfg.metadata.hook_name, None) for sae in saes]
    counts = [torch.zeros(2, sae.cfg.d_sae) for sae in saes]
    for batch in prompts.split(16):
        activations = hooked_activations(model, batch, hooks)
        for sae, x, count in zip(saes, activations, counts, strict=True):
            z = sae.encode(x[:, 1:])
            count += torch.stack([(s * z > 0).any(1).sum(0) for s in (1, -1)])
    return counts


def drawn_latents(counts: Tensor, n: int, least: int, seed: int = 0) -> tuple[list[int], int]:
    """n latents drawn among those that are bipolar, and the number of these.

    The rarer side has a tenth of the prompts of both sides; one with both counts twice.
    """
    smaller = counts.min(0).values
    is_bipolar = (smaller >= least) & (smaller >= BIPOLAR_MIN_SHARE * counts.sum(0))
    bipolar = is_bipolar.nonzero().flatten()
    drawn = torch.randperm(len(bipolar), generator=torch.Generator().manual_seed(seed))[:n]
    return sorted(bipolar[drawn].tolist()), len(bipolar)


def measured(
    model: HookedRootModule, sae: Any, prompts: Tensor, counts: Tensor, n: int, k: int
) -> dict[str, Any]:
    """What the JSON has of an SAE."""
    latents, n_bipolar = drawn_latents(counts, n, k)
    row: dict[str, Any] = {"d_sae": sae.cfg.d_sae, "bipolar": n_bipolar, "measured": len(latents)}
    if len(latents) < 2:
        return row
    examples = signaware.top_examples(model, sae, prompts, latents, k=k, window=WINDOW)
    found = signaware.side_opposition(model, sae, prompts, latents, k=k, examples=examples)
    passing = (found.context_low > found.context_null) & found.passes
    quantiles = found.opposition.nanquantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    best = found.low.nan_to_num(nan=-2).sort(descending=True).indices[:N_BEST]
    return row | {
        "passing": int(found.passes.sum()),
        "passing_by_context": int((found.context_low > found.context_null).sum()),
        "passing_by_both": int(passing.sum()),
        "opposition_quartiles": [round(q, 4) for q in quantiles.tolist()],
        "dial_median": round(found.dial.nanmedian().item(), 4),
        "null": round(found.null, 4),
        "context_null": round(found.context_null, 4),
        "latents": {
            str(int(found.latents[i])): {
                name: round(getattr(found, name)[i].item(), 4)
                for name in ("opposition", "low", "high", "dial", "context_opposition")
            }
            for i in best.tolist()
        },
        "contexts": {
            str(latent): contexts_of(examples.of(latent)) for latent in found.latents[best].tolist()
        },
    }


def contexts_of(latent: LatentExamples) -> dict[str, list[list[str]]]:
    """The strongest contexts of each side, + or -."""
    sides = {"+": latent.pos, "-": latent.neg}
    return {side: list(map(parts_of, contexts[:N_CONTEXTS])) for side, contexts in sides.items()}


def parts_of(context: Context) -> list[str]:
    """The text before the peak, at it and after it, each on one line."""
    tokens, peak = context.tokens, context.peak
    parts = tokens[:peak], tokens[peak : peak + 1], tokens[peak + 1 :]
    return [re.sub(r"\s+", " ", "".join(part)) for part in parts]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("saes", type=Path, nargs="+")
    parser.add_argument("--model", default="demo_out/model")
    parser.add_argument("--model-class", default="AutoModelForCausalLM")
    parser.add_argument("--model-kwargs", default=f'{{"gguf_file": "{GGUF_FILE}"}}')
    parser.add_argument("--text", type=Path, default=Path("demo_out/data/heldout"))
    parser.add_argument("--latents", type=int, default=48)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    kept = read_json(args.out)
    held = kept.get("saes", {})
    missing = [path for path in args.saes if str(path) not in held]
    if not missing:
        return
    saes: list[Any] = [SAE.load_from_disk(path) for path in missing]
    hooks = sorted({sae.cfg.metadata.hook_name for sae in saes})
    kwargs = json.loads(args.model_kwargs)
    model = load_model_with_hooks(args.model, args.model_class, kwargs, hooks)
    prompts = prompts_of(model, args.text, args.prompts)
    settings = {"k": args.k, "prompts": len(prompts), "length": LENGTH}
    others = {name: kept.get(name, value) for name, value in settings.items()}
    if others != settings:
        parser.error(f"--out: {args.out} has results of {others}, and these would be of {settings}")
    for path, sae, counts in zip(missing, saes, count_sides(model, saes, prompts), strict=True):
        row = held[str(path)] = measured(model, sae, prompts, counts, args.latents, args.k)
        command = own_command()
        write_rows({"command": command, **settings, "saes": held}, args.out)
        numbers = {k: v for k, v in row.items() if k not in ("latents", "contexts")}
        print(path, numbers, flush=True)


if __name__ == "__main__":
    main()
