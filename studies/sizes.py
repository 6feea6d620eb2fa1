"""The table of sizes that CONTRIBUTING names: what there is of everything, and the most there may be.

python studies/sizes.py
"""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = {
    "sae_lens_signaware": 8000,
    "sae_lens_signaware/saes": 2000,
    "sae_lens_signaware/evaluation": 2200,
    "sae_lens_signaware/training": 700,
    "sae_lens_signaware/sweep sae_lens_signaware/demo.py": 1300,
    "sae_lens_signaware/report": 900,
    "studies": 4000,
    "tests": 8000,
}
WORDS = {"docs studies": 25_000, "README.md": 800, "CHANGELOG.md": 1500}


def _files(paths: str, suffix: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths.split()],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = [ROOT / name for name in listed.stdout.splitlines() if name.endswith(suffix)]
    return [path for path in found if path.exists()]


def main() -> None:
    """Print the table."""
    for paths, most in LINES.items():
        n = sum(len(path.read_text().splitlines()) for path in _files(paths, ".py"))
        print(f"{n:7,} of {most:6,} lines  {paths}")
    for paths, most in WORDS.items():
        n = sum(len(path.read_text().split()) for path in _files(paths, ".md"))
        print(f"{n:7,} of {most:6,} words  {paths}")
    import sae_lens_signaware

    print(f"{len(sae_lens_signaware.__all__):7,} of {30:6,} names  sae_lens_signaware")


if __name__ == "__main__":
    main()
