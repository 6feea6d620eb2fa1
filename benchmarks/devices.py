"""Where a benchmark runs: the device, its name, its clock, its memory, and the file of its results.

Nothing here is about one make of card: torch's own module of the device is asked.
"""

import re
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from sae_lens_signaware.training.values import require_device

MIB = 2**20


def checked_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        InvalidInputError: torch knows none of this name, it is not there, or it computes nothing.
    """
    require_device("--device", name)
    return torch.device(name)


def card_name(device: torch.device) -> str:
    """What the maker calls the card; the type of the device where torch does not know."""
    get_device_name = getattr(torch.get_device_module(device), "get_device_name", None)
    return get_device_name(device) if get_device_name else device.type


def card(device: torch.device) -> dict[str, Any]:
    """The card, and the settings that its figures depend on; nothing for a CPU."""
    if device.type == "cpu":
        return {}
    return {
        "device": str(device),
        "card": card_name(device),
        "cuda_version": torch.version.cuda,
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def results_file(stem: str, card: str | None, day: date) -> Path:
    """``results/STEM.json`` for the CPU; for a card its name and the day come after the stem."""
    if card is None:
        return Path("results") / f"{stem}.json"
    slug = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
    return Path("results") / f"{stem}_{slug}_{day.isoformat()}.json"


def wait_for(device: torch.device) -> None:
    """Return when all that was asked of the device is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def milliseconds(run: Callable[[], object], device: torch.device) -> float:
    """Time that one call takes, from an idle device until it is idle again."""
    wait_for(device)
    start = time.perf_counter()
    run()
    wait_for(device)
    return 1000 * (time.perf_counter() - start)


def added_mib(run: Callable[[], object], device: torch.device) -> float | None:
    """MiB of the card that a call adds at its peak to what is held before; None if torch can't say.

    The call runs once before, for what is made once: the workspaces of libraries, compiled kernels.
    """
    module = torch.get_device_module(device)
    if not hasattr(module, "max_memory_allocated"):
        return None
    run()
    wait_for(device)
    module.reset_peak_memory_stats(device)
    before = module.memory_allocated(device)
    run()
    wait_for(device)
    return (module.max_memory_allocated(device) - before) / MIB
