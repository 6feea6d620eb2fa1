"""The wheel and the sdist: each alone in a clean environment, what they bring and hold."""

import importlib.metadata
import json
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tools.environments import ROOT, run_logged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Brought = dict[str, list[Requirement]]
"""Name of a distribution -> what it asks for."""
SMOKE = ROOT / "tests" / "tools" / "smoke.py"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, built from the sdist, and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run_logged([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], ROOT, 300)
    return folder


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The newest pip in an environment with nothing else, for ``--python`` and ``--dry-run``."""
    folder = tmp_path_factory.mktemp("pip")
    run_logged([sys.executable, "-m", "venv", str(folder)], ROOT, 120)
    return [str(folder / "bin" / "pip")]


def the_one(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


@pytest.fixture(scope="module")
def brought(dist: Path, pip: list[str]) -> Brought:
    """What pip would install into an empty environment with the wheel.

    pip takes half a minute to find out.
    """
    wheel = str(the_one(dist, "*.whl"))
    report = run_logged([*pip, "install", "-q", "--dry-run", "--report", "-", wheel], ROOT, 300)
    return {
        canonicalize_name(item["metadata"]["name"]): [
            Requirement(text) for text in item["metadata"].get("requires_dist", ())
        ]
        for item in json.loads(report)["install"]
    }


def brings(name: str, brought: Brought) -> set[str]:
    """The distribution and all that it asks for, of those that are brought."""
    found: set[str] = set()
    waiting = [(canonicalize_name(name), "")]
    seen = set(waiting)
    while waiting:
        current, extra = waiting.pop()
        found.add(current)
        for asked in brought[current]:
            if asked.marker is None or asked.marker.evaluate({"extra": extra}):
                key = canonicalize_name(asked.name)
                new = {(key, of_asked) for of_asked in ("", *asked.extras)} - seen
                seen |= new
                waiting += new
    return found


def link_installed(names: set[str], site: Path) -> None:
    """Links to these of the distributions that this process has, in the place of 2 GB each time."""
    for name in names:
        files = importlib.metadata.distribution(name).files
        assert files, name
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (site / top).exists():  # nvidia and google are folders of many
                (site / top).symlink_to(Path(sysconfig.get_path("purelib")) / top)


def test_each_installs_alone_and_works(
    dist: Path, pip: list[str], brought: Brought, tmp_path: Path
) -> None:
    """With what pip says they bring, and nothing else."""
    venv = tmp_path / "venv"
    run_logged([sys.executable, "-m", "venv", "--without-pip", str(venv)], ROOT, 120)
    python = str(venv / "bin" / "python")
    here = [*pip, "--python", python]
    link_installed(
        brought.keys() - {"sae-lens-signaware"}, the_one(venv, "lib/python*/site-packages")
    )
    package = the_one(venv, "lib/python*/site-packages") / "sae_lens_signaware"
    install = [*here, "install", "-q", "--no-deps", "--no-compile", "--force-reinstall"]
    installed = []
    for pattern in ("*.tar.gz", "*.whl"):
        run_logged([*install, str(the_one(dist, pattern))], tmp_path, 600)
        run_logged([*here, "check"], tmp_path, 120)
        files = [path for path in package.rglob("*") if path.is_file()]
        installed.append({path.relative_to(package): path.read_bytes() for path in files})
    assert installed[0] == installed[1]  # so what works from one works from the other
    folder = tmp_path / "folder"
    folder.mkdir()
    assert run_logged([python, str(SMOKE)], folder, 300).endswith("smoke test passed\n")


def test_the_core_brings_nothing_that_sae_lens_does_not(
    brought: Brought,
) -> None:
    assert brings("sae-lens-signaware", brought) == brought.keys()  # nothing is overlooked
    assert brought.keys() - brings("sae-lens", brought) == {"sae-lens-signaware"}


def test_what_the_archives_hold(dist: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(the_one(dist, "*.whl")) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {
        "sae_lens_signaware"
    }
    for name in ("py.typed", "report/assets/report.css", "report/assets/browser.js"):
        assert f"sae_lens_signaware/{name}" in names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    with tarfile.open(the_one(dist, "*.tar.gz")) as sdist:
        sdist.extractall(tmp_path, filter="data")
    source = the_one(tmp_path, "*")
    held = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    left_out = {name for name in tracked if name not in held}
    # raw results, and weights of 8 MB
    expected = (".ci/", "results/", "pretrained/")
    assert not {n for n in left_out if not n.startswith(expected)}, left_out
