"""Runs of a sweep: one cache for each cell, one result file for each run, resumed at any file.

A group is the runs of one cell and one seed. It is the unit that an executor hands out; it reads
the cell's cache and trains its SAEs one after another, each on the same batches in the same order.
"""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import groupby

from sae_lens_signaware.experiments.pipeline import torch_threads, train_save_and_measure
from sae_lens_signaware.experiments.sweep.config import Run
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.store import (
    CachedActivations,
    CacheOverwrittenError,
    SweepStore,
)
from sae_lens_signaware.files import write_json
from sae_lens_signaware.training.interruption import SignalCount, counting_signals

METADATA = (
    "dataset_path",
    "hook_name",
    "model_name",
    "model_class_name",
    "hook_head_index",
    "context_size",
    "seqpos_slice",
    "model_from_pretrained_kwargs",
    "prepend_bos",
    "exclude_special_tokens",
    "sequence_separator_token",
    "disable_concat_sequences",
)
"""Fields of a run's config that SAELens's runner keeps in the metadata of an SAE."""


def groups_of(runs: Sequence[Run]) -> list[list[Run]]:
    """Split runs into groups, one for each cell and seed."""
    return [list(group) for _, group in groupby(runs, key=lambda run: (run.cell, run.seed))]


def run_one(store: SweepStore, run: Run, activations: CachedActivations) -> RunResult:
    """Train and measure one SAE, and write the SAE, what was measured and the result.

    Raises:
        InterruptedTraining: Ctrl-C or SIGTERM in training, after the checkpoint is on disk.
        KeyboardInterrupt: after training; the result is on disk then. At once from a second one on.
            Also where what follows it fails, as on a full disk; that is noted as a failure.
    """
    signals = SignalCount()
    try:
        with counting_signals(signals):
            result = _result_of(store, run, activations)
    except Exception as error:
        if not signals.count:
            raise
        store.note_failure(run, error)
        raise KeyboardInterrupt from error
    signals.pass_on()
    return result


def _result_of(store: SweepStore, run: Run, activations: CachedActivations) -> RunResult:
    store.remove_result(run)  # of another config; the SAE beside it goes next
    cfg = run.cfg
    trained = train_save_and_measure(
        cfg.sae,
        cfg.to_sae_trainer_config(),
        activations.train,
        activations.heldout,
        seed=run.seed,
        folder=store.sae_path(run),
        checkpoint=store.checkpoint_path(run),
        tokens_from=store.config.heldout_dataset_path or "held-out tokens",
        metadata={name: getattr(cfg, name) for name in METADATA},
    )
    result = RunResult(
        cell=run.cell,
        seed=run.seed,
        sae=run.sae,
        field=run.field,
        value=run.value,
        quality=trained.quality,
        l0_pos=trained.census.firing_rate_pos.sum().item(),
        l0_neg=trained.census.firing_rate_neg.sum().item(),
        seconds_per_step=trained.seconds_per_step,
        identity=store.identity_of_training(run, activations),
    )
    write_json(dataclasses.asdict(result), store.result_path(run))
    store.clear_after(run)
    return result


def run_group(
    store: SweepStore, runs: Sequence[Run], report: Callable[[], None] = lambda: None
) -> None:
    """Run those runs of one cell and seed that are not finished yet.

    A failure is noted, whatever it is, and the next run goes on.

    Args:
        report: called where a run starts (it is in progress then), ends or fails.

    Raises:
        InterruptedTraining: Ctrl-C or SIGTERM in training, after the checkpoint is on disk.
        KeyboardInterrupt: after training; the result is on disk.
        CacheOverwrittenError: by another sweep; no run of the cell can be trained.
    """
    with torch_threads(store.config.threads):
        _run_all(store, runs, report)


def _run_all(store: SweepStore, runs: Sequence[Run], report: Callable[[], None]) -> None:
    activations: CachedActivations | None = None
    for run in runs:
        if store.finished(run) is not None:
            continue
        try:
            activations = activations or store.load_cache(run)
            with store.in_progress(run):
                report()
                run_one(store, run, activations)
        except CacheOverwrittenError:
            raise
        except KeyboardInterrupt:
            report()  # of a failure that came with it
            raise
        except Exception as error:  # of any kind: the other runs of the sweep must not suffer
            store.note_failure(run, error)
        report()
