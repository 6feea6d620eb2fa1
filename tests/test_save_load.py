"""Files: what a training saves, uploads and resumes from computes the same when it is loaded."""

import importlib
from typing import Any

import pytest
import torch
from sae_lens import SAE, SAETrainer, TrainingSAE, upload_saes_to_huggingface
from sae_lens.registry import (
    SAE_CLASS_REGISTRY,
    SAE_TRAINING_CLASS_REGISTRY,
    get_sae_class,
    get_sae_training_class,
)
from safetensors.torch import load_file
from torch.testing import assert_close

import sae_lens_signaware.saes
from sae_lens_signaware.saes.common import TRAINING_STATE
from tests.architectures import (
    ARCHITECTURES,
    BATCH,
    TABLE,
    VARIANTS,
    batches,
    each_architecture,
    each_variant,
    inference_sae,
    inputs,
    run_step,
    saved,
    trainer_config,
    training_sae,
)

SAVED_AS = {variant: "bi_jumprelu" for variant in TABLE if "batchtopk" in variant}
AS_THEMSELVES = [v for v in VARIANTS if v not in SAVED_AS]
each_saved_as_itself = pytest.mark.parametrize("variant", AS_THEMSELVES)


def settle(sae: Any, x: torch.Tensor) -> None:
    """A running threshold at which the saved SAE keeps what a BatchTopK keeps of ``x``."""
    if hasattr(sae, "topk_threshold"):
        with torch.no_grad():
            pre = sae.encode_with_hidden_pre(x)[1]
            size = sae.activate(pre, sae.rows(pre.dtype)).abs().flatten().sort().values
        n = int(sae.cfg.k * len(x))
        sae.topk_threshold.fill_(size[-n - 1 : len(size) - n + 1].mean().item())


@each_variant
def test_an_inference_model_computes_what_its_training_does(variant, tmp_path):
    sae, x = training_sae(variant, threshold=0.5), inputs()
    settle(sae, x)
    sae.save_inference_model(tmp_path)
    loaded = SAE.load_from_disk(tmp_path)
    architecture = TABLE[variant][0]
    assert type(loaded) is get_sae_class(SAVED_AS.get(variant, architecture))[0]
    assert loaded.cfg.metadata.training_architecture == architecture
    with torch.no_grad():
        assert (loaded.encode(x) != 0).sum() > BATCH
        assert_close(loaded(x), sae(x))
        norm = 1.0
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False) is False and "batch" in variant:
            norm = sae.W_dec.norm(dim=1)
        assert_close(loaded.encode(x) * norm, sae.encode(x))
    assert not set(TRAINING_STATE) & set(load_file(tmp_path / "sae_weights.safetensors"))
    # and again, by the inference SAE itself
    loaded.save_model(tmp_path / "again")
    again = SAE.load_from_disk(tmp_path / "again")
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in loaded.state_dict().items())


@pytest.mark.parametrize("fields", [{}, {"rescale_acts_by_decoder_norm": False}])
@pytest.mark.parametrize("variant", list(SAVED_AS))
def test_a_saved_batchtopk_keeps_what_its_threshold_says(variant, fields):
    sae, x = training_sae(variant, dtype="float64", **fields), inputs(dtype=torch.float64)
    sae.topk_threshold.fill_(0.4)
    loaded = saved(sae)
    norm = 1.0 if fields else sae.W_dec.norm(dim=1)
    h = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    one_sided = "one_sided" in variant
    u = h.sign() * torch.relu(h.abs() + sae.b_mag) * norm * (1 if not one_sided else h > 0)
    wanted = u * (u.abs() > 0.4)
    assert 0.05 < (wanted != 0).double().mean() < 0.95
    assert_close(loaded.encode(x), wanted)
    assert_close(loaded.threshold, torch.relu(0.4 - sae.b_mag * norm))
    assert torch.equal(sae.to_inference().encode(x), loaded.encode(x))


@each_saved_as_itself
def test_an_upload_of_the_training_sae_loads_for_inference(variant, hub):
    sae = training_sae(variant, threshold=0.5)
    if variant == "bi_topk":
        sae.b_mag.data[:, ::2] = 0.1  # as the last step may leave it
    upload_saes_to_huggingface({"a": sae}, "someone/saes", show_progress=False)
    loaded = SAE.from_pretrained("someone/saes", "a")
    assert type(loaded) is get_sae_class(TABLE[variant][0])[0]
    assert_close(loaded(inputs()), sae(inputs()))


@each_variant
def test_a_training_goes_on_from_its_own_file(variant, tmp_path):
    sae = training_sae(variant, dead_after_tokens=2000)
    for x in (inputs(), inputs(seed=2)):
        run_step(sae, x)
    sae.save_model(tmp_path)
    loaded = TrainingSAE.load_from_disk(tmp_path)
    assert type(loaded) is type(sae)
    assert loaded.cfg == sae.cfg
    for name, tensor in sae.state_dict().items():
        assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=1e-7, msg=name)


@each_saved_as_itself
def test_an_inference_sae_loads_for_a_new_training(variant, tmp_path):
    sae, x = inference_sae(variant), inputs()
    sae.save_model(tmp_path)
    training: Any = TrainingSAE.load_from_disk(tmp_path)
    assert type(training) is get_sae_training_class(TABLE[variant][0])[0]
    assert_close(training(x), sae(x))
    assert not training.tokens_since_active.any()
    SAETrainer(trainer_config(3), training, batches()).fit()


@each_architecture
def test_files_load_in_other_dtypes(variant, tmp_path):
    sae = training_sae(variant, threshold=0.5)
    sae.save_inference_model(tmp_path)
    sae.save_model(tmp_path / "training")
    for dtype in (torch.bfloat16, torch.float64):
        name = str(dtype).removeprefix("torch.")
        loaded = SAE.load_from_disk(tmp_path, dtype=name)
        assert {t.dtype for t in loaded.state_dict().values()} == {dtype}
        assert loaded(inputs(dtype=dtype)).dtype == dtype
        training = TrainingSAE.load_from_disk(tmp_path / "training", dtype=name)
        assert training.W_enc.dtype == dtype
        run_step(training, inputs(dtype=dtype)).loss.backward()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@each_architecture
def test_a_resumed_training_is_the_one_that_was_not_cut_off(variant, dtype, tmp_path):
    fields: dict[str, Any] = {"dtype": dtype, "dead_after_tokens": 256}
    fields |= {"target_l0": 3.0} if "topk" not in variant else {"k_anneal_steps": 12}

    def start(seed: int) -> Any:
        source = (batch.to(getattr(torch, dtype)) for batch in batches())
        return SAETrainer(trainer_config(16), training_sae(variant, 0.5, seed, **fields), source)

    whole, cut = start(5), start(5)
    whole.fit()
    for _ in range(9):
        cut.step(next(cut.data_provider))
        cut.n_training_steps += 1
    cut.save_checkpoint("cut", base_path=tmp_path)
    resumed = start(6)  # of other weights
    resumed.sae.load_weights_from_checkpoint(tmp_path / "cut")
    resumed.load_trainer_state(tmp_path / "cut")
    for _ in range(9):
        next(resumed.data_provider)
    resumed.fit()
    assert resumed.n_training_steps == whole.n_training_steps == 16
    for name, tensor in whole.sae.state_dict().items():
        assert torch.equal(resumed.sae.state_dict()[name], tensor), name


def test_registered_once_and_a_reload_does_no_harm():
    def registered() -> dict[str, list[str]]:
        registries = {"inference": SAE_CLASS_REGISTRY, "training": SAE_TRAINING_CLASS_REGISTRY}
        return {n: sorted(set(r) & set(ARCHITECTURES)) for n, r in registries.items()}

    wanted = {
        "inference": ["bi_jumprelu", "bi_topk", "sa_gsae"],
        "training": sorted(ARCHITECTURES),
    }
    assert registered() == wanted
    importlib.reload(sae_lens_signaware.saes)
    assert registered() == wanted
    assert sae_lens_signaware.saes.is_signed(inference_sae("bi_batchtopk"))


def test_draws_no_random_numbers():
    sae = training_sae("bi_batchtopk")
    before = torch.get_rng_state()
    sae.to_inference()
    sae_lens_signaware.saes.split_polarities(sae)
    assert torch.equal(torch.get_rng_state(), before)
