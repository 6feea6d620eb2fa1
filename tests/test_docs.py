"""The docs: snippets run, configs load, links lead somewhere, every command and public name is there."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from transformer_lens import HookedTransformer

import sae_lens_signaware as signaware
from sae_lens_signaware.cli import app
from sae_lens_signaware.experiments.protocols import load_protocol_config
from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from sae_lens_signaware.training.config import load_runner_config
from tests.notebook import NOTEBOOK
from tests.support.hub import save_measured, x_batch
from tests.support.hub_server import HubServer
from tests.support.models import HOOK, tiny_model_config, tiny_tokenizer, tokens
from tests.support.saes import make_sae

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
RUNNABLE = re.compile(r"<!-- runnable -->\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)


def source(page: Path) -> str:
    """A page with the files that it includes."""
    return SNIPPET.sub(lambda m: (ROOT / m[1]).read_text(), page.read_text())


def config_of(page: str, kind: str, folder: Path) -> Path:
    """The one YAML block of a page that is marked as a config of a kind, as a file."""
    pattern = rf"<!-- {kind} config -->\n```yaml\n(.*?)^```$"
    (block,) = re.findall(pattern, source(DOCS / page), re.DOTALL | re.MULTILINE)
    path = folder / "config.yaml"
    path.write_text(block)
    return path


def nav_files(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [file for value in values for file in nav_files(value)]


def test_the_guides_python_runs(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = HookedTransformer(tiny_model_config())
    model.tokenizer = tiny_tokenizer()
    sae = make_sae("sa_gsae")
    save_measured(sae, Path("output"))
    sae.cfg.metadata.hook_name, sae.cfg.metadata.prepend_bos = HOOK, False
    sae.cfg.metadata.context_size = 16
    sae.save_model(Path("output"))
    prompts = torch.randint(0, 63, (6, 16))
    dataset = tokens()
    namespace: dict[str, Any] = {
        "activations": x_batch(), "model": model, "tokens": prompts, "dataset": dataset,
    }  # fmt: skip
    text = (DOCS / "guide.md").read_text()
    blocks = list(RUNNABLE.finditer(text))
    # only a language model's runner is too much for a test
    others = RUNNABLE.sub("", text).split("```python\n")[1:]
    assert all(".run()" in block.split("```")[0] for block in others)
    for block in blocks:
        # so that a traceback names the line of the page
        before = "\n" * text[: block.start(1)].count("\n")
        exec(compile(before + block[1], str(DOCS / "guide.md"), "exec"), namespace)
    assert (tmp_path / "toy" / "sae_weights.safetensors").exists()
    assert any("POST /api/models/me/my-saes/commit/main" in line for line in hub.log)
    torch.testing.assert_close(namespace["signed"](x_batch()), sae(x_batch()))
    torch.testing.assert_close(namespace["plain"](x_batch()), sae(x_batch()))


def test_the_guides_yaml_is_its_python(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(RUNNABLE.findall((DOCS / "guide.md").read_text())[0], namespace)
    mine, ours = load_runner_config(config_of("guide.md", "runner", tmp_path)), namespace["cfg"]
    assert mine.sae == ours.sae
    for name in ("model_name", "hook_name", "training_tokens", "lr", "lr_decay_steps"):
        assert getattr(mine, name) == getattr(ours, name)


def test_the_configs_of_experiments_load(tmp_path: Path) -> None:
    config, runs = load_sweep_config(config_of("experiments.md", "sweep", tmp_path))
    assert {run.sae for run in runs} == set(config.saes)
    assert load_protocol_config(config_of("experiments.md", "protocol", tmp_path)).protocol == "a"


def test_the_command_lines_page_has_every_command() -> None:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert hooks.MARKER in (DOCS / "cli.md").read_text()
    reference = hooks.command_reference()
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        assert f"\n## {name}\n" in reference
        assert f"Usage: sae-lens-signaware {name} " in reference
        for param in command.params:
            for option in param.opts if param.opts[0].startswith("-") else [param.metavar]:
                assert option in reference


def test_the_api_page_has_every_public_name() -> None:
    documented = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert len(documented) == len(set(documented))
    missing = {f"sae_lens_signaware.{name}" for name in signaware.__all__} - set(documented)
    assert not missing


def test_every_page_is_in_the_nav_and_every_link_leads_somewhere() -> None:
    nav = nav_files(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(nav) == sorted(page.name for page in [*PAGES, NOTEBOOK])
    headings = {
        page.name: {
            re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
            for heading in re.findall(r"^#+ (.+)$", source(page), re.MULTILINE)
        }
        for page in PAGES
    }
    headings["api.md"] |= set(re.findall(r"^::: (\S+)$", source(DOCS / "api.md"), re.MULTILINE))
    for page in PAGES:
        for link in LINK.findall(source(page)):
            if ":" in link:
                continue  # elsewhere
            file, _, anchor = link.partition("#")
            target = file or page.name
            assert (DOCS / target).is_file(), f"{page.name}: {link}"
            assert not anchor or anchor in headings[target], f"{page.name}: {link}"


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the [docs] extra")
    pytest.importorskip("mkdocstrings", reason="needs the [docs] extra")
    pytest.importorskip("mkdocs_jupyter", reason="needs the [docs] extra")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {page.stem: page.read_text() for page in tmp_path.glob("*.html")}
    assert "Usage: sae-lens-signaware train" in pages["cli"]
    assert "0.1.0" in pages["changelog"]
    assert 'class="arithmatex"' in pages["architectures"]
    assert "split_polarities" in pages["notebook"]
    api = pages["api"]
    for name in signaware.__all__:
        assert f'id="sae_lens_signaware.{name}"' in api
    assert ":func:" not in api
    assert ":class:" not in api
    # names that share a description have an entry each, and formulas are code
    assert re.search(r"<b>(<code>)?(<span[^>]*>|<a[^>]*>)*gain_neg", api)
    assert re.search(r"<pre>.*?g_s = 1\[u_s", api, re.DOTALL)
    for text in pages.values():
        assert not re.search(r'<(script|link)[^>]+(src|href)="https?://(?!arxiv)', text)
