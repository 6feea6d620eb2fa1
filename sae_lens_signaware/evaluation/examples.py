"""Examples: the contexts in which each side of a latent is strongest (docs/measures.md)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from sae_lens import SAE, ActivationsStore
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from sae_lens_signaware.checks import checked, require
from sae_lens_signaware.evaluation.inputs import (
    MAX_TOKENS,
    dense_latents,
    flat_activations,
    numbers_of_latents,
    require_folded,
    require_in_range,
    require_sae,
)
from sae_lens_signaware.evaluation.models import (
    HookedRootModule,
    excluded_tokens,
    required_tokenizer,
    token_text,
)
from sae_lens_signaware.evaluation.prompts import (
    Prompts,
    prompts_of_store,
    prompts_of_tokens,
    require_width_of_sae,
)
from sae_lens_signaware.evaluation.results import Provenance, Result, printable


@dataclasses.dataclass(frozen=True)
class Context:
    """A window of text around a peak.

    Attributes:
        tokens: the token strings, in order.
        activations: the latent's value at each, of either sign; 0 where it is inactive.
        peak: index in ``tokens`` of the strongest activation of the side.
        prompt: number of the prompt in the pass, from 0.
        position: of the peak in its whole prompt, also where a store cuts it (``seqpos_slice``).
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

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Context":
        """Make it of the mapping that JSON holds of one."""
        tuples = {name: tuple(values[name]) for name in ("tokens", "activations")}
        return cls(**{**values, **tuples})


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
        """Return the examples of one latent.

        Raises:
            KeyError: it was not asked for.
        """
        for examples in self.latents:
            if examples.latent == latent:
                return examples
        raise KeyError(latent)

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

    def _summary(self) -> Mapping[str, object]:
        return {
            "latents": len(self.latents),
            "contexts": sum(len(e.pos) + len(e.neg) for e in self.latents),
        }

    def to_dict(self) -> dict[str, object]:
        """Return all contexts as JSON holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def _fields_of(cls, values: dict[str, Any]) -> dict[str, Any]:
        latents = tuple(
            LatentExamples(
                latent=latent["latent"],
                **{s: tuple(map(Context.of, latent[s])) for s in ("pos", "neg")},
            )
            for latent in values["latents"]
        )
        return {**values, "latents": latents}


@torch.no_grad()
def top_examples(
    model: HookedRootModule,
    sae: SAE[Any],
    source: ActivationsStore | Tensor,
    latents: Sequence[int] | None = None,
    k: int = 8,
    n_batches: int = 32,
    batch_size_prompts: int = 8,
    window: tuple[int, int] = (16, 8),
    exclude_special_tokens: list[int] | bool = True,
    seqpos_slice: tuple[int | None, ...] = (None,),
) -> TopExamples:
    """Find the k strongest contexts of each side of the latents, in one pass over prompts.

    A prompt gives at most one context to a side, its strongest token, so that one repetitive text
    does not fill the list; a prompt that was there before gives none. Of equal peaks the earlier
    prompt stays. Memory does not grow with the number of prompts.

    Args:
        model: SAELens's hooked model; its tokenizer gives the token strings.
        sae: any SAELens SAE, as saved; a plain one has no - side.
        source: an ``ActivationsStore``, of which the next ``n_batches`` batches are read, or token
            ids (prompt, position), all of which are.
        latents: None takes all; memory is 2 * k * (window + 1) * 12 bytes a latent.
        k: contexts of a side at most.
        batch_size_prompts: prompts the model runs at once.
        window: tokens before and after the peak, cut at the ends of the prompt.
        exclude_special_tokens: whether special tokens of the tokenizer can be no peak; or the ids
            of the tokens that cannot.
        seqpos_slice: positions of a prompt of token ids that can be peaks, as slice() takes them.
            A store has its own.

    Raises:
        ValueError: a latent is out of range; ``k``, ``n_batches`` or ``batch_size_prompts`` is
            below 1; the window is negative; no token can be a peak; activations are not finite; the
            SAE's estimated scale is not folded in; or the model has no tokenizer.
    """
    require_sae(sae)
    require_folded(sae)
    chosen = numbers_of_latents(sae, latents)
    k, n_batches = checked("k", k, int), checked("n_batches", n_batches, int)
    batch_size_prompts = checked("batch_size_prompts", batch_size_prompts, int)
    for name, value in (
        ("k", k),
        ("n_batches", n_batches),
        ("batch_size_prompts", batch_size_prompts),
    ):
        require(value >= 1, name, value, "at least 1")
    window = checked("window", window, tuple[int, int])
    seqpos_slice = checked("seqpos_slice", seqpos_slice, tuple[int | None, ...])
    is_slice = 1 <= len(seqpos_slice) <= 3 and all(n is None or n > 0 for n in seqpos_slice[2:])
    allowed = "one to three numbers, as slice() takes them, the third of them 1 or more"
    require(is_slice, "seqpos_slice", seqpos_slice, allowed)
    excluding: Any = checked("exclude_special_tokens", exclude_special_tokens, list[int] | bool)
    require(min(window) >= 0, "window", window, "two numbers of tokens, 0 or more")
    tokenizer = required_tokenizer(model)
    excluded = excluded_tokens(model, excluding)
    if isinstance(source, ActivationsStore):
        batches = prompts_of_store(source, n_batches, batch_size_prompts, excluded, distinct=True)
    else:
        batches = prompts_of_tokens(
            model,
            sae,
            source,
            batch_size_prompts,
            excluded,
            distinct=True,
            part=slice(*seqpos_slice),
        )
    top = _TopWindows(len(chosen), k, window, sae.device)
    columns = torch.tensor(chosen, dtype=torch.int64, device=sae.device)
    with flat_activations(sae):
        for prompts in batches:
            at_once = max(1, MAX_TOKENS // prompts.tokens.shape[1])
            for part in zip(*(field.split(at_once) for field in prompts), strict=True):
                _add_prompts(top, sae, Prompts(*part), columns)
    allowed = "prompts with a token that can be a peak, neither special nor cut off"
    require(top.n_tokens > 0, "source", "none", allowed)
    return TopExamples(Provenance.of(sae, top.n_tokens), top.contexts(chosen, tokenizer), k)


def _add_prompts(top: "_TopWindows", sae: SAE[Any], prompts: Prompts, columns: Tensor) -> None:
    require_width_of_sae(prompts.activations, sae, sae.cfg.metadata.hook_name)
    require_in_range(prompts.activations)
    z = dense_latents(sae, prompts.activations)[..., columns].float()
    top.add(
        prompts.tokens.to(sae.device),
        z,
        prompts.keep.to(sae.device),
        prompts.positions.to(sae.device),
    )


class _TopWindows:
    """The k strongest windows of each side of n latents; side 0 is +, strength 0 an empty slot."""

    def __init__(self, n: int, k: int, window: tuple[int, int], device: torch.device) -> None:
        self.k, self.before, self.width = k, window[0], sum(window) + 1
        self.n_prompts = self.n_tokens = 0
        self.strength = torch.zeros(n, 2, k, dtype=torch.float32, device=device)
        self.prompt = torch.zeros(n, 2, k, dtype=torch.int64, device=device)
        self.position = torch.zeros_like(self.prompt)
        # token ids of the window, -1 outside of the prompt, and the latent's values there
        self.ids = torch.full((n, 2, k, self.width), -1, dtype=torch.int64, device=device)
        self.values = self.strength.new_zeros(n, 2, k, self.width)

    def add(self, tokens: Tensor, z: Tensor, keep: Tensor, positions: Tensor) -> None:
        """Take the next prompts in: z is (batch, position, n), the others are (batch, position)."""
        peaks = z * keep[..., None]
        (high, high_at), (low, low_at) = peaks.max(1), (-peaks).max(1)
        strength = torch.stack([high, low]).permute(2, 0, 1)  # (n, 2, batch)
        at = torch.stack([high_at, low_at]).permute(2, 0, 1)
        # old ones first and a stable order: of equal peaks the earlier prompt stays
        both = torch.cat([self.strength, strength.clamp(min=0)], dim=2)
        order = both.sort(dim=2, descending=True, stable=True).indices[..., : self.k]
        self.strength = both.gather(2, order)
        old = order.clamp(max=self.k - 1)
        self.prompt, self.position = self.prompt.gather(2, old), self.position.gather(2, old)
        self.ids = self.ids.take_along_dim(old[..., None], 2)
        self.values = self.values.take_along_dim(old[..., None], 2)
        new = (order >= self.k) & (self.strength > 0)
        latent, side, slot = new.nonzero(as_tuple=True)
        row = order[new] - self.k
        peak = at[latent, side, row]
        places = peak[:, None] - self.before + torch.arange(self.width, device=z.device)
        inside = (places >= 0) & (places < tokens.shape[1])
        places = places.clamp(0, tokens.shape[1] - 1)
        self.ids[latent, side, slot] = tokens[row[:, None], places].long().masked_fill(~inside, -1)
        self.values[latent, side, slot] = z[row[:, None], places, latent[:, None]] * inside
        self.prompt[latent, side, slot] = row + self.n_prompts
        self.position[latent, side, slot] = positions[row, peak]
        self.n_prompts += len(tokens)
        self.n_tokens += int(keep.sum())

    def contexts(
        self, latents: list[int], tokenizer: PreTrainedTokenizerBase
    ) -> tuple[LatentExamples, ...]:
        """All windows as token strings."""
        known = {i: token_text(tokenizer, i) for i in self.ids.unique().tolist() if i >= 0}
        return tuple(
            LatentExamples(latent, *(self._side(i, side, known) for side in (0, 1)))
            for i, latent in enumerate(latents)
        )

    def _side(self, i: int, side: int, known: dict[int, str]) -> tuple[Context, ...]:
        contexts = []
        for slot in range(int((self.strength[i, side] > 0).sum())):
            ids = self.ids[i, side, slot]
            inside = ids >= 0
            contexts.append(
                Context(
                    tokens=tuple(known[token] for token in ids[inside].tolist()),
                    activations=tuple(self.values[i, side, slot][inside].tolist()),
                    peak=int(inside[: self.before].sum()),
                    prompt=int(self.prompt[i, side, slot]),
                    position=int(self.position[i, side, slot]),
                )
            )
        return tuple(contexts)
