"""The model card of a repository of signed SAEs on the Hugging Face Hub: one section an SAE."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from sae_lens import SAE, SAEConfig
from sae_lens.saes.sae import SAEMetadata
from yaml import YAMLError

from sae_lens_signaware.checks import ConfigError, checked, one_line
from sae_lens_signaware.evaluation.quality import SAEQuality

DATA_FILES = (".csv", ".json", ".jsonl", ".parquet", ".txt")
"""How names of files end that SAELens's runner takes as a dataset."""
TWIN = "-plain"
"""How the id of a plain twin ends."""


def model_kwargs_of(metadata: SAEMetadata) -> dict[str, Any]:
    """Return what an SAE's metadata says of its model beyond the name.

    Raises:
        InvalidInputError: it is no mapping, as in a ``cfg.json`` that was edited.
    """
    field = "metadata.model_from_pretrained_kwargs"
    return checked(field, metadata.model_from_pretrained_kwargs, dict[str, Any] | None) or {}


def make_card(
    repo_id: str,
    sae_id: str,
    sae: SAE[SAEConfig],
    quality: SAEQuality | None,
    base_model: str | None = None,
    dataset: str | None = None,
) -> ModelCard:
    """Make the repository's card with this SAE's section added, or replaced where it was there."""
    metadata, card = sae.cfg.metadata, _existing_card(repo_id)
    data: Any = ModelCardData() if card is None else card.data
    data.library_name = "saelens"
    data.tags = _with(data.tags, "sparse-autoencoder", "sae-lens-signaware", sae.cfg.architecture())
    # a model file is mostly one that was loaded from a folder, as "demo_out/model"
    is_file = "gguf_file" in model_kwargs_of(metadata)
    trained_on = None if is_file else _hub_name(metadata.model_name)
    models = _with(data.base_model, base_model or trained_on)
    data.base_model = models[0] if models and len(models) == 1 else models
    data.datasets = _with(data.datasets, dataset or _hub_name(metadata.dataset_path))
    begin, end = f"<!-- sae:{sae_id} -->", f"<!-- end sae:{sae_id} -->"
    section = f"{begin}\n{_section(repo_id, sae_id, sae, quality)}\n{end}"
    if card is not None:
        body = card.text
    else:
        body = (
            f"# {repo_id.split('/')[-1]}\n\n"
            "Sign-aware sparse autoencoders: one latent carries both signs of a direction. "
            "Trained with [SAELens](https://github.com/decoderesearch/SAELens) and "
            "`sae_lens_signaware`.\n"
        )
    before, _, rest = body.partition(begin)
    if end in rest:
        body = before + section + rest.partition(end)[2]
    else:
        body = f"{body.rstrip()}\n\n{section}\n"
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body.lstrip()}")


def _with(held: str | list[str] | None, *names: str | None) -> list[str] | None:
    """Names that a field of the card holds, and these."""
    old = [held] if isinstance(held, str) else held or []
    return list(dict.fromkeys([*old, *(name for name in names if name)])) or None


def _hub_name(name: object) -> str | None:
    """``name`` where it can be a Hub id ("owner/name"); a local path has no place in a card."""
    if not isinstance(name, str) or name.count("/") != 1 or Path(name).exists():
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return None if Path(name).suffix in DATA_FILES else name


def _existing_card(repo_id: str) -> ModelCard | None:
    """The card on the Hub, or None where there is none.

    Never one of the cache: other SAEs' sections in it must not be lost.
    """
    with tempfile.TemporaryDirectory() as no_cache:
        try:
            path = hf_hub_download(repo_id, "README.md", cache_dir=no_cache)
        except LocalEntryNotFoundError:
            raise  # a subclass of the next one: the Hub did not answer
        except (EntryNotFoundError, RepositoryNotFoundError):
            return None
        try:
            return ModelCard.load(path)
        except (ValueError, YAMLError) as error:
            message = f"{repo_id}: its README.md has broken front matter: {one_line(error)}"
            raise ConfigError(message) from None


def _rows(cfg: SAEConfig, quality: SAEQuality | None) -> list[tuple[str, str]]:
    """Name and value of each row of the table of an SAE."""
    hook = cfg.metadata.hook_name or "not recorded"
    rows = [("architecture", cfg.architecture()), ("hook", f"`{hook}`")]
    rows += [("d_in", f"{cfg.d_in}"), ("d_sae (signed latents)", f"{cfg.d_sae}")]
    if quality is None:
        rows.append(("L0, R2, dead share", "not measured"))
    else:
        rows += [
            ("L0", f"{quality.l0:.2f}"),
            ("R2 (explained variance)", f"{quality.explained_variance:.4f}"),
            (
                f"dead share over {quality.n_tokens:,} tokens",
                f"{quality.dead_share:.4f}",
            ),
            ("bipolar share of alive latents", f"{quality.bipolar_share:.4f}"),
            ("measured on", quality.tokens_from),
        ]
        if quality.loss_recovered is not None:
            n = quality.loss_recovered_tokens
            name = "loss recovered" if n is None else f"loss recovered over {n:,} tokens"
            rows.append((name, f"{quality.loss_recovered:.4f}"))
    return rows


def _section(repo_id: str, sae_id: str, sae: SAE[SAEConfig], quality: SAEQuality | None) -> str:
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in _rows(sae.cfg, quality))
    name = repr(sae.cfg.architecture())
    without = f"without it SAELens raises KeyError: {name}"
    module = type(sae).__module__
    if module == "__main__":  # of a notebook, which nothing can import
        registers = f"# run what registers {name} first; {without}"
    else:
        registers = f"import {_imported(module)}  # registers {name}; {without}"
    return f"""## `{sae_id}`

| | |
| --- | --- |
{table}

With the plugin (`pip install sae-lens-signaware`), signed latents:

```python
{registers}
from sae_lens import SAE

sae = SAE.from_pretrained("{repo_id}", "{sae_id}")
```

{_twin_section(repo_id, sae_id, sae)}"""


def _imported(module: str) -> str:
    """What registers the architecture of a module: ours all at once, one of a user by itself."""
    package = __name__.partition(".")[0]
    return package if module.partition(".")[0] == package else module


def _twin_section(repo_id: str, sae_id: str, sae: SAE[SAEConfig]) -> str:
    if not sae.has_plain_twin:
        return "It has no plain twin: SAELens has no activation that is the same."
    cfg = sae.cfg
    exact = "" if sae.dtype in (torch.float32, torch.float64) else ", but for 16-bit rounding,"
    mapping = (
        f"the same output{exact} from twice the latents, none of them negative\n"
        f"(latent i is i for its + side and i + {cfg.d_sae} for its - side)"
        if getattr(cfg, "two_sided", True)
        else f"the same output{exact} and the same latents"
    )
    return f"""Without it, the plain twin: {mapping}:

```python
from sae_lens import SAE

sae = SAE.from_pretrained("{repo_id}", "{sae_id}{TWIN}")
```"""


def _cell(value: str) -> str:
    """Escape and join ``value`` so that it fits one cell of a Markdown table."""
    return " ".join(value.replace("|", "\\|").replace("-->", "").split())
