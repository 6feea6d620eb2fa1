"""An environment of its own for a tool whose pins clash with ours or with another tool's.

    python -m tests.tools.environments

makes those that are not there yet, so that the tests find them.
"""

import hashlib
import json
import os
import shutil
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

INSTALLS = {  # tool -> what pip installs, one run for each list
    # The probes annotate two sizes by one name, which beartype did not look at before 0.18.
    "sae-bench": [["sae-bench==0.6.0", "beartype<0.18"]],
    # pyarrow 26 needs numpy 2 and does not tell pip; transformer-lens 2 keeps numpy 1
    "sae-dashboard": [["sae-dashboard==0.8.0", "pyarrow<26"]],
    "delphi": [
        # it asks for vllm and bitsandbytes, which the cache does not use (docs/tools.md)
        ["--no-deps", "eai-delphi==0.1.3"],
        # what `import delphi.latents` imports of its requirements
        ["asyncer", "blobfile", "faiss-cpu", "orjson", "sentence-transformers"],
    ],
}


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


def environment(name: str) -> Path:
    """The Python of the environment of a tool, in which pip ran once for every list of arguments.

    It lies over the environment of this process: what the tool does not ask another version of is
    shared, torch above all, which would otherwise be gigabytes a tool. pip sees both and installs
    what the tool's pins ask for into the new one alone, where Python looks first.
    """
    installs = INSTALLS[name]
    key = hashlib.sha256(json.dumps([sys.prefix, installs]).encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{key}"
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-compile"]
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
    if done.read_text() != (now := digest_of_package()):
        run_logged([*pip, "--no-deps", "--force-reinstall", str(ROOT)], ROOT, 300)
        done.write_text(now)
    return python


def digest_of_package() -> str:
    """Of what pip installs of this package."""
    digest = hashlib.sha256()
    files = (path for path in (ROOT / "sae_lens_signaware").rglob("*") if path.is_file())
    for file in [ROOT / "pyproject.toml", *sorted(files)]:
        if "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def remove_orphans(cache: Path) -> None:
    """Removes the environments below whose lower environment is gone, so that no disk fills up.

    A clean run makes its environment in a folder of its own. What was made over it is never found
    again, since its key has that folder.
    """
    for config in cache.glob("*/pyvenv.cfg"):
        values = dict(line.split(" = ", 1) for line in config.read_text().splitlines())
        maker = values.get("command", sys.executable).split(" -m venv ")[0]
        if not Path(maker).exists():
            shutil.rmtree(config.parent, ignore_errors=True)


if __name__ == "__main__":
    remove_orphans(CACHE)
    for tool in INSTALLS:
        environment(tool)
