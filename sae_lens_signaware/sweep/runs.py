"""Runs of a sweep: train one SAE after another on a cell's cached activations, and measure it.

A group is the runs of one cell and one seed: the unit that an executor hands out. All its SAEs see
the same batches in the same order.
"""

import contextlib
import io
import shutil
from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from sae_lens.constants import DTYPE_MAP
from torch import Tensor

from sae_lens_signaware.checks import one_line
from sae_lens_signaware.evaluation.saved import save_and_measure
from sae_lens_signaware.files import write_text
from sae_lens_signaware.sweep.config import Run
from sae_lens_signaware.sweep.results import RunResult
from sae_lens_signaware.sweep.store import SweepStore
from sae_lens_signaware.training.cached import train_timed

CHUNK = 2048  # tokens that are measured at once

METADATA = (
    "dataset_path", "hook_name", "model_name", "model_class_name", "hook_head_index",
    "context_size", "seqpos_slice", "model_from_pretrained_kwargs", "prepend_bos",
    "exclude_special_tokens", "sequence_separator_token", "disable_concat_sequences",
)  # fmt: skip
"""Fields of a run's config that SAELens's runner keeps in the metadata of an SAE."""


def groups_of(runs: Sequence[Run]) -> list[list[Run]]:
    """Split runs into groups, one for each cell and seed."""
    return [list(group) for _, group in groupby(runs, key=lambda run: (run.cell, run.seed))]


def run_group(
    store: SweepStore, runs: Sequence[Run], report: Callable[[str], None] = lambda name: None
) -> None:
    """Run those runs of one cell and seed that are not finished yet.

    A failure is noted, whatever it is, and the next run goes on; ``report`` gets the name of a run
    as it starts, and "" as it ends.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM, in training after the checkpoint is on disk.
    """
    waiting = store.unfinished(runs)
    if not waiting:
        return
    if store.config.threads is not None:
        torch.set_num_threads(store.config.threads)
    train, heldout = store.cache(runs[0]).load(DTYPE_MAP[runs[0].cfg.dtype])
    for run in waiting:
        report(run.name)
        try:
            run_one(store, run, train, heldout)
        except Exception as error:  # of any kind: the other runs must not suffer
            write_text(f"{type(error).__name__}: {one_line(error)}\n", store.path("failed", run))
        report("")


def run_one(store: SweepStore, run: Run, train: Tensor, heldout: Tensor) -> RunResult:
    """Train on ``train`` and measure on ``heldout``, (tokens, d_in) each.

    What an earlier config left of the run stays until that is done.
    """
    path, checkpoint = store.path("saes", run), store.path("checkpoints", run)
    trainer_cfg = run.cfg.to_sae_trainer_config()
    staging = path.with_name(f".{path.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    with without_bars():
        sae, seconds, n_steps = train_timed(run.cfg.sae, trainer_cfg, train, run.seed, checkpoint)
        for name in METADATA:
            setattr(sae.cfg.metadata, name, getattr(run.cfg, name))
        tokens_from = store.config.heldout_dataset_path or "held-out tokens"
        measured = save_and_measure(sae, staging, heldout.split(CHUNK), tokens_from)
    result = RunResult(
        *(run.cell, run.seed, run.sae, run.field, run.value),
        quality=vars(measured.quality),
        l0_pos=measured.census.firing_rate_pos.sum().item(),
        l0_neg=measured.census.firing_rate_neg.sum().item(),
        bipolar_share=measured.quality.bipolar_share,
        seconds_per_step=seconds / n_steps if n_steps else None,
        identity=store.identity(run),
    )
    store.keep(run, result, staging)
    return result


def without_bars() -> contextlib.redirect_stderr[io.StringIO]:
    """Drop standard error, where SAELens and transformers draw bars: a sweep draws its own."""
    return contextlib.redirect_stderr(io.StringIO())
