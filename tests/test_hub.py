"""Loading by a reference, and ``push`` to a Hub on loopback, read back by SAELens."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from sae_lens import SAE, SAETrainer
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.evaluation.saved import save_and_measure
from tests.architectures import (
    ONE_EACH,
    batches,
    each_architecture,
    inference_sae,
    inputs,
    saved,
    trainer_config,
    training_sae,
)

REPO = "me/saes"


def written(folder: Path, variant: str = "bi_jumprelu-full", seed: int = 5, **fields: Any) -> Path:
    """Folder of an inference SAE, as a training without measures leaves it."""
    sae = inference_sae(variant, seed=seed, **fields)
    sae.cfg.metadata.hook_name = "blocks.3.hook_mlp_out"
    sae.cfg.metadata.model_name = "me/model"
    sae.cfg.metadata.dataset_path = str(folder)  # a path, which has no place in a card
    sae.save_model(folder)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "sae_weights.safetensors")


@each_architecture
def test_a_pushed_sae_and_its_twin_come_back_exactly(variant, hub, tmp_path, command) -> None:
    folder = written(tmp_path / "blocks.3", variant)
    code, out, err = command("push", folder, REPO)
    assert code == 0, err
    assert f"{hub.url}/{REPO}" in out
    sae = SAE.from_pretrained(REPO, "blocks.3")
    for name, tensor in weights(folder).items():
        assert torch.equal(sae.state_dict()[name], tensor), name
    assert sae.cfg.to_dict() == SAE.load_from_disk(folder).cfg.to_dict()
    plain, x = SAE.from_pretrained(REPO, "blocks.3-plain"), inputs()
    assert_close(plain(x), sae(x))
    assert (plain.encode(x) >= 0).all()
    again = signaware.load_sae(f"{REPO}:blocks.3")
    assert torch.equal(again(x), sae(x))


def test_the_card_names_what_it_is_and_how_to_load_it(hub, tmp_path) -> None:
    folder = tmp_path / "sae"
    trained = training_sae("bi_batchtopk")
    trained.cfg.metadata.model_name = "me/model"
    quality = save_and_measure(trained, folder, inputs(300), "a text | of ours").quality
    url = signaware.push(folder, REPO, "my/id", dataset="me/text")
    assert url == f"{hub.url}/{REPO}"
    card = ModelCard.load(REPO)
    data: Any = card.data
    assert data.library_name == "saelens"
    assert {"sparse-autoencoder", "sae-lens-signaware"} <= set(data.tags)
    assert (data.base_model, data.datasets) == (["me/model"], ["me/text"])
    lines = card.text.splitlines()
    assert f"| R2 (explained variance) | {quality.explained_variance:.4f} |" in lines
    assert f"| L0 | {quality.l0:.2f} |" in lines
    assert r"| measured on | a text \| of ours |" in lines
    assert lines.index("| --- | --- |") == lines.index("| | |") + 1
    assert lines[lines.index("| --- | --- |") + 1].startswith("| architecture")
    for sae_id in ("my/id", "my/id-plain"):
        assert f'sae = SAE.from_pretrained("{REPO}", "{sae_id}")' in lines
    files = {path for path in hub.repos[REPO] if path.startswith("my/id/")}
    names = ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors")
    assert files == {f"my/id/{name}" for name in names}


def test_saes_that_a_card_lists_stay_and_one_that_is_pushed_again_is_replaced(
    hub, tmp_path
) -> None:
    a, b = written(tmp_path / "a"), written(tmp_path / "b", "bi_topk")
    signaware.push(a, REPO, "a")
    card = ModelCard.load(REPO)
    card.text = card.text.replace("# saes", "# Mine\n\nBy hand.")
    card.push_to_hub(REPO)
    signaware.push(b, REPO, "b", base_model="me/other")
    wider = written(tmp_path / "c", d_sae=32)
    signaware.push(wider, REPO, "a")
    card = ModelCard.load(REPO)
    assert [card.text.count(f"## `{name}`") for name in ("a", "b")] == [1, 1]
    assert "By hand." in card.text
    assert "| d_sae (signed latents) | 32 |" in card.text
    assert card.data.to_dict()["base_model"] == ["me/model", "me/other"]
    assert "datasets" not in card.data.to_dict()
    assert SAE.from_pretrained(REPO, "a").cfg.d_sae == 32


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("repo_id", ("no-owner",)),
        ("repo_id", ("me/my saes",)),
        ("sae_id", (REPO, "--sae-id", "a-plain")),
        ("sae_id", (REPO, "--sae-id", "../a")),
        ("sae_id", (REPO, "--sae-id", "")),
    ],
)
def test_a_wrong_id_is_refused_before_the_hub_is_asked(named, words, hub, tmp_path, refuses):
    refuses(tmp_path, named, "push", written(tmp_path / "sae"), *words)
    assert hub.log == []


def test_a_plain_sae_a_token_and_a_broken_one_are_not_pushed(hub, tmp_path, command, refuses):
    sae = written(tmp_path / "sae")
    assert command("split", sae, tmp_path / "plain")[0] == 0
    refuses(tmp_path, "SAE must be a signed SAE", "push", tmp_path / "plain", REPO)
    (sae / "runner_cfg.json").write_text('{"token": "hf_aBcDeFgHiJkLmNoPqRsTuVwX"}')
    refuses(tmp_path, "runner_cfg.json holds what looks like a Hub token", "push", sae, REPO)
    (sae / "cfg.json").write_text("{")
    refuses(tmp_path, "SAE: ", "push", sae, REPO)
    assert hub.log == []


@pytest.mark.filterwarnings("ignore")
def test_a_hub_that_fails_is_one_line_and_another_code(hub, tmp_path, command) -> None:
    hub.broken = "/api/"
    code, _, err = command("push", written(tmp_path / "sae"), REPO)
    assert (code, hub.repos) == (1, {})
    assert [line[:7] for line in err.splitlines() if line][-1] == "Error: "
    assert "500" in err
    assert "Traceback" not in err


@pytest.mark.filterwarnings("ignore")
def test_a_card_of_the_cache_is_no_card_of_the_hub(hub, tmp_path, command) -> None:
    sae = written(tmp_path / "sae")
    signaware.push(sae, REPO, "old")
    ModelCard.load(REPO)  # now the client's cache has it
    hub.broken = "README"
    assert command("push", sae, REPO, "--sae-id", "new")[0] == 1
    assert not any(path.startswith("new/") for path in hub.repos[REPO])
    hub.clear()
    signaware.push(sae, REPO, "new")
    assert "`old`" not in hub.repos[REPO]["README.md"].decode()


@pytest.mark.parametrize("reference", ["me/nowhere:sae", f"{REPO}:nowhere", "a b:c"])
def test_a_reference_that_the_hub_does_not_have(reference, hub, tmp_path) -> None:
    signaware.push(written(tmp_path / "sae"), REPO, "sae")
    with pytest.raises(InvalidInputError, match=f"SAE: {reference}") as error:
        signaware.load_sae(reference)
    assert "\n" not in str(error.value)


@each_architecture
def test_weights_that_are_not_finite_are_refused(variant, tmp_path, refuses) -> None:
    folder = written(tmp_path / "sae", variant)
    state = weights(folder)
    state["W_dec"][3, 1] = torch.inf
    save_file(state, folder / "sae_weights.safetensors")
    refuses(tmp_path, "W_dec must be finite", "audit", folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architecture": "bi_jumpreu"}, "did you mean 'bi_jumprelu'"),
        ({"d_sae": 3}, "size mismatch"),
        ({"normalize_activations": "expected_average_only_in"}, "normalize_activations"),
    ],
)
def test_a_config_that_does_not_fit(change, named, tmp_path, refuses) -> None:
    folder = written(tmp_path / "sae")
    values = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(values | change))
    refuses(tmp_path, named, "audit", folder)
    (folder / "sae_weights.safetensors").write_bytes(b"broken")
    refuses(tmp_path, "SAE: ", "audit", folder)


@pytest.mark.parametrize("normalisation", ["expected_average_only_in", "covariance_whitening"])
@pytest.mark.parametrize("variant", ONE_EACH)
def test_a_checkpoint_loads_as_what_its_training_would_have_saved(
    variant, normalisation, tmp_path
) -> None:
    def trainer(n_steps: int, n_batches: int) -> Any:
        sae = training_sae(variant, normalize_activations=normalisation)
        data = islice((3 * x for x in batches()), n_batches)
        return SAETrainer(trainer_config(n_steps, n_batches_for_norm_estimate=3), sae, data)

    whole, cut = trainer(4, 3 + 4), trainer(8, 3 + 4)
    whole.fit()  # which folds the scale in, at its end
    with pytest.raises(StopIteration):
        cut.fit()
    cut.save_checkpoint("cut", base_path=tmp_path)
    found, x = signaware.load_sae(tmp_path / "cut"), 3 * inputs()
    assert_close(found(x), saved(whole.sae)(x))
    assert found.cfg.normalize_activations == "none"
