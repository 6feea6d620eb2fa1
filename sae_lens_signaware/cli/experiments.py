"""Commands of the experiments: sweeps, protocols, and the report of both."""

import importlib.util
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from sae_lens_signaware.checks import require_writable
from sae_lens_signaware.cli.errors import (
    EXIT_FAILED,
    GO_ON,
    console,
    print_failures,
    require_file,
)
from sae_lens_signaware.printing import say


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
    from sae_lens_signaware.experiments.sweep import executors, stages, summary
    from sae_lens_signaware.experiments.sweep.config import load_sweep_config

    cfg, runs = load_sweep_config(config)
    require_writable("out", out)
    if cfg.cache_folder is not None:
        require_writable("cache_folder", cfg.cache_folder)
    command = _command(context, config, out)
    run_all = executors.run_local
    if executor == "ray":
        command, run_all = f"{command} --executor ray", executors.run_ray
    try:
        result = stages.run_sweep(cfg, runs, out, console, command, run_all)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(GO_ON) from None
    console.print(result.point_table())
    if result.comparisons:
        console.print(result.verdict_table())
    print_failures(result.failures)
    console.print(f"{len(result.results)} of {result.n_runs} runs; sweep.json is in {out}")
    if importlib.util.find_spec("matplotlib") is not None:
        for cell in cfg.cells:
            summary.plot_cell(result, cell, out / f"frontier-{cell}.png")
    if len(result.results) < result.n_runs:
        raise typer.Exit(EXIT_FAILED)


def protocol(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A protocol file.")],
    out: Annotated[Path, typer.Option(help="Folder for protocol-a.json, -b, -c or -e.")] = Path(
        "protocols_out"
    ),
) -> None:
    """Run a protocol on synthetic worlds: a dial, anomalies, antipodal pairs or two-sided features.

    Example: sae-lens-signaware protocol configs/protocol-a-polarity-dial.yaml --out protocols_out
    """
    from rich.markup import escape
    from rich.progress import Progress

    from sae_lens_signaware.experiments import protocols

    require_writable("out", out)
    cfg = protocols.load_protocol_config(config)
    path = out / protocols.result_filename(cfg)
    require_file(path)
    command = _command(context, config, out)
    try:
        with Progress(console=console) as progress:
            task = progress.add_task("Trainings", total=protocols.n_trainings(cfg))
            result = protocols.run_protocol(
                cfg,
                command,
                lambda name: progress.update(task, advance=1, description=escape(name)),
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Nothing was written.") from None
    result.write(path)
    console.print(result.table(console.width))
    for note in result.notes:
        say(console, f"- {note}")
    say(console, f"Written to {path}")


def report(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="Folder of a sweep, or one of several.")
    ],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    latents_only: Annotated[
        bool, typer.Option("--latents-only", help="Only the browser of latents, in a small page.")
    ] = False,
) -> None:
    """Write one self-contained HTML page: frontiers, census, calibration, and a browser of latents.

    Example: sae-lens-signaware report sweep_out --out report.html
    """
    from rich.text import Text

    from sae_lens_signaware.report import write_report

    require_file(out)
    with console.status(Text(f"Reading {results}")):  # a str would be markup
        path = write_report(results, out, latents_only)
    say(console, f"Written to {path}, {path.stat().st_size / 1e6:.1f} MB")


def _command(context: typer.Context, config: Path, out: Path) -> str:
    """Return the command that is running, with the modules that its config may need."""
    modules = context.parent.params["modules"] if context.parent else None
    imports = [word for module in modules or () for word in ("--import", module)]
    name = str(context.info_name)
    return shlex.join(["sae-lens-signaware", *imports, name, str(config), "--out", str(out)])
