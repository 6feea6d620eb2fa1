"""Commands that take a saved SAE: analyze, audit, probe, split, merge, push."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sae_lens_signaware.checks import InvalidInputError, one_line
from sae_lens_signaware.cli.common import (
    console,
    require_file,
    require_free,
    require_output,
    require_sae,
    write_and_print,
)

if TYPE_CHECKING:
    from sae_lens import SAE

SaeArgument = Annotated[str, typer.Argument(metavar="SAE", help="A folder, or REPO:ID on the Hub.")]
Activations = Annotated[Path, typer.Option(help="safetensors file of (n, d_in) activations.")]
Key = Annotated[str, typer.Option(help="Name of the tensor in that file.")]
MaxCosine = Annotated[float, typer.Option(help="A pair has at most this cosine.")]
JsonOut = Annotated[Path | None, typer.Option(help="JSON file to write.")]


def analyze(
    sae: SaeArgument,
    activations: Activations,
    key: Key = "heldout",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for analysis.json, calibration.json, census.json."),
    ] = None,
) -> None:
    """Measure census and calibration of both sides of every latent, as a table and as JSON.

    Example: sae-lens-signaware analyze demo_out/saes/mlp_out/seed-0/signed/k-32
    --activations demo_out/cache/mlp_out.safetensors
    """
    require_sae(sae)
    require_file("activations", activations)
    require_output(out / "analysis.json" if out is not None else None)
    from sae_lens_signaware.evaluation.quality import analyze_sae
    from sae_lens_signaware.hub import load_sae
    from sae_lens_signaware.training.cache import load_named_activations

    tensor = load_named_activations(activations, key)
    loaded = load_sae(sae)
    with console.status(f"Measuring {tensor.shape[:-1].numel():,} tokens"):
        analysis = analyze_sae(loaded, tensor)
    write_and_print(out, analysis.write, analysis.table())


def audit(
    sae: SaeArgument,
    activations: Annotated[
        Path | None,
        typer.Option(help="safetensors file of (n, d_in) activations: do the pairs fire together?"),
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
    require_output(out)
    if activations is not None:
        require_file("activations", activations)
    from sae_lens_signaware.evaluation.audit import antipodal_audit
    from sae_lens_signaware.hub import load_sae
    from sae_lens_signaware.training.cache import load_named_activations

    tensor = load_named_activations(activations, key) if activations else None
    loaded = load_sae(sae)
    with console.status(f"Searching {loaded.cfg.d_sae:,} decoder rows"):
        result = antipodal_audit(loaded, tensor, max_cosine)
    write_and_print(out, result.write, result.table())


def split(
    sae: SaeArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
) -> None:
    """Write a signed SAE as a plain one of twice the width, which needs no plugin.

    Example: sae-lens-signaware split output output-plain
    """
    require_sae(sae)
    require_free("OUT", out)
    from sae_lens_signaware.evaluation.saved import write_split
    from sae_lens_signaware.hub import load_sae
    from sae_lens_signaware.saes import is_signed

    loaded = load_sae(sae)
    if not is_signed(loaded):
        raise InvalidInputError(f"SAE: {sae} is {loaded.cfg.architecture()!r}, no signed SAE")
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
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    activations: Activations,
    key: Key = "heldout",
    max_cosine: MaxCosine = -0.9,
) -> None:
    """Turn antipodal pairs of a plain gated or jumprelu SAE into signed latents (approximate).

    Example: sae-lens-signaware merge output-plain output-signed --activations acts.safetensors
    """
    require_sae(sae)
    require_free("OUT", out)
    require_file("activations", activations)
    from sae_lens_signaware.evaluation.merge import merge_antipodal
    from sae_lens_signaware.evaluation.saved import write_sae
    from sae_lens_signaware.hub import load_sae
    from sae_lens_signaware.training.cache import load_named_activations

    tensor = load_named_activations(activations, key)
    loaded = load_sae(sae)
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
    sae: Annotated[Path, typer.Argument(metavar="SAE", help="Folder of a signed SAE.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="owner/name on the Hub.")],
    sae_id: Annotated[str | None, typer.Option(help="Name of the SAE in the repository.")] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Hub id of the model, for the card.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Hub id of the dataset, for the card.")
    ] = None,
) -> None:
    """Upload an inference SAE, its plain twin and a model card to the Hugging Face Hub.

    Example: sae-lens-signaware push output me/my-saes --sae-id blocks.8.hook_mlp_out
    """
    if not sae.is_dir():
        raise InvalidInputError(f"SAE: {sae} is no folder")
    from sae_lens_signaware import hub

    sae_id = sae.resolve().name if sae_id is None else sae_id
    with console.status(f"Uploading to {repo}"):
        url = hub.push(sae, repo, sae_id, base_model, dataset)
    console.print(f"{sae_id} and {sae_id}{hub.TWIN} are at {url}")


def probe(
    sae: SaeArgument,
    data: Annotated[Path, typer.Option(help="CSV file in UTF-8; its first line names columns.")],
    text_column: Annotated[str, typer.Option(help="Column of the texts.")] = "text",
    label_column: Annotated[
        str, typer.Option(help="Column of the labels: numbers, or two classes.")
    ] = "label",
    part_column: Annotated[
        str | None,
        typer.Option(help="Column that says 'fit' or 'report'; without it halves are drawn."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder or Hub id; as the SAE says, where left out.")
    ] = None,
    model_class: Annotated[
        str | None,
        typer.Option(help="AutoModelForCausalLM or HookedTransformer; likewise."),
    ] = None,
    model_kwargs: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="What SAELens passes to from_pretrained; likewise."),
    ] = None,
    hook_name: Annotated[
        str | None, typer.Option(help="Where the SAE's activations are; likewise.")
    ] = None,
    context_size: Annotated[int, typer.Option(min=2, help="Tokens of a text at most.")] = 256,
    k: Annotated[
        list[int] | None,
        typer.Option(help="Number of latents; give it again for more; 1, 2, 4, 8, 16 if left out."),
    ] = None,
    aggregation: Annotated[
        Literal["sum", "mean", "max"], typer.Option(help="Of latents over the tokens of a text.")
    ] = "sum",
    max_cosine: Annotated[
        float, typer.Option(help="Two sides are a pair if their directions have at most this.")
    ] = -0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of the halves and of the resamples.")] = 0,
    device: Annotated[str, typer.Option(help="Where the model runs.")] = "cpu",
    out: JsonOut = None,
) -> None:
    """Measure how well k latents of any SAELens SAE tell a label of texts, and what a sign means.

    Example: sae-lens-signaware probe demo_out/saes/mlp_out/seed-0/signed/k-32 --data reviews.csv
    --model demo_out/model --model-class AutoModelForCausalLM
    --model-kwargs '{"gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}'
    --hook-name model.layers.15.mlp
    """
    require_sae(sae)
    require_file("data", data)
    require_output(out)
    try:
        given_kwargs = None if model_kwargs is None else json.loads(model_kwargs)
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"model-kwargs: {model_kwargs!r} is not JSON: {error}") from None
    from sae_lens_signaware.evaluation.probe import KS
    from sae_lens_signaware.evaluation.probe import probe as measure
    from sae_lens_signaware.evaluation.texts import read_labelled_texts, text_activations
    from sae_lens_signaware.hub import load_sae

    held = read_labelled_texts(data, text_column, label_column, part_column)
    loaded = load_sae(sae)
    hook = hook_name or loaded.cfg.metadata.hook_name
    if not hook:
        raise InvalidInputError("hook-name: the SAE's cfg.json does not say it")
    language_model = _model(loaded, model, model_class, given_kwargs, hook, device)
    with console.status(f"Probing {len(held.texts):,} texts"):
        (source,) = text_activations(
            language_model,
            held.texts,
            hook_names=[hook],
            head_indices=[loaded.cfg.metadata.hook_head_index],
            prepend_bos=loaded.cfg.metadata.prepend_bos is not False,
            context_size=context_size,
        )
        result = measure(
            loaded,
            source,
            held.labels,
            parts=held.parts,
            ks=k or KS,
            aggregation=aggregation,
            max_cosine=max_cosine,
            seed=seed,
        )
    write_and_print(out, result.write, result.table(), result.ends_table())


def _model(
    sae: "SAE[Any]",
    name: str | None,
    class_name: str | None,
    kwargs: dict[str, Any] | None,
    hook: str,
    device: str,
) -> Any:
    """Load the model that the options name, or else the one that the SAE's metadata names."""
    from sae_lens.load_model import load_model

    from sae_lens_signaware.evaluation.models import require_hook

    metadata = sae.cfg.metadata
    # those of another model's files, such as a GGUF file, are not there in this one
    is_other = name is not None and name != metadata.model_name
    of_sae = {} if is_other else metadata.model_from_pretrained_kwargs or {}
    name, of_sae = name or metadata.model_name, of_sae if kwargs is None else kwargs
    class_name = class_name or metadata.model_class_name or "HookedTransformer"
    try:
        loaded: Any = load_model(str(class_name), str(name), device, of_sae, [hook])
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"model: {name}: {one_line(error)}") from None
    require_hook(loaded, hook)
    return loaded
