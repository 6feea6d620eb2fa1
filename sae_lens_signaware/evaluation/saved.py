"""The folder of a saved SAE: SAELens's files, and what was measured of it beside them."""

import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sae_lens import SAE, TrainingSAE
from sae_lens.constants import (
    ACTIVATION_SCALER_CFG_FILENAME,
    SAE_CFG_FILENAME,
    SAE_WEIGHTS_FILENAME,
    SPARSITY_FILENAME,
)
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae_lens_signaware.checks import ConfigError, FailedTraining, one_line
from sae_lens_signaware.evaluation.census import BipolarCensus
from sae_lens_signaware.evaluation.inputs import ESTIMATED, require_folded
from sae_lens_signaware.evaluation.quality import QUALITY_FILENAME, SAEQuality, measure_quality
from sae_lens_signaware.files import sha256_of, write_json, write_tensors
from sae_lens_signaware.saes.conversion import split_log_sparsity, split_polarities

POS_SHARE_FILENAME = "pos_share.safetensors"
"""File of the share of each latent's firings on the + side, (d_sae,); it splits the sparsity."""

MAX_MESSAGE = 300
"""Characters of another library's message that an error repeats: it may quote a whole file."""


def load_sae(path: str | Path) -> SAE[Any]:
    """Load an SAE from a folder, with one clear line where that fails.

    A checkpoint of a training is loaded as what the training would have saved at that step: the
    scale of the activations is folded in, and a BatchTopK becomes its inference form.

    Raises:
        ConfigError: no such folder, a file is missing, broken, or from a later format; or the SAE
            is of scaled activations, and the scale is not there.
    """
    folder = Path(path)
    for name in (SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME):
        if not (folder / name).is_file():
            raise ConfigError(f"SAE: {folder} has no {name}")
    try:
        return _load(folder)
    except ConfigError:
        raise
    except Exception as error:  # whatever a broken file makes SAELens, json or safetensors raise
        raise cannot_be_loaded(folder, error) from error


def _load(folder: Path) -> SAE[Any]:
    architecture = json.loads((folder / SAE_CFG_FILENAME).read_text()).get("architecture")
    known = {*SAE_CLASS_REGISTRY, *SAE_TRAINING_CLASS_REGISTRY}
    if isinstance(architecture, str) and architecture not in known:
        raise ConfigError(
            f"SAE: {folder} is {architecture!r}, an architecture that is not registered; import "
            "the module that registers it first, on the command line by --import MODULE"
        )
    if architecture in SAE_CLASS_REGISTRY or architecture not in SAE_TRAINING_CLASS_REGISTRY:
        sae = SAE.load_from_disk(folder)
        _fold_scale(sae, folder)
        return sae
    training_sae = TrainingSAE.load_from_disk(folder)
    _fold_scale(training_sae, folder)
    with tempfile.TemporaryDirectory() as temporary:
        training_sae.save_inference_model(temporary)
        return SAE.load_from_disk(temporary)


def _fold_scale(sae: SAE[Any], folder: Path) -> None:
    """What SAELens's trainer does to an SAE when it is trained."""
    normalisation = sae.cfg.normalize_activations
    if normalisation not in ESTIMATED:
        return
    scaler = ActivationScaler()
    if (folder / ACTIVATION_SCALER_CFG_FILENAME).is_file():
        scaler.load(folder / ACTIVATION_SCALER_CFG_FILENAME)
    if scaler.scaling_factor is not None:
        _require_scale(scaler.scaling_factor)
        sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    elif (whitening := scaler.whitening) is not None:
        if not all(values.isfinite().all() for values in vars(whitening).values()):
            raise ConfigError(f"SAE: {folder}: its whitening holds NaN or inf")
        sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)
    else:
        require_folded(sae, str(folder))


def _require_scale(factor: Any) -> None:
    is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if not is_number or not 0 < factor < math.inf:
        raise ConfigError(
            f"{ACTIVATION_SCALER_CFG_FILENAME}: scaling_factor must be a finite number above 0, "
            f"got {factor!r}"
        )


def cannot_be_loaded(source: object, error: Exception) -> ConfigError:
    """Make the error for an SAE whose files are there and cannot be loaded."""
    message = one_line(error)
    if len(message) > MAX_MESSAGE:
        message = f"{message[:MAX_MESSAGE]} ..."
    return ConfigError(f"SAE: {source} cannot be loaded: {type(error).__name__}: {message}")


def write_split(sae: SAE[Any], source: str | Path | None, target: str | Path) -> SAE[Any]:
    """Write the plain twin of ``sae`` to ``target``, its sparsity file split as well.

    Args:
        source: folder of the signed SAE, for its sparsity file; None where there is none. A file
            that was measured on other weights is left out.
        target: must not exist; it appears complete or not at all.

    Returns:
        The plain twin.

    Raises:
        InvalidInputError: ``target`` exists, or a sparsity file or ``quality.json`` in ``source``
            cannot be read.
        TypeError: ``sae`` is no signed one.
        NotImplementedError: its architecture has no plain twin.
    """
    source, target = None if source is None else Path(source), Path(target)
    if target.exists():
        raise ConfigError(f"OUT: {target} exists already; name a new folder")
    try:
        plain = split_polarities(sae)
    except RecursionError:
        raise ConfigError("SAE: metadata in cfg.json is nested too deeply to be copied") from None
    log_sparsity = None
    if source is not None and has_sparsity(source):
        log_sparsity = _per_latent(source / SPARSITY_FILENAME, "sparsity", sae.cfg.d_sae)
        share = source / POS_SHARE_FILENAME
        measured = share.exists() and (source / QUALITY_FILENAME).exists()
        pos_share = _per_latent(share, "pos_share", sae.cfg.d_sae) if measured else None
        if plain.cfg.d_sae != sae.cfg.d_sae:
            log_sparsity = split_log_sparsity(log_sparsity, pos_share)
    write_sae(plain, target, log_sparsity)
    return plain


def _per_latent(path: Path, key: str, d_sae: int) -> Tensor:
    """The tensor ``key``, (d_sae,), of a file beside an SAE."""
    try:
        tensor = load_file(path)[key]
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except KeyError:
        raise ConfigError(f"{path} has no tensor {key!r}") from None
    if tensor.shape != (d_sae,):
        raise ConfigError(f"{key} in {path} must be ({d_sae},), got {tuple(tensor.shape)}")
    return tensor


def write_sae(sae: SAE[Any], target: Path, log_sparsity: Tensor | None = None) -> None:
    """Save ``sae``, with its sparsity file where that is given; the folder appears complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as staging:
        folder = Path(staging) / "sae"
        sae.save_model(folder)
        if log_sparsity is not None:
            write_tensors({"sparsity": log_sparsity}, folder / SPARSITY_FILENAME)
        folder.rename(target)


def measured_quality(folder: Path) -> SAEQuality | None:
    """Read what was measured of the SAE in ``folder``; None if nothing was, or of other weights."""
    path = folder / QUALITY_FILENAME
    if not path.exists():
        return None
    quality = SAEQuality.read(path)
    return (
        quality
        if quality.weights_sha256 in (None, sha256_of(folder / SAE_WEIGHTS_FILENAME))
        else None
    )


def has_sparsity(folder: Path) -> bool:
    """Whether the sparsity file in ``folder`` is there, and not known to be of other weights."""
    if not (folder / SPARSITY_FILENAME).exists():
        return False
    return not (folder / QUALITY_FILENAME).exists() or measured_quality(folder) is not None


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
    folder: Path,
    activations: Iterable[Tensor] | Tensor,
    tokens_from: str,
) -> MeasuredSAE:
    """Save for inference, then do what :func:`measure_saved` does.

    Args:
        sae: trained; normalisations whose scale is estimated are folded in.
        activations, tokens_from: as in :func:`~sae_lens_signaware.measure_quality`.

    Raises:
        FailedTraining: a weight is NaN or inf. Nothing is saved.
    """
    for name, weight in sae.named_parameters():
        if not weight.isfinite().all():
            raise FailedTraining(f"the training diverged: {name} holds NaN or inf")
    sae.save_inference_model(folder)
    return measure_saved(folder, activations, tokens_from, str(sae.device))


def measure_saved(
    folder: Path,
    activations: Iterable[Tensor] | Tensor,
    tokens_from: str,
    device: str = "cpu",
    complete: Callable[[SAE[Any], SAEQuality], SAEQuality] | None = None,
) -> MeasuredSAE:
    """Load an SAE as a user does, measure it, and write that beside it, once and whole.

    Args:
        folder: an inference SAE, saved.
        complete: adds to the measurement before it is written, such as loss recovered.
    """
    sae = SAE.load_from_disk(folder, device=device)
    quality, census = measure_quality(sae, activations, tokens_from)
    if complete is not None:
        quality = complete(sae, quality)
    write_measurement(folder, quality, census)
    return MeasuredSAE(sae, quality, census)


def write_measurement(folder: str | Path, quality: SAEQuality, census: BipolarCensus) -> None:
    """Write the files that ``push`` and ``split`` read beside an SAE.

    They hold its quality, the log10 of its firing rates, and the share of the + side in these.

    Args:
        folder: of the SAE, whose weights the measurement is of.
        quality, census: as :func:`~sae_lens_signaware.measure_quality` returns them.
    """
    folder = Path(folder)
    quality = dataclasses.replace(quality, weights_sha256=sha256_of(folder / SAE_WEIGHTS_FILENAME))
    write_tensors({"sparsity": census.log_sparsity}, folder / SPARSITY_FILENAME)
    write_tensors({"pos_share": census.pos_share.float()}, folder / POS_SHARE_FILENAME)
    # last: by its digest of the weights it says that the others are of this SAE too
    write_json(quality.to_dict(), folder / QUALITY_FILENAME)
