"""The devices that tests run on, and stand-ins for what only a GPU does."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch

from sae_lens_signaware.saes import kernels, row_sums

GPUS = ["cuda"] if torch.cuda.is_available() else []

each_device_with_values = pytest.mark.parametrize("device", ["cpu", *GPUS])
# "meta" has shapes and dtypes alone, so whatever would wait for a value raises
each_device = pytest.mark.parametrize("device", ["cpu", "meta", *GPUS])
each_accelerator = pytest.mark.parametrize("device", ["meta", *GPUS])


@contextmanager
def no_waits(device: str) -> Iterator[None]:
    """Within: what waits for a GPU raises, as it always does on meta."""
    if device != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def csr_products() -> Iterator[None]:
    """Within: the CPU computes with active latents as a GPU does, by products with CSR matrices."""
    with (
        mock.patch.object(row_sums, "BAG_DEVICES", ()),
        mock.patch.object(kernels, "CSR_DEVICES", ("cpu", "cuda")),
    ):
        yield


def sparse_mm_on_meta() -> Any:
    """Within: ``torch.sparse.mm`` of a CSR matrix gives its shape on meta, where torch has none."""

    def mm(csr: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        assert csr.layout == torch.sparse_csr
        assert csr.shape[1] == matrix.shape[0]
        return matrix.new_empty(csr.shape[0], matrix.shape[1])

    return mock.patch.object(torch.sparse, "mm", mm)
