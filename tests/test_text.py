"""The signed latents of a text: against the SAE by hand, over architectures."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformer_lens import HookedTransformer

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation.prompts import hook_of
from tests.support.checked_runs import proxy_model
from tests.support.models import HOOK, hooked_transformer
from tests.support.saes import each_variant, make_sae

TEXT = "w5 w9 w17 w5"


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return hooked_transformer()


def hooked_sae(architecture: str = "sa_gsae", tying: str = "none") -> Any:
    sae = make_sae(architecture, tying)
    sae.cfg.metadata.hook_name = HOOK
    return sae


@each_variant
def test_they_are_the_largest_of_encode_by_size(
    architecture: str, tying: str, model: HookedTransformer
) -> None:
    sae = hooked_sae(architecture, tying)
    found = signaware.signed_latents(model, sae, TEXT, k=3)
    bos = [model.tokenizer.bos_token_id] if model.tokenizer.bos_token_id is not None else []
    ids = torch.tensor([[*bos, 5, 9, 17, 5]])
    z = sae.encode(model.run_with_cache(ids)[1][HOOK])[0, len(bos) :]
    assert [token.token for token in found.tokens] == ["w5", "w9", "w17", "w5"]
    for token, row in zip(found.tokens, z.tolist(), strict=True):
        by_size = sorted(range(len(row)), key=lambda i: -abs(row[i]))[:3]
        expected = [i for i in by_size if row[i] != 0]
        assert list(token.latents) == expected
        assert token.values == pytest.approx([row[i] for i in expected])
    values = [value for token in found.tokens for value in token.values]
    assert min(values) < 0 < max(values)
    assert (found.n_tokens, found.k) == (4, 3)  # the one before the text is not counted
    assert signaware.signed_latents(model, sae, TEXT).k == 4


@pytest.mark.parametrize("prepend_bos", [True, False, None])
def test_bos_comes_first_unless_the_sae_was_trained_without(
    prepend_bos: bool | None, model: HookedTransformer
) -> None:
    sae = hooked_sae()
    sae.cfg.metadata.prepend_bos = prepend_bos
    ids = [5, 9, 17, 5] if prepend_bos is False else [63, 5, 9, 17, 5]
    z = sae.encode(model.run_with_cache(torch.tensor([ids]))[1][HOOK])[0, -4:]
    found = signaware.signed_latents(model, sae, TEXT, k=1)
    assert [token.values[0] for token in found.tokens] == pytest.approx(
        [row[row.abs().argmax()].item() for row in z]
    )


def test_of_the_latents_that_are_asked_for_the_strongest_come_first(
    model: HookedTransformer,
) -> None:
    sae = hooked_sae()
    everything = signaware.signed_latents(model, sae, TEXT, k=24)
    assert signaware.signed_latents(model, sae, TEXT, k=99).tokens == everything.tokens
    for asked in ([7, 3, 20, 7], [0]):
        found = signaware.signed_latents(model, sae, TEXT, k=2, latents=asked)
        for token, whole in zip(found.tokens, everything.tokens, strict=True):
            pairs = list(zip(whole.latents, whole.values, strict=True))
            of_asked = [pair for pair in pairs if pair[0] in asked][:2]
            assert list(zip(token.latents, token.values, strict=True)) == of_asked


def test_inactive_latents_are_left_out(model: HookedTransformer) -> None:
    sae = hooked_sae()
    with torch.no_grad():
        sae.threshold.fill_(1e6)
    found = signaware.signed_latents(model, sae, TEXT)
    assert [token.latents for token in found.tokens] == [()] * 4


def test_the_table_has_a_row_for_each_token(model: HookedTransformer) -> None:
    found = signaware.signed_latents(model, hooked_sae(), TEXT, k=1)
    text = io.StringIO()
    Console(file=text, width=80).print(found.table())
    for token in found.tokens:
        assert f"{token.latents[0]}: {token.values[0]:+.2f}" in text.getvalue()


def test_they_read_back(model: HookedTransformer, tmp_path: Path) -> None:
    found = signaware.signed_latents(model, hooked_sae(), TEXT)
    found.write(tmp_path / "latents.json")
    assert signaware.SignedLatents.read(tmp_path / "latents.json") == found
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="not a SignedLatents"):
        signaware.SignedLatents.read(tmp_path / "other.json")


def test_wrong_input_is_one_line(model: HookedTransformer) -> None:
    sae = hooked_sae()
    for args, match in (
        ({"text": ""}, "text must be a text with at least one token"),
        ({"text": TEXT, "k": 0}, "k must be at least 1, got 0"),
        ({"text": TEXT, "latents": [3, 24]}, "latents must be from 0 to 23, got 24"),
        ({"text": TEXT, "latents": [-1]}, "latents must be from 0 to 23, got -1"),
        ({"text": TEXT, "latents": []}, "latents must be None or at least one latent"),
        (
            {"text": TEXT, "hook": ("blocks.0.mlp.hook_post", None)},
            "must be 16, the SAE's d_in, got",
        ),
        ({"text": TEXT, "hook": ("blocks.0.hook_mlp_out", 1)}, "hook_head_index must be null: 'bl"),
        ({"text": TEXT, "hook": ("blocks.0.attn.hook_z", 2)}, "hook_head_index must be below 2, g"),
    ):
        hook = args.pop("hook", hook_of(sae))
        sae.cfg.metadata.hook_name, sae.cfg.metadata.hook_head_index = hook
        with pytest.raises(ValueError, match=match) as error:
            signaware.signed_latents(model, sae, **args)
        assert "\n" not in str(error.value)


def test_arguments_of_another_kind_are_named() -> None:
    model, sae = hooked_transformer(), make_sae("sa_gsae")
    wrong: Any = model
    with pytest.raises(ValueError, match="sae must be an SAE of SAELens, got 'HookedTransformer'"):
        signaware.signed_latents(model, wrong, "w1")
    with pytest.raises(ValueError, match="sae must be an SAE of SAELens, got 'HookedTransformer'"):
        signaware.top_examples(model, wrong, torch.zeros(2, 8, dtype=torch.int64))
    (by_generator,) = signaware.text_activations(model, ["w1 w2"], (hook for hook in [HOOK]))
    assert by_generator.activations.shape[0] > 0
    wrong = ["w1"]
    with pytest.raises(ValueError, match="text must be a str, got 'list'"):
        signaware.signed_latents(model, sae, wrong)
    with pytest.raises(ValueError, match="texts must be a list of texts, got 'a str'"):
        signaware.text_activations(model, "w1 w2", [HOOK])
    wrong = "x"
    with pytest.raises(ValueError, match="sae must be an SAE of SAELens, got 'str'"):
        signaware.antipodal_audit(wrong)


def test_half_a_surrogate_pair_is_one_line() -> None:
    model, sae, half = hooked_transformer(), hooked_sae(), "w1 \ud83d w2"
    with pytest.raises(ValueError, match=r"^text must be Unicode, got 'w1 \\ud83d w2': half of"):
        signaware.signed_latents(model, sae, half)
    with pytest.raises(ValueError, match=r"^text 2 must be Unicode, got 'w1 \\ud83d w2': half of"):
        signaware.text_activations(model, ["w1", half], [HOOK])


def test_a_hook_that_a_model_of_transformers_lacks_is_named() -> None:
    line = r"hook_name: the model has no hook 'transformer\.h\.1\.mlp'; did you mean '.*h\.0\.mlp'"
    with pytest.raises(ValueError, match=line):
        signaware.text_activations(proxy_model(), ["w1 w2"], ["transformer.h.1.mlp"])
