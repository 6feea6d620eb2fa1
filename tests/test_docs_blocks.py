"""Every Python block of README and the docs runs; each is named here once, with what it needs."""

import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sae_lens
import torch
from sae_lens import SAE

import sae_lens_signaware as signaware
from tests.support.hub import save_measured, x_batch
from tests.support.models import HOOK, hooked_transformer
from tests.support.saes import make_sae

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^((?:<!-- [^\n]+ -->)?)\n?```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = [ROOT / "README.md", ROOT / "pretrained" / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]

# The marker before a block -> the test that runs it.
ELSEWHERE = {
    "<!-- pretrained -->": "test_pretrained.py",  # README's first example
    "<!-- architecture -->": "test_add_an_architecture.py",
    "<!-- architecture by token -->": "test_add_an_architecture.py",
}
MARKED = "<!-- runnable -->"  # the guide's, which test_docs.py runs in their order
# The calls of other tools -> the script that makes them in the tool's own environment.
TOOLS = {
    "from sae_bench": "run_sae_bench.py",
    "from sae_dashboard": "run_sae_dashboard.py",
    "from delphi": "run_delphi.py",
}


def blocks(page: Path) -> list[tuple[str, str]]:
    """The marker before each Python block of a page, and the block."""
    found = BLOCK.findall(page.read_text())
    assert len(found) == page.read_text().count("```python\n")
    return found


def rest() -> dict[str, str]:
    """The blocks that no other test runs, by their page and number on it."""
    return {
        f"{page.parent.name}/{page.name} {number}": code
        for page in PAGES
        for number, (marker, code) in enumerate(blocks(page))
        if marker not in (MARKED, *ELSEWHERE) and not code.startswith(tuple(TOOLS))
    }


class RecordingRunner:
    """In place of SAELens's runner, which would load Pythia-1B."""

    configs: ClassVar[list[Any]] = []
    evaluator = None

    def __init__(self, cfg: Any) -> None:
        self.configs.append(cfg)

    def run(self) -> Any:
        return make_sae("sa_gsae")


def write_tense(path: Path) -> None:
    """Texts of the small model, with a label and a part."""
    rows = [f"w{i} w{i + 1},{'past' if i % 2 else 'present'},{'fit' if i < 20 else 'report'}"
            for i in range(40)]  # fmt: skip
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(["text,label,part", *rows]))


@pytest.mark.parametrize("name", rest())
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = make_sae("bi_jumprelu")
    save_measured(sae, tmp_path / "output")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sae_lens, "LanguageModelSAETrainingRunner", RecordingRunner)
    training = signaware.BiBatchTopKTrainingSAEConfig(d_in=6, d_sae=8, k=2)
    sae_lens.TrainingSAE.from_dict(training.to_dict()).save_model(tmp_path / "checkpoint")
    sae.cfg.metadata.hook_name = HOOK
    write_tense(tmp_path / "opposites_out" / "data" / "tense.csv")
    namespace: dict[str, Any] = {
        "SAE": SAE,
        "LanguageModelSAETrainingRunner": RecordingRunner,
        "activations": x_batch(),
        "cfg": None,
        "checkpoint": tmp_path / "checkpoint",
        "model": hooked_transformer(),
        "sae": sae,
        "signaware": signaware,
        "split_polarities": signaware.split_polarities,
    }
    exec(compile(rest()[name], name, "exec"), namespace)
    if "plain" in namespace:
        x = x_batch()
        torch.testing.assert_close(namespace["plain"](x), namespace.get("signed", sae)(x))


def test_readme_trains_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sae_lens, "LanguageModelSAETrainingRunner", RecordingRunner)
    exec(rest()[f"{ROOT.name}/README.md 1"], {})
    cfg = RecordingRunner.configs[-1]
    assert cfg.model_name == "EleutherAI/pythia-1b"
    assert (cfg.sae.architecture(), cfg.sae.target_l0) == ("bi_jumprelu", 32)
    steps = cfg.training_tokens // cfg.train_batch_size_tokens
    assert (steps, cfg.lr_decay_steps, cfg.sae.l0_warm_up_steps) == (4000, 3000, 400)


@pytest.mark.parametrize("start", TOOLS)
def test_a_tools_script_imports_what_its_block_does(start: str) -> None:
    codes = [code for page in PAGES for _, code in blocks(page)]
    (block,) = [code for code in codes if code.startswith(start)]
    script = (ROOT / "tests" / "tools" / TOOLS[start]).read_text()
    module = start.removeprefix("from ")
    names = re.findall(rf"^from {module}\S* import (.+)$", block, re.MULTILINE)
    assert names
    for name in ", ".join(names).split(", "):
        assert re.search(rf"\b{name}\b", script), name


@pytest.mark.parametrize(("own_marker", "file"), ELSEWHERE.items())
def test_the_others_are_run_where_this_file_says(own_marker: str, file: str) -> None:
    markers = [marker for page in PAGES for marker, _ in blocks(page)]
    assert markers.count(own_marker) == 1
    assert own_marker + r"\n```python" in (ROOT / "tests" / file).read_text()
