"""Pages of single latents for the report, of some SAEs of a sweep."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from sae_lens import SAE

from sae_lens_signaware.files import write_text
from sae_lens_signaware.report.latents import latent_pages, prompts_of
from sae_lens_signaware.sweep.cache import model_of, store_of
from sae_lens_signaware.sweep.config import LatentsConfig, Run
from sae_lens_signaware.sweep.runs import without_bars
from sae_lens_signaware.sweep.store import SweepStore


def write_latents(store: SweepStore, runs: Sequence[Run], console: Console) -> None:
    """Write the pages that ``config.latents`` asks for, of the first seed of every cell.

    Those of the results that are there now stay, and others are removed. An SAE that is not
    finished, or has no latent that fires, has none.
    """
    shown, keys = store.config.latents, dict[Path, str]()
    asked = [] if shown is None else [run for run in runs if _is_asked(store, shown, run)]
    for run in asked:  # a digest of all that its pages depend on
        values = [store.identity(run), shown.model_dump(exclude={"saes"}) if shown else None]
        text = json.dumps(values, sort_keys=True)
        keys[store.latents_path(run)] = hashlib.sha256(text.encode()).hexdigest()
    for path in (store.out / "latents").glob("*.json"):
        key = path.with_suffix(".key")
        if path not in keys or not key.exists() or key.read_text() != keys[path]:
            path.unlink()  # a report would show it as of this sweep
            key.unlink(missing_ok=True)
    missing = [run for run in asked if not store.latents_path(run).exists()]
    missing = [run for run in missing if store.path("saes", run).exists()]
    if not missing or shown is None:
        return
    with without_bars():
        model = model_of(missing)
    for run in missing:
        path = store.latents_path(run)
        with console.status(f"Latents of {run.cell}, {run.sae}"):
            sae = SAE.load_from_disk(store.path("saes", run), device=run.cfg.device or "cpu")
            texts = store_of(
                model, [run], store.config.heldout_dataset_path or run.cfg.dataset_path
            )
            tokens, name = prompts_of(texts, shown.n_prompts), f"{run.cell}, {run.sae}"
            pages = latent_pages(sae, model, tokens, shown.n_latents, name, shown.n_contexts)
        write_text(keys[path], path.with_suffix(".key"))
        pages.write(path)


def _is_asked(store: SweepStore, shown: LatentsConfig, run: Run) -> bool:
    is_named = run.sae in shown.saes and run.value == shown.value
    result = store.finished(run) if is_named and run.seed == store.config.seeds[0] else None
    return result is not None and result.quality["l0"] > 0
