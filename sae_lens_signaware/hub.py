"""Load an SAE by its name, and push one with its plain twin and a card to the Hugging Face Hub."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData, errors
from jinja2 import Template
from sae_lens import SAE, TrainingSAE, upload_saes_to_huggingface
from sae_lens.constants import (
    ACTIVATION_SCALER_CFG_FILENAME,
    RUNNER_CFG_FILENAME,
    SAE_CFG_FILENAME,
    SPARSITY_FILENAME,
    TRAINER_STATE_FILENAME,
)
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from sae_lens.training.activation_scaler import ActivationScaler

from sae_lens_signaware.checks import InvalidInputError, nearest, one_line, require, require_hub_ids
from sae_lens_signaware.evaluation.inputs import require_finite, require_folded
from sae_lens_signaware.evaluation.measures import SAEQuality
from sae_lens_signaware.evaluation.saved import read_quality, write_split
from sae_lens_signaware.files import require_sae
from sae_lens_signaware.saes import is_signed

TEMPLATES = Path(__file__).parent


def load_sae(reference: str | Path) -> SAE[Any]:
    """Load an SAE from a folder, or from ``REPO:ID`` on the Hub.

    A checkpoint of a training is loaded as what the training would have saved at that step: the
    scale of the activations is folded in, and a BatchTopK becomes its inference form.

    Raises:
        InvalidInputError: it is not there, cannot be read, lacks the scale of its activations, or
            has a weight that is NaN or inf.
        OSError: the Hub, which raises errors of this class, or the network failed.
    """
    require_sae(reference)
    folder, (repo, _, sae_id) = Path(reference), str(reference).partition(":")
    try:
        sae = _load(folder) if folder.is_dir() else SAE.from_pretrained(repo, sae_id)
        require_folded(sae)
        for name, weight in sae.state_dict().items():
            require_finite(name, weight)
    except Exception as error:  # whatever a broken file makes SAELens, json or safetensors raise
        absent = errors.RepositoryNotFoundError | errors.EntryNotFoundError
        is_absent = isinstance(error, absent)
        did_not_answer = isinstance(error, errors.LocalEntryNotFoundError)  # a subclass
        if did_not_answer or (isinstance(error, OSError) and not is_absent):
            raise
        raise InvalidInputError(f"SAE: {reference} cannot be loaded: {one_line(error)}") from error
    return sae


def _load(folder: Path) -> SAE[Any]:
    architecture = json.loads((folder / SAE_CFG_FILENAME).read_text())["architecture"]
    known = {**SAE_CLASS_REGISTRY, **SAE_TRAINING_CLASS_REGISTRY}
    if architecture not in known:
        raise ValueError(f"{architecture!r} is not registered{nearest(architecture, known)}")
    is_checkpoint = (folder / TRAINER_STATE_FILENAME).exists()
    if architecture in SAE_CLASS_REGISTRY and not is_checkpoint:
        return SAE.load_from_disk(folder)
    sae = TrainingSAE.load_from_disk(folder)
    scaler = ActivationScaler()
    if (folder / ACTIVATION_SCALER_CFG_FILENAME).exists():
        scaler.load(folder / ACTIVATION_SCALER_CFG_FILENAME)
    if scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    if (whitening := scaler.whitening) is not None:
        sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)
    with tempfile.TemporaryDirectory() as temporary:
        sae.save_inference_model(temporary)
        return SAE.load_from_disk(temporary)


def push(
    path: str | Path,
    repo_id: str,
    sae_id: str,
    base_model: str | None = None,
    dataset: str | None = None,
) -> str:
    """Upload the SAE in ``path`` as ``sae_id``, its plain twin as ``sae_id-plain``, and the card.

    The card is the repository's README.md; SAEs that it already lists stay listed.

    Args:
        repo_id: "owner/name" on the Hub; it is made where it is not there.
        sae_id: folder of the SAE in the repository.
        base_model, dataset: Hub ids for the card; None takes those of the SAE's metadata.

    Returns:
        The URL of the repository.

    Raises:
        InvalidInputError: no signed SAE that loads, a wrong id, or a broken card on the Hub.
        OSError: the Hub refused or failed.
    """
    require_hub_ids(repo_id, sae_id)
    source, sae = Path(path), load_sae(path)
    require(is_signed(sae), "SAE", sae.cfg.architecture(), "a signed SAE")
    with tempfile.TemporaryDirectory() as staging:
        # all is read and written here before the Hub is asked for anything
        signed, plain = Path(staging) / "signed", Path(staging) / "plain"
        sae.save_model(signed)
        for name in (SPARSITY_FILENAME, RUNNER_CFG_FILENAME):
            if (source / name).exists():
                shutil.copy2(source / name, signed / name)
        _require_no_token(signed)
        write_split(sae, source, plain)
        card = make_card(repo_id, sae_id, sae, read_quality(source), base_model, dataset)
        try:
            card.validate()
        except ValueError as error:  # before anything is public
            raise InvalidInputError(f"model card of {repo_id}: {one_line(error)}") from None
        folders: dict[str, SAE[Any] | Path | str] = {sae_id: signed, f"{sae_id}-plain": plain}
        upload_saes_to_huggingface(folders, repo_id, show_progress=False, add_default_readme=False)
    card.push_to_hub(repo_id)
    return f"{HfApi().endpoint}/{repo_id}"


def _require_no_token(folder: Path) -> None:
    """Refuse a Hub token, as SAELens's ``model_from_pretrained_kwargs`` may hold one."""
    for path in folder.glob("*.json"):
        if re.search(rb"\bhf_[A-Za-z0-9]{20,}", path.read_bytes()):
            raise InvalidInputError(f"SAE: {path.name} holds what looks like a Hub token (hf_...)")


def make_card(
    repo_id: str,
    sae_id: str,
    sae: SAE[Any],
    quality: SAEQuality | None,
    base_model: str | None = None,
    dataset: str | None = None,
) -> ModelCard:
    """Make the repository's card with this SAE's section added, or replaced where it was there."""
    # asked first, since a card may be in the cache that is no longer on the Hub
    if HfApi().file_exists(repo_id, "README.md"):
        card = ModelCard.load(repo_id)
    else:
        template, name = str(TEMPLATES / "hub_card.md.j2"), repo_id.split("/")[-1]
        card = ModelCard.from_template(ModelCardData(), template_path=template, name=name)
    data: Any = card.data
    data.library_name = "saelens"
    data.tags = _with(data.tags, "sparse-autoencoder", "sae-lens-signaware", sae.cfg.architecture())
    metadata = sae.cfg.metadata
    data.base_model = _with(data.base_model, base_model or _hub_name(metadata.model_name))
    data.datasets = _with(data.datasets, dataset or _hub_name(metadata.dataset_path))
    begin, end = f"<!-- sae:{sae_id} -->", f"<!-- end sae:{sae_id} -->"
    section = Template((TEMPLATES / "hub_section.md.j2").read_text()).render(
        begin=begin, end=end, repo_id=repo_id, sae_id=sae_id, cfg=sae.cfg, quality=quality
    )
    before, _, rest = card.text.partition(begin)
    if end in rest:
        card.text = before + section + rest.partition(end)[2]
    else:
        card.text = f"{card.text.rstrip()}\n\n{section}\n"
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{card.text.lstrip()}")


def _with(held: str | list[str] | None, *names: str | None) -> list[str] | None:
    """Names that a field of the card holds, and these."""
    old = [held] if isinstance(held, str) else held or []
    return list(dict.fromkeys([*old, *(name for name in names if name)])) or None


def _hub_name(name: Any) -> str | None:
    """``name`` where it can be a Hub id ("owner/name"); a local path has no place in a card."""
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)) and not Path(name).exists() else None
