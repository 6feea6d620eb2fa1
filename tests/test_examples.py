"""Top contexts of each side: against a search by hand, over stores, tokens and architectures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.text import Text as RichText
from sae_lens import SAE, ActivationsStore
from sae_lens.registry import get_sae_class
from transformer_lens import HookedTransformer

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation.examples import Context, _TopWindows
from sae_lens_signaware.evaluation.models import token_text
from tests.support.defaults import default_dtype
from tests.support.models import (
    EOS,
    HOOK,
    hooked_transformer,
    prompt_ids,
    tiny_model_config,
    tiny_tokenizer,
    tokens,
)
from tests.support.saes import D_IN, each_variant, make_sae


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return hooked_transformer()


def hooked_sae(architecture: str = "sa_gsae", tying: str = "full", hook: str = HOOK) -> Any:
    sae = make_sae(architecture, tying)
    sae.cfg.metadata.hook_name = hook
    sae.cfg.metadata.prepend_bos = False
    return sae


def by_hand(model: Any, sae: Any, ids: torch.Tensor, latent: int, sign: int) -> list[Any]:
    """(value, prompt, position) of the strongest token of every prompt, strongest first."""
    z = sign * sae.encode(model.run_with_cache(ids)[1][HOOK])[..., latent]
    z[ids == EOS] = 0
    peaks = []
    for prompt, row in enumerate(z.tolist()):
        value = max(row)
        if value > 0:
            peaks.append((value, prompt, row.index(value)))
    return sorted(peaks, key=lambda t: -t[0])


@each_variant
def test_examples_are_those_of_a_search_by_hand(
    architecture: str, tying: str, model: HookedTransformer
) -> None:
    sae, prompts = hooked_sae(architecture, tying), prompt_ids(20)
    top = signaware.top_examples(
        model, sae, prompts, [5, 0, 9], k=4, batch_size_prompts=3, window=(2, 1)
    )
    assert [e.latent for e in top.latents] == [5, 0, 9]
    assert top.n_tokens == 20 * 15
    assert sum(len(e.neg) for e in top.latents) > 0
    for examples in top.latents:
        for sign, contexts in ((1, examples.pos), (-1, examples.neg)):
            expected = by_hand(model, sae, prompts, examples.latent, sign)[:4]
            assert [(c.prompt, c.position) for c in contexts] == [peak[1:] for peak in expected]
            for context, (value, prompt, position) in zip(contexts, expected, strict=True):
                assert context.value == pytest.approx(sign * value, rel=1e-5)
                window = prompts[prompt, max(0, position - 2) : position + 2].tolist()
                assert context.tokens == tuple("<eos>" if i == EOS else f"w{i}" for i in window)
                assert context.peak == min(2, position)
                z = sae.encode(model.run_with_cache(prompts[prompt])[1][HOOK])[0]
                z = z[max(0, position - 2) : position + 2, examples.latent]
                torch.testing.assert_close(torch.tensor(context.activations), z.detach())


def store_of(model: HookedTransformer, sae: SAE[Any]) -> ActivationsStore:
    return ActivationsStore.from_sae(
        model, sae, tokens(), context_size=16, store_batch_size_prompts=4, streaming=False
    )


def test_a_store_gives_what_its_tokens_give(model: HookedTransformer) -> None:
    sae = hooked_sae()

    def store() -> ActivationsStore:
        return store_of(model, sae)

    top = signaware.top_examples(model, sae, store(), k=3, n_batches=5, batch_size_prompts=4)
    source = store()
    prompts = torch.cat([source.get_batch_tokens(4) for _ in range(5)])
    assert len(top.latents) == sae.cfg.d_sae
    assert top.latents == signaware.top_examples(model, sae, prompts, k=3).latents


def test_a_text_that_starts_anew_gives_no_prompt_twice(model: HookedTransformer) -> None:
    sae = hooked_sae()
    store = ActivationsStore.from_sae(
        model, sae, tokens(12), context_size=16, store_batch_size_prompts=4, streaming=False
    )
    top = signaware.top_examples(model, sae, store, k=30, n_batches=9, batch_size_prompts=4)
    assert 4 * 16 <= top.provenance.n_tokens <= 12 * 16
    for examples in top.latents:
        for side in (examples.pos, examples.neg):
            assert len({tuple(context.tokens) for context in side}) == len(side)


@pytest.mark.parametrize("part", [(4,), (2, 9), (3, None), (-6, -1), (1, 12, 3)])
def test_positions_are_those_in_the_prompt_where_a_store_cuts_it(
    part: tuple[int | None, ...], model: HookedTransformer
) -> None:
    sae = hooked_sae()
    store = ActivationsStore.from_sae(
        model, sae, tokens(), context_size=16, store_batch_size_prompts=4, streaming=False
    )
    source = store.get_batch_tokens(4)
    store = ActivationsStore.from_sae(
        model, sae, tokens(), context_size=16, store_batch_size_prompts=4, streaming=False
    )
    store.seqpos_slice = part
    top = signaware.top_examples(
        model, sae, store, k=3, n_batches=1, batch_size_prompts=4, exclude_special_tokens=False
    )
    z = sae.encode(model.run_with_cache(source)[1][HOOK])
    contexts = [(e.latent, c) for e in top.latents for c in e.pos + e.neg]
    assert len(contexts) > 10
    for latent, context in contexts:
        assert context.position in range(16)[slice(*part)]
        value = z[context.prompt, context.position, latent].item()
        assert context.value == pytest.approx(value, rel=1e-4)
        word = model.tokenizer.decode([source[context.prompt, context.position].item()])
        assert context.tokens[context.peak] == word


@pytest.mark.parametrize("part", [(4,), (2, 9), (-6, -1)])
def test_peaks_of_token_ids_may_be_of_some_positions_and_tokens_alone(
    part: tuple[int | None, ...], model: HookedTransformer
) -> None:
    sae, ids = hooked_sae(), prompt_ids(12)
    left_out = ids[:, 5].unique().tolist()
    top = signaware.top_examples(
        model, sae, ids, exclude_special_tokens=left_out, seqpos_slice=part
    )
    z = sae.encode(model.run_with_cache(ids)[1][HOOK]).detach()
    z[torch.isin(ids, torch.tensor(left_out))] = 0
    kept = z[:, slice(*part)]
    for examples in top.latents:
        strongest = [c[0].value if c else 0.0 for c in (examples.pos, examples.neg)]
        of_latent = kept[..., examples.latent]
        expected = [of_latent.max().clamp_min(0).item(), of_latent.min().clamp_max(0).item()]
        assert strongest == pytest.approx(expected, rel=1e-4)


def test_what_is_kept_does_not_grow_with_the_corpus() -> None:
    top = _TopWindows(6, k=2, window=(3, 3), device=torch.device("cpu"))

    def kept() -> int:
        return sum(v.numel() for v in vars(top).values() if isinstance(v, torch.Tensor))

    before = kept()
    for _ in range(20):
        zeros = torch.zeros(5, 9, dtype=torch.int64)
        top.add(zeros, torch.randn(5, 9, 6), torch.ones(5, 9) > 0, zeros)
    assert kept() == before
    assert top.n_prompts == 100


def test_of_equal_peaks_the_earlier_prompt_stays() -> None:
    top = _TopWindows(2, k=2, window=(0, 0), device=torch.device("cpu"))
    for peaks in ([1.0, 3.0], [3.0, 2.0, 3.0]):
        zeros = torch.zeros(len(peaks), 1, dtype=torch.int64)
        z = torch.tensor(peaks)[:, None, None] * torch.tensor([1.0, -1.0])
        top.add(zeros, z, zeros == 0, zeros)
    for latent, side in ((0, 0), (1, 1)):
        assert top.strength[latent, side].tolist() == [3.0, 3.0]
        assert top.prompt[latent, side].tolist() == [1, 2]  # of 1, 2 and 4


@pytest.mark.parametrize("architecture", ["abstopk", "gated", "jumprelu", "topk", "standard"])
def test_any_saelens_sae(architecture: str, model: HookedTransformer) -> None:
    sae_class, config_class = get_sae_class(architecture)
    more = {"k": 4} if "topk" in architecture else {}
    sae: SAE[Any] = sae_class(config_class(d_in=D_IN, d_sae=24, **more))  # type: ignore[call-arg]
    sae.cfg.metadata.hook_name = HOOK
    top = signaware.top_examples(model, sae, prompt_ids(20), k=2)
    assert any(e.pos for e in top.latents)
    assert any(e.neg for e in top.latents) == (architecture == "abstopk")


def test_hook_z_and_special_tokens(model: HookedTransformer) -> None:
    sae = hooked_sae(hook="blocks.0.attn.hook_z")
    sae.turn_on_forward_pass_hook_z_reshaping()
    top = signaware.top_examples(model, sae, prompt_ids(20), k=20)
    assert sae.hook_z_reshaping_mode
    assert all(c.position > 0 for e in top.latents for c in e.pos + e.neg)
    every = signaware.top_examples(model, sae, prompt_ids(20), k=20, exclude_special_tokens=False)
    assert every.n_tokens == 320
    assert any(c.position == 0 for e in every.latents for c in e.pos + e.neg)


def test_examples_read_back_and_print(model: HookedTransformer, tmp_path: Path) -> None:
    top = signaware.top_examples(model, hooked_sae(), prompt_ids(20), [2, 3], k=2)
    top.write(tmp_path / "examples.json")
    again = signaware.TopExamples.read(tmp_path / "examples.json")
    assert again == top
    (tmp_path / "wrong.json").write_text('{"provenance": {}}')
    with pytest.raises(ValueError, match="not a TopExamples"):
        signaware.TopExamples.read(tmp_path / "wrong.json")
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    console.print(top.table(2))
    text = console.export_text()
    assert f"{top.of(2).neg[0].value:+.3f}" in text
    examples = top.of(2)
    assert examples.pos
    assert examples.neg
    signs, values, contexts = (list(column.cells) for column in top.table(2).columns)
    assert signs == ["+"] * len(examples.pos) + ["-"] * len(examples.neg)
    both = [*examples.pos, *examples.neg]
    assert values == [f"{context.value:+.3f}" for context in both]
    for shown, context in zip(contexts, both, strict=True):
        assert isinstance(shown, RichText)
        (bold,) = [span for span in shown.spans if "bold" in str(span.style)]
        assert shown.plain[bold.start : bold.end] == context.tokens[context.peak]
    n = sum(len(e.pos) + len(e.neg) for e in top.latents)
    assert top._summary() == {"latents": 2, "contexts": n}
    with pytest.raises(KeyError):
        top.of(7)


def test_tokens_that_look_like_markup_or_control_a_terminal_stay_text(tmp_path: Path) -> None:
    context = Context(("[bold]", "</bold>\n", "\x1b[2J\x9b"), (1.0, 0.0, 0.0), 0, 0, 0)
    examples = signaware.evaluation.examples.LatentExamples(0, (context,), ())
    top = signaware.TopExamples(None, (examples,), 1)  # type: ignore[arg-type]
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
    console.print(top.table(0))
    assert "[bold]</bold>⏎␛[2J�" in console.export_text()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"latents": [24]}, "latents must be from 0 to 23, got 24"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"n_batches": 0}, "n_batches must be at least 1, got 0"),
        ({"batch_size_prompts": 0}, "batch_size_prompts must be at least 1, got 0"),
        ({"window": (-1, 3)}, "window must be"),
        ({"source": torch.zeros(0, 4, dtype=torch.int64)}, "tokens must be"),
        ({"source": torch.zeros(4, dtype=torch.int64)}, "tokens must be"),
    ],
)
def test_wrong_input(kwargs: Any, message: str, model: HookedTransformer) -> None:
    args = {"source": prompt_ids(20), **kwargs}
    with pytest.raises(ValueError, match=message):
        signaware.top_examples(model, hooked_sae(), **args)


def test_a_store_of_another_width_is_named(model: HookedTransformer) -> None:
    sae, store = hooked_sae(), store_of(model, hooked_sae())
    narrow = make_sae("sa_gsae", d_in=sae.cfg.d_in - 1)
    narrow.cfg.metadata = sae.cfg.metadata
    with pytest.raises(ValueError, match=rf"^width of .* must be {narrow.cfg.d_in}, the SAE's"):
        signaware.top_examples(model, narrow, store, [1])


def test_tokens_that_are_not_contiguous_are_taken(model: HookedTransformer) -> None:
    expected = signaware.top_examples(model, hooked_sae(), prompt_ids(20), [2, 3])
    by_position = prompt_ids(20).T.contiguous().T
    assert signaware.top_examples(model, hooked_sae(), by_position, [2, 3]) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_default_dtype_changes_nothing(
    dtype: torch.dtype, model: HookedTransformer
) -> None:
    expected = signaware.top_examples(model, hooked_sae(), prompt_ids(20), [2, 3])
    sae, source = hooked_sae(), prompt_ids(20)
    with default_dtype(dtype):
        found = signaware.top_examples(model, sae, source, [2, 3])
    assert found == expected


def test_not_finite_and_no_tokenizer() -> None:
    model = HookedTransformer(tiny_model_config())
    with pytest.raises(ValueError, match=r"model\.tokenizer must be a tokenizer"):
        signaware.top_examples(model, hooked_sae(), prompt_ids(20))
    model.tokenizer = tiny_tokenizer()
    with torch.no_grad():
        model.blocks[0].mlp.b_out.fill_(float("nan"))
    with pytest.raises(ValueError, match="activations must be finite"):
        signaware.top_examples(model, hooked_sae(), prompt_ids(20))


def test_token_ids_may_be_of_32_bits(model: HookedTransformer) -> None:
    sae, prompts = hooked_sae(), prompt_ids(6)
    wide, narrow = (
        signaware.top_examples(model, sae, ids, [5], k=2).latents
        for ids in (prompts, prompts.int())
    )
    assert wide == narrow


def test_a_prompt_that_was_there_before_gives_no_context(model: HookedTransformer) -> None:
    sae, prompts = hooked_sae(), prompt_ids(6)
    once = signaware.top_examples(model, sae, prompts, [5, 9], k=4, batch_size_prompts=4)
    twice = prompts.repeat(3, 1)
    again = signaware.top_examples(model, sae, twice, [5, 9], k=4, batch_size_prompts=4)
    assert again.to_dict()["latents"] == once.to_dict()["latents"]
    assert again.n_tokens == once.n_tokens


def test_the_space_before_a_word_is_kept() -> None:
    class Stripping:
        """As decoders of Llama 2: of one token the space before it goes."""

        def decode(self, ids: list[int], **_: bool) -> str:
            return ["w", "ing", "", " "][ids[0]]

        def convert_ids_to_tokens(self, token: int) -> str:
            return ["▁w", "ing", "▁", "▁▁"][token]

    tokenizer: Any = Stripping()
    assert [token_text(tokenizer, i) for i in range(4)] == [" w", "ing", " ", "  "]


def test_the_space_before_punctuation_is_kept() -> None:
    class CleaningUp:
        """As decoders of transformers 4, which do so where nothing else is asked for."""

        def decode(self, ids: list[int], clean_up_tokenization_spaces: bool = True) -> str:
            text = [" .", " w"][ids[0]]
            return text.replace(" .", ".") if clean_up_tokenization_spaces else text

        def convert_ids_to_tokens(self, token: int) -> str:
            return ["Ġ.", "Ġw"][token]

    tokenizer: Any = CleaningUp()
    assert [token_text(tokenizer, i) for i in range(2)] == [" .", " w"]


def test_a_side_has_8_contexts_of_16_tokens_before_and_8_after(model: HookedTransformer) -> None:
    sae, prompts = hooked_sae(), prompt_ids(40)[:, :1].repeat(1, 30)
    prompts[:, 1:] = torch.randint(0, 60, (40, 29), generator=torch.Generator().manual_seed(0))
    top = signaware.top_examples(model, sae, prompts, [5])
    asked = signaware.top_examples(model, sae, prompts, [5], k=8, window=(16, 8))
    assert top == asked
    lengths = {(c.peak, len(c.tokens) - c.peak - 1, c.position) for c in top.latents[0].pos}
    assert all(before == min(16, at) for before, _, at in lengths)
    assert all(after == min(8, 29 - at) for _, after, at in lengths)
