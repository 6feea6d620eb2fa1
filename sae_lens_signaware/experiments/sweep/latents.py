"""Pages of single latents for a report, for some SAEs of a sweep; resumed latent by latent."""

import itertools
import math
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.evaluation import Analysis, analyze_sae
from sae_lens_signaware.evaluation.models import HookedRootModule
from sae_lens_signaware.experiments.sweep.cache import load_hooked_model, make_caches
from sae_lens_signaware.experiments.sweep.config import LatentsConfig, Run, SweepConfig
from sae_lens_signaware.experiments.sweep.identity import Identity, Match, match_of_run
from sae_lens_signaware.experiments.sweep.latent_pages import (
    Dialler,
    audit_pairs,
    chosen_latents,
    numbers,
    pages_without_dials,
    prompts_of,
    special_tokens_of,
)
from sae_lens_signaware.experiments.sweep.latent_results import (
    AUDIT_TOKENS,
    LatentPage,
    PartialLatents,
    SAELatents,
)
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.store import SweepStore
from sae_lens_signaware.printing import say
from sae_lens_signaware.training.values import check_devices


def write_latents(config: SweepConfig, runs: Sequence[Run], out: Path, console: Console) -> None:
    """Write the pages that ``config.latents`` asks for, of the first seed of every cell.

    Those on disk stay where all that they depend on is the same; others are removed. An SAE that is
    not there, or has no latent that fires, is left out. After an interruption the next call goes on
    after the latents that are done.
    """
    store = SweepStore(config, out)
    if config.latents is not None:
        LatentsStage(store, config.latents, runs).run(console)
        return
    paths = {store.latents_path(run): run for run in runs if run.seed == config.seeds[0]}
    held = {path: _held_identity(path).get("run") for path in paths if path.exists()}
    _remove_all_but(store, {path for path in held if _is_of(store, held[path], paths[path])})


def _remove_all_but(store: SweepStore, kept: Set[Path]) -> None:
    """Remove pages of an earlier config, model or text: a report would show them as of this one."""
    folder = store.latents_folder
    for path in {*folder.glob("*.json"), *folder.glob("*.partial")} - kept:
        path.unlink()


def _held_identity(path: Path) -> dict[str, object]:
    """All that the pages in a file depend on; empty where it is no such file."""
    try:
        held = SAELatents.read(path).identity
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _is_of(store: SweepStore, identity: object, run: Run) -> bool:
    """Whether ``identity`` is that of the run's result, digests of model and text included.

    The result may have been made again since the pages were.
    """
    result = store.finished(run)
    return result is not None and match_of_run(identity, result.identity, run) is Match.SAME


class LatentsStage:
    """Stage of a sweep that makes the pages of latents that are asked for and not on disk yet."""

    def __init__(self, store: SweepStore, shown: LatentsConfig, runs: Sequence[Run]) -> None:
        self.store, self.shown = store, shown
        self.runs = [run for run in runs if run.seed == store.config.seeds[0]]

    def run(self, console: Console) -> None:
        """Write the pages that are not on disk yet."""
        asked = [r for r in self.runs if r.sae in self.shown.saes and r.value == self.shown.value]
        for cell, sae in itertools.product(self.store.config.cells, self.shown.saes):
            if not any((run.cell, run.sae) == (cell, sae) for run in asked):
                asked_for = f"{self.shown.value:g} with the first seed"
                say(console, f"no page of latents: {sae} has no run of {asked_for} at {cell}")
        asked = [r for r in asked if (result := self.store.finished(r)) and result.quality.l0 > 0]
        missing = [run for run in asked if not self._is_on_disk(run)]
        self._remove_others(asked, missing)
        pairs = [(r, self._plain_there(r, console)) for r in missing if self._has_sae(r, console)]
        if not pairs or not self._has_device(pairs[0][0], console):
            return
        with Progress(console=console) as progress:
            make_caches(self.store, [run for run, _ in pairs], progress)
        hooks = [cell.hook_name for cell in self.store.config.cells.values()]
        model = load_hooked_model(pairs[0][0].cfg, hooks)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            view = LatentsView(progress, len(pairs), self.shown.n_latents)
            for run, plain in pairs:
                self._latents_of(run, plain, model, view).write(self.store.latents_path(run))
                self.store.partial_latents_path(run).unlink(missing_ok=True)

    def _is_last(self, run: Run) -> bool:
        """Whether there are pages of the run that cannot be made again: its SAE is gone."""
        if self.store.has_sae(run):
            return False
        return _is_of(self.store, _held_identity(self.store.latents_path(run)).get("run"), run)

    def _remove_others(self, asked: Sequence[Run], missing: Sequence[Run]) -> None:
        mine = {self.store.latents_path(run) for run in asked}
        mine -= {self.store.latents_path(run) for run in missing if not self._is_last(run)}
        mine |= {self.store.partial_latents_path(run) for run in missing}
        _remove_all_but(self.store, mine)

    def _identity(self, run: Run, plain: Run | None) -> Identity:
        """All that the pages depend on."""
        return {
            "run": self._result(run).identity,
            "plain": None if plain is None else self._result(plain).identity,
            "shown": self._shown(),
        }

    def _result(self, run: Run) -> RunResult:
        result = self.store.finished(run)
        assert result is not None
        return result

    def _shown(self) -> dict[str, object]:
        return self.shown.model_dump(include={"n_latents", "n_contexts", "n_prompts"})

    def _is_on_disk(self, run: Run) -> bool:
        """Whether the pages are of today's results; the SAEs may have been removed since."""
        held = _held_identity(self.store.latents_path(run))
        if held.get("shown") != self._shown() or not _is_of(self.store, held.get("run"), run):
            return False
        of_plain = held.get("plain")
        # the nearest one; where it was gone when they were made, the nearest of those there are
        return any(
            of_plain is None if plain is None else _is_of(self.store, of_plain, plain)
            for plain in (self._plain_run(run), self._plain_run(run, is_there=True))
        )

    def _has_device(self, run: Run, console: Console) -> bool:
        """Tell whether the device is here: with Ray the workers may have it alone."""
        try:
            check_devices(run.cfg)
        except InvalidInputError as error:
            say(console, f"no pages of latents are made here: {error}; run it again where it is")
            return False
        return True

    def _has_sae(self, run: Run, console: Console) -> bool:
        if self.store.has_sae(run):
            return True
        say(
            console,
            f"latents: the SAE of {run.name} is not in {self.store.sae_path(run)}; "
            f"remove {self.store.result_path(run)} to train it again",
        )
        return False

    def _plain_there(self, run: Run, console: Console) -> Run | None:
        """The plain run whose pair is dialled; a line where there is none or its SAE is gone."""
        plain = self._plain_run(run)
        if plain is None and self.shown.plain is not None:
            say(
                console,
                f"latents: {self.shown.plain} has no finished run of the first seed with active "
                f"latents at {run.cell}, so the page of {run.sae} has no pair",
            )
        if plain is None or self._has_sae(plain, console):
            return plain
        return self._plain_run(run, is_there=True)

    def _plain_run(self, run: Run, is_there: bool = False) -> Run | None:
        """The plain run of the cell whose L0 is nearest, in log, to that of ``run``.

        Args:
            is_there: whether only those count whose SAE is on disk.
        """
        own = self._result(run)
        distances: list[tuple[float, Run]] = []
        for other in self.runs:
            if other.cell == run.cell and other.sae == self.shown.plain:
                result = self.store.finished(other)
                if not result or result.quality.l0 <= 0:
                    continue
                if not is_there or self.store.has_sae(other):
                    distance = abs(math.log(result.quality.l0 / own.quality.l0))
                    distances.append((distance, other))
        return min(distances, key=lambda pair: pair[0])[1] if distances else None

    def _latents_of(
        self, run: Run, plain_run: Run | None, model: HookedRootModule, view: "LatentsView"
    ) -> SAELatents:
        view.start(run)
        result = self._result(run)
        quality = result.quality
        sae = self._load(run, run)
        plain = None if plain_run is None else self._load(plain_run, run)
        heldout = self.store.load_cache(run).heldout
        analysis = analyze_sae(sae, heldout)
        identity = self._identity(run, plain_run)
        pages = self._pages(run, sae, plain, analysis, heldout, model, identity, view)
        census, calibration = analysis.census, analysis.calibration
        return SAELatents(
            cell=run.cell,
            run=run.name,
            architecture=sae.cfg.architecture(),
            d_sae=sae.cfg.d_sae,
            n_tokens=quality.n_tokens,
            l0=quality.l0,
            explained_variance=quality.explained_variance,
            dead_share=quality.dead_share,
            l0_pos=result.l0_pos,
            l0_neg=result.l0_neg,
            bipolar_share=census.bipolar_share(),
            bipolar_share_by_energy_rank=census.bipolar_share_by_energy_rank().tolist(),
            gain_pos=numbers(calibration.gain_pos),
            gain_neg=numbers(calibration.gain_neg),
            plain_run=None if plain_run is None else plain_run.name,
            audit={} if plain is None else audit_pairs(plain, heldout[:AUDIT_TOKENS]),
            pages=tuple(pages),
            special_tokens=special_tokens_of(model),
            identity=identity,
        )

    def _load(self, run: Run, like: Run) -> SAE[Any]:
        return SAE.load_from_disk(self.store.sae_path(run), device=like.cfg.device or "cpu")

    def _pages(
        self,
        run: Run,
        sae: SAE[Any],
        plain: SAE[Any] | None,
        analysis: Analysis,
        heldout: Tensor,
        model: HookedRootModule,
        identity: Identity,
        view: "LatentsView",
    ) -> list[LatentPage]:
        """All pages of an SAE; they are kept on disk after the contexts and after every latent."""
        latents = chosen_latents(analysis, self.shown.n_latents)
        dataset = self.store.config.heldout_dataset_path or run.cfg.dataset_path
        tokens = prompts_of(model, run, dataset, self.shown)
        path = self.store.partial_latents_path(run)
        partial = PartialLatents.read(path, identity, latents)
        if partial is None:
            pages = pages_without_dials(
                model, sae, analysis, latents, heldout, tokens, self.shown.n_contexts, run.cfg
            )
            partial = PartialLatents(identity, pages, 0)
            partial.write(path)
        view.expect(len(latents), partial.n_done)
        dialler = Dialler(model, sae, plain, partial.pages, tokens)
        while partial.n_done < len(latents):
            partial.pages[partial.n_done] = dialler.with_dials(partial.pages[partial.n_done])
            partial.n_done += 1
            partial.write(path)
            view.advance()
        return partial.pages


class LatentsView:
    """Progress of the stage: latents done, of how many, and the time left.

    Args:
        n_saes, n_latents: of the whole stage, and of an SAE.
    """

    def __init__(self, progress: Progress, n_saes: int, n_latents: int) -> None:
        self.progress, self.n_latents = progress, n_latents
        self.task = progress.add_task("Latents", total=n_saes * n_latents)

    def start(self, run: Run) -> None:
        """Show that the latents of ``run`` are next."""
        self.progress.update(self.task, description=escape(f"Latents of {run.name}"))

    def expect(self, n: int, n_done: int) -> None:
        """Count ``n`` latents for the SAE, of which an earlier call has done ``n_done``."""
        task = self.progress.tasks[0]
        assert task.total is not None
        self.progress.update(self.task, total=task.total - self.n_latents + n)
        if n_done:  # they say nothing of the time that the others take
            self.progress.reset(self.task, completed=int(task.completed) + n_done)

    def advance(self) -> None:
        """Count one more latent as done."""
        self.progress.advance(self.task)
