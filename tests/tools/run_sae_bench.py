"""SAEBench's core evaluation and sparse probing on split SAEs; runs in SAEBench's environment.

``python run_sae_bench.py OUT.json``, in the folder that prepare.py wrote: SAEBench makes the model
from the name in the SAE's metadata, and TransformerLens reads the folder of that name.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from sae_bench.evals.core.eval_config import CoreEvalConfig
from sae_bench.evals.core.main import (
    get_featurewise_weight_based_metrics,
    multiple_evals,
    run_evals,
)
from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig
from sae_bench.evals.sparse_probing.main import run_eval
from sae_bench.sae_bench_utils.activation_collection import get_sae_meaned_activations
from sae_bench.sae_bench_utils.general_utils import _standardize_sae_cfg
from sae_lens import SAE, ActivationsStore
from transformer_lens import HookedTransformer
from transformers import AutoModelForCausalLM

import sae_lens_signaware  # noqa: F401  (registers the signed architectures, for the comparison)
from sae_lens_signaware.evaluation import measure_quality

ARCHITECTURES = tuple(json.loads(Path("census.json").read_text()))  # those of prepare.py
TEXT = "text/heldout"
CONTEXT, PROMPTS, RECONSTRUCTION_BATCHES, SPARSITY_BATCHES = 128, 2, 1, 2
# On SAEBench's fixed list of names; `datasets` reads the folder of that name, made by prepare.py.
PROBING_DATASET = "fancyzhx/ag_news"


def load_folded(name: str) -> SAE[Any]:
    """The SAE that SAEBench takes: decoder rows of norm one, as it asks for."""
    sae = SAE.load_from_disk(f"saes/{name}")
    sae.fold_W_dec_norm()
    return sae


def read_results(file: Path) -> dict[str, Any]:
    """The measures of one of SAEBench's files."""
    kept = ("eval_result_metrics", "eval_result_details")
    return {key: value for key, value in json.loads(file.read_text()).items() if key in kept}


def run_core(saes: dict[str, SAE[Any]]) -> dict[str, Any]:
    """SAEBench's own run, files and all. (Without both metrics by latent it cannot write its file:
    "7 validation errors for MiscMetrics".)"""
    multiple_evals(
        list(saes.items()),
        n_eval_reconstruction_batches=RECONSTRUCTION_BATCHES,
        n_eval_sparsity_variance_batches=SPARSITY_BATCHES,
        eval_batch_size_prompts=PROMPTS,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
        exclude_special_tokens_from_reconstruction=True,
        dataset=TEXT,
        context_size=CONTEXT,
        output_folder="eval_results/core",
        device="cpu",
        force_rerun=True,
    )
    # It logs what fails and goes on, so its files are the proof.
    files = {name: Path(f"eval_results/core/{name}_custom_sae_eval_results.json") for name in saes}
    return {name: read_results(file) for name, file in files.items()}


def core_store(model: HookedTransformer, sae: Any) -> ActivationsStore:
    """The store of the core evaluation, made as it makes it."""
    store = ActivationsStore.from_sae(model, sae, context_size=CONTEXT, dataset=TEXT)
    store.shuffle_input_dataset(seed=42)
    return store


def special_ids(model: HookedTransformer) -> set[int]:
    """The tokens where SAEBench looks away."""
    tokenizer: Any = model.tokenizer
    return {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}


def run_core_signed(model: HookedTransformer, sae: Any) -> dict[str, Any]:
    """The measures of ``run_core`` on the signed SAE itself, for the comparison; no file."""
    _standardize_sae_cfg(sae.cfg)  # as load_and_format_sae does first
    cfg = CoreEvalConfig(
        batch_size_prompts=PROMPTS,
        n_eval_reconstruction_batches=RECONSTRUCTION_BATCHES,
        n_eval_sparsity_variance_batches=SPARSITY_BATCHES,
        compute_kl=True,
        compute_ce_loss=True,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=True,
        exclude_special_tokens_from_reconstruction=True,
    )
    metrics, by_latent = run_evals(
        sae, core_store(model, sae), model, cfg, ignore_tokens=special_ids(model)
    )
    return {"metrics": metrics, "feature_density": by_latent["feature_density"]}


def weight_metrics_error(sae: Any) -> str:
    """What SAEBench's metrics of every latent's weights say to a signed SAE; "None" if nothing."""
    try:
        get_featurewise_weight_based_metrics(sae)
    except AttributeError as error:
        return str(error)
    return "None"


def special_tokens(tokens: torch.Tensor, model: HookedTransformer) -> torch.Tensor:
    return torch.isin(tokens, torch.tensor(sorted(special_ids(model))))


@torch.no_grad()
def core_batches(model: HookedTransformer, sae: Any) -> tuple[float, list[torch.Tensor]]:
    """The tokens of the core evaluation, by the calls that it makes.

    Returns:
        The loss of the model as transformers runs it, on the tokens of SAEBench's; and the
        activations (tokens that are not special, d_in) of every batch it measures L0 on.
    """
    store = core_store(model, sae)
    tokens = torch.cat([store.get_batch_tokens(PROMPTS) for _ in range(RECONSTRUCTION_BATCHES)])
    logits = AutoModelForCausalLM.from_pretrained(sae.cfg.metadata.model_name)(tokens).logits
    loss = -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    loss = loss[~special_tokens(tokens, model)[:, :-1]].mean().item()
    store.reset_input_dataset()
    hook, layer = sae.cfg.metadata.hook_name, sae.cfg.metadata.hook_layer
    batches = []
    for _ in range(SPARSITY_BATCHES):
        tokens = store.get_batch_tokens(PROMPTS)
        _, cache = model.run_with_cache(
            tokens, prepend_bos=False, names_filter=[hook], stop_at_layer=layer + 1
        )
        batches.append(cache[hook][~special_tokens(tokens, model)])
    return loss, batches


@torch.no_grad()
def ours(sae: Any, batches: list[torch.Tensor]) -> dict[str, Any]:
    """The same measures by this package, and SAEBench's "explained_variance" by its formula."""
    quality, census = measure_quality(sae, batches, TEXT)
    residual = torch.stack([(x - sae(x)).pow(2).sum(-1).mean() for x in batches]).mean()
    squares = torch.stack([x.pow(2).mean(0) for x in batches])
    total = squares.sum(1).mean() - squares.mean() ** 2
    latents = [sae.encode(x) for x in batches]
    return {
        **quality.to_dict(),
        "explained_variance_sae_bench": (1 - residual / total).item(),
        "l1": torch.stack([z.abs().sum(-1).mean() for z in latents]).mean().item(),
        "sum_of_latents": torch.stack([z.sum(-1).mean() for z in latents]).mean().item(),
        "firing_rate_pos": census.firing_rate_pos.tolist(),
        "firing_rate_neg": census.firing_rate_neg.tolist(),
    }


def run_probing(saes: dict[str, SAE[Any]], model_name: str) -> dict[str, Any]:
    config = SparseProbingEvalConfig(
        model_name=model_name,
        dataset_names=[PROBING_DATASET],
        probe_train_set_size=80,
        probe_test_set_size=80,
        context_length=64,
        llm_batch_size=16,
        llm_dtype="float32",
        k_values=[1, 2, 5],
    )
    run_eval(
        config,
        list(saes.items()),
        "cpu",
        "eval_results/probing",
        force_rerun=True,
        artifacts_path="eval_results/artifacts",
    )
    files = {
        name: Path(f"eval_results/probing/{name}_custom_sae_eval_results.json") for name in saes
    }
    return {name: read_results(file) for name, file in files.items()}


def probing_sides(signed: Any, split: Any, model_name: str) -> dict[str, float]:
    """Compare the probes' inputs, SAEBench's means over a text, of a signed SAE and its split."""
    hook = signed.cfg.metadata.hook_name
    cached = Path("eval_results/artifacts/sparse_probing") / model_name / hook
    acts = torch.load(cached / f"{PROBING_DATASET}_activations.pt".replace("/", "_"))["test"]
    with torch.no_grad():
        z = torch.cat(list(get_sae_meaned_activations(acts, signed, 125).values()))
        sides = torch.cat(list(get_sae_meaned_activations(acts, split, 125).values()))
    width = signed.cfg.d_sae
    both = (sides[:, :width] > 0) & (sides[:, width:] > 0)
    off = (sides[:, :width] - sides[:, width:] - z).abs()
    return {
        "median_difference": off.median().item(),
        "share_that_differs": (off > 1e-4 * z.abs().max()).float().mean().item(),
        "max_latent": z.abs().max().item(),
        "share_of_latents_with_both_sides_in_one_text": both.float().mean().item(),
    }


def main(out: Path) -> None:
    torch.manual_seed(0)
    splits = {f"{a}-split": load_folded(f"{a}-split") for a in ARCHITECTURES}
    signed = {a: load_folded(a) for a in ARCHITECTURES}
    first = signed[ARCHITECTURES[0]]
    model_name = first.cfg.metadata.model_name
    result: dict[str, Any] = {"core": run_core(splits)}
    model = HookedTransformer.from_pretrained_no_processing(model_name, device="cpu")
    result["core_signed"] = {name: run_core_signed(model, sae) for name, sae in signed.items()}
    result["signed_weight_metrics"] = {a: weight_metrics_error(signed[a]) for a in ARCHITECTURES}
    loss, batches = core_batches(model, first)
    result["transformers_loss"] = loss
    result["ours"] = {name: ours(sae, batches) for name, sae in signed.items()}
    result["probing"] = run_probing(splits, model_name)
    result["probing_sides"] = {
        a: probing_sides(signed[a], splits[f"{a}-split"], model_name) for a in ARCHITECTURES
    }
    names = ("sae-bench", "sae-lens", "transformer-lens", "transformers", "datasets", "torch")
    result["versions"] = {name: version(name) for name in names}
    out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
