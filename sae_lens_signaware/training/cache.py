"""Activations in memory or in a safetensors file, served for many epochs."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.files import require_tensor


def load_named_activations(path: str | Path, key: str) -> Tensor:
    """Load one tensor of a safetensors file.

    Raises:
        InvalidInputError: the file cannot be read, or has no such tensor.
    """
    require_tensor("activations", path, key)
    with safe_open(path, "pt") as file:
        return file.get_tensor(key)


class ShuffledEpochs(Iterator[Tensor]):
    """Endless batches over cached activations, reshuffled every epoch: a SAELens ``DataProvider``.

    Which rows the n-th batch holds depends on ``seed`` and n alone, so that several trainings see
    the same tokens in the same order, and :attr:`n_served` resumes one exactly.
    """

    def __init__(
        self, activations: Tensor, batch_size: int, seed: int, dtype: torch.dtype | None = None
    ) -> None:
        """
        Args:
            activations: (n, d_in), n >= batch_size. The tail of an epoch that fills no batch is
                dropped.
            dtype: of the batches; None: that of the activations.
        """
        n = len(activations)
        require(1 <= batch_size <= n, "train_batch_size", batch_size, f"at most the {n} tokens")
        self.activations = activations
        self.batch_size = batch_size
        self.seed = seed
        self.dtype = dtype or activations.dtype
        self.n_served = 0
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def __next__(self) -> Tensor:
        n = self.activations.shape[0]
        epoch, position = divmod(self.n_served, n // self.batch_size)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
            self._order = torch.randperm(n, generator=generator, device="cpu")
            self._epoch = epoch
        self.n_served += 1
        rows = self._order[position * self.batch_size : (position + 1) * self.batch_size]
        return self.activations[rows.to(self.activations.device)].to(self.dtype)
