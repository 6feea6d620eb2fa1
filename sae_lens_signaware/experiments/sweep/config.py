"""Sweep files: strict YAML, of which every SAE is checked before the first token is read."""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from sae_lens import LanguageModelSAERunnerConfig, TrainingSAEConfig
from sae_lens.constants import DTYPE_MAP

from sae_lens_signaware.checks import (
    ConfigError,
    InvalidInputError,
    nearest,
    require,
    require_64_bits,
)
from sae_lens_signaware.evaluation.quality import target_l0_of
from sae_lens_signaware.experiments.sweep.consistency import (
    check_compare,
    check_latents,
    require_other_text,
    require_plain_names,
)
from sae_lens_signaware.experiments.swept import swept_fields
from sae_lens_signaware.training.config import build_runner_config
from sae_lens_signaware.training.strict import StrictModel, read_config, validated
from sae_lens_signaware.training.values import check_ramps

CacheDtype = Literal["float32", "float16", "bfloat16"]


class CellConfig(StrictModel):
    """A cell of a sweep: one hook point.

    Attributes:
        hook_name, d_in: of the activations.
        cache_dtype: of this cell's cache; null: that of the sweep.
        saes: name -> fields that differ from ``saes`` on this cell, such as a grid of coefficients:
            the scale of the activations decides what L0 one gives.
    """

    hook_name: str
    d_in: int = Field(gt=0)
    cache_dtype: CacheDtype | None = None
    saes: dict[str, dict[str, Any]] = Field(default={})


_SET_BY_SWEEP = (
    "hook_name", "sae", "seed", "resume_from_checkpoint", "checkpoint_path", "output_path",
    "logger",
)  # fmt: skip
PER_SAE = (
    "lr", "lr_end", "lr_scheduler_name", "lr_warm_up_steps", "lr_decay_steps", "n_restart_cycles",
    "adam_beta1", "adam_beta2", "dead_feature_window", "training_tokens",
)  # fmt: skip
"""Fields of ``runner`` that an SAE may have its own of: the activations do not depend on them."""
_WITHOUT_EFFECT = (
    "from_pretrained_path", "use_cached_activations", "cached_activations_path", "compile_sae",
    "compile_llm", "sae_compilation_mode", "llm_compilation_mode", "llm_device",
    "prefetch_llm_batches", "activations_mixing_fraction", "n_checkpoints", "save_final_checkpoint",
    "n_eval_batches", "eval_batch_size_prompts", "hook_eval", "dead_feature_threshold",
    "sae_lens_version", "sae_lens_training_version",
)  # fmt: skip


class LatentsConfig(StrictModel):
    """Latents that the report shows one by one, of the first seed.

    Attributes:
        saes: names of ``saes``; of each the run whose swept value is ``value``.
        plain: a name of ``saes``; of its runs the one nearest in L0 is dialled and audited as well.
        n_latents: latents of each SAE, those of most energy.
        n_contexts: contexts of each side of a latent.
        n_prompts: prompts that are searched for contexts.
    """

    saes: tuple[str, ...] = Field(min_length=1)
    value: float
    plain: str | None = None
    n_latents: int = Field(default=24, gt=0)
    n_contexts: int = Field(default=5, gt=0)
    n_prompts: int = Field(default=256, gt=0)


class SweepConfig(StrictModel):
    """A sweep file.

    Attributes:
        runner: fields of SAELens's ``LanguageModelSAERunnerConfig`` that all runs share (model,
            dataset, batch size, lr, ``training_tokens``: how long each SAE trains).
        cells: name -> hook point. Runs of a cell share one cache of its activations.
        seeds: of the initial weights and of the order of the batches.
        saes: name -> ``architecture`` and its fields; exactly one field holds a list, and is swept.
            ``seeds`` there takes fewer of them for this SAE, and ``runner`` holds fields of
            ``runner`` that differ for this SAE: :data:`PER_SAE`.
        compare: pairs of names of ``saes``: is the first one's frontier above the second one's?
        n_cached_tokens: activations that are trained on, in epochs, if ``training_tokens`` is more.
        n_heldout_tokens: activations that are measured on.
        cache_dtype: that the activations are kept in on disk; null: ``runner.dtype``. Training and
            measures read them in ``runner.dtype``.
        cache_folder: of the activations, for sweeps that share them; null: ``cache`` in the output.
        heldout_dataset_path: their text; null takes what follows in the training text.
        latents: what is written for the report's browser of latents; null: nothing.
        threads: of torch in each process; null leaves torch's own. Set it where runs of different
            machines or executors shall agree bit for bit.
        num_cpus, num_gpus: of a group under Ray.
    """

    runner: dict[str, object]
    cells: dict[str, CellConfig] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    saes: dict[str, dict[str, Any]] = Field(min_length=1)
    compare: tuple[tuple[str, str], ...] = ()
    n_cached_tokens: int = Field(gt=0)
    n_heldout_tokens: int = Field(ge=2)  # R² of one is not defined
    heldout_dataset_path: str | None = None
    cache_dtype: CacheDtype | None = None
    cache_folder: str | None = None
    latents: LatentsConfig | None = None
    threads: int | None = Field(default=None, gt=0, le=4096)
    num_cpus: float = Field(default=1, gt=0)
    num_gpus: float = Field(default=0, ge=0)


@dataclass(frozen=True)
class Run:
    """One SAE of a sweep.

    Attributes:
        cell, seed, sae: where it stands in the config.
        field, value: what is swept and its value here.
        cfg: all that SAELens needs, checked.
        cache_dtype: that the cell's activations are kept in on disk.
    """

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

    @property
    def target_l0(self) -> float | None:
        """The L0 that the run asks for; None where a coefficient sets its sparsity."""
        return target_l0_of(self.cfg.sae.to_dict())


def load_sweep_config(path: str | Path) -> tuple[SweepConfig, list[Run]]:
    """Read and check a sweep file.

    Returns:
        The config and its runs, those of a cell and of a seed together.

    Raises:
        ConfigError: anything wrong, in one line that names the field.
    """
    return checked_sweep(read_config(Path(path), "sweep"), str(path))


def checked_sweep(values: Mapping[str, object], source: str) -> tuple[SweepConfig, list[Run]]:
    """Check a sweep that is given as a mapping.

    Args:
        values: what a sweep file holds.
        source: where it is from, for messages.

    Raises:
        ConfigError: anything wrong, in one line that names the field.
    """
    config = validated(SweepConfig, values)
    named = [(f"cells.{cell}.saes", sae) for cell, c in config.cells.items() for sae in c.saes]
    named += [("compare", name) for pair in config.compare for name in pair]
    if config.latents is not None:
        named += [("latents.saes", name) for name in config.latents.saes]
        named += [("latents.plain", config.latents.plain)] if config.latents.plain else []
    for field, name in named:
        if name not in config.saes:
            raise ConfigError(f"{field}: no SAE {name!r}" + nearest(name, config.saes))
    require_plain_names("cells", config.cells)
    require_plain_names("saes", config.saes)
    for seed in config.seeds:
        require_64_bits("seeds", seed)
        require(config.seeds.count(seed) == 1, "seeds", list(config.seeds), "each seed once")
    require_other_text(config)
    runs = list(_runs(config, source))
    for name in config.saes:
        if not any(run.sae == name for run in runs):
            raise ConfigError(f"saes.{name}.seeds: must name a seed in at least one cell, got []")
    batch = runs[0].cfg.train_batch_size_tokens
    if config.n_cached_tokens < batch:
        raise ConfigError(
            f"n_cached_tokens must be at least runner.train_batch_size_tokens, {batch}, "
            f"got {config.n_cached_tokens}"
        )
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"saes: {name} comes twice; names have six digits of a value")
    check_latents(config, runs)
    check_compare(config, runs)
    return config, runs


def _runs(config: SweepConfig, source: str) -> Iterator[Run]:
    for cell in config.cells:
        for seed in config.seeds:
            for sae in config.saes:
                yield from _runs_of(config, cell, seed, sae, source)


def _runs_of(
    config: SweepConfig, cell_name: str, seed: int, sae_name: str, source: str
) -> Iterator[Run]:
    """The runs of an SAE on one cell with one seed."""
    cell, shared = config.cells[cell_name], config.saes[sae_name]
    own = cell.saes.get(sae_name, {})
    fields = {**shared, **own}

    def place_of(*fields: str) -> str:
        cells_own = any(field in own for field in fields)
        return f"cells.{cell_name}.saes.{sae_name}" if cells_own else f"saes.{sae_name}"

    if "d_in" in fields:
        raise ConfigError(f"{place_of('d_in')}.d_in: is that of the cell, leave it out")
    seeds = fields.pop("seeds", config.seeds)
    if seed not in _seeds_of(config, place_of("seeds"), seeds):
        return
    fields.pop("runner", None)
    runner, places = dict(config.runner), dict[str, str]()
    for where, part in (("saes", shared), (f"cells.{cell_name}.saes", own)):
        where = f"{where}.{sae_name}."
        of_runner = _own_runner_fields(where, part.get("runner", {}))
        runner |= of_runner
        places |= dict.fromkeys((f"sae.{field}" for field in part), where)
        places |= dict.fromkeys(of_runner, f"{where}runner.")
    swept = list(swept_fields(fields))
    if len(swept) != 1 or not fields[swept[0]]:
        lists = {name: fields[name] for name in swept}
        raise ConfigError(
            f"{place_of(*swept_fields(shared))}: exactly one field must hold a list of values to "
            f"sweep, at least one value, got {lists or 'none'}"
        )
    name = swept[0]
    where = f"{places[f'sae.{name}']}{name}"
    for value in fields[name]:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{where}: what is swept must be numbers, got {value!r}")
        sae = {**fields, name: value, "d_in": cell.d_in}
        cfg = _runner_config(runner, cell, seed, sae_name, sae, places, source)
        if name == "target_l0" and target_l0_of(cfg.sae.to_dict()) is None:
            raise ConfigError(
                f"{where}: {cfg.sae.architecture()} does not read it with these settings; "
                "sweep a coefficient"
            )
        dtype = cell.cache_dtype or config.cache_dtype or cfg.dtype
        yield Run(cell_name, seed, sae_name, name, value, cfg, DTYPE_MAP[dtype])


def _seeds_of(config: SweepConfig, where: str, seeds: object) -> tuple[int, ...]:
    if not isinstance(seeds, list | tuple) or not all(seed in config.seeds for seed in seeds):
        raise ConfigError(
            f"{where}.seeds: must be a list out of seeds, {list(config.seeds)}, got {seeds!r}"
        )
    return tuple(seeds)


def _own_runner_fields(where: str, own: object) -> dict[str, object]:
    where += "runner"
    if not isinstance(own, dict):
        raise ConfigError(f"{where}: must be a mapping of fields, got {own!r}")
    for field in own:
        if field not in PER_SAE:
            raise ConfigError(
                f"{where}.{field}: not a field of which an SAE may have its own"
                + nearest(str(field), PER_SAE)
            )
    return own


def _runner_config(
    runner: Mapping[str, object],
    cell: CellConfig,
    seed: int,
    name: str,
    sae: Mapping[str, object],
    places: Mapping[str, str],
    source: str,
) -> LanguageModelSAERunnerConfig[TrainingSAEConfig]:
    """The checked config of a run.

    Args:
        places: field that an SAE or a cell has of its own -> what precedes it in the sweep file.
    """
    values = copy.deepcopy(dict(runner))
    for field in _SET_BY_SWEEP:
        if field in values:
            raise ConfigError(f"runner.{field}: is set by the sweep, leave it out")
    for field in _WITHOUT_EFFECT:
        if field in values:
            raise ConfigError(f"runner.{field}: has no effect in a sweep, leave it out")
    values |= {"hook_name": cell.hook_name, "seed": seed, "sae": sae}
    # SAELens's checkpoints and its logging are not used: the activations are frozen
    values |= {"checkpoint_path": None, "output_path": None, "logger": {"log_to_wandb": False}}
    try:
        cfg = build_runner_config(values, f"{source}, saes.{name}")
        check_ramps(cfg)
        return cfg
    except InvalidInputError as error:
        raise ConfigError(in_sweep_file(str(error), name, places)) from None


def in_sweep_file(message: str, name: str, places: Mapping[str, str] | None = None) -> str:
    """An error of a runner config, with the field as the sweep file has it.

    Args:
        name: of the SAE.
        places: field that an SAE or a cell has of its own -> what precedes it in the sweep file.
    """
    places = places or {}
    shared = f"saes.{name}." if message.startswith("sae.") else "runner."
    # what it must be, or what another field was meant, is no place
    named = re.findall(r"[\w.]+", re.split(" must|:", message, maxsplit=1)[0])
    where = next((places[field] for field in named if field in places), shared)
    return where + message.removeprefix("sae.")
