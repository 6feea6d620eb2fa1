"""activations_store: SAELens's store, with the tokens and the text that an SAE was trained on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sae_lens import ActivationsStore
from sae_lens.load_model import HookedProxyLM

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import InvalidInputError
from tests.support.models import EOS, tiny_gpt2, tiny_tokenizer
from tests.support.saes import make_sae
from tests.support.tables import json_of

HOOK = "transformer.wte"  # where a token has the same activations in every context
OF_STORE: dict[str, Any] = {
    "streaming": False,
    "store_batch_size_prompts": 4,
    "train_batch_size_tokens": 64,
    "n_batches_in_buffer": 4,
}


@pytest.fixture
def model() -> Any:
    return HookedProxyLM(tiny_gpt2(), tiny_tokenizer(), hook_names=[HOOK])


@pytest.fixture
def sae() -> Any:
    sae = make_sae("sa_gsae")
    sae.cfg.metadata.hook_name = HOOK
    sae.cfg.metadata.context_size = 16
    sae.cfg.metadata.prepend_bos = True
    return sae


def dataset() -> Dataset:
    rows = torch.randint(0, 63, (400, 40), generator=torch.Generator().manual_seed(5)).tolist()
    return Dataset.from_dict({"text": [" ".join(f"w{i}" for i in row) for row in rows]})


def tokens_in(store: ActivationsStore, model: Any) -> set[int]:
    """The tokens that have some of the activations of ten batches."""
    x = torch.cat([next(store) for _ in range(10)])
    distances = torch.cdist(
        x, model.model.transformer.wte.weight, compute_mode="donot_use_mm_for_euclid_dist"
    )
    assert distances.min(1).values.max() < 1e-5
    return set(distances.argmin(1).tolist())


def test_saelens_store_alone_has_special_tokens(model: Any, sae: Any) -> None:
    assert EOS in tokens_in(ActivationsStore.from_sae(model, sae, dataset(), **OF_STORE), model)


@pytest.mark.parametrize(
    ("of_sae", "asked", "left_out"),
    [
        ("nothing", None, {EOS}),  # an SAE that does not say what it was trained on
        (True, None, {EOS}),
        (False, None, set()),
        ([3, 5], None, {3, 5}),
        (False, True, {EOS}),
        (True, [7], {7}),
        (True, False, set()),
    ],
)
def test_tokens_are_left_out_as_in_training(
    model: Any, sae: Any, of_sae: Any, asked: Any, left_out: set[int]
) -> None:
    if of_sae != "nothing":
        sae.cfg.metadata.exclude_special_tokens = of_sae
    store = signaware.activations_store(
        model, sae, dataset(), exclude_special_tokens=asked, **OF_STORE
    )
    assert set(range(64)) - tokens_in(store, model) == left_out


def test_texts_are_joined_as_in_training(model: Any, sae: Any) -> None:
    text = Dataset.from_dict({"text": [" ".join(f"w{i}" for i in range(20))] * 50})
    sae.cfg.metadata.disable_concat_sequences = True
    sae.cfg.metadata.sequence_separator_token = None
    store = signaware.activations_store(model, sae, text, **OF_STORE)
    alone = [EOS, *range(15)]  # the start of each text, and no text that goes on in the next prompt
    assert store.get_batch_tokens(4).tolist() == [alone] * 4
    joined = signaware.activations_store(
        model, sae, text, disable_concat_sequences=False, **OF_STORE
    )
    assert joined.get_batch_tokens(4).tolist() != [alone] * 4


def test_other_values_are_one_line(model: Any, sae: Any) -> None:
    wrong: Any = "bos"
    with pytest.raises(InvalidInputError, match=r"^exclude_special_tokens must be .*, got 'bos'"):
        signaware.activations_store(model, sae, dataset(), exclude_special_tokens=wrong)


def test_what_special_tokens_change_is_as_the_page_says() -> None:
    measured = json_of("special_tokens")
    rows = [dict(zip(measured["columns"], row, strict=True)) for row in measured["rows"]]
    resid = {row["special_tokens"]: row for row in rows if row["sae"].endswith("-resid")}
    page = (Path(__file__).parent.parent / "docs" / "measures.md").read_text()
    said = f"would be {resid[True]['r2']:.3f} in place of {resid[False]['r2']:.3f}, on the same"
    assert said in page
    assert resid[True]["norm_max"] > 100 * resid[True]["norm_median"]
