"""Activations of a sweep's cells: one pass through the model for all, one file for each cell."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from rich.progress import Progress
from sae_lens import ActivationsStore
from sae_lens.load_model import load_model
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError, one_line, require
from sae_lens_signaware.evaluation.models import excluded_tokens
from sae_lens_signaware.files import sha256_of, write_json, write_tensors
from sae_lens_signaware.sweep.config import Run, SweepConfig

OF_STORE = (
    "streaming", "context_size", "store_batch_size_prompts", "prepend_bos", "dtype", "model_kwargs",
    "autocast_lm", "dataset_trust_remote_code", "seqpos_slice", "disable_concat_sequences",
    "sequence_separator_token", "use_chat_formatting",
)  # fmt: skip
"""Fields of SAELens's runner config that its store takes by the same name."""

OF_ACTIVATIONS = (
    *OF_STORE, "model_name", "model_class_name", "model_from_pretrained_kwargs", "hook_name",
    "hook_head_index", "dataset_path", "exclude_special_tokens",
)  # fmt: skip
"""Fields of it that the activations depend on."""


@dataclass(frozen=True)
class Cache:
    """The file of a cell's activations: "train" and "heldout", (tokens, d_in) each, in text order.

    Other settings, model or text give another path. Where model or text are on this machine, the
    names, sizes and times of their files count; where they are on the Hub, their names alone.
    """

    path: Path

    @property
    def digest(self) -> str | None:
        """SHA-256 of the file; None where it was never made. It outlives the file itself."""
        try:
            return json.loads(self.path.with_suffix(".json").read_text())["sha256"]
        except (OSError, ValueError):
            return None

    @property
    def is_there(self) -> bool:
        """Whether the activations are on disk."""
        return self.digest is not None and self.path.exists()

    def load(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Those to train on, mapped from the file, and those to measure on in ``dtype``."""
        tensors = load_file(self.path)
        return tensors["train"], tensors["heldout"].to(dtype)

    def write(self, train: Tensor, heldout: Tensor) -> None:
        """Write the activations, and then their digest, which says that they are whole."""
        write_tensors({"train": train, "heldout": heldout}, self.path)
        write_json({"sha256": sha256_of(self.path)}, self.path.with_suffix(".json"))


def cache_of(config: SweepConfig, run: Run, out: Path) -> Cache:
    """The cache of a run's cell."""
    paths = (run.cfg.model_name, run.cfg.dataset_path, config.heldout_dataset_path)
    settings = [getattr(run.cfg, name) for name in OF_ACTIVATIONS]
    settings += [config.n_cached_tokens, config.n_heldout_tokens, str(run.cache_dtype), paths]
    settings += [_files_of(Path(path)) for path in paths if path]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
    folder = out / "cache" if config.cache_folder is None else Path(config.cache_folder)
    return Cache(folder / f"{run.cell}-{digest[:12]}.safetensors")


def _files_of(path: Path) -> list[tuple[str, int, int]]:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    stats = [(file.relative_to(path).as_posix(), file.stat()) for file in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def make_caches(config: SweepConfig, runs: Sequence[Run], out: Path, progress: Progress) -> None:
    """Write the caches of the cells of ``runs``, a run each, that are not on disk yet.

    Raises:
        InvalidInputError: a hook is not there or not ``d_in`` wide, the text is too short, or the
            activations are not finite in the dtype of their cache. Nothing is written then.
    """
    missing = {}
    for run in runs:
        if (cache := cache_of(config, run, out)).is_there:
            with safe_open(cache.path, "pt") as file:
                _require_width(run, file.get_slice("heldout").get_shape()[1])
        else:
            missing[run.cell] = run
    if not missing:
        return
    cfg = next(iter(missing.values())).cfg
    model = model_of(list(missing.values()))
    n_train, n_heldout = config.n_cached_tokens, config.n_heldout_tokens
    path = config.heldout_dataset_path
    # the shorter text first: what is wrong in it costs less then
    heldout = _collect(model, missing, path, n_heldout, progress) if path else None
    n = n_train if path else n_train + n_heldout
    train = _collect(model, missing, cfg.dataset_path, n, progress)
    for cell, run in missing.items():
        rows = train[cell][n_train:] if heldout is None else heldout[cell]
        cache_of(config, run, out).write(train[cell][:n_train], rows)


def _require_width(run: Run, width: int) -> None:
    allowed = f"{width}, the width of {run.cfg.hook_name!r}"
    require(run.cfg.sae.d_in == width, f"cells.{run.cell}.d_in", run.cfg.sae.d_in, allowed)


def model_of(runs: Sequence[Run]) -> Any:
    """The model of ``runs``, as SAELens hooks it at their hook points."""
    cfg, hooks = runs[0].cfg, list(dict.fromkeys(run.cfg.hook_name for run in runs))
    kwargs = cfg.model_from_pretrained_kwargs
    return hooked_model(cfg.model_class_name, cfg.model_name, str(cfg.device), kwargs, hooks)


def hooked_model(
    kind: str, name: str, device: str, kwargs: dict[str, Any] | None, hooks: list[str]
) -> Any:
    """A model of ``load_model`` that has all of ``hooks``; InvalidInputError where it has not."""
    try:
        model: Any = load_model(kind, name, device, kwargs, hooks)
    except (OSError, ValueError, TypeError) as error:
        field = "hook_name" if "hook_names not found" in str(error) else "model_name"
        raise InvalidInputError(f"{field}: {name}: {one_line(error)}") from error
    for hook in hooks:  # TransformerLens takes any name
        require(hook in model.hook_dict, "hook_name", hook, "a hook of the model")
    return model


def store_of(model: Any, runs: Sequence[Run], dataset: str) -> ActivationsStore:
    """SAELens's store over the hook points of ``runs``, as its multi-SAE runner makes it."""
    cfg = runs[0].cfg
    d_ins = {run.cfg.hook_name: run.cfg.sae.d_in for run in runs}
    ids = excluded_tokens(model, cfg.exclude_special_tokens)
    try:
        return ActivationsStore.from_config_multi_hook(
            model=model,
            dataset=dataset,
            hook_names=list(d_ins),
            hook_d_ins=d_ins,
            hook_head_indices=dict.fromkeys(d_ins, cfg.hook_head_index),
            total_training_tokens=cfg.training_tokens,
            device=cfg.act_store_device or "cpu",
            exclude_special_tokens=torch.tensor(ids, device=cfg.act_store_device) if ids else None,
            **{name: getattr(cfg, name) for name in OF_STORE},
        )
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"dataset_path: {dataset}: {one_line(error)}") from error


def _collect(
    model: Any, cells: Mapping[str, Run], dataset: str, n_tokens: int, progress: Progress
) -> dict[str, Tensor]:
    """The first ``n_tokens`` activations (tokens, d_in) of each cell in text order."""
    store = store_of(model, list(cells.values()), dataset)
    out = {c: torch.empty(n_tokens, r.cfg.sae.d_in, dtype=r.cache_dtype) for c, r in cells.items()}
    task = progress.add_task(escape(f"Activations of {Path(dataset).name}"), total=n_tokens)
    n = 0
    while n < n_tokens:
        try:
            tokens = store.get_batch_tokens(raise_at_epoch_end=True)
        except StopIteration:
            line = f"n_cached_tokens, n_heldout_tokens: {dataset} has only {n} tokens in whole"
            raise InvalidInputError(f"{line} batches, {n_tokens} are asked for") from None
        batch = store.get_multi_hook_activations(tokens)
        kept = tokens[:, slice(*store.seqpos_slice)].flatten().to(store.device)
        excluded = store.exclude_special_tokens
        keep = torch.ones_like(kept).bool() if excluded is None else ~torch.isin(kept, excluded)
        n_new = min(int(keep.sum()), n_tokens - n)
        for cell, run in cells.items():
            rows = batch[run.cfg.hook_name].to(store.device).reshape(len(keep), -1)
            _require_width(run, rows.shape[1])
            out[cell][n : n + n_new] = rows[keep][:n_new]
            if not out[cell][n : n + n_new].isfinite().all():
                line = f"cells.{cell}.cache_dtype: activations of {run.cfg.hook_name!r} are not"
                raise InvalidInputError(f"{line} finite in {run.cache_dtype}; use a wider one")
        n += n_new
        progress.update(task, completed=n)
    return out
