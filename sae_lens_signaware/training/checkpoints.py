"""Checkpoints of SAELens's runner: which are whole, and which can be read."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from sae_lens import LanguageModelSAERunnerConfig
from sae_lens.constants import (
    ACTIVATION_SCALER_CFG_FILENAME,
    ACTIVATIONS_STORE_STATE_FILENAME,
    RUNNER_CFG_FILENAME,
    SAE_CFG_FILENAME,
    SAE_WEIGHTS_FILENAME,
    TRAINER_STATE_FILENAME,
)
from safetensors import safe_open
from safetensors.torch import load_file

from sae_lens_signaware.checks import ConfigError, require
from sae_lens_signaware.files import as_json
from sae_lens_signaware.training.continued import SHARED

# In the order in which SAELens writes them, so that the last one marks a whole checkpoint.
CHECKPOINT_FILES = (
    SAE_WEIGHTS_FILENAME,
    SAE_CFG_FILENAME,
    TRAINER_STATE_FILENAME,
    ACTIVATIONS_STORE_STATE_FILENAME,
    RUNNER_CFG_FILENAME,
)

NOT_OF_A_RUN = ("metadata", "device", "use_sparse_activations", "format_version")
"""Fields of an SAE's config in which checkpoints of one run may differ."""
MOVABLE = ("model_name", "dataset_path")
OF_A_TRAINING = (
    "hook_name", "hook_head_index", "context_size", "train_batch_size_tokens",
    # SAELens goes on with those that the optimiser and the scheduler were saved with
    "lr", "lr_end", "lr_scheduler_name", "lr_warm_up_steps", "lr_decay_steps", "n_restart_cycles",
    "adam_beta1", "adam_beta2",
)  # fmt: skip

OF_ACTIVATIONS = (
    "model_name", "model_class_name", "model_from_pretrained_kwargs", "hook_name",
    "hook_head_index", "dataset_path", "context_size", "prepend_bos", "exclude_special_tokens",
    "seqpos_slice", "dtype", "autocast_lm", "model_kwargs", "disable_concat_sequences",
    "sequence_separator_token", "use_chat_formatting",
)  # fmt: skip
"""Fields of SAELens's runner config that the activations depend on."""
OF_SETTINGS = (
    *(name for name in OF_ACTIVATIONS if name not in (*MOVABLE, *OF_A_TRAINING)),
    "seed", "autocast", "dead_feature_window", "activations_mixing_fraction",
)  # fmt: skip
"""Fields of it that tell runs in one folder apart, beside those of a training."""


def find_checkpoint(path: str | Path, cfg: LanguageModelSAERunnerConfig[Any] | None = None) -> Path:
    """Return ``path`` where it is a whole checkpoint, else the newest whole one below it.

    A run that was killed while it wrote a checkpoint leaves one without its last file, or with
    the beginning of that file; it is passed over. So is one of another run, and one from the end
    of a training, where the scale of the activations is folded in already.

    Runs that share a folder differ in a setting or in the seed, so below ``path`` all of them
    count. A checkpoint that ``path`` names itself is taken with another coefficient, say.

    Args:
        cfg: of the run that goes on; None takes a checkpoint of any run.

    Raises:
        ConfigError: there is no whole checkpoint of the run, or a file of the newest cannot be
            read.
        InvalidInputError: ``training_tokens`` is less than the checkpoint has seen.
    """
    newest_is_of = None
    for folder in _whole_ones(Path(path)):
        is_named = folder == Path(path)
        difference = None if cfg is None else _difference(folder, cfg, is_named)
        if difference is None:
            _require_readable(folder)
            _require_side_biases(folder)
            if cfg is not None:
                n_done = _state_of(folder / TRAINER_STATE_FILENAME)["n_training_samples"]
                allowed = f"at least {n_done}, the tokens that the checkpoint has seen"
                require(
                    cfg.training_tokens >= n_done, "training_tokens", cfg.training_tokens, allowed
                )
            return folder
        newest_is_of = newest_is_of or f"{folder} is of another training: {difference}"
    raise ConfigError(
        f"resume_from_checkpoint: {newest_is_of}"
        if newest_is_of
        else f"resume_from_checkpoint: no whole checkpoint at or below {str(path)!r}; "
        f"one has {', '.join(CHECKPOINT_FILES)}, the last one to its end"
    )


def _whole_ones(root: Path) -> Iterator[Path]:
    """The whole checkpoints at or below a folder, the newest first; older ones are not read yet."""
    last_files = [
        path
        for path in root.rglob(RUNNER_CFG_FILENAME)
        if all((path.parent / name).exists() for name in CHECKPOINT_FILES)
    ]
    for path in sorted(last_files, key=lambda path: -path.stat().st_mtime):
        if _is_whole_json(path):
            yield path.parent


def _is_whole_json(path: Path) -> bool:
    """Whether a mapping was written to its end; no beginning of one is JSON."""
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def _difference(
    checkpoint: Path, cfg: LanguageModelSAERunnerConfig[Any], is_named: bool
) -> str | None:
    """In what a checkpoint is of another training than ``cfg``; None where it is of that one."""
    of_file = _json_of(checkpoint / SAE_CFG_FILENAME), _json_of(checkpoint / RUNNER_CFG_FILENAME)
    of_config = as_json(cfg.sae.to_dict()), vars(cfg)
    difference = _first_difference(_training_of(*of_file), _training_of(*of_config))
    if difference or is_named:
        return difference
    difference = _first_difference(_settings_of(*of_file), _settings_of(*of_config))
    return difference and f"{difference}; name this folder itself to go on from it all the same"


def _first_difference(theirs: Mapping[str, object], ours: Mapping[str, object]) -> str | None:
    for name, value in ours.items():
        if name in theirs and theirs[name] != value:
            return f"{name} is {theirs[name]!r} there, and {value!r} in the config"
    return None


def _settings_of(sae: Mapping[str, Any], runner: Mapping[str, Any]) -> dict[str, object]:
    """What two runs that share a folder may differ in beside :func:`_training_of`."""
    settings: dict[str, object] = {
        f"sae.{name}": value for name, value in sae.items() if name not in NOT_OF_A_RUN
    }
    if sae.get("matryoshka_widths"):  # SAELens adds the last one when it makes the SAE
        settings["sae.matryoshka_widths"] = sorted({*sae["matryoshka_widths"], sae["d_sae"]})
    return settings | as_json({name: runner[name] for name in OF_SETTINGS if name in runner})


def _training_of(sae: Mapping[str, Any], runner: Mapping[str, Any]) -> dict[str, object]:
    """What is the same in all checkpoints of a training, as far as it is known."""
    names = OF_A_TRAINING
    if runner.get("lr_decay_steps") or runner.get("lr_scheduler_name") != "constant":
        names += ("training_tokens",)  # more of them would be trained at the last learning rate, 0
    return {
        **{f"sae.{name}": sae[name] for name in (*SHARED, "dtype") if name in sae},
        # the folders may have moved
        **{name: Path(str(runner[name])).name for name in MOVABLE if name in runner},
        **{name: runner[name] for name in names if name in runner},
    }


def _json_of(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise _cannot_be_read(path, error) from None
    if not isinstance(values, dict):
        raise _cannot_be_read(path, TypeError("not a mapping"))
    return values


def _cannot_be_read(path: Path, error: Exception) -> ConfigError:
    reason = next(iter(str(error).splitlines()), "")[:200]
    kind = type(error).__name__
    return ConfigError(f"resume_from_checkpoint: {path} cannot be read: {kind}: {reason}")


def _require_readable(checkpoint: Path) -> None:
    """Raise ConfigError where SAELens would stop within a resume; no pickle is executed."""
    readers: dict[str, Callable[[Path], object]] = {
        TRAINER_STATE_FILENAME: lambda path: _state_of(path)["n_training_steps"],
        ACTIVATION_SCALER_CFG_FILENAME: lambda path: json.loads(path.read_text())["scaling_factor"],
        SAE_WEIGHTS_FILENAME: load_file,
        ACTIVATIONS_STORE_STATE_FILENAME: load_file,
    }
    for name, read in readers.items():
        try:
            read(checkpoint / name)
        except Exception as error:  # whatever a broken file makes torch, json or safetensors raise
            raise _cannot_be_read(checkpoint / name, error) from None


def _require_side_biases(checkpoint: Path) -> None:
    """Raise ConfigError for a ``bi_jumprelu`` of 0.1.0: the optimiser's state lacks ``b_mag``."""
    architecture = _json_of(checkpoint / SAE_CFG_FILENAME).get("architecture")
    weights = checkpoint / SAE_WEIGHTS_FILENAME
    if architecture != "bi_jumprelu":
        return
    with safe_open(weights, "pt") as names:  # no tensor is read
        if "b_mag" not in names.keys():  # noqa: SIM118 - what is opened is no mapping
            raise ConfigError(
                f"resume_from_checkpoint: {weights} has no b_mag, so it is of version 0.1.0, and a "
                "bi_jumprelu of that cannot be resumed; from_pretrained_path trains its weights on"
            )


def _state_of(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
