"""Commands that take a saved SAE: push, split, analyze, audit, merge."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sae_lens_signaware.checks import ConfigError, require_writable
from sae_lens_signaware.cli.errors import console, require_file, write_and_print

SaeArgument = Annotated[str, typer.Argument(metavar="SAE", help="A folder, or REPO:ID on the Hub.")]


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
    from rich.text import Text

    from sae_lens_signaware import hub

    sae_id = sae.resolve().name if sae_id is None else sae_id
    with console.status(Text(f"Uploading {sae_id} to {repo}")):  # a str would be markup
        url, ids = hub.push_saes(sae, repo, sae_id, base_model, dataset)
    console.print(f"{' and '.join(ids)} {'are' if ids[1:] else 'is'} at {url}", soft_wrap=True)


def split(
    sae: SaeArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
) -> None:
    """Write a signed SAE as a plain one of twice the width, which needs no plugin.

    Example: sae-lens-signaware split output output-plain
    """
    from sae_lens_signaware import hub
    from sae_lens_signaware.evaluation import write_split

    _require_new(out)
    loaded = hub.load_sae_reference(sae)
    source = Path(sae)
    try:
        plain = write_split(loaded, source if source.is_dir() else None, out)
    except (TypeError, NotImplementedError) as error:
        raise ConfigError(f"SAE: {error}") from None
    width, plain_width = loaded.cfg.d_sae, plain.cfg.d_sae
    sides = f"i (+ side) and i + {width} (- side)" if plain_width > width else "i"
    console.print(
        f"{loaded.cfg.architecture()} of width {width} -> "
        f"{plain.cfg.architecture()} of width {plain_width} in {out}; latent i is {sides}",
        soft_wrap=True,
    )


def analyze(
    sae: SaeArgument,
    activations: Annotated[
        Path,
        typer.Option(help="safetensors file of (n, d_in) activations, as the demo caches them."),
    ],
    key: Annotated[str, typer.Option(help="Name of the tensor in that file.")] = "heldout",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for analysis.json, calibration.json, census.json."),
    ] = None,
) -> None:
    """Measure census and calibration of both sides of every latent, as a table and as JSON.

    Example: sae-lens-signaware analyze demo_out/saes/mlp_out/seed-0/signed/k-32
    --activations demo_out/cache/mlp_out.safetensors
    """
    from sae_lens_signaware import hub
    from sae_lens_signaware.evaluation import analyze_sae
    from sae_lens_signaware.training.cache import load_named_activations

    if out is not None:
        require_writable("out", out)
    tensor = load_named_activations(activations, key)  # before an SAE is downloaded
    loaded = hub.load_sae_reference(sae)
    with console.status(f"Measuring {tensor.shape[:-1].numel():,} tokens"):
        analysis = analyze_sae(loaded, tensor)
    write_and_print(out, analysis.write, analysis.table())


def audit(
    sae: SaeArgument,
    activations: Annotated[
        Path | None,
        typer.Option(help="safetensors file of (n, d_in) activations: do the pairs fire together?"),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Name of the tensor in that file.", show_default="heldout")
    ] = None,
    max_cosine: Annotated[float, typer.Option(help="A pair has at most this cosine.")] = -0.9,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure how much of any SAELens SAE is spent on the two ends of one axis.

    Example: sae-lens-signaware audit
    jbloom/GPT2-Small-SAEs-Reformatted:blocks.8.hook_resid_pre --max-cosine -0.8
    """
    from sae_lens_signaware import hub
    from sae_lens_signaware.evaluation import antipodal_audit
    from sae_lens_signaware.evaluation.audit import checked_max_cosine
    from sae_lens_signaware.training.cache import load_named_activations

    if out is not None:
        require_file(out)
    checked_max_cosine(max_cosine)
    if activations is None and key is not None:
        raise ConfigError(f"key: {key!r} names a tensor of --activations, which is missing")
    tensor = load_named_activations(activations, key or "heldout") if activations else None
    loaded = hub.load_sae_reference(sae)
    with console.status(f"Searching {loaded.cfg.d_sae:,} decoder rows"):
        result = antipodal_audit(loaded, tensor, max_cosine)
    write_and_print(out, result.write, result.table())


def merge(
    sae: SaeArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    activations: Annotated[Path, typer.Option(help="safetensors file of (n, d_in) activations.")],
    key: Annotated[str, typer.Option(help="Name of the tensor in that file.")] = "heldout",
    max_cosine: Annotated[float, typer.Option(help="A pair has at most this cosine.")] = -0.9,
) -> None:
    """Turn antipodal pairs of a plain gated or jumprelu SAE into signed latents (approximate).

    Example: sae-lens-signaware merge output-plain output-signed --activations acts.safetensors
    """
    from sae_lens_signaware import hub
    from sae_lens_signaware.evaluation import merge_antipodal
    from sae_lens_signaware.evaluation.audit import checked_max_cosine
    from sae_lens_signaware.evaluation.saved import write_sae
    from sae_lens_signaware.training.cache import load_named_activations

    _require_new(out)
    checked_max_cosine(max_cosine)
    tensor = load_named_activations(activations, key)
    loaded = hub.load_sae_reference(sae)
    try:
        with console.status(f"Merging pairs of {loaded.cfg.d_sae:,} latents"):
            merged = merge_antipodal(loaded, tensor, max_cosine)
    except TypeError as error:
        raise ConfigError(f"SAE: {error}") from None
    write_sae(merged, out)
    report = merged.cfg.metadata.merged_from
    console.print(
        f"{report['n_pairs']} pairs merged: width {report['d_sae']} -> {merged.cfg.d_sae}, "
        f"L0 {report['l0_before']:.2f} -> {report['l0_after']:.2f}, "
        f"R² {report['explained_variance_before']:.4f} -> {report['explained_variance_after']:.4f} "
        f"on {report['n_tokens']:,} tokens; in {out}",
        soft_wrap=True,
    )


def _require_new(out: Path) -> None:
    """Raise ConfigError, before an SAE is loaded, where no new folder can be made at ``out``."""
    if os.path.lexists(out):  # a link that leads nowhere as well
        raise ConfigError(f"OUT: {out} exists already; name a new folder")
    require_writable("OUT's folder", out.parent)
