"""Activations of one hook point, taken once from a SAELens store and served for many epochs."""

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.progress import Progress
from sae_lens import ActivationsStore
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError


def collect_activations(
    store: ActivationsStore, n_tokens: int, progress: Progress, label: str
) -> Tensor:
    """Collect a store's first ``n_tokens`` activations in text order, without special tokens.

    Returns:
        (n_tokens, d_in) on the store's device. One pass: a store that runs out of text raises.

    Raises:
        ValueError: the text is too short.
    """
    task = progress.add_task(label, total=n_tokens)
    batches: list[Tensor] = []
    n = 0
    while n < n_tokens:
        try:
            batch = store.get_filtered_llm_batch(raise_on_epoch_end=True)
        except StopIteration:
            raise InvalidInputError(
                f"n_tokens must be at most the {n} that the text has, got {n_tokens}"
            ) from None
        batches.append(batch[: n_tokens - n])
        n += batches[-1].shape[0]
        progress.update(task, completed=n)
    return torch.cat(batches)


def is_whole(path: Path) -> bool:
    """Whether the file is there with all that its header says; its tensors are not read."""
    try:
        with safe_open(path, "pt"):
            return True
    except (OSError, SafetensorError):
        return False


def load_named_activations(path: Path, key: str) -> Tensor:
    """Load one tensor of a safetensors file.

    Raises:
        InvalidInputError: the file cannot be read, or has no such tensor.
    """
    if path.is_dir():
        raise InvalidInputError(f"activations: {path} is a folder; name a safetensors file")
    try:
        tensors = load_file(path)
    except OSError as error:
        raise InvalidInputError(f"activations: {path} cannot be read: {error}") from None
    except SafetensorError as error:
        raise InvalidInputError(
            f"activations: {path} is not a safetensors file, or not a whole one: {error}"
        ) from None
    if key not in tensors:
        raise InvalidInputError(
            f"activations: {path} has no tensor {key!r}; it has {', '.join(sorted(tensors))}"
        )
    return tensors[key]


class StepClock(Iterator[Tensor]):
    """Batches of a training, and when the first one that it learns from was asked for.

    Attributes:
        n_before: batches that come before that one, such as those of an estimate of the scale.
        start: that time, in seconds of ``time.perf_counter``; None before it.
    """

    def __init__(self, batches: Iterator[Tensor]) -> None:
        self.n_before = 0
        self.start: float | None = None
        self._batches = batches
        self._n_served = 0

    def __next__(self) -> Tensor:
        if self._n_served == self.n_before:
            self.start = time.perf_counter()
        self._n_served += 1
        return next(self._batches)


class ShuffledEpochs(Iterator[Tensor]):
    """Endless batches over cached activations, reshuffled every epoch: a SAELens ``DataProvider``.

    Which rows the n-th batch holds depends on ``seed`` and n alone, so that several trainings see
    the same tokens in the same order, and :meth:`skip` resumes one exactly.
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
        if activations.shape[0] < batch_size:
            raise InvalidInputError(
                f"batch_size must be at most the {len(activations)} cached tokens, got {batch_size}"
            )
        self.activations = activations
        self.batch_size = batch_size
        self.seed = seed
        self.dtype = dtype or activations.dtype
        self.n_served = 0
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def skip(self, n_batches: int) -> None:
        """Continue after the first ``n_batches`` batches."""
        self.n_served = n_batches

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
