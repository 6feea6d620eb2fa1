"""Running a sweep: one cache of activations a cell, one result file a run, resumable at every file.

A group is the runs of one cell and one seed. It is the unit that an executor hands out; it reads the
cell's cache and trains its SAEs one after another, each on the same batches in the same order.
"""

import contextlib
import dataclasses
import io
import json
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from sae_lens import SAE, ActivationsStore, LanguageModelSAERunnerConfig
from sae_lens.load_model import load_model
from torch import Tensor

from sae_lens_signaware.activation_cache import (
    collect_activations,
    load_activations,
    write_atomically,
    write_json_atomically,
)
from sae_lens_signaware.cached_training import train_on_cache
from sae_lens_signaware.config import ConfigError
from sae_lens_signaware.evaluation.quality import SAEQuality, measure_quality
from sae_lens_signaware.experiments.sweep_config import Run, SweepConfig
from sae_lens_signaware.hub import write_measurement

CHUNK = 2048  # tokens measured at once


@dataclasses.dataclass(frozen=True)
class RunResult:
    """One finished run, as its result file holds it.

    Attributes:
        cell, seed, sae, field, value: which run.
        quality: measured on the held-out activations.
        l0_pos, l0_neg: mean number of open latents of each side.
        seconds_per_step: of training; None where it was resumed.
        identity: all that the result depends on; another identity is another run.
    """

    cell: str
    seed: int
    sae: str
    field: str
    value: float
    quality: SAEQuality
    l0_pos: float
    l0_neg: float
    seconds_per_step: float | None
    identity: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "RunResult":
        """Raises ValueError where ``path`` is no such file."""
        try:
            values = json.loads(path.read_text())
            return cls(**{**values, "quality": SAEQuality(**values["quality"])})
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: not a result of a run: {error}") from None


def groups_of(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs of each cell and seed."""
    return [list(group) for _, group in groupby(runs, key=lambda run: (run.cell, run.seed))]


def result_path(out: Path, run: Run) -> Path:
    return out / "runs" / f"{run.name}.json"


def failure_path(out: Path, run: Run) -> Path:
    return out / "failed" / f"{run.name}.txt"


def cache_path(out: Path, cell: str) -> Path:
    return out / "cache" / f"{cell}.safetensors"


def identity_of_cache(
    config: SweepConfig, cfg: LanguageModelSAERunnerConfig[Any]
) -> dict[str, Any]:
    """What the activations of a cell depend on."""
    names = (
        "model_name",
        "model_class_name",
        "model_from_pretrained_kwargs",
        "hook_name",
        "hook_head_index",
        "dataset_path",
        "context_size",
        "prepend_bos",
        "exclude_special_tokens",
        "seqpos_slice",
    )
    values = {name: getattr(cfg, name) for name in names} | {
        "n_cached_tokens": config.n_cached_tokens,
        "n_heldout_tokens": config.n_heldout_tokens,
        "heldout_dataset_path": config.heldout_dataset_path,
    }
    return json.loads(json.dumps(values))


def identity_of_run(config: SweepConfig, run: Run) -> dict[str, Any]:
    """What a result depends on."""
    trainer = dataclasses.asdict(run.cfg.to_sae_trainer_config())
    values = {
        "sae": run.cfg.sae.to_dict(),
        "trainer": trainer,
        "seed": run.seed,
        "cache": identity_of_cache(config, run.cfg),
    }
    return json.loads(json.dumps(values))


def finished(config: SweepConfig, run: Run, out: Path) -> RunResult | None:
    """The result on disk, if it is that of this very run."""
    path = result_path(out, run)
    if not path.exists():
        return None
    try:
        result = RunResult.read(path)
    except ValueError:
        return None
    return result if result.identity == identity_of_run(config, run) else None


def make_cache(config: SweepConfig, run: Run, out: Path, progress: Progress) -> Path:
    """The cache of a run's cell, from disk if it is there, else from the model by SAELens's store.

    Raises:
        ConfigError: the model lacks the hook, or the text is too short.
    """
    path = cache_path(out, run.cell)
    marker = path.with_suffix(".json")
    identity = identity_of_cache(config, run.cfg)
    if path.exists() and marker.exists() and json.loads(marker.read_text()) == identity:
        return path
    marker.unlink(missing_ok=True)
    model = _load_model(run.cfg)
    n_train, n_heldout = config.n_cached_tokens, config.n_heldout_tokens
    try:
        if config.heldout_dataset_path is None:
            both = _collect(model, run.cfg, n_train + n_heldout, progress, run.cell)
            tensors = {"train": both[:n_train].clone(), "heldout": both[n_train:].clone()}
        else:
            heldout_cfg = dataclasses.replace(run.cfg, dataset_path=config.heldout_dataset_path)
            tensors = {
                "train": _collect(model, run.cfg, n_train, progress, run.cell),
                "heldout": _collect(
                    model, heldout_cfg, n_heldout, progress, f"{run.cell}, held out"
                ),
            }
    except ValueError as error:
        raise ConfigError(f"cells.{run.cell}: {error}") from None
    write_atomically(tensors, path)
    write_json_atomically(identity, marker)
    return path


def _load_model(cfg: LanguageModelSAERunnerConfig[Any]) -> Any:
    assert cfg.device is not None
    try:
        model = load_model(
            cfg.model_class_name,
            cfg.model_name,
            device=cfg.device,
            model_from_pretrained_kwargs=cfg.model_from_pretrained_kwargs,
            hook_names=[cfg.hook_name],
        )
    except ValueError as error:
        if "hook_names not found" not in str(error):
            raise
        raise ConfigError(f"hook_name: the model has no module {cfg.hook_name!r}") from None
    if cfg.hook_name not in model.hook_dict:
        raise ConfigError(f"hook_name: the model has no hook {cfg.hook_name!r}")
    return model


def _collect(
    model: Any,
    cfg: LanguageModelSAERunnerConfig[Any],
    n_tokens: int,
    progress: Progress,
    label: str,
) -> Tensor:
    store = ActivationsStore.from_config(model, cfg)
    return collect_activations(store, n_tokens, progress, f"Activations of {label}")


def run_one(
    config: SweepConfig, run: Run, out: Path, activations: dict[str, Tensor]
) -> tuple[RunResult, SAE[Any]]:
    """Train and measure one SAE; the SAE, its measurements and the result are on disk at the end."""
    trainer_cfg = run.cfg.to_sae_trainer_config()
    start = time.perf_counter()
    sae, n_steps = train_on_cache(
        run.cfg.sae, trainer_cfg, activations["train"], run.seed, out / "checkpoints" / run.name
    )
    seconds = time.perf_counter() - start
    whole = n_steps * trainer_cfg.train_batch_size_samples >= trainer_cfg.total_training_samples
    metadata = sae.cfg.metadata
    metadata.model_name, metadata.hook_name = run.cfg.model_name, run.cfg.hook_name
    metadata.model_class_name = run.cfg.model_class_name
    metadata.context_size, metadata.prepend_bos = run.cfg.context_size, run.cfg.prepend_bos
    metadata.dataset_path = run.cfg.dataset_path
    quality, census = measure_quality(
        sae, activations["heldout"].split(CHUNK), config.heldout_dataset_path or "held-out tokens"
    )
    folder = out / "saes" / run.name
    sae.save_inference_model(folder)
    write_measurement(folder, quality, census)
    result = RunResult(
        cell=run.cell,
        seed=run.seed,
        sae=run.sae,
        field=run.field,
        value=run.value,
        quality=quality,
        l0_pos=census.firing_rate_pos.sum().item(),
        l0_neg=census.firing_rate_neg.sum().item(),
        seconds_per_step=seconds / n_steps if whole and n_steps else None,
        identity=identity_of_run(config, run),
    )
    write_json_atomically(dataclasses.asdict(result), result_path(out, run))
    failure_path(out, run).unlink(missing_ok=True)
    return result, sae


def run_group(
    config: SweepConfig,
    runs: Sequence[Run],
    out: Path,
    report: Callable[[Run, str], None] = lambda run, state: None,
) -> None:
    """The runs of one cell and seed that are not finished yet; a failure is noted and the next one goes on.

    Args:
        report: called with each run and "running", "done" or "failed".

    Raises:
        InterruptedTraining: Ctrl-C, after the checkpoint is on disk.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    activations: dict[str, Tensor] | None = None
    for run in runs:
        if finished(config, run, out) is not None:
            report(run, "done")
            continue
        report(run, "running")
        activations = activations or load_activations(cache_path(out, run.cell))
        try:
            # SAELens's trainer draws a bar for each SAE; the sweep has one for all
            with contextlib.redirect_stderr(io.StringIO()):
                run_one(config, run, out, activations)
        except Exception as error:  # whatever it is, the other runs of the sweep must not suffer
            path = failure_path(out, run)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{type(error).__name__}: {' '.join(str(error).split())}\n")
            report(run, "failed")
            continue
        report(run, "done")
