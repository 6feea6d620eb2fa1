"""Weighted sums of a matrix's rows: products of a sparse matrix and a dense one. Ours.

On a CPU they are torch's bags (``embedding_bag``). Elsewhere they are products with a CSR matrix
(``torch.sparse.mm``). Nothing here waits for the device.
"""

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from sae_lens_signaware.saes.gradients import first_derivative_only

BAG_DEVICES: tuple[str, ...] = ("cpu",)
"""Types of device where sums of rows are bags."""

CHUNK_ELEMENTS = 2**24
"""Elements of rows gathered at once for a gradient off the CPU: 64 MiB in float32."""


def has_bags(tensor: Tensor) -> bool:
    """Whether sums of rows are bags where this tensor is."""
    return tensor.device.type in BAG_DEVICES


def row_starts(row: Tensor, n_rows: int) -> Tensor:
    """Where each row starts in ascending ``row``: (n_rows,) for bags, (n_rows + 1,) for CSR."""
    if has_bags(row):
        counts = row.bincount(minlength=n_rows)
        return counts.cumsum(0) - counts
    # bincount would wait for the largest
    return torch.searchsorted(row, torch.arange(n_rows + 1, dtype=row.dtype, device=row.device))


def sum_of_rows(
    values: Tensor, matrix: Tensor, row: Tensor, column: Tensor, starts: Tensor
) -> Tensor:
    """A sparse matrix of ``values``, ordered by row, times a dense ``matrix``.

    Args:
        values, row, column: (n,), and where in the sparse matrix each is.
        matrix: (n_columns, d), a constant.
        starts: of :func:`row_starts`.

    Returns:
        (n_rows, d), differentiable in ``values``.
    """
    if has_bags(values):
        return embedding_bag(column, matrix, starts, mode="sum", per_sample_weights=values)
    out = _CSRProduct.apply(values, matrix, row, column, starts)
    assert isinstance(out, Tensor)
    return out


class _CSRProduct(torch.autograd.Function):
    """:func:`sum_of_rows` off the CPU."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, matrix: Tensor, row: Tensor, column: Tensor, starts: Tensor
    ) -> Tensor:
        ctx.save_for_backward(matrix, row, column)
        _take_beta_warning()
        shape = (len(starts) - 1, len(matrix))
        # to check the invariants would be to wait
        csr = torch.sparse_csr_tensor(
            starts, column, values, shape, device=values.device, check_invariants=False
        )
        return torch.sparse.mm(csr, matrix)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        matrix, row, column = ctx.saved_tensors
        n = max(1, CHUNK_ELEMENTS // matrix.shape[1])
        pairs = zip(row.split(n), column.split(n), strict=True)
        products = [(grad[rows] * matrix[columns]).sum(-1) for rows, columns in pairs]
        return torch.cat(products), None, None, None, None


@cache
def _take_beta_warning() -> None:
    # Torch warns at the first CSR tensor of a process that CSR is in beta; no user can act on that.
    none = torch.empty(0, dtype=torch.int64, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(
            none.new_zeros(1), none, none, (0, 0), device="cpu", check_invariants=False
        )
