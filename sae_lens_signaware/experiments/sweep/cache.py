"""Activations of a sweep's cells: one pass through the model for all, one file for each cell."""

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from filelock import FileLock
from rich.markup import escape
from rich.progress import Progress
from sae_lens import ActivationsStore, LanguageModelSAERunnerConfig, TrainingSAEConfig
from torch import Tensor

from sae_lens_signaware.checks import ConfigError, one_line
from sae_lens_signaware.evaluation.models import HookedRootModule, excluded_tokens
from sae_lens_signaware.experiments.sweep.config import Run
from sae_lens_signaware.experiments.sweep.store import SweepStore
from sae_lens_signaware.training.hooks import (
    load_model_with_hooks,
    naming_what_is_missing,
    naming_what_is_wrong_in_text,
    require_width,
)


def make_caches(store: SweepStore, runs: Sequence[Run], progress: Progress) -> None:
    """Write the caches of the cells of ``runs`` that are not on disk yet.

    Each holds "train" and "heldout", (tokens, d_in), in text order, special tokens left out as the
    config says. Sweeps that share a cache_folder wait for one another: the second reads what the
    first has written.

    Raises:
        ConfigError: the model lacks a hook, a hook has another width, or the text is too short.
    """
    if all(store.has_cache(run) for run in runs):
        return
    lock = store.cache_lock_path()
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # released as well where the process is killed
        cells = {run.cell: run for run in runs if not store.has_cache(run)}
        if cells:
            _write_caches(store, cells, progress)


def _write_caches(store: SweepStore, cells: dict[str, Run], progress: Progress) -> None:
    config, cfg = store.config, next(iter(cells.values())).cfg
    model = load_hooked_model(cfg, list(d_ins_of(cells.values())))
    for cell, run in cells.items():
        require_width(model, run.cfg, f"cells.{cell}.d_in")
    store.content = None  # the load may have brought a model of the Hub up to date
    n_train, n_heldout = config.n_cached_tokens, config.n_heldout_tokens
    if config.heldout_dataset_path is None:
        both = collect(model, cells, cfg.dataset_path, n_train + n_heldout, progress)
        train = {cell: rows[:n_train] for cell, rows in both.items()}
        heldout = {cell: rows[n_train:] for cell, rows in both.items()}
    else:
        with _of_heldout_text():  # the shorter one first: what is wrong in it costs less then
            heldout = collect(model, cells, config.heldout_dataset_path, n_heldout, progress)
        train = collect(model, cells, cfg.dataset_path, n_train, progress)
    for cell, run in cells.items():
        tensors = {"train": train[cell].contiguous(), "heldout": heldout[cell].contiguous()}
        store.write_cache(run, tensors)


@contextlib.contextmanager
def _of_heldout_text() -> Iterator[None]:
    """Name the field of the held-out text where an error names that of the training text."""
    try:
        yield
    except (ConfigError, OSError) as error:
        fields, colon, rest = str(error).partition(":")
        named = re.sub(r"\bdataset_path\b", "heldout_dataset_path", fields)
        if named == fields:
            raise
        kind = ConfigError if isinstance(error, ConfigError) else OSError
        raise kind(named + colon + rest) from error


def d_ins_of(runs: Iterable[Run]) -> dict[str, int]:
    """Return hook name -> width; two cells may be of one hook point."""
    return {run.cfg.hook_name: run.cfg.sae.d_in for run in runs}


def load_hooked_model(
    cfg: LanguageModelSAERunnerConfig[TrainingSAEConfig], hook_names: list[str]
) -> HookedRootModule:
    """Load the model of a runner config, as SAELens hooks it.

    Raises:
        ConfigError: it lacks one of ``hook_names``.
    """
    assert cfg.device is not None
    return load_model_with_hooks(
        cfg.model_name,
        cfg.model_class_name,
        cfg.model_from_pretrained_kwargs,
        hook_names,
        cfg.device,
    )


def make_store(
    model: HookedRootModule,
    cfg: LanguageModelSAERunnerConfig[TrainingSAEConfig],
    dataset: str,
    d_ins: dict[str, int],
) -> ActivationsStore:
    """Make SAELens's store over several hook points, as its ``MultiSAETrainingRunner`` does.

    Args:
        d_ins: hook name -> width.
    """
    assert cfg.act_store_device is not None  # SAELens's config sets it
    device = torch.device(cfg.act_store_device)
    ids = excluded_tokens(model, cfg.exclude_special_tokens)
    return ActivationsStore.from_config_multi_hook(
        model=model,
        dataset=dataset,
        hook_names=list(d_ins),
        hook_d_ins=d_ins,
        hook_head_indices=dict.fromkeys(d_ins, cfg.hook_head_index),
        streaming=cfg.streaming,
        context_size=cfg.context_size,
        total_training_tokens=cfg.training_tokens,
        store_batch_size_prompts=cfg.store_batch_size_prompts,
        prepend_bos=cfg.prepend_bos,
        device=device,
        dtype=cfg.dtype,
        model_kwargs=cfg.model_kwargs,
        autocast_lm=cfg.autocast_lm,
        dataset_trust_remote_code=cfg.dataset_trust_remote_code,
        seqpos_slice=cfg.seqpos_slice,
        exclude_special_tokens=torch.tensor(ids, dtype=torch.long, device=device) if ids else None,
        disable_concat_sequences=cfg.disable_concat_sequences,
        sequence_separator_token=cfg.sequence_separator_token,
        use_chat_formatting=cfg.use_chat_formatting,
    )


def collect(
    model: HookedRootModule,
    cells: Mapping[str, Run],
    dataset: str,
    n_tokens: int,
    progress: Progress,
) -> dict[str, Tensor]:
    """Collect the first ``n_tokens`` activations of every cell in text order.

    Args:
        cells: name -> one of its runs.

    Returns:
        Name of the cell -> (n_tokens, d_in), in the dtype of its cache.

    Raises:
        ConfigError: the text is too short, the activations do not fit in memory, or they overflow
            the dtype of their cache.
    """
    cfg = next(iter(cells.values())).cfg
    with naming_what_is_missing(
        cfg.model_name, cfg.model_class_name, cfg.model_from_pretrained_kwargs
    ):
        store = make_store(model, cfg, dataset, d_ins_of(cells.values()))
    out = {cell: _room_for(n_tokens, cell, run, store.device) for cell, run in cells.items()}
    label = escape(f"Activations of {Path(dataset).name}")
    task = progress.add_task(label, total=n_tokens)
    n = 0
    while n < n_tokens:
        try:
            with naming_what_is_wrong_in_text():
                tokens = store.get_batch_tokens(raise_at_epoch_end=True)
        except StopIteration:
            raise ConfigError(
                f"n_cached_tokens, n_heldout_tokens: {dataset} has only {n} tokens in whole "
                f"batches of {store.store_batch_size_prompts} contexts, {n_tokens} are asked for"
            ) from None
        batch = store.get_multi_hook_activations(tokens)
        kept = tokens[:, slice(*store.seqpos_slice)].reshape(-1)
        keep = torch.ones_like(kept, dtype=torch.bool)
        if store.exclude_special_tokens is not None:
            keep = ~torch.isin(kept, store.exclude_special_tokens.to(kept.device))
        n_new = min(int(keep.sum()), n_tokens - n)
        for cell, run in cells.items():
            rows = batch[run.cfg.hook_name]
            rows = rows.reshape(-1, rows.shape[-1]).to(store.device)[keep.to(store.device)][:n_new]
            _require_no_overflow(rows, cell, run)
            out[cell][n : n + n_new] = rows
        n += n_new
        progress.update(task, completed=n)
    return out


def _room_for(n_tokens: int, cell: str, run: Run, device: torch.device) -> Tensor:
    d_in = run.cfg.sae.d_in
    try:
        return torch.empty(n_tokens, d_in, device=device, dtype=run.cache_dtype)
    except (RuntimeError, TypeError) as error:  # the latter of a number above 64 bits
        n_bytes = n_tokens * d_in * run.cache_dtype.itemsize
        raise ConfigError(
            f"n_cached_tokens, n_heldout_tokens: the activations of {n_tokens:,} tokens do not fit "
            f"in memory, {n_bytes / 1e9:,.0f} GB for {cell}: {one_line(error)}"
        ) from None


def _require_no_overflow(rows: Tensor, cell: str, run: Run) -> None:
    limit = torch.finfo(run.cache_dtype).max
    if limit >= torch.finfo(rows.dtype).max or not rows.numel():
        return
    largest = rows.abs().max().item()
    if limit < largest < math.inf:  # the model's own infinities are not the cache's
        raise ConfigError(
            f"cells.{cell}.cache_dtype: activations of {run.cfg.hook_name} reach {largest:,.0f}, "
            f"and {str(run.cache_dtype).removeprefix('torch.')} holds at most {limit:,.0f}; "
            "use bfloat16 or float32"
        )
