"""sae-dashboard's page of a few latents of split SAEs; runs in sae-dashboard's environment.

``python run_sae_dashboard.py OUT.json``, in the folder that prepare.py wrote. The pages are beside
OUT.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from sae_dashboard.data_writing_fns import save_feature_centric_vis
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE, HookedSAETransformer
from transformers import AutoModelForCausalLM

import sae_lens_signaware  # noqa: F401  (registers the signed architectures, for the comparison)

ARCHITECTURES = tuple(json.loads(Path("census.json").read_text()))  # those of prepare.py
N_LATENTS = 3


def load_model(name: str) -> HookedSAETransformer:
    """TransformerLens 2 leaves Llama's rope_theta at 10,000 whatever the config says: set it."""
    model = HookedSAETransformer.from_pretrained_no_processing(name, device="cpu")
    theta = json.loads((Path(name) / "config.json").read_text())["rope_theta"]
    for block in model.blocks:
        attn: Any = block.attn
        sin, cos = attn.calculate_sin_cos_rotary(
            model.cfg.rotary_dim, model.cfg.n_ctx, base=theta, dtype=model.cfg.dtype
        )
        attn.rotary_sin, attn.rotary_cos = sin, cos
    return model


@torch.no_grad()
def activations(model: HookedSAETransformer, tokens: torch.Tensor, hook: str) -> torch.Tensor:
    layer = int(hook.split(".")[1])
    return model.run_with_cache(tokens, names_filter=[hook], stop_at_layer=layer + 1)[1][hook]


@torch.no_grad()
def difference_to_transformers(
    x: torch.Tensor, tokens: torch.Tensor, name: str, hook: str
) -> float:
    """Largest difference of the hooked activations to those of transformers."""
    model = AutoModelForCausalLM.from_pretrained(name)
    kept: list[torch.Tensor] = []
    mlp = model.model.layers[int(hook.split(".")[1])].mlp
    mlp.register_forward_hook(lambda module, args, output: kept.append(output))
    model.model(tokens)
    return (kept[0] - x)[:, 1:].abs().max().item()


def make_page(sae: Any, model: Any, tokens: torch.Tensor, latents: list[int], page: Path) -> dict:
    """The runner on ``latents``, its page, and what it holds of them."""
    cfg = SaeVisConfig(
        hook_point=sae.cfg.metadata.hook_name,
        features=latents,
        minibatch_size_tokens=16,
        ignore_positions=[0],
        device="cpu",
    )
    data = SaeVisRunner(cfg).run(encoder=sae, model=model, tokens=tokens)
    save_feature_centric_vis(sae_vis_data=data, filename=page)
    return {
        str(latent): {
            "histogram_title": shown.acts_histogram_data.title,
            "top_logits": shown.logits_table_data.top_logits,
            "bottom_logits": shown.logits_table_data.bottom_logits,
        }
        for latent, shown in data.feature_data_dict.items()
    }


def refusal(sae: Any, model: Any, tokens: torch.Tensor, page: Path) -> str | None:
    """What the runner says to the signed SAE itself; None where it takes it."""
    try:
        make_page(sae, model, tokens[:1], [0], page)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def run(name: str, model: Any, tokens: torch.Tensor, out: Path) -> dict[str, Any]:
    signed: Any = SAE.load_from_disk(f"saes/{name}")
    width = signed.cfg.d_sae
    rates = {
        k: torch.tensor(v) for k, v in json.loads(Path("census.json").read_text())[name].items()
    }
    # those that fire on both sides most
    both = torch.minimum(rates["firing_rate_pos"], rates["firing_rate_neg"])
    latents = both.topk(N_LATENTS).indices.tolist()
    page = out.parent / f"{name}.html"
    split = SAE.load_from_disk(f"saes/{name}-split")
    features = [*latents, *[i + width for i in latents]]
    return {
        "page": str(page),
        "latents": latents,
        "d_sae": width,
        **{side: rate[latents].tolist() for side, rate in rates.items()},
        "dashboard": make_page(split, model, tokens, features, page),
        "signed_sae": refusal(signed, model, tokens, out.parent / "signed.html"),
    }


def main(out: Path) -> None:
    tokens = torch.load("tokens.pt")
    cfg = SAE.load_from_disk(f"saes/{ARCHITECTURES[0]}").cfg.metadata
    model = load_model(cfg.model_name)
    x = activations(model, tokens[:2], cfg.hook_name)
    difference = difference_to_transformers(x, tokens[:2], cfg.model_name, cfg.hook_name)
    result: dict[str, Any] = {a: run(a, model, tokens, out) for a in ARCHITECTURES}
    result["difference_to_transformers"] = difference
    names = ("sae-dashboard", "sae-lens", "transformer-lens", "transformers", "datasets", "pyarrow")
    result["versions"] = {name: version(name) for name in (*names, "torch")}
    out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
