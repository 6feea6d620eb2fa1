"""Opposition of the two sides of a latent, against one context at a time."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformer_lens import HookedTransformer

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.evaluation import opposition
from sae_lens_signaware.evaluation.effects import mean_prediction, side_effects
from sae_lens_signaware.evaluation.examples import Context
from sae_lens_signaware.evaluation.streaming import decoder_directions
from tests.support.models import HOOK, hooked_transformer, prompt_ids
from tests.support.saes import make_sae


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return hooked_transformer()


def hooked_sae(architecture: str = "sa_gsae") -> Any:
    sae = make_sae(architecture)
    sae.cfg.metadata.hook_name = HOOK
    return sae


@torch.no_grad()
def test_effects_are_those_of_one_context_at_a_time(model: HookedTransformer) -> None:
    sae, prompts = hooked_sae(), prompt_ids(30)
    found = signaware.top_examples(model, sae, prompts, [5], k=11).of(5)
    assert len(found.pos) == 11  # more than go at once
    q = mean_prediction(model, prompts)
    assert q.sum().item() == pytest.approx(1.0)
    effects, dialled = side_effects(model, sae, prompts, 5, found.pos, q, (1.0, -1.0))
    (alone,) = side_effects(model, sae, prompts, 5, found.pos, q, (1.0,))
    torch.testing.assert_close(alone, effects)
    none = side_effects(model, sae, prompts, 5, (), q, (1.0,))
    assert none.shape == (1, 0, len(q))
    raw = []
    for context in found.pos:
        row = prompts[context.prompt][None]
        z = sae.encode(model.run_with_cache(row)[1][HOOK])[0, context.position, 5]
        assert z.item() == pytest.approx(context.value, rel=1e-4)

        def log_p(added: torch.Tensor, row: Any = row, at: int = context.position) -> Any:
            def write(x: torch.Tensor, hook: Any) -> torch.Tensor:
                x = x.clone()
                x[0, at] += added
                return x

            logits = model.run_with_hooks(row, fwd_hooks=[(HOOK, write)])
            return logits[0, at].log_softmax(-1)

        written = context.value * decoder_directions(sae)[5]
        without = log_p(-written)
        raw.append((log_p(0 * written) - without, log_p(-2 * written) - without))
    for ours, theirs in ((effects, [a for a, _ in raw]), (dialled, [b for _, b in raw])):
        for i in (0, 10):
            for j in (0, 3):
                a, b = theirs[i], theirs[j]
                product = (q * (a - q @ a) * (b - q @ b)).sum()
                torch.testing.assert_close(ours[i] @ ours[j], product, atol=1e-6, rtol=1e-3)
    # a small dial does nearly the opposite, in the same contexts
    assert opposition.minus_cosine(effects.sum(0), dialled.sum(0)) > 0.5


@torch.no_grad()
def test_a_measurement_is_that_of_its_parts(model: HookedTransformer) -> None:
    sae, prompts, n_before = hooked_sae(), prompt_ids(30), 4
    examples = signaware.top_examples(model, sae, prompts, k=4).latents
    examples = [of for of in examples if len(of.pos) > 1 and len(of.neg) > 1][:3]
    latents = [of.latent for of in examples]
    assert len(latents) == 3
    found = signaware.side_opposition(model, sae, prompts, latents, k=4, n_before=n_before)
    q = model(prompts[:16]).softmax(-1).mean((0, 1))
    centre = model.W_E[prompts].mean((0, 1))

    def embedded(contexts: Any) -> torch.Tensor:
        ends = [(prompts[c.prompt], c.position) for c in contexts]
        rows = [model.W_E[row[max(0, at - n_before) : at]].mean(0) for row, at in ends]
        return torch.stack(rows) - centre

    def opposite(a: torch.Tensor, b: torch.Tensor) -> Any:
        cosine = torch.cosine_similarity(a.double().mean(0), b.double().mean(0), dim=0)
        return pytest.approx(-cosine.item(), abs=1e-5)

    means: dict[str, list[torch.Tensor]] = {"effects": [], "contexts": []}
    for i, of in enumerate(examples):
        both = side_effects(model, sae, prompts, of.latent, of.pos, q, (1.0, -1.0))
        (minus,) = side_effects(model, sae, prompts, of.latent, of.neg, q, (1.0,))
        before = embedded(of.pos), embedded(of.neg)
        assert found.opposition[i].item() == opposite(both[0], minus)
        assert found.dial[i].item() == opposite(*both)
        assert found.context_opposition[i].item() == opposite(*before)
        interval = opposition.opposition_of(*before)
        assert found.context_low[i].item() == pytest.approx(interval.low, abs=1e-5)
        assert found.context_high[i].item() == pytest.approx(interval.high, abs=1e-5)
        means["effects"] += [rows.double().mean(0) for rows in (both[0], minus)]
        means["contexts"] += [rows.double().mean(0) for rows in before]
    for null, of_sides in ((found.null, means["effects"]), (found.context_null, means["contexts"])):
        pairs = [(a, b) for a in range(6) for b in range(a) if a // 2 != b // 2]
        cosines = [torch.cosine_similarity(of_sides[a], of_sides[b], dim=0) for a, b in pairs]
        assert null == pytest.approx((-torch.stack(cosines)).quantile(0.95).item(), abs=1e-5)


def test_a_peak_at_the_start_has_no_context_before_it(model: HookedTransformer) -> None:
    embed = opposition._embedder(model, prompt_ids(4), n_before=4)
    at_start, later = (Context(("a",), (1.0,), 0, prompt=1, position=at) for at in (0, 3))
    assert embed([later]).isfinite().all()
    assert torch.equal(embed([at_start, later]), embed([later]))


def test_what_passes_and_what_is_shown_first(model: HookedTransformer) -> None:
    nan = math.nan
    found = dataclasses.replace(
        signaware.side_opposition(model, hooked_sae(), prompt_ids(30), [3, 5, 9, 11], k=4),
        opposition=torch.tensor([0.9, nan, 0.9, 0.6]),
        low=torch.tensor([0.3, nan, 0.5, 0.31]),
        context_opposition=torch.tensor([0.9, nan, 0.7, 0.9]),
        context_low=torch.tensor([0.4, nan, 0.5, 0.6]),
        null=0.3,
        context_null=0.5,
    )
    assert found.passes.tolist() == [False, False, True, True]
    summary = found._summary()
    assert (summary["passing"], summary["passing_by_context"]) == (2, 1)
    assert summary["mean_opposition"] == pytest.approx(0.8)
    assert list(found.table(3).columns[0].cells) == ["9", "11", "3"]
    assert list(found.table().columns[0].cells) == ["9", "11", "3", "5"]
    # one that is not known is last, also where all others are below 0
    below = dataclasses.replace(found, low=torch.tensor([-0.9, nan, -0.5, -1.0]))
    assert list(below.table().columns[0].cells) == ["9", "3", "11", "5"]


def test_a_row_is_the_opposition_its_interval_the_dial_and_the_contexts(
    model: HookedTransformer,
) -> None:
    found = dataclasses.replace(
        signaware.side_opposition(model, hooked_sae(), prompt_ids(30), [3, 5], k=4),
        opposition=torch.tensor([0.9, 0.8]),
        low=torch.tensor([0.5, 0.3]),
        high=torch.tensor([0.95, 0.85]),
        dial=torch.tensor([0.7, 0.6]),
        context_opposition=torch.tensor([-0.1, 0.2]),
    )
    columns = found.table().columns
    assert [column.header for column in columns] == ["latent", "opposition", "dial", "contexts"]
    assert [next(iter(column.cells)) for column in columns] == [
        *("3", "0.90 (0.50 to 0.95)", "0.70", "-0.10")
    ]
    assert found.n_tokens == 30 * 15  # the first of each prompt is a special token


@pytest.mark.parametrize("architecture", ["sa_gsae", "bi_jumprelu"])
def test_a_whole_measurement(architecture: str, model: HookedTransformer, tmp_path: Path) -> None:
    sae, prompts = hooked_sae(architecture), prompt_ids(30)
    found = signaware.side_opposition(model, sae, prompts, [0, 3, 5, 9], k=4)
    assert found.latents.tolist() == [0, 3, 5, 9]
    measured = ~found.opposition.isnan()
    assert measured.sum() >= 2
    for name in ("", "context_"):
        value = getattr(found, name + "opposition")[measured]
        low, high = (getattr(found, name + end)[measured] for end in ("low", "high"))
        assert (value.abs() <= 1).all()
        assert (low <= high).all()
    assert found.passes.tolist() == [bool(x > found.null) for x in found.low]
    again = signaware.side_opposition(model, sae, prompts, [0, 3, 5, 9], k=4)
    assert again.low.nan_to_num().equal(found.low.nan_to_num())
    found.write(tmp_path / "o.json")
    read = type(found).read(tmp_path / "o.json")
    assert read.n_before == found.n_before == 16
    assert read.opposition.nan_to_num().equal(found.opposition.nan_to_num())
    console = Console(width=100, record=True)
    console.print(found.table(2))
    assert "of 4 latents above the 95th percentile" in console.export_text()


def test_contexts_that_were_found_before_give_the_same(model: HookedTransformer) -> None:
    sae, prompts, latents = hooked_sae(), prompt_ids(30), [3, 5, 9]
    # more contexts, of more latents, in another window
    examples = signaware.top_examples(model, sae, prompts, [9, 1, 5, 3], k=6, window=(2, 2))
    found = signaware.side_opposition(model, sae, prompts, latents, k=4, examples=examples)
    expected = signaware.side_opposition(model, sae, prompts, latents, k=4)
    for name in ("opposition", "low", "dial", "context_low"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), equal_nan=True)
    with pytest.raises(InvalidInputError, match="latents must be one of the examples, got 2"):
        signaware.side_opposition(model, sae, prompts, [3, 2], k=4, examples=examples)
    with pytest.raises(InvalidInputError, match="k must be at most 6, that of the examples, got 7"):
        signaware.side_opposition(model, sae, prompts, [3, 5], k=7, examples=examples)
    another = hooked_sae()
    another.W_enc.data = another.W_enc.data.flip(1)
    with pytest.raises(InvalidInputError, match="examples must be contexts found with this SAE"):
        signaware.side_opposition(model, another, prompts, latents, k=4, examples=examples)
    of_one: Any = examples.of(3)
    with pytest.raises(InvalidInputError, match="examples must be TopExamples, or None, got 'Lat"):
        signaware.side_opposition(model, sae, prompts, latents, k=4, examples=of_one)
    for other in (prompts.flip(0), prompts[:2]):
        with pytest.raises(InvalidInputError, match="examples must be contexts found in these tok"):
            signaware.side_opposition(model, sae, other, [3, 5], k=4, examples=examples)


@pytest.mark.parametrize("field", ["prompt", "position"])
def test_a_context_just_behind_the_tokens_is_not_of_them(
    field: str, model: HookedTransformer
) -> None:
    sae, prompts = hooked_sae(), prompt_ids(30)
    found = signaware.top_examples(model, sae, prompts, k=4)
    chosen, other = [of for of in found.latents if of.pos][:2]
    behind = {"prompt": len(prompts), "position": prompts.shape[1]}[field]
    moved = dataclasses.replace(chosen.pos[0], **{field: behind})
    latents = (dataclasses.replace(chosen, pos=(moved, *chosen.pos[1:])), other)
    message = f"examples must be contexts found in these tokens, got .*{field} {behind}"
    with pytest.raises(InvalidInputError, match=message):
        signaware.side_opposition(
            *(model, sae, prompts, [of.latent for of in latents]),
            k=4,
            examples=dataclasses.replace(found, latents=latents),
        )


def test_a_latent_of_one_side_has_none(model: HookedTransformer) -> None:
    sae = hooked_sae("bi_jumprelu")
    sae.b_mag.data[0, 3] = -1e6  # no side of it is ever active
    found = signaware.side_opposition(model, sae, prompt_ids(30), [3, 5, 9], k=4)
    assert math.isnan(found.opposition[0])
    assert math.isnan(found.dial[0])
    assert not found.passes[0]
    assert not math.isnan(found.null)


def test_latents_that_are_never_active_are_written_and_read_back(
    model: HookedTransformer, tmp_path: Path
) -> None:
    sae = hooked_sae("bi_jumprelu")
    sae.b_mag.data.fill_(-1e6)
    found = signaware.side_opposition(model, sae, prompt_ids(30), [3, 5], k=4)
    assert math.isnan(found.null)
    found.write(tmp_path / "o.json")
    assert json.loads((tmp_path / "o.json").read_text())["null"] is None
    read = type(found).read(tmp_path / "o.json")
    assert math.isnan(read.null)
    assert math.isnan(read.context_null)
    assert read.k == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": [3]}, "latents must be at least two"),
        ({"latents": [3, 99]}, "latents must be from 0 to"),
        ({"latents": [3, 5, 3]}, r"latents must be all different, got \[3, 5, 3\]"),
        ({"k": 1}, "k must be at least 2, got 1"),
        ({"n_before": 0}, "n_before must be at least 1, got 0"),
        ({"tokens": torch.zeros(0, 4, dtype=torch.int64)}, "tokens must be"),
    ],
)
def test_wrong_input_is_one_line(
    changes: dict[str, Any], message: str, model: HookedTransformer
) -> None:
    arguments: dict[str, Any] = {"tokens": prompt_ids(30), "latents": [3, 5], "k": 4} | changes
    with pytest.raises(InvalidInputError, match=message):
        signaware.side_opposition(model, hooked_sae(), **arguments)


def test_an_sae_of_one_head_is_refused(model: HookedTransformer) -> None:
    sae = hooked_sae()
    sae.cfg.metadata.hook_head_index = 0
    with pytest.raises(InvalidInputError, match="hook_head_index must be null"):
        signaware.side_opposition(model, sae, prompt_ids(30), [3, 5])


@pytest.mark.parametrize("normalisation", ["layer_norm", "constant_norm_rescale"])
def test_an_sae_that_normalises_each_token_is_refused(
    normalisation: str, model: HookedTransformer
) -> None:
    sae = make_sae("sa_gsae", normalize_activations=normalisation)
    sae.cfg.metadata.hook_name = HOOK
    with pytest.raises(InvalidInputError, match="no per-token normalisation, for side_opposition"):
        signaware.side_opposition(model, sae, prompt_ids(30), [3, 5])


def test_a_prompt_longer_than_the_model_s_positions_is_one_line(model: HookedTransformer) -> None:
    n = model.cfg.n_ctx
    ids, text = torch.zeros(2, n + 1, dtype=torch.int64), " ".join(["w1"] * 2 * n)
    for measure in (
        lambda: signaware.side_opposition(model, hooked_sae(), ids, [3, 5]),
        lambda: signaware.top_examples(model, hooked_sae(), ids),
        lambda: signaware.signed_latents(model, hooked_sae(), text),
        lambda: signaware.polarity_dial(model, hooked_sae(), 3, ids, [1.0]),
    ):
        with pytest.raises(InvalidInputError, match=f"^tokens: positions must be at most {n}, the"):
            measure()


def test_an_sae_without_a_hook_is_one_line(model: HookedTransformer) -> None:
    sae, ids = hooked_sae(), prompt_ids(30)
    sae.cfg.metadata.hook_name = None
    for measure in (
        lambda: signaware.side_opposition(model, sae, ids, [3, 5]),
        lambda: signaware.top_examples(model, sae, ids),
        lambda: signaware.signed_latents(model, sae, "w1 w2"),
        lambda: signaware.polarity_dial(model, sae, 3, ids, [1.0]),
    ):
        with pytest.raises(InvalidInputError, match=r"^sae\.cfg\.metadata\.hook_name must be the"):
            measure()
