"""Sweeps on a small transformers model through real files: resume, failures."""

import errno
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from rich.progress import Progress
from sae_lens import SAE
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPT2LMHeadModel

from sae_lens_signaware.evaluation import bipolar_census, saved
from sae_lens_signaware.experiments import pipeline
from sae_lens_signaware.experiments.sweep import runs as sweep
from sae_lens_signaware.experiments.sweep.cache import make_caches
from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from sae_lens_signaware.experiments.sweep.latent_results import SAELatents
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.store import SweepStore
from sae_lens_signaware.training import cached as cached_training
from sae_lens_signaware.training.runner import SignawareTrainingRunner
from tests.support.cli import invoke
from tests.support.configs import write
from tests.support.models import hooked_transformer, tokens
from tests.support.runners import runner_config
from tests.support.saes import training_config
from tests.sweep.examples import last_line, measured, sweep_values, written_at


def test_a_sweep_writes_results_saes_verdicts_and_plots(whole: tuple[Path, str]) -> None:
    out, stdout = whole
    summary = json.loads((out / "sweep.json").read_text())
    assert summary["n_runs"] == len(summary["results"]) == 16
    assert summary["failures"] == {}
    assert [(c["cell"], c["a"], c["b"]) for c in summary["comparisons"]] == [
        ("mlp", "half", "full"),
        ("resid", "half", "full"),
    ]
    assert all(set(c["verdicts"]) == {"0", "1"} for c in summary["comparisons"])
    assert "16 of 16 runs" in stdout
    assert "Frontiers: A against B" in stdout
    assert (out / "frontier-mlp.png").read_bytes().startswith(b"\x89PNG")
    result = RunResult.read(out / "runs/mlp/seed-1/half/l1_coefficient-0.1.json")
    assert result.quality.n_tokens == 256
    assert result.l0_pos + result.l0_neg == pytest.approx(result.quality.l0)
    # seeds differ in weights, and an SAE sees the cell's own activations
    values = [r["quality"]["explained_variance"] for r in summary["results"]]
    assert len(set(values)) == 16


def test_a_second_sweep_in_one_folder_is_refused(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"):
        result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 2
    assert last_line(result) == f"Error: out: another sweep is running in {out}"
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_a_result_counts_the_active_latents_of_each_side(whole: tuple[Path, str]) -> None:
    name = "mlp/seed-1/half/l1_coefficient-0.1"
    result = RunResult.read(whole[0] / "runs" / f"{name}.json")
    z = SAE.load_from_disk(whole[0] / "saes" / name).encode(
        load_file(whole[0] / "cache" / "mlp.safetensors")["heldout"]
    )
    assert result.l0_pos == pytest.approx((z > 0).sum().item() / len(z))
    assert result.l0_neg == pytest.approx((z < 0).sum().item() / len(z))
    assert result.l0_pos != result.l0_neg


def test_an_sae_has_the_metadata_that_saelens_runner_would_write(
    whole: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    out, _ = whole
    cfg = load_sweep_config(write(sweep_values(data), tmp_path / "sweep.yaml"))[1][0].cfg
    sae = SAE.load_from_disk(next((out / "saes" / "mlp").rglob("cfg.json")).parent)
    for name in sweep.METADATA:
        asked = json.loads(json.dumps(getattr(cfg, name)))  # a tuple is a list in JSON
        assert getattr(sae.cfg.metadata, name) == asked, name
    assert sae.cfg.metadata.model_from_pretrained_kwargs == {}  # not None, as where it is missing
    cfg = runner_config(training_config("sa_gsae"), tmp_path)
    SignawareTrainingRunner(
        cfg, override_model=hooked_transformer(), override_dataset=tokens()
    ).run()
    written = json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]
    versions = {"sae_lens_version", "sae_lens_training_version"}  # SAELens sets them by itself
    assert {name for name in written if hasattr(cfg, name)} - versions == set(sweep.METADATA)


def test_the_latents_for_the_report(whole: tuple[Path, str], data: Path) -> None:
    out, _ = whole
    files = sorted((out / "latents").glob("*.json"))
    assert [file.name for file in files] == ["mlp-half-0.1.json", "resid-half-0.1.json"]
    latents = SAELatents.read(files[0])
    sae = SAE.load_from_disk(out / "saes" / latents.run, device="cpu")
    heldout = load_file(out / "cache" / "mlp.safetensors")["heldout"]
    census = bipolar_census(sae, heldout)
    energy = census.energy_pos + census.energy_neg
    assert [page.latent for page in latents.pages] == energy.topk(4).indices.tolist()
    assert latents.l0 == pytest.approx(census.l0)
    assert latents.bipolar_share_by_energy_rank[-1] == pytest.approx(latents.bipolar_share)
    assert latents.plain_run is not None
    assert latents.plain_run.startswith("mlp/seed-0/full/")
    assert set(latents.audit) == {"-0.9", "-0.7", "-0.5"}
    page = latents.pages[0]
    assert page.firing_rate_pos == pytest.approx(census.firing_rate_pos[page.latent].item())
    for sign, contexts in ((1, page.examples_pos), (-1, page.examples_neg)):
        assert len(contexts) <= 2
        assert all(sign * context.value > 0 for context in contexts)
    assert page.examples_pos or page.examples_neg
    assert page.dial is not None
    assert page.pair_dial is not None
    assert page.dial.latents == (page.latent, page.latent)
    assert page.dial.direction_cosine == pytest.approx(-1)
    assert page.dial.effect[4] == 0.0 == page.dial.coefficients[4]
    # the pair is that of the plain SAE of most and of least cosine to the axis
    plain = SAE.load_from_disk(out / "saes" / latents.plain_run, device="cpu")
    axis = torch.nn.functional.normalize(sae.W_dec[page.latent], dim=0)
    unit = torch.nn.functional.normalize(plain.W_dec, dim=1)
    pair = (int((unit @ axis).argmax()), int((unit @ axis).argmin()))
    assert page.pair_dial.latents == pair
    # each on the two tokens that its own axis speaks for and against most
    model = GPT2LMHeadModel.from_pretrained(data / "model")
    tokenizer = AutoTokenizer.from_pretrained(data / "model")
    # GPT-2's final norm subtracts the mean of the stream and multiplies by a weight
    weighted = model.lm_head.weight * model.transformer.ln_f.weight
    read_out = weighted - weighted.mean(1, keepdim=True)
    for dial, direction in ((page.dial, axis), (page.pair_dial, unit[pair[0]] - unit[pair[1]])):
        votes = read_out @ direction
        most = [tokenizer.decode([int(i)]) for i in (votes.argmax(), votes.argmin())]
        assert list(dial.logit_tokens) == most
    # the same product for both sides of a latent
    logits = (read_out @ sae.W_dec[page.latent]).tolist()
    assert page.top_logits is not None
    assert [value for _, value in page.top_logits.pos] == pytest.approx(sorted(logits)[:-11:-1])
    down = [-value for value in sorted(logits)[:10]]
    assert [value for _, value in page.top_logits.neg] == pytest.approx(down)
    # all firings of the tokens of the census are counted
    assert page.histogram is not None
    assert sum(page.histogram.pos) == round(page.firing_rate_pos * len(heldout))
    assert sum(page.histogram.neg) == round(page.firing_rate_neg * len(heldout))
    assert latents.special_tokens == ("<eos>",)
    # what is written is what is read
    again = data / "again.json"
    latents.write(again)
    assert again.read_text() == files[0].read_text()


def test_a_second_call_runs_nothing(whole: tuple[Path, str], config: Path) -> None:
    out, _ = whole
    before = written_at(out)
    result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert written_at(out) == before


def test_a_changed_field_runs_what_it_changes(
    whole: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole[0], tmp_path / "out")
    before = written_at(out)
    values = sweep_values(data)
    values["saes"]["half"]["threshold_init"] = 0.01
    result = invoke("sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    changed = {f for f, at in written_at(out).items() if before[f] != at}
    pages = {f for f in changed if f.parent.name == "latents"}  # they are of these runs
    assert {f.name for f in pages} == {"mlp-half-0.1.json", "resid-half-0.1.json"}
    assert {f.parent.name for f in changed - pages} == {"half"}
    assert len(changed - pages) == 8


@pytest.mark.parametrize("n_done", [0, 1])
def test_a_summary_goes_with_the_first_result_that_it_shows(
    n_done: int,
    whole: tuple[Path, str],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = shutil.copytree(whole[0], tmp_path / "out")
    values, real, calls = sweep_values(data), sweep.run_one, []
    values["saes"]["half"]["threshold_init"] = 0.01

    def stops(*args: Any) -> Any:
        if len(calls) == n_done:
            raise KeyboardInterrupt
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(sweep, "run_one", stops)
    result = invoke("sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(out))
    assert result.exit_code == 130
    assert (out / "sweep.json").exists() == (n_done == 0)


@pytest.mark.parametrize(
    ("part", "field", "is_kept"),
    [
        ("sae", "auxk_coefficient", True),  # at its default
        ("trainer", "adam_beta1", True),
        ("sae", "d_sae", False),  # is not
        ("trainer", "lr", False),  # has none
        ("cache", "n_cached_tokens", False),
    ],
)
def test_results_of_before_a_field_was_there_are_kept(
    part: str,
    field: str,
    is_kept: bool,
    whole: tuple[Path, str],
    config: Path,
    tmp_path: Path,
) -> None:
    values, runs = load_sweep_config(config)
    run = next(run for run in runs if run.sae == "half")
    store = SweepStore(values, whole[0])
    assert store.finished(run)
    result = json.loads(store.result_path(run).read_text())
    copy = SweepStore(values, tmp_path)
    path = copy.result_path(run)
    path.parent.mkdir(parents=True)

    def is_finished() -> bool:
        path.write_text(json.dumps(result))
        return copy.finished(run) is not None

    details = result["identity"]["sae"]["metadata"]["training_architecture_details"]
    details.pop(field, None)  # SAELens's copy of the fields of the SAE
    before = result["identity"][part].pop(field)
    assert is_finished() == is_kept
    result["identity"][part][field] = "another"
    assert not is_finished()
    result["identity"][part][field] = before
    assert is_finished()
    result["identity"][part]["of_a_later_version"] = 1
    assert not is_finished()
    for broken in (None, 1, [], {}, {**result["identity"], part: None}):
        result["identity"] = broken
        assert not is_finished()


def test_an_interrupted_sweep_ends_with_the_same_results(
    whole: tuple[Path, str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, calls = tmp_path / "out", sweep.run_one, []

    def stops(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(sweep, "run_one", stops)
    result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 130
    assert last_line(result).endswith("Run the same command again to go on from there.")
    assert len(list((out / "runs").rglob("*.json"))) == 5
    monkeypatch.setattr(sweep, "run_one", real)
    assert invoke("sweep", str(config), "--out", str(out)).exit_code == 0
    assert measured(out) == measured(whole[0])


def test_a_failing_run_leaves_the_others_alone_and_is_tried_again(
    whole: tuple[Path, str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", sweep.run_one

    def fails(store: Any, run: Any, *args: Any) -> Any:
        if run.name == "resid/seed-0/half/l1_coefficient-1":
            raise RuntimeError("out of\nluck")
        return real(store, run, *args)

    monkeypatch.setattr(sweep, "run_one", fails)
    result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 1
    failure = "failed: resid/seed-0/half/l1_coefficient-1: RuntimeError: out of luck"
    assert failure in result.stderr
    assert failure in " ".join(result.stdout.split())  # at once, as well as at the end
    assert "15 of 16 runs" in result.stdout
    summary = json.loads((out / "sweep.json").read_text())
    # the other seed of that cell is still compared
    assert set(summary["comparisons"][1]["verdicts"]) == {"1"}
    monkeypatch.setattr(sweep, "run_one", real)
    assert invoke("sweep", str(config), "--out", str(out)).exit_code == 0
    assert not list((out / "failed").rglob("*.txt"))
    assert measured(out) == measured(whole[0])


@pytest.mark.parametrize("note_fits", [True, False])
def test_a_full_disk_fails_a_run_and_no_other(
    note_fits: bool, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, runs = load_sweep_config(config)
    store, real = SweepStore(values, tmp_path / "out"), pipeline.save_and_measure
    full = OSError(errno.ENOSPC, "No space left on device")
    with Progress(disable=True) as progress:
        make_caches(store, runs[:1], progress)

    def no_space(*args: Any) -> None:
        raise full

    def save(sae: Any, folder: Path, *args: Any) -> Any:
        if folder == store.sae_path(runs[0]):
            raise full
        return real(sae, folder, *args)

    monkeypatch.setattr(pipeline, "save_and_measure", save)
    if not note_fits:
        monkeypatch.setattr("sae_lens_signaware.experiments.sweep.store.write_text", no_space)
    sweep.run_group(store, runs[:2])
    assert store.finished(runs[0]) is None
    assert store.finished(runs[1]) is not None
    assert store.failure_of(runs[0]) == "OSError: [Errno 28] No space left on device"
    assert store.failure_path(runs[0]).exists() == note_fits
    store.forget_failure(runs[0])  # a call to come tries it again
    assert store.failure_of(runs[0]) is None
    assert not store.is_in_progress(runs[0])


def test_an_sae_that_never_fires_is_no_point_and_pages_of_earlier_configs_go(
    data: Path, tmp_path: Path
) -> None:
    values, out = sweep_values(data), tmp_path / "out"
    values["seeds"], values["cells"] = [0], {"mlp": values["cells"]["mlp"]}
    values["latents"]["value"] = 1.0
    stale = out / "latents" / "mlp-half-7.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    real = saved.measure_quality

    def never_fires(sae: Any, *args: Any) -> Any:
        if sae.cfg.architecture() == "gated" and not (out / "dark").exists():
            (out / "dark").touch()
            sae.b_gate.data.fill_(-1e6)
        return real(sae, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved, "measure_quality", never_fires)
        result = invoke("sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    summary = json.loads((out / "sweep.json").read_text())
    assert [r["quality"]["l0"] == 0 for r in summary["results"]].count(True) == 1
    assert len(summary["comparisons"]) == 1
    assert {f.name for f in stale.parent.iterdir()} == {"mlp-half-1.json"}
    assert not list((out / "checkpoints").rglob("*.safetensors"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_an_sae_is_measured_loses_no_result(
    number: signal.Signals, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, runs = load_sweep_config(config)
    store = SweepStore(values, tmp_path / "out")
    with Progress(disable=True) as progress:
        make_caches(store, runs[:1], progress)
    measure = pipeline.save_and_measure

    def interrupted(*args: Any) -> Any:
        signal.raise_signal(number)
        return measure(*args)

    monkeypatch.setattr(pipeline, "save_and_measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep.run_group(store, runs[:2])
    assert [store.finished(run) is not None for run in runs[:2]] == [True, False]


@pytest.mark.parametrize("fails_at", ["checkpoint", "result"])
def test_a_signal_ends_the_sweep_where_the_disk_is_full_too(
    fails_at: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, runs = load_sweep_config(config)
    store = SweepStore(values, tmp_path / "out")
    with Progress(disable=True) as progress:
        make_caches(store, runs[:1], progress)
    trained: list[SAETrainer[Any, Any]] = []

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def signalled(*args: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        full()

    class Stopped(SAETrainer[Any, Any]):
        def step(self, batch: torch.Tensor) -> Any:
            if self not in trained:
                trained.append(self)
                signal.raise_signal(signal.SIGINT)
            return super().step(batch)

    if fails_at == "checkpoint":
        monkeypatch.setattr(cached_training, "SAETrainer", Stopped)
        monkeypatch.setattr(SAETrainer, "save_checkpoint", full)
    else:
        monkeypatch.setattr(pipeline, "save_and_measure", signalled)
    reported: list[str | None] = []
    with pytest.raises(KeyboardInterrupt):
        sweep.run_group(store, runs[:2], lambda: reported.append(store.failure_of(runs[0])))
    assert reported == [None, "OSError: [Errno 28] No space left on device"]
    assert len(trained) == (fails_at == "checkpoint")
    assert [store.failure_of(run) is None for run in runs[:2]] == [False, True]
    assert not any(map(store.finished, runs[:2]))
