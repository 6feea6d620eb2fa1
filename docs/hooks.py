"""mkdocs hooks: what is made from the code and the results when the site is built.

These are the commands' own --help on the command line's page, and the browser of latents.
"""

from pathlib import Path
from typing import Any

GALLERY = Path("assets", "gallery.html")
MARKER = "<!-- commands -->"
PROGRAM = "sae-lens-signaware"


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


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by mkdocs with each page's source."""
    if page.file.src_uri != "cli.md":
        return markdown
    return markdown.replace(MARKER, command_reference())


def on_post_build(config: Any, **_: Any) -> None:
    """Called by mkdocs when the pages are written."""
    from sae_lens_signaware.report import write_report

    latents = Path(config["config_file_path"]).parent / "results" / "latents"
    write_report(latents, Path(config["site_dir"]) / GALLERY, latents_only=True)
