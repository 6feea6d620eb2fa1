"""Digests of a sweep's model and text, so that other content under the same path is another sweep.

A local folder counts by the content of its files. A model of the Hub counts by the files of its
snapshot in the local cache of the Hub, where a load leaves them. A dataset of the Hub counts by the
ids of its files in the repository, its readme left out; that takes one request. Where none of these
can be had there is no digest, and the name alone counts.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sae_lens_signaware.files import sha256_of, write_json

DIGESTS_FILENAME = "digests.json"

# What from_pretrained reads of a model's folder; the state of a trainer may lie beside it.
MODEL_FILES = (
    "config.json",
    "*.safetensors",
    "pytorch_model*.bin",
    "*.gguf",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "*.py",
)


class FileDigests:
    """Digests of files, kept in a JSON file: a file of the same size and time is not read again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.known: dict[str, object] = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            self.known = {}

    def of(self, file: Path) -> str:
        """Return the SHA-256 of the content of ``file``."""
        status, key = file.stat(), str(file.absolute())
        stamp = [status.st_size, status.st_mtime_ns]
        entry = self.known.get(key)
        if isinstance(entry, dict) and entry.get("size_and_mtime_ns") == stamp:
            return entry["sha256"]
        digest = sha256_of(file)
        self.known[key] = {"size_and_mtime_ns": stamp, "sha256": digest}
        with contextlib.suppress(OSError):  # on a full disk, the file is read again next time
            write_json(self.known, self.path)
        return digest

    def of_files(self, folder: Path, files: Iterable[Path]) -> str | None:
        """Digest the names and contents of ``files`` in ``folder`` together; None without any."""
        entries = [[file.relative_to(folder).as_posix(), self.of(file)] for file in sorted(files)]
        return _digest(entries) if entries else None


def model_digest(
    name: str, class_name: str, kwargs: Mapping[str, Any], digests: FileDigests
) -> str | None:
    """Digest a model's weights, config and tokenizer; None where they are not on this machine.

    Args:
        name, class_name, kwargs: ``model_name``, ``model_class_name`` and
            ``model_from_pretrained_kwargs`` of SAELens's runner config.
    """
    folder = Path(name)
    if not folder.is_dir():
        snapshot = _snapshot(_repository(name, class_name), kwargs.get("revision"))
        if snapshot is None:
            return None
        folder = snapshot
    if isinstance(kwargs.get("subfolder"), str):
        folder = folder / kwargs["subfolder"]
    files = [file for file in folder.glob("*") if _is_of_model(file)]
    return digests.of_files(folder, files)


def _is_of_model(file: Path) -> bool:
    return file.is_file() and any(fnmatch(file.name, pattern) for pattern in MODEL_FILES)


def _repository(name: str, class_name: str) -> str:
    """The name on the Hub: TransformerLens has short names of its own."""
    if class_name != "HookedTransformer":
        return name
    try:
        from transformer_lens.loading_from_pretrained import get_official_model_name

        return get_official_model_name(name)
    except (ImportError, ValueError):
        return name


def _snapshot(repository: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (OSError, ValueError):  # not in the cache; or no name that the Hub could have
        return None


def text_digest(name: str, digests: FileDigests) -> str | None:
    """Digest a dataset, named as for ``datasets.load_dataset``; None where it cannot be had."""
    path = Path(name)
    if path.is_file():
        return digests.of(path)
    if not path.is_dir():
        return _hub_text_digest(name)
    files = (file for file in path.rglob("*") if file.is_file())
    return digests.of_files(path, [f for f in files if not _is_hidden(f.relative_to(path))])


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


@functools.cache  # once a process: summaries ask again
def _hub_text_digest(name: str) -> str | None:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    try:
        entries = [
            [entry.path, entry.blob_id if isinstance(entry, RepoFile) else entry.tree_id]
            for entry in HfApi().list_repo_tree(name, repo_type="dataset")
            if not entry.path.startswith(".") and not entry.path.endswith(".md")
        ]
    except Exception:  # whatever it is: without the Hub, the name alone counts
        return None
    return _digest(sorted(entries))


def _digest(entries: list[list[str]]) -> str:
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()
