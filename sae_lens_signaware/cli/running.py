"""Commands that train, and the report of what they have written."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.cli.common import EXIT_FAILED, GO_ON, console, require_file, require_output


def demo(
    out: Annotated[Path, typer.Option(help="Folder for SAEs, sweep.json and report.html.")] = Path(
        "demo_out"
    ),
    steps: Annotated[int, typer.Option(min=10, help="Training steps of each SAE.")] = 400,
    train_tokens: Annotated[
        int, typer.Option(min=1024, help="Tokens of cached activations.")
    ] = 40_000,
) -> None:
    """Compare a signed SAE with a plain one of its width and with a signed one of half of it.

    SAEs of SmolLM2-135M on real text: bi_batchtopk of 1,152 and of 576, SAELens's batchtopk of
    1,152. Example: sae-lens-signaware demo --out demo_out
    """
    require_output(out / "report.html")
    from sae_lens_signaware.demo import run_demo
    from sae_lens_signaware.report import write_report

    try:
        summary = run_demo(out, steps, train_tokens, console)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(GO_ON) from None
    console.print(f"The report is {write_report(out, out / 'report.html')}")
    if summary.failures:
        raise typer.Exit(EXIT_FAILED)


def train(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="SAELens runner config.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an SAE that is in output_path.")
    ] = False,
) -> None:
    """Train one SAE with SAELens's own runner; any SAELens flag overrides the YAML.

    Example: sae-lens-signaware train configs/smollm2-135m-mlp_out-sa_gsae.yaml --lr 1e-3
    --d_sae 1152
    """
    require_file("CONFIG.yaml", config)
    from sae_lens_signaware.training.config import load_runner_config
    from sae_lens_signaware.training.runner import train_and_measure

    train_and_measure(load_runner_config(config, context.args), console, overwrite)


def sweep(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A sweep file.")],
    out: Annotated[
        Path, typer.Option(help="Folder for caches, SAEs, results, sweep.json and plots.")
    ] = Path("sweep_out"),
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="This process, or Ray (here or on a cluster).")
    ] = "local",
) -> None:
    """Compare frontiers over cells, seeds and sparsities; resume where the last call stopped.

    Example: sae-lens-signaware sweep configs/sweep-smollm2-135m.yaml --out sweep_out
    """
    require_file("CONFIG.yaml", config)
    require_output(out / "sweep.json")
    from sae_lens_signaware.sweep.config import load_sweep_config
    from sae_lens_signaware.sweep.executors import run_local, run_ray, run_sweep
    from sae_lens_signaware.sweep.results import print_summary

    cfg, runs = load_sweep_config(config)
    modules = context.parent.params["modules"] if context.parent else None
    imports = [word for module in modules or () for word in ("--import", module)]
    words = ["sae-lens-signaware", *imports, "sweep", str(config), "--out", str(out)]
    words += ["--executor", "ray"] if executor == "ray" else []
    run_all = run_ray if executor == "ray" else run_local
    try:
        summary = run_sweep(cfg, runs, out, console, shlex.join(words), run_all)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(GO_ON) from None
    print_summary(summary, out, console)
    if len(summary.results) < summary.n_runs:
        raise typer.Exit(EXIT_FAILED)


def report(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="Folder of a sweep, or one of several.")
    ],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page: frontiers, verdicts, and a browser of latents.

    Example: sae-lens-signaware report sweep_out --out report.html
    """
    if not results.is_dir():
        raise InvalidInputError(f"RESULTS: {results} is no folder")
    require_output(out)
    from sae_lens_signaware.report import write_report

    path = write_report(results, out)
    console.print(f"Written to {path}, {path.stat().st_size / 1e6:.1f} MB")
