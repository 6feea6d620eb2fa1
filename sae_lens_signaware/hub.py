"""Push a signed SAE, its plain twin and a model card to the Hugging Face Hub."""

import dataclasses
import hashlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
)
from sae_lens import SAE, upload_saes_to_huggingface
from sae_lens.constants import (
    RUNNER_CFG_FILENAME,
    SAE_CFG_FILENAME,
    SAE_WEIGHTS_FILENAME,
    SPARSITY_FILENAME,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae_lens_signaware.activation_cache import (
    write_atomically,
    write_json_atomically,
)
from sae_lens_signaware.base import SignedSAEMixin
from sae_lens_signaware.config import ConfigError
from sae_lens_signaware.conversion import split_log_sparsity, split_polarities
from sae_lens_signaware.evaluation.census import BipolarCensus
from sae_lens_signaware.evaluation.quality import QUALITY_FILENAME, SAEQuality
from sae_lens_signaware.model_card import make_card

UPLOADED_FILES = (
    SAE_CFG_FILENAME,
    SAE_WEIGHTS_FILENAME,
    SPARSITY_FILENAME,
    RUNNER_CFG_FILENAME,
)
POS_SHARE_FILENAME = "pos_share.safetensors"
"""(d_sae,) share of a latent's firings on the + side, where it was measured; splits the sparsity file."""

MAX_MESSAGE = 300
"""Characters of another library's message that an error of ours repeats: it may quote a whole file."""


def load_signed(path: str | Path) -> SAE[Any]:
    """A SAE from a folder, with one clear line where that fails.

    Raises:
        ConfigError: no such folder, a file is missing, broken, or from a later format.
    """
    folder = Path(path)
    for name in (SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME):
        if not (folder / name).is_file():
            raise ConfigError(f"SAE: {folder} has no {name}")
    try:
        return SAE.load_from_disk(folder)
    except Exception as error:  # whatever a broken file makes SAELens, json or safetensors raise
        raise _cannot_be_loaded(folder, error) from error


def _cannot_be_loaded(source: object, error: Exception) -> ConfigError:
    message = " ".join(str(error).split())
    if len(message) > MAX_MESSAGE:
        message = f"{message[:MAX_MESSAGE]} ..."
    return ConfigError(f"SAE: {source} cannot be loaded: {type(error).__name__}: {message}")


def load_sae_reference(reference: str) -> SAE[Any]:
    """A SAE from a folder, or from ``REPO:ID`` on the Hub.

    Raises:
        ConfigError: as :func:`load_signed`.
        huggingface_hub.errors.HfHubHTTPError: the Hub refused or failed; its other errors as well.
    """
    if ":" in reference and not Path(reference).exists():
        repo, sae_id = reference.split(":", 1)
        try:
            return SAE.from_pretrained(repo, sae_id)
        except (EntryNotFoundError, HfHubHTTPError, HFValidationError):
            raise
        except Exception as error:  # the files came, and are broken
            raise _cannot_be_loaded(reference, error) from error
    return load_signed(reference)


def write_split(sae: SAE[Any], source: Path | None, target: Path) -> SAE[Any]:
    """Write the plain twin of ``sae`` to ``target``, its sparsity file split as well.

    Args:
        source: folder of the signed SAE, for its sparsity file; None where there is none.
        target: must not exist; it appears complete or not at all.
    """
    if target.exists():
        raise ConfigError(f"OUT: {target} exists already; name a new folder")
    try:
        plain = split_polarities(sae)  # type: ignore[arg-type]  # it raises TypeError on others
    except RecursionError:
        raise ConfigError("SAE: metadata in cfg.json is nested too deeply to be copied") from None
    log_sparsity = None
    if source is not None and (source / SPARSITY_FILENAME).exists():
        log_sparsity = _per_latent(source / SPARSITY_FILENAME, "sparsity", sae.cfg.d_sae)
        share = source / POS_SHARE_FILENAME
        measured = share.exists() and _quality_of(source) is not None
        pos_share = _per_latent(share, "pos_share", sae.cfg.d_sae) if measured else None
        if plain.cfg.d_sae != sae.cfg.d_sae:
            log_sparsity = split_log_sparsity(log_sparsity, pos_share)
    write_sae(plain, target, log_sparsity)
    return plain


def _per_latent(path: Path, key: str, d_sae: int) -> Tensor:
    """The one tensor, (d_sae,), of a file beside an SAE."""
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
    """Save ``sae``, and its sparsity file where it is given; ``target`` appears complete or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as staging:
        folder = Path(staging) / "sae"
        sae.save_model(folder)
        if log_sparsity is not None:
            write_atomically({"sparsity": log_sparsity}, folder / SPARSITY_FILENAME)
        folder.rename(target)


def push(
    path: str | Path,
    repo_id: str,
    sae_id: str,
    base_model: str | None = None,
    dataset: str | None = None,
) -> str:
    """Upload the SAE in ``path`` as ``sae_id``, its plain twin as ``sae_id-plain``, and the card.

    The card is the repository's README.md; SAEs that it already lists stay listed.

    Returns:
        The URL of the repository.

    Raises:
        ConfigError: the folder holds no signed SAE that loads.
        huggingface_hub.errors.HfHubHTTPError: the Hub refused or failed.
    """
    source = Path(path)
    sae = load_signed(source)
    if not isinstance(sae, SignedSAEMixin):
        raise ConfigError(
            f"SAE: {source} is {sae.cfg.architecture()!r}; push takes sa_gsae or bi_jumprelu"
        )
    card = make_card(repo_id, sae_id, sae, _quality_of(source), base_model, dataset)
    try:
        card.validate()
    except ValueError as error:  # before anything is public
        raise ConfigError(f"model card: {' '.join(str(error).split())}") from None
    with tempfile.TemporaryDirectory() as staging:
        signed = Path(staging) / "signed"
        signed.mkdir()
        for name in UPLOADED_FILES:
            if (source / name).exists():
                shutil.copy2(source / name, signed / name)
        _require_no_token(signed)
        write_split(sae, source, Path(staging) / "plain")
        upload_saes_to_huggingface(
            {sae_id: signed, f"{sae_id}-plain": Path(staging) / "plain"},
            hf_repo_id=repo_id,
            add_default_readme=False,
        )
    card.push_to_hub(repo_id)
    return f"{HfApi().endpoint}/{repo_id}"


def _quality_of(folder: Path) -> SAEQuality | None:
    """What was measured of the SAE in ``folder``; None where nothing was, or it was of other weights."""
    path = folder / QUALITY_FILENAME
    if not path.exists():
        return None
    quality = SAEQuality.read(path)
    return quality if quality.weights_sha256 in (None, _hash_of_weights(folder)) else None


def _hash_of_weights(folder: Path) -> str:
    digest = hashlib.sha256()
    with (folder / SAE_WEIGHTS_FILENAME).open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _require_no_token(folder: Path) -> None:
    """Raise ConfigError where a config holds a Hub token, as SAELens's model kwargs may: it would be public."""
    for path in sorted(folder.glob("*.json")):
        if re.search(rb"\bhf_[A-Za-z0-9]{20,}", path.read_bytes()):
            raise ConfigError(
                f"SAE: {path.name} holds what looks like a Hub token (hf_...); take it out, and revoke it"
            )


def write_measurement(folder: Path, quality: SAEQuality, census: BipolarCensus) -> None:
    """Write what :func:`push` and ``split`` read beside an SAE: quality, sparsity, + shares."""
    quality = dataclasses.replace(quality, weights_sha256=_hash_of_weights(folder))
    write_json_atomically(quality.to_dict(), folder / QUALITY_FILENAME)
    write_atomically({"sparsity": census.log_sparsity}, folder / SPARSITY_FILENAME)
    write_atomically({"pos_share": census.pos_share.float()}, folder / POS_SHARE_FILENAME)
