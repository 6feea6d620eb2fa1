"""What a model card says of an SAE, where the Hub has no card yet."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sae_lens_signaware import SAEQuality, measure_quality, split_polarities
from sae_lens_signaware.hub.model_card import make_card
from tests.support.hub import x_batch
from tests.support.hub_server import HubServer
from tests.support.saes import D_SAE, make_sae


def card_of(sae: Any, quality: SAEQuality | None = None) -> Any:
    return make_card("someone/new", "a", sae, quality)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_card_says_that_a_twin_in_16_bits_is_rounded(hub: HubServer, dtype: str) -> None:
    text = card_of(make_sae("sa_gsae", dtype=dtype)).text
    assert ("but for 16-bit rounding" in text) is (dtype == "bfloat16")


def test_a_card_imports_the_module_that_registers(hub: HubServer) -> None:
    ours = make_sae("sa_gsae")
    assert "\nimport sae_lens_signaware  # registers 'sa_gsae'" in card_of(ours).text
    of_a_user = type("SAE", (type(ours),), {"__module__": "mine.saes"})(ours.cfg)
    assert "\nimport mine.saes  # registers 'sa_gsae'" in card_of(of_a_user).text
    of_a_notebook = type("SAE", (type(ours),), {"__module__": "__main__"})(ours.cfg)
    text = card_of(of_a_notebook).text
    assert "\n# run what registers 'sa_gsae' first" in text
    assert "import __main__" not in text


def test_the_card_of_a_one_sided_sae_says_what_its_twin_is(hub: HubServer) -> None:
    sae = make_sae("sa_gsae", two_sided=False)
    assert "twice the latents" not in card_of(sae).text
    assert split_polarities(sae).cfg.d_sae == D_SAE


def test_a_card_without_measurement_says_so_and_leaves_local_paths_out(
    hub: HubServer, tmp_path: Path
) -> None:
    sae = make_sae("sa_gsae")
    sae.cfg.metadata.model_name = str(tmp_path)
    sae.cfg.metadata.dataset_path = "demo_out/data/train"
    card = card_of(sae)
    assert "not measured" in card.text
    assert card.data.base_model is None
    assert card.data.datasets is None
    assert str(tmp_path) not in str(card)


def test_a_text_stays_in_its_cell(hub: HubServer) -> None:
    # no column and no row of its own, and no end of the comment around the section
    sae = make_sae("sa_gsae")
    measured, _ = measure_quality(sae, x_batch(), "held-out | a\n b --> c")
    assert "\n| measured on | held-out \\| a b c |\n" in card_of(sae, measured).text


def test_a_folder_that_is_there_is_no_dataset_of_the_hub(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sae = make_sae("sa_gsae")
    sae.cfg.metadata.dataset_path = "data/train"
    assert card_of(sae).data.datasets == ["data/train"]
    (tmp_path / "data" / "train").mkdir(parents=True)
    assert card_of(sae).data.datasets is None


def test_a_card_without_the_number_of_tokens_of_the_loss(hub: HubServer) -> None:
    sae = make_sae("sa_gsae")
    measured, _ = measure_quality(sae, x_batch(), "noise")
    measured = dataclasses.replace(measured, loss_recovered=0.9)
    assert "| loss recovered | 0.9000 |" in card_of(sae, measured).text
    measured = dataclasses.replace(measured, loss_recovered_tokens=8192)
    assert "| loss recovered over 8,192 tokens | 0.9000 |" in card_of(sae, measured).text


@pytest.mark.parametrize("name", ["C:/x", "data/train.jsonl", "a b/c", "./model", "a/b/c", "", 3])
def test_a_path_is_no_name_of_the_hub_from_another_folder_either(name: Any, hub: HubServer) -> None:
    sae = make_sae("sa_gsae")
    sae.cfg.metadata.model_name = sae.cfg.metadata.dataset_path = name
    card = card_of(sae)
    assert card.data.base_model is None
    assert card.data.datasets is None


def test_a_model_of_a_gguf_file_is_named_by_the_user_alone(hub: HubServer) -> None:
    sae = make_sae("sa_gsae")
    sae.cfg.metadata.model_name = "some/model"
    sae.cfg.metadata.model_from_pretrained_kwargs = {"gguf_file": "model.gguf"}
    assert card_of(sae).data.base_model is None
    named = make_card("someone/new", "a", sae, None, base_model="org/model")
    assert named.data.base_model == "org/model"
    del sae.cfg.metadata.model_from_pretrained_kwargs
    assert card_of(sae).data.base_model == "some/model"
