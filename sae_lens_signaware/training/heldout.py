"""Measuring a trained SAE on the text that follows its training text, where there is any."""

import dataclasses
from pathlib import Path
from typing import Any

from sae_lens import SAE, ActivationsStore

from sae_lens_signaware.evaluation.models import HookedRootModule
from sae_lens_signaware.evaluation.quality import SAEQuality, add_loss_recovered
from sae_lens_signaware.evaluation.saved import measure_saved

AFTER_TRAINING = "the training dataset, after the tokens trained on"
TRAINED_ON_TOO = (
    "the training dataset, tokens that were trained on too: the text is shorter than the training"
)
FROM_CACHE = "the cached activations and the start of the text; both may have been trained on"


class TextPosition:
    """Position of a store in its text: within the first pass, or past the end.

    SAELens's store begins its text anew without a word where it is too short. It then makes a new
    iterator of sequences. Tokens that the store's mixing buffer holds back count as read: where it
    read past the end of the text, what follows is from the beginning.
    """

    def __init__(self, store: ActivationsStore) -> None:
        """
        Args:
            store: no token read from it yet, nor skipped by a resume.
        """
        self._store = store
        self._first_pass = store.iterable_sequences

    @property
    def tokens_from(self) -> str:
        """Description of the tokens that were read last, for ``quality.json``."""
        if self._store.cached_activation_dataset is not None:
            return FROM_CACHE
        in_first_pass = self._store.iterable_sequences is self._first_pass
        return AFTER_TRAINING if in_first_pass else TRAINED_ON_TOO


def measure_on_following_tokens(
    folder: Path,
    model: HookedRootModule,
    store: ActivationsStore,
    position: TextPosition,
    n_batches: int,
    device: str,
) -> SAEQuality:
    """Measure the SAE in ``folder``, as a user loads it, on the next tokens of ``store``.

    Args:
        n_batches: batches of ``store.store_batch_size_prompts`` contexts.
        device: of the SAE.

    Returns:
        What is in ``quality.json`` beside the SAE then, loss recovered included.
    """

    def complete(sae: SAE[Any], quality: SAEQuality) -> SAEQuality:
        quality = add_loss_recovered(quality, sae, model, store)
        # the text may have ended while it was measured on
        return dataclasses.replace(quality, tokens_from=position.tokens_from)

    batches = (store.get_filtered_llm_batch() for _ in range(max(1, n_batches)))
    return measure_saved(folder, batches, AFTER_TRAINING, device, complete).quality
