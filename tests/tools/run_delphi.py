"""delphi's cache of the latents of split SAEs; runs in delphi's environment.

``python run_delphi.py OUT.json``, in the folder that prepare.py wrote.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from delphi.latents import LatentCache
from sae_lens import SAE
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import sae_lens_signaware  # noqa: F401  (registers the signed architectures, for the comparison)

ARCHITECTURES = tuple(json.loads(Path("census.json").read_text()))  # those of prepare.py
BATCH, N_SPLITS = 8, 4


def run_cache(model: Any, sae: Any, module: str, tokens: torch.Tensor, folder: Path) -> LatentCache:
    """delphi's own steps: run, write the splits."""
    cache = LatentCache(model, {module: sae.encode}, batch_size=BATCH)
    cache.run(tokens.numel(), tokens)
    folder.mkdir(parents=True, exist_ok=True)
    cache.save_splits(n_splits=N_SPLITS, save_dir=folder)
    return cache


def read_splits(folder: Path, shape: tuple[int, ...]) -> torch.Tensor:
    """The files as one dense tensor (sequences, context, latents), in delphi's float16."""
    dense = torch.zeros(shape, dtype=torch.float16)
    for file in folder.glob("*.safetensors"):
        data = load_file(file)
        batch, position, latent = data["locations"].long().T
        dense[batch, position, latent + int(file.stem.split("_")[0])] = data["activations"]
    return dense


@torch.no_grad()
def activations(model: Any, module: str, tokens: torch.Tensor) -> torch.Tensor:
    """What delphi's cache encodes, by a hook of our own."""
    kept: list[torch.Tensor] = []
    handle = model.get_submodule(module).register_forward_hook(
        lambda _, args, output: kept.append(output)
    )
    for batch in tokens.split(BATCH):
        model(batch)
    handle.remove()
    return torch.cat(kept)


@torch.no_grad()
def run(
    name: str, model: Any, module: str, tokens: torch.Tensor, x: torch.Tensor, out: Path
) -> dict[str, Any]:
    signed: Any = SAE.load_from_disk(f"saes/{name}")
    split: Any = SAE.load_from_disk(f"saes/{name}-split")
    folder = out.parent / f"{name}-latents"
    cache = run_cache(model, split, module, tokens, folder)
    z_split, z = split.encode(x), signed.encode(x)
    width = signed.cfg.d_sae
    cached = read_splits(folder / module, tuple(z_split.shape))
    locations = cache.cache.latent_locations[module]
    signed_cache = LatentCache(model, {module: signed.encode}, batch_size=BATCH)
    signed_cache.run(tokens.numel(), tokens)
    return {
        "n_tokens": tokens.numel(),
        "cached": len(locations),
        # delphi drops what is not above 1e-5
        "encode_above_1e-5": int((z_split > 1e-5).sum()),
        "same_places": torch.equal(locations, (z_split > 1e-5).nonzero()),
        "same_values": torch.equal(cache.cache.latent_activations[module], z_split[z_split > 1e-5]),
        "signed_nonzero": int((z != 0).sum()),
        "max_difference_of_files_to_signed": (
            (cached[..., :width].float() - cached[..., width:].float() - z).abs().max().item()
        ),
        "max_latent": z.abs().max().item(),
        # it keeps negative latents, but counts only firings > 0
        "signed_cached": len(signed_cache.cache.latent_locations[module]),
        "signed_above_1e-5": int((z > 1e-5).sum()),
        "signed_firing_counts": int(signed_cache.hookpoint_firing_counts[module].sum()),
        "split_firing_counts": int(cache.hookpoint_firing_counts[module].sum()),
    }


def main(out: Path) -> None:
    metadata = SAE.load_from_disk(f"saes/{ARCHITECTURES[0]}").cfg.metadata
    module = f"model.layers.{metadata.hook_name.split('.')[1]}.mlp"
    model = AutoModelForCausalLM.from_pretrained(metadata.model_name)
    tokens = torch.load("tokens.pt")
    x = activations(model, module, tokens)
    result: dict[str, Any] = {a: run(a, model, module, tokens, x, out) for a in ARCHITECTURES}
    names = ("eai-delphi", "sae-lens", "transformers", "torch")
    result["versions"] = {name: version(name) for name in names}
    out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
