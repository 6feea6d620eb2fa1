"""Files: looked at before anything heavy is imported, and written complete or not at all.

Nothing here imports torch or sae_lens, which take seconds.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from sae_lens_signaware.checks import InvalidInputError, nearest, one_line, require

if TYPE_CHECKING:
    from torch import Tensor


def _write(path: str | Path, write: Callable[[Path], object]) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        partial = Path(folder) / path.name
        write(partial)
        partial.replace(path)


def write_text(text: str, path: str | Path) -> None:
    """Write UTF-8 text; a reader sees the whole file or none."""
    _write(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(data: object, path: str | Path) -> None:
    """Write JSON; NaN is refused, since it is none."""
    write_text(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_tensors(tensors: Mapping[str, "Tensor"], path: str | Path) -> None:
    """Write a safetensors file."""
    from safetensors.torch import save_file

    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    _write(path, lambda partial: save_file(contiguous, partial))


def sha256_of(path: str | Path) -> str:
    """Hexadecimal digest of a file's content."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_sae(reference: str | Path) -> None:
    """Raise InvalidInputError unless it is the folder of an SAE, or looks like REPO:ID."""
    folder = Path(reference)
    if not folder.is_dir():
        if ":" in str(reference):
            return
        raise InvalidInputError(f"SAE: {folder} is no folder that exists, and no REPO:ID")
    for name in ("cfg.json", "sae_weights.safetensors"):
        if not (folder / name).is_file():
            raise InvalidInputError(f"SAE: {folder} has no {name}")


def require_tensor(field: str, path: str | Path, key: str) -> None:
    """Raise InvalidInputError unless ``path`` is a safetensors file with the tensor ``key``."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            names = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise InvalidInputError(f"{field}: {path}: {one_line(error)}") from None
    if key not in names:
        near = nearest(key, names) or f"; it has {', '.join(names)}"
        raise InvalidInputError(f"{field}: {path} has no tensor {key!r}{near}")


def require_writable(field: str, path: str | Path) -> None:
    """Raise InvalidInputError unless ``path`` can be made a folder and written to."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InvalidInputError(f"{field}: {path} cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def only_one(field: str, path: str | None) -> Iterator[None]:
    """Hold ``path`` for this process; InvalidInputError where another one does. None is free."""
    name = hashlib.sha256(str(Path(path).resolve() if path else os.getpid()).encode()).hexdigest()
    try:
        with FileLock(Path(tempfile.gettempdir()) / f"{name}.lock", blocking=False):
            yield
    except Timeout:
        raise InvalidInputError(f"{field}: another process is writing to {path}") from None


def require_new(field: str, path: str | Path) -> None:
    """Raise InvalidInputError where something is at ``path``, or no folder can be made."""
    if os.path.lexists(path):
        raise InvalidInputError(f"{field}: {path} exists already; name a new one")
    require_writable(field, path)


def require_file_target(field: str, path: Path | None) -> None:
    """Raise InvalidInputError unless a file can be written; its folder may be a typo: not made."""
    if path is None:
        return
    is_free = path.parent.is_dir() and not path.is_dir()
    require(is_free, field, str(path), "a file in a folder that exists")
    require_writable(field, path.parent)
