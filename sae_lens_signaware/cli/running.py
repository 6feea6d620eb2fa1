"""Commands that train, and the report of what they have written."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from sae_lens_signaware.cli.common import EXIT_FAILED, GO_ON, console
from sae_lens_signaware.files import only_one, require_file_target, require_writable
from sae_lens_signaware.training.yaml_files import read_yaml


def demo(
    out: Annotated[Path, Option(help="Folder for SAEs and report.html.")] = Path("demo_out"),
    steps: Annotated[int, Option(min=10, help="Training steps of each SAE.")] = 400,
    train_tokens: Annotated[int, Option(min=1024, help="Tokens to train on.")] = 40_000,
) -> None:
    """Compare a signed SAE with a plain one of its width and with a signed one of half of it.

    SAEs of SmolLM2-135M on real text: bi_batchtopk of 1,152 and of 576, SAELens's batchtopk of
    1,152. Example: sae-lens-signaware demo --out demo_out
    """
    require_writable("out", out)
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
    config: Annotated[Path, Argument(metavar="CONFIG.yaml", help="SAELens runner config.")],
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an SAE that is there.")] = False,
) -> None:
    """Train one SAE with SAELens's own runner; any SAELens flag overrides the YAML.

    Example: sae-lens-signaware train configs/smollm2-135m-mlp_out-sa_gsae.yaml --lr 1e-3
    --d_sae 1152
    """
    values = read_yaml(config)
    from sae_lens_signaware.training.config import build_runner_config
    from sae_lens_signaware.training.runner import train_and_measure

    cfg = build_runner_config(values, str(config), context.args)
    with only_one("output_path", cfg.output_path):
        train_and_measure(cfg, console, overwrite)


def sweep(
    config: Annotated[Path, Argument(metavar="CONFIG.yaml", help="A sweep file.")],
    out: Annotated[Path, Option(help="Folder for all that it writes.")] = Path("sweep_out"),
    executor: Annotated[
        Literal["local", "ray"], Option(help="This process, or Ray (here or on a cluster).")
    ] = "local",
) -> None:
    """Compare frontiers over cells, seeds and sparsities; resume where the last call stopped.

    Example: sae-lens-signaware sweep configs/sweep-smollm2-135m.yaml --out sweep_out
    """
    values = read_yaml(config)
    require_writable("out", out)
    from sae_lens_signaware.sweep.config import sweep_config_of
    from sae_lens_signaware.sweep.executors import run_local, run_ray, run_sweep
    from sae_lens_signaware.sweep.results import print_summary

    cfg, runs = sweep_config_of(values, str(config))
    command = shlex.join(["sae-lens-signaware", *sys.argv[1:]])
    try:
        execute = run_ray if executor == "ray" else run_local
        summary = run_sweep(cfg, runs, out, console, command, execute)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(GO_ON) from None
    print_summary(summary, out, console)
    if len(summary.results) < summary.n_runs:
        raise typer.Exit(EXIT_FAILED)


def report(
    results: Annotated[Path, Argument(metavar="RESULTS", help="Folder of one or more sweeps.")],
    out: Annotated[Path, Option(help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page: frontiers, verdicts, and a browser of latents.

    Example: sae-lens-signaware report sweep_out --out report.html
    """
    require_file_target("out", out)
    from sae_lens_signaware.report import write_report

    path = write_report(results, out)
    console.print(f"Written to {path}, {path.stat().st_size / 1e6:.1f} MB")
