"""Commands that take a saved SAE: analyze, audit, latents, probe, split, merge, push."""

import json
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from sae_lens_signaware.checks import require, require_hub_ids
from sae_lens_signaware.cli.common import console, print_and_write
from sae_lens_signaware.files import (
    require_file_target,
    require_new,
    require_sae,
    require_tensor,
    require_writable,
)

SaeArgument = Annotated[str, Argument(metavar="SAE", help="A folder, or REPO:ID on the Hub.")]
Activations = Annotated[Path, Option(help="safetensors file of (n, d_in) activations.")]
Key = Annotated[str, Option(help="Name of the tensor in that file.")]
MaxCosine = Annotated[float, Option(min=-1, max=0, help="A pair has at most this cosine.")]
Model = Annotated[str | None, Option(help="Folder or Hub id; else as the SAE says.")]
ModelClass = Annotated[
    str | None, Option(help="AutoModelForCausalLM or HookedTransformer; likewise.")
]
ModelKwargs = Annotated[
    Any, Option(parser=json.loads, metavar="JSON", help="Passed to from_pretrained; likewise.")
]
HookName = Annotated[str | None, Option(help="Where the SAE reads; likewise.")]
Device = Annotated[str, Option(help="Where the model runs.")]
JsonOut = Annotated[Path | None, Option(help="JSON file to write.")]


def analyze(
    sae: SaeArgument,
    activations: Activations,
    key: Key = "heldout",
    out: Annotated[Path | None, Option(help="Folder for three JSON files.")] = None,
) -> None:
    """Measure census and calibration of both sides of every latent, as a table and as JSON.

    Example: sae-lens-signaware analyze demo_out/saes/mlp_out/seed-0/signed/k-32
    --activations demo_out/cache/mlp_out.safetensors
    """
    require_sae(sae)
    require_tensor("activations", activations, key)
    if out is not None:
        require_writable("out", out)
    from sae_lens_signaware.evaluation.measures import analyze_sae
    from sae_lens_signaware.hub import load_sae
    from sae_lens_signaware.training.cache import load_named_activations

    tensor, loaded = load_named_activations(activations, key), load_sae(sae)
    with console.status(f"Measuring {tensor.shape[:-1].numel():,} tokens"):
        analysis = analyze_sae(loaded, tensor)
    print_and_write(analysis.table(), out, analysis.write)


def audit(
    sae: SaeArgument,
    activations: Annotated[
        Path | None, Option(help="As for analyze; without it only directions are compared.")
    ] = None,
    key: Key = "heldout",
    max_cosine: MaxCosine = -0.9,
    out: JsonOut = None,
) -> None:
    """Measure how much of any SAELens SAE is spent on the two ends of one axis.

    Example: sae-lens-signaware audit
    jbloom/GPT2-Small-SAEs-Reformatted:blocks.8.hook_resid_pre --max-cosine -0.8
    """
    require_sae(sae)
    if activations is not None:
        require_tensor("activations", activations, key)
    require_file_target("out", out)
    from sae_lens_signaware.evaluation.audit import antipodal_audit
    from sae_lens_signaware.hub import load_sae
    from sae_lens_signaware.training.cache import load_named_activations

    tensor = load_named_activations(activations, key) if activations else None
    loaded = load_sae(sae)
    with console.status(f"Searching {loaded.cfg.d_sae:,} decoder rows"):
        result = antipodal_audit(loaded, tensor, max_cosine)
    print_and_write(result.table(), out, result.write)


def split(
    sae: SaeArgument,
    out: Annotated[Path, Argument(metavar="OUT", help="A new folder.")],
) -> None:
    """Write a signed SAE as a plain one of twice the width, which needs no plugin.

    Example: sae-lens-signaware split output output-plain
    """
    require_sae(sae)
    require_new("OUT", out)
    from sae_lens_signaware.evaluation.saved import write_split
    from sae_lens_signaware.hub import load_sae
    from sae_lens_signaware.saes import is_signed

    loaded = load_sae(sae)
    require(is_signed(loaded), "SAE", loaded.cfg.architecture(), "a signed SAE")
    source = Path(sae)
    plain = write_split(loaded, source if source.is_dir() else None, out)
    width, plain_width = loaded.cfg.d_sae, plain.cfg.d_sae
    sides = f"i (+ side) and i + {width} (- side)" if plain_width > width else "i"
    console.print(
        f"{loaded.cfg.architecture()} of width {width} -> {plain.cfg.architecture()} of width "
        f"{plain_width} in {out}; latent i is {sides}"
    )


def merge(
    sae: SaeArgument,
    out: Annotated[Path, Argument(metavar="OUT", help="A new folder.")],
    activations: Activations,
    key: Key = "heldout",
    max_cosine: MaxCosine = -0.9,
) -> None:
    """Turn antipodal pairs of a plain gated or jumprelu SAE into signed latents (approximate).

    Example: sae-lens-signaware merge output-plain output-signed --activations acts.safetensors
    """
    require_sae(sae)
    require_new("OUT", out)
    require_tensor("activations", activations, key)
    from sae_lens_signaware.evaluation.merge import merge_antipodal
    from sae_lens_signaware.evaluation.saved import write_sae
    from sae_lens_signaware.hub import load_sae
    from sae_lens_signaware.training.cache import load_named_activations

    tensor, loaded = load_named_activations(activations, key), load_sae(sae)
    with console.status(f"Merging pairs of {loaded.cfg.d_sae:,} latents"):
        merged = merge_antipodal(loaded, tensor, max_cosine)
    write_sae(merged, out)
    report = merged.cfg.metadata.merged_from
    console.print(
        f"{report['n_pairs']} pairs merged: width {report['d_sae']} -> {merged.cfg.d_sae}, "
        f"L0 {report['l0_before']:.2f} -> {report['l0_after']:.2f}, "
        f"R² {report['explained_variance_before']:.4f} -> {report['explained_variance_after']:.4f} "
        f"on {report['n_tokens']:,} tokens; in {out}"
    )


def push(
    sae: Annotated[Path, Argument(metavar="SAE", help="Folder of a signed SAE.")],
    repo: Annotated[str, Argument(metavar="REPO", help="owner/name on the Hub.")],
    sae_id: Annotated[str | None, Option(help="Name of the SAE in the repository.")] = None,
    base_model: Annotated[str | None, Option(help="Hub id of the model, for the card.")] = None,
    dataset: Annotated[str | None, Option(help="Hub id of the dataset, for the card.")] = None,
) -> None:
    """Upload an inference SAE, its plain twin and a model card to the Hugging Face Hub.

    Example: sae-lens-signaware push output me/my-saes --sae-id blocks.8.hook_mlp_out
    """
    sae_id = sae.resolve().name if sae_id is None else sae_id
    require_sae(sae)
    require_hub_ids(repo, sae_id)
    from sae_lens_signaware import hub

    with console.status(f"Uploading to {repo}"):
        url = hub.push(sae, repo, sae_id, base_model, dataset)
    console.print(f"{sae_id} and {sae_id}-plain are at {url}")


def probe(
    sae: SaeArgument,
    data: Annotated[
        Path,
        Option(
            exists=True,
            dir_okay=False,
            help="CSV with columns text and label (numbers, or two classes); a column part says "
            "'fit' or 'report', without it halves are drawn.",
        ),
    ],
    model: Model = None,
    model_class: ModelClass = None,
    model_kwargs: ModelKwargs = None,
    hook_name: HookName = None,
    device: Device = "cpu",
    context_size: Annotated[int, Option(min=2, help="Tokens of a text at most.")] = 256,
    k: Annotated[
        list[int] | None,
        Option(min=1, help="Number of latents; give it again for more; else 1, 2, 4, 8, 16."),
    ] = None,
    max_cosine: MaxCosine = -0.5,
    seed: Annotated[int, Option(min=0, help="Of the halves and of the resamples.")] = 0,
    out: JsonOut = None,
) -> None:
    """Measure how well k latents of any SAELens SAE tell a label of texts.

    Example: sae-lens-signaware probe demo_out/saes/mlp_out/seed-0/signed/k-32 --data reviews.csv
    --model demo_out/model --model-class AutoModelForCausalLM
    --model-kwargs '{"gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}'
    --hook-name model.layers.15.mlp
    """
    require_sae(sae)
    require_file_target("out", out)
    from sae_lens_signaware.evaluation.probe import KS
    from sae_lens_signaware.evaluation.probe import probe as measure
    from sae_lens_signaware.evaluation.texts import read_labelled_texts, text_activations
    from sae_lens_signaware.hub import load_sae

    held = read_labelled_texts(data)
    loaded = load_sae(sae)
    metadata = loaded.cfg.metadata
    language_model = _model_of(loaded, model, model_class, model_kwargs, hook_name, device)
    with console.status(f"Probing {len(held.texts):,} texts"):
        (source,) = text_activations(
            language_model,
            held.texts,
            hook_names=[metadata.hook_name],
            head_indices=[metadata.hook_head_index],
            prepend_bos=metadata.prepend_bos is not False,
            context_size=context_size,
        )
        result = measure(
            loaded,
            source,
            held.labels,
            parts=held.parts,
            ks=k or KS,
            max_cosine=max_cosine,
            seed=seed,
        )
    print_and_write(result.table(), out, result.write)


def latents(
    sae: SaeArgument,
    out: Annotated[Path, Option(help="HTML file to write.")] = Path("latents.html"),
    dataset: Annotated[str | None, Option(help="Folder or Hub id; else as the SAE says.")] = None,
    n_latents: Annotated[int, Option(min=1, help="Latents to show.")] = 24,
    n_prompts: Annotated[int, Option(min=1, help="Prompts to search.")] = 128,
    model: Model = None,
    model_class: ModelClass = None,
    model_kwargs: ModelKwargs = None,
    hook_name: HookName = None,
    device: Device = "cpu",
) -> None:
    """Write a browser of an SAE's latents as one HTML page, those first whose two sides are clear.

    Example: sae-lens-signaware latents pretrained/smollm2-135m-layer15-mlp_out
    --model demo_out/model --dataset demo_out/data/heldout
    --model-kwargs '{"gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}'
    """
    require_sae(sae)
    require_file_target("out", out)
    from sae_lens_signaware.hub import load_sae
    from sae_lens_signaware.report.latents import pages_of_dataset
    from sae_lens_signaware.report.page import write_browser

    loaded = load_sae(sae)
    texts = dataset or loaded.cfg.metadata.dataset_path
    require(bool(texts), "dataset", texts, "a folder or a Hub id, as the SAE names none")
    language_model = _model_of(loaded, model, model_class, model_kwargs, hook_name, device)
    with console.status(f"Searching {n_prompts:,} prompts"):
        pages = pages_of_dataset(loaded, language_model, texts, sae, n_latents, n_prompts)
    print_and_write(pages.table(), out, lambda path: write_browser(pages, path))


def _model_of(
    sae: Any,
    model: str | None,
    model_class: str | None,
    model_kwargs: dict[str, Any] | None,
    hook_name: str | None,
    device: str,
) -> Any:
    """The model that an SAE reads, hooked there; what is given replaces what the SAE says."""
    from sae_lens_signaware.evaluation.models import hook_of
    from sae_lens_signaware.sweep.cache import hooked_model

    metadata = sae.cfg.metadata
    metadata.hook_name = hook_name or hook_of(sae)
    if model_kwargs is None:  # the SAE's may name files of its own model, such as a GGUF file
        model_kwargs = {} if model else metadata.model_from_pretrained_kwargs or {}
    kind = model_class or metadata.model_class_name or "HookedTransformer"
    hooks = [metadata.hook_name]
    return hooked_model(str(kind), model or str(metadata.model_name), device, model_kwargs, hooks)
