"""Labelled texts of a CSV file, and the activations of texts at any number of hook points."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError, one_line, require
from sae_lens_signaware.evaluation import models

TOKENS_AT_ONCE = 2048
"""Tokens that the model runs at once."""


class LabelledTexts(NamedTuple):
    """Texts, their labels, and the part of each, "fit" or "report", where the file says it."""

    texts: list[str]
    labels: list[str]
    parts: list[str] | None


def read_labelled_texts(path: str | Path) -> LabelledTexts:
    """Read a CSV file in UTF-8 with the columns ``text`` and ``label``, and ``part`` or not.

    Raises:
        InvalidInputError: the file is missing or no such CSV, or a row lacks a value.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"data: {path} is no CSV in UTF-8: {one_line(error)}") from None
    names = [name for name in ("text", "label", "part") if name in frame]
    # pandas takes what is beyond the header as an index
    is_whole = len(frame) > 0 and isinstance(frame.index, pd.RangeIndex) and len(names) > 1
    found = f"{path} with {', '.join(frame)}"
    require(is_whole, "data", found, "a CSV of rows with the columns text and label")
    for number, row in enumerate(frame[names].to_numpy(), start=2):
        is_whole = all(value.strip() for value in row)
        require(is_whole, f"data: {path}, row {number}", row.tolist(), "a value in each column")
    texts, labels, *parts = (frame[name].tolist() for name in names)
    return LabelledTexts(texts, labels, parts[0] if parts else None)


@dataclasses.dataclass(frozen=True)
class TextActivations:
    """Activations of texts at one hook point, special tokens left out.

    Attributes:
        activations: (n_tokens, d_in), text after text.
        n_tokens_of: (n_texts,) int64, tokens of each text; at least 1.
        hook_name: where they are from; None where that is not known.
    """

    activations: Tensor
    n_tokens_of: Tensor
    hook_name: str | None = None

    def batches(self, max_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield activations (n, d_in) and the number of the text of each, (n,) int64."""
        text = torch.arange(len(self.n_tokens_of)).repeat_interleave(self.n_tokens_of)
        yield from zip(self.activations.split(max_tokens), text.split(max_tokens), strict=True)

    def distinct_texts(self) -> list[int]:
        """A number for each text; those of the same activations, which are the same, share one."""
        number_of: dict[bytes, int] = {}
        numbers = []
        for tokens in self.activations.split(self.n_tokens_of.tolist()):
            key = hashlib.sha256(tokens.contiguous().view(torch.uint8).numpy().data).digest()
            numbers.append(number_of.setdefault(key, len(number_of)))
        return numbers


@torch.no_grad()
def text_activations(
    model: models.HookedRootModule,
    texts: Sequence[str],
    hook_names: Sequence[str],
    *,
    head_indices: Sequence[int | None] | None = None,
    prepend_bos: bool = True,
    context_size: int = 256,
) -> list[TextActivations]:
    """Run the model once over texts, and keep what each hook point holds, special tokens left out.

    Texts of equal length are run together, so that none is padded; a text that is there twice is
    run once. Activations stay in memory, on the CPU.

    Args:
        model: SAELens's hooked model of a causal language model, with its tokenizer.
        hook_names: the hook points; one result each.
        head_indices: the head that is taken at each of them; None joins the heads.
        prepend_bos: whether a text starts with the tokenizer's BOS token, where it has one.
        context_size: tokens of a text at most, BOS included; what is beyond is cut off.

    Raises:
        InvalidInputError: a text has no token but special ones; the model has no such hook;
            activations are not finite.
    """
    tokenizer = models.tokenizer_of(model)
    excluded = models.excluded_tokens(model, True)
    bos = models.bos_ids(tokenizer) if prepend_bos else []
    rows = [tuple([*bos, *models.token_ids(tokenizer, text)][:context_size]) for text in texts]
    for i, row in enumerate(rows):
        has_token = not {*row} <= {*excluded}
        require(has_token, f"text {i + 1}", texts[i], "a text with a token that is no special one")
    hooks = list(zip(hook_names, head_indices or [None] * len(hook_names), strict=True))
    held: dict[tuple[int, ...], list[Tensor]] = {}  # of each hook
    for length, group in itertools.groupby(sorted({*rows}, key=len), key=len):
        for ids in torch.tensor([*group]).split(max(1, TOKENS_AT_ONCE // length)):
            of_hooks = [x.cpu() for x in models.hooked_activations(model, ids, hooks)]
            for i, keep in enumerate(models.is_kept(ids, excluded)):
                held[tuple(ids[i].tolist())] = [x[i, keep] for x in of_hooks]
    counts = torch.tensor([len(held[row][0]) for row in rows])
    return [
        TextActivations(torch.cat([held[row][i] for row in rows]), counts, name)
        for i, name in enumerate(hook_names)
    ]
