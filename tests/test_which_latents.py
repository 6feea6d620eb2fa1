"""Latents and token ids as users have them: of a tensor, of numpy, of a mask, of another model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformer_lens import HookedTransformer

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation.histograms import activation_histograms
from sae_lens_signaware.evaluation.results import Result
from tests.support.checked_runs import proxy_model
from tests.support.models import HOOK, hooked_transformer, prompt_ids, tokens
from tests.support.saes import D_IN, make_sae

TEXT = "w5 w9 w17"
MASK = torch.arange(24) < 2


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return hooked_transformer()


def hooked_sae(hook: str = HOOK) -> Any:
    sae = make_sae("bi_jumprelu")
    sae.cfg.metadata.hook_name = hook
    return sae


def signed(model: Any, latents: Any) -> Any:
    return signaware.signed_latents(model, hooked_sae(), TEXT, latents=latents)


def examples(model: Any, latents: Any) -> Any:
    return signaware.top_examples(model, hooked_sae(), prompt_ids(6), latents)


def opposition(model: Any, latents: Any) -> Any:
    return signaware.side_opposition(model, hooked_sae(), prompt_ids(6), latents)


def logits(model: Any, latents: Any) -> Any:
    return signaware.top_logits(model, hooked_sae(), latents)


def histograms(model: Any, latents: Any) -> Any:
    return activation_histograms(hooked_sae(), torch.ones(3, D_IN), latents)


MEASURES: list[Callable[[Any, Any], Any]] = [signed, examples, opposition, logits, histograms]
each_measure = pytest.mark.parametrize("measure", MEASURES)


@each_measure
@pytest.mark.parametrize(
    "latents",
    [
        torch.tensor([5, 9]),
        torch.tensor([[5], [9]]),  # of mask.nonzero()
        [torch.tensor(5), torch.tensor(9)],
        np.array([5, 9]),
        (5, np.int32(9)),
        "a generator",
    ],
    ids=["tensor", "nonzero", "tensors", "numpy", "tuple", "generator"],
)
def test_latents_of_any_kind_are_those_of_a_list(
    measure: Callable[[Any, Any], Any], latents: Any, model: HookedTransformer, tmp_path: Path
) -> None:
    expected = measure(model, [5, 9])
    found = measure(model, (i for i in (5, 9)) if isinstance(latents, str) else latents)
    if not isinstance(found, Result):
        assert found == expected
        return
    assert json.dumps(found.to_dict()) == json.dumps(expected.to_dict())
    found.write(tmp_path / "result.json")


@each_measure
@pytest.mark.parametrize(
    ("latents", "line"),
    [
        (MASK, r"latents must be whole numbers, got tensor\(True\): of a mask take mask.nonzero"),
        (MASK.numpy(), r"latents must be whole numbers, got .*True.*: of a mask take mask.nonzero"),
        ([True, False], r"latents must be whole numbers, got True: of a mask take mask.nonzero"),
        ([5.0, 9.0], r"latents must be whole numbers, got 5\.0$"),
        (5, r"latents must be a list of numbers of latents, got 5$"),
        (torch.tensor(5), r"latents must be a list of numbers of latents, got tensor\(5\)$"),
        (torch.tensor([5, 24]), r"latents must be from 0 to 23, got tensor\(24\)$"),
    ],
)
def test_what_numbers_no_latents_is_one_line(
    measure: Callable[[Any, Any], Any], latents: Any, line: str, model: HookedTransformer
) -> None:
    with pytest.raises(ValueError, match=line):
        measure(model, latents)


def test_k_of_numpy_is_written(model: HookedTransformer, tmp_path: Path) -> None:
    k: Any = np.int64(3)
    sae, ids = hooked_sae(), prompt_ids(6)
    for found in (
        signaware.signed_latents(model, sae, TEXT, k=k),
        signaware.top_examples(model, sae, ids, [5], k=k),
        signaware.side_opposition(model, sae, ids, [5, 9], k=k),
    ):
        found.write(tmp_path / "result.json")
        assert type(found).read(tmp_path / "result.json").k == 3
    k = 3.0
    for measure in (
        lambda: signaware.signed_latents(model, sae, TEXT, k=k),
        lambda: signaware.top_examples(model, sae, ids, [5], k=k),
        lambda: signaware.side_opposition(model, sae, ids, [5, 9], k=k),
        lambda: signaware.top_logits(model, sae, [5], k=k),
    ):
        with pytest.raises(ValueError, match=r"k must be an integer, got 3\.0: write 3"):
            measure()


@pytest.mark.parametrize("wrong", [(), (0, 1, 2, 3), (0, 8, 0), (0, 8, -1)])
def test_positions_that_are_no_slice_are_one_line(
    wrong: tuple[int, ...], model: HookedTransformer
) -> None:
    with pytest.raises(ValueError, match=r"seqpos_slice must be one to three numbers, as slice"):
        signaware.top_examples(model, hooked_sae(), prompt_ids(6), [5], seqpos_slice=wrong)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (prompt_ids(6).tolist(), r"tokens must be a tensor of token ids .*, got 'list'"),
        (prompt_ids(6).numpy(), r"tokens must be a tensor of token ids .*, got 'ndarray'"),
        (tokens(6), r"tokens must be a tensor of token ids .*, got 'Dataset'"),
        (prompt_ids(6).float(), r"tokens must be whole numbers.*, got torch\.float32"),
        (prompt_ids(6).short(), r"tokens must be .* of torch\.int64 or .*, got torch\.int16"),
        (prompt_ids(6).byte(), r"tokens must be .* of torch\.int64 or .*, got torch\.uint8"),
        (
            prompt_ids(6) + 40,
            r"tokens must be token ids from 0 to 63, got 103: are they",
        ),
        (prompt_ids(6) - 9, r"tokens must be token ids from 0 to 63, got -8: are they"),
        (prompt_ids(6)[:0], r"tokens must be \(prompt, position\) of at least one prompt and "),
        (prompt_ids(6)[0], r"tokens must be \(prompt, position\) of at least one prompt and "),
    ],
)
@pytest.mark.parametrize("of_transformers", [False, True])
def test_what_is_no_token_ids_of_the_model_is_one_line(
    wrong: Any, line: str, of_transformers: bool
) -> None:
    model: Any = proxy_model() if of_transformers else hooked_transformer()
    sae = hooked_sae("transformer.h.0.mlp" if of_transformers else HOOK)
    for measure in (
        lambda: signaware.top_examples(model, sae, wrong, [5]),
        lambda: signaware.side_opposition(model, sae, wrong, [5, 9]),
        lambda: signaware.polarity_dial(model, sae, 5, wrong, [1.0]),
    ):
        with pytest.raises(ValueError, match=line) as error:
            measure()
        assert "\n" not in str(error.value)
