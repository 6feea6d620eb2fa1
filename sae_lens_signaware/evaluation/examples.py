"""Examples: contexts in which each side of a latent is strongest, and latents of a text."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation import inputs, models
from sae_lens_signaware.evaluation.inputs import latents_of, numbers_of_latents, require_folded
from sae_lens_signaware.evaluation.models import HookedRootModule, Prompts, token_text, tokenizer_of
from sae_lens_signaware.evaluation.results import Provenance, Result, printable


@dataclasses.dataclass(frozen=True)
class Context:
    """A window of text around a peak.

    Attributes:
        tokens: the token strings, in order.
        activations: the latent's value at each, of either sign; 0 where it is inactive.
        peak: index in ``tokens`` of the strongest activation of the side.
        prompt: number of the prompt in the pass, from 0.
        position: of the peak in its prompt.
    """

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    peak: int
    prompt: int
    position: int

    @property
    def value(self) -> float:
        """The latent's value at the peak."""
        return self.activations[self.peak]


@dataclasses.dataclass(frozen=True)
class LatentExamples:
    """The strongest contexts of each side of a latent, strongest first, each of another prompt.

    A side that never fired has none.
    """

    latent: int
    pos: tuple[Context, ...]
    neg: tuple[Context, ...]


@dataclasses.dataclass(frozen=True, repr=False)
class TopExamples(Result):
    """The ``k`` strongest contexts of each side of some latents.

    Attributes:
        latents: in the order asked for.
        k: contexts of a side at most.
    """

    latents: tuple[LatentExamples, ...]
    k: int

    def of(self, latent: int) -> LatentExamples:
        """The examples of one latent; KeyError where it was not asked for."""
        known = {examples.latent: examples for examples in self.latents}
        if latent not in known:
            raise KeyError(f"latent {latent} is none of {', '.join(map(str, known))}")
        return known[latent]

    def table(self, latent: int) -> Table:
        """A table for the terminal: the two sides of one latent, peaks in bold."""
        table = Table("side", "value", "context", title=f"latent {latent}", title_justify="left")
        examples = self.of(latent)
        for sign, contexts in (("+", examples.pos), ("-", examples.neg)):
            for context in contexts:
                text = Text()
                for i, token in enumerate(context.tokens):
                    style = "bold underline" if i == context.peak else ""
                    text.append(printable(token), style=style)
                table.add_row(sign, f"{context.value:+.3f}", text)
        return table


@torch.no_grad()
def top_examples(
    model: HookedRootModule,
    sae: SAE[Any],
    tokens: Tensor,
    latents: Sequence[int] | None = None,
    k: int = 8,
    window: tuple[int, int] = (16, 8),
    exclude_special_tokens: list[int] | bool = True,
) -> TopExamples:
    """Find the k strongest contexts of each side of the latents, in one pass over prompts.

    A prompt gives at most one context to a side, its strongest token, so that one repetitive text
    does not fill the list; a prompt that was there before gives none. Of equal peaks the earlier
    prompt stays. Memory does not grow with the number of prompts.

    Args:
        model: SAELens's hooked model; its tokenizer gives the token strings.
        sae: any SAELens SAE, as saved; a plain one has no - side.
        tokens: ids (prompt, position); of an ``ActivationsStore``, ``store.get_batch_tokens(n)``.
        latents: None takes all.
        k: contexts of a side at most.
        window: tokens before and after the peak, cut at the ends of the prompt.
        exclude_special_tokens: whether special tokens of the tokenizer can be no peak; or the ids
            of the tokens that cannot.

    Raises:
        InvalidInputError: a latent is out of range; no token can be a peak; activations are not
            finite or of another width; or the SAE's estimated scale is not folded in.
    """
    require_folded(sae)
    excluded = models.excluded_tokens(model, exclude_special_tokens)
    prompts = models.prompts_of_tokens(model, sae, tokens, excluded)
    return examples_of_prompts(model, sae, prompts, numbers_of_latents(sae, latents), k, window)


def examples_of_prompts(
    model: HookedRootModule,
    sae: SAE[Any],
    batches: Iterable[Prompts],
    latents: list[int],
    k: int,
    window: tuple[int, int] = (16, 8),
) -> TopExamples:
    """Find the strongest contexts in prompts that are run, as :func:`top_examples` does."""
    top = _TopWindows(k, window)
    columns = torch.tensor(latents, dtype=torch.int64, device=sae.device)
    with inputs.flat_activations(sae):
        for prompts in batches:
            top.add(prompts, latents_of(sae, prompts.activations)[..., columns].float())
    require(top.n_tokens > 0, "tokens", "none", "prompts with a token that is no special one")
    return TopExamples(Provenance.of(sae, top.n_tokens), top.contexts(model, latents), k)


class _TopWindows:
    """The k strongest windows of each side of n latents; side 0 is +, strength 0 an empty slot.

    ``held`` has (n, 2, slot) strength, prompt and position, and (n, 2, slot, window) ids and
    values; ids are -1 outside of the prompt.
    """

    def __init__(self, k: int, window: tuple[int, int]) -> None:
        self.k, self.before, self.width = k, window[0], sum(window) + 1
        self.n_prompts = self.n_tokens = 0
        self.held: dict[str, Tensor] = {}
        self.seen: set[bytes] = set()

    def add(self, prompts: Prompts, z: Tensor) -> None:
        """Take the next prompts in; z is (batch, position, n)."""
        rows = [row.tobytes() for row in prompts.tokens.cpu().numpy()]
        is_new = [row not in self.seen and not self.seen.add(row) for row in rows]
        keep = prompts.keep & torch.tensor(is_new, device=z.device)[:, None]
        peaks = z * keep[..., None]
        (high, high_at), (low, low_at) = peaks.max(1), (-peaks).max(1)
        strength = torch.stack([high, low]).permute(2, 0, 1).clamp(min=0)  # (n, 2, batch)
        at = torch.stack([high_at, low_at]).permute(2, 0, 1)
        row = torch.arange(len(z), device=z.device)
        places = at[..., None] - self.before + torch.arange(self.width, device=z.device)
        inside = (places >= 0) & (places < z.shape[1])
        places = places.clamp(0, z.shape[1] - 1)
        latent = torch.arange(z.shape[2], device=z.device)[:, None, None, None]
        found = {
            "strength": strength,
            "prompt": (row + self.n_prompts).expand_as(at),
            "position": at,
            "ids": prompts.tokens[row[:, None], places].long().masked_fill(~inside, -1),
            "values": z[row[:, None], places, latent] * inside,
        }
        # old ones first and a stable order: of equal peaks the earlier prompt stays
        both = {
            name: torch.cat([self.held.get(name, t[:, :, :0]), t], 2) for name, t in found.items()
        }
        order = both["strength"].sort(dim=2, descending=True, stable=True).indices[..., : self.k]
        self.held = {
            name: t.take_along_dim(order if t.ndim == 3 else order[..., None], 2)
            for name, t in both.items()
        }
        self.n_prompts += len(z)
        self.n_tokens += int(keep.sum())

    def contexts(self, model: HookedRootModule, latents: list[int]) -> tuple[LatentExamples, ...]:
        """All windows as token strings."""
        tokenizer, held = tokenizer_of(model), {k: v.cpu() for k, v in self.held.items()}
        known = {i: token_text(tokenizer, i) for i in held["ids"].unique().tolist() if i >= 0}

        def context(place: tuple[int, int, int]) -> Context:
            one = {name: t[place] for name, t in held.items()}
            inside = one["ids"] >= 0
            return Context(
                tokens=tuple(known[token] for token in one["ids"][inside].tolist()),
                activations=tuple(one["values"][inside].tolist()),
                peak=int(inside[: self.before].sum()),
                prompt=int(one["prompt"]),
                position=int(one["position"]),
            )

        n_of_side = (held["strength"] > 0).sum(2).tolist()
        sides = [
            [tuple(context((i, s, slot)) for slot in range(n)) for s, n in enumerate(counts)]
            for i, counts in enumerate(n_of_side)
        ]
        return tuple(LatentExamples(n, *both) for n, both in zip(latents, sides, strict=True))


@dataclasses.dataclass(frozen=True, repr=False)
class SignedLatents(Result):
    """The strongest latents of each token of a text.

    Attributes:
        tokens: in order, the one that is put before the text left out.
        latents: of each token, the numbers and activations, of either sign, of those that are
            active, strongest first.
        k: latents of a token at most.
    """

    tokens: tuple[str, ...]
    latents: tuple[tuple[tuple[int, float], ...], ...]
    k: int

    def table(self) -> Table:
        """A table for the terminal: a row for each token, ``latent: value`` strongest first."""
        table = Table("token", "strongest latents, with sign")
        for token, pairs in zip(self.tokens, self.latents, strict=True):
            strongest = "   ".join(f"{latent}: {value:+.2f}" for latent, value in pairs)
            table.add_row(Text(printable(token)), Text(strongest))
        return table


@torch.no_grad()
def signed_latents(
    model: HookedRootModule,
    sae: SAE[Any],
    text: str,
    k: int = 4,
    latents: Sequence[int] | None = None,
) -> SignedLatents:
    """Find the k latents of each token of a text that are strongest by size, and their signs.

    Args:
        model: SAELens's hooked model; ``sae.cfg.metadata.hook_name`` says where it is read.
        sae: any SAELens SAE; a plain one has no negative latents.
        text: the beginning-of-sequence token is put before it where the tokenizer has one, as
            SAELens does in training unless ``sae.cfg.metadata.prepend_bos`` is False. It is not
            shown.
        k: latents of a token at most; of equal ones the one that ``latents`` has first.
        latents: look at these alone. None looks at all, in the order of their numbers.

    Raises:
        InvalidInputError: the text has no token; there is no such latent; the model has no such
            hook; the SAE's estimated scale is not folded in; or activations are not finite.
    """
    require_folded(sae)
    shown = list(dict.fromkeys(numbers_of_latents(sae, latents)))
    tokenizer = tokenizer_of(model)
    bos = models.bos_ids(tokenizer) if sae.cfg.metadata.prepend_bos is not False else []
    ids = models.token_ids(tokenizer, text)
    require(len(ids) > 0, "text", text, "a text with at least one token")
    tokens = torch.tensor([bos + ids], device="cpu")
    (prompts,) = models.prompts_of_tokens(model, sae, tokens)
    with inputs.flat_activations(sae):
        z = latents_of(sae, prompts.activations)[0, len(bos) :, shown].cpu().double()
    order = z.abs().sort(dim=-1, descending=True, stable=True).indices[:, :k]
    pairs = tuple(
        tuple((shown[i], row[i].item()) for i in strongest if row[i] != 0)
        for row, strongest in zip(z, order.tolist(), strict=True)
    )
    texts = tuple(token_text(tokenizer, token) for token in ids)
    return SignedLatents(Provenance.of(sae, len(ids)), texts, pairs, k)
