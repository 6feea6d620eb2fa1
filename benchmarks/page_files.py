"""Files of the repository, written into the pages that show them.

    python benchmarks/figures.py

GitHub shows a page as it stands in the repository, without the site's includes. So a table of
results/ or a config stands in the page itself, between two comments:

    <!-- file: results/equal_width_gaps.md -->
    ...
    <!-- end of file -->
"""

import re
from collections.abc import Iterable
from pathlib import Path

from sae_lens_signaware.files import write_text

BLOCK = re.compile(
    r"^(?P<indent> *)<!-- file: (?P<name>\S+) -->\n.*?^ *<!-- end of file -->$",
    re.DOTALL | re.MULTILINE,
)


def fill_page(text: str, root: Path) -> str:
    """The text of a page with each file that it names as the file is now.

    Markdown is written as it is, and any other file in a fence. Both are indented as the comment
    is.

    Args:
        root: folder that the names start from.
    """

    def block(match: re.Match[str]) -> str:
        indent, name = match["indent"], match["name"]
        content = (root / name).read_text(encoding="utf-8").strip("\n")
        suffix = Path(name).suffix.removeprefix(".")
        if suffix != "md":
            content = f"```{suffix}\n{content}\n```"
        lines = [f"<!-- file: {name} -->", "", *content.splitlines(), "", "<!-- end of file -->"]
        return "\n".join(f"{indent}{line}" if line else "" for line in lines)

    return BLOCK.sub(block, text)


def fill_pages(pages: Iterable[Path], root: Path) -> None:
    """Write every page anew whose files have changed."""
    for page in pages:
        text = page.read_text(encoding="utf-8")
        filled = fill_page(text, root)
        if filled != text:
            write_text(filled, page)
