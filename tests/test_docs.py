"""The docs: Python runs, YAML loads, links lead somewhere, no public name is left out."""

import importlib.util
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from rich.console import Console
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

import sae_lens_signaware as signaware
from sae_lens_signaware.cli import app
from sae_lens_signaware.sweep.config import load_sweep_config
from sae_lens_signaware.training.config import build_runner_config
from sae_lens_signaware.training.yaml_files import read_yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [
    *PAGES,
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted(ROOT.glob("studies/*/README.md")),
]
FENCE = r"<!-- {} -->\n```{}\n(.*?)^```$"
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(page: Path, marker: str, language: str) -> list[str]:
    """The code blocks of a page below a marker."""
    pattern = re.compile(FENCE.format(re.escape(marker), language), re.DOTALL | re.MULTILINE)
    return pattern.findall(page.read_text())


def run(page: Path, marker: str, names: dict[str, Any]) -> None:
    for code in blocks(page, marker, "python"):
        small = code.replace("n_steps = 3_000", "n_steps = 30")
        small = small.replace("heldout @ whitening", "heldout[::20] @ whitening")
        exec(compile(small, str(page), "exec"), names)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder that has pretrained/ as a clone has it."""
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_python_of_the_pages_on_patches_runs() -> None:
    names: dict[str, Any] = {}
    for page in ("other.md", "evaluate.md", "convert.md"):
        run(DOCS / page, "runs", names)
    assert names["sae"].cfg.d_sae == 128
    assert names["again"].cfg.architecture() == "bi_jumprelu"


def test_python_of_the_training_page_runs(folder: Path) -> None:
    run(DOCS / "train.md", "runs", {})
    assert (folder / "toy" / "sae_weights.safetensors").exists()


@pytest.mark.usefixtures("folder")
def test_an_architecture_of_ones_own_trains_and_loads() -> None:
    names: dict[str, Any] = {}
    try:
        run(DOCS / "extend.md", "runs", names)
        assert type(names["soft_sae"]) is names["SoftSAE"]
    finally:
        SAE_CLASS_REGISTRY.pop("bi_soft", None)
        SAE_TRAINING_CLASS_REGISTRY.pop("bi_soft", None)


def test_the_training_pages_yaml_is_its_python_and_the_readmes(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    (text,) = blocks(DOCS / "train.md", "runner config", "yaml")
    path.write_text(text)
    ours = build_runner_config(read_yaml(path), str(path))
    for page in (DOCS / "train.md", ROOT / "README.md"):
        names: dict[str, Any] = {}
        run(page, "runs: config", names)
        assert names["cfg"].sae == ours.sae
        for field in ("model_name", "hook_name", "training_tokens", "lr", "lr_decay_steps"):
            assert getattr(names["cfg"], field) == getattr(ours, field)
    path.write_text(blocks(DOCS / "train.md", "sweep config", "yaml")[0])
    assert load_sweep_config(path)


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_python_on_the_language_model_runs() -> None:
    names: dict[str, Any] = {}
    run(DOCS / "start.md", "runs: language model", names)
    run(DOCS / "evaluate.md", "runs: language model", names)
    run(ROOT / "README.md", "runs: language model", names)
    console = Console(width=100, record=True, file=StringIO())
    console.print(names["found"].table())
    value = re.compile(r"701: ([-+][\d.]+)")
    assert value.findall(console.export_text()) == value.findall((DOCS / "start.md").read_text())


def nav_of(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for value in entry.values() if isinstance(entry, dict) else entry:
            yield from nav_of(value)


def slugs(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if ":" not in link:
            assert target.exists(), link
            assert not anchor or anchor in slugs(target), link


def test_every_page_is_in_the_navigation() -> None:
    (nav,) = re.findall(r"^nav:\n((?: .*\n)+)", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(nav_of(yaml.safe_load(nav))) == [page.name for page in PAGES]


def test_every_public_name_and_command_is_documented() -> None:
    documented = re.findall(r"^::: sae_lens_signaware\.(\w+)$", (DOCS / "api.md").read_text(), re.M)
    assert sorted(documented) == sorted(signaware.__all__)
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    group: Any = typer.main.get_command(app)
    for name in group.commands:
        assert f"`{name}`" in (DOCS / "cli.md").read_text()
        assert f"\n## {name}\n" in hooks.command_reference()


def test_the_commands_of_readme_and_docs_and_the_cited_version_are_the_same() -> None:
    for name in ("demo", "tests"):
        (command,) = blocks(ROOT / "README.md", name, "bash")
        assert blocks(DOCS / "start.md", name, "bash") == [command]
    assert f"version: {signaware.__version__}\n" in (ROOT / "CITATION.cff").read_text()
