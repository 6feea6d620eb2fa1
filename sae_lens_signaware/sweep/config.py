"""Sweep files: YAML of which every SAE is checked before the first token is read."""

import copy
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from sae_lens import LanguageModelSAERunnerConfig, TrainingSAEConfig
from sae_lens.constants import DTYPE_MAP
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY

from sae_lens_signaware.checks import InvalidInputError, nearest, require
from sae_lens_signaware.training.config import build_runner_config
from sae_lens_signaware.training.yaml_files import read_yaml

SET_BY_SWEEP = (
    "hook_name", "sae", "seed", "resume_from_checkpoint", "checkpoint_path", "output_path",
    "logger", "n_checkpoints", "use_cached_activations", "cached_activations_path",
)  # fmt: skip
"""Fields of SAELens's runner config that a sweep sets, or that have no effect in one."""

PER_SAE = (
    "lr", "lr_end", "lr_scheduler_name", "lr_warm_up_steps", "lr_decay_steps", "n_restart_cycles",
    "adam_beta1", "adam_beta2", "dead_feature_window", "training_tokens",
)  # fmt: skip
"""Fields of ``runner`` that an SAE may have its own of: the activations do not depend on them."""

Name = Annotated[str, StringConstraints(pattern=r"^\w[\w.+=-]*$", max_length=100)]
CacheDtype = Literal["float32", "float16", "bfloat16"]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class CellConfig(_Section):
    """A hook point; ``saes``: name -> fields that differ here, such as a grid of coefficients."""

    hook_name: str
    d_in: int = Field(gt=0)
    cache_dtype: CacheDtype | None = None
    saes: dict[str, dict[str, Any]] = {}


class LatentsConfig(_Section):
    """Latents that the report shows: the ``n_latents`` clearest of each of ``saes``, at
    ``value`` and the first seed; their contexts are of ``n_prompts`` held-out prompts.
    """

    saes: list[str] = Field(min_length=1)
    value: float
    n_latents: int = Field(default=24, gt=0)
    n_contexts: int = Field(default=5, gt=0)
    n_prompts: int = Field(default=256, gt=0)


class SweepConfig(_Section):
    """A sweep file.

    Attributes:
        runner: fields of SAELens's ``LanguageModelSAERunnerConfig`` that all runs share.
        cells: name -> hook point. Runs of a cell share one cache of its activations.
        seeds: of the initial weights and of the order of the batches.
        saes: name -> ``architecture`` and its fields; exactly one field holds a list, the sweep.
            ``seeds`` there takes fewer of them, and ``runner`` holds some of :data:`PER_SAE`.
        compare: pairs of names of ``saes``: is the first one's frontier better than the second's?
        n_cached_tokens: activations that are trained on, in epochs if ``training_tokens`` is more.
        n_heldout_tokens: activations that are measured on.
        heldout_dataset_path: their text; null takes what follows in the training text.
        cache_dtype: of the activations on disk; null: ``runner.dtype``.
        cache_folder: of the activations, for sweeps that share them; null: ``cache`` in the output.
        threads: of torch in each process; runs agree bit for bit where it is the same.
        num_cpus, num_gpus: of a group of runs (one cell, one seed) under Ray.
    """

    runner: dict[str, Any]
    cells: dict[Name, CellConfig] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    saes: dict[Name, dict[str, Any]] = Field(min_length=1)
    compare: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    n_cached_tokens: int = Field(gt=0)
    n_heldout_tokens: int = Field(ge=2)  # R² of one is not defined
    heldout_dataset_path: str | None = None
    cache_dtype: CacheDtype | None = None
    cache_folder: str | None = None
    latents: LatentsConfig | None = None
    threads: int | None = Field(default=None, gt=0)
    num_cpus: float = Field(default=1, gt=0)
    num_gpus: float = Field(default=0, ge=0)


@dataclass(frozen=True)
class Run:
    """One SAE of a sweep: its place and its value in the config, and SAELens's config."""

    cell: str
    seed: int
    sae: str
    field: str
    value: float
    cfg: LanguageModelSAERunnerConfig[TrainingSAEConfig]
    cache_dtype: torch.dtype

    @property
    def name(self) -> str:
        """Name that is unique in the sweep, and a relative path."""
        return f"{self.cell}/seed-{self.seed}/{self.sae}/{self.field}-{self.value:g}"


def load_sweep_config(path: str | Path) -> tuple[SweepConfig, list[Run]]:
    """Read a sweep file: the config and its runs, those of a cell and of a seed together.

    Raises:
        InvalidInputError: anything wrong, in one line that names the field.
    """
    return sweep_config_of(read_yaml(Path(path)), str(path))


def sweep_config_of(
    values: Mapping[str, object], source: str = "sweep"
) -> tuple[SweepConfig, list[Run]]:
    """Check a sweep that is given as a mapping; ``source`` names it in errors."""
    try:
        config = SweepConfig.model_validate(dict(values))
    except ValidationError as error:
        raise InvalidInputError(_first_error(error)) from None
    named = [(f"cells.{cell}.saes", sae) for cell, c in config.cells.items() for sae in c.saes]
    named += [("compare", name) for pair in config.compare for name in pair]
    named += [("latents.saes", name) for name in (config.latents.saes if config.latents else ())]
    for field, name in named:
        if name not in config.saes:
            raise InvalidInputError(f"{field}: no SAE {name!r}" + nearest(name, config.saes))
    for field in SET_BY_SWEEP:
        if field in config.runner:
            raise InvalidInputError(f"runner.{field}: is set by the sweep, leave it out")
    groups = [(cell, seed) for cell in config.cells for seed in config.seeds]
    runs = [
        r for group in groups for sae in config.saes for r in _runs(config, *group, sae, source)
    ]
    require(len(runs) > 0, "saes", list(config.saes), "at least one with a seed")
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, "seeds, saes", twice, "without the same run twice")
    batch, n = runs[0].cfg.train_batch_size_tokens, config.n_cached_tokens
    require(n >= batch, "n_cached_tokens", n, f"at least train_batch_size_tokens, {batch}")
    return config, runs


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        models = (SweepConfig, CellConfig, LatentsConfig)
        known = {name for model in models for name in model.model_fields}
        return f"{field}: unknown field" + nearest(str(first["loc"][-1]), known)
    return f"{field}: {first['msg']}, got {first['input']!r}"


def _runs(config: SweepConfig, cell_name: str, seed: int, name: str, source: str) -> Iterator[Run]:
    cell, where = config.cells[cell_name], f"saes.{name}"
    fields = {**config.saes[name], **cell.saes.get(name, {})}
    seeds, own = fields.pop("seeds", config.seeds), fields.pop("runner", {})
    is_some = isinstance(seeds, list) and all(s in config.seeds for s in seeds)
    require(is_some, f"{where}.seeds", seeds, f"a list out of {config.seeds}")
    is_right = isinstance(own, dict) and all(field in PER_SAE for field in own)
    require(is_right, f"{where}.runner", own, f"a mapping with fields of {', '.join(PER_SAE)}")
    grids = {field: fields[field] for field in fields if _is_grid(field, fields)}
    require(len(grids) == 1, where, grids, "exactly one field with a list of numbers to sweep")
    ((field, grid),) = grids.items()
    is_right = bool(grid) and all(type(value) in (int, float) for value in grid)
    require(is_right, f"{where}.{field}", grid, "a list of numbers")
    for value in grid if seed in seeds else ():
        values = copy.deepcopy({**config.runner, **own}) | {
            "hook_name": cell.hook_name,
            "seed": seed,
            "sae": {**fields, field: value, "d_in": cell.d_in},
            # SAELens's checkpoints and logging are not used: the activations are frozen
            **{"checkpoint_path": None, "output_path": None, "logger": {"log_to_wandb": False}},
        }
        try:
            cfg = build_runner_config(values, f"{source}, {where}")
        except InvalidInputError as error:
            line = str(error)
            line = f"{where}.{line[4:]}" if line.startswith("sae.") else f"runner, {where}: {line}"
            raise InvalidInputError(line) from None
        dtype = DTYPE_MAP[cell.cache_dtype or config.cache_dtype or cfg.dtype]
        yield Run(cell_name, seed, name, field, value, cfg, dtype)


def _is_grid(field: str, fields: Mapping[str, Any]) -> bool:
    """Whether a list holds values to sweep: not where one value is a list (matryoshka_widths)."""
    if not isinstance(fields[field], list):
        return False
    entry = SAE_TRAINING_CLASS_REGISTRY.get(str(fields.get("architecture")))
    hint = typing.get_type_hints(entry[1]).get(field) if entry else None
    return typing.get_origin(hint) is not list
