"""The demo and the train command on the real model and the real text, in small."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation import nearest_antipodal_pair
from sae_lens_signaware.experiments import demo_data
from sae_lens_signaware.experiments.sweep.summary import SweepSummary
from tests.support.gguf_files import each_read_once

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parent.parent
CLI = [sys.executable, "-m", "sae_lens_signaware"]
DEMO = [*CLI, "demo", "--steps", "40", "--train-tokens", "8192"]
STOPPED_STEPS = 400  # of the demo that is interrupted; 80 can be over before the signal comes
RUNS = Path("mlp_out", "seed-0")  # below the folders of results, SAEs and checkpoints
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo was interrupted in its second SAE."""
    folder = tmp_path_factory.mktemp("demo")
    child = subprocess.Popen(
        [*CLI, "demo", "--steps", str(STOPPED_STEPS), "--train-tokens", "8192"],
        cwd=folder,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 800
        first = folder / "demo_out" / "runs" / RUNS / "signed" / "k-32.json"
        while not first.exists():
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(2)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()  # else it goes on beside the tests that follow
    assert child.returncode == 130
    last = err.strip().splitlines()[-1]
    assert last == "Error: Interrupted. Run the same command again to go on from there."
    assert "Traceback" not in err
    # a later demo in the same folder removes it
    shutil.copytree(folder / "demo_out" / "checkpoints" / RUNS, folder / "checkpoints")
    return folder


def test_demo_goes_on_after_an_interruption(folder: Path) -> None:
    checkpoint = folder / "checkpoints" / "signed" / "k-64"
    n_steps = json.loads((checkpoint / "checkpoint_complete.json").read_text())["n_training_steps"]
    assert 0 < n_steps < STOPPED_STEPS
    assert (checkpoint / "sae_weights.safetensors").exists()
    assert (checkpoint / "trainer_state.pt").exists()


@pytest.fixture(scope="module")
def small(folder: Path) -> tuple[Path, str]:
    """Output folder and standard output of a whole demo of 40 steps, on the activations there."""
    done = subprocess.run(DEMO, cwd=folder, env=ENV, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "demo_out", done.stdout


def test_demo_writes_saes_results_pictures_and_tables(small: tuple[Path, str]) -> None:
    out, stdout = small
    results = SweepSummary.read(out / "sweep.json").results
    assert [(r.sae, r.quality.architecture, r.quality.d_sae) for r in results] == [
        *[("signed", "bi_jumprelu", 1152)] * 2,
        *[("plain", "jumprelu", 1152)] * 2,  # SAELens saves its batchtopk as one
        *[("half", "bi_jumprelu", 576)] * 2,
    ]
    for result in results:
        q = result.quality
        assert 0 < q.l0 <= q.d_sae
        assert q.n_tokens == 8_000
        assert f"{q.l0:.2f}" in stdout
        assert f"{q.explained_variance:.4f}" in stdout
        folder = out / "saes" / RUNS / result.sae / f"{result.field}-{result.value:g}"
        loaded = SAE.load_from_disk(folder)
        assert loaded.cfg.d_sae == q.d_sae
        assert loaded.cfg.metadata.hook_name == "model.layers.15.mlp"
    assert (out / "frontier.png").read_bytes().startswith(b"\x89PNG")
    report = (out / "report.html").read_text()
    assert "bi_jumprelu" in report
    assert stdout.strip().splitlines()[-1].strip().startswith("sae-lens-signaware train ")


@pytest.fixture(scope="module")
def model(small: tuple[Path, str]) -> Any:
    with each_read_once():
        return demo_data.load_demo_model(small[0] / "model")


def test_examples_on_the_real_model_are_the_text(small: tuple[Path, str], model: Any) -> None:
    out, _ = small
    sae = SAE.load_from_disk(out / "saes" / RUNS / "signed" / "k-64")
    store = demo_data.make_store(model, out / "data" / "heldout", 256)
    top = signaware.top_examples(model, sae, store, range(40), k=3, n_batches=2)
    assert 0 < top.n_tokens <= 2 * 8 * 256
    store = demo_data.make_store(model, out / "data" / "heldout", 256)
    prompts = torch.cat([store.get_batch_tokens(8) for _ in range(2)])
    sides = {1: 0, -1: 0}
    for latent in top.latents:
        for sign, contexts in ((1, latent.pos), (-1, latent.neg)):
            sides[sign] += len(contexts)
            strengths = [sign * c.value for c in contexts]
            assert strengths == sorted(strengths, reverse=True)
            assert all(s > 0 for s in strengths)
            for c in contexts:
                text = model.tokenizer.decode(prompts[c.prompt])
                # a window cut inside of a character of several bytes would not be found
                assert "�" in "".join(c.tokens) or "".join(c.tokens) in text
    assert min(sides.values()) > 0


def test_dial_on_the_real_model_is_that_of_a_hook_by_hand(
    small: tuple[Path, str], model: Any
) -> None:
    out, _ = small
    sae: Any = SAE.load_from_disk(out / "saes" / RUNS / "signed" / "k-64")
    store = demo_data.make_store(model, out / "data" / "heldout", 256)
    tokens = store.get_batch_tokens(2)[:, :32]
    words = (model.tokenizer.encode(" war")[0], model.tokenizer.encode(" peace")[0])
    # far: how much a dial of 8 moves this model depends on the last bits of a short training
    dial = signaware.polarity_dial(model, sae, 3, tokens, [80.0], logit_tokens=words)
    direction = sae.W_dec[3].detach() / sae.W_dec[3].detach().norm()
    hf = model.model

    def difference(c: float) -> float:
        handle = hf.model.layers[15].mlp.register_forward_hook(
            lambda module, args, output: output + c * direction
        )
        try:
            with torch.no_grad():
                logits = hf(tokens).logits[:, -1]
        finally:
            handle.remove()
        return (logits[:, words[0]] - logits[:, words[1]]).double().mean().item()

    baseline = difference(0.0)
    assert dial.baseline == pytest.approx(baseline, abs=1e-4)
    for c, effect in zip((-80.0, 80.0), (dial.effect[0], dial.effect[2]), strict=True):
        assert effect.item() == pytest.approx(difference(c) - baseline, abs=1e-3)
        assert abs(effect.item()) > 1e-2  # it does move the model

    plain = SAE.load_from_disk(out / "saes" / RUNS / "plain" / "k-64")
    pair = nearest_antipodal_pair(plain, sae.W_dec[3])
    both = signaware.polarity_dial(model, plain, pair, tokens, [8.0], logit_tokens=words)
    assert (both.latent_pos, both.latent_neg) == pair
    assert both.baseline == pytest.approx(baseline, abs=1e-4)
