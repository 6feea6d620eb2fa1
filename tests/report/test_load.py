"""Results that are read from a folder."""

from pathlib import Path

import pytest

pytest.importorskip("plotly", reason="needs the [report] extra")
from sae_lens_signaware.report.load import read_results


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
