"""Where every file of a sweep is, and which runs are finished.

The result of a run holds its identity: config, versions, and the digest of the activations that it
was trained and measured on. A run is finished where the identity on disk is the one asked for.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import sae_lens
import torch
from pydantic import TypeAdapter

import sae_lens_signaware
from sae_lens_signaware.files import write_json
from sae_lens_signaware.sweep.cache import Cache, cache_of
from sae_lens_signaware.sweep.config import Run, SweepConfig
from sae_lens_signaware.sweep.results import RunResult


class SweepStore:
    """The files of a sweep of ``config`` in the folder ``out``, which need not exist yet."""

    def __init__(self, config: SweepConfig, out: str | Path) -> None:
        self.config, self.out = config, Path(out)
        self._caches: dict[str, Cache] = {}
        modules = (sae_lens_signaware, sae_lens, torch)
        self.versions = {module.__name__: str(module.__version__) for module in modules}

    def path(self, kind: Literal["runs", "saes", "checkpoints", "failed"], run: Run) -> Path:
        """A run's result, folder of its SAE, folder of its checkpoint, or why it failed."""
        suffix = {"runs": ".json", "failed": ".txt"}.get(kind, "")
        return self.out / kind / f"{run.name}{suffix}"

    def latents_path(self, run: Run) -> Path:
        """The latents of a run's SAE that a report shows."""
        return self.out / "latents" / f"{run.cell}-{run.sae}.json"

    def cache(self, run: Run) -> Cache:
        """The activations of a run's cell; the files of model and text are looked at once."""
        if run.cell not in self._caches:
            self._caches[run.cell] = cache_of(self.config, run, self.out)
        return self._caches[run.cell]

    def identity(self, run: Run) -> dict[str, Any]:
        """All that the result of a run depends on, as JSON has it."""
        trainer = dataclasses.asdict(run.cfg.to_sae_trainer_config())
        values = {
            "sae": run.cfg.sae.to_dict(),
            "trainer": {name: value for name, value in trainer.items() if name != "logger"},
            "seed": run.seed,
            "activations": self.cache(run).digest,
            "versions": self.versions,
        }
        return json.loads(json.dumps(values, default=str))

    def held(self, run: Run) -> RunResult | None:
        """The result on disk, be it of this very run or of one of another config."""
        try:
            return TypeAdapter(RunResult).validate_json(self.path("runs", run).read_bytes())
        except (OSError, ValueError):
            return None

    def finished(self, run: Run) -> RunResult | None:
        """The result on disk where it is that of this very run."""
        held = self.held(run)
        return held if held is not None and held.identity == self.identity(run) else None

    def unfinished(self, runs: Iterable[Run]) -> list[Run]:
        """Those of ``runs`` that have no result yet."""
        return [run for run in runs if self.finished(run) is None]

    def keep(self, run: Run, result: RunResult, sae: Path) -> None:
        """Put a new SAE and its result in the place of earlier ones."""
        target = self.path("saes", run)
        shutil.rmtree(target, ignore_errors=True)
        sae.rename(target)
        write_json(dataclasses.asdict(result), self.path("runs", run))
        shutil.rmtree(self.path("checkpoints", run), ignore_errors=True)
        self.path("failed", run).unlink(missing_ok=True)

    def failure(self, run: Run) -> str | None:
        """Why a run failed; None where it did not."""
        path = self.path("failed", run)
        return path.read_text(encoding="utf-8").strip() if path.exists() else None
