"""Public names of the package: where they live, that they load, and what the import does."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def functions() -> Iterator[tuple[str, Any]]:
    """Public functions, and the public methods of public classes that are ours."""
    for _, name in NAMES:
        found = getattr(signaware, name)
        if inspect.isfunction(found):
            yield name, found
        for method, value in inspect.getmembers(found if inspect.isclass(found) else None):
            is_ours = (getattr(value, "__module__", "") or "").startswith("sae_lens_signaware")
            if inspect.isroutine(value) and is_ours and not method.startswith("_"):
                yield f"{name}.{method}", value


def test_a_path_can_be_a_text_everywhere() -> None:
    of_saelens = "SignawareTrainingRunner.save_checkpoint"  # its signature is SAELens's
    n_paths = 0
    for name, function in functions():
        for parameter, hint in typing.get_type_hints(function).items():
            options = typing.get_args(hint) or (hint,)
            if parameter != "return" and Path in options and name != of_saelens:
                assert str in options, f"{name}: {parameter}"
                n_paths += 1
    assert n_paths > 20


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
    "modules": [getattr(sae_lens_signaware, home).__name__ for home in sae_lens_signaware._HOMES],
}))
"""


@pytest.mark.slow
def test_the_import_registers_the_architectures_and_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", BEFORE_AND_AFTER], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["loaded"] == []
    saved_as_another = {"bi_batchtopk", "bi_matryoshka_batchtopk"}
    assert set(result["training_saes"]) == {*result["saes"], *saved_as_another}
    assert {"bi_jumprelu", "sa_gsae"} <= set(result["saes"])
    assert not saved_as_another & set(result["saes"])
    assert result["modules"] == [f"sae_lens_signaware.{home}" for home in signaware._HOMES]
    assert set(signaware._HOMES) <= set(dir(signaware))
