"""The latents stage: count and time left, and what an interruption leaves."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sae_lens_signaware.experiments.sweep import latent_pages, latents
from sae_lens_signaware.experiments.sweep.config import LatentsConfig
from sae_lens_signaware.experiments.sweep.latent_pages import Dialler
from tests.support.cli import invoke
from tests.support.configs import write
from tests.sweep.examples import last_line, pages, sweep_values, without_latents


class Counted:
    """Dials as they are made, and stops at one."""

    def __init__(self, patch: pytest.MonkeyPatch, stop_at: int | None) -> None:
        self.n, real = 0, Dialler.with_dials

        def with_dials(dialler: Dialler, page: Any) -> Any:
            if self.n == stop_at:
                raise KeyboardInterrupt
            self.n += 1
            return real(dialler, page)

        patch.setattr(Dialler, "with_dials", with_dials)


def test_an_interrupted_stage_goes_on_after_the_latents_that_are_done(
    whole: tuple[Path, str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = without_latents(whole, tmp_path / "out")
    with monkeypatch.context() as patch:
        # 4 latents of the first SAE and 3 of the second
        Counted(patch, stop_at=7)
        result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 130
    assert last_line(result).endswith("Run the same command again to go on from there.")
    assert set(pages(out)) == {"mlp-half-0.1.json", "resid-half-0.1.partial"}
    with monkeypatch.context() as patch:
        counted = Counted(patch, stop_at=None)
        # its contexts are on disk as well
        patch.delattr(latents, "pages_without_dials")
        result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert counted.n == 1
    assert "4/4" in result.stdout
    assert pages(out) == pages(whole[0])


@pytest.mark.slow
def test_the_count_of_the_stage_is_shown(
    whole: tuple[Path, str], config: Path, tmp_path: Path
) -> None:
    out = without_latents(whole, tmp_path / "out")
    result = invoke("sweep", str(config), "--out", str(out))
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("Latents of ")]
    assert "8/8" in line
    assert "0:00:00" in line


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["identity", "latents", "file"])
def test_what_is_done_of_other_latents_is_not_taken(
    changed: str, whole: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    out = without_latents(whole, tmp_path / "out")
    values = sweep_values(data)
    config = write(values, tmp_path / "s.yaml")
    with pytest.MonkeyPatch.context() as patch:
        Counted(patch, stop_at=3)
        assert invoke("sweep", str(config), "--out", str(out)).exit_code == 130
    (partial,) = (out / "latents").iterdir()
    held = json.loads(partial.read_text())
    assert held["n_done"] == 3
    if changed == "identity":
        held["identity"]["shown"]["n_prompts"] += 1
    if changed == "latents":
        held["pages"][0]["latent"] = 23 - held["pages"][0]["latent"]
    for page in held["pages"]:
        page["min_share"] = -1.0
    partial.write_text(json.dumps(held) if changed != "file" else "{")
    stale = partial.with_name("mlp-half-9.partial")
    stale.write_text("{}")
    assert invoke("sweep", str(config), "--out", str(out)).exit_code == 0
    assert pages(out) == pages(whole[0])


def test_the_plain_run_is_the_nearest_in_log_l0_of_those_that_are_there() -> None:
    l0_of = {"own": 10.0, "nearest": 18.0, "far": 4.0, "dark": 0.0, "gone": 10.0, "elsewhere": 10.0}
    runs: Any = {
        name: SimpleNamespace(
            name=name,
            seed=0,
            cell="resid" if name == "elsewhere" else "mlp",
            sae="half" if name == "own" else "full",
        )
        for name in l0_of
    }
    store: Any = SimpleNamespace(
        config=SimpleNamespace(seeds=[0]),
        finished=lambda run: SimpleNamespace(quality=SimpleNamespace(l0=l0_of[run.name])),
        has_sae=lambda run: run.name != "gone",
    )
    shown = LatentsConfig(saes=("half",), value=0.1, plain="full")
    stage = latents.LatentsStage(store, shown, list(runs.values()))
    # 18 is farther from 10 than 4 is, but not by its factor
    assert stage._plain_run(runs["own"], is_there=True) is runs["nearest"]
    assert stage._plain_run(runs["own"]) is runs["gone"]


@pytest.mark.slow
@pytest.mark.parametrize("of", ["run", "plain"])
def test_pages_of_an_unchecked_result_go_where_it_was_made_again(
    of: str, whole: tuple[Path, str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole[0], out)
    path = out / "latents" / "mlp-half-0.1.json"
    page = json.loads(path.read_text())
    del page["identity"][of]["cache"]["content"]  # as of an earlier version
    path.write_text(json.dumps(page))
    counted = Counted(monkeypatch, stop_at=None)
    assert invoke("sweep", str(config), "--out", str(out)).exit_code == 0
    assert counted.n == 4
    assert pages(out) == pages(whole[0])
    # where the result has no digest either, nothing can be said against them
    result = out / "runs" / f"{page['run'] if of == 'run' else page['plain_run']}.json"
    values = json.loads(result.read_text())
    del values["identity"]["cache"]["content"]
    result.write_text(json.dumps(values))
    path.write_text(json.dumps(page))
    assert invoke("sweep", str(config), "--out", str(out)).exit_code == 0
    assert counted.n == 4


@pytest.mark.slow
@pytest.mark.parametrize("lr", [3e-3, 1e-4])
def test_pages_that_are_asked_for_no_more_stay_where_they_are_of_the_run(
    lr: float, whole: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole[0], tmp_path / "out")
    before = pages(out)
    values = sweep_values(data)
    del values["latents"]
    values["runner"]["lr"] = lr
    config = write(values, tmp_path / "without.yaml")
    assert invoke("sweep", str(config), "--out", str(out)).exit_code == 0
    assert before
    assert pages(out) == (before if lr == 3e-3 else {})


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["half", "full"])
def test_pages_stay_where_an_sae_is_removed_to_save_space(
    gone: str, whole: tuple[Path, str], config: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole[0], tmp_path / "out")
    shutil.rmtree(out / "saes" / "mlp" / "seed-0" / gone)
    with pytest.MonkeyPatch.context() as patch:
        Counted(patch, stop_at=0)
        result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert pages(out) == pages(whole[0])
    assert "is not in" not in result.stdout


@pytest.mark.slow
def test_pages_that_cannot_be_made_again_stay_where_they_are_asked_for_otherwise(
    whole: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole[0], tmp_path / "out")
    shutil.rmtree(out / "saes" / "mlp")
    values = sweep_values(data)
    values["latents"]["n_contexts"] += 1
    result = invoke("sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    before, after = pages(whole[0]), pages(out)
    assert after["mlp-half-0.1.json"] == before["mlp-half-0.1.json"]
    assert after["resid-half-0.1.json"] != before["resid-half-0.1.json"]
    assert "latents:theSAEofmlp/seed-0/half/" in "".join(result.stdout.split())


@pytest.mark.slow
def test_without_the_saes_of_its_plain_runs_a_page_has_no_pair_and_is_made_once(
    whole: tuple[Path, str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = without_latents(whole, tmp_path / "out")
    shutil.rmtree(out / "saes" / "mlp" / "seed-0" / "full")
    counted = Counted(monkeypatch, stop_at=None)
    result = invoke("sweep", str(config), "--out", str(out))
    assert "latents:theSAEofmlp/seed-0/full/" in "".join(result.stdout.split())
    held = pages(out)
    assert held["mlp-half-0.1.json"]["plain_run"] is None
    assert held["resid-half-0.1.json"]["plain_run"] is not None
    assert counted.n == 8
    assert invoke("sweep", str(config), "--out", str(out)).exit_code == 0
    assert counted.n == 8
    assert pages(out) == held


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seqpos_slice", [8, None]),
        pytest.param("exclude_special_tokens", [*range(40)], marks=pytest.mark.slow),
    ],
)
def test_no_peak_is_on_a_token_that_the_run_leaves_out(
    field: str, value: Any, data: Path, tmp_path: Path
) -> None:
    values = sweep_values(data)
    values["runner"][field] = value
    out = tmp_path / "out"
    result = invoke("sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    contexts = [
        context
        for page in pages(out).values()
        for latent in page["pages"]
        for context in latent["examples_pos"] + latent["examples_neg"]
    ]
    assert len(contexts) > 20
    if field == "seqpos_slice":
        assert all(context["position"] >= 8 for context in contexts)
    else:
        # the words of this tokenizer are w0, w1, ... by their ids
        peaks = {context["tokens"][context["peak"]].strip() for context in contexts}
        assert not peaks & {f"w{i}" for i in value}


def test_pages_of_another_run_do_not_outlive_an_interruption(
    whole: tuple[Path, str], config: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole[0], tmp_path / "out")
    page = out / "latents" / "resid-half-0.1.json"
    held = json.loads(page.read_text())
    held["identity"]["shown"]["n_prompts"] += 1
    page.write_text(json.dumps(held))
    with pytest.MonkeyPatch.context() as patch:
        Counted(patch, stop_at=0)
        assert invoke("sweep", str(config), "--out", str(out)).exit_code == 130
    assert set(pages(out)) == {"mlp-half-0.1.json", "resid-half-0.1.partial"}


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_latent_whose_logits_overflow_has_no_dial(
    value: float,
    whole: tuple[Path, str],
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = without_latents(whole, tmp_path / "out")
    real = latent_pages.polarity_dial

    def overflowing(*args: Any) -> Any:
        dial = real(*args)
        dial.effect[0] = value
        return dial

    monkeypatch.setattr(latent_pages, "polarity_dial", overflowing)
    result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    for held in pages(out).values():
        assert [page["dial"] for page in held["pages"]] == [None] * 4


def test_picked_latents_are_put_before_the_others(
    source: Path,
    benchmark_script: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(source.parent)
    picked = benchmark_script("picked_latents")
    file = Path("out/latents/mlp-half-0.1.json")
    shown = [page["latent"] for page in json.loads(file.read_text())["pages"]]
    other = next(latent for latent in range(24) if latent not in shown)
    sae = shutil.copytree(
        "out/saes/mlp/seed-0/half/l1_coefficient-0.1", f"{picked.PREFIX}-mlp", dirs_exist_ok=True
    )
    args = [source.name, str(file), "--sae", sae, "--latents", str(other), str(shown[1])]
    monkeypatch.setattr("sys.argv", ["picked_latents.py", *args])
    picked.main()
    pages = json.loads(file.read_text())["pages"]
    expected = [other, shown[1], *(latent for latent in shown if latent != shown[1])]
    assert [page["latent"] for page in pages] == expected
    assert pages[0]["dial"] is None
