"""Sparse probes: planted features are found and scored, on texts that were not fitted."""

from typing import Any

import pytest
import torch
from sae_lens import SAE
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from sae_lens_signaware.evaluation import probe, read_labelled_texts
from sae_lens_signaware.evaluation.probe import SparseProbes
from sae_lens_signaware.evaluation.texts import TextActivations
from sae_lens_signaware.saes import BiTopKSAE, BiTopKSAEConfig

D_IN = 4


def signed_sae() -> SAE[Any]:
    """Latent i is coordinate i, of either sign."""
    cfg = BiTopKSAEConfig(d_in=D_IN, d_sae=D_IN, k=D_IN, rescale_acts_by_decoder_norm=False)
    return with_rows(BiTopKSAE(cfg), torch.eye(D_IN))


def plain_sae() -> SAE[Any]:
    """Latent i is the positive part of coordinate i, latent i + 4 the negative part."""
    cfg = TopKSAEConfig(d_in=D_IN, d_sae=2 * D_IN, k=2 * D_IN, rescale_acts_by_decoder_norm=False)
    return with_rows(TopKSAE(cfg), torch.cat([torch.eye(D_IN), -torch.eye(D_IN)]))


def with_rows(sae: Any, rows: torch.Tensor) -> SAE[Any]:
    for name, parameter in sae.named_parameters():
        parameter.data.zero_()
        if name == "W_dec":
            parameter.data.copy_(rows)
        if name == "W_enc":
            parameter.data.copy_(rows.T)
    return sae


def texts_of(x: torch.Tensor, n_tokens: int = 1) -> TextActivations:
    """Texts of equal tokens, whose sums are the rows of ``x``."""
    activations = (x / n_tokens).repeat_interleave(n_tokens, 0)
    return TextActivations(activations, torch.full((len(x),), n_tokens), "hook")


def planted(n: int = 80) -> tuple[TextActivations, torch.Tensor]:
    """Coordinate 2 falls as the label, a number, rises; the others are noise."""
    x = torch.randn(n, D_IN, generator=torch.Generator().manual_seed(1))
    return texts_of(x, n_tokens=2), -x[:, 2]


def test_a_planted_axis_is_found_and_scored() -> None:
    source, y = planted()
    found = probe(signed_sae(), source, y.tolist(), ks=(1, 2))
    best = found.of("axis")
    assert (found.metric, best.features) == ("rho", ("2",))
    assert best.value == best.low == best.high == best.fit_value == pytest.approx(1)
    assert (found.n_fit, found.n_report) == (40, 40)
    assert found.of("raw").k == D_IN
    assert found.of("raw").value > 0.99
    assert 0.5 < found.of("side").value < 1  # one side alone does not order the other's texts


def test_a_plain_sae_has_pairs_and_no_axis() -> None:
    source, y = planted()
    found = probe(plain_sae(), source, y.tolist(), with_raw=False)
    assert {p.form for p in found.probes} == {"side", "pair"}
    assert found.of("pair").features == ("2+ 6+",)
    assert found.of("pair").value == pytest.approx(1)
    assert found.n_pairs == D_IN
    with pytest.raises(KeyError, match="side k=1"):
        found.of("axis")


@pytest.mark.parametrize("is_class", [True, False])
def test_scores_are_those_of_sklearn_and_scipy(is_class: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(60, D_IN, generator=generator).round(decimals=1)  # with ties
    y = x[:, 0] + torch.randn(60, generator=generator)
    y = (y > 0).float() if is_class else y
    parts = ["fit"] * 30 + ["report"] * 30
    found = probe(signed_sae(), texts_of(x), y.tolist(), parts=parts, ks=(1,))
    best = found.of("axis")
    latent = int(best.features[0])
    for at, value in ((slice(30), best.fit_value), (slice(30, 60), best.value)):
        z, label = x[at, latent].numpy(), y[at].numpy()
        rho = roc_auc_score(label, z) if is_class else spearmanr(label, z).statistic
        assert value == pytest.approx(max(rho, 1 - rho) if is_class else abs(rho))
    assert best.low < best.value < best.high


def test_copies_of_texts_give_no_false_score() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(100, D_IN, generator=generator).repeat(4, 1)
    labels = torch.randint(2, (100,), generator=generator).repeat(4).tolist()
    found = probe(signed_sae(), texts_of(x), labels)
    assert found.n_fit + found.n_report == 100
    for one in found.probes:
        assert one.low < 0.5 < one.high, one
    parts = ["fit"] * 200 + ["report"] * 200
    with pytest.raises(ValueError, match="report"):  # all of them are fitted
        probe(signed_sae(), texts_of(x), labels, parts=parts)


def test_it_builds_no_graph_reads_back_and_prints_each_row_on_a_line(tmp_path: Any) -> None:
    source, y = planted()
    sae = signed_sae()
    seen: list[bool] = []
    encode = sae.encode
    sae.encode = lambda x: (z := encode(x), seen.append(z.requires_grad))[0]  # pyright: ignore
    found = probe(sae, source, y.tolist())
    assert seen
    assert not any(seen)
    found.write(tmp_path / "probe.json")
    again = SparseProbes.read(tmp_path / "probe.json")
    assert again.probes == found.probes
    assert found.table().row_count == len(found.probes)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"labels": [1.0] * 80}, "labels"),
        ({"labels": [float("nan")] * 80}, "labels"),
        ({"labels": ["a", "b", "c", "d"] * 20}, "labels"),
        ({"labels": [0, 1]}, "labels"),
        ({"labels": [1] + [0] * 79}, "labels"),
        ({"parts": ["fit"] * 80}, "report"),
        ({"parts": ["test"] * 80}, "parts"),
        ({"max_cosine": 0.5}, "max_cosine"),
        ({"source": TextActivations(torch.ones(80, 5), torch.ones(80).long())}, "activations"),
    ],
)
def test_bad_input_names_its_field(changed: dict[str, Any], field: str) -> None:
    source, y = planted()
    arguments = {"source": source, "labels": y.tolist(), **changed}
    with pytest.raises(ValueError, match=field):
        probe(signed_sae(), **arguments)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("txt,label\na,1\n", "columns text and label"),
        ("text,label\n", "data"),
        ("text,label\na, and b,1\n", "data"),
        ("text,label\na,1\nb, and c,1\n", "line 3"),
        ("text,label\na\n", "row 2"),
        ("text,label\n ,1\n", "row 2"),
    ],
)
def test_a_bad_csv_names_the_column_or_row(tmp_path: Any, content: str, field: str) -> None:
    path = tmp_path / "texts.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=field):
        read_labelled_texts(path)


def test_a_csv_with_parts_and_a_byte_order_mark(tmp_path: Any) -> None:
    path = tmp_path / "texts.csv"
    path.write_text('text,label,part\n"a, b",1,fit\nc,0,report\n', encoding="utf-8-sig")
    held = read_labelled_texts(path)
    assert held == (["a, b", "c"], ["1", "0"], ["fit", "report"])
    path.write_text("text,label\nNA,1\n", encoding="utf-8")
    assert read_labelled_texts(path) == (["NA"], ["1"], None)
