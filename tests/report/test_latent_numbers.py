"""Numbers of the pages of latents: against products and counts by hand, and the measures."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation.histograms import Histogram, activation_histograms
from sae_lens_signaware.evaluation.logits import TopLogits, top_logits, unembedding_of
from sae_lens_signaware.experiments.sweep.latent_pages import (
    _dial_sizes,
    audit_pairs,
    pages_without_dials,
)
from sae_lens_signaware.experiments.sweep.latent_results import SAELatents
from tests.report.pages import sae_latents
from tests.support.defaults import default_dtype
from tests.support.models import HOOK, hooked_transformer, prompt_ids, tiny_gpt2, tiny_tokenizer
from tests.support.saes import D_IN, each_variant, make_sae, plain_with_pairs


def transformer_lens(W_U: list[list[float]]) -> Any:
    """A model of which only the unembedding, (d_model, vocabulary), and the tokenizer are known."""
    return SimpleNamespace(W_U=torch.tensor(W_U), tokenizer=tiny_tokenizer())


def decoder(rows: list[list[float]]) -> Any:
    sae = StandardSAE(StandardSAEConfig(d_in=len(rows[0]), d_sae=len(rows)))
    sae.W_dec.data = torch.tensor(rows)
    return sae


def test_top_logits_are_those_of_the_product_by_hand() -> None:
    model = transformer_lens([[1.0, -2.0, 0.0, 0.5], [3.0, 1.0, 0.0, -1.0]])
    sae = decoder([[9.0, 9.0], [2.0, -1.0]])
    # 2 * row 0 - 1 * row 1 of the unembedding: -1, -5, 0, 2
    (found,) = top_logits(model, sae, [1], k=3) or [None]
    assert found == TopLogits(
        pos=(("w3", 2.0), ("w2", 0.0), ("w0", -1.0)), neg=(("w1", 5.0), ("w0", 1.0), ("w2", 0.0))
    )
    # no more tokens than there are
    (every,) = top_logits(model, sae, [0], k=99) or [None]
    assert every is not None
    assert [token for token, _ in every.pos] == ["w0", "w2", "w3", "w1"]


def test_the_weight_of_the_final_norm_is_in_the_product() -> None:
    head = SimpleNamespace(weight=torch.tensor([[1.0, 1.0], [0.0, 3.0]]))
    norm = torch.nn.RMSNorm(2, eps=0.0)
    norm.weight.data = torch.tensor([10.0, 1.0])
    inner = SimpleNamespace(get_output_embeddings=lambda: head, model=SimpleNamespace(norm=norm))
    model: Any = SimpleNamespace(model=inner, tokenizer=tiny_tokenizer())
    (found,) = top_logits(model, decoder([[1.0, 1.0]]), [0], k=1) or [None]
    assert found == TopLogits(pos=(("w0", 11.0),), neg=(("w1", -3.0),))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_another_default_dtype_gives_the_same_logits(dtype: torch.dtype) -> None:
    head = torch.nn.Linear(2, 2, bias=False)
    inner = SimpleNamespace(
        get_output_embeddings=lambda: head, model=SimpleNamespace(norm=torch.nn.RMSNorm(2))
    )
    model: Any = SimpleNamespace(model=inner, tokenizer=tiny_tokenizer())
    sae = decoder([[1.0, -2.0]])
    expected = top_logits(model, sae, [0], k=2)
    with default_dtype(dtype):
        assert top_logits(model, sae, [0], k=2) == expected


D = 32


def tiny_hooked(normalization: str) -> Any:
    cfg = HookedTransformerConfig(
        n_layers=1, d_model=D, n_ctx=16, d_head=16, n_heads=2, d_vocab=50, act_fn="gelu",
        normalization_type=normalization,
    )  # fmt: skip
    model = HookedTransformer(cfg)
    return model, model.ln_final, model.W_U.detach().T


def tiny_transformers(config: Any, model_class: Any, norm: str) -> Any:
    model = model_class(config).eval()
    head = model.get_output_embeddings().weight.detach()
    return SimpleNamespace(model=model), model.get_submodule(norm), head


SIZES = {"vocab_size": 50, "hidden_size": D, "num_hidden_layers": 1, "num_attention_heads": 2}
MODELS = {
    "hooked-LN": lambda: tiny_hooked("LN"),
    "hooked-LNPre": lambda: tiny_hooked("LNPre"),
    "hooked-RMS": lambda: tiny_hooked("RMS"),
    "llama": lambda: tiny_transformers(
        LlamaConfig(intermediate_size=64, **SIZES), LlamaForCausalLM, "model.norm"
    ),
    "gemma3": lambda: tiny_transformers(
        Gemma3TextConfig(intermediate_size=64, num_key_value_heads=1, head_dim=16, **SIZES),
        Gemma3ForCausalLM,
        "model.norm",
    ),
    "neox": lambda: tiny_transformers(
        GPTNeoXConfig(intermediate_size=64, **SIZES),
        GPTNeoXForCausalLM,
        "gpt_neox.final_layer_norm",
    ),
    "gpt2": lambda: tiny_transformers(
        GPT2Config(vocab_size=50, n_embd=D, n_layer=1, n_head=2),
        GPT2LMHeadModel,
        "transformer.ln_f",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_direction_s_logits_are_what_the_real_norm_and_unembedding_give(name: str) -> None:
    torch.manual_seed(0)
    model, norm, unembedding = MODELS[name]()
    for parameter in norm.parameters():
        parameter.data += 0.5 * torch.randn(D)
    found = unembedding_of(model, D)
    assert found is not None
    direction, x = torch.randn(2, D, dtype=torch.float64)
    # where x is centred and at a right angle to the direction, its scale does not change along it
    x, centred = x - x.mean(), direction - direction.mean()
    x -= (x @ centred) / (centred @ centred) * centred
    norm, step = norm.double(), 1e-2
    ends = norm(torch.stack([x + step * direction, x - step * direction])[None])[0].double()
    change = (ends[0] - ends[1]) / (2 * step) * x.square().mean().sqrt()
    torch.testing.assert_close(
        found.double() @ direction, unembedding.double() @ change, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_logits_of_a_model_of_another_dtype(dtype: torch.dtype) -> None:
    model, sae = hooked_transformer(), make_sae("bi_jumprelu")
    (expected,) = top_logits(model, sae, [5], k=1) or [None]
    (found,) = top_logits(model.to(dtype), sae, [5], k=1) or [None]
    assert found is not None
    assert expected is not None
    assert found.pos[0][0] == expected.pos[0][0]
    assert found.pos[0][1] == pytest.approx(expected.pos[0][1], rel=0.02)


def test_a_model_whose_final_norm_is_not_found_has_no_logits() -> None:
    model, _, _ = MODELS["llama"]()
    model.model.model.norm = None
    assert unembedding_of(model, D) is None


def test_no_logits_without_an_unembedding_of_the_sae_s_width() -> None:
    hidden: Any = SimpleNamespace(tokenizer=tiny_tokenizer())
    assert top_logits(hidden, decoder([[1.0, 1.0]]), [0]) is None
    model = transformer_lens([[1.0, 2.0]])
    assert unembedding_of(model, 1) is not None
    assert top_logits(model, decoder([[1.0, 1.0]]), [0]) is None
    transformers: Any = SimpleNamespace(model=tiny_gpt2(), tokenizer=tiny_tokenizer())
    assert unembedding_of(transformers, D_IN) is not None


@pytest.mark.parametrize("hook", ["blocks.0.attn.hook_z", "model.layers.0.self_attn.q_proj"])
def test_no_logits_of_what_is_inside_of_attention(hook: str) -> None:
    model, sae = transformer_lens([[1.0, 2.0], [0.5, 1.0]]), decoder([[1.0, 1.0]])
    sae.cfg.metadata.hook_name = "blocks.0.hook_attn_out"
    assert top_logits(model, sae, [0], k=1) is not None
    sae.cfg.metadata.hook_name = hook  # of the same width
    assert top_logits(model, sae, [0], k=1) is None


def test_counts_by_hand() -> None:
    values = torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 0.0], [-2.0, 0.0], [-4.0, 0.0], [3.5, 0]])
    sae = make_sae("sa_gsae", d_in=2, d_sae=2)
    for name, param in sae.named_parameters():  # it encodes its input to itself
        param.data = torch.eye(2) if name.startswith("W_") else torch.zeros_like(param)
    some, none = activation_histograms(sae, [values[:4], values[4:]], [0, 1], n_bins=4)
    # the largest size is 4, so a bin is 1 wide: 0.5 and 1 (on its edge), -, -, 3.5 against 2, 4
    assert some == Histogram(1.0, pos=(2, 0, 0, 1), neg=(0, 1, 0, 1))
    assert none == Histogram(0.0, pos=(0,) * 4, neg=(0,) * 4)


@each_variant
def test_every_firing_is_in_one_bin(architecture: str, tying: str) -> None:
    sae = make_sae(architecture, tying)
    x = torch.randn(300, D_IN, generator=torch.Generator().manual_seed(0))
    z = sae.encode(x)
    latents = (z != 0).any(0).nonzero().squeeze(1).tolist()[2::-1]  # three active ones
    assert len(latents) == 3
    for latent, one in zip(latents, activation_histograms(sae, x, latents), strict=True):
        column = z[:, latent]
        assert sum(one.pos) == int((column > 0).sum())
        assert sum(one.neg) == int((column < 0).sum())
        assert one.width * 24 == pytest.approx(column.abs().max().item())
        assert one.pos[-1] + one.neg[-1] > 0


def test_the_sizes_of_a_dial_are_those_of_the_median_latent() -> None:
    # a latent of energy 0.4 that fires on every tenth token writes 2 there
    energy = torch.tensor([90.0, 0.4, 0.1], dtype=torch.float64)
    assert _dial_sizes(energy) == pytest.approx((1.0, 2.0, 4.0, 8.0))


def test_a_page_has_the_numbers_of_its_latent() -> None:
    sae, heldout = make_sae("sa_gsae", "none"), torch.randn(300, D_IN)
    sae.cfg.metadata.hook_name = HOOK
    analysis = signaware.analyze_sae(sae, heldout)
    cfg: Any = SimpleNamespace(exclude_special_tokens=True, seqpos_slice=(None,))
    pages = pages_without_dials(
        hooked_transformer(), sae, analysis, [5, 9], heldout, prompt_ids(8), n_contexts=2, cfg=cfg
    )
    of_census = ["firing_rate_pos", "firing_rate_neg", "energy_pos", "energy_neg", "min_share"]
    for page, latent in zip(pages, (5, 9), strict=True):
        for name in of_census:
            assert getattr(page, name) == getattr(analysis.census, name)[latent].item(), name
        assert page.energy_pos != page.energy_neg
        gains = analysis.calibration.gain_pos, analysis.calibration.gain_neg
        assert [page.gain_pos, page.gain_neg] == [gain[latent].item() for gain in gains]
        assert page.gain_pos != page.gain_neg


def test_what_merging_pairs_would_free_is_counted() -> None:
    counts = audit_pairs(*plain_with_pairs())
    assert counts["-0.9"] == {
        "n_pairs": 4,
        "freed_width": 2,
        "n_pairs_that_fire_together": 2,
    }


def test_files_with_and_without_the_new_fields_are_read(tmp_path: Path) -> None:
    written = sae_latents(0, 0)
    assert written.pages[0].top_logits is not None
    assert written.pages[0].histogram is not None
    written.write(tmp_path / "new.json")
    assert SAELatents.read(tmp_path / "new.json") == written
    values = json.loads((tmp_path / "new.json").read_text())
    del values["special_tokens"]
    for page in values["pages"]:
        del page["top_logits"], page["histogram"]
    (tmp_path / "old.json").write_text(json.dumps(values))
    bare = [dataclasses.replace(p, top_logits=None, histogram=None) for p in written.pages]
    old = SAELatents.read(tmp_path / "old.json")
    assert old == dataclasses.replace(written, pages=tuple(bare), special_tokens=())
    values["pages"][0]["top_logits"] = {"pos": []}
    (tmp_path / "bad.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="not the latents of an SAE"):
        SAELatents.read(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("place", "field"),
    [
        (("histogram", "pos", 0), "pos"),
        (("histogram", "width"), "width"),
        (("top_logits", "neg", 0, 1), "neg"),
        (("examples_pos", 0, "tokens", 0), "tokens"),
        (("examples_pos", 0, "activations", 0), "activations"),
        (("examples_pos", 0, "peak"), "peak"),
    ],
)
def test_a_wrong_type_inside_a_page_is_named(
    place: tuple[Any, ...], field: str, tmp_path: Path
) -> None:
    sae_latents(0, 0).write(tmp_path / "x.json")
    values = json.loads((tmp_path / "x.json").read_text())
    held = values["pages"][0]
    for key in place[:-1]:
        held = held[key]
    held[place[-1]] = {"a": 1}
    (tmp_path / "x.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"not the latents of an SAE: {field} must be"):
        SAELatents.read(tmp_path / "x.json")
