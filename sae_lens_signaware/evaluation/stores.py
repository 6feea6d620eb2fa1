"""The activations that an SAE was trained on, from SAELens's store."""

from typing import Any

import torch
from sae_lens import SAE, ActivationsStore

from sae_lens_signaware.checks import checked
from sae_lens_signaware.evaluation.models import HookedRootModule, excluded_tokens

_OF_TEXT = ("disable_concat_sequences", "sequence_separator_token")


def activations_store(
    model: HookedRootModule,
    sae: SAE[Any],
    dataset: Any,
    *,
    exclude_special_tokens: list[int] | bool | None = None,
    **kwargs: Any,
) -> ActivationsStore:
    """Make SAELens's ``ActivationsStore.from_sae``, with all that the SAE's metadata says.

    ``from_sae`` itself leaves no tokens out. A BOS token can have a norm a hundred times that of
    other tokens. Then R² is that of the BOS tokens: 0.998 in place of 0.829 for the residual
    stream in ``pretrained/`` (results/special_tokens.json).

    Args:
        dataset: as in ``from_sae``.
        exclude_special_tokens: ids, or True for all special tokens of the model's tokenizer. None
            takes what the SAE was trained with; where its metadata lack it, True, as SAELens's
            ``run_evals`` has it.
        kwargs: of ``from_sae``. What the metadata say of how texts are joined is the default.

    Raises:
        InvalidInputError: ``exclude_special_tokens`` is something else.
        ValueError: as in ``from_sae``, where the metadata lack the hook or the context size.
    """
    metadata = sae.cfg.metadata
    exclude: Any = exclude_special_tokens
    if exclude is None:
        exclude = metadata.exclude_special_tokens
    if exclude is None:
        exclude = True
    excluded = excluded_tokens(model, checked("exclude_special_tokens", exclude, list[int] | bool))
    of_text = {name: metadata[name] for name in _OF_TEXT if name in metadata}
    store = ActivationsStore.from_sae(model, sae, dataset, **{**of_text, **kwargs})
    if excluded:
        ids = torch.tensor(excluded, dtype=torch.long, device=store.device)
        store.exclude_special_tokens = ids
    return store
