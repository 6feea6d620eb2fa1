"""``-q`` and ``-v`` before a command: what it and its libraries write."""

import subprocess
import sys
from pathlib import Path

import pytest
from sae_lens import SAE

from tests.support.cli import assert_one_line_error, invoke
from tests.support.hub import save_measured
from tests.support.saes import make_sae


def test_quiet_prints_errors_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "")  # which -q sets, and this takes back
    save_measured(make_sae("sa_gsae"), tmp_path / "sae")
    args = ("split", str(tmp_path / "sae"), str(tmp_path / "plain"))
    quiet = invoke("-q", *args)
    assert quiet.exit_code == 0
    assert quiet.output == ""
    assert SAE.load_from_disk(tmp_path / "plain").cfg.d_sae == 2 * make_sae("sa_gsae").cfg.d_sae
    assert_one_line_error(invoke("--quiet", *args[:2], str(tmp_path / "plain")), 2, "plain")
    assert invoke(*args[:2], str(tmp_path / "other")).stdout  # the next command prints again


def test_quiet_and_verbose_exclude_each_other() -> None:
    result = invoke("-q", "-v", "audit", "nowhere")
    assert result.exit_code == 2
    assert "-q and -v cannot be given together; leave one out" in result.stderr


# What a library of a command writes: a message, a warning, and a progress bar.
LIBRARY = """
import logging, sys, warnings
sys.argv[0] = "/somewhere/bin/sae-lens-signaware"  # a process of ours imports tqdm later
from sae_lens_signaware.cli.errors import set_verbosity
set_verbosity(quiet=sys.argv[1] == "-q", verbose=sys.argv[1] == "-v")
logging.getLogger("sae_lens").info("a message")
warnings.warn("a warning", UserWarning)
from tqdm import tqdm
list(tqdm([1], desc="a bar"))
"""


@pytest.mark.parametrize(
    ("flag", "written"),
    [("-q", []), ("none", ["a bar"]), ("-v", ["sae_lens: a message", "a warning", "a bar"])],
)
def test_what_a_library_writes(flag: str, written: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY, flag], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    for text in ("sae_lens: a message", "a warning", "a bar"):
        assert (text in done.stderr) == (text in written)
