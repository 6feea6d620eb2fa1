"""No result depends on how its computation is cut into blocks, nor on the batches that come."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation import audit as audit_module
from sae_lens_signaware.evaluation import examples as examples_module
from sae_lens_signaware.evaluation import probe_features, probe_scores
from sae_lens_signaware.evaluation.labelled_texts import Labels
from sae_lens_signaware.evaluation.probe_features import (
    AGGREGATIONS,
    Aggregation,
    raw_features,
    side_values,
)
from sae_lens_signaware.files import sha256_of
from sae_lens_signaware.training import cached as cached_training
from tests.support.models import HOOK, hooked_transformer, prompt_ids
from tests.support.saes import D_IN, make_sae, make_training_sae, plain_with_pairs


def test_a_fingerprint_of_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    activations = torch.ones(10, 2)
    other = activations.clone()
    other[9, 1] = 2.0
    whole = cached_training.fingerprint(activations)
    monkeypatch.setattr(cached_training, "BLOCK", 3)
    assert cached_training.fingerprint(activations) == whole
    assert cached_training.fingerprint(other) != whole


@pytest.mark.parametrize("normalize", ["none", "constant_norm_rescale", "expected_average_only_in"])
def test_the_mean_that_the_decoder_bias_starts_at(
    normalize: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae: Any = make_training_sae("sa_gsae", normalize_activations=normalize)
    x = torch.randn(50, D_IN) + torch.arange(50.0)[:, None]
    whole = cached_training._mean_of_input(sae, x)
    monkeypatch.setattr(cached_training, "BLOCK", 7)
    torch.testing.assert_close(cached_training._mean_of_input(sae, x), whole)


def test_a_digest_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(2**20) + b"a")  # a byte more than is read at once
    assert sha256_of(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def assert_same_audit(
    parts: signaware.AntipodalAudit, whole: signaware.AntipodalAudit, **tolerance: Any
) -> None:
    assert parts.n_tokens == whole.n_tokens
    assert parts.n_pairs == whole.n_pairs > 1
    for name in ("rate_a", "rate_b", "co_firing_rate", "correlation"):
        torch.testing.assert_close(
            getattr(parts, name), getattr(whole, name), equal_nan=True, **tolerance
        )
    assert parts.freed_width == whole.freed_width == 2


def test_an_audit_of_many_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, x = plain_with_pairs()
    whole = signaware.antipodal_audit(sae, x)
    monkeypatch.setattr(audit_module, "MAX_GATHERED", 1)  # a pair at a time
    assert_same_audit(signaware.antipodal_audit(sae, x), whole)


def test_an_audit_on_batches() -> None:
    sae, x = plain_with_pairs()
    parts, whole = (signaware.antipodal_audit(sae, source) for source in (x.split(777), x))
    assert_same_audit(parts, whole, rtol=1e-6, atol=1e-9)


def test_the_contexts_of_many_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sae, prompts = hooked_transformer(), make_sae("sa_gsae"), prompt_ids(20)
    sae.cfg.metadata.hook_name = HOOK

    def found() -> signaware.TopExamples:
        return signaware.top_examples(model, sae, prompts, [5, 9], k=6, batch_size_prompts=20)

    def places(contexts: Any) -> list[tuple[int, int]]:
        return [(context.prompt, context.position) for context in contexts]

    whole = found()
    monkeypatch.setattr(examples_module, "MAX_TOKENS", 3 * prompts.shape[1])
    parts = found()
    assert parts.n_tokens == whole.n_tokens
    for one, other in zip(parts.latents, whole.latents, strict=True):
        assert places(one.pos) == places(other.pos) != []
        assert places(one.neg) == places(other.neg) != []


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_the_features_of_a_long_text(how: Aggregation, monkeypatch: pytest.MonkeyPatch) -> None:
    source = signaware.TextActivations(torch.randn(20, D_IN), torch.tensor([7, 1, 12]))
    sae = make_sae("sa_gsae", "none")
    whole, raw = side_values(sae, source, how), raw_features(source, how)
    monkeypatch.setattr(probe_features, "MAX_TOKENS", 4)
    parts = side_values(sae, source, how)
    torch.testing.assert_close(parts.pos, whole.pos)
    torch.testing.assert_close(parts.neg, whole.neg)
    torch.testing.assert_close(raw_features(source, how).values, raw.values)


@pytest.mark.parametrize("classes", [None, ("down", "up")])
def test_the_scores_of_many_features(
    classes: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    values, label = rng.normal(size=(40, 10)), rng.normal(size=40)
    labels = Labels((label > 0).astype(float) if classes else label, classes)
    scores = probe_scores.association(values, labels)
    order = probe_scores.strongest_first(values, labels)
    assert (scores != 0).all()
    monkeypatch.setattr(probe_scores, "COLUMNS_AT_ONCE", 3)
    np.testing.assert_array_equal(probe_scores.association(values, labels), scores)
    assert probe_scores.strongest_first(values, labels) == order
