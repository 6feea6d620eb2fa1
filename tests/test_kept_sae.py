"""Which trained SAE is kept where something fails, and where one goes that has no folder."""

import os
from pathlib import Path
from typing import Any

import pytest
from sae_lens import SAE, SAETrainer
from transformer_lens import HookedTransformer

from sae_lens_signaware.training.output import keep_trained
from tests.support.checked_runs import make_runner
from tests.support.models import tiny_model_config
from tests.support.saes import make_training_sae, training_config


def test_what_is_whole_is_kept_beside_the_folder_or_inside_it_or_where_it_is(
    tmp_path: Path,
) -> None:
    sae, folder = make_training_sae("sa_gsae"), tmp_path / "out"
    name = f"out.kept-{os.getpid()}"
    beside, inside = tmp_path / name, folder / name
    for blocked, kept_in in (([], beside), ([beside], inside), ([beside, inside], None)):
        for path in blocked:
            (path / "mine").mkdir(parents=True, exist_ok=True)
        staging = tmp_path / f"staging-{len(blocked)}"
        sae.save_inference_model(staging)
        folder.mkdir(exist_ok=True)
        kept = keep_trained(sae, staging, folder, [])
        assert kept == (kept_in or staging)
        assert SAE.load_from_disk(kept).cfg.architecture() == "sa_gsae"


def test_of_the_other_places_the_first_that_holds_a_whole_sae_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae, save = (
        make_training_sae("sa_gsae"),
        type(make_training_sae("sa_gsae")).save_inference_model,
    )

    def saves(path: Path) -> Any:
        if path.name == "refuses":
            raise OSError("No space left on device")
        made = save(sae, path)
        if path.name == "cuts":
            (path / "sae_weights.safetensors").write_bytes(b"")
        return made

    monkeypatch.setattr(sae, "save_inference_model", saves)
    places = [tmp_path / name for name in ("refuses", "cuts", "takes", "takes-too")]
    staging = tmp_path / "staging"
    staging.mkdir()
    assert keep_trained(sae, staging, tmp_path / "out", places) == tmp_path / "takes"
    assert not staging.exists()
    assert not (tmp_path / "takes-too").exists()
    assert keep_trained(sae, staging, tmp_path / "out", places[:2]) is None


@pytest.mark.parametrize("normalize", ["none", "expected_average_only_in", "covariance_whitening"])
def test_an_sae_whose_scale_is_not_folded_in_is_not_taken_for_a_trained_one(
    normalize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise OSError("fails")

    # what SAELens does after the last step: it folds a scale in, then completes the metadata
    monkeypatch.setattr(SAE, "fold_activation_norm_scaling_factor", fails)
    monkeypatch.setattr(SAE, "fold_activation_whitening", fails)
    monkeypatch.setattr(SAETrainer, "set_final_sae_metadata", fails)
    sae = training_config("sa_gsae", normalize_activations=normalize)
    model = HookedTransformer(tiny_model_config())
    runner = make_runner(tmp_path, model, sae=sae, n_batches_for_norm_estimate=3)
    if normalize == "none":
        runner.run()
    else:
        with pytest.raises(OSError, match="fails"):
            runner.run()
    assert (tmp_path / "out").exists() == (normalize == "none")
