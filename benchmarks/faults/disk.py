"""A disk that fills up while something is saved: a small tmpfs, filled but for a few blocks."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sae_lens import SAE
from safetensors import SafetensorError
from typer.testing import CliRunner

from sae_lens_signaware.cli import app
from sae_lens_signaware.files import write_json
from sae_lens_signaware.training.cached import InterruptedTraining
from sae_lens_signaware.training.runner import find_checkpoint

from .cached import equal, interrupt, serving, train_cached
from .runner import require_loadable, train_runner
from .small import make_sae

# What the libraries raise for ENOSPC: Python, safetensors, torch.save.
DISK_ERRORS = (OSError, SafetensorError, RuntimeError)


@contextlib.contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path | None]:
    """A tmpfs of so many KiB, or None where this user may not mount one."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    if (
        not sys.platform.startswith("linux")
        or subprocess.run(mount, capture_output=True).returncode
    ):
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def fill(folder: Path, leave: int) -> Path:
    """Take all of the disk but ``leave`` bytes."""
    free = shutil.disk_usage(folder).free
    (folder / "filler").write_bytes(bytes(max(0, free - leave)))
    return folder / "filler"


def full_while_cached_training_saves(folder: Path, disk: Path) -> None:
    """The earlier checkpoint stays, and resumes to the undisturbed end."""
    whole = train_cached("sa_gsae", "full", folder / "whole")
    run = disk / "run"
    for step in (40, 60):
        try:
            with serving(step, interrupt):
                train_cached("sa_gsae", "full", run)
        except InterruptedTraining:
            assert step == 40, "saved on a full disk"
        except DISK_ERRORS:
            assert step == 60
        filler = fill(disk, leave=8192)
    filler.unlink()
    assert not list(run.glob(".*")), "half-written files"
    assert equal(train_cached("sa_gsae", "full", run), whole)


def full_while_the_runner_saves(disk: Path) -> int:
    """Write checkpoints until the disk is full; those before it are whole, the newest is found."""
    try:
        train_runner(disk / "runner")
    except DISK_ERRORS:
        find_checkpoint(disk / "runner")
        assert not (disk / "runner" / "out").exists()
        return require_loadable(disk / "runner")
    raise AssertionError("the disk is too large")


def full_while_a_command_writes(folder: Path, disk: Path) -> None:
    """``split`` says so in one line and leaves nothing; JSON that was there stays."""
    make_sae("sa_gsae").save_model(folder / "sae")
    write_json([1], disk / "x.json")
    filler = fill(disk, leave=4096)
    before = sorted(disk.iterdir())
    result: Any = CliRunner().invoke(app, ["split", str(folder / "sae"), str(disk / "plain")])
    assert result.exit_code == 1, result.exception
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    try:
        write_json(list(range(100_000)), disk / "x.json")
    except OSError:
        assert (disk / "x.json").read_text() == "[\n  1\n]\n"
    else:
        raise AssertionError("the disk is not full")
    assert sorted(disk.iterdir()) == before
    filler.unlink()
    assert (
        CliRunner().invoke(app, ["split", str(folder / "sae"), str(disk / "plain")]).exit_code == 0
    )
    SAE.load_from_disk(disk / "plain")


def full_disk(folder: Path) -> dict[str, int] | None:
    """All of the above on one disk after another; None where this user may not mount a tmpfs."""
    seen: dict[str, int] = {}
    with small_disk(folder / "disk-1", kib=256) as disk:
        if disk is None:
            return None
        full_while_cached_training_saves(folder, disk)
    with small_disk(folder / "disk-2", kib=512) as disk:
        assert disk is not None
        seen["checkpoints of before, whole"] = full_while_the_runner_saves(disk)
    with small_disk(folder / "disk-3", kib=128) as disk:
        assert disk is not None
        full_while_a_command_writes(folder, disk)
    return {"writers": 4} | seen
