"""Examples and logits of latents, of a signed SAE and of a plain one, against slow references."""

from typing import Any

import pytest
import torch
from sae_lens import SAE
from sae_lens.load_model import load_model
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

from sae_lens_signaware.evaluation import (
    signed_latents,
    text_activations,
    top_examples,
)
from sae_lens_signaware.report.latents import LatentPages, latent_pages
from sae_lens_signaware.report.logits import top_logits
from sae_lens_signaware.saes import BiTopKSAE, BiTopKSAEConfig

HOOK, D_IN, D_SAE, EOS = "transformer.h.0.mlp", 16, 12, 63


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return load_model("AutoModelForCausalLM", str(tiny_model), "cpu", {}, [HOOK])


@pytest.fixture(params=["signed", "plain"])
def sae(request: pytest.FixtureRequest) -> SAE[Any]:
    fields: dict[str, Any] = {"d_in": D_IN, "d_sae": D_SAE, "k": 3}
    signed = request.param == "signed"
    made: Any = BiTopKSAE(BiTopKSAEConfig(**fields)) if signed else TopKSAE(TopKSAEConfig(**fields))
    for parameter in made.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(len(parameter)))
    made.cfg.metadata.hook_name = HOOK
    return made


@pytest.fixture
def tokens() -> torch.Tensor:
    """Ten prompts; 3 is a copy of 2, and all begin with a special token."""
    found = torch.randint(EOS, (10, 9), generator=torch.Generator().manual_seed(4))
    found[:, 0], found[3] = EOS, found[2]
    found[3, 0] = EOS
    return found


def latents(model: Any, sae: SAE[Any], tokens: torch.Tensor) -> torch.Tensor:
    """(prompt, position, d_sae), by a torch hook on the module."""
    kept: list[torch.Tensor] = []
    module = model.model.get_submodule(HOOK)
    handle = module.register_forward_hook(lambda _m, _i, out: kept.append(out))
    with torch.no_grad():
        model.model(tokens)
        handle.remove()
        z = sae.encode(kept[0])
    return z.to_dense() if z.is_sparse else z


def test_examples_are_the_strongest_token_of_each_prompt(
    model: Any, sae: SAE[Any], tokens: torch.Tensor
) -> None:
    found = top_examples(model, sae, tokens, k=4, window=(2, 1))
    z = latents(model, sae, tokens)
    assert found.n_tokens == 9 * 8
    for latent in range(D_SAE):
        of = found.of(latent)
        for sign, contexts in ((1, of.pos), (-1, of.neg)):
            peaks = (sign * z[:, 1:, latent]).max(1)  # the first token is a special one
            strong = [(v, i, j + 1) for i, (v, j) in enumerate(zip(*peaks, strict=True))]
            strong = [s for s in strong if s[0] > 0 and s[1] != 3]  # prompt 3 was there before
            strong = sorted(strong, key=lambda s: -float(s[0]))[:4]
            assert [(c.prompt, c.position) for c in contexts] == [(i, int(j)) for _, i, j in strong]
            for context, (value, i, j) in zip(contexts, strong, strict=True):
                assert context.value == pytest.approx(sign * float(value), abs=1e-5)
                around = range(max(0, int(j) - 2), min(9, int(j) + 2))
                words = ["<eos>" if t == EOS else f"w{t}" for t in tokens[i, around].tolist()]
                assert list(context.tokens) == words
                assert context.activations == pytest.approx(z[i, around, latent].tolist(), abs=1e-5)
    is_signed = isinstance(sae, BiTopKSAE)
    assert any(e.neg for e in found.latents) == is_signed
    with pytest.raises(KeyError, match="latent 99"):
        found.of(99)


def test_signed_latents_of_a_text(model: Any, sae: SAE[Any]) -> None:
    found = signed_latents(model, sae, "w5 w7 w7 w9", k=2)
    z = latents(model, sae, torch.tensor([[EOS, 5, 7, 7, 9]]))[0, 1:]
    assert found.tokens == ("w5", "w7", "w7", "w9")
    for pairs, row in zip(found.latents, z, strict=True):
        order = row.abs().argsort(descending=True)[:2].tolist()
        order = [i for i in order if row[i] != 0]
        assert [i for i, _ in pairs] == order
        assert [v for _, v in pairs] == pytest.approx(row[order].tolist(), abs=1e-5)
    chosen = signed_latents(model, sae, "w5", latents=[3, 1])
    assert {i for i, _ in chosen.latents[0]} <= {1, 3}


def test_logits_of_each_side(model: Any, sae: SAE[Any]) -> None:
    norm = model.model.transformer.ln_f
    norm.weight.data.uniform_(0.5, 2, generator=torch.Generator().manual_seed(0))
    rescales = getattr(sae.cfg, "rescale_acts_by_decoder_norm", False)
    found = top_logits(model, sae, [1, 4], k=3)
    assert found is not None
    for top, latent in zip(found, [1, 4], strict=True):
        d = sae.W_dec[latent].detach()
        d = d / d.norm() if rescales else d
        d = (d - d.mean()) / d.std(correction=0)
        logits = model.model.lm_head.weight.detach() @ (norm.weight.detach() * d)
        for pairs, signed in ((top.pos, logits), (top.neg, -logits)):
            values, ids = signed.topk(3)
            assert [t for t, _ in pairs] == ["<eos>" if i == EOS else f"w{i}" for i in ids.tolist()]
            assert [v for _, v in pairs] == pytest.approx(values.tolist(), rel=1e-3)
    sae.cfg.metadata.hook_name = "blocks.0.attn.hook_z"
    assert top_logits(model, sae, [1]) is None


def test_pages_hold_what_the_measures_give(
    model: Any, sae: SAE[Any], tokens: torch.Tensor, tmp_path: Any
) -> None:
    z = latents(model, sae, tokens)[:, 1:]
    most_active = (z != 0).sum((0, 1)).argsort(descending=True)[:2].tolist()
    pages = latent_pages(sae, model, tokens, most_active, "name", n_contexts=2)
    for page in pages.pages:
        own = z[..., page["latent"]]
        assert page["firing_rate_pos"] == pytest.approx((own > 0).float().mean().item())
        assert page["firing_rate_neg"] == pytest.approx((own < 0).float().mean().item())
        assert sum(page["histogram"]["counts"]) == (own != 0).sum()
        assert page["dial"]["metric"][4] == 0
        assert len(page["logits_pos"]) == 10
    pages.write(tmp_path / "pages.json")
    assert LatentPages.read(tmp_path / "pages.json").pages == pages.pages
    sae.W_enc.data[:, most_active[0]] = 0  # dead now, beside one that fires
    beside = latent_pages(sae, model, tokens, most_active, "name").pages
    assert [page["dial"] is not None for page in beside] == [False, True]


def test_activations_of_texts_are_those_of_each_run_alone(model: Any) -> None:
    texts = ["w1 w2 w3", "w4", "w1 w2 w3", "w5 w6 w7 w8"]
    (found,) = text_activations(model, texts, [HOOK], context_size=4)
    assert found.n_tokens_of.tolist() == [3, 1, 3, 3]
    assert found.distinct_texts() == [0, 1, 0, 2]
    for text, own in zip(texts, found.activations.split([3, 1, 3, 3]), strict=True):
        (alone,) = text_activations(model, [text], [HOOK], context_size=4)
        torch.testing.assert_close(own, alone.activations)


@pytest.mark.parametrize("sae", ["signed"], indirect=True)
def test_bad_input_names_its_field(model: Any, sae: SAE[Any], tokens: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="latents"):
        top_examples(model, sae, tokens, latents=[D_SAE])
    with pytest.raises(ValueError, match="tokens"):
        top_examples(model, sae, tokens.float())
    with pytest.raises(ValueError, match="tokens"):
        top_examples(model, sae, torch.full((2, 3), EOS))
    with pytest.raises(ValueError, match="text"):
        signed_latents(model, sae, "")
    with pytest.raises(ValueError, match="text 2"):
        text_activations(model, ["w1", "<eos>"], [HOOK])
    sae.cfg.metadata.hook_name = "transformer.h.0.mpl"
    with pytest.raises(ValueError, match=f"hook_name.*{HOOK}"):
        top_examples(model, sae, tokens)
    sae.cfg.metadata.hook_name = None
    with pytest.raises(ValueError, match="hook_name"):
        signed_latents(model, sae, "w1")
