"""Result files below a folder, read by the dataclasses that wrote them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sae_lens_signaware.checks import ConfigError, one_line
from sae_lens_signaware.experiments.protocols.result import ProtocolResult
from sae_lens_signaware.experiments.sweep.latent_results import SAELatents
from sae_lens_signaware.experiments.sweep.store import LATENTS_FOLDER, SUMMARY_FILENAME
from sae_lens_signaware.experiments.sweep.summary import SweepSummary

ABLATIONS = "ablations"

T = TypeVar("T")


@dataclass(frozen=True)
class Sweep:
    """A sweep, and its name on the page.

    Attributes:
        name: of its folder; the path below RESULTS where two folders share a name.
        ablations: whether its folder is called ``ablations``.
    """

    name: str
    ablations: bool
    summary: SweepSummary


@dataclass(frozen=True)
class LabelledLatents:
    """The latents of one SAE, and its names on the page.

    Attributes:
        sweep: name of the sweep; empty where all latents are of one.
        sae: name of the SAE in its sweep.
        name: unique in its cell.
        label: unique on the page.
    """

    sweep: str
    sae: str
    name: str
    label: str
    latents: SAELatents


@dataclass(frozen=True)
class Results:
    """All results below a folder; ablations come after the other sweeps."""

    folder: Path
    sweeps: list[Sweep]
    latents: list[LabelledLatents]
    protocols: list[ProtocolResult]

    @property
    def sae_names(self) -> list[str]:
        """Every SAE once, in the order of the page: an SAE has one colour all over it."""
        names = [r.sae for sweep in self.sweeps for r in sweep.summary.results]
        return list(dict.fromkeys([*names, *(one.sae for one in self.latents)]))


def read_results(folder: Path) -> Results:
    """Read every ``sweep.json``, ``latents/*.json`` and ``protocol-*.json`` below a folder.

    Files in the folder itself count as well.

    Raises:
        ConfigError: no folder, none of these in it, or one that cannot be read; one line.
    """
    _require_folder(folder)
    pages = _read_latents(folder)
    summaries = _read_all(SweepSummary.read, _named(SUMMARY_FILENAME, folder))
    named = [path for path in _named("protocol-*.json", folder) if path not in pages]
    protocols = _read_all(ProtocolResult.read, named)
    if not (summaries or pages or protocols):
        raise ConfigError(
            f"RESULTS: {str(folder)!r} holds no {SUMMARY_FILENAME}, latents/*.json or "
            "protocol-*.json; sae-lens-signaware sweep CONFIG.yaml --out FOLDER writes them"
        )
    names = _names([path.parent for path in summaries], folder)
    sweeps = [
        Sweep(name, path.parent.resolve().name == ABLATIONS, summary)
        for name, (path, summary) in zip(names, summaries.items(), strict=True)
    ]
    return Results(
        folder=folder,
        sweeps=sorted(sweeps, key=lambda sweep: sweep.ablations),
        latents=_labelled(pages, folder),
        protocols=list(protocols.values()),
    )


def read_latents(folder: Path) -> list[LabelledLatents]:
    """Read every ``latents/*.json`` at or below a folder, which may be ``latents`` itself.

    Raises:
        ConfigError: no folder, no latents in it, or a file that cannot be read; one line.
    """
    _require_folder(folder)
    pages = _read_latents(folder)
    if not any(latents.pages for latents in pages.values()):
        raise ConfigError(
            f"RESULTS: {str(folder)!r} holds no latents/*.json with a latent in it; a sweep whose "
            "CONFIG.yaml has `latents` writes them"
        )
    return _labelled(pages, folder)


def read_latents_file(path: Path) -> SAELatents:
    """Read one file of latents.

    Raises:
        ConfigError: ``path`` is no such file; one line.
    """
    return _read_all(SAELatents.read, [path])[path]


def _named(pattern: str, folder: Path) -> list[Path]:
    """Files of that name; what a sweep writes beside a cache has the name of the cell."""
    paths = sorted(folder.rglob(pattern))
    return [path for path in paths if not path.with_suffix(".safetensors").exists()]


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(f"RESULTS: must be a folder that a sweep wrote, got {str(folder)!r}")


def _read_latents(folder: Path) -> dict[Path, SAELatents]:
    paths = sorted(path for path in folder.rglob("*.json") if _has_latents(path.parent))
    return _read_all(SAELatents.read, paths)


def _has_latents(folder: Path) -> bool:
    """Whether a sweep writes its latents there, and nothing else that is called "latents"."""
    if folder.resolve().name != LATENTS_FOLDER or (folder / SUMMARY_FILENAME).is_file():
        return False  # the second is a sweep's own folder
    # an SAE's results of its runs; a sweep may be in such a place as well, and has its summary
    is_of_runs = re.search("/runs/[^/]+/seed-[^/]+/latents$", folder.absolute().as_posix())
    return is_of_runs is None or (folder.parent / SUMMARY_FILENAME).is_file()


def _read_all(read: Callable[[Path], T], paths: list[Path]) -> dict[Path, T]:
    contents = {}
    for path in paths:
        try:
            contents[path] = read(path)
        except (ValueError, TypeError, KeyError, OSError) as error:
            message = one_line(error)
            message = message if message.startswith(str(path)) else f"{path}: {message}"
            raise ConfigError(f"RESULTS: {message}; it must be a file that a run wrote") from None
    return contents


def _names(folders: list[Path], root: Path) -> list[str]:
    short = [folder.resolve().name for folder in folders]
    return [
        name if short.count(name) == 1 else str(folder.relative_to(root))
        for name, folder in zip(short, folders, strict=True)
    ]


def _labelled(pages: dict[Path, SAELatents], root: Path) -> list[LabelledLatents]:
    folders = list(dict.fromkeys(path.parent.parent for path in pages))  # of the sweeps
    names = dict(zip(folders, _names(folders, root), strict=True))
    labelled = []
    for path, latents in pages.items():
        # a run is called cell/seed/sae/field-value, and the names may hold slashes of their own
        _, _, rest = latents.run.removeprefix(f"{latents.cell}/").partition("/")
        sae, _, value = rest.rpartition("/")
        sae = sae or latents.run
        sweep = names[path.parent.parent] if len(names) > 1 else ""
        name = " · ".join(filter(None, (sweep, sae, value)))
        labelled.append(LabelledLatents(sweep, sae, name, f"{latents.cell} · {name}", latents))
    return labelled
