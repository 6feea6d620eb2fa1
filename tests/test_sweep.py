"""Sweeps: their config, caches, resumption, failures, results and pages of latents."""

import copy
import dataclasses
import io
import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from filelock import FileLock
from rich.console import Console
from sae_lens import SAE, SAETrainer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.sweep import cache, runs, store
from sae_lens_signaware.sweep.config import load_sweep_config, sweep_config_of
from sae_lens_signaware.sweep.results import RunResult, SweepSummary, print_summary
from tests.small_sweep import (
    D_IN,
    EOS,
    measured,
    sweep,
    sweep_values,
    write_data,
    write_text,
    written_at,
)

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(scope="module")
def data(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), tiny_model)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep, with pages of latents."""
    out = tmp_path_factory.mktemp("whole")
    sweep(with_latents(sweep_values(data)), out)
    return out


@pytest.fixture
def values(data: Path) -> dict[str, Any]:
    return with_latents(sweep_values(data))


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A copy of the finished sweep."""
    return shutil.copytree(whole, tmp_path / "out")


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model may be loaded."""

    def load(*args: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(cache, "load_model", load)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """No SAE may be trained."""

    def train(*args: Any) -> None:
        raise BaseException("an SAE was trained")

    monkeypatch.setattr(runs, "train_timed", train)


def with_latents(values: dict[str, Any]) -> dict[str, Any]:
    latents = {"saes": ["half"], "value": 0.1, "n_latents": 3, "n_contexts": 2, "n_prompts": 8}
    return {**values, "latents": latents}


# --- the config


def test_the_shipped_config_is_read() -> None:
    config, found = load_sweep_config(CONFIGS / "sweep-smollm2-135m.yaml")
    assert {run.sae for run in found} == set(config.saes)
    assert {run.cfg.sae.d_in for run in found} == {576}
    # five values each, of three seeds or of one, in three cells
    n_seeds = [len(sae.get("seeds", config.seeds)) for sae in config.saes.values()]
    assert len(found) == 3 * 5 * sum(n_seeds)


def test_runs_are_cells_by_seeds_by_saes_by_values(values: dict[str, Any]) -> None:
    values["saes"]["half"] |= {"seeds": [1], "runner": {"lr": 1e-4}}
    values["cells"]["resid"]["saes"] = {"full": {"l1_coefficient": [5], "d_sae": 40}}
    values["cells"]["mlp"]["cache_dtype"] = "bfloat16"
    _, found = sweep_config_of(values)
    assert [run.name for run in found] == [
        "mlp/seed-0/full/l1_coefficient-0.1",
        "mlp/seed-0/full/l1_coefficient-1",
        "mlp/seed-1/half/l1_coefficient-0.1",
        "mlp/seed-1/half/l1_coefficient-1",
        "mlp/seed-1/full/l1_coefficient-0.1",
        "mlp/seed-1/full/l1_coefficient-1",
        "resid/seed-0/full/l1_coefficient-5",
        "resid/seed-1/half/l1_coefficient-0.1",
        "resid/seed-1/half/l1_coefficient-1",
        "resid/seed-1/full/l1_coefficient-5",
    ]
    for run in found:
        assert run.cfg.lr == (1e-4 if run.sae == "half" else 3e-3)
        assert run.cfg.sae.l1_coefficient == run.value
        assert run.cfg.hook_name == values["cells"][run.cell]["hook_name"]
        assert run.cfg.seed == run.seed
        assert run.cache_dtype == (torch.bfloat16 if run.cell == "mlp" else torch.float32)
    assert {run.cfg.sae.d_sae for run in found if (run.cell, run.sae) == ("resid", "full")} == {40}


def put(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Set the field at a dotted path."""

    def apply(values: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for part in parents:
            values = values[part]
        values[last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("n_cached_token", 1, r"n_cached_token: unknown field; did you mean 'n_cached_tokens'"),
        ("cells.mlp.d_out", 1, r"cells\.mlp\.d_out"),
        ("cells.mlp.d_in", "12", r"cells\.mlp\.d_in"),
        ("cells.a/b", {"hook_name": "h", "d_in": 1}, r"cells\.a/b"),
        ("cells.mlp.saes", {"hald": {}}, r"cells\.mlp\.saes: no SAE 'hald'; did you mean 'half'"),
        ("seeds", [0, 0], "seeds"),
        ("compare", [["half", "ful"]], r"compare: no SAE 'ful'; did you mean 'full'"),
        ("compare", [["half"]], r"compare\.0"),
        ("latents.saes", ["none"], r"latents\.saes"),
        ("n_cached_tokens", 63, "n_cached_tokens"),
        ("runner.seed", 1, r"runner\.seed"),
        ("runner.contxt_size", 1, "contxt_size"),
        ("saes.half.architecture", "sa_gsea", "sa_gsea"),
        ("saes.half.d_sea", 1, r"saes\.half\.d_sea"),
        ("saes.half.l1_coefficient", 1.0, r"saes\.half"),
        ("saes.half.l1_coefficient", ["a"], r"saes\.half\.l1_coefficient"),
        ("saes.half.l1_coefficient", [1.0, 1.0], "l1_coefficient-1"),
        ("saes.half.d_sae", [16, 32], r"saes\.half"),
        ("saes.half.seeds", [5], r"saes\.half\.seeds"),
        ("saes.half.runner", {"context_size": 8}, r"saes\.half\.runner"),
    ],
)
def test_a_wrong_field_is_named(
    path: str, value: object, field: str, data: Path, tmp_path: Path
) -> None:
    values = copy.deepcopy(with_latents(sweep_values(data)))
    put(path, value)(values)
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(InvalidInputError, match=field) as error:
        load_sweep_config(file)
    assert "\n" not in str(error.value)


# --- a whole sweep


def test_every_run_has_an_sae_and_a_result(whole: Path, values: dict[str, Any]) -> None:
    _, found = sweep_config_of(values)
    summary = SweepSummary.read(whole / "sweep.json")
    assert summary.n_runs == len(summary.results) == len(found) == 16
    assert not summary.failures
    for run, result in zip(found, summary.results, strict=True):
        assert (result.cell, result.seed, result.sae) == (run.cell, run.seed, run.sae)
        assert (result.field, result.value) == (run.field, run.value)
        sae = SAE.load_from_disk(whole / "saes" / run.name)
        assert sae.cfg.d_sae == result.quality["d_sae"] == (16 if run.sae == "half" else 32)
        assert sae.cfg.metadata.hook_name == run.cfg.hook_name
        assert sae.cfg.metadata.model_name == run.cfg.model_name
        assert result.quality["n_tokens"] == 256
        assert result.l0_pos + result.l0_neg == pytest.approx(result.quality["l0"])
        assert result.seconds_per_step > 0
    assert not list((whole / "checkpoints").rglob("*.safetensors"))


def test_the_results_are_of_the_held_out_activations(whole: Path, values: dict[str, Any]) -> None:
    config, found = sweep_config_of(values)
    x = load_file(cache.cache_of(config, found[0], whole).path)["heldout"]
    sae = SAE.load_from_disk(whole / "saes" / found[0].name)
    with torch.no_grad():
        z = sae.encode(x)
        error = (x - sae.decode(z)).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    result = SweepSummary.read(whole / "sweep.json").results[0]
    assert result.quality["explained_variance"] == pytest.approx(1 - error.item(), abs=1e-4)
    assert result.quality["l0"] == pytest.approx((z != 0).sum(1).float().mean().item())
    assert result.quality["dead_share"] == pytest.approx((z == 0).all(0).float().mean().item())


def test_sweep_json_holds_what_it_says_and_reads_back(whole: Path) -> None:
    held = json.loads((whole / "sweep.json").read_text())
    assert held["command"] == "command"
    assert held["config"]["cells"]["mlp"]["d_in"] == D_IN
    assert "torch" in held["versions"]
    assert "identity" not in held["results"][0]
    summary = SweepSummary.read(whole / "sweep.json")
    assert json.loads(json.dumps(summary.to_dict())) == held
    assert [c.cell for c in summary.comparisons] == ["mlp", "resid"]


def test_tables_and_picture(whole: Path, tmp_path: Path) -> None:
    summary, text = SweepSummary.read(whole / "sweep.json"), io.StringIO()
    failed = dataclasses.replace(summary, failures=[{"run": "[a]/b", "error": "OSError: [x]"}])
    print_summary(failed, tmp_path, Console(file=text, width=200))
    for result in summary.results:
        assert f"{result.quality['explained_variance']:.4f}" in text.getvalue()
    for comparison in summary.comparisons:
        assert (comparison.verdict or "no verdict") in text.getvalue()
    assert "[a]/b: OSError: [x]" in text.getvalue()
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("field", "value", "l0", "misses"),
    [
        ("target_l0", 32, 35.1, False),
        ("target_l0", 32, 35.3, True),
        ("k", 32, 28.7, True),
        ("k", 32, 28.9, False),
        ("l1_coefficient", 32, 1.0, False),
    ],
)
def test_a_missed_l0_is_marked(field: str, value: float, l0: float, misses: bool) -> None:
    quality = {"l0": l0, "explained_variance": 0.5, "dead_share": 0.0, "d_sae": 64}
    result = RunResult("c", 0, "a", field, value, quality, l0, 0.0, 0.0, None)
    assert result.misses_target == misses
    text = io.StringIO()
    table = SweepSummary("", {}, {}, 1, [result], [], []).run_table()
    Console(file=text, width=200).print(table)
    assert (f"{l0:.2f} !" in text.getvalue()) == misses


# --- activations


def test_the_cache_is_what_the_model_computes(whole: Path, values: dict[str, Any]) -> None:
    config, found = sweep_config_of(values)
    x = load_file(cache.cache_of(config, found[0], whole).path)["train"]
    assert x.shape == (512, D_IN)
    text = datasets.load_dataset(values["runner"]["dataset_path"], split="train")["text"][0]
    ids = [EOS, *(int(word[1:]) for word in text.split()[:15])]  # a context of 16 with its BOS
    model, kept = AutoModelForCausalLM.from_pretrained(values["runner"]["model_name"]), []
    model.transformer.h[0].mlp.register_forward_hook(lambda m, args, y: kept.append(y[0]))
    with torch.no_grad():
        model(torch.tensor([ids]))
    torch.testing.assert_close(x[:16], kept[0], atol=1e-5, rtol=1e-4)


def test_without_a_held_out_text_what_follows_is_held_out(
    values: dict[str, Any], tmp_path: Path
) -> None:
    values |= {"heldout_dataset_path": None, "n_cached_tokens": 100, "n_heldout_tokens": 50}
    tensors = []
    for n in (100, 150):
        config, found = sweep_config_of({**values, "n_cached_tokens": n})
        with cache.Progress(disable=True) as progress:
            cache.make_caches(config, found[:1], tmp_path, progress)
        tensors.append(load_file(cache.cache_of(config, found[0], tmp_path).path))
    both = torch.cat([tensors[0]["train"], tensors[0]["heldout"]])
    torch.testing.assert_close(both, tensors[1]["train"], atol=0, rtol=0)


@pytest.mark.parametrize("has_caches", [True, False])
def test_a_wrong_width_destroys_nothing(
    has_caches: bool, values: dict[str, Any], out: Path
) -> None:
    if not has_caches:
        shutil.rmtree(out / "cache")
    before = written_at(out)
    values["cells"]["resid"]["d_in"] = 21
    with pytest.raises(InvalidInputError, match=r"cells\.resid\.d_in must be 16.*got 21"):
        sweep(values, out)
    assert written_at(out) == before


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("n_cached_tokens", 10**6, "n_cached_tokens.*only"),
        ("n_heldout_tokens", 10**6, "n_heldout_tokens.*only"),
        ("cells.mlp.hook_name", "transformer.h.9.mlp", r"hook_name.*transformer\.h\.9\.mlp"),
        ("runner.model_name", "/nowhere/model", "model_name"),
        ("runner.dataset_path", "/nowhere/text", "dataset_path"),
    ],
)
def test_what_is_not_there_is_named(
    path: str, value: object, field: str, values: dict[str, Any], tmp_path: Path
) -> None:
    put(path, value)(values)
    with pytest.raises(InvalidInputError, match=field):
        sweep(values, tmp_path)
    assert not written_at(tmp_path)


def test_activations_that_overflow_their_cache_are_named(
    values: dict[str, Any], tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(values["runner"]["model_name"])
    shutil.copytree(values["runner"]["model_name"], tmp_path / "model")
    model.transformer.wte.weight.data *= 1e7
    model.save_pretrained(tmp_path / "model")
    values["runner"]["model_name"] = str(tmp_path / "model")
    values["cells"]["resid"]["cache_dtype"] = "float16"
    with pytest.raises(InvalidInputError, match=r"cells\.resid\.cache_dtype.*float16"):
        sweep(values, tmp_path / "out")


@pytest.mark.usefixtures("no_model")
def test_sweeps_share_a_cache_folder(values: dict[str, Any], out: Path, tmp_path: Path) -> None:
    values |= {"cache_folder": str(out / "cache"), "seeds": [0]}
    values["saes"] = {"other": {"architecture": "topk", "d_sae": 16, "k": [2]}}
    summary = sweep(values | {"compare": [], "latents": None}, tmp_path / "second")
    assert [r.quality["l0"] for r in summary.results] == pytest.approx([2.0, 2.0], abs=0.3)
    assert not (tmp_path / "second" / "cache").exists()


# --- going on


@pytest.mark.usefixtures("no_model", "no_training")
@pytest.mark.parametrize("removed", ["", "*.safetensors"])
def test_a_finished_sweep_is_left_as_it_is(removed: str, values: dict[str, Any], out: Path) -> None:
    for file in (out / "cache").glob(removed) if removed else ():
        file.unlink()  # the digests are enough
    before = written_at(out)
    summary = sweep(values, out)
    assert len(summary.results) == 16
    assert {k: v for k, v in written_at(out).items() if k != "sweep.json"} == {
        k: v for k, v in before.items() if k != "sweep.json"
    }


@pytest.mark.parametrize(
    ("path", "value", "affected"),
    [
        ("saes.half.l1_warm_up_steps", 2, "/half/"),
        ("saes.full.runner", {"lr": 1e-3}, "/full/"),
        ("cells.resid.saes", {"half": {"d_sae": 20}}, "resid/seed-./half/"),
        ("runner.training_tokens", 64 * 9, ""),
    ],
)
def test_what_a_change_affects_is_trained_again(
    path: str, value: object, affected: str, values: dict[str, Any], out: Path
) -> None:
    put(path, value)(values)
    config, found = sweep_config_of(values)
    waiting = store.SweepStore(config, out).unfinished(found)
    assert [r.name for r in waiting] == [r.name for r in found if re.search(affected, r.name)]


def test_other_versions_are_other_runs(
    values: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, found = sweep_config_of(values)
    assert store.SweepStore(config, out).unfinished(found) == []
    monkeypatch.setattr(torch, "__version__", "99")
    assert store.SweepStore(config, out).unfinished(found) == found


def test_another_text_in_the_same_place_is_noticed(tiny_model: Path, tmp_path: Path) -> None:
    values = sweep_values(write_data(tmp_path / "data", tiny_model))
    values["saes"].pop("full")
    values |= {"compare": [], "seeds": [0]}
    sweep(values, tmp_path / "out")
    before = written_at(tmp_path / "out" / "saes")
    # the same content at another time: the cache is made again, and its digest is the same
    write_text(tmp_path / "data" / "train", seed=0)
    sweep(values, tmp_path / "out")
    assert written_at(tmp_path / "out" / "saes") == before
    write_text(tmp_path / "data" / "train", seed=7)
    summary = sweep(values, tmp_path / "out")
    after = written_at(tmp_path / "out" / "saes")
    assert after.keys() == before.keys()
    assert all(after[path] != before[path] for path in before)
    assert len(summary.results) == 4


def test_a_result_goes_only_when_the_new_one_is_there(
    values: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written_at(out)

    def fail(*args: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(runs, "save_and_measure", fail)
    values["saes"]["half"]["l1_warm_up_steps"] = 3
    summary = sweep(values, out)
    assert {failure["error"] for failure in summary.failures} == {
        "OSError: No space left on device"
    }
    after = written_at(out)
    kept = [path for path in before if path.startswith(("runs/", "saes/", "cache/"))]
    assert kept
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}


# --- failures and interruptions


def test_a_failure_is_noted_and_the_others_go_on(
    values: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = measured(out)
    shutil.rmtree(out / "runs")
    real, bad = runs.train_timed, "mlp/seed-0/half/l1_coefficient-1"

    def train(sae_cfg: Any, trainer_cfg: Any, x: Any, seed: int, checkpoint: Path) -> Any:
        if str(checkpoint).endswith(bad):
            raise RuntimeError("a loss\nis not finite")
        return real(sae_cfg, trainer_cfg, x, seed, checkpoint)

    monkeypatch.setattr(runs, "train_timed", train)
    summary = sweep(values, out)
    assert summary.failures == [{"run": bad, "error": "RuntimeError: a loss is not finite"}]
    assert len(summary.results) == 15
    # the seed whose frontier is not whole is not compared
    assert [c.seeds for c in summary.comparisons] == [[1], [0, 1]]
    monkeypatch.setattr(runs, "train_timed", real)
    assert not sweep(values, out).failures
    assert measured(out) == expected
    assert not list((out / "failed").rglob("*.txt"))


def test_ctrl_c_in_training_goes_on_from_the_checkpoint(
    values: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = measured(out)
    names = [f"mlp/seed-0/half/l1_coefficient-{value}" for value in ("0.1", "1")]
    shutil.rmtree(out / "runs")
    n_steps, real = [0], SAETrainer.step

    def stopped(trainer: SAETrainer[Any, Any], batch: torch.Tensor) -> Any:
        n_steps[0] += 1
        if n_steps[0] == 12:  # in the second run of eight steps
            signal.raise_signal(signal.SIGINT)
        return real(trainer, batch)

    monkeypatch.setattr(SAETrainer, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep(values, out)
    assert [name for name in names if (out / "runs" / f"{name}.json").exists()] == names[:1]
    assert (out / "checkpoints" / names[1]).is_dir()
    n_steps[0] = 100
    sweep(values, out)
    assert n_steps[0] == 100 + 14 * 8 + 4  # what the checkpoint has is not trained again
    assert measured(out) == expected
    assert not (out / "checkpoints" / names[1]).exists()


def test_a_second_sweep_in_a_folder_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(InvalidInputError, match="out: another"):
        sweep(values, tmp_path)


# --- pages of latents


def test_pages_of_latents_are_of_the_clearest_first(whole: Path) -> None:
    pages = {f.name: json.loads(f.read_text()) for f in (whole / "latents").glob("*.json")}
    assert set(pages) == {"mlp-half.json", "resid-half.json"}
    for name, held in pages.items():
        found = []
        for page in held["pages"]:
            rates = [page["firing_rate_pos"], page["firing_rate_neg"]]
            energies = [page["energy_pos"], page["energy_neg"]]
            counts = min(rates) >= 0.002 and sum(rates) <= 0.2
            weaker = min(e / r for e, r in zip(energies, rates, strict=True)) if counts else 0
            found.append((weaker, sum(energies)))
        assert len({page["latent"] for page in held["pages"]}) == 3
        assert found == sorted(found, reverse=True)
        assert name.split("-")[0] in held["name"]


def test_pages_follow_the_config(values: dict[str, Any], out: Path) -> None:
    before = written_at(out / "latents")
    (out / "latents" / "mlp-half.json").unlink()
    sweep(values, out)
    after = written_at(out / "latents")
    assert after.keys() == before.keys()
    assert after["resid-half.json"] == before["resid-half.json"]
    values["latents"] |= {"n_latents": 2, "saes": ["full"]}
    sweep(values, out)
    files = list((out / "latents").glob("*.json"))
    assert {file.name for file in files} == {"mlp-full.json", "resid-full.json"}
    assert {len(json.loads(file.read_text())["pages"]) for file in files} == {2}
    values["latents"]["n_latents"] = 1
    sweep(values, out)
    assert {len(json.loads(file.read_text())["pages"]) for file in files} == {1}
    sweep(values | {"latents": None}, out)
    assert not list((out / "latents").iterdir())
