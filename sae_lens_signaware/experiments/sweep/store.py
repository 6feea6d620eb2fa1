"""Store of a sweep: where every file is, what a result depends on, and what is finished."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from sae_lens.constants import DTYPE_MAP, SAE_WEIGHTS_FILENAME
from safetensors.torch import load_file
from torch import Tensor

from sae_lens_signaware.checks import ConfigError, one_line
from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig
from sae_lens_signaware.experiments.sweep.consistency import latents_name
from sae_lens_signaware.experiments.sweep.content import (
    DIGESTS_FILENAME,
    FileDigests,
    model_digest,
    text_digest,
)
from sae_lens_signaware.experiments.sweep.identity import (
    Content,
    Identity,
    Match,
    identity_of_cache,
    identity_of_run,
    match_of_cache,
    match_of_run,
)
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.files import write_json, write_tensors, write_text
from sae_lens_signaware.training.cache import is_whole

LATENTS_FOLDER = "latents"
SUMMARY_FILENAME = "sweep.json"


class CacheOverwrittenError(ConfigError):
    """Another sweep has overwritten a cache that this sweep wrote or read."""


@dataclasses.dataclass(frozen=True)
class CachedActivations:
    """The activations of a cell, as they were read.

    Attributes:
        train: (tokens, d_in), in the dtype of the cache: the file is mapped, and a copy in a wider
            dtype would not be.
        heldout: (tokens, d_in), in the runner's dtype.
        identity: all that they depend on. A cache of an earlier version keeps no digest, and
            neither does what is trained on it.
    """

    train: Tensor
    heldout: Tensor
    identity: Identity


class SweepStore:
    """Files that a sweep has on disk.

    Args:
        config: of the sweep.
        out: its folder; it need not exist yet.
    """

    def __init__(self, config: SweepConfig, out: str | Path) -> None:
        self.config, self.out = config, Path(out)
        self.content: Content | None = None
        """Digests of model and text; None before they are needed first."""
        self._unwritten_failures: dict[str, str] = {}

    # ---- where

    def result_path(self, run: Run) -> Path:
        """Path of the result of a finished run."""
        return self.out / "runs" / f"{run.name}.json"

    def sae_path(self, run: Run) -> Path:
        """Path of the folder of a run's inference SAE."""
        return self.out / "saes" / run.name

    def has_sae(self, run: Run) -> bool:
        """Whether the run's SAE is there; a user may have removed it to save space."""
        return (self.sae_path(run) / SAE_WEIGHTS_FILENAME).exists()

    def checkpoint_path(self, run: Run) -> Path:
        """Path of the folder of a run's checkpoint, which an interrupted training leaves."""
        return self.out / "checkpoints" / run.name

    def failure_path(self, run: Run) -> Path:
        """Path of the file that says why a run failed."""
        return self.out / "failed" / f"{run.name}.txt"

    def in_progress_path(self, run: Run) -> Path:
        """Path of a file that exists while a run is trained; a kill leaves it behind."""
        return self.out / "running" / run.name

    def cache_path(self, cell: str) -> Path:
        """Path of the file of a cell's activations."""
        folder = self.config.cache_folder
        return (self.out / "cache" if folder is None else Path(folder)) / f"{cell}.safetensors"

    def cache_lock_path(self) -> Path:
        """Path of the lock of the caches; sweeps that share a cache_folder share it."""
        return self.cache_path("").with_name(".lock")

    @property
    def latents_folder(self) -> Path:
        """Folder of the latents that a report shows."""
        return self.out / LATENTS_FOLDER

    def latents_path(self, run: Run) -> Path:
        """Path of the file of the latents that a report shows of a run's SAE."""
        return self.latents_folder / f"{latents_name(run.cell, run.sae)}-{run.value:g}.json"

    def partial_latents_path(self, run: Run) -> Path:
        """Path of the part of these latents that is done; removed where the whole file is there."""
        return self.latents_path(run).with_suffix(".partial")

    # ---- what it depends on

    def content_of(self, run: Run) -> Content:
        """Return the digests of model and text; they are made once for all runs of a sweep."""
        if self.content is None:
            digests = FileDigests(self.out / DIGESTS_FILENAME)
            cfg, heldout = run.cfg, self.config.heldout_dataset_path
            self.content = {
                "model": model_digest(
                    cfg.model_name,
                    cfg.model_class_name,
                    cfg.model_from_pretrained_kwargs or {},
                    digests,
                ),
                "text": text_digest(cfg.dataset_path, digests),
                "heldout_text": None if heldout is None else text_digest(heldout, digests),
            }
        return self.content

    def identity_of_cache(self, run: Run) -> Identity:
        """Return all that the activations of the run's cell depend on."""
        return identity_of_cache(self.config, run, self.content_of(run))

    def identity_of_run(self, run: Run) -> Identity:
        """Return all that the result of the run depends on."""
        return identity_of_run(self.config, run, self.content_of(run))

    # ---- results

    def finished(self, run: Run) -> RunResult | None:
        """Return the result on disk if it is that of this very run."""
        result = self._read_result(run)
        return result if result is not None and self._match(run, result).is_accepted else None

    def unfinished(self, runs: Sequence[Run]) -> list[Run]:
        """Return those of ``runs`` that have no result yet."""
        return [run for run in runs if self.finished(run) is None]

    def remove_result(self, run: Run) -> None:
        """Remove a result that is not that of this run, and the summary that still shows it."""
        path = self.result_path(run)
        if path.exists():
            (self.out / SUMMARY_FILENAME).unlink(missing_ok=True)
            path.unlink()

    def count_of(self, match: Match, runs: Sequence[Run]) -> int:
        """Count those of ``runs`` whose result on disk agrees to the degree ``match``."""
        results = [(run, self._read_result(run)) for run in runs]
        return sum(r is not None and self._match(run, r) is match for run, r in results)

    def _read_result(self, run: Run) -> RunResult | None:
        path = self.result_path(run)
        if not path.exists():
            return None
        try:
            return RunResult.read(path)
        except ValueError:
            return None

    def _match(self, run: Run, result: RunResult) -> Match:
        return match_of_run(result.identity, self.identity_of_run(run), run)

    # ---- caches

    def has_cache(self, run: Run) -> bool:
        """Tell whether the whole activations of the run's cell are on disk; a cut file is none."""
        return self._match_of_cache(run).is_accepted

    def has_unchecked_cache(self, run: Run) -> bool:
        """Tell whether they are on disk without digests of the model and text they come from."""
        return self._match_of_cache(run) is Match.UNCHECKED

    def _match_of_cache(self, run: Run) -> Match:
        path = self.cache_path(run.cell)
        identity = _identity_on_disk(path) if is_whole(path) else None
        return match_of_cache(identity, self.identity_of_cache(run))

    def write_cache(self, run: Run, tensors: dict[str, Tensor]) -> None:
        """Write the activations of the run's cell, "train" and "heldout"."""
        path = self.cache_path(run.cell)
        _marker(path).unlink(missing_ok=True)
        write_tensors(tensors, path)
        write_json(self.identity_of_cache(run), _marker(path))

    def load_cache(self, run: Run) -> CachedActivations:
        """Load the activations of the run's cell.

        Raises:
            CacheOverwrittenError: another sweep has written those of another hook, model or text.
        """
        path = self.cache_path(run.cell)
        identity = _identity_on_disk(path)
        is_accepted = match_of_cache(identity, self.identity_of_cache(run)).is_accepted
        tensors = load_file(path) if is_accepted and path.exists() else {}
        # unchanged behind the reading, the identity is that of what was read
        if not tensors or identity is None or _identity_on_disk(path) != identity:
            raise CacheOverwrittenError(
                f"cache_folder: {path} does not hold the activations of this sweep any more; "
                "give each its own cache_folder"
            )
        heldout = tensors["heldout"].to(DTYPE_MAP[run.cfg.dtype])
        return CachedActivations(tensors["train"], heldout, identity)

    def identity_of_training(self, run: Run, cache: CachedActivations) -> Identity:
        """Return the run's identity with that of the activations it was trained on."""
        return {**self.identity_of_run(run), "cache": cache.identity}

    # ---- what happens

    @contextlib.contextmanager
    def in_progress(self, run: Run) -> Iterator[None]:
        """Keep the file :meth:`in_progress_path` while the body runs."""
        path = self.in_progress_path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def is_in_progress(self, run: Run) -> bool:
        """Tell whether a process trains the run, or did until it was killed."""
        return self.in_progress_path(run).exists()

    def note_failure(self, run: Run, error: BaseException) -> None:
        """Write down why a run failed; on a full disk, this process alone remembers it."""
        reason = f"{type(error).__name__}: {one_line(error)}"
        try:
            self.in_progress_path(run).unlink(missing_ok=True)
            write_text(reason + "\n", self.failure_path(run))
        except OSError:
            self._unwritten_failures[run.name] = reason

    def failure_of(self, run: Run) -> str | None:
        """Return why the run failed; None where it did not."""
        path = self.failure_path(run)
        if not path.exists():
            return self._unwritten_failures.get(run.name)
        return path.read_text(encoding="utf-8").strip()

    def forget_failure(self, run: Run) -> None:
        """Remove what an earlier try has left: the run is tried again."""
        self.failure_path(run).unlink(missing_ok=True)
        self.in_progress_path(run).unlink(missing_ok=True)
        self._unwritten_failures.pop(run.name, None)

    def clear_after(self, run: Run) -> None:
        """Remove what a finished run needs no more."""
        shutil.rmtree(self.checkpoint_path(run), ignore_errors=True)
        self.failure_path(run).unlink(missing_ok=True)


def _marker(cache: Path) -> Path:
    # written after the cache, so that it stands for a whole one
    return cache.with_suffix(".json")


def _identity_on_disk(cache: Path) -> Identity | None:
    """Of a cache that is whole; None without one."""
    try:
        identity = json.loads(_marker(cache).read_text())
    except (OSError, ValueError):  # a crash of the machine can leave an empty file
        return None
    return identity if isinstance(identity, dict) else None
