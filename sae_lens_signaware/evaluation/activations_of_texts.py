"""Activations of texts, one run of the model for any number of hook points."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from sae_lens.util import get_special_token_ids
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError, checked, require
from sae_lens_signaware.evaluation.inputs import require_in_range, required_tensor
from sae_lens_signaware.evaluation.labelled_texts import require_text
from sae_lens_signaware.evaluation.models import (
    HookedRootModule,
    bos_ids,
    require_positions,
    require_unicode,
    required_tokenizer,
    token_ids,
)
from sae_lens_signaware.evaluation.prompts import hooked_activations
from sae_lens_signaware.files import write_tensors

TOKENS_AT_ONCE = 2048
"""Tokens that the model runs at once."""


@dataclasses.dataclass(frozen=True)
class TextActivations:
    """Activations of texts at one hook point, special tokens left out.

    Attributes:
        activations: (n_tokens, d_in), text after text.
        n_tokens_of: (n_texts,) int64, tokens of each text; at least 1.
        hook_name: where they are from; None where that is not known.
        n_cut: texts whose end is missing, since they are longer than the context that was run.
    """

    activations: Tensor
    n_tokens_of: Tensor
    hook_name: str | None = None
    n_cut: int = 0

    def __post_init__(self) -> None:
        counts = required_tensor("n_tokens_of", self.n_tokens_of)
        n = len(required_tensor("activations", self.activations))
        require(self.activations.ndim == 2, "activations", tuple(self.activations.shape), "2-D")
        require(
            counts.ndim == 1 and counts.dtype == torch.int64 and bool((counts >= 1).all()),
            "n_tokens_of",
            counts,
            "1-D, int64, at least 1",
        )
        require(int(counts.sum()) == n, "n_tokens_of", int(counts.sum()), f"{n} in sum")

    def batches(self, max_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield activations (n, d_in) and the number of the text of each, (n,) int64."""
        n_texts, device = len(self.n_tokens_of), self.n_tokens_of.device
        text = torch.arange(n_texts, device=device).repeat_interleave(self.n_tokens_of)
        yield from zip(self.activations.split(max_tokens), text.split(max_tokens), strict=True)

    def write(self, path: str | Path) -> None:
        """Write a safetensors file, complete or not at all."""
        held = {"activations": self.activations.contiguous(), "n_tokens_of": self.n_tokens_of}
        write_tensors({**held, "n_cut": torch.tensor(self.n_cut, device="cpu")}, path)

    @classmethod
    def read(cls, path: str | Path, hook_name: str | None = None) -> "TextActivations":
        """Read back what :meth:`write` wrote.

        Raises:
            InvalidInputError: the file holds no such activations.
        """
        try:
            held = load_file(path)
            n_cut = int(held.get("n_cut", 0))  # earlier files lack it
            return cls(held["activations"], held["n_tokens_of"], hook_name, n_cut)
        except (SafetensorError, KeyError) as error:
            raise InvalidInputError(f"{path} holds no activations of texts: {error}") from None


@torch.no_grad()
def text_activations(
    model: HookedRootModule,
    texts: Sequence[str],
    hook_names: Sequence[str],
    *,
    head_indices: Sequence[int | None] | None = None,
    prepend_bos: bool = True,
    context_size: int = 256,
    advance: Callable[[int], None] = lambda n: None,
) -> list[TextActivations]:
    """Run the model once over texts, and keep what each hook point holds, special tokens left out.

    Texts of equal length are run together, so that none is padded. Activations stay in memory, on
    the CPU.

    Args:
        model: SAELens's hooked model of a causal language model, with its tokenizer.
        hook_names: the hook points.
        head_indices: the head that is taken at each of them; None joins the heads.
        prepend_bos: whether a text starts with the tokenizer's BOS token, where it has one.
        context_size: tokens of a text at most, BOS included; what is beyond is cut off, and
            ``n_cut`` counts such texts.
        advance: called with the number of texts that are done.

    Returns:
        One for each of ``hook_names``.

    Raises:
        InvalidInputError: there is no text, or one is empty or has none but special tokens;
            ``context_size`` is below 2; a text is longer than the model has positions; the model
            has no tokenizer or no such hook; activations are not finite.
    """
    require(not isinstance(texts, str), "texts", "a str", "a list of texts")
    texts = list(texts)
    require(len(texts) > 0, "texts", len(texts), "at least one")
    allowed = "a list of at least one hook point"
    require(not isinstance(hook_names, str), "hook_names", hook_names, allowed)
    hook_names = list(hook_names)
    require(len(hook_names) > 0, "hook_names", hook_names, allowed)
    context_size = check_context_size(context_size)
    allowed = f"one for each of the {len(hook_names)} hook points"
    is_list = head_indices is None or isinstance(head_indices, Sequence)
    require(is_list, "head_indices", head_indices, allowed)
    heads = [None] * len(hook_names) if head_indices is None else list(head_indices)
    require(len(heads) == len(hook_names), "head_indices", len(heads), allowed)
    hooks = list(zip(hook_names, heads, strict=True))
    device = next(model.parameters()).device
    whole, excluded = _tokens_of(model, texts, prepend_bos)
    tokens = [row[:context_size] for row in whole]
    n_cut = sum(len(row) > context_size for row in whole)
    require_positions(model, "context_size: tokens of a text", max(map(len, tokens)))
    keep = [[token not in excluded for token in row] for row in tokens]
    for i, kept in enumerate(keep):
        if not any(kept):
            raise InvalidInputError(
                f"text {i + 1} must have a token that is no special one, got {texts[i]!r}"
            )
    rows: list[list[Tensor]] = [[torch.empty(0, device="cpu")] * len(texts) for _ in hook_names]
    for group in _groups(tokens):
        batch = torch.tensor([tokens[i] for i in group], device=device)
        kept = torch.tensor([keep[i] for i in group], device="cpu")
        for hook, held in enumerate(hooked_activations(model, batch, hooks)):
            require_in_range(held)
            for i, of_text, mask in zip(group, held.cpu(), kept, strict=True):
                rows[hook][i] = of_text[mask]
        advance(len(group))
    counts = torch.tensor([sum(kept) for kept in keep], device="cpu")
    return [
        TextActivations(torch.cat(of_hook), counts, name, n_cut)
        for name, of_hook in zip(hook_names, rows, strict=True)
    ]


def check_context_size(context_size: int) -> int:
    """Check what :func:`text_activations` takes, which a caller may do before a model is there.

    Returns:
        It, as an integer of Python's own.

    Raises:
        InvalidInputError: it is no integer, or below 2.
    """
    context_size = checked("context_size", context_size, int)
    require(context_size >= 2, "context_size", context_size, "at least 2")
    return context_size


def _tokens_of(
    model: HookedRootModule, texts: Sequence[str], prepend_bos: bool
) -> tuple[list[list[int]], set[int]]:
    """Token ids of each text, and the ids of the special tokens."""
    tokenizer = required_tokenizer(model)
    for i, text in enumerate(texts, start=1):
        require_text(text, f"text {i}")
        require_unicode(f"text {i}", text)
    bos = bos_ids(tokenizer) if prepend_bos else []
    excluded = set(get_special_token_ids(tokenizer))
    return [bos + token_ids(tokenizer, text) for text in texts], excluded


def _groups(tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield the numbers of texts of one length, as many as the model runs at once."""
    of_length: dict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(tokens):
        of_length[len(row)].append(i)
    for length, members in sorted(of_length.items()):
        at_once = max(1, TOKENS_AT_ONCE // length)
        for start in range(0, len(members), at_once):
            yield members[start : start + at_once]
