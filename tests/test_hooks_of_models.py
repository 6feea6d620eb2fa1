"""Measures that write into a model's pass: names of its hooks, and hooks that it does not call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import HookedSAETransformer
from transformer_lens import HookedTransformer

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import InvalidInputError
from tests.support.models import (
    HOOK,
    booted_bridge,
    hooked_transformer,
    prompt_ids,
    tiny_model_config,
    tiny_tokenizer,
)
from tests.support.saes import make_sae

CANONICAL = "blocks.0.mlp.hook_out"
"""What TransformerLens's bridge calls HookedTransformer's ``blocks.0.hook_mlp_out``."""


def sae_at(hook_name: str) -> Any:
    sae = make_sae("sa_gsae")
    sae.threshold.data.zero_()  # activations of a random GPT-2 are small
    sae.cfg.metadata.hook_name = hook_name
    return sae


@pytest.fixture
def bridge(tmp_path: Path) -> Any:
    return booted_bridge(tmp_path)


def dial_of(model: Any, sae: Any) -> torch.Tensor:
    return signaware.polarity_dial(model, sae, 3, prompt_ids(4), [2.0]).effect


def opposition_of(model: Any, sae: Any) -> torch.Tensor:
    return signaware.side_opposition(model, sae, prompt_ids(20), range(8), k=3).opposition


def latents_of(model: Any, sae: Any) -> Any:
    return signaware.signed_latents(model, sae, "w1 w2 w3", k=3).tokens


@pytest.mark.parametrize("measure", [dial_of, opposition_of, latents_of])
def test_a_bridge_takes_both_names_of_a_hook(measure: Callable[..., Any], bridge: Any) -> None:
    found, expected = (
        measure(bridge, sae_at(name)) for name in ("blocks.0.hook_mlp_out", CANONICAL)
    )
    if isinstance(found, torch.Tensor):
        torch.testing.assert_close(found, expected, equal_nan=True)
        assert found.nan_to_num().any()
    else:
        assert found == expected


def test_a_hook_that_a_bridge_has_lost_is_named(bridge: Any) -> None:
    sae = sae_at(CANONICAL)
    assert dial_of(bridge, sae).any()
    bridge.run_with_saes(prompt_ids(2), saes=[sae])
    calls = list[None]()
    bridge.run_with_hooks(
        prompt_ids(2), fwd_hooks=[(CANONICAL, lambda *_, **__: calls.append(None))]
    )
    if calls:
        pytest.skip("this version keeps the hook")
    with pytest.raises(InvalidInputError, match=r"^hook_name must be a hook that this model calls"):
        dial_of(bridge, sae)


def test_a_hook_that_is_switched_off_is_named() -> None:
    model, sae = hooked_transformer(), sae_at("blocks.0.hook_mlp_in")
    assert sae.cfg.metadata.hook_name in model.hook_dict
    with pytest.raises(InvalidInputError, match=r"^hook_name must be a hook that this model calls"):
        dial_of(model, sae)


def test_an_sae_that_is_attached_is_said() -> None:
    model = HookedSAETransformer(tiny_model_config())
    model.tokenizer = tiny_tokenizer()
    sae = sae_at(HOOK)
    expected = dial_of(model, sae)
    model.add_sae(sae)
    line = rf"^hook_name: an SAE is attached to the model at '{HOOK}'; call reset_saes\(\) first$"
    for measure in (dial_of, latents_of):
        with pytest.raises(InvalidInputError, match=line):
            measure(model, sae)
    model.reset_saes()
    torch.testing.assert_close(dial_of(model, sae), expected)


def test_logits_that_are_not_finite_are_named() -> None:
    cfg = tiny_model_config()
    cfg.normalization_type = None
    model = HookedTransformer(cfg)
    with pytest.raises(InvalidInputError, match=r"^coefficients must be sizes that leave the logi"):
        signaware.polarity_dial(model, sae_at(HOOK), 3, prompt_ids(2), [3e38])


def test_a_direction_of_0_is_named() -> None:
    sae = sae_at(HOOK)
    sae.W_dec.data[3] = 0
    with pytest.raises(
        InvalidInputError, match=r"^latent must be one whose decoder row is not 0, got 3"
    ):
        dial_of(hooked_transformer(), sae)
    for direction in (torch.zeros(sae.cfg.d_in), torch.full((sae.cfg.d_in,), torch.nan)):
        with pytest.raises(
            InvalidInputError, match=r"^direction must be finite, and not 0 through"
        ):
            signaware.evaluation.dial.nearest_antipodal_pair(sae, direction)


def test_a_plain_sae_has_no_sides_to_oppose() -> None:
    plain = signaware.split_polarities(sae_at(HOOK))
    plain.cfg.metadata.hook_name = HOOK
    line = r"^latents must be at least one that is negative in these tokens, got \[0, 1, .*\]$"
    with pytest.raises(InvalidInputError, match=line):
        opposition_of(hooked_transformer(), plain)


def test_prompts_without_a_token_that_can_be_a_peak_are_named() -> None:
    model, sae = hooked_transformer(), sae_at(HOOK)
    special = torch.full((3, 5), 63)
    for tokens, kwargs in ((special, {}), (prompt_ids(3), {"seqpos_slice": (20, None)})):
        with pytest.raises(
            InvalidInputError, match=r"^source must be prompts with a token that can"
        ):
            signaware.top_examples(model, sae, tokens, [3], **kwargs)
