"""Texts of natural opposites: balanced, without shared words that tell, and safely unpacked."""

import csv
import io
import json
import random
import re
import subprocess
import sys
import tarfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sae_lens_signaware.checks import ConfigError, InvalidInputError
from sae_lens_signaware.experiments.opposites import __main__ as command
from sae_lens_signaware.experiments.opposites import rated
from sae_lens_signaware.experiments.opposites.templates import OPPOSITES, template_texts

SETS = {name: template_texts(opposite) for name, opposite in OPPOSITES.items()}
each_set = pytest.mark.parametrize("name", SETS)


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text)


@each_set
def test_parts_and_classes_are_of_equal_size_and_no_text_is_there_twice(name: str) -> None:
    rows, opposite = SETS[name], OPPOSITES[name]
    counts = Counter((row.part, row.label) for row in rows)
    assert counts == {
        (part, label): 150 for part in ("fit", "report") for label in (opposite.low, opposite.high)
    }
    assert len({row.text for row in rows}) == len(rows) == 600
    assert not any("{" in row.text or "/" in row.text for row in rows)


@each_set
def test_no_word_of_both_parts_tells_the_class(name: str) -> None:
    rows, opposite = SETS[name], OPPOSITES[name]
    used = {
        (part, label): Counter(
            word
            for row in rows
            if (row.part, row.label) == (part, label)
            for word in words(row.text)
        )
        for part in ("fit", "report")
        for label in (opposite.low, opposite.high)
    }
    low, high = used["fit", opposite.low], used["fit", opposite.high]
    in_both_parts = (low.keys() | high.keys()) & (
        used["report", opposite.low].keys() | used["report", opposite.high].keys()
    )
    assert {word for word in in_both_parts if low[word] != high[word]} == set()
    # and what they share are the words of the frames
    frames = " ".join(opposite.fit.frames + opposite.report.frames)
    assert in_both_parts <= set(words(frames))


@each_set
def test_the_two_texts_of_a_pair_have_the_same_items(name: str) -> None:
    rows, opposite = SETS[name], OPPOSITES[name]
    for low, high in zip(rows[::2], rows[1::2], strict=True):
        assert (low.label, high.label) == (opposite.low, opposite.high)
        assert low.part == high.part
        assert low.text.split()[-1].lower() == high.text.split()[-1].lower()


def test_a_seed_gives_the_same_texts_and_too_many_pairs_are_refused() -> None:
    tense = OPPOSITES["tense"]
    assert template_texts(tense) == SETS["tense"]
    assert template_texts(tense, seed=1) != SETS["tense"]
    with pytest.raises(InvalidInputError, match="of present and past must be from 1 to 512"):
        template_texts(tense, 513)


def tar(files: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = content if isinstance(content, bytes) else b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def truths(**lines: str) -> dict[str, bytes | tarfile.TarInfo]:
    plain = dict.fromkeys(rated.FILES, "1\t0.5\tone\r\n2\t-1\ttwo\r\n")
    return {f"x/{rated.FILES[name]}": text.encode() for name, text in (plain | lines).items()}


def sdist(folder: Path, inner: dict[str, bytes | tarfile.TarInfo], **outer: Any) -> Path:
    path = folder / rated.SDIST
    path.write_bytes(tar({f"v/additional_resources/{rated.ARCHIVE}": tar(inner), **outer}))
    return path


def test_ratings_are_read_with_documents_in_one_part(tmp_path: Path) -> None:
    lines = [f"{n // 3}_{n % 3}\t{n / 10 - 2}\tsnippet {n} &amp; more\r\n" for n in range(60)]
    repeated = "99_1\t4\tsnippet 0 &amp; more\r\n98_1\t-4\t \r\n"
    path = sdist(tmp_path, truths(valence_products="".join(lines) + repeated))
    sets = rated.rated_texts(path)
    assert [row.text for row in sets["valence_movies"]] == ["one", "two"]
    assert [float(row.label) for row in sets["valence_movies"]] == [0.5, -1]
    rows = sets["valence_products"]
    assert [row.text for row in rows] == [f"snippet {n} & more" for n in range(60)]
    assert [float(row.label) for row in rows] == [n / 10 - 2 for n in range(60)]
    parts = [{row.part for row in rows[n : n + 3]} for n in range(0, 60, 3)]
    assert all(len(part) == 1 for part in parts)
    assert {"fit", "report"} == set.union(*parts)


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"../evil.txt": b"x"}, "unsafe path: '../evil.txt'"),
        ({"/evil.txt": b"x"}, "unsafe path: '/evil.txt'"),
        ({"x/..\\evil.txt": b"x"}, "unsafe path"),
        ({"x/link": link("x/link")}, "holds a link or a device: 'x/link'"),
    ],
)
@pytest.mark.parametrize("is_inner", [True, False])
def test_unsafe_archives_are_refused(
    extra: dict[str, Any], message: str, is_inner: bool, tmp_path: Path
) -> None:
    inner, outer = (truths() | extra, {}) if is_inner else (truths(), extra)
    with pytest.raises(ConfigError) as caught:
        rated.rated_texts(sdist(tmp_path, inner, **outer))
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [rated.SDIST]


def test_what_is_no_such_archive_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no file; it should be vaderSentiment-3\.2\.1"):
        rated.rated_texts(tmp_path / "no.tar.gz")
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match="is no tar archive"):
        rated.rated_texts(broken)
    broken.write_bytes(tar(truths()))
    with pytest.raises(ConfigError, match="must hold one file hutto_ICWSM_2014"):
        rated.rated_texts(broken)
    latin = {f"x/{rated.FILES['valence_tweets']}": "1\t0.5\tcaf\xe9\r\n".encode("latin-1")}
    with pytest.raises(ConfigError, match="must hold texts in UTF-8: 'utf-8' codec"):
        rated.rated_texts(sdist(tmp_path, truths() | latin))
    for line in ("1\t0.5\r\n", "1\tnan\ttext\r\n", "1\tgood\ttext\r\n"):
        with pytest.raises(ConfigError, match="line 1 must be an id, a rating and a text"):
            rated.rated_texts(sdist(tmp_path, truths(valence_tweets=line)))


def test_an_archive_that_is_damaged_far_behind_its_start_is_one_line(tmp_path: Path) -> None:
    member, compress = tarfile.TarInfo("text"), zlib.compressobj(wbits=31)
    member.size = 2**20
    whole = compress.compress(member.tobuf() + random.Random(0).randbytes(2**19))
    whole += compress.flush(zlib.Z_SYNC_FLUSH)
    path = tmp_path / "damaged.tar.gz"
    path.write_bytes(whole + b"\xff" * 50)  # a block of a kind that there is not
    with pytest.raises(
        ConfigError, match=r"^vader: .* is no tar archive: Error -3 .* invalid block"
    ):
        rated.rated_texts(path)


def test_pip_is_not_asked_for_what_is_there_and_its_failure_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def fails(call: list[str], **_: Any) -> Any:
        calls.append(call)
        return subprocess.CompletedProcess(call, 1, "", "ERROR: no\nnetwork")

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(ConfigError, match=r"vaderSentiment==3\.2\.1: ERROR: no network"):
        rated.fetch_sdist(tmp_path / "new")
    assert calls[0][-3:] == ["--dest", str(tmp_path / "new"), "vaderSentiment==3.2.1"]
    path = sdist(tmp_path, truths())
    assert rated.fetch_sdist(tmp_path) == path
    assert len(calls) == 1


def test_the_command_writes_all_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sdist(tmp_path, truths())
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["x", str(out), "--vader", str(tmp_path), "--pairs", "20"])
    command.main()
    held = json.loads((out / "opposites.json").read_text())
    assert set(held) == {*OPPOSITES, *rated.FILES}
    assert held["tense"]["n_texts"] == {"fit": 40, "report": 40}
    with (out / "formality.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = template_texts(OPPOSITES["formality"], 20)
    assert [tuple(row.values()) for row in rows] == [tuple(row) for row in expected]
    for wrong in ([str(out), "--pairs", "0"], [str(out / "opposites.json")]):
        monkeypatch.setattr(sys, "argv", ["x", *wrong])
        with pytest.raises(SystemExit) as caught:
            command.main()
        assert caught.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
