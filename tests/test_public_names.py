"""Public names of the package: where they live, that they load, and what the import does."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import sae_lens_signaware as signaware

NAMES = [(home, name) for home, names in signaware._HOMES.items() for name in names]


def names_for_type_checkers() -> set[tuple[str, str]]:
    """(home, name) of every import in the ``if TYPE_CHECKING`` block of the package."""
    tree = ast.parse(Path(signaware.__file__).read_text())
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )
    pairs = set()
    for line in block.body:
        assert isinstance(line, ast.ImportFrom)
        assert line.module is not None
        for alias in line.names:
            assert alias.asname == alias.name, "only `as` makes a name public for a type checker"
            pairs.add((line.module.removeprefix("sae_lens_signaware."), alias.name))
    return pairs


def test_type_checkers_see_the_names_that_load() -> None:
    assert names_for_type_checkers() == set(NAMES)


@pytest.mark.parametrize(("home", "name"), NAMES, ids=[name for _, name in NAMES])
def test_every_name_loads_from_its_home(home: str, name: str) -> None:
    module = importlib.import_module(f"sae_lens_signaware.{home}")
    assert getattr(signaware, name) is getattr(module, name)
    assert name in getattr(module, "__all__", [name])


def test_no_name_has_two_homes_and_all_are_listed() -> None:
    names = [name for _, name in NAMES]
    assert signaware.__all__ == sorted(set(names)) == sorted(names)
    assert set(names) | {"__version__"} <= set(dir(signaware))
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = signaware.no_such_name  # type: ignore[attr-defined]


BEFORE_AND_AFTER = """
import json, sys
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
heavy = ("ray", "typer", "matplotlib", "plotly", "sae_lens_signaware.evaluation")
before = {name for name in heavy if name in sys.modules}
registered = set(SAE_CLASS_REGISTRY), set(SAE_TRAINING_CLASS_REGISTRY)
import sae_lens_signaware
print(json.dumps({
    "loaded": sorted({name for name in heavy if name in sys.modules} - before),
    "saes": sorted(set(SAE_CLASS_REGISTRY) - registered[0]),
    "training_saes": sorted(set(SAE_TRAINING_CLASS_REGISTRY) - registered[1]),
}))
"""


def test_the_import_registers_the_architectures_and_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", BEFORE_AND_AFTER], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["loaded"] == []
    saved_as_another = {"bi_batchtopk", "bi_matryoshka_batchtopk"}
    assert set(result["training_saes"]) == {*result["saes"], *saved_as_another}
    assert {"bi_jumprelu", "sa_gsae"} <= set(result["saes"])
    assert not saved_as_another & set(result["saes"])
