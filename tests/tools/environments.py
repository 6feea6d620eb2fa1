"""An environment of its own for a tool whose pins clash with ours or with another tool's."""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# A rerun is quick where the environments of an earlier one are found here.
CACHE = Path(
    os.environ.get("SIGNAWARE_TOOLS_CACHE", Path(tempfile.gettempdir()) / "signaware-tools")
)


def child_environment() -> dict[str, str]:
    """Offline but for the package index, and without the loopback Hub of this test process."""
    env = {k: v for k, v in os.environ.items() if k not in ("HF_ENDPOINT", "PYTHONPATH")}
    return env | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "offline"}


def run_logged(command: list[str], cwd: Path, timeout: float) -> str:
    """Standard output; a failure shows the end of what the command wrote."""
    done = subprocess.run(
        command, cwd=cwd, env=child_environment(), capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def environment(name: str, *installs: list[str]) -> Path:
    """The Python of an environment in which pip ran once for every list of arguments.

    It lies over the environment of this process: what the tool does not ask another version of is
    shared, torch above all, which would otherwise be gigabytes a tool. pip sees both and installs
    what the tool's pins ask for into the new one alone, where Python looks first.
    """
    key = hashlib.sha256(json.dumps([sys.prefix, installs]).encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{key}"
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
    done = folder / "installed"
    if not done.exists():
        run_logged(
            [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], ROOT, 120
        )
        site = run_logged(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], ROOT, 120
        )
        (Path(site.strip()) / "shared.pth").write_text(sysconfig.get_path("purelib"))
        for arguments in installs:
            run_logged([*pip, *arguments], ROOT, 600)
        done.touch()
    # this package as it is now, in an old environment too
    run_logged([*pip, "--no-deps", "--force-reinstall", str(ROOT)], ROOT, 300)
    return python
