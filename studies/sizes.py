"""The table of sizes that CONTRIBUTING names: what there is of everything, and the most there may be.

python studies/sizes.py
"""

import subprocess
import sys
from pathlib import Path
from types import FrameType

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


def functions_of_a_step() -> set[tuple[str, int]]:
    """File and line of each function of ours that one dense training step of bi_jumprelu calls."""
    import torch
    from sae_lens.saes.sae import TrainStepInput

    from sae_lens_signaware import BiJumpReLUTrainingSAE, BiJumpReLUTrainingSAEConfig

    class Dense(BiJumpReLUTrainingSAE):
        """A subclass takes the plain path."""

    sae = Dense(BiJumpReLUTrainingSAEConfig(d_in=16, d_sae=32, target_l0=8))
    found: set[tuple[str, int]] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and "sae_lens_signaware" in code.co_filename:
            found.add((code.co_filename, code.co_firstlineno))

    for n in range(2):  # the first one measures the input
        step = TrainStepInput(torch.randn(64, 16), {}, None, n, is_logging_step=False)
        sys.setprofile(note if n else None)
        sae.training_forward_pass(step).loss.backward()
        sys.setprofile(None)
    return found


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
    ours = functions_of_a_step()
    n_files = len({path for path, _ in ours})
    print(f"{n_files:7,} of {6:6,} files of a dense step of bi_jumprelu")
    print(f"{len(ours):7,} of {25:6,} functions of it")


if __name__ == "__main__":
    main()
