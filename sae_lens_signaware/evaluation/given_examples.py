"""Contexts that a caller gives: are they of these tokens, and of this SAE?"""

import math
from collections.abc import Sequence
from typing import Any

from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation.examples import LatentExamples
from sae_lens_signaware.evaluation.inputs import dense_latents, flat_activations
from sae_lens_signaware.evaluation.models import HookedRootModule, required_tokenizer, token_text
from sae_lens_signaware.evaluation.prompts import prompts_of_tokens

N_CHECKED = 4
"""Contexts whose value is measured again."""


def require_found_in(
    model: HookedRootModule, tokens: Tensor, found: Sequence[LatentExamples]
) -> None:
    """Raise InvalidInputError for contexts of other tokens: their places would be wrong ones."""
    tokenizer = required_tokenizer(model)
    n_prompts, n_positions = tokens.shape
    for of in found:
        for c in (*of.pos, *of.neg):
            place = f"latent {of.latent}, prompt {c.prompt}, position {c.position}"
            is_there = c.prompt < n_prompts and c.position < n_positions
            if is_there:
                text = token_text(tokenizer, int(tokens[c.prompt, c.position]))
                is_there = text.strip() == c.tokens[c.peak].strip()
            require(is_there, "examples", place, "contexts found in these tokens")


def require_found_by(
    model: HookedRootModule, sae: SAE[Any], tokens: Tensor, found: Sequence[LatentExamples]
) -> None:
    """Raise InvalidInputError for contexts of another SAE, seen in the first prompt of some."""
    of_some = [(of.latent, c) for of in found for c in (*of.pos[:1], *of.neg[:1])][:N_CHECKED]
    with flat_activations(sae):
        for latent, c in of_some:
            prompt = tokens[c.prompt, : c.position + 1]
            (ran,) = prompts_of_tokens(model, sae, prompt[None], 1, [])
            value = dense_latents(sae, ran.activations)[0, -1, latent].item()
            # another batch size, or a reduced precision, moves it by less
            is_same = math.isclose(value, c.value, rel_tol=0.1)
            place = f"latent {latent} of {c.value:.4g}, where the SAE has {value:.4g}"
            require(is_same, "examples", place, "contexts found with this SAE")
