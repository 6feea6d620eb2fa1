"""What a report shows of single latents: both sides' contexts, calibration and dial, for some SAEs of a sweep."""

import contextlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.evaluation import (
    Analysis,
    analyze_sae,
    antipodal_audit,
    nearest_antipodal_pair,
    polarity_dial,
    top_examples,
)
from sae_lens_signaware.evaluation.dial import dialled_directions
from sae_lens_signaware.experiments.sweep.cache import (
    load_cache,
    load_hooked_model,
    make_caches,
    make_store,
)
from sae_lens_signaware.experiments.sweep.config import LatentsConfig, Run, SweepConfig
from sae_lens_signaware.experiments.sweep.latent_results import Dial, LatentPage, SAELatents
from sae_lens_signaware.experiments.sweep.runs import RunResult, finished, identity_of_run, sae_path

LATENTS_FOLDER = "latents"
AUDIT_COSINES = (-0.9, -0.7, -0.5)
AUDIT_TOKENS = 16_384  # for whether the pairs fire together
DIAL_PROMPTS, DIAL_POSITIONS = 4, 64


def latents_path(out: Path, run: Run) -> Path:
    return out / LATENTS_FOLDER / f"{run.cell}-{run.sae}-{run.value:g}.json"


def write_latents(config: SweepConfig, runs: Sequence[Run], out: Path, console: Any) -> None:
    """The pages that ``config.latents`` asks for, of the first seed of every cell.

    Those on disk stay where all that they depend on is the same; others are removed. An SAE that is
    not there, or has no latent that fires, is left out.
    """
    wanted = config.latents
    if wanted is None:
        return
    mine = [run for run in runs if run.seed == config.seeds[0]]
    shown = [r for r in mine if r.sae in wanted.saes and r.value == wanted.value]
    shown = [run for run in shown if (r := finished(config, run, out)) and r.quality.l0 > 0]
    for path in set((out / LATENTS_FOLDER).glob("*.json")) - {latents_path(out, r) for r in shown}:
        path.unlink()  # of an earlier config: the report would show it as of this one
    pairs = [(run, _plain_run(config, wanted, mine, run, out)) for run in shown]
    pairs = [pair for pair in pairs if not _is_on_disk(config, wanted, *pair, out)]
    if not pairs:
        return
    with Progress(console=console) as progress:
        make_caches(config, [run for run, _ in pairs], out, progress)
    model = load_hooked_model(shown[0].cfg, [config.cells[cell].hook_name for cell in config.cells])
    for run, plain in pairs:
        with console.status(f"Latents of {run.name}"):
            _latents_of(config, wanted, run, plain, out, model).write(latents_path(out, run))


def _identity(
    config: SweepConfig, wanted: LatentsConfig, run: Run, plain_run: Run | None
) -> dict[str, Any]:
    """All that the pages depend on."""
    values = {
        "run": identity_of_run(config, run),
        "plain": None if plain_run is None else identity_of_run(config, plain_run),
        "shown": wanted.model_dump(include={"n_latents", "n_contexts", "n_prompts"}),
    }
    return json.loads(json.dumps(values))


def _is_on_disk(
    config: SweepConfig, wanted: LatentsConfig, run: Run, plain_run: Run | None, out: Path
) -> bool:
    try:
        held = SAELatents.read(latents_path(out, run))
    except (OSError, ValueError):
        return False
    return held.identity == _identity(config, wanted, run, plain_run)


def _plain_run(
    config: SweepConfig, wanted: LatentsConfig, runs: Sequence[Run], run: Run, out: Path
) -> Run | None:
    # the one whose L0 comes nearest to that of the signed SAE
    own = finished(config, run, out)
    assert own is not None
    found: list[tuple[float, Run]] = []
    for other in runs:
        if other.cell == run.cell and other.sae == wanted.plain:
            result = finished(config, other, out)
            if result is not None and result.quality.l0 > 0:
                found.append((abs(math.log(result.quality.l0 / own.quality.l0)), other))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _latents_of(
    config: SweepConfig,
    wanted: LatentsConfig,
    run: Run,
    plain_run: Run | None,
    out: Path,
    model: Any,
) -> SAELatents:
    result = finished(config, run, out)
    assert result is not None
    sae = SAE.load_from_disk(sae_path(out, run), device=run.cfg.device)
    plain = None
    if plain_run is not None:
        plain = SAE.load_from_disk(sae_path(out, plain_run), device=run.cfg.device)
    heldout = load_cache(config, run, out)["heldout"]
    analysis = analyze_sae(sae, heldout)
    pages = _pages(config, wanted, run, sae, plain, analysis, model)
    census, calibration = analysis.census, analysis.calibration
    return SAELatents(
        cell=run.cell,
        run=run.name,
        architecture=sae.cfg.architecture(),
        d_sae=sae.cfg.d_sae,
        **_measured(result),
        bipolar_share=census.bipolar_share(),
        bipolar_share_by_energy_rank=census.bipolar_share_by_energy_rank().tolist(),
        gain_pos=_numbers(calibration.gain_pos),
        gain_neg=_numbers(calibration.gain_neg),
        plain_run=None if plain_run is None else plain_run.name,
        audit={} if plain is None else _audit(plain, heldout[:AUDIT_TOKENS]),
        pages=pages,
        identity=_identity(config, wanted, run, plain_run),
    )


def _measured(result: RunResult) -> dict[str, Any]:
    q = result.quality
    return {
        "n_tokens": q.n_tokens,
        "l0": q.l0,
        "explained_variance": q.explained_variance,
        "dead_share": q.dead_share,
        "l0_pos": result.l0_pos,
        "l0_neg": result.l0_neg,
    }


def _numbers(values: Tensor) -> list[float | None]:
    return [None if math.isnan(v) else v for v in values.tolist()]


def _audit(plain: SAE[Any], activations: Tensor) -> dict[str, dict[str, int]]:
    found = {}
    for cosine in AUDIT_COSINES:
        audit = antipodal_audit(plain, activations, cosine)
        found[f"{cosine:g}"] = {
            "n_pairs": audit.n_pairs,
            "freed_width": audit.freed_width,
            "n_pairs_that_fire_together": int((audit.co_firing_rate > 0).sum()),
        }
    return found


def _pages(
    config: SweepConfig,
    wanted: LatentsConfig,
    run: Run,
    sae: SAE[Any],
    plain: SAE[Any] | None,
    analysis: Analysis,
    model: Any,
) -> tuple[LatentPage, ...]:
    census, calibration = analysis.census, analysis.calibration
    energy = census.energy_pos + census.energy_neg
    chosen = energy.topk(min(wanted.n_latents, int(census.alive.sum()))).indices.tolist()
    dataset = config.heldout_dataset_path or run.cfg.dataset_path
    hook = {run.cfg.hook_name: run.cfg.sae.d_in}
    tokens = _prompts(model, run, dataset, hook, wanted.n_prompts)
    examples = top_examples(model, sae, tokens, chosen, k=wanted.n_contexts)
    read_out = _read_out(model)
    sizes, prompts = _dial_sizes(energy[chosen]), tokens[:DIAL_PROMPTS, :DIAL_POSITIONS]
    pages = []
    for latent in chosen:
        both = examples.of(latent)
        dial, pair_dial = None, None
        if read_out is not None:
            dial = _dial(model, sae, latent, prompts, sizes, read_out)
            if plain is not None:
                pair = nearest_antipodal_pair(plain, sae.W_dec[latent])
                pair_dial = _dial(model, plain, pair, prompts, sizes, read_out)
        gains = [_numbers(g[[latent]])[0] for g in (calibration.gain_pos, calibration.gain_neg)]
        pages.append(
            LatentPage(
                latent=latent,
                firing_rate_pos=census.firing_rate_pos[latent].item(),
                firing_rate_neg=census.firing_rate_neg[latent].item(),
                energy_pos=census.energy_pos[latent].item(),
                energy_neg=census.energy_neg[latent].item(),
                min_share=census.min_share[latent].item(),
                gain_pos=gains[0],
                gain_neg=gains[1],
                examples_pos=both.pos,
                examples_neg=both.neg,
                dial=dial,
                pair_dial=pair_dial,
            )
        )
    return tuple(pages)


def _dial(
    model: Any,
    sae: SAE[Any],
    latent: int | tuple[int, int],
    prompts: Tensor,
    sizes: Sequence[float],
    read_out: Tensor,
) -> Dial:
    """On the two tokens that this latent's axis itself, or this pair's, speaks for and against most."""
    plus, minus = dialled_directions(sae, latent)
    votes = read_out @ (plus - minus)
    ids = (int(votes.argmax()), int(votes.argmin()))
    words = (model.tokenizer.decode([ids[0]]), model.tokenizer.decode([ids[1]]))
    return Dial.of(polarity_dial(model, sae, latent, prompts, sizes, ids), words)


def _prompts(model: Any, run: Run, dataset: str, hook: dict[str, int], n: int) -> Tensor:
    store = make_store(model, run.cfg, dataset, hook)
    rows: list[Tensor] = []
    with contextlib.suppress(StopIteration):  # fewer prompts than asked for will do
        while sum(map(len, rows)) < n:
            rows.append(store.get_batch_tokens(raise_at_epoch_end=True))
    if not rows:
        raise ConfigError(f"heldout_dataset_path: {dataset} holds no prompt")
    return torch.cat(rows)[:n]


def _dial_sizes(energy: Tensor) -> tuple[float, ...]:
    # in the units of the activations: a half to four times what a latent shown writes on average
    # where it fires on every tenth token
    typical = (10 * energy.median()).sqrt().item()
    return tuple(typical * factor for factor in (0.5, 1.0, 2.0, 4.0))


def _read_out(model: Any) -> Tensor | None:
    """(vocabulary, d_model) from the stream to logits, the final norm's weight in it; None where the model hides it."""
    if hasattr(model, "W_U"):  # TransformerLens folds the final norm's weight
        return model.W_U.detach().float().T
    inner: Any = getattr(model, "model", None)
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    if head is None:
        return None
    norm = getattr(getattr(inner, "model", None), "norm", None)
    weight = head.weight.detach().float()
    return weight if norm is None else weight * norm.weight.detach().float()
