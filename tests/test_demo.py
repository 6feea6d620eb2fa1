"""The demo and the train command on the real model and the real text, in small."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sae_lens import SAE

import sae_lens_signaware  # noqa: F401  registers both architectures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parent.parent
CLI = [sys.executable, "-m", "sae_lens_signaware"]
DEMO = [*CLI, "demo", "--steps", "40", "--train-tokens", "8192"]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo was interrupted in its second SAE, then run again to its end."""
    folder = tmp_path_factory.mktemp("demo")
    child = subprocess.Popen(
        [*DEMO[:3], "demo", "--steps", "3000", "--train-tokens", "8192"],
        cwd=folder,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 400
    first = folder / "demo_out" / "saes" / "sa_gsae-576-l0-32" / "demo_row.json"
    while not first.exists():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(3)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    last = err.strip().splitlines()[-1]
    assert last.startswith("Error: Interrupted. Checkpoint: demo_out/checkpoints/sa_gsae-576-l0-64")
    assert "Traceback" not in err
    (folder / "interrupted.txt").write_text(last)
    return folder


def test_demo_goes_on_after_an_interruption(folder: Path) -> None:
    checkpoint = folder / "demo_out" / "checkpoints" / "sa_gsae-576-l0-64"
    n_steps = json.loads((checkpoint / "checkpoint_complete.json").read_text())["n_training_steps"]
    assert 0 < n_steps < 3000
    assert (checkpoint / "sae_weights.safetensors").exists()
    assert (checkpoint / "trainer_state.pt").exists()


def test_demo_writes_saes_json_plot_and_table(folder: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--out", "small"], cwd=folder, env=ENV, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stderr[-2000:]
    out = folder / "small"
    result = json.loads((out / "demo.json").read_text())
    assert len(result["saes"]) == 5
    for row in result["saes"]:
        q = row["quality"]
        assert 0 < q["l0"] <= q["d_sae"]
        assert q["explained_variance"] < 1
        assert 0 <= q["dead_share"] <= 1
        assert q["loss_recovered_tokens"] == 4096
        assert row["seconds_per_step"] > 0
        assert f"{q['l0']:.1f}" in done.stdout
        loaded = SAE.load_from_disk(out / "saes" / row["name"])
        assert loaded.cfg.d_sae == q["d_sae"]
        assert loaded.cfg.metadata.hook_name == "model.layers.15.mlp"
    assert (out / "frontier.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("architecture", ["sa_gsae", "bi_jumprelu"])
def test_train_on_the_demos_model_and_text(folder: Path, architecture: str) -> None:
    config = ROOT / "configs" / f"smollm2-135m-mlp_out-{architecture}.yaml"
    done = subprocess.run(
        [
            *CLI,
            "train",
            str(config),
            *[
                "--training_tokens",
                "8192",
                "--n_batches_in_buffer",
                "4",
                "--n_batches_for_norm_estimate",
                "2",
            ],
            *["--n_eval_batches", "1", "--store_batch_size_prompts", "4"],
        ],
        cwd=folder,
        env=ENV,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    out = folder / "output" / f"smollm2-135m-mlp_out-{architecture}"
    assert SAE.load_from_disk(out).cfg.architecture() == architecture
    quality = json.loads((out / "quality.json").read_text())
    assert f"L0 {quality['l0']:.1f}" in done.stdout
    assert (out / "sparsity.safetensors").exists()


def test_train_with_a_wrong_hook_stops_before_training(folder: Path) -> None:
    config = ROOT / "configs" / "smollm2-135m-mlp_out-sa_gsae.yaml"
    done = subprocess.run(
        [*CLI, "train", str(config), "--hook_name", "model.layers.15.mlpp"],
        cwd=folder,
        env=ENV,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: hook_name: the model has no module 'model.layers.15.mlpp'")
    assert "Traceback" not in done.stderr
