"""Push a signed SAE, its plain twin and a model card to the Hugging Face Hub."""

import functools
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationDelete, HfApi
from sae_lens import SAE, upload_saes_to_huggingface
from sae_lens.constants import (
    RUNNER_CFG_FILENAME,
    SAE_CFG_FILENAME,
    SAE_WEIGHTS_FILENAME,
    SPARSITY_FILENAME,
)
from sae_lens.registry import SAE_CLASS_REGISTRY

from sae_lens_signaware.checks import ConfigError, one_line, require
from sae_lens_signaware.evaluation.saved import (
    has_sparsity,
    load_sae,
    measured_quality,
    write_split,
)
from sae_lens_signaware.files import as_json
from sae_lens_signaware.hub.model_card import TWIN, make_card
from sae_lens_signaware.saes.base import SignedSAEMixin

OPTIONAL_FILES = (SPARSITY_FILENAME, RUNNER_CFG_FILENAME)
"""Beside the config and the weights, where they are known."""


def push(
    path: str | Path,
    repo_id: str,
    sae_id: str,
    base_model: str | None = None,
    dataset: str | None = None,
) -> str:
    """Upload the SAE in ``path`` as ``sae_id``, its plain twin as ``sae_id-plain``, and the card.

    An architecture outside of this package may have no plain twin, and is uploaded without one.
    Of a checkpoint goes up what :func:`~sae_lens_signaware.evaluation.saved.load_sae` makes of it.
    The card is the repository's README.md; SAEs that it already lists stay listed.

    Args:
        repo_id: "owner/name" on the Hub; it is made where it is not there.
        sae_id: folder of the SAE in the repository.
        base_model, dataset: Hub ids for the card; None takes those of the SAE's metadata.

    Returns:
        The URL of the repository.

    Raises:
        ConfigError: the folder holds no signed SAE that loads.
        InvalidInputError: ``sae_id`` is no name of a folder, or one that a twin may have; or
            ``repo_id`` has no owner.
        huggingface_hub.errors.HfHubHTTPError: the Hub refused or failed.
    """
    return push_saes(path, repo_id, sae_id, base_model, dataset)[0]


def push_saes(
    path: str | Path,
    repo_id: str,
    sae_id: str,
    base_model: str | None = None,
    dataset: str | None = None,
) -> tuple[str, list[str]]:
    """As :func:`push`; returns the URL, and the ids of the SAE and of its plain twin, if any."""
    _require_sae_id(sae_id)
    # the Hub would make "name" below the user, and find nothing at "name" when asked again
    require(repo_id.count("/") == 1, "repo_id", repo_id, "owner/name")
    source = Path(path)
    sae = load_sae(source)
    if not isinstance(sae, SignedSAEMixin):
        raise ConfigError(
            f"SAE: {source} is {sae.cfg.architecture()!r}; push takes a signed SAE, one of "
            + ", ".join(sorted(signed_architectures()))
        )
    quality = measured_quality(source)
    with tempfile.TemporaryDirectory() as staging:
        # every file of the user is read before the Hub is asked for anything
        signed, plain = Path(staging) / "signed", Path(staging) / "plain"
        _write_signed(sae, source, signed)
        _require_no_token(signed)
        folders = {sae_id: signed}
        if sae.has_plain_twin:
            write_split(sae, source, plain)
            folders[f"{sae_id}{TWIN}"] = plain
        make = functools.partial(
            make_card, repo_id, sae_id, sae, quality, base_model=base_model, dataset=dataset
        )
        card = make()
        try:
            card.validate()
        except ValueError as error:  # before anything is public
            raise ConfigError(f"model card: {one_line(error)}") from None
        upload_saes_to_huggingface({**folders}, hf_repo_id=repo_id, add_default_readme=False)
        _remove_stale(repo_id, {f"{sae_id}{TWIN}": plain} | folders)
    make().push_to_hub(repo_id)  # of the card as it is now: another push may have added to it
    return f"{HfApi().endpoint}/{repo_id}", [*folders]


def _require_sae_id(sae_id: str) -> None:
    parts = sae_id.split("/")
    is_path = all(re.fullmatch(r"[\w.-]+", part) and part.strip(".") for part in parts)
    allowed = "a folder name of letters, digits, '.', '_' and '-', or several joined by '/'"
    require(is_path, "sae_id", sae_id, allowed)
    require(
        not sae_id.endswith(TWIN),
        "sae_id",
        sae_id,
        f"without {TWIN!r} at its end, which twins have",
    )


def _write_signed(sae: SAE[Any], source: Path, target: Path) -> None:
    """Write the SAE that was loaded from ``source``, and the files beside it."""
    target.mkdir()
    files = [name for name in OPTIONAL_FILES if name != SPARSITY_FILENAME or has_sparsity(source)]
    held = json.loads((source / SAE_CFG_FILENAME).read_text())
    if held == as_json(sae.cfg.to_dict()):  # as it is, in 16 bits or not
        files += [SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME]
    else:  # a checkpoint, whose scale is in a file of its own
        sae.save_model(target)
    for name in files:
        if (source / name).exists():
            shutil.copy2(source / name, target / name)


def _remove_stale(repo_id: str, folders: Mapping[str, Path]) -> None:
    """Remove what an earlier push under these ids left and this one does not have.

    SAELens adds files alone, and loads a sparsity file of another SAE with the new weights.
    """
    of_ours = {
        f"{sae_id}/{name}": folder / name
        for sae_id, folder in folders.items()
        for name in (*OPTIONAL_FILES, SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME)
    }
    api = HfApi()
    held = [file.rfilename for file in api.model_info(repo_id).siblings or []]
    stale = [path for path in held if path in of_ours and not of_ours[path].exists()]
    if stale:
        operations = [CommitOperationDelete(path) for path in stale]
        api.create_commit(repo_id, operations, commit_message=f"Remove {', '.join(stale)}")


def signed_architectures() -> list[str]:
    """Names under which SAELens knows signed SAEs."""
    classes = {name: sae_class for name, (sae_class, _) in SAE_CLASS_REGISTRY.items()}
    return [name for name, sae_class in classes.items() if issubclass(sae_class, SignedSAEMixin)]


def _require_no_token(folder: Path) -> None:
    """Raise ConfigError where a config holds a Hub token, which would be public.

    SAELens's ``model_from_pretrained_kwargs`` may hold one.
    """
    for path in sorted(folder.glob("*.json")):
        if re.search(rb"\bhf_[A-Za-z0-9]{20,}", path.read_bytes()):
            raise ConfigError(
                f"SAE: {path.name} holds what looks like a Hub token (hf_...); "
                "take it out, and revoke it"
            )
