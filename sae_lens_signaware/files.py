"""Files that appear whole or not at all: written under a temporary name, then renamed."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` unless something is raised.

    A link stays one, and what it leads to is replaced.

    Raises:
        OSError: ``path`` is a device or a pipe, in whose place the file would be put.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(f"{path} is a device or a pipe; name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name
    if len(os.fsencode(name)) > 200:  # of 255, and the temporary name is longer
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(tensors: "dict[str, Tensor]", path: str | Path) -> None:
    """Write a safetensors file; a reader sees the whole file or none."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file(tensors, temporary)


def write_json(value: object, path: str | Path, indent: int | None = 2) -> None:
    """Write JSON; a reader sees the whole file or none.

    Raises:
        ValueError: a NaN or an inf, which is not JSON.
    """
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=indent, allow_nan=False) + "\n", encoding="utf-8"
        )


def as_json(value: Any) -> Any:
    """The value as it is read back from a file: JSON has no tuples, and its keys are texts."""
    return json.loads(json.dumps(value))


def write_text(text: str, path: str | Path) -> None:
    """Write UTF-8; half a surrogate pair, which no file can hold, becomes a question mark."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content, read in pieces."""
    digest = hashlib.sha256()  # hashlib.file_digest came with Python 3.11
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
