"""Which fields of an SAE's section hold values to sweep."""

import typing
from collections.abc import Mapping

from sae_lens.registry import get_sae_training_class


def swept_fields(fields: Mapping[str, object]) -> dict[str, list[object]]:
    """The fields that hold a list of values, one a training.

    One value may be a list itself, as that of SAELens's ``matryoshka_widths``; it is not swept.

    Args:
        fields: an SAE's section, ``architecture`` among them.
    """
    lists = {name: value for name, value in fields.items() if isinstance(value, list)}
    try:
        config_class = get_sae_training_class(str(fields.get("architecture", "")))[1]
    except (KeyError, ValueError):
        return lists  # an unknown architecture is named later, with the nearest right one
    hints = typing.get_type_hints(config_class)
    return {
        name: values
        for name, values in lists.items()
        if typing.get_origin(hints.get(name)) is not list
        or any(isinstance(value, list) for value in values)
    }
