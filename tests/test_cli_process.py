"""The command line as a process: how it starts, what it loads, and what it knows."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import COMMANDS
from tests.support.saes import make_sae

# What a process has loaded that stands for our command line, after each of some calls.
LOADED_BY_HELP = """
import json, sys
sys.argv[0] = "/somewhere/bin/sae-lens-signaware"
from typer.testing import CliRunner
from sae_lens_signaware.cli import app
heavy = ("torch", "sae_lens", "transformers", "huggingface_hub", "numpy", "datasets")
loaded = {}
for args in json.loads(sys.argv[1]):
    assert CliRunner().invoke(app, args).exit_code == 0, args
    loaded[" ".join(args)] = [name for name in heavy if name in sys.modules]
print(json.dumps(loaded))
"""


def test_help_and_version_load_no_library_that_takes_seconds() -> None:
    calls = [["--version"], ["-h"], ["--help"], *([command, "--help"] for command in COMMANDS)]
    loaded = json.loads(run_python("-c", LOADED_BY_HELP, json.dumps(calls)).stdout)
    assert loaded == {" ".join(args): [] for args in calls}


def run_python(*args: str) -> Any:
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_python_m_answers_for_help_without_torch() -> None:
    done = run_python("-X", "importtime", "-m", "sae_lens_signaware", "train", "--help")
    assert "Usage: python -m sae_lens_signaware train" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "sae_lens_signaware.cli.training" in imported
    assert not imported & {"torch", "sae_lens", "transformers"}


SCRIPT = str(Path(sysconfig.get_path("scripts")) / "sae-lens-signaware")


@pytest.mark.slow  # the next test is one of this by default
@pytest.mark.parametrize(
    "program", [[sys.executable, "-m", "sae_lens_signaware"], [SCRIPT]], ids=["module", "script"]
)
def test_a_process_of_its_own_knows_the_architectures(program: list[str], tmp_path: Path) -> None:
    make_sae("bi_jumprelu").save_model(tmp_path / "sae")
    call = [*program, "split", str(tmp_path / "sae"), str(tmp_path / "plain")]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bi_jumprelu of width 24 -> jumprelu of width 48" in done.stdout


@pytest.mark.slow
def test_what_the_encoding_of_the_output_lacks_is_escaped(tmp_path: Path) -> None:
    make_sae("bi_jumprelu").save_model(tmp_path / "sae")
    done = subprocess.run(
        [SCRIPT, "split", str(tmp_path / "sae"), str(tmp_path / "ü 漢")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"},  # the latter of paths
    )
    assert done.returncode == 0, done.stderr
    assert "\\xfc \\u6f22; latent i is" in done.stdout


@pytest.mark.slow
def test_another_module_with_our_name_as_its_argument_knows_them_too(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text("import sae_lens_signaware\n")
    (tmp_path / "other" / "__main__.py").write_text(
        "from sae_lens.registry import SAE_CLASS_REGISTRY\nprint('sa_gsae' in SAE_CLASS_REGISTRY)\n"
    )
    # Python imports the package while it looks for the module, before it knows the arguments
    call = [sys.executable, "-m", "other", "sae_lens_signaware"]
    done = subprocess.run(
        call,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["demo", "--steps", "5"], "'--steps'"),
        (["foo"], "No such command 'foo'."),
        (["analyze", "toy", "--bogus", "3"], "--bogus"),
        (["report"], "Missing argument"),
        (["-q", "-v", "demo"], "-q and -v cannot be given together"),
        (
            ["--import", "no_such_module", "train", "c.yaml"],
            "--import no_such_module: ModuleNotFoundError: No module named 'no_such_module'",
        ),
    ],
)
def test_what_the_parser_refuses_is_one_line(args: list[str], line: str) -> None:
    call = [sys.executable, "-m", "sae_lens_signaware", *args]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert line in done.stderr


def test_without_a_command_the_help_is_printed() -> None:
    call = [sys.executable, "-m", "sae_lens_signaware"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert "Commands" in done.stdout + done.stderr
    assert "Error" not in done.stderr
