"""Arguments of the measures of texts as users write them, and the line for those they mistake."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformer_lens import HookedTransformer

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.evaluation.labelled_texts import labels_of
from sae_lens_signaware.evaluation.models import embedding_of, vocabulary_of
from tests.support.models import HOOK, hooked_transformer, prompt_ids
from tests.support.saes import make_sae

TEXTS = [f"w{i} w{(7 * i) % 60} w{30 * (i % 2) + i % 9}" for i in range(40)]
LABELS = [i % 2 for i in range(40)]


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return hooked_transformer()


@pytest.fixture(scope="module")
def source(model: HookedTransformer) -> Any:
    return signaware.text_activations(model, TEXTS, [HOOK])[0]


def hooked_sae() -> Any:
    sae = make_sae("bi_jumprelu")
    sae.cfg.metadata.hook_name = HOOK
    return sae


def test_texts_may_come_once(model: HookedTransformer, source: Any) -> None:
    texts: Any = (text for text in TEXTS)
    (found,) = signaware.text_activations(model, texts, [HOOK])
    torch.testing.assert_close(found.activations, source.activations)


def test_labels_and_ks_of_any_kind_are_those_of_a_list(source: Any, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    fast: Any = {"n_resamples": 5, "with_raw": False}
    expected = signaware.probe(hooked_sae(), source, LABELS, ks=[1, 2], **fast)
    kinds: list[tuple[Any, Any]] = [
        (torch.tensor(LABELS), np.array([1, 2])),
        ((label for label in LABELS), (k for k in (2, 1))),
    ]
    for labels, ks in kinds:
        found = signaware.probe(hooked_sae(), source, labels, ks=ks, **fast)
        assert found.to_dict() == expected.to_dict()
        found.write(tmp_path / "probes.json")


def test_numbers_of_numpy_are_python_s_own_in_a_file(
    model: HookedTransformer, source: Any, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    path, numbers = tmp_path / "result.json", {"n_resamples": 5, "seed": 3, "max_cosine": -0.5}
    of_numpy: Any = {
        name: np.asarray(n, np.float32 if n < 0 else int)[()] for name, n in numbers.items()
    }
    signaware.probe(hooked_sae(), source, LABELS, ks=[1], with_raw=False, **of_numpy).write(path)
    read = signaware.SparseProbes.read(path)
    assert {name: getattr(read, name) for name in numbers} == numbers
    n_before: Any = np.int64(4)
    args = (model, hooked_sae(), prompt_ids(6), [5, 9])
    signaware.side_opposition(*args, n_before=n_before).write(path)
    assert signaware.SideOpposition.read(path).n_before == 4
    of_numpy = {name: np.int64(n) for name, n in (("k", 2), ("batch_size_prompts", 4))}
    found = signaware.top_examples(*args, **of_numpy)
    assert found.latents == signaware.top_examples(*args, k=2, batch_size_prompts=4).latents
    max_cosine: Any = np.float32(-0.5)
    signaware.antipodal_audit(hooked_sae(), max_cosine=max_cosine).write(path)
    assert signaware.AntipodalAudit.read(path).max_cosine == -0.5


@pytest.mark.parametrize("normalisation", ["expected_average_only_in", "covariance_whitening"])
def test_an_sae_of_scaled_activations_reads_no_activations_as_they_are(
    normalisation: str, model: HookedTransformer, source: Any
) -> None:
    sae = hooked_sae()
    sae.cfg.normalize_activations = normalisation
    line = f"^SAE: it is of activations that '{normalisation}' scales, and its scale is not there"
    with pytest.raises(InvalidInputError, match=line):
        signaware.signed_latents(model, sae, "w1 w2")
    with pytest.raises(InvalidInputError, match=line):
        signaware.top_examples(model, sae, prompt_ids(6))
    with pytest.raises(InvalidInputError, match=line):
        signaware.side_opposition(model, sae, prompt_ids(6), [5, 9])
    store: Any = None  # it is looked at before
    with pytest.raises(InvalidInputError, match=line):
        signaware.bipolar_evals(sae, store, model)
    with pytest.raises(InvalidInputError, match=line):
        signaware.polarity_dial(model, sae, 5, prompt_ids(6), [1.0])
    with pytest.raises(InvalidInputError, match=line):
        signaware.top_logits(model, sae, [5])
    pytest.importorskip("sklearn")
    with pytest.raises(InvalidInputError, match=line):
        signaware.probe(sae, source, LABELS)


def test_labels_with_an_underscore_are_names() -> None:
    assert labels_of(["1_2", "1_1", "1_2"]).classes == ("1_1", "1_2")
    with pytest.raises(InvalidInputError, match="got 3 values, one of them '1_000'"):
        labels_of(["1_000", "2", "3"])


def test_a_source_of_another_kind_is_one_line(source: Any) -> None:
    pytest.importorskip("sklearn")
    several = r"^source must be TextActivations, got 'list': text_activations gives one for each h"
    for wrong, line in (
        ([source], several),
        (source.activations, r"^source must be TextActivations, got 'Tensor'$"),
    ):
        with pytest.raises(InvalidInputError, match=line):
            signaware.probe(hooked_sae(), wrong, LABELS)
    for ks, line in (
        (2, r"^ks must be a list, each item an integer, got 2$"),
        ([1.0], r"^ks must be a list, each item an integer, got \[1\.0\]"),
    ):
        wrong_ks: Any = ks
        with pytest.raises(InvalidInputError, match=line):
            signaware.probe(hooked_sae(), source, LABELS, ks=wrong_ks)


@pytest.mark.parametrize(
    ("hooks", "heads", "line"),
    [
        (HOOK, None, rf"^hook_names must be a list of at least one hook point, got '{HOOK}'$"),
        ([], None, r"^hook_names must be a list of at least one hook point, got \[\]$"),
        ([HOOK], [0, 1], r"^head_indices must be one for each of the 1 hook points, got 2$"),
        ([HOOK], [], r"^head_indices must be one for each of the 1 hook points, got 0$"),
        ([HOOK], 0, r"^head_indices must be one for each of the 1 hook points, got 0$"),
    ],
)
def test_wrong_hook_points_are_one_line(
    hooks: Any, heads: Any, line: str, model: HookedTransformer
) -> None:
    with pytest.raises(InvalidInputError, match=line):
        signaware.text_activations(model, TEXTS, hooks, head_indices=heads)


@pytest.mark.parametrize(
    ("measure", "kwargs", "line"),
    [
        (signaware.top_examples, {"window": 16}, "window must be a list of 2: .*, got 16"),
        (signaware.top_examples, {"batch_size_prompts": 2.0}, "batch_size_prompts must be an int"),
        (signaware.top_examples, {"n_batches": 2.5}, "n_batches must be an integer, got 2.5"),
        (signaware.side_opposition, {"n_before": 4.0}, "n_before must be an integer, got 4.0"),
    ],
)
def test_counts_that_are_none_are_one_line(
    measure: Callable[..., Any], kwargs: Any, line: str, model: HookedTransformer
) -> None:
    with pytest.raises(InvalidInputError, match=line):
        measure(model, hooked_sae(), prompt_ids(6), [5, 9], **kwargs)


def test_a_context_size_that_is_no_integer_is_one_line(model: HookedTransformer) -> None:
    wrong: Any = 8.5
    with pytest.raises(InvalidInputError, match=r"^context_size must be an integer, got 8\.5$"):
        signaware.text_activations(model, TEXTS, [HOOK], context_size=wrong)


@pytest.mark.parametrize(
    ("kwargs", "line"),
    [
        ({"n_resamples": 9.5}, "n_resamples must be an integer, got 9.5"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": None}, "seed must be an integer, got None"),
    ],
)
def test_numbers_of_a_probe_that_are_none_are_one_line(kwargs: Any, line: str, source: Any) -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(InvalidInputError) as error:
        signaware.probe(hooked_sae(), source, LABELS, **kwargs)
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("measure", "line"),
    [
        (
            lambda sae, x: signaware.SignedEvaluator(n_batches=0),
            "n_batches must be at least 1, got 0",
        ),
        (
            lambda sae, x: signaware.SignedEvaluator(bipolar_min_share=10),
            "bipolar_min_share must be from 0 to 0.5, got 10",
        ),
        (
            lambda sae, x: signaware.measure_quality(sae, x, "noise", 10),
            "bipolar_min_share must be from 0 to 0.5, got 10",
        ),
        (
            lambda sae, x: signaware.bipolar_census(sae, x).bipolar_share(10),
            "min_share must be from 0 to 0.5, got 10",
        ),
        (
            lambda sae, x: signaware.antipodal_audit(sae, x, None),
            "max_cosine must be a number, got None",
        ),
        (
            lambda sae, x: signaware.antipodal_audit(sae, x, block_size=0),
            "block_size must be at least 1, got 0",
        ),
        (
            lambda sae, x: signaware.nearest_antipodal_pair(x, sae),
            "sae must be an SAE of SAELens, got 'Tensor'",
        ),
        (
            lambda sae, x: signaware.nearest_antipodal_pair(sae, [1.0] * 16),
            "direction must be a tensor, such as sae.W_dec[i], got 'list'",
        ),
    ],
)
def test_numbers_out_of_range_are_one_line(measure: Callable[..., Any], line: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        measure(make_sae("bi_jumprelu"), torch.randn(9, 16))
    assert str(error.value) == line


def test_a_model_that_hides_its_embeddings_is_named() -> None:
    hidden: Any = torch.nn.Linear(2, 2)
    assert vocabulary_of(hidden) is None
    with pytest.raises(InvalidInputError, match="model must be one with input embeddings"):
        embedding_of(hidden)
    assert vocabulary_of(hooked_transformer()) == len(embedding_of(hooked_transformer())) == 64
