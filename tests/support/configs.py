"""Configs as files."""

from pathlib import Path
from typing import Any

import yaml


def write(values: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path
