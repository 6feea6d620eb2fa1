"""The environments of the tools do not fill up a disk that outlives a run of the tests."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.environments import remove_orphans


def environment_by(python: Path, folder: Path) -> Path:
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder


@pytest.mark.skipif(sys.version_info < (3, 11), reason="venv does not note its maker before 3.11")
def test_environments_over_one_that_is_gone_are_removed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    remove_orphans(cache)  # there is none yet
    run = environment_by(Path(sys.executable), tmp_path / "a run")
    orphan = environment_by(run / "bin" / "python", cache / "orphan")
    kept = environment_by(Path(sys.executable), cache / "kept")
    remove_orphans(cache)
    assert orphan.exists()
    run.rename(tmp_path / "gone")
    remove_orphans(cache)
    assert not orphan.exists()
    assert (kept / "bin" / "python").exists()
