"""docs/notebook.ipynb, executed against the Hub on loopback.

    python -m tests.notebook

writes its outputs anew. It leaves out what a library prints to stderr, and the outputs of cells
tagged "excerpts": they quote the text that the SAE reads, which is not in this repository.
"""

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"


# In a test, for the time it takes: fewer activations, fewer steps on them, and fewer prompts.
SHORTER = {
    "40_000": "6_000",
    "8_000}": "3_000}",
    "800 * 512": "200 * 512",
    "l1_warm_up_steps=160": "l1_warm_up_steps=40",
    "n_batches_for_norm_estimate=78": "n_batches_for_norm_estimate=11",
    "get_batch_tokens(96)": "get_batch_tokens(16)",
}


def execute(folder: Path, instead: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Run the notebook in ``folder``/docs, with pretrained/ beside it, as in the repository.

    The environment names the Hub; a cell that raises, raises. What ``instead`` names is in the
    notebook once, and is replaced.
    """
    import nbformat
    from nbclient import NotebookClient

    text = NOTEBOOK.read_text()
    for what, by in instead.items():
        assert text.count(what) == 1, what
        text = text.replace(what, by)
    notebook = nbformat.reads(text, as_version=4)
    docs = folder / "docs"
    docs.mkdir()
    (folder / "pretrained").symlink_to(NOTEBOOK.parent.parent / "pretrained")
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(docs)}}).execute()
    return notebook


def to_commit(notebook: Any) -> Any:
    """Take away stderr, excerpts, and what changes from run to run."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of Python
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            kept = [] if "excerpts" in tags else cell.outputs
            cell.outputs = [o for o in kept if o.get("name") != "stderr"]
    return notebook


def main() -> None:
    import os

    import nbformat

    import tests.conftest  # noqa: F401  # its Hub

    os.environ["SIGNAWARE_REPO"] = "someone/notebook"
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(to_commit(execute(Path(folder))), NOTEBOOK)


if __name__ == "__main__":
    main()
