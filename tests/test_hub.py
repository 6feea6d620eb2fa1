"""The Hub, through the real client, unpatched, against a Hub on loopback."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from sae_lens import SAE, upload_saes_to_huggingface
from sae_lens.registry import get_sae_class
from safetensors.torch import load_file, save_file

from sae_lens_signaware.checks import ConfigError, InvalidInputError
from sae_lens_signaware.hub import load_sae_reference
from sae_lens_signaware.hub import upload as hub_module
from tests.support.hub import save_measured, x_batch
from tests.support.hub_server import HubServer
from tests.support.saes import (
    D_SAE,
    VARIANTS,
    each_architecture,
    each_threshold_variant,
    each_variant,
    make_sae,
    make_training_sae,
)

REPO = "someone/signed-saes"


@each_variant
def test_inference_sae_goes_up_and_comes_down(
    architecture: str, tying: str, hub: HubServer, tmp_path: Path
) -> None:
    repo = f"someone/{architecture}-{tying}"  # the client caches by repository
    sae = make_sae(architecture, tying)
    save_measured(sae, tmp_path)
    upload_saes_to_huggingface({"mid/mlp": tmp_path}, repo, show_progress=False)
    assert f"POST /api/models/{repo}/commit/main" in hub.log
    loaded = SAE.from_pretrained(repo, "mid/mlp")
    assert f"GET /{repo}/resolve/main/mid/mlp/sae_weights.safetensors" in hub.log
    assert type(loaded) is type(sae)
    assert loaded.cfg.polarity_tying == tying
    torch.testing.assert_close(loaded(x_batch()), sae(x_batch()), rtol=0, atol=0)


@each_threshold_variant
def test_the_training_object_that_a_runner_returns_goes_up_too(
    architecture: str, tying: str, hub: HubServer
) -> None:
    repo = f"someone/training-{architecture}-{tying}"
    sae = make_training_sae(architecture, tying, target_l0=5.0)
    upload_saes_to_huggingface({"a": sae}, repo, show_progress=False)
    # SAELens asks for the sparsity file, which save_model does not write; the Hub says 404
    loaded = SAE.from_pretrained(repo, "a")
    assert type(loaded) is get_sae_class(architecture)[0]
    torch.testing.assert_close(loaded(x_batch()), sae(x_batch()))


@each_architecture
def test_push_writes_the_sae_its_twin_and_a_card(
    architecture: str, hub: HubServer, tmp_path: Path
) -> None:
    repo = f"someone/push-{architecture}"
    sae = make_sae(architecture, dict(VARIANTS)[architecture])  # the last of its tyings
    save_measured(sae, tmp_path)
    url = hub_module.push(tmp_path, repo, "mid")
    assert url == f"{hub.url}/{repo}"

    signed, log_sparsity = SAE.from_pretrained_with_cfg_and_sparsity(repo, "mid")[::2]
    plain, _, plain_sparsity = SAE.from_pretrained_with_cfg_and_sparsity(repo, "mid-plain")
    x = x_batch()
    torch.testing.assert_close(signed(x), sae(x), rtol=0, atol=0)
    torch.testing.assert_close(plain(x), sae(x), rtol=0, atol=1e-5)
    assert plain.cfg.d_sae == 2 * D_SAE

    # the sparsity file of the twin is the rate of each side, measured
    rates = (plain.encode(x) > 0).double().mean(0).clamp(min=1e-10)
    assert plain_sparsity is not None
    assert log_sparsity is not None
    torch.testing.assert_close(plain_sparsity.double(), rates.log10(), rtol=1e-4, atol=1e-4)

    card = ModelCard.load(repo)
    assert card.data.library_name == "saelens"
    assert sae.cfg.architecture() in (card.data.tags or [])
    assert card.data.base_model == "EleutherAI/pythia-1b"
    assert card.data.datasets == ["monology/pile-uncopyrighted"]
    quality = json.loads((tmp_path / "quality.json").read_text())
    assert f"| L0 | {quality['l0']:.2f} |" in card.text
    assert f"| R2 (explained variance) | {quality['explained_variance']:.4f} |" in card.text
    assert f"| dead share over 256 tokens | {quality['dead_share']:.4f} |" in card.text
    assert "import sae_lens_signaware" in card.text
    assert f'SAE.from_pretrained("{repo}", "mid-plain")' in card.text
    assert set(hub.repos[repo]) >= {
        f"{name}/{file}"
        for name in ("mid", "mid-plain")
        for file in ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors")
    }


def test_push_keeps_weights_in_16_bits_as_they_are(hub: HubServer, tmp_path: Path) -> None:
    sae = make_sae("bi_jumprelu")
    sae.save_model(tmp_path / "sae")
    path = tmp_path / "sae" / "sae_weights.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path)
    hub_module.push(tmp_path / "sae", "someone/half", "a")
    loaded = hf_hub_download("someone/half", f"a/{path.name}")
    assert Path(loaded).read_bytes() == path.read_bytes()


def test_a_second_push_leaves_nothing_of_the_first(hub: HubServer, tmp_path: Path) -> None:
    repo = "someone/again"
    save_measured(make_sae("sa_gsae"), tmp_path / "first")
    (tmp_path / "first" / "runner_cfg.json").write_text("{}")
    make_sae("sa_gsae", d_sae=D_SAE + 1).save_model(tmp_path / "second")  # no sparsity file
    hub_module.push(tmp_path / "first", repo, "a")
    hub.repos[repo]["a/notes.txt"] = b"of somebody else"
    hub_module.push(tmp_path / "first", repo, "b")
    hub_module.push(tmp_path / "second", repo, "a")
    weights = {"cfg.json", "sae_weights.safetensors"}
    held = {
        folder: {path.split("/")[1] for path in hub.repos[repo] if path.split("/")[0] == folder}
        for folder in ("a", "a-plain", "b", "b-plain")
    }
    assert held == {
        "a": weights | {"notes.txt"},
        "a-plain": weights,
        "b": weights | {"sparsity.safetensors", "runner_cfg.json"},
        "b-plain": weights | {"sparsity.safetensors"},
    }
    sae, _, log_sparsity = SAE.from_pretrained_with_cfg_and_sparsity(repo, "a", force_download=True)
    assert sae.cfg.d_sae == D_SAE + 1
    assert log_sparsity is None


def test_push_keeps_the_other_saes_of_a_card(hub: HubServer, tmp_path: Path) -> None:
    save_measured(make_sae("sa_gsae"), tmp_path)
    for sae_id in ("one", "two", "one"):
        hub_module.push(tmp_path, REPO, sae_id)
    text = hub.repos[REPO]["README.md"].decode()
    assert text.count("## `one`") == 1
    assert text.count("## `two`") == 1


def test_a_hub_that_answers_500(hub: HubServer, tmp_path: Path) -> None:
    save_measured(make_sae("sa_gsae"), tmp_path)
    hub.broken = r"/commit/main$"
    with pytest.raises(HfHubHTTPError, match="500"):
        hub_module.push(tmp_path, "someone/broken", "a")
    assert hub.repos["someone/broken"] == {}


@pytest.mark.parametrize("sae_id", ["", "../a", "/a", "a/", "a:b", "a//b", "a b", "a-plain"])
def test_an_id_that_is_no_folder_or_that_of_a_twin(
    sae_id: str, hub: HubServer, tmp_path: Path
) -> None:
    save_measured(make_sae("sa_gsae"), tmp_path)
    with pytest.raises(InvalidInputError, match="sae_id must be") as error:
        hub_module.push(tmp_path, "someone/ids", sae_id)
    assert "\n" not in str(error.value)
    assert not hub.log


@pytest.mark.parametrize("repo_id", ["", "my-saes", "https://huggingface.co/someone/ids"])
def test_a_repository_without_an_owner_is_not_made(
    repo_id: str, hub: HubServer, tmp_path: Path
) -> None:
    save_measured(make_sae("sa_gsae"), tmp_path)
    with pytest.raises(InvalidInputError, match="repo_id must be owner/name, got '"):
        hub_module.push(tmp_path, repo_id, "a")
    assert not hub.log


def test_an_sae_on_the_hub_without_its_scale_is_one_line(hub: HubServer) -> None:
    sae = make_training_sae("sa_gsae", normalize_activations="expected_average_only_in")
    upload_saes_to_huggingface({"a": sae}, "someone/unfolded", show_progress=False)
    with pytest.raises(ConfigError, match="someone/unfolded:a is of activations that 'expected_av"):
        load_sae_reference("someone/unfolded:a")
    sae.fold_activation_norm_scaling_factor(3.0)
    upload_saes_to_huggingface({"a": sae}, "someone/folded", show_progress=False)
    loaded = load_sae_reference("someone/folded:a")
    torch.testing.assert_close(loaded(x_batch()), sae(x_batch()))


def test_push_refuses_what_is_not_a_signed_sae(hub: HubServer, tmp_path: Path) -> None:
    from sae_lens import StandardSAE, StandardSAEConfig

    with pytest.raises(ConfigError, match=r"has no cfg\.json"):
        hub_module.push(tmp_path, REPO, "a")
    StandardSAE(StandardSAEConfig(d_in=4, d_sae=4)).save_model(tmp_path)
    with pytest.raises(
        ConfigError, match=r"push takes a signed SAE, one of .*bi_jumprelu.*sa_gsae"
    ):
        hub_module.push(tmp_path, REPO, "a")
    (tmp_path / "cfg.json").write_text("{not json")
    with pytest.raises(ConfigError, match="cannot be loaded") as error:
        hub_module.push(tmp_path, REPO, "a")
    assert "\n" not in str(error.value)
    assert hub.log == []


def test_a_card_that_cannot_be_read_is_not_replaced(hub: HubServer, tmp_path: Path) -> None:
    save_measured(make_sae("sa_gsae"), tmp_path)
    hub_module.push(tmp_path, "someone/cards", "one")
    before = dict(hub.repos["someone/cards"])
    hub.broken = r"/resolve/main/README.md$"
    hub.fault = 501  # after 500 the client repeats a read for 23 s
    with pytest.raises((LocalEntryNotFoundError, HfHubHTTPError)):
        hub_module.push(tmp_path, "someone/cards", "two")
    assert hub.repos["someone/cards"] == before


def test_push_keeps_the_metadata_of_a_card(hub: HubServer, tmp_path: Path) -> None:
    save_measured(make_sae("sa_gsae"), tmp_path)
    hub.repos["someone/kept"] = {
        "README.md": b"---\nlicense: mit\ntags:\n- mine\ndatasets:\n- a/b\n---\n\nMine.\n"
    }
    hub_module.push(tmp_path, "someone/kept", "one", base_model="c/d")
    hub_module.push(tmp_path, "someone/kept", "two")
    card = ModelCard(hub.repos["someone/kept"]["README.md"].decode())
    assert card.data.license == "mit"
    assert card.data.tags[0] == "mine"
    assert "sa_gsae" in card.data.tags
    assert card.data.datasets == ["a/b", "monology/pile-uncopyrighted"]
    assert card.data.base_model == ["c/d", "EleutherAI/pythia-1b"]
    assert card.text.lstrip().startswith("Mine.")


def test_what_was_measured_of_other_weights_is_not_published(
    hub: HubServer, tmp_path: Path
) -> None:
    sae = make_sae("sa_gsae")
    save_measured(sae, tmp_path)
    sae.W_enc.data.mul_(2)
    sae.save_model(tmp_path)  # what lies beside it is of before
    hub_module.push(tmp_path, "someone/stale", "a")
    assert "not measured" in hub.repos["someone/stale"]["README.md"].decode()
    assert not [
        name for name in hub.repos["someone/stale"] if name.endswith("sparsity.safetensors")
    ]


def test_a_wrong_card_stops_push_before_anything_is_public(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_measured(make_sae("sa_gsae"), tmp_path)

    def refuses(*_: Any, **__: Any) -> None:
        raise ValueError("base_model is not a model\nin two lines")

    monkeypatch.setattr(ModelCard, "validate", refuses)
    with pytest.raises(ConfigError, match="model card: base_model is not a model in two lines"):
        hub_module.push(tmp_path, "someone/refused", "a")
    assert "someone/refused" not in hub.repos


def test_broken_front_matter_of_a_card_is_one_line(hub: HubServer, tmp_path: Path) -> None:
    save_measured(make_sae("sa_gsae"), tmp_path)
    broken = {"README.md": b"---\ntags: [a\nlicense: : x\n---\n\nMine.\n"}
    hub.repos["someone/broken"] = dict(broken)
    with pytest.raises(ConfigError, match=r"^someone/broken: its README.md has broken") as error:
        hub_module.push(tmp_path, "someone/broken", "a")
    assert "\n" not in str(error.value)
    assert hub.repos["someone/broken"] == broken


def test_a_section_whose_marks_stand_the_wrong_way_round_is_written_anew(
    hub: HubServer, tmp_path: Path
) -> None:
    save_measured(make_sae("sa_gsae"), tmp_path)
    hub.repos["someone/round"] = {"README.md": b"<!-- end sae:a -->\nMine.\n<!-- sae:a -->\n"}
    hub_module.push(tmp_path, "someone/round", "a")
    text = ModelCard(hub.repos["someone/round"]["README.md"].decode()).text
    assert "Mine." in text
    assert text.index("| L0 |") > text.index("Mine.")
    assert text.rstrip().endswith("<!-- end sae:a -->")


def test_two_pushes_at_once_both_have_their_section(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_measured(make_sae("sa_gsae"), tmp_path)
    upload = hub_module.upload_saes_to_huggingface

    def upload_beside_another(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(hub_module, "upload_saes_to_huggingface", upload)
        hub_module.push(tmp_path, "someone/two", "other")
        upload(*args, **kwargs)

    monkeypatch.setattr(hub_module, "upload_saes_to_huggingface", upload_beside_another)
    hub_module.push(tmp_path, "someone/two", "one")
    card = hub.repos["someone/two"]["README.md"].decode()
    assert "<!-- sae:one -->" in card
    assert "<!-- sae:other -->" in card


def test_a_folder_with_a_colon_in_its_name_is_not_asked_of_the_hub(
    hub: HubServer, tmp_path: Path
) -> None:
    make_sae("sa_gsae").save_model(tmp_path / "a:b")
    assert load_sae_reference(str(tmp_path / "a:b")).cfg.architecture() == "sa_gsae"
    assert not hub.log


@pytest.mark.parametrize("base", [OSError, Exception])
def test_what_the_disk_or_the_network_refuses_is_no_broken_sae(
    base: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = type("ReadTimeout", (base,), {"__module__": "httpx"})("timed out")

    def refuses(*_: Any) -> None:
        raise error

    monkeypatch.setattr(SAE, "from_pretrained", refuses)
    with pytest.raises(type(error)) as raised:
        load_sae_reference(f"{REPO}:a")
    assert raised.value is error
