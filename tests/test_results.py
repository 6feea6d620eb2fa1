"""Results of the measures: what they print, and that they read back what they wrote."""

import json
from pathlib import Path

import pytest
import torch

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation.results import Result
from tests.support.models import HOOK, hooked_transformer
from tests.support.saes import D_IN, N_PLANTED, make_sae, planted


def test_results_read_back_what_they_wrote(tmp_path: Path) -> None:
    sae, x, _ = planted(0.8)
    for result in (signaware.bipolar_census(sae, x), signaware.polarity_calibration(sae, x)):
        path = str(tmp_path / "result.json")
        result.write(path)
        again = type(result).read(path)
        assert again.provenance.versions["sae-lens-signaware"] == signaware.__version__
        assert again.n_tokens == N_PLANTED
        for name, value in vars(result).items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(getattr(again, name), value, equal_nan=True)
    with pytest.raises(ValueError, match="not a BipolarCensus"):
        signaware.BipolarCensus.read(path)


def some_results() -> list[Result]:
    """One result of each measure."""
    sae, x = make_sae("sa_gsae", "none"), torch.randn(500, D_IN)
    sae.cfg.metadata.hook_name = HOOK
    model, tokens = hooked_transformer(), torch.randint(0, 63, (4, 8))
    texts = signaware.TextActivations(x, torch.full((100,), 5))
    return [
        signaware.bipolar_census(sae, x),
        signaware.polarity_calibration(sae, x),
        signaware.antipodal_audit(sae, x, max_cosine=-0.5),
        signaware.polarity_dial(model, sae, 3, tokens, [1.0, 2.0]),
        signaware.top_examples(model, sae, tokens, k=2),
        signaware.side_opposition(model, sae, tokens, [3, 5], k=2),
        signaware.signed_latents(model, sae, "w1 w2 w3"),
        signaware.probe(sae, texts, x[::5, 0].tolist(), n_resamples=2),
    ]


def test_every_result_prints_as_a_few_lines() -> None:
    results = some_results()
    assert {type(result) for result in results} == set(Result.__subclasses__())
    for result in results:
        text = str(result)
        assert text == repr(result)
        assert text.startswith(f"{type(result).__name__} of sa_gsae 24, {result.n_tokens} tokens")
        assert len(text.splitlines()) <= 6
        assert len(text) < 400, text
        assert "tensor(" not in text


def test_a_census_prints_its_main_numbers() -> None:
    census = signaware.bipolar_census(make_sae("sa_gsae", "none"), torch.randn(500, D_IN))
    text = str(census)
    for name, value in (
        ("l0", census.l0),
        ("dead_share", census.dead_share),
        ("bipolar_share", census.bipolar_share()),
    ):
        assert f"{name} {value:.4g}" in text
    assert "firing_rate_pos, firing_rate_neg" in text
    assert "float64 (24,)" in text


def test_an_analysis_prints_both_of_its_results() -> None:
    analysis = signaware.analyze_sae(make_sae("sa_gsae", "none"), torch.randn(500, D_IN))
    first, *others = str(analysis).splitlines()
    assert first == f"Analysis, R² {analysis.explained_variance:.4g}"
    assert others == f"{analysis.census}\n{analysis.calibration}".splitlines()


def test_an_analysis_writes_and_shows_what_the_census_has(tmp_path: Path) -> None:
    sae = make_sae("sa_gsae", "none")
    sae.threshold.data[:, :3] = 1e6  # never active
    sae.threshold.data[1, 3:12] = 1e6  # active on the + side alone
    sae.W_dec.data[3:12] *= 10.0
    analysis = signaware.analyze_sae(sae, torch.randn(500, D_IN))
    census = analysis.census
    analysis.write(tmp_path)
    written = json.loads((tmp_path / "analysis.json").read_text())
    assert written["dead_share"] == census.dead_share == 3 / 24
    assert (written["l0"], written["n_tokens"]) == (census.l0, 500)
    assert written["explained_variance"] == analysis.explained_variance
    rows = dict(zip(*(column.cells for column in analysis.table().columns), strict=True))
    assert rows["dead share"] == "12.50%"
    at_10, of_all = census.bipolar_share_by_energy_rank()[[9, -1]].tolist()
    assert at_10 < of_all
    assert rows["  of the 10 latents of most energy"] == f"{at_10:.2%}"
    assert rows["bipolar share (rarer side >= 0.1 of firings)"] == f"{of_all:.2%} of alive latents"
    of_active = census.bipolar_activity_share()
    assert rows["  of the active latents of a token"] == f"{of_active:.2%}"
