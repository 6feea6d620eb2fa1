"""SAEs and torch's devices: measures where there is no float64, and another default device.

Sums in float64 are for the CPU alone.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformer_lens import HookedTransformer

import sae_lens_signaware as signaware
from tests.mps_device import DEVICE, MPSDevice, is_on_device, place
from tests.support.models import HOOK, hooked_transformer, prompt_ids, tiny_model_config
from tests.support.saes import D_IN, each_variant, make_sae, make_training_sae
from tests.support.training import path, step_input


def test_the_stand_in_refuses_what_mps_refuses() -> None:
    x = torch.randn(3, 4)
    with MPSDevice():
        place(x)
        assert x.device == DEVICE
        assert is_on_device(x * 2)
        assert is_on_device(torch.zeros(2, device=DEVICE))
        assert x.cpu().double().dtype == torch.float64
        with pytest.raises(TypeError, match="MPS has no float64"):
            x.double()
        with pytest.raises(TypeError, match="MPS has no float64"):
            x.cpu().double().to(DEVICE)
        with pytest.raises(RuntimeError, match="tensors on mps and on cpu"):
            x + torch.ones(3, 4)


def on_device(sae: Any) -> Any:
    place(*sae.parameters())
    sae.device = DEVICE
    return sae


@each_variant
def test_measures_of_an_sae_on_a_device_without_float64(architecture: str, tying: str) -> None:
    sae, x = make_sae(architecture, tying), torch.randn(300, D_IN)
    with torch.no_grad():
        sae.W_dec[1] = -sae.W_dec[0]  # a pair for the audit
    expected = signaware.analyze_sae(sae, x)
    audit = signaware.antipodal_audit(sae, x)
    with MPSDevice():
        measured = signaware.analyze_sae(on_device(sae), x)
        measured_audit = signaware.antipodal_audit(sae, x)
        quality, _ = signaware.measure_quality(sae, x, "noise")
    for name in ("energy_pos", "energy_neg", "firing_rate_pos"):
        got, here = getattr(measured.census, name), getattr(expected.census, name)
        torch.testing.assert_close(got, here)
    torch.testing.assert_close(
        measured.calibration.gain_neg,
        expected.calibration.gain_neg,
        rtol=1e-4,
        atol=1e-5,
        equal_nan=architecture == "bi_topk",  # one of its latents is never negative
    )
    assert measured.calibration.gain_neg.isfinite().sum() > D_IN
    assert measured_audit.n_pairs == 1
    torch.testing.assert_close(measured_audit.correlation, audit.correlation)
    assert quality.explained_variance == pytest.approx(expected.explained_variance)


def test_the_dial_on_a_device_without_float64() -> None:
    model, sae = HookedTransformer(tiny_model_config()), make_sae("sa_gsae")
    sae.cfg.metadata.hook_name = HOOK
    tokens = torch.randint(0, 64, (2, 5))
    args = (model, sae, 3, tokens, [1.0])
    expected = signaware.polarity_dial(*args, logit_tokens=(1, 2))

    class OnDevice:
        """The model, its logits on the device."""

        hook_dict = model.hook_dict
        parameters = model.parameters

        def run_with_hooks(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            with torch._C.DisableTorchFunction():
                logits = model.run_with_hooks(*args, **kwargs)
            place(logits)
            return logits

    with MPSDevice():
        dial = signaware.polarity_dial(OnDevice(), on_device(sae), *args[2:], logit_tokens=(1, 2))
    torch.testing.assert_close(dial.effect, expected.effect)


def test_the_latents_of_a_text_on_a_device_without_float64() -> None:
    model, sae = hooked_transformer(), make_sae("sa_gsae")
    sae.cfg.metadata.hook_name = HOOK
    expected = signaware.signed_latents(model, sae, "w5 w9").tokens
    with MPSDevice():
        found = signaware.signed_latents(model, on_device(sae), "w5 w9").tokens
    assert [token.latents for token in found] == [token.latents for token in expected]


@each_variant
def test_another_default_device_does_not_matter(architecture: str, tying: str) -> None:
    training = make_training_sae(architecture, tying)
    sae = make_sae(architecture, tying)
    x = torch.randn(30, D_IN, generator=torch.Generator().manual_seed(4))

    def results() -> list[torch.Tensor]:
        training.zero_grad()
        output = training.training_forward_pass(step_input(x, n_training_steps=1))
        output.loss.backward()
        acts = output.feature_acts
        with torch.no_grad():
            sparse = sae.encode_sparse(x)
            decoded = sae.decode(sparse)
        grads = [param.grad for param in training.parameters() if param.grad is not None]
        dense = [z.to_dense() if z.is_sparse else z for z in (acts, sparse)]
        return [output.loss.detach(), *dense, decoded, *grads]

    with path(True):
        expected = copy.deepcopy(results())
        with torch.device("meta"):  # a tensor that is made there has no values
            found = results()
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted)


def test_texts_and_pairs_do_not_depend_on_the_default_device() -> None:
    sae = signaware.split_polarities(make_sae("bi_jumprelu"))
    x = torch.randn(300, D_IN)
    source = signaware.TextActivations(torch.randn(5, D_IN), torch.tensor([2, 3]), HOOK)
    expected = signaware.merge_antipodal(sae, x)(x)
    texts = list(source.batches(4))
    with torch.device("meta"):
        merged = signaware.merge_antipodal(sae, x)
        found = list(source.batches(4))
    torch.testing.assert_close(merged(x), expected)
    torch.testing.assert_close(found, texts)
    assert torch.cat([text for _, text in found]).tolist() == [0, 0, 1, 1, 1]


def test_results_are_on_the_cpu_whatever_the_default_device(tmp_path: Path) -> None:
    model, sae = hooked_transformer(), make_sae("sa_gsae")
    sae.cfg.metadata.hook_name = HOOK
    tokens = prompt_ids(20)

    def results() -> list[torch.Tensor]:
        census = signaware.bipolar_census(sae, torch.ones(3, D_IN, device="cpu"))
        census.write(tmp_path / "census.json")
        read = signaware.BipolarCensus.read(tmp_path / "census.json")
        dial = signaware.polarity_dial(model, sae, 3, tokens, [1.0])
        sides = signaware.side_opposition(model, sae, tokens, [3, 5], k=3)
        return [read.energy_pos, dial.coefficients, dial.effect, sides.latents, sides.opposition]

    expected = results()
    with torch.device("meta"):
        found = results()
    torch.testing.assert_close(found, expected, equal_nan=True)
