"""Inputs of probes: activations of texts, CSV files and parts."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens.load_model import HookedProxyLM
from safetensors.torch import save_file

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.evaluation.labelled_texts import fit_mask, labels_of
from tests.support.models import HOOK, hooked_transformer, tiny_gpt2, tiny_tokenizer
from tests.support.saes import D_IN, make_sae

TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7", "w8 <eos> w9", "w10 w11"]
GPT2_HOOK = "transformer.h.0.mlp"


def proxy() -> HookedProxyLM:
    names = [GPT2_HOOK, "transformer.h.1.mlp"]
    return HookedProxyLM(tiny_gpt2().eval(), tiny_tokenizer(), hook_names=names)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(("make", "hook"), [(hooked_transformer, HOOK), (proxy, GPT2_HOOK)])
def test_activations_are_those_of_each_text_run_alone(make: Any, hook: str, bos: bool) -> None:
    model = make()
    done = []
    (source,) = signaware.text_activations(
        model, TEXTS, [hook], prepend_bos=bos, advance=done.append
    )
    assert source.hook_name == hook
    assert source.n_tokens_of.tolist() == [3, 1, 3, 2, 2]
    assert sum(done) == 5
    for text, held in zip(TEXTS, source.activations.split([3, 1, 3, 2, 2]), strict=True):
        ids = [63 if word == "<eos>" else int(word[1:]) for word in text.split()]
        ids = [63, *ids] if bos else ids
        _, cache = model.run_with_cache(torch.tensor([ids]), names_filter=[hook])
        keep = torch.tensor(ids) != 63
        torch.testing.assert_close(held, cache[hook][0, keep], rtol=1e-4, atol=1e-5)


def test_hook_points_of_two_layers_are_of_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = proxy()
    hooks = [GPT2_HOOK, "transformer.h.1.mlp"]
    alone = [signaware.text_activations(model, TEXTS, [hook])[0] for hook in hooks]
    calls = []
    run = model.run_with_cache
    monkeypatch.setattr(model, "run_with_cache", lambda *a, **k: calls.append(a) or run(*a, **k))
    both = signaware.text_activations(model, TEXTS, hooks)
    assert len(calls) == 3  # texts of 2, 3 and 4 tokens
    for one, other in zip(alone, both, strict=True):
        torch.testing.assert_close(one.activations, other.activations)


def test_long_texts_are_cut_and_files_read_back(tmp_path: Path) -> None:
    (source,) = signaware.text_activations(hooked_transformer(), TEXTS, [HOOK], context_size=3)
    assert source.n_tokens_of.tolist() == [2, 1, 2, 1, 2]
    assert source.n_cut == 3  # of 4 tokens with BOS; one of them is special
    source.write(tmp_path / "texts.safetensors")
    again = signaware.TextActivations.read(tmp_path / "texts.safetensors", HOOK)
    assert torch.equal(again.activations, source.activations)
    assert torch.equal(again.n_tokens_of, source.n_tokens_of)
    assert again.n_cut == 3
    earlier = {name: getattr(source, name) for name in ("activations", "n_tokens_of")}
    save_file(earlier, tmp_path / "texts.safetensors")
    assert signaware.TextActivations.read(tmp_path / "texts.safetensors").n_cut == 0
    (tmp_path / "texts.safetensors").write_bytes(b"broken")
    with pytest.raises(InvalidInputError, match="holds no activations of texts"):
        signaware.TextActivations.read(tmp_path / "texts.safetensors")


def test_a_text_that_is_longer_than_the_model_has_positions() -> None:
    model = hooked_transformer()
    n = model.cfg.n_ctx
    message = f"context_size: tokens of a text must be at most {n}, the positions of the model"
    with pytest.raises(InvalidInputError, match=message):
        signaware.text_activations(model, ["w1 " * n], [HOOK], context_size=n + 1)
    signaware.text_activations(model, ["w1 " * n], [HOOK], context_size=n)


def test_heads_are_taken_by_their_index() -> None:
    model, hook = hooked_transformer(), "blocks.0.attn.hook_z"
    whole, first, last = (
        signaware.text_activations(model, TEXTS, [hook], head_indices=[head])[0].activations
        for head in (None, 0, -1)
    )
    torch.testing.assert_close(whole, torch.cat([first, last], 1))


def test_activations_of_a_text_that_are_no_numbers_are_refused() -> None:
    model: Any = hooked_transformer()
    model.blocks[0].mlp.b_out.data.fill_(torch.nan)
    with pytest.raises(InvalidInputError, match="activations must be finite"):
        signaware.text_activations(model, TEXTS, [HOOK])


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_is_read_with_quotes_line_breaks_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "a.csv", '\ufefftext,score,part\n"one, ""two""\nthree",1.5,fit\n\nx,-2,report\n'
    )
    held = signaware.read_labelled_texts(path, "text", "score", "part")
    assert held.texts == ['one, "two"\nthree', "x"]
    assert held.labels == ["1.5", "-2"]
    assert held.parts == ["fit", "report"]
    assert signaware.read_labelled_texts(path, label_column="score").parts is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("texts,label\na,1\n", "text_column: FILE has no column 'text'; did you mean 'texts'?"),
        ("text,Label\na,1\n", "label_column: FILE has no column 'label'; did you mean 'Label'?"),
        ("text,label,label\na,1,2\n", "label_column: FILE has more than one column 'label'"),
        ("", "text_column: FILE has no column 'text'; it has no column"),
        ("text,label\n", "data: FILE has no row below its first line"),
        ("text,label\na\n", "data: FILE, row 2 must have 2 value(s), got 1"),
        ("text,label\na,1\n  ,1\n", "data: FILE, row 3, text must be a text that is not empty"),
        ('text,label\n"a,1\n', "data: FILE is no CSV"),
    ],
)
def test_a_csv_that_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", text)
    with pytest.raises(InvalidInputError) as caught:
        signaware.read_labelled_texts(path)
    assert message.replace("FILE", str(path)) in str(caught.value)


def test_a_long_text_of_a_csv_is_read(tmp_path: Path) -> None:
    limit, long = csv.field_size_limit(), "a" * 200_000
    path = write_csv(tmp_path / "a.csv", f"text,label\n{long},1\n")
    assert signaware.read_labelled_texts(path).texts == [long]
    assert csv.field_size_limit() == limit


def test_a_csv_that_is_not_there_or_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        signaware.read_labelled_texts(tmp_path / "no.csv")
    with pytest.raises(InvalidInputError, match="is a folder"):
        signaware.read_labelled_texts(tmp_path)
    (tmp_path / "a.csv").write_bytes("text,label\né,1\n".encode("latin-1"))
    with pytest.raises(InvalidInputError, match="must be UTF-8"):
        signaware.read_labelled_texts(tmp_path / "a.csv")


def test_what_labels_are() -> None:
    numbers = labels_of(["1", "-2.5", "1e1"])
    assert numbers.classes is None
    assert numbers.values.tolist() == [1, -2.5, 10]
    assert labels_of(["b", "a", "b"]).values.tolist() == [1, 0, 1]
    assert labels_of(["b", "a", "b"]).classes == ("a", "b")
    assert labels_of([3, -1, 3]).classes == ("-1", "3")
    assert labels_of(["2.0", "10", "2"]).values.tolist() == [0, 1, 0]
    assert labels_of([1000001, 1000002]).classes == ("1000001", "1000002")
    assert labels_of(["0.12345671", "0.12345672"]).classes == ("0.12345671", "0.12345672")
    # "nan" and "inf" are names where others are
    assert labels_of(["nan", "ok", "nan"]).classes == ("nan", "ok")
    assert labels_of(["fin", "inf"]).values.tolist() == [0, 1]
    assert labels_of([True, False]).values.tolist() == [1, 0]
    assert labels_of(np.array([True, False])).values.tolist() == [1, 0]
    assert labels_of(np.array([0.5, 1.5, 2.5])).values.tolist() == [0.5, 1.5, 2.5]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["1", "nan", "3"], "label of text 2 must be finite, got 'nan'"),
        ([1.0, 2.0, float("inf")], "label of text 3 must be finite, got inf"),
        (["a", "a"], "labels must have at least two different values, got only 'a'"),
        (["1", "1.0"], "labels must have at least two different values, got only '1'"),
        (["a", "b", "c"], "must be numbers, or have two different values, got 3 values, one"),
        (["1", "2", "x"], "got 3 values, one of them 'x'"),
        (["1", " ", "3"], "label of text 2 must be a number or a class, got ''"),
        (["a", None], "label of text 2 must be a number or a class, got None"),
        ([{"a": 1}, "b"], "label of text 1 must be a number or a class, got {'a': 1}"),
        ([], "got only no label"),
    ],
)
def test_labels_that_are_wrong(labels: list[Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match="label") as caught:
        labels_of(labels)
    assert message in str(caught.value)


def test_halves_are_drawn_of_each_class() -> None:
    labels = labels_of(["a"] * 30 + ["b"] * 11)
    fit = fit_mask(labels, None, seed=1)
    assert fit[:30].sum() == 15
    assert fit[30:].sum() == 5
    assert (fit == fit_mask(labels, None, seed=1)).all()
    assert (fit != fit_mask(labels, None, seed=2)).any()


@pytest.mark.parametrize(
    ("labels", "parts", "message"),
    [
        (range(19), None, "texts of the part 'fit' must be at least 10, got 9"),
        (range(20), ["fit"] * 11 + ["report"] * 9, "part 'report' must be at least 10, got 9"),
        (range(20), ["fit"] * 10 + ["test"] * 10, "part must be 'fit' or 'report', got 'test'"),
        (range(20), ["fit"] * 10, "parts must be one for each of the 20 texts, got 10"),
        ([0] * 39 + [1], None, "texts of class '1' in the part 'fit' must be at least 2, got 0"),
        ([5] * 10 + [*range(10)], ["fit"] * 10 + ["report"] * 10, "labels of the part 'fit'"),
    ],
)
def test_parts_that_are_too_small(labels: Any, parts: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match="part") as caught:
        fit_mask(labels_of(list(labels)), parts)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ks": [0]}, "ks must be numbers of at least 1, got [0]"),
        ({"ks": []}, "ks must be numbers of at least 1, got []"),
        ({"aggregation": "median"}, "aggregation must be sum, mean, max, got 'median'"),
        ({"max_cosine": 0.5}, "max_cosine must be from -1 to below 0, got 0.5"),
        ({"n_resamples": 0}, "n_resamples must be at least 1, got 0"),
        ({"labels": range(5)}, "labels must be one for each of the 40 texts, got 5"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], message: str) -> None:
    source = signaware.TextActivations(torch.randn(40, D_IN), torch.ones(40, dtype=torch.int64))
    arguments: dict[str, Any] = {"labels": list(range(40)), **change}
    labels = arguments.pop("labels")
    with pytest.raises(InvalidInputError) as caught:
        signaware.probe(make_sae("sa_gsae"), source, labels, **arguments)
    assert message in str(caught.value)


def test_activations_that_do_not_fit() -> None:
    ones = torch.ones(20, dtype=torch.int64)
    labels = list(range(20))
    with pytest.raises(InvalidInputError, match=f"must be {D_IN} wide, got '3 wide'"):
        signaware.probe(
            make_sae("sa_gsae"), signaware.TextActivations(torch.randn(20, 3), ones), labels
        )
    x = torch.full((20, D_IN), float("nan"))
    with pytest.raises(InvalidInputError, match="activations must be finite"):
        signaware.probe(make_sae("sa_gsae"), signaware.TextActivations(x, ones), labels)
    for counts in (torch.ones(3, dtype=torch.int64), torch.tensor([0, 20]), torch.tensor([20.0])):
        with pytest.raises(InvalidInputError, match="n_tokens_of"):
            signaware.TextActivations(torch.randn(20, D_IN), counts)
    wrong: Any = [1] * 20
    with pytest.raises(InvalidInputError, match="n_tokens_of must be a tensor, got list"):
        signaware.TextActivations(torch.randn(20, D_IN), wrong)
    model = hooked_transformer()
    for texts, message in (
        (["w1", " "], "text 2 must be a text that is not empty"),
        (["w1", "<eos>"], "text 2 must have a token that is no special one, got '<eos>'"),
        ([], "texts must be at least one"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            signaware.text_activations(model, texts, [HOOK])
    with pytest.raises(InvalidInputError, match="the model has no hook"):
        signaware.text_activations(model, ["w1"], ["blocks.7.no"])
    with pytest.raises(InvalidInputError, match="context_size must be at least 2, got 1"):
        signaware.text_activations(model, ["w1"], [HOOK], prepend_bos=False, context_size=1)
