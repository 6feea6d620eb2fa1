"""Rows of the reproduction's small JSON, and the settings that each was made with.

A row carries a digest of its run's settings: the SAE, the trainer, the seed and the activations, as
the config of the sweep has them. A row of other settings is not taken for a run of the config. It
carries a digest of the model and the text as well, where its result file has one: a row is not kept
beside results of another model or text.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig
from sae_lens_signaware.experiments.sweep.identity import other_cache_dtype, values_before
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.summary import SweepSummary

COLUMNS = ["cell", "sae", "seed", "swept", "value", "l0", "r2", "dead_share", "bipolar_share"]
N_KEY = 5  # columns that name a run

# of the activations; what else they depend on is the same for all sweeps of the reproduction
_OF_ACTIVATIONS = ("model_name", "hook_name", "dataset_path", "context_size")
_OF_CACHE = ("n_cached_tokens", "n_heldout_tokens", "heldout_dataset_path")
# SAELens's own copy of other fields, names made of them, and what the machine has
_LEFT_OUT = ("metadata", "logger", "device")

Row = list[Any]
Settings = dict[str, Any]
"""Settings of a run by name, such as "trainer.lr"."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a sweep's runs.

    Attributes:
        by_run: name of the run -> its row.
        checked: names of the runs whose row carries settings, and those of the config.
        contents: name of the run -> digest of the model and the text it was made with, where known.
    """

    by_run: dict[str, Row]
    checked: frozenset[str]
    contents: dict[str, str]


def row_of(result: RunResult) -> Row:
    """The row of a result, rounded."""
    q = result.quality
    figures = (
        round(q.l0, 3),
        round(q.explained_variance, 5),
        round(q.dead_share, 5),
        round(q.bipolar_share, 4),
    )
    return [result.cell, result.sae, result.seed, result.field, result.value, *figures]


def result_of(row: Sequence[Any], run: Run, n_tokens: int) -> RunResult:
    """The result that a row tells of; what a row leaves out is NaN or empty."""
    *_, l0, r2, dead_share, bipolar_share = row
    sae = run.cfg.sae
    quality = SAEQuality(
        l0, r2, dead_share, bipolar_share, n_tokens, sae.architecture(), sae.d_sae, ""
    )
    nan = math.nan
    return RunResult(
        run.cell, run.seed, run.sae, run.field, run.value, quality, nan, nan, None, identity={}
    )


def settings_of(identity: object) -> Settings | None:
    """The settings in the identity of a result file; None where it has none."""
    match identity:
        case {"sae": {**sae}, "trainer": {**trainer}, "seed": seed, "cache": {**cache}}:
            names = (*_OF_ACTIVATIONS, *_OF_CACHE, "cache_dtype")
            return _flat(sae, trainer, {"seed": seed}, {n: cache.get(n) for n in names})
    return None


def content_of(identity: object) -> str | None:
    """Digest of model and text in the identity of a result file; None where it lacks one."""
    match identity:
        case {"cache": {"content": {"model": str(), "text": str()} as content}}:
            return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return None


def asked_settings(config: SweepConfig, run: Run) -> Settings:
    """The settings that the config asks for."""
    activations = {name: getattr(run.cfg, name) for name in _OF_ACTIVATIONS}
    cache = {name: getattr(config, name) for name in _OF_CACHE}
    cache["cache_dtype"] = other_cache_dtype(run)
    trainer = dataclasses.asdict(run.cfg.to_sae_trainer_config())
    return _flat(run.cfg.sae.to_dict(), trainer, {"seed": run.seed}, activations | cache)


def _flat(sae: Any, trainer: Any, run: Any, cache: Any) -> Settings:
    parts = {"sae": sae, "trainer": trainer, "run": run, "cache": cache}
    flat = {
        f"{part}.{name}": value
        for part, values in parts.items()
        for name, value in values.items()
        if name not in _LEFT_OUT
    }
    return json.loads(json.dumps(flat))


def digest_of(settings: Settings, fields: Collection[str]) -> str:
    """Digest of the settings named ``fields``; one that is not there counts as null."""
    chosen = {name: settings.get(name) for name in sorted(fields)}
    return hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:16]


def is_asked_for(digest: str, fields: Collection[str], config: SweepConfig, run: Run) -> bool:
    """Whether a digest over ``fields`` is that of the config.

    A field that came with a later version of the package stood at its default before there was one,
    or at what switches it off.
    """
    asked, before = asked_settings(config, run), _before(run)
    later = {name: value for name, value in asked.items() if name not in fields}
    return digest_of(asked, fields) == digest and all(
        name in before and value == before[name] for name, value in later.items()
    )


def _before(run: Run) -> Settings:
    return {"cache.cache_dtype": None} | {
        f"{part}.{name}": value
        for part, cfg in (("sae", run.cfg.sae), ("trainer", run.cfg.to_sae_trainer_config()))
        for name, value in values_before(cfg).items()
    }


def identities_of(
    config: SweepConfig, runs: Sequence[Run], rows: Rows
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What the JSON holds of the rows' settings.

    Returns:
        Name of the run -> digest, and architecture -> the fields that the digest is over.
    """
    digests: dict[str, str] = {}
    fields: dict[str, list[str]] = {}
    for run in runs:
        if run.name in rows.checked:
            settings = asked_settings(config, run)
            digests[run.name] = digest_of(settings, settings)
            fields[run.cfg.sae.architecture()] = sorted(settings)
    return digests, fields


def read_rows(
    config: SweepConfig,
    runs: Sequence[Run],
    folder: Path,
    kept: Mapping[str, Any],
    fields: Mapping[str, Sequence[str]],
) -> tuple[Rows, str]:
    """The rows of ``runs``: from a sweep's output, else as the small JSON has them.

    A row of other settings than the config's is left out, and so is a kept one of another model or
    text than the output's. A row that lacks these is taken.

    Args:
        folder: of the output; need not exist.
        kept: block of the sweep in the small JSON.
        fields: architecture -> the fields that the digests in ``kept`` are over.

    Returns:
        The rows, and a line that says where they are from and what was left out.
    """
    names = {(r.cell, r.sae, r.seed, r.field, r.value): r.name for r in runs}
    in_summary = _by_name(map(row_of, _results_in(folder)), names)
    new = {run.name: _from_output(folder, run, in_summary.get(run.name)) for run in runs}
    old_rows = _by_name(kept.get("runs", []), names)
    old = {run.name: _from_json(kept, run, old_rows.get(run.name), fields) for run in runs}
    contents = {made.content for made in new.values() if made is not None} - {None}
    taken: dict[str, _Made] = {}
    dropped: list[str] = []
    for run in runs:
        for made in filter(None, (new[run.name], old[run.name])):
            if run.name in taken:
                continue
            if made.is_of(config, run) and (not contents or made.content in {None, *contents}):
                taken[run.name] = made
            else:
                dropped.append(run.name)
    n_new = sum(new[name] is made for name, made in taken.items())
    checked = frozenset(name for name, made in taken.items() if made.settings is not None)
    line = (
        f"{n_new} of {len(runs)} runs from {folder}, {len(taken) - n_new} as they were; "
        f"{len(taken) - len(checked)} rows carry no settings to check and are kept"
    )
    if dropped:
        line += (
            f"; dropped {len(dropped)} rows of other settings, model or text, "
            f"the first is {dropped[0]}"
        )
    return Rows(
        by_run={name: made.row for name, made in taken.items()},
        checked=checked,
        contents={name: made.content for name, made in taken.items() if made.content is not None},
    ), line


@dataclasses.dataclass(frozen=True)
class _Made:
    """A row, and what it was made with as far as that is known.

    Attributes:
        settings: digest, and the fields that it is over.
        content: digest of model and text.
    """

    row: Row
    settings: tuple[str, Collection[str]] | None = None
    content: str | None = None

    def is_of(self, config: SweepConfig, run: Run) -> bool:
        """Whether its settings are those of the config, where they are known."""
        return self.settings is None or is_asked_for(*self.settings, config, run)


def _from_output(folder: Path, run: Run, in_summary: Row | None) -> _Made | None:
    """Of the run's own file: sweep.json may be of before the run was trained again."""
    path = folder / "runs" / f"{run.name}.json"
    if not path.exists():
        return None if in_summary is None else _Made(in_summary)
    result = RunResult.read(path)
    settings = settings_of(result.identity)
    digest = None if settings is None else (digest_of(settings, settings), settings)
    return _Made(row_of(result), digest, content_of(result.identity))


def _from_json(
    kept: Mapping[str, Any], run: Run, row: Row | None, fields: Mapping[str, Sequence[str]]
) -> _Made | None:
    if row is None:
        return None
    digest = kept.get("identities", {}).get(run.name)
    # of another architecture than any there: no setting has this digest
    settings = None if digest is None else (digest, fields.get(run.cfg.sae.architecture(), ()))
    return _Made(row, settings, kept.get("contents", {}).get(run.name))


def _results_in(folder: Path) -> Sequence[RunResult]:
    path = folder / "sweep.json"
    return SweepSummary.read(path).results if path.exists() else []


def _by_name(rows: Any, names: Mapping[tuple[Any, ...], str]) -> dict[str, Row]:
    return {names[key]: row for row in rows if (key := tuple(row[:N_KEY])) in names}
