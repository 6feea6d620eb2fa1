"""YAML as users write it, read before anything heavy is imported."""

import re
from pathlib import Path
from typing import Any

import yaml

from sae_lens_signaware.checks import InvalidInputError, one_line


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the floats of YAML 1.2: YAML 1.1 reads 1e-3 as a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read safe YAML with a mapping at its top.

    Raises:
        InvalidInputError: unreadable, not YAML, or no mapping.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: cannot be read: {one_line(error)}") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter of a date such as 2024-13-01
        raise InvalidInputError(f"{path}: not valid YAML: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise InvalidInputError(f"{path}: must hold a mapping of fields, got {values!r}")
    return values
