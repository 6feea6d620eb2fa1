"""Names of cells: each is the name of a folder."""

import pytest

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.experiments.sweep.consistency import require_plain_names


@pytest.mark.parametrize(
    "name",
    ["a", "half-1.5", "x" * 100, "\u00e9" * 50, "com", "com10", "console", "a.con", "-", "a b"],
)
def test_a_name_that_every_system_can_give_a_folder(name: str) -> None:
    require_plain_names("saes", [name, name])


NOT_PRINTED = "a name must not be empty, start with '.' or hold a slash or what cannot be printed"
NO_FOLDER = "a name must be one that all systems can give a folder"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        *(([name], NOT_PRINTED) for name in ("", ".a", "a/b", "a\\b", "a\nb")),
        *(([f"a{character}b"], NO_FOLDER) for character in '<>:"|?*'),
        *(([name], NO_FOLDER) for name in ("a.", "a ", "CON", "aux.txt", "nul .x", "com1", "LPT9")),
        (["x" * 101], "bytes of a name must be at most 100, got 101"),
        (["b", "Half", "half"], "'Half' and 'half' would share a folder where the case of letters"),
    ],
)
def test_a_name_that_some_system_has_no_folder_for(names: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        require_plain_names("saes", names)
    assert str(error.value).startswith(f"saes: {message}")
