"""The command that probes an SAE's latents for a label of texts."""

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sae_lens_signaware.checks import ConfigError, checked
from sae_lens_signaware.cli.errors import console, require_file, write_and_print
from sae_lens_signaware.cli.saes import SaeArgument

if TYPE_CHECKING:
    from sae_lens import SAE
    from sae_lens.saes.sae import SAEMetadata

    from sae_lens_signaware.evaluation.models import HookedRootModule


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
    context_size: Annotated[int, typer.Option(help="Tokens of a text at most.")] = 256,
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
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure how well k latents of any SAELens SAE tell a label of texts, and what a sign means.

    Example: sae-lens-signaware probe demo_out/saes/mlp_out/seed-0/signed/k-32 --data reviews.csv
    --model demo_out/model --model-class AutoModelForCausalLM
    --model-kwargs '{"gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}'
    --hook-name model.layers.15.mlp
    """
    from rich.markup import escape
    from rich.progress import Progress

    from sae_lens_signaware import hub
    from sae_lens_signaware.evaluation import labelled_texts, probes, text_activations
    from sae_lens_signaware.evaluation.activations_of_texts import check_context_size
    from sae_lens_signaware.evaluation.probe_features import side_values
    from sae_lens_signaware.evaluation.probe_scores import require_scikit_learn
    from sae_lens_signaware.evaluation.probes import check_search

    require_scikit_learn()
    if out is not None:
        require_file(out)
    held = labelled_texts.read_labelled_texts(data, text_column, label_column, part_column)
    # before the model runs
    labelled_texts.fit_mask(labelled_texts.labels_of(held.labels), held.parts, seed)
    ks = k or probes.KS
    check_search(ks, max_cosine)
    check_context_size(context_size)
    given_kwargs = _model_kwargs(model_kwargs)
    loaded = hub.load_sae_reference(sae)
    metadata = loaded.cfg.metadata
    hook = hook_name or _required(metadata, "hook_name", "hook-name")
    language_model = _model(loaded, model, model_class, given_kwargs, hook, device)
    activations_of = functools.partial(
        text_activations,
        language_model,
        hook_names=[hook],
        head_indices=[metadata.hook_head_index],
        prepend_bos=metadata.prepend_bos is not False,
        context_size=context_size,
    )
    (of_one,) = activations_of(held.texts[:1])
    side_values(loaded, of_one)  # whether they are those that the SAE takes
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(escape(f"Activations of {hook}"), total=len(held.texts))
        (source,) = activations_of(held.texts, advance=lambda n: progress.advance(task, n))
    with console.status(f"Probing {loaded.cfg.d_sae:,} latents"):
        result = probes.probe(
            loaded,
            source,
            held.labels,
            parts=held.parts,
            ks=ks,
            aggregation=aggregation,
            max_cosine=max_cosine,
            seed=seed,
        )
    write_and_print(out, result.write, result.table(), result.ends_table())


def _required(metadata: "SAEMetadata", field: str, option: str) -> str:
    value = checked(f"metadata.{field}", getattr(metadata, field), str | None)
    if value is None:
        raise ConfigError(f"{option}: the SAE's cfg.json does not say it; give --{option}")
    return value


def _model_kwargs(given: str | None) -> dict[str, Any] | None:
    """Read --model-kwargs; None where it is left out."""
    if given is None:
        return None
    try:
        kwargs = json.loads(given)
    except json.JSONDecodeError as error:
        raise ConfigError(f"model-kwargs must be JSON, got {given!r}: {error}") from None
    if not isinstance(kwargs, dict):
        raise ConfigError(f"model-kwargs must be a JSON object, got {given!r}")
    return kwargs


def _model(
    sae: "SAE[Any]",
    name: str | None,
    class_name: str | None,
    kwargs: dict[str, Any] | None,
    hook: str,
    device: str,
) -> "HookedRootModule":
    """Load the model that the options name, or else the one that the SAE's metadata names."""
    from sae_lens_signaware.hub.model_card import model_kwargs_of
    from sae_lens_signaware.training.hooks import load_model_with_hooks

    metadata = sae.cfg.metadata
    # those of another model's files, such as a GGUF file, are not there in this one
    is_other = name is not None and name != metadata.model_name
    of_sae = {} if is_other else model_kwargs_of(metadata)
    own_class = checked("metadata.model_class_name", metadata.model_class_name, str | None)
    return load_model_with_hooks(
        name or _required(metadata, "model_name", "model"),
        class_name or own_class or "HookedTransformer",
        of_sae if kwargs is None else kwargs,
        [hook],
        device,
    )
