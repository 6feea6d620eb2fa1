"""Errors of the command line that are one line."""

import pytest
import torch
import typer

from sae_lens_signaware.cli.errors import reports_errors


@pytest.mark.parametrize("error", [None, MemoryError(), RuntimeError("CUDA out of memory. Tried")])
def test_too_little_memory_is_one_line(
    error: Exception | None, capsys: pytest.CaptureFixture[str]
) -> None:
    @reports_errors
    def command() -> None:
        if error is not None:
            raise error
        torch.empty(10**15)

    with pytest.raises(typer.Exit) as stopped:
        command()
    assert stopped.value.exit_code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: out of memory: ")


def test_a_missing_login_of_wandb_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from wandb.errors import UsageError

    @reports_errors
    def command() -> None:
        raise UsageError("No API key configured. Use `wandb login` to log in.")

    with pytest.raises(typer.Exit) as stopped:
        command()
    assert stopped.value.exit_code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: W&B: No API key configured.")
    assert line.endswith("; logger.log_to_wandb: false trains without it")
