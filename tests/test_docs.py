"""The docs: snippets run, configs load, links work, every command and public name is there."""

import dataclasses
import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import typer
import yaml
from sae_lens import (
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAEConfig,
)

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.cli import app
from sae_lens_signaware.evaluation.quality import missed_target_l0
from sae_lens_signaware.experiments.protocols import load_protocol_config
from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from sae_lens_signaware.saes.finite_losses import NON_FINITE_MESSAGE
from sae_lens_signaware.training.config import build_sae_config, load_runner_config
from sae_lens_signaware.training.hooks import naming_what_is_missing
from tests.notebook import NOTEBOOK
from tests.support.hub import save_measured, x_batch
from tests.support.hub_server import HubServer
from tests.support.models import HOOK, hooked_transformer, tokens
from tests.support.saes import ARCHITECTURES, make_sae

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
RUNNABLE = re.compile(r"<!-- runnable -->\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SNIPPET = re.compile(r'^ *--8<-- "(.+)"$', re.MULTILINE)
COMMAND = r"<!-- {} -->\n```bash\n(.*?)^```$"


def source(page: Path) -> str:
    """A page with the files that it includes."""
    return SNIPPET.sub(lambda m: (ROOT / m[1]).read_text(), page.read_text())


def config_of(page: str, kind: str, folder: Path) -> Path:
    """The one YAML block of a page that is marked as a config of a kind, as a file."""
    pattern = rf"<!-- {kind} config -->\n(?:<!-- file: \S+ -->\n\n)?```yaml\n(.*?)^```$"
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
    model = hooked_transformer()
    sae = make_sae("sa_gsae")
    save_measured(sae, Path("output"))
    sae.cfg.metadata.hook_name, sae.cfg.metadata.prepend_bos = HOOK, False
    sae.cfg.metadata.context_size = 16
    sae.save_model(Path("output"))
    namespace: dict[str, Any] = {}
    # in place of SmolLM2 and of the demo's text
    monkeypatch.setattr(signaware, "load_demo_model", lambda: model)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: tokens())
    text = (DOCS / "guide.md").read_text()
    blocks = list(RUNNABLE.finditer(text))
    # only a language model's runner is too much for a test
    others = RUNNABLE.sub("", text).split("```python\n")[1:]
    assert all(".run()" in block.split("```")[0] for block in others)
    for block in blocks:
        # so that a traceback names the line of the page
        before = "\n" * text[: block.start(1)].count("\n")
        # the latent that the page looks at, in an SAE that has so many; this one has fewer
        code = block[1].replace("701", "5")
        exec(compile(before + code, str(DOCS / "guide.md"), "exec"), namespace)
    assert (tmp_path / "toy" / "sae_weights.safetensors").exists()
    assert any("POST /api/models/me/my-saes/commit/main" in line for line in hub.log)
    torch.testing.assert_close(namespace["signed"](x_batch()), sae(x_batch()))
    torch.testing.assert_close(namespace["plain"](x_batch()), sae(x_batch()))


def test_the_guides_yaml_is_its_python(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {}
    blocks = RUNNABLE.findall((DOCS / "guide.md").read_text())
    exec(next(block for block in blocks if "LanguageModelSAERunnerConfig(" in block), namespace)
    mine, ours = load_runner_config(config_of("guide.md", "runner", tmp_path)), namespace["cfg"]
    assert mine.sae == ours.sae
    for name in ("model_name", "hook_name", "training_tokens", "lr", "lr_decay_steps"):
        assert getattr(mine, name) == getattr(ours, name)


def test_the_configs_of_experiments_load(tmp_path: Path) -> None:
    config, runs = load_sweep_config(config_of("experiments.md", "sweep", tmp_path))
    assert {run.sae for run in runs} == set(config.saes)
    assert load_protocol_config(config_of("experiments.md", "protocol", tmp_path)).protocol == "a"


@pytest.fixture
def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gallery_is_made_where_its_page_looks_for_it(hooks: Any, tmp_path: Path) -> None:
    hooks.on_post_build({"config_file_path": str(ROOT / "mkdocs.yml"), "site_dir": str(tmp_path)})
    page = (DOCS / "gallery.md").read_text()
    for name in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert (tmp_path / name).stat().st_size < 2_000_000
        assert "40 latents of 3 SAEs" in (tmp_path / name).read_text()
    assert page.count(hooks.GALLERY.as_posix()) == 2


def test_the_figure_of_a_latent_is_what_its_command_makes(tmp_path: Path) -> None:
    page = (DOCS / "gallery.md").read_text()
    (words,) = re.findall(r"^ +python benchmarks/latent_figure.py (.+)$", page, re.MULTILINE)
    latents, _, latent, _, title = shlex.split(words)
    made = signaware.write_latent_figure(ROOT / latents, int(latent), tmp_path / "a.svg", title)
    assert made.read_text() == (DOCS / "assets" / "latent.svg").read_text()
    assert made.stat().st_size < 100_000


def test_the_command_lines_page_has_every_command(hooks: Any) -> None:
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


def site_config() -> dict[str, Any]:
    """mkdocs.yml; its tags name Python objects of the theme, which need not be installed."""

    class Loader(yaml.SafeLoader):
        pass

    for kind in ("name", "object/apply"):
        Loader.add_multi_constructor(f"tag:yaml.org,2002:python/{kind}:", lambda *_: None)
    return yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs makes them."""
    headings = re.findall(r"^#+ (.+)$", source(page), re.MULTILINE)
    found = {
        re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
        for heading in headings
    }
    return found | set(re.findall(r"^::: (\S+)$", source(page), re.MULTILINE))


def test_every_page_is_in_the_nav_and_every_link_leads_somewhere() -> None:
    config = site_config()
    nav = [*nav_files(config["nav"]), *config.get("not_in_nav", "").split()]
    assert sorted(nav) == sorted(str(page.relative_to(DOCS)) for page in [*PAGES, NOTEBOOK])
    for page in PAGES:
        for link in LINK.findall(source(page)):
            if ":" in link:
                continue  # elsewhere
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            assert target.is_relative_to(DOCS), f"{page.name}: {link} leaves the site"
            assert target.is_file(), f"{page.name}: {link}"
            assert not anchor or anchor in slugs(target), f"{page.name}: {link}"


def test_every_file_of_results_that_a_page_names_is_there() -> None:
    named = {
        name
        for page in PAGES
        for name in re.findall(
            r"\b((?:results|configs|benchmarks)/[\w.-]+\.(?:json|md|py|yaml|png))\b", source(page)
        )
    }
    assert len(named) > 20
    named -= {"results/speed_CARD_DAY.json"}  # a pattern
    assert not {n for n in named if not (ROOT / n).exists() and not (DOCS / n).exists()}


def test_the_citation_file_and_the_page_say_the_same() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    page = (DOCS / "cite.md").read_text()
    (paper,) = citation["references"]
    for author in (*citation["authors"], *paper["authors"]):
        assert f"{{{{{author['name']}}}}}" in page
    for one in (citation, paper):
        assert f"{{{one['title']}}}" in page
    assert f"{{{paper['url']}}}" in page
    assert f"version = {{{signaware.__version__}}}" in page
    assert citation["version"] == signaware.__version__


@pytest.mark.parametrize("name", ["demo", "tests"])
def test_home_has_the_commands_of_the_readme(name: str) -> None:
    pattern = re.compile(COMMAND.format(name), re.DOTALL | re.MULTILINE)
    (readme,) = pattern.findall((ROOT / "README.md").read_text())
    assert pattern.findall((DOCS / "index.md").read_text()) == [readme]


def test_the_guides_settings_by_model_size_are_those_of_the_configs() -> None:
    text = (DOCS / "guide.md").read_text()
    rows = re.findall(r"^\| (`[\w.]+`.*) \| ([\w.,]+) \| ([\w.,]+) \|$", text, re.MULTILINE)
    assert len(rows) == 10
    of_paper = [f"{name}-mlp_out-sa_gsae" for name in ("pythia-1b", "smollm3-3b")]
    for column, names in enumerate((["best-smollm2-135m-mlp_out"], of_paper)):
        for name in names:
            cfg = load_runner_config(ROOT / "configs" / f"{name}.yaml")
            for label, *values in rows:
                fields = re.findall(r"`([\w.]+)`", label)
                field = fields[column if len(fields) > 1 else 0]  # of bi_jumprelu, of sa_gsae
                owner, at = (cfg.sae, field[4:]) if field.startswith("sae.") else (cfg, field)
                assert getattr(owner, at) == yaml.safe_load(values[column].replace(",", "")), field


def test_the_choices_are_configs_of_saelens() -> None:
    text = (DOCS / "which.md").read_text()
    (block,) = re.findall(r"<!-- choices -->\n```yaml\n(.*?)^```$", text, re.DOTALL | re.M)
    choices = yaml.safe_load(block)
    variants = {"both_sides": "bi_jumprelu", "bi_jumprelu_at_1e-3": "bi_jumprelu"}
    for name, fields in choices.items():
        cfg = build_sae_config(fields, "which.md")
        assert cfg.architecture() == variants.get(name, name)
        assert len(fields) < 10
    assert set(choices) - set(variants) == set(ARCHITECTURES)


def test_troubleshooting_quotes_the_errors_as_they_are(tmp_path: Path) -> None:
    text = (DOCS / "troubleshooting.md").read_text()
    config = config_of("guide.md", "runner", tmp_path)
    wrong = {
        "sae.target_lo: unknown field": config.read_text().replace("target_l0", "target_lo"),
        "sae.architecture: unknown value": config.read_text().replace(
            "bi_jumprelu", "bi_jumpreluu"
        ),
    }
    for start, yaml_text in wrong.items():
        config.write_text(yaml_text)
        with pytest.raises(ConfigError, match=re.escape(start)) as error:
            load_runner_config(config)
        assert f"Error: {error.value}\n" in text
    with pytest.raises(ConfigError) as error:
        load_runner_config(config_of("guide.md", "runner", tmp_path), ["--l0_coeff", "3"])
    assert f"Error: {error.value}\n" in text
    with pytest.raises(ConfigError) as error, naming_what_is_missing("m", "AutoModelForCausalLM"):
        raise ValueError("hook_names not found in the model: ['blocks.8.hook_mlp_out']")
    assert f"Error: {error.value}\n" in text
    assert f"Error: {NON_FINITE_MESSAGE}\n" in text
    assert f"Warning: {missed_target_l0(16, 58.2)}\n" in text


def test_troubleshooting_keeps_what_version_0_1_0_did() -> None:
    text = (DOCS / "troubleshooting.md").read_text()
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    fields = yaml.safe_load(block)["sae"]
    cfg = signaware.SAGatedTrainingSAEConfig(d_in=4, d_sae=8, **fields)
    assert {name: getattr(cfg, name) for name in fields} == fields


def test_the_page_for_saelens_users_has_every_field_that_differs() -> None:
    text = (DOCS / "coming_from_saelens.md").read_text()
    for theirs, ours in (
        (GatedTrainingSAEConfig, signaware.SAGatedTrainingSAEConfig),
        (JumpReLUTrainingSAEConfig, signaware.BiJumpReLUTrainingSAEConfig),
        (BatchTopKTrainingSAEConfig, signaware.BiBatchTopKTrainingSAEConfig),
        (MatryoshkaBatchTopKTrainingSAEConfig, signaware.BiMatryoshkaBatchTopKTrainingSAEConfig),
    ):
        assert f"`{ours.__name__}`" in text
        defaults = [{f.name: f.default for f in dataclasses.fields(cfg)} for cfg in (theirs, ours)]
        assert defaults[0].keys() <= defaults[1].keys()
        # not options of a training: the file's format, and two that only ablations set
        new = defaults[1].keys() - {"format_version", "threshold_init"}
        for name in new - {"threshold_reset_interval", "dead_threshold_reset"}:
            if defaults[0].get(name, dataclasses.MISSING) != defaults[1][name]:
                assert f"`{name}`" in text, name
