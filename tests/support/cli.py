"""The command line in this process, and what an error of it looks like."""

from typing import Any

from typer.testing import CliRunner

from sae_lens_signaware.cli import app

COMMANDS = [
    "demo",
    "train",
    "sweep",
    "protocol",
    "report",
    "push",
    "split",
    "analyze",
    "audit",
    "probe",
    "merge",
]


def invoke(*args: str) -> Any:
    return CliRunner().invoke(app, list(args))


def assert_one_line_error(result: Any, code: int, message: str) -> None:
    text = result.stderr
    assert result.exit_code == code, text
    assert message in text
    assert len(text.strip().splitlines()) == 1, text
    assert "Traceback" not in text
