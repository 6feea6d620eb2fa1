"""The folder of a saved SAE: SAELens's files, and what was measured of it beside them."""

import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from sae_lens import SAE, TrainingSAE
from sae_lens.constants import SAE_WEIGHTS_FILENAME, SPARSITY_FILENAME
from safetensors.torch import load_file
from torch import Tensor

from sae_lens_signaware.evaluation.inputs import require_finite
from sae_lens_signaware.evaluation.measures import BipolarCensus, SAEQuality, measure_quality
from sae_lens_signaware.evaluation.results import read_json
from sae_lens_signaware.files import sha256_of, write_json, write_tensors
from sae_lens_signaware.saes.split import split_log_sparsity, split_polarities

QUALITY_FILENAME = "quality.json"


class MeasuredSAE(NamedTuple):
    """A saved SAE as a user loads it, and what was measured of it and is written beside it."""

    sae: SAE[Any]
    quality: SAEQuality
    census: BipolarCensus


def save_and_measure(
    sae: TrainingSAE[Any],
    folder: str | Path,
    activations: Iterable[Tensor] | Tensor,
    tokens_from: str,
) -> MeasuredSAE:
    """Save for inference, load as a user does, measure, and write that beside the SAE.

    Args:
        sae: trained; normalisations whose scale is estimated are folded in.
        activations, tokens_from: as in :func:`~sae_lens_signaware.measure_quality`.

    Raises:
        InvalidInputError: a weight is NaN or inf, as the training diverged. Nothing is saved.
    """
    for name, weight in sae.named_parameters():
        require_finite(f"{name} after the training", weight)
    sae.save_inference_model(folder)
    loaded = SAE.load_from_disk(folder, device=str(sae.device))
    quality, census = measure_quality(loaded, activations, tokens_from)
    return MeasuredSAE(loaded, write_measurement(folder, quality, census), census)


def write_measurement(folder: str | Path, quality: SAEQuality, census: BipolarCensus) -> SAEQuality:
    """Write the files that ``push`` and ``split`` read beside an SAE.

    They hold its quality; and the log10 of its firing rates, as SAELens's file of that name does,
    with the share of the + side in these beside it, which splits them.

    Args:
        folder: of the SAE, whose weights the measurement is of.
        quality, census: as :func:`~sae_lens_signaware.measure_quality` returns them.

    Returns:
        ``quality`` with the digest of the weights.
    """
    folder = Path(folder)
    quality = dataclasses.replace(quality, weights_sha256=sha256_of(folder / SAE_WEIGHTS_FILENAME))
    rates = {"sparsity": census.log_sparsity, "pos_share": census.pos_share.float()}
    write_tensors(rates, folder / SPARSITY_FILENAME)
    write_json(dataclasses.asdict(quality), folder / QUALITY_FILENAME)
    return quality


def read_quality(folder: str | Path) -> SAEQuality | None:
    """Read what was measured of the SAE in ``folder``; None if nothing was, or of other weights."""
    path = Path(folder) / QUALITY_FILENAME
    quality = read_json(SAEQuality, path) if path.exists() else None
    digest = sha256_of(Path(folder) / SAE_WEIGHTS_FILENAME)
    return quality if quality is not None and quality.weights_sha256 == digest else None


def write_split(sae: SAE[Any], source: str | Path | None, target: str | Path) -> SAE[Any]:
    """Write the plain twin of ``sae`` to ``target``, which must not exist.

    Args:
        source: folder of the signed SAE, whose sparsity file is split as well where it has one: by
            the measured share of each side, or else the whole rate for both; None where there is
            none.
        target: it appears complete or not at all.

    Returns:
        The plain twin.

    Raises:
        InvalidInputError: a file in ``source`` cannot be read.
        TypeError: ``sae`` is no signed one.
    """
    plain, log_sparsity = split_polarities(sae), None
    if source is not None and (Path(source) / SPARSITY_FILENAME).exists():
        rates = load_file(Path(source) / SPARSITY_FILENAME)
        log_sparsity = rates["sparsity"]
        if plain.cfg.d_sae != sae.cfg.d_sae:
            log_sparsity = split_log_sparsity(log_sparsity, rates.get("pos_share"))
    write_sae(plain, target, log_sparsity)
    return plain


def write_sae(sae: SAE[Any], target: str | Path, log_sparsity: Tensor | None = None) -> None:
    """Save ``sae``, with its sparsity file where that is given; the folder appears complete."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as staging:
        folder = Path(staging) / "sae"
        sae.save_model(folder)
        if log_sparsity is not None:
            write_tensors({"sparsity": log_sparsity}, folder / SPARSITY_FILENAME)
        folder.rename(target)
