"""Sweeps on a small transformers model through real files: resume, failures."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from sae_lens import SAE
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPT2LMHeadModel

from sae_lens_signaware.evaluation import bipolar_census, saved
from sae_lens_signaware.experiments.sweep import runs as sweep
from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from sae_lens_signaware.experiments.sweep.latent_results import SAELatents
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.store import SweepStore
from sae_lens_signaware.training.runner import SignawareTrainingRunner
from tests.support.cli import invoke
from tests.support.configs import write
from tests.support.models import hooked_transformer, tokens
from tests.support.runners import runner_config
from tests.support.saes import training_config
from tests.sweep.examples import last_line, sweep_values, written_at


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
