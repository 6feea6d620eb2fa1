"""Commands that train: one run of SAELens's runner, and the demo."""

from pathlib import Path
from typing import Annotated

import typer

from sae_lens_signaware.checks import ConfigError, require_writable
from sae_lens_signaware.cli.errors import (
    EXIT_FAILED,
    GO_ON,
    console,
    print_failures,
)

LISTED_ARCHITECTURE = "sa_gsae"  # whose flags --list-flags prints where none is named


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for SAEs, sweep.json, frontier.png and report.html.")
    ] = Path("demo_out"),
    steps: Annotated[int, typer.Option(min=10, help="Training steps of each SAE.")] = 400,
    train_tokens: Annotated[
        int, typer.Option(min=1024, help="Tokens of cached activations.")
    ] = 40_000,
) -> None:
    """Compare a signed SAE with a plain one of its width and with a signed one of half of it.

    SAEs of SmolLM2-135M on real text: bi_batchtopk of 1,152 and of 576, SAELens's batchtopk of
    1,152. Example: sae-lens-signaware demo --out demo_out
    """
    from sae_lens_signaware.experiments.demo import REPORT_FILENAME, last_lines, run_demo
    from sae_lens_signaware.report import write_report

    require_writable("out", out)
    try:
        result = run_demo(out, steps, train_tokens, console)
        write_report(out, out / REPORT_FILENAME)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(GO_ON) from None
    for line in last_lines(out):
        console.print(line, soft_wrap=True, highlight=False)
    print_failures(result.failures)
    if result.failures:
        raise typer.Exit(EXIT_FAILED)


def train(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG.yaml", help="A SAELens runner config.")
    ] = None,
    list_flags: Annotated[
        bool,
        typer.Option(
            "--list-flags", help="Print every SAELens flag, and stop; CONFIG.yaml can be left out."
        ),
    ] = False,
    architecture: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Overrides the config's; its flags are listed."),
    ] = None,
) -> None:
    """Train one SAE with SAELens's own runner; any SAELens flag overrides the YAML.

    Example: sae-lens-signaware train configs/smollm2-135m-mlp_out-sa_gsae.yaml --lr 1e-3
    --d_sae 1152
    """
    from sae_lens_signaware.training.config import (
        load_runner_config,
        override_parser,
        training_config_class,
    )

    if config is None and list_flags:
        sae_class = training_config_class(architecture or LISTED_ARCHITECTURE)
        override_parser(sae_class).print_help()
        return
    if config is None:
        raise ConfigError("CONFIG.yaml: missing; name a runner config, or give --list-flags")
    if str(config).startswith("-"):
        raise ConfigError(f"CONFIG.yaml must come before SAELens's flags, got {config}")
    overrides = [*context.args, *(["--architecture", architecture] if architecture else [])]
    cfg = load_runner_config(config, overrides)
    if list_flags:
        override_parser(type(cfg.sae)).print_help()
        return
    from sae_lens_signaware.training.measured_run import train_and_measure

    train_and_measure(cfg, console)
