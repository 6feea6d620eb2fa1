"""Make every table and figure of the studies again, from the committed results.

    python studies/make.py

Tables go between ``<!-- table: NAME -->`` and ``<!-- end of table -->`` of a study's README, and of
README.md and docs/ between markers that name the study too: ``<!-- table: equal_width gaps -->``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # studies/ is no installed package

from studies.common import ROOT, fill_tables, made, pages


def main() -> None:
    """Write what has changed, and name it."""
    files: dict[Path, str] = {}
    everywhere: dict[str, str] = {}
    for name, study in pages().items():
        tables, svg = made(study)
        everywhere |= {f"{name} {table}": text for table, text in tables.items()}
        files[study / "README.md"] = fill_tables((study / "README.md").read_text(), tables)
        files[study / "figure.svg"] = svg
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        files[path] = fill_tables(path.read_text(), everywhere)
    for path, text in files.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
