"""The files of a folder of results that the page shows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sae_lens_signaware.checks import InvalidInputError, one_line

if TYPE_CHECKING:
    from sae_lens_signaware.report.latents import LatentPages
    from sae_lens_signaware.sweep.results import SweepSummary

T = TypeVar("T")


@dataclass(frozen=True)
class Results:
    """All results below a folder, each under the name that the page gives it.

    Attributes:
        sweeps: name -> ``sweep.json``.
        latents: name -> one file of ``latents/``.
    """

    sweeps: dict[str, "SweepSummary"]
    latents: dict[str, "LatentPages"]

    @property
    def saes(self) -> list[str]:
        """Every SAE of the sweeps once: an SAE has one colour all over the page."""
        return list(dict.fromkeys(r.sae for s in self.sweeps.values() for r in s.results))


def read_results(folder: Path) -> Results:
    """Read ``sweep.json`` and ``latents/*.json`` in a folder and below it.

    Args:
        folder: what a sweep wrote, a folder of several, or a folder ``latents`` itself.

    Raises:
        InvalidInputError: no such folder, nothing of these in it, or a file that is none of them.
    """
    if not folder.is_dir():
        raise InvalidInputError(f"RESULTS must be a folder that a sweep wrote, got {str(folder)!r}")
    sweeps = sorted(folder.rglob("sweep.json"))
    latents = sorted(p for p in folder.rglob("*.json") if p.resolve().parent.name == "latents")
    if not sweeps and not latents:
        raise InvalidInputError(f"RESULTS: {str(folder)!r} holds no sweep.json or latents/*.json")
    # where there are several sweeps, each file says of which it is
    several = len({p.parent for p in sweeps} | {p.parent.parent for p in latents}) > 1
    named = {}
    for path in latents:
        found = read_latents(path)
        sweep = f"{_name(path.parent.parent, folder)} · " if several else ""
        named[f"{sweep}{found.name}"] = found
    return Results({_name(p.parent, folder): read_sweep(p) for p in sweeps}, named)


def read_sweep(path: Path) -> "SweepSummary":
    """Read the ``sweep.json`` of a sweep.

    Raises:
        InvalidInputError: it is no such file.
    """
    from sae_lens_signaware.sweep.results import SweepSummary

    return _read(path, SweepSummary.read)


def read_latents(path: Path) -> "LatentPages":
    """Read a file of latents.

    Raises:
        InvalidInputError: it is no such file.
    """
    from sae_lens_signaware.report.latents import LatentPages

    return _read(path, LatentPages.read)


def _read(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} is no file of a sweep: {one_line(error)}") from None


def _name(folder: Path, root: Path) -> str:
    relative = folder.relative_to(root) if folder.is_relative_to(root) else Path()
    return folder.resolve().name if relative == Path() else relative.as_posix()
