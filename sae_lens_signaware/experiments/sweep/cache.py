"""The activations of a sweep's cells: one pass through the model for all of them, one file a cell."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from rich.progress import Progress
from sae_lens import ActivationsStore, LanguageModelSAERunnerConfig
from sae_lens.load_model import load_model
from sae_lens.util import get_special_token_ids
from torch import Tensor

from sae_lens_signaware.checks import ConfigError, nearest
from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig
from sae_lens_signaware.files import write_json, write_tensors
from sae_lens_signaware.training.cache import load_activations

# What the activations depend on, of SAELens's runner config.
_FIELDS = (
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
    "dtype",
    "autocast_lm",
    "model_kwargs",
    "disable_concat_sequences",
    "sequence_separator_token",
    "use_chat_formatting",
)


def cache_path(config: SweepConfig, out: Path, cell: str) -> Path:
    folder = out / "cache" if config.cache_folder is None else Path(config.cache_folder)
    return folder / f"{cell}.safetensors"


def identity_of_cache(
    config: SweepConfig, cfg: LanguageModelSAERunnerConfig[Any]
) -> dict[str, Any]:
    """What the activations of a cell depend on."""
    values = {name: getattr(cfg, name) for name in _FIELDS} | {
        "n_cached_tokens": config.n_cached_tokens,
        "n_heldout_tokens": config.n_heldout_tokens,
        "heldout_dataset_path": config.heldout_dataset_path,
    }
    return json.loads(json.dumps(values))


def make_caches(config: SweepConfig, runs: Sequence[Run], out: Path, progress: Progress) -> None:
    """Write the caches of the cells of ``runs`` that are not on disk yet: "train" and "heldout",
    (tokens, d_in) each, in text order, special tokens left out as the config says.

    Sweeps that share a cache_folder wait for one another: the second finds what the first has written.

    Raises:
        ConfigError: the model lacks a hook, or the text is too short.
    """
    if all(_is_there(config, run, out) for run in runs):
        return
    lock = cache_path(config, out, "").with_name(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # released as well where the process is killed
        cells = {run.cell: run for run in runs if not _is_there(config, run, out)}
        if cells:
            _write_caches(config, cells, out, progress)


def _write_caches(
    config: SweepConfig, cells: dict[str, Run], out: Path, progress: Progress
) -> None:
    cfg = next(iter(cells.values())).cfg
    d_ins = {run.cfg.hook_name: run.cfg.sae.d_in for run in cells.values()}
    model = load_hooked_model(cfg, list(d_ins))
    n_train, n_heldout = config.n_cached_tokens, config.n_heldout_tokens
    if config.heldout_dataset_path is None:
        both = collect(model, cfg, cfg.dataset_path, d_ins, n_train + n_heldout, progress)
        train = {hook: rows[:n_train] for hook, rows in both.items()}
        heldout = {hook: rows[n_train:] for hook, rows in both.items()}
    else:
        train = collect(model, cfg, cfg.dataset_path, d_ins, n_train, progress)
        heldout = collect(model, cfg, config.heldout_dataset_path, d_ins, n_heldout, progress)
    for cell, run in cells.items():
        hook = run.cfg.hook_name
        tensors = {"train": train.pop(hook).contiguous(), "heldout": heldout.pop(hook).contiguous()}
        path = cache_path(config, out, cell)
        _marker(path).unlink(missing_ok=True)
        write_tensors(tensors, path)
        write_json(identity_of_cache(config, run.cfg), _marker(path))


def _marker(path: Path) -> Path:
    # written after the cache, so that it stands for a whole one
    return path.with_suffix(".json")


def _is_there(config: SweepConfig, run: Run, out: Path) -> bool:
    path = cache_path(config, out, run.cell)
    if not path.exists() or not _marker(path).exists():
        return False
    return json.loads(_marker(path).read_text()) == identity_of_cache(config, run.cfg)


def load_cache(config: SweepConfig, run: Run, out: Path) -> dict[str, Tensor]:
    """The activations of a run's cell.

    Raises:
        ConfigError: another sweep has written those of another hook, model or text over them.
    """
    path = cache_path(config, out, run.cell)
    if not _is_there(config, run, out):
        raise ConfigError(
            f"cache_folder: {path} does not hold the activations of this sweep any more; "
            "give each its own cache_folder"
        )
    return load_activations(path)


def load_hooked_model(cfg: LanguageModelSAERunnerConfig[Any], hook_names: list[str]) -> Any:
    """The model of a runner config, as SAELens hooks it.

    Raises:
        ConfigError: it lacks one of ``hook_names``.
    """
    assert cfg.device is not None
    try:
        model = load_model(
            cfg.model_class_name,
            cfg.model_name,
            device=cfg.device,
            model_from_pretrained_kwargs=cfg.model_from_pretrained_kwargs,
            hook_names=hook_names,
        )
    except ValueError as error:
        if "hook_names not found" not in str(error):
            raise
        missing = str(error).rpartition(":")[2].strip()
        raise ConfigError(f"hook_name: the model has no module {missing}") from None
    for hook in hook_names:
        if hook not in model.hook_dict:
            raise ConfigError(
                f"hook_name: the model has no hook {hook!r}" + nearest(hook, model.hook_dict)
            )
    return model


def make_store(
    model: Any, cfg: LanguageModelSAERunnerConfig[Any], dataset: str, d_ins: dict[str, int]
) -> ActivationsStore:
    """SAELens's store over several hook points, as its ``MultiSAETrainingRunner`` builds it.

    Args:
        d_ins: hook name -> width.
    """
    assert cfg.act_store_device is not None  # SAELens's config sets it
    device = torch.device(cfg.act_store_device)
    exclude = cfg.exclude_special_tokens
    ids = get_special_token_ids(model.tokenizer) if exclude is True else exclude or []
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
    model: Any,
    cfg: LanguageModelSAERunnerConfig[Any],
    dataset: str,
    d_ins: dict[str, int],
    n_tokens: int,
    progress: Progress,
) -> dict[str, Tensor]:
    """The first ``n_tokens`` activations of every hook point, (n_tokens, d_in) each, in text order.

    Raises:
        ConfigError: the text is too short, or a hook point has another width.
    """
    store = make_store(model, cfg, dataset, d_ins)
    out = {
        hook: torch.empty(n_tokens, d_in, device=store.device, dtype=store.dtype)
        for hook, d_in in d_ins.items()
    }
    task = progress.add_task(f"Activations of {Path(dataset).name}", total=n_tokens)
    n = 0
    while n < n_tokens:
        try:
            tokens = store.get_batch_tokens(raise_at_epoch_end=True)
        except StopIteration:
            raise ConfigError(
                f"n_cached_tokens, n_heldout_tokens: {dataset} has only {n} tokens, "
                f"{n_tokens} are asked for"
            ) from None
        batch = store.get_multi_hook_activations(tokens)
        kept = tokens[:, slice(*store.seqpos_slice)].reshape(-1)
        keep = torch.ones_like(kept, dtype=torch.bool)
        if store.exclude_special_tokens is not None:
            keep = ~torch.isin(kept, store.exclude_special_tokens.to(kept.device))
        n_new = min(int(keep.sum()), n_tokens - n)
        for hook, rows in batch.items():
            if rows.shape[-1] != d_ins[hook]:
                raise ConfigError(
                    f"cells: d_in must be {rows.shape[-1]} for {hook}, got {d_ins[hook]}"
                )
            rows = rows.reshape(-1, rows.shape[-1]).to(store.device)
            out[hook][n : n + n_new] = rows[keep.to(store.device)][:n_new]
        n += n_new
        progress.update(task, completed=n)
    return out
