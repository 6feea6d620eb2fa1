"""The folder of a saved SAE: SAELens's files, and what was measured of it beside them."""

import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sae_lens import SAE, TrainingSAE
from sae_lens.constants import SAE_WEIGHTS_FILENAME, SPARSITY_FILENAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError, one_line, require
from sae_lens_signaware.evaluation.census import BipolarCensus
from sae_lens_signaware.evaluation.inputs import require_finite
from sae_lens_signaware.evaluation.quality import QUALITY_FILENAME, SAEQuality, measure_quality
from sae_lens_signaware.files import require_new, sha256_of, write_json, write_tensors
from sae_lens_signaware.saes import split_log_sparsity, split_polarities

POS_SHARE_FILENAME = "pos_share.safetensors"
"""File of the share of each latent's firings on the + side, (d_sae,); it splits the sparsity."""


@dataclasses.dataclass(frozen=True)
class MeasuredSAE:
    """A saved SAE as a user loads it, and what was measured of it.

    Attributes:
        sae: the inference SAE that was loaded from the folder.
        quality: also in ``quality.json`` there.
        census: its firing rates are in the sparsity file there.
    """

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
    quality = write_measurement(folder, quality, census)
    return MeasuredSAE(loaded, quality, census)


def write_measurement(folder: str | Path, quality: SAEQuality, census: BipolarCensus) -> SAEQuality:
    """Write the files that ``push`` and ``split`` read beside an SAE.

    They hold its quality, the log10 of its firing rates, and the share of the + side in these.

    Args:
        folder: of the SAE, whose weights the measurement is of.
        quality, census: as :func:`~sae_lens_signaware.measure_quality` returns them.

    Returns:
        ``quality`` with the digest of the weights.
    """
    folder = Path(folder)
    quality = dataclasses.replace(quality, weights_sha256=sha256_of(folder / SAE_WEIGHTS_FILENAME))
    write_tensors({"sparsity": census.log_sparsity}, folder / SPARSITY_FILENAME)
    write_tensors({"pos_share": census.pos_share.float()}, folder / POS_SHARE_FILENAME)
    # last: by its digest of the weights it says that the others are of this SAE too
    write_json(quality.to_dict(), folder / QUALITY_FILENAME)
    return quality


def read_quality(folder: str | Path) -> SAEQuality | None:
    """Read what was measured of the SAE in ``folder``; None if nothing was, or of other weights."""
    path = Path(folder) / QUALITY_FILENAME
    if not path.exists():
        return None
    quality = SAEQuality.read(path)
    is_of_these = quality.weights_sha256 == sha256_of(Path(folder) / SAE_WEIGHTS_FILENAME)
    return quality if is_of_these else None


def write_split(sae: SAE[Any], source: str | Path | None, target: str | Path) -> SAE[Any]:
    """Write the plain twin of ``sae`` to ``target``, its sparsity file split as well.

    Args:
        source: folder of the signed SAE, for its sparsity file; None where there is none. What was
            measured on other weights is left out.
        target: must not exist; it appears complete or not at all.

    Returns:
        The plain twin.

    Raises:
        InvalidInputError: ``target`` exists, or a file in ``source`` cannot be read.
        TypeError: ``sae`` is no signed one.
    """
    require_new("OUT", target)
    plain, log_sparsity = split_polarities(sae), None
    if source is not None and (Path(source) / SPARSITY_FILENAME).exists():
        source = Path(source)
        is_measured = (source / QUALITY_FILENAME).exists()
        quality = read_quality(source)
        if quality is not None or not is_measured:  # SAELens alone writes no quality
            log_sparsity = _per_latent(source / SPARSITY_FILENAME, "sparsity", sae.cfg.d_sae)
            if plain.cfg.d_sae != sae.cfg.d_sae:
                share = source / POS_SHARE_FILENAME
                of_side = quality is not None and share.exists()
                pos = _per_latent(share, "pos_share", sae.cfg.d_sae) if of_side else None
                log_sparsity = split_log_sparsity(log_sparsity, pos)
    write_sae(plain, target, log_sparsity)
    return plain


def _per_latent(path: Path, key: str, d_sae: int) -> Tensor:
    """The tensor ``key``, (d_sae,), of a file beside an SAE."""
    try:
        tensor = load_file(path)[key]
    except (OSError, KeyError, SafetensorError) as error:
        raise InvalidInputError(f"{path} holds no {key!r}: {one_line(error)}") from None
    require(tensor.shape == (d_sae,), f"{key} in {path}", tuple(tensor.shape), f"({d_sae},)")
    return tensor


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
