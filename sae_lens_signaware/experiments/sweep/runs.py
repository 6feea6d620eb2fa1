"""Running a sweep: one cache of activations a cell, one result file a run, resumable at every file.

A group is the runs of one cell and one seed. It is the unit that an executor hands out; it reads the
cell's cache and trains its SAEs one after another, each on the same batches in the same order.
"""

import contextlib
import dataclasses
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.evaluation.quality import measure_quality
from sae_lens_signaware.evaluation.saved import write_measurement
from sae_lens_signaware.experiments.sweep.cache import identity_of_cache, load_cache
from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.files import write_json
from sae_lens_signaware.training.cached import train_on_cache

CHUNK = 2048  # tokens measured at once


def groups_of(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs of each cell and seed."""
    return [list(group) for _, group in groupby(runs, key=lambda run: (run.cell, run.seed))]


def result_path(out: Path, run: Run) -> Path:
    return out / "runs" / f"{run.name}.json"


def sae_path(out: Path, run: Run) -> Path:
    return out / "saes" / run.name


def failure_path(out: Path, run: Run) -> Path:
    return out / "failed" / f"{run.name}.txt"


def running_path(out: Path, run: Run) -> Path:
    """Is there while a run is trained, whoever trains it; a kill leaves it behind."""
    return out / "running" / run.name


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
    return result if _is_of(result.identity, config, run) else None


def _is_of(identity: Any, config: SweepConfig, run: Run) -> bool:
    # a field that came with a later version of the package stood at its default before there was one, so that an
    # upgrade does not train everything again
    have, wanted = _comparable(identity), _comparable(identity_of_run(config, run))
    if have is None or wanted is None:
        return False
    for part, cfg in (("sae", run.cfg.sae), ("trainer", run.cfg.to_sae_trainer_config())):
        later = {k: v for k, v in _defaults(cfg).items() if k in wanted[part]}
        have[part] = {**later, **have[part]}
    return have == wanted


def _comparable(identity: Any) -> dict[str, Any] | None:
    # SAELens's metadata hold the fields of the SAE once more; None: no identity, but whatever a file may hold
    match identity:
        case {"sae": {"metadata": {**metadata}, **sae}, "trainer": {**trainer}, **rest}:
            metadata.pop("training_architecture_details", None)
            return {**rest, "sae": {**sae, "metadata": metadata}, "trainer": trainer}
    return None


def _defaults(cfg: Any) -> dict[str, Any]:
    fields = dataclasses.fields(cfg)
    return {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}


def run_one(config: SweepConfig, run: Run, out: Path, activations: dict[str, Tensor]) -> RunResult:
    """Train and measure one SAE; the SAE, its measurements and the result are on disk at the end."""
    trainer_cfg = run.cfg.to_sae_trainer_config()
    checkpoint = out / "checkpoints" / run.name
    result_path(out, run).unlink(missing_ok=True)  # of another config; the SAE beside it goes next
    start = time.perf_counter()
    sae, n_steps = train_on_cache(
        run.cfg.sae, trainer_cfg, activations["train"], run.seed, checkpoint
    )
    seconds = time.perf_counter() - start
    whole = n_steps * trainer_cfg.train_batch_size_samples >= trainer_cfg.total_training_samples
    metadata = sae.cfg.metadata
    metadata.model_name, metadata.hook_name = run.cfg.model_name, run.cfg.hook_name
    metadata.model_class_name = run.cfg.model_class_name
    metadata.context_size, metadata.prepend_bos = run.cfg.context_size, run.cfg.prepend_bos
    metadata.dataset_path = run.cfg.dataset_path
    folder = sae_path(out, run)
    sae.save_inference_model(folder)
    # as a user loads it: SAELens's batchtopk becomes a jumprelu there
    saved = SAE.load_from_disk(folder, device=str(sae.device))
    quality, census = measure_quality(
        saved, activations["heldout"].split(CHUNK), config.heldout_dataset_path or "held-out tokens"
    )
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
    write_json(dataclasses.asdict(result), result_path(out, run))
    shutil.rmtree(checkpoint, ignore_errors=True)
    failure_path(out, run).unlink(missing_ok=True)
    return result


def run_group(
    config: SweepConfig,
    runs: Sequence[Run],
    out: Path,
    report: Callable[[], None] = lambda: None,
) -> None:
    """The runs of one cell and seed that are not finished yet; a failure is noted and the next one goes on.

    Args:
        report: called where a run starts (its :func:`running_path` is there), ends or fails.

    Raises:
        InterruptedTraining: Ctrl-C, after the checkpoint is on disk.
        ConfigError: the cell's cache was written over.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    activations: dict[str, Tensor] | None = None
    for run in runs:
        if finished(config, run, out) is not None:
            continue
        activations = activations or load_cache(config, run, out)
        try:
            with _marked(running_path(out, run)):
                report()
                # SAELens's trainer draws a bar for each SAE; the sweep has one for all
                with contextlib.redirect_stderr(io.StringIO()):
                    run_one(config, run, out, activations)
        except Exception as error:  # whatever it is, the other runs of the sweep must not suffer
            path = failure_path(out, run)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{type(error).__name__}: {' '.join(str(error).split())}\n")
        report()


@contextlib.contextmanager
def _marked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
