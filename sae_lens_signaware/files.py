"""Files that appear complete or not at all."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError, one_line


def _write(path: str | Path, write: Callable[[Path], object]) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    partial = Path(name)
    try:
        write(partial)
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_text(text: str, path: str | Path) -> None:
    """Write UTF-8 text; a reader sees the whole file or none."""
    _write(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(data: object, path: str | Path) -> None:
    """Write JSON; NaN is refused, since it is none."""
    write_text(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_tensors(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a safetensors file."""
    from safetensors.torch import save_file

    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    _write(path, lambda partial: save_file(contiguous, partial))


def sha256_of(path: str | Path) -> str:
    """Hexadecimal digest of a file's content."""
    with Path(path).open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else hashlib.sha256(file.read()).hexdigest()
        )


def require_writable(field: str, path: str | Path) -> None:
    """Raise InvalidInputError where a file or folder cannot be made at ``path``. Leaves nothing."""
    path = Path(path)
    place = path if path.is_dir() else path.parent
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InvalidInputError(f"{field}: {path} cannot be written: {one_line(error)}") from None


def require_new(field: str, path: str | Path) -> None:
    """Raise InvalidInputError where something is at ``path``, or nothing can be made."""
    if os.path.lexists(path):
        raise InvalidInputError(f"{field}: {path} exists already; name a new one")
    require_writable(field, path)
