"""Texts that persons have rated from -4 (negative) to 4 (positive), from vaderSentiment's sdist.

The ratings are those of Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment
Analysis of Social Media Text", ICWSM 2014; a text's label is the mean of its raters.
"""

import hashlib
import html
import io
import math
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from sae_lens_signaware.checks import ConfigError, one_line
from sae_lens_signaware.experiments.opposites.write import Row

PACKAGE = "vaderSentiment==3.2.1"
SDIST = "vaderSentiment-3.2.1.tar.gz"
ARCHIVE = "hutto_ICWSM_2014.tar.gz"
FILES = {
    "valence_movies": "movieReviewSnippets_GroundTruth.txt",
    "valence_tweets": "tweets_GroundTruth.txt",
    "valence_products": "amazonReviewSnippets_GroundTruth.txt",
    "valence_editorials": "nytEditorialSnippets_GroundTruth.txt",
}
MAX_BYTES = 100_000_000
"""Size of a file in the archives; the largest that is read has 1.4 MB."""


def fetch_sdist(folder: Path) -> Path:
    """Fetch the sdist into ``folder`` with pip, unless it is there.

    Raises:
        ConfigError: pip failed.
    """
    path = folder / SDIST
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        call = [*pip, "--no-binary", ":all:", "--dest", str(folder), PACKAGE]
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode != 0 or not path.exists():
            raise ConfigError(f"vader: pip did not fetch {PACKAGE}: {one_line(done.stderr)[-300:]}")
    return path


def rated_texts(sdist: Path) -> dict[str, list[Row]]:
    """Read the four sets of rated texts.

    The texts of one review or editorial are in one part. Of equal texts the first is taken.

    Raises:
        ConfigError: the file is no such archive; or it holds a path that leads out of it, or a
            link.
    """
    outer = _members(sdist, _read(sdist))
    (inner,) = _named(outer, ARCHIVE, sdist)
    files = _members(f"{sdist}: {ARCHIVE}", inner)
    try:
        texts = {
            name: _named(files, file, sdist)[0].decode("utf-8") for name, file in FILES.items()
        }
    except UnicodeDecodeError as error:
        raise ConfigError(f"vader: {sdist} must hold texts in UTF-8: {error}") from None
    return {name: _rows(name, texts[name], file) for name, file in FILES.items()}


def _read(sdist: Path) -> bytes:
    try:
        return sdist.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"vader: {sdist} is no file; it should be {SDIST}") from None


def _members(source: object, content: bytes) -> dict[str, bytes]:
    """The files of a tar archive, by path; nothing is written to the disk."""
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or "\\" in member.name:
                    raise ConfigError(f"vader: {source} holds an unsafe path: {member.name!r}")
                if not (member.isfile() or member.isdir()):
                    raise ConfigError(f"vader: {source} holds a link or a device: {member.name!r}")
                if member.size > MAX_BYTES:
                    raise ConfigError(f"vader: {source} holds a file too large: {member.name!r}")
                file = archive.extractfile(member)
                if file is not None:
                    files[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"vader: {source} is no tar archive: {error}") from None
    return files


def _named(files: dict[str, bytes], name: str, sdist: Path) -> list[bytes]:
    held = [content for path, content in files.items() if PurePosixPath(path).name == name]
    if len(held) != 1:
        raise ConfigError(f"vader: {sdist} must hold one file {name}, got {len(held)}")
    return held


def _rows(name: str, content: str, file: str) -> list[Row]:
    rows: dict[str, Row] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        identifier, rating, text = _fields(line)
        if not math.isfinite(rating):
            raise ConfigError(f"vader: {file}, line {number} must be an id, a rating and a text")
        text = html.unescape(text).strip()
        document = identifier.split("_")[0]
        if text and text not in rows:
            rows[text] = Row(text, repr(rating), _part(f"{name}/{document}"))
    return list(rows.values())


def _fields(line: str) -> tuple[str, float, str]:
    """The id, the rating and the text of a line; a rating of NaN where it has none."""
    try:
        identifier, rating, text = line.split("\t", 2)
        return identifier, float(rating), text
    except ValueError:
        return "", math.nan, ""


def _part(document: str) -> str:
    """A half that is drawn by the name of the document, and so the same everywhere."""
    return "fit" if hashlib.sha256(document.encode()).digest()[0] % 2 else "report"
