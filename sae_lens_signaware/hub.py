"""Load an SAE by its name, and push one with its plain twin and a card to the Hugging Face Hub."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from jinja2 import Template
from sae_lens import SAE, TrainingSAE, upload_saes_to_huggingface
from sae_lens.constants import (
    ACTIVATION_SCALER_CFG_FILENAME,
    RUNNER_CFG_FILENAME,
    SAE_CFG_FILENAME,
    SAE_WEIGHTS_FILENAME,
    SPARSITY_FILENAME,
    TRAINER_STATE_FILENAME,
)
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from sae_lens.training.activation_scaler import ActivationScaler

from sae_lens_signaware.checks import InvalidInputError, nearest, one_line, require
from sae_lens_signaware.evaluation.inputs import require_folded
from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.evaluation.saved import read_quality, write_split
from sae_lens_signaware.saes import is_signed

TWIN = "-plain"
"""How the id of a plain twin ends."""

CARD = """---
{{ card_data }}
---

# {{ name }}

Sign-aware sparse autoencoders: one latent carries both signs of a direction. Trained with
[SAELens](https://github.com/decoderesearch/SAELens) and `sae_lens_signaware`.
"""

SECTION = Template(
    """{{ begin }}
## `{{ sae_id }}`

| | |
| --- | --- |
{% for name, value in rows -%}
| {{ name }} | {{ value }} |
{% endfor %}
With the plugin (`pip install sae-lens-signaware`), signed latents:

```python
import sae_lens_signaware  # registers {{ architecture }}
from sae_lens import SAE

sae = SAE.from_pretrained("{{ repo_id }}", "{{ sae_id }}")
```

Without it, the plain twin: the same output from latents that are never negative
{%- if is_two_sided %}, twice as many
(latent i is i for its + side and i + {{ d_sae }} for its - side){% endif %}:

```python
from sae_lens import SAE

sae = SAE.from_pretrained("{{ repo_id }}", "{{ sae_id }}{{ twin }}")
```
{{ end }}"""
)


def load_sae(reference: str | Path) -> SAE[Any]:
    """Load an SAE from a folder, or from ``REPO:ID`` on the Hub.

    A checkpoint of a training is loaded as what the training would have saved at that step: the
    scale of the activations is folded in, and a BatchTopK becomes its inference form.

    Raises:
        InvalidInputError: it is not there, cannot be read, or lacks the scale of its activations.
        OSError: the Hub, which raises errors of this class, or the network failed.
    """
    folder, (repo, _, sae_id) = Path(reference), str(reference).partition(":")
    is_on_hub = bool(sae_id) and not folder.exists()
    for name in () if is_on_hub else (SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME):
        if not (folder / name).is_file():
            raise InvalidInputError(f"SAE: {folder} has no {name}")
    try:
        sae = SAE.from_pretrained(repo, sae_id) if is_on_hub else _load(folder)
        require_folded(sae)
        return sae
    except LocalEntryNotFoundError:
        raise  # a subclass of the next ones: the Hub did not answer
    except (RepositoryNotFoundError, EntryNotFoundError, HFValidationError) as error:
        raise InvalidInputError(f"SAE: {reference}: {one_line(error)}") from None
    except OSError:
        raise
    except Exception as error:  # whatever a broken file makes SAELens, json or safetensors raise
        raise InvalidInputError(f"SAE: {reference} cannot be loaded: {one_line(error)}") from error


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
    parts = sae_id.split("/")
    is_path = all(re.fullmatch(r"[\w.-]+", part) and part.strip(".") for part in parts)
    is_id = is_path and not sae_id.endswith(TWIN)
    require(is_id, "sae_id", sae_id, f"a folder name, without {TWIN!r} at its end")
    require(repo_id.count("/") == 1, "repo_id", repo_id, "owner/name")
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
            raise InvalidInputError(f"model card: {one_line(error)}") from None
        folders: dict[str, SAE[Any] | Path | str] = {sae_id: signed, f"{sae_id}{TWIN}": plain}
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
    name = repo_id.split("/")[-1]
    card = _card_on_hub(repo_id)
    if card is None:
        card = ModelCard.from_template(ModelCardData(), template_str=CARD, name=name)
    metadata = sae.cfg.metadata
    data: Any = card.data
    data.library_name = "saelens"
    data.tags = _with(data.tags, "sparse-autoencoder", "sae-lens-signaware", sae.cfg.architecture())
    models = _with(data.base_model, base_model or _hub_name(metadata.model_name))
    data.base_model = models[0] if models and len(models) == 1 else models
    data.datasets = _with(data.datasets, dataset or _hub_name(metadata.dataset_path))
    begin, end = f"<!-- sae:{sae_id} -->", f"<!-- end sae:{sae_id} -->"
    section = SECTION.render(
        begin=begin,
        end=end,
        repo_id=repo_id,
        sae_id=sae_id,
        twin=TWIN,
        rows=_rows(sae, quality),
        architecture=sae.cfg.architecture(),
        d_sae=sae.cfg.d_sae,
        is_two_sided=getattr(sae.cfg, "two_sided", True),
    )
    before, _, rest = card.text.partition(begin)
    if end in rest:
        card.text = before + section + rest.partition(end)[2]
    else:
        card.text = f"{card.text.rstrip()}\n\n{section}\n"
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{card.text.lstrip()}")


def _card_on_hub(repo_id: str) -> ModelCard | None:
    """The card that is there now, past any cache: other SAEs' sections in it must not be lost."""
    with tempfile.TemporaryDirectory() as no_cache:
        try:
            return ModelCard.load(hf_hub_download(repo_id, "README.md", cache_dir=no_cache))
        except LocalEntryNotFoundError:
            raise  # the Hub did not answer
        except (EntryNotFoundError, RepositoryNotFoundError):
            return None
        except OSError:
            raise
        except Exception as error:  # ValueError, or one of YAML
            line = f"{repo_id}: its README.md has broken front matter: {one_line(error)}"
            raise InvalidInputError(line) from None


def _with(held: str | list[str] | None, *names: str | None) -> list[str] | None:
    """Names that a field of the card holds, and these."""
    old = [held] if isinstance(held, str) else held or []
    return list(dict.fromkeys([*old, *(name for name in names if name)])) or None


def _hub_name(name: Any) -> str | None:
    """``name`` where it can be a Hub id ("owner/name"); a local path has no place in a card."""
    if not isinstance(name, str) or name.count("/") != 1 or Path(name).exists():
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return None if Path(name).suffix in (".csv", ".json", ".jsonl", ".parquet", ".txt") else name


def _rows(sae: SAE[Any], quality: SAEQuality | None) -> list[tuple[str, str]]:
    """Name and value of each row of the table of an SAE."""
    cfg = sae.cfg
    hook = cfg.metadata.hook_name or "not recorded"
    rows = [("architecture", cfg.architecture()), ("hook", f"`{hook}`")]
    rows += [("d_in", f"{cfg.d_in}"), ("d_sae (signed latents)", f"{cfg.d_sae}")]
    if quality is None:
        return [*rows, ("L0, R2, dead share", "not measured")]
    rows += [
        ("L0", f"{quality.l0:.2f}"),
        ("R2 (explained variance)", f"{quality.explained_variance:.4f}"),
        (f"dead share over {quality.n_tokens:,} tokens", f"{quality.dead_share:.4f}"),
        ("bipolar share of alive latents", f"{quality.bipolar_share:.4f}"),
        ("measured on", " ".join(quality.tokens_from.replace("|", "\\|").split())),
    ]
    if quality.loss_recovered is not None:
        rows.append(("loss recovered", f"{quality.loss_recovered:.4f}"))
    return rows
