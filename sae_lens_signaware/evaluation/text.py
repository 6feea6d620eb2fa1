"""The signed latents of a text: which are strongest at each of its tokens, and with which sign."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from sae_lens import SAE

from sae_lens_signaware.checks import checked, require
from sae_lens_signaware.evaluation.inputs import (
    dense_latents,
    flat_activations,
    numbers_of_latents,
    require_folded,
    require_in_range,
    require_sae,
)
from sae_lens_signaware.evaluation.models import (
    HookedRootModule,
    bos_ids,
    require_unicode,
    required_tokenizer,
    token_ids,
    token_text,
)
from sae_lens_signaware.evaluation.prompts import prompts_of_tokens
from sae_lens_signaware.evaluation.results import Provenance, Result, printable


@dataclasses.dataclass(frozen=True)
class TokenLatents:
    """The strongest latents of one token, strongest first, without inactive ones.

    Attributes:
        token: its text.
        latents: their numbers.
        values: their activations, of either sign.
    """

    token: str
    latents: tuple[int, ...]
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True, repr=False)
class SignedLatents(Result):
    """The strongest latents of each token of a text.

    Attributes:
        tokens: in order, those that the tokenizer puts before the text left out.
        k: latents of a token at most.
    """

    tokens: tuple[TokenLatents, ...]
    k: int

    def table(self) -> Table:
        """A table for the terminal: a row for each token, ``latent: value`` strongest first."""
        table = Table("token", "strongest latents, with sign")
        for token in self.tokens:
            pairs = zip(token.latents, token.values, strict=True)
            strongest = "   ".join(f"{latent}: {value:+.2f}" for latent, value in pairs)
            table.add_row(Text(printable(token.token)), Text(strongest))
        return table

    def _summary(self) -> Mapping[str, object]:
        return {"text": "".join(token.token for token in self.tokens)}

    def to_dict(self) -> dict[str, object]:
        """Return all tokens as JSON holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def _fields_of(cls, values: dict[str, Any]) -> dict[str, Any]:
        tokens = tuple(
            TokenLatents(t["token"], tuple(t["latents"]), tuple(t["values"]))
            for t in values["tokens"]
        )
        return {**values, "tokens": tokens}


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
        ValueError: the text has no token, or more than the model has positions; ``k`` is below
            1; there is no such latent; the model has no tokenizer, or the SAE no hook of it;
            the SAE's estimated scale is not folded in; or activations are not finite.
    """
    require_sae(sae)
    require_folded(sae)
    require(isinstance(text, str), "text", type(text).__name__, "a str")
    require_unicode("text", text)
    k = checked("k", k, int)
    require(k >= 1, "k", k, "at least 1")
    shown = list(dict.fromkeys(numbers_of_latents(sae, latents)))
    require(len(shown) > 0, "latents", shown, "None or at least one latent")
    tokenizer = required_tokenizer(model)
    with_bos = sae.cfg.metadata.prepend_bos is not False
    bos, ids = bos_ids(tokenizer) if with_bos else [], token_ids(tokenizer, text)
    require(len(ids) > 0, "text", text, "a text with at least one token")
    with flat_activations(sae):
        (prompts,) = prompts_of_tokens(model, sae, torch.tensor([bos + ids], device="cpu"), 1, [])
        require_in_range(prompts.activations)
        z = dense_latents(sae, prompts.activations)[0, len(bos) :, shown].cpu().double()
    order = z.abs().sort(dim=-1, descending=True, stable=True).indices[:, :k]
    tokens = []
    for token, row, strongest in zip(ids, z, order.tolist(), strict=True):
        active = tuple(i for i in strongest if row[i] != 0)
        values = tuple(row[i].item() for i in active)
        numbers = tuple(shown[i] for i in active)
        tokens.append(TokenLatents(token_text(tokenizer, token), numbers, values))
    return SignedLatents(Provenance.of(sae, len(ids)), tuple(tokens), k)
