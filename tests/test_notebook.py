"""docs/notebook.ipynb runs to its last cell; as committed it is small and quotes nothing."""

from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.notebook import NOTEBOOK, SHORTER, execute, to_commit
from tests.support.hub_server import HubServer


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_what_is_committed_was_executed_is_small_and_quotes_nothing() -> None:
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    assert NOTEBOOK.stat().st_size < 64 * 1024
    assert to_commit(notebook) == notebook
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    excerpts = [cell for cell in cells if "excerpts" in cell.metadata.get("tags", [])]
    assert ["examples.table" in cell.source for cell in excerpts] == [True]
    shown = [cell.source for cell in cells if cell not in excerpts and not cell.outputs]
    # every other cell shows something
    assert all(source.startswith("import os") for source in shown)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNAWARE_REPO", "someone/notebook")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parent.parent))
    cells = code_cells(execute(tmp_path, SHORTER))
    assert printed(cells[-1]).endswith("pushed, and loaded again: the same\n")
    assert "POST /api/models/someone/notebook/commit/main" in hub.log
    (excerpts,) = [cell for cell in cells if "excerpts" in cell.metadata.get("tags", [])]
    assert "latent" in excerpts.outputs[0]["data"]["text/plain"]
    assert (tmp_path / "docs" / "notebook_out" / "sae" / "quality.json").exists()
