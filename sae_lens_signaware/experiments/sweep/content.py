"""Digests of a sweep's model and text, so that other content under the same path is another sweep.

A local folder counts by the content of its files; of the readme of a text, what chooses these
counts. A model of the Hub counts by the files of its snapshot in the local cache of the Hub, where
a load leaves them. A dataset of the Hub counts by the ids of its files in the repository and by
what its readme chooses; that takes one or two requests. Where none of these can be had there is no
digest, and the name alone counts.
"""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from yaml import YAMLError

from sae_lens_signaware.files import sha256_of, write_json

DIGESTS_FILENAME = "digests.json"

# What from_pretrained reads beside the weights; the state of a trainer may lie there too.
MODEL_FILES = (
    "config.json",
    "tokenizer*",
    "chat_template*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "*.py",
)


class FileDigests:
    """Digests of files, kept in a JSON file: a file of the same size and times is not read again.

    The time of change counts as well. A copy can keep the time of modification of its source.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.known: dict[str, object] = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            self.known = {}

    def of(self, file: Path) -> str:
        """Return the SHA-256 of the content of ``file``."""
        with self._kept():
            return self._of(file)

    def of_files(self, folder: Path, files: Iterable[Path]) -> str | None:
        """Digest the names and contents of ``files`` in ``folder`` together; None without any."""
        with self._kept():
            entries = [[_name(file, folder), self._of(file)] for file in files]
        return _digest(sorted(entries)) if entries else None

    def _of(self, file: Path) -> str:
        status, key = file.stat(), str(file.absolute())
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        entry = self.known.get(key)
        if isinstance(entry, dict) and entry.get("size_mtime_ctime") == stamp:
            return entry["sha256"]
        digest = sha256_of(file)
        self.known[key] = {"size_mtime_ctime": stamp, "sha256": digest}
        return digest

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Write what was read within: once for all files, and after an interruption too."""
        before = dict(self.known)
        try:
            yield
        finally:
            if self.known != before:
                with contextlib.suppress(OSError):  # on a full disk, it is read again next time
                    write_json(self.known, self.path)


def _name(file: Path, folder: Path) -> str:
    return Path(os.path.relpath(file, folder)).as_posix()  # a gguf_file may lie elsewhere


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
        snapshot = _snapshot(_repository(name, class_name), kwargs)
        if snapshot is None:
            return None
        folder = snapshot
    if isinstance(kwargs.get("subfolder"), str):
        folder = folder / kwargs["subfolder"]
    files = {file for pattern in MODEL_FILES for file in folder.glob(pattern)}
    files.update(_weights(folder, kwargs))
    return digests.of_files(folder, filter(Path.is_file, files))


def _weights(folder: Path, kwargs: Mapping[str, Any]) -> Iterable[Path]:
    """The weights that are read. Others may be there, or come with a later download."""
    if isinstance(kwargs.get("gguf_file"), str):
        return [folder / kwargs["gguf_file"]]
    safetensors = list(folder.glob("*.safetensors"))
    if safetensors and kwargs.get("use_safetensors") is not False:
        return safetensors
    return folder.glob("pytorch_model*.bin")


def _repository(name: str, class_name: str) -> str:
    """The name on the Hub: TransformerLens has short names of its own."""
    if class_name != "HookedTransformer":
        return name
    try:
        from transformer_lens.loading_from_pretrained import get_official_model_name

        return get_official_model_name(name)
    except (ImportError, ValueError):
        return name


def _snapshot(repository: str, kwargs: Mapping[str, Any]) -> Path | None:
    from huggingface_hub import snapshot_download

    where = {name: kwargs[name] for name in ("revision", "cache_dir") if name in kwargs}
    try:
        return Path(snapshot_download(repository, local_files_only=True, **where))
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
    of_files = digests.of_files(path, [f for f in files if _is_of_text(f.relative_to(path))])
    chosen = _chosen_by_card(path / "README.md")
    return _digest([["", of_files or ""], *chosen]) if chosen else of_files


def _chosen_by_card(card: Path) -> list[list[str]]:
    """What the front matter of a dataset's card says of the files that are loaded."""
    from huggingface_hub import metadata_load

    try:
        values = metadata_load(card) or {}
    except (OSError, ValueError, YAMLError):  # no card; or one that ``datasets`` refuses too
        return []
    chosen = {name: values[name] for name in ("configs", "dataset_info") if name in values}
    return [["README.md", repr(chosen)]] if chosen else []  # keys may be of any type


def _is_of_text(path: PurePath) -> bool:
    return path.name != "README.md" and not any(part.startswith(".") for part in path.parts)


@functools.cache  # once a process: summaries ask again
def _hub_text_digest(name: str) -> str | None:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.hf_api import RepoFile

    try:
        listed = list(HfApi().list_repo_tree(name, repo_type="dataset"))
        entries = [
            [entry.path, entry.blob_id if isinstance(entry, RepoFile) else entry.tree_id]
            for entry in listed
            if _is_of_text(PurePath(entry.path))
        ]
        if any(entry.path == "README.md" for entry in listed):
            entries += _chosen_by_card(
                Path(hf_hub_download(name, "README.md", repo_type="dataset"))
            )
    except Exception:  # whatever it is: without the Hub, the name alone counts
        return None
    return _digest(sorted(entries))


def _digest(entries: list[list[str]]) -> str:
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()
