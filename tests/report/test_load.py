"""Results that are read from a folder."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("plotly", reason="needs the [report] extra")
from sae_lens_signaware.report.load import _names, read_results
from tests.report.pages import sae_latents


def test_files_of_results_may_be_links(results: Path, tmp_path: Path) -> None:
    for file in results.rglob("*.json"):
        link = tmp_path / "linked" / file.relative_to(results)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob = tmp_path / "blobs" / file.relative_to(results).as_posix().replace("/", "-")
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(file.read_bytes())
        link.symlink_to(blob)  # as in a snapshot of the Hub
    linked, there = read_results(tmp_path / "linked"), read_results(results)
    assert [one.latents for one in linked.latents] == [one.latents for one in there.latents]
    assert [sweep.ablations for sweep in linked.sweeps] == [s.ablations for s in there.sweeps]
    assert there.latents


def test_sweeps_whose_folders_share_a_name_have_the_names_of_their_paths(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a/out", "b/out", "c/other")]
    assert _names(folders, tmp_path) == ["a/out", "b/out", "other"]


def test_results_of_an_sae_called_latents_are_no_latents(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "results")
    run = tmp_path / "results" / "runs" / "mlp" / "seed-0" / "latents" / "k-8.json"
    run.parent.mkdir(parents=True)
    run.write_text('{"cell": "mlp"}')
    found, there = read_results(tmp_path / "results"), read_results(results)
    assert [one.latents for one in found.latents] == [one.latents for one in there.latents]


@pytest.mark.parametrize("name", ["runs/mlp/seed-0", "latents"])
def test_a_sweep_may_be_in_a_folder_of_any_name(name: str, results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "main_sweep", tmp_path / name)
    (tmp_path / name / "digests.json").write_text("{}")  # which a sweep writes too
    found, there = read_results(tmp_path), read_results(results / "main_sweep")
    assert [one.latents for one in found.latents] == [one.latents for one in there.latents]
    assert len(found.sweeps) == len(there.sweeps) == 1
    assert there.latents


def test_a_cell_may_be_called_like_a_file_of_results(tmp_path: Path) -> None:
    sae_latents(0, 0).write(tmp_path / "latents" / "protocol-a-signed-32.json")
    (tmp_path / "cache").mkdir()
    for cell in ("protocol-a", "sweep"):
        for suffix in ("json", "safetensors"):
            (tmp_path / "cache" / f"{cell}.{suffix}").write_text("{}")
    found = read_results(tmp_path)
    assert (len(found.latents), found.protocols, found.sweeps) == (1, [], [])
