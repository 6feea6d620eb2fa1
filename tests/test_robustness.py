"""Broken files and faults, a sample of ``python benchmarks/robustness.py``; pickles, tokens."""

import json
import os
import pickle
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sae_lens import SAE
from safetensors.torch import load_file, save_file

from benchmarks.faults import cached, disk, runner
from benchmarks.faults.fuzzing import SUBJECTS, cases_of, loaders_for, run_case, write_subjects
from benchmarks.faults.mutations import nested
from benchmarks.faults.weight_mutations import Payload
from sae_lens_signaware.checks import ConfigError, InvalidInputError, require
from sae_lens_signaware.hub import upload as hub_module
from sae_lens_signaware.saes.state import TRAINING_STATE
from sae_lens_signaware.training.cached import InterruptedTraining
from sae_lens_signaware.training.runner import CHECKPOINT_FILES, find_checkpoint
from tests.support.cli import assert_one_line_error, invoke
from tests.support.hub import save_measured
from tests.support.hub_server import HubServer
from tests.support.saes import VARIANTS, make_sae, make_training_sae, training_config

N_SUBJECTS, N_CASES = 2 * len(SUBJECTS), 25  # each for inference and for training


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The SAEs to mutate, and the cases of each."""
    written = write_subjects(tmp_path_factory.mktemp("subjects"))
    assert len(written) == N_SUBJECTS
    return [(s, cases_of(s, written, seed=0, n_random=4, n_values=60)) for s in written]


@pytest.mark.parametrize("index", range(N_SUBJECTS))
def test_a_sample_of_the_fuzzer(index: int, subjects: Any, tmp_path: Path) -> None:
    subject, cases = subjects[index]
    chosen = random.Random(index).sample(range(len(cases)), N_CASES)
    for i in chosen:
        for loader in loaders_for(cases[i], subject, i):
            outcome, reason = run_case(cases[i], subject, loader, tmp_path / "work")
            assert outcome != "bad", f"{loader}, {cases[i].kind}, {cases[i].name}: {reason}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    make_sae("sa_gsae", "none").save_model(folder)
    return folder


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = ("d_in", "d_sae", "polarity_tying", "two_sided", "apply_b_dec_to_input", "format_version")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(field=st.sampled_from(FIELDS), value=json_values)
def test_any_json_in_any_field_is_one_line_that_names_it(
    field: str, value: Any, saved: Path, tmp_path: Path
) -> None:
    cfg = json.loads((saved / "cfg.json").read_text())
    right = type(value) is bool if field == "apply_b_dec_to_input" else value == cfg[field]
    cfg[field] = value
    folder = tmp_path / "sae"
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(cfg))
    if right and type(value) is type(json.loads((saved / "cfg.json").read_text())[field]):
        SAE.load_from_disk(folder)
        return
    with pytest.raises(InvalidInputError) as error:
        SAE.load_from_disk(folder)
    assert field in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("two_sided", "false", "two_sided must be true or false, got 'false'"),
        ("l1_coefficient", float("nan"), "l1_coefficient must be a number, got nan"),
        ("l1_coefficient", True, "l1_coefficient must be a number, got True"),
        ("target_l0", "5", "target_l0 must be a number or null, got '5'"),
        ("threshold_reset_interval", 2.5, "threshold_reset_interval must be an integer, got 2.5"),
        (
            "d_sae",
            2**62,
            "d_sae must be a positive integer, got 4611686018427387904: at most 268435456",
        ),
        ("reshape_activations", "hook_q", "reshape_activations must be one of none, hook_z"),
        ("metadata", {"to_dict": 1}, "metadata must be a mapping, without the names"),
    ],
)
def test_fields_of_a_config_hold_what_they_say(field: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        training_config("sa_gsae", **{field: value})
    assert message in str(error.value)


def test_numbers_of_numpy_are_numbers() -> None:
    import numpy as np

    cfg: Any = training_config("sa_gsae", l1_coefficient=np.float32(2), d_sae=np.int64(24))
    assert (type(cfg.l1_coefficient), type(cfg.d_sae)) == (float, int)
    assert (cfg.l1_coefficient, cfg.d_sae) == (2.0, 24)


def test_an_error_stays_short() -> None:
    for value in ("x" * 10**6, nested(900), 10**400, list(range(10**5)), torch.eye(9)):
        with pytest.raises(InvalidInputError) as error:
            require(False, "field", value, "short")
        assert len(str(error.value)) < 400
        assert "\n" not in str(error.value)


def test_thresholds_below_0(tmp_path: Path) -> None:
    """A training leaves some after its last step; in an inference SAE's file they are damage."""
    sae = make_training_sae("sa_gsae", "none")
    sae.threshold.data[0, :3] = -0.01
    sae.save_model(tmp_path)
    loaded: Any = SAE.load_from_disk(tmp_path)
    assert (loaded.threshold[0, :3] == 0).all()
    assert torch.equal(loaded.threshold, sae.threshold.clamp(min=0))
    state = load_file(tmp_path / "sae_weights.safetensors")
    for name in TRAINING_STATE:
        state.pop(name, None)
    save_file(state, tmp_path / "sae_weights.safetensors")
    with pytest.raises(InvalidInputError, match=r"threshold in .* must be at least 0"):
        SAE.load_from_disk(tmp_path)


def test_loading_for_training_keeps_float32_where_training_needs_it(tmp_path: Path) -> None:
    from sae_lens import TrainingSAE

    make_training_sae("sa_gsae", dtype="bfloat16").save_model(tmp_path)
    loaded: Any = TrainingSAE.load_from_disk(tmp_path)
    assert loaded.threshold.dtype == loaded.l0_control.dtype == torch.float32
    assert loaded.n_threshold_resets.dtype == torch.int64


@pytest.mark.parametrize("name", ["sparsity.safetensors", "pos_share.safetensors"])
@pytest.mark.parametrize("damage", ["text", "other key", "other width"])
def test_split_beside_a_broken_sparsity_file(name: str, damage: str, tmp_path: Path) -> None:
    save_measured(make_sae("sa_gsae"), tmp_path / "sae")
    path = tmp_path / "sae" / name
    if damage == "text":
        path.write_text("404: Not Found")
    else:
        tensors = {name.split(".")[0] if damage == "other width" else "x": torch.zeros(5)}
        save_file(tensors, path)
    result = invoke("split", str(tmp_path / "sae"), str(tmp_path / "plain"))
    assert_one_line_error(result, 2, name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sae"]


def test_a_broken_sae_on_the_hub_is_one_line(hub: HubServer, tmp_path: Path) -> None:
    save_measured(make_sae("sa_gsae"), tmp_path)
    hub_module.push(tmp_path, "someone/broken-files", "a")
    hub.repos["someone/broken-files"]["a/sae_weights.safetensors"] = pickle.dumps({"W_enc": 1})
    assert_one_line_error(
        invoke("audit", "someone/broken-files:a"), 2, "someone/broken-files:a cannot be loaded"
    )


def test_no_pickle_is_executed(hub: HubServer, tmp_path: Path) -> None:
    """A pickle that would leave a folder behind, in the place of every file that is loaded."""
    trace = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(trace)))
    trace.rmdir()  # it works
    folder = tmp_path / "sae"
    save_measured(make_sae("sa_gsae"), folder)
    torch.save(Payload(trace), tmp_path / "zip")
    pickles = (pickle.dumps(Payload(trace)), (tmp_path / "zip").read_bytes())
    for name in ("sae_weights.safetensors", "cfg.json", "sparsity.safetensors", "quality.json"):
        whole = (folder / name).read_bytes()
        for data in pickles:
            (folder / name).write_bytes(data)
            assert_one_line_error(invoke("push", str(folder), "someone/pickles"), 2, "")
            if name != "quality.json":  # split does not read it
                assert_one_line_error(invoke("split", str(folder), str(tmp_path / "out")), 2, "")
        (folder / name).write_bytes(whole)
    assert not trace.exists()
    assert hub.log == []  # each was refused before the Hub was asked for anything


def test_no_pickle_is_executed_by_a_resume(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    folder = tmp_path / "640"
    make_training_sae("sa_gsae").save_model(folder)
    *others, last = CHECKPOINT_FILES[2:]
    for name in others:
        torch.save(Payload(trace), folder / name)
    (folder / last).write_text("{}")
    with pytest.raises(ConfigError, match=r"trainer_state.pt cannot be read") as error:
        find_checkpoint(tmp_path)
    torch.save(Payload(trace), folder / last)  # no JSON, so the checkpoint is not whole
    with pytest.raises(ConfigError, match=r"no whole checkpoint"):
        find_checkpoint(tmp_path)
    assert "\n" not in str(error.value)
    assert not trace.exists()


def test_the_hub_token_goes_to_the_hub_alone(
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = "hf_" + "S3cretS3cret" * 3
    monkeypatch.setenv("HF_TOKEN", token)
    save_measured(make_sae("sa_gsae"), tmp_path / "sae")
    with caplog.at_level(0):
        result = invoke("push", str(tmp_path / "sae"), "someone/with-token")
        hub.broken = r"/commit/main$"
        failed = invoke("push", str(tmp_path / "sae"), "someone/with-token-2")
    assert result.exit_code == 0, result.stderr
    assert failed.exit_code == 1
    assert f"Bearer {token}" in hub.authorizations  # it was in use
    files = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    served = [body for repo in hub.repos.values() for body in repo.values()]
    texts = [result.output, result.stderr, failed.output, failed.stderr, caplog.text, *hub.log]
    assert not any(token.encode() in data for data in files + served)
    assert not any(token in text for text in texts)


def test_push_refuses_a_config_that_holds_a_token(hub: HubServer, tmp_path: Path) -> None:
    sae = make_sae("sa_gsae")
    sae.cfg.metadata.model_from_pretrained_kwargs = {"token": "hf_" + "a" * 34}
    save_measured(sae, tmp_path)
    with pytest.raises(ConfigError, match=r"cfg\.json holds what looks like a Hub token") as error:
        hub_module.push(tmp_path, "someone/x", "a")
    assert "aaaa" not in str(error.value)
    assert not any(hub.repos.values())


def test_a_nan_batch_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    cached.nan_batch(tmp_path)


def terminate_self(batch: torch.Tensor) -> torch.Tensor:
    os.kill(os.getpid(), signal.SIGTERM)
    return batch


def test_a_signal_in_a_step_waits_for_its_end(tmp_path: Path) -> None:
    with pytest.raises(InterruptedTraining), cached.serving(40, terminate_self):
        cached.train_cached("sa_gsae", "full", tmp_path)
    state = torch.load(tmp_path / "checkpoint" / "trainer_state.pt", weights_only=True)
    assert state["n_training_steps"] == 40 - 4  # four batches scaled the activations
    resumed = cached.train_cached("sa_gsae", "full", tmp_path)
    assert cached.equal(resumed, cached.train_cached("sa_gsae", "full", tmp_path / "whole"))


def test_a_signal_in_the_last_step_writes_no_checkpoint(tmp_path: Path) -> None:
    """The scale is in the weights by then: a resume would put it there twice."""
    with pytest.raises(KeyboardInterrupt), cached.serving(cached.N_STEPS + 4, terminate_self):
        cached.train_cached("sa_gsae", "full", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_replaced_whole(tmp_path: Path) -> None:
    """Find the new one where a kill came after the old one was taken away."""
    with pytest.raises(InterruptedTraining), cached.serving(40, cached.interrupt):
        cached.train_cached("sa_gsae", "full", tmp_path)
    os.rename(tmp_path / "checkpoint", tmp_path / ".checkpoint.partial")
    resumed = cached.train_cached("sa_gsae", "full", tmp_path)
    assert cached.equal(resumed, cached.train_cached("sa_gsae", "full", tmp_path / "whole"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "tying"), dict(VARIANTS).items())
def test_cached_training_after_kill_9_and_sigterm(
    architecture: str, tying: str, tmp_path: Path
) -> None:
    seen = cached.kill_cached(architecture, tying, tmp_path, n_kills=5, seed=0)
    assert seen["checkpoints resumed"]


@pytest.mark.slow
def test_the_runner_after_kill_9(tmp_path: Path) -> None:
    assert runner.kill_runner(tmp_path, n_kills=4, seed=0)["whole checkpoints loaded"]


@pytest.mark.slow
def test_the_runner_after_sigterm(tmp_path: Path) -> None:
    assert runner.terminate_runner(tmp_path, 2, seed=0)["SIGTERM"]


@pytest.mark.slow
def test_a_full_disk(tmp_path: Path) -> None:
    if disk.full_disk(tmp_path) is None:
        pytest.skip("this user may not mount a tmpfs")
