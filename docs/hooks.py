"""mkdocs hooks: what is made when the site is built.

The commands' own --help on the command line's page, the studies as pages, the gallery of latents.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LATENTS = ROOT / "docs" / "latents"
MARKER = "<!-- commands -->"
PROGRAM = "sae-lens-signaware"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s:]+)\)")


def studies() -> list[Path]:
    """The folders of studies that have a page."""
    return sorted(readme.parent for readme in (ROOT / "studies").glob("*/README.md"))


def on_config(config: Any) -> Any:
    """Called first: the studies go at the end of the navigation."""
    pages = [{_title(study): f"studies/{study.name}/README.md"} for study in studies()]
    if pages:
        config["nav"].append({"Studies": pages})
    return config


def _title(study: Path) -> str:
    return (study / "README.md").read_text().split("\n", 1)[0].removeprefix("# ")


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Called with the files of docs/: the studies' pages and figures join them."""
    from mkdocs.structure.files import File

    for study in studies():
        for path in study.iterdir():
            if path.suffix in (".md", ".svg", ".png"):
                name = path.relative_to(ROOT).as_posix()
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Any, **_: Any) -> str:
    """Called with each page's source: links of the repository become links of the site."""
    uri = page.file.src_uri
    here = posixpath.dirname(uri if uri.startswith("studies/") else f"docs/{uri}")

    def on_site(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        path, hash_mark, anchor = target.partition("#")
        if not path:
            return match[0]
        in_repository = posixpath.normpath(posixpath.join(here, path))
        source = in_repository.removeprefix("docs/")
        if files.get_file_from_path(source) is None:
            return text  # such as a script or a result, which are no pages
        link = posixpath.relpath(source, posixpath.dirname(uri) or ".")
        return f"{image}[{text}]({link}{hash_mark}{anchor})"

    markdown = LINK.sub(on_site, markdown)
    return markdown.replace(MARKER, command_reference()) if MARKER in markdown else markdown


def command_reference() -> str:
    """Markdown: the help of the program, then that of every command under a heading of its own."""
    import typer

    from sae_lens_signaware.cli import app

    group: Any = typer.main.get_command(app)
    parts = [_help_of()]
    parts += [f"## {name}\n\n{_help_of(name)}" for name in group.commands]
    return "\n\n".join(parts)


def _help_of(*command: str) -> str:
    from typer.testing import CliRunner

    from sae_lens_signaware.cli import app

    result = CliRunner().invoke(
        app, [*command, "--help"], prog_name=PROGRAM, env={"COLUMNS": "80", "NO_COLOR": "1"}
    )
    if result.exit_code != 0:
        raise RuntimeError(f"{PROGRAM} {' '.join(command)} --help: {result.output}")
    return f"```text\n{result.stdout.strip()}\n```"


def on_post_build(config: Any, **_: Any) -> None:
    """Called when the pages are written: the gallery, of the latents of the pretrained SAEs."""
    from sae_lens_signaware.report import write_report

    write_report(LATENTS, Path(config["site_dir"]) / "assets" / "gallery.html")
