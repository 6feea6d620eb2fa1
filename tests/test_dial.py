"""The dial adds a direction of norm 1 at the SAE's hook; its effect and verdicts by hand."""

from typing import Any

import pytest
import torch
from sae_lens import SAE
from sae_lens.load_model import load_model
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from torch.nn.functional import cross_entropy

from sae_lens_signaware.evaluation import polarity_dial
from sae_lens_signaware.evaluation.dial import PolarityDial
from sae_lens_signaware.evaluation.results import Provenance
from sae_lens_signaware.saes import BiTopKSAE, BiTopKSAEConfig

HOOK, D_IN = "transformer.h.0.mlp", 16
TOKENS = torch.randint(63, (3, 6), generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return load_model("AutoModelForCausalLM", str(tiny_model), "cpu", {}, [HOOK])


def small_sae(signed: bool) -> SAE[Any]:
    fields: dict[str, Any] = {"d_in": D_IN, "d_sae": 6, "k": 3}
    sae: Any = BiTopKSAE(BiTopKSAEConfig(**fields)) if signed else TopKSAE(TopKSAEConfig(**fields))
    sae.W_dec.data.normal_(generator=torch.Generator().manual_seed(1))
    sae.cfg.metadata.hook_name = HOOK
    return sae


@pytest.mark.parametrize("latent", [2, (2, 5)])
@pytest.mark.parametrize("logit_tokens", [None, (7, 9)])
def test_effect_by_hand(model: Any, latent: Any, logit_tokens: Any) -> None:
    sae = small_sae(signed=latent == 2)
    unit = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
    ends = {1: unit[2], -1: -unit[2] if latent == 2 else unit[5]}

    def measure(c: float) -> float:
        added = abs(c) * ends[1 if c > 0 else -1]
        module = model.model.get_submodule(HOOK)
        handle = module.register_forward_hook(lambda _m, _i, out: out + added)
        with torch.no_grad():
            logits = model.model(TOKENS).logits
        handle.remove()
        if logit_tokens:
            return (logits[:, -1, 7] - logits[:, -1, 9]).mean().item()
        return cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()).item()

    dial = polarity_dial(model, sae, latent, TOKENS, [3, 1], logit_tokens)
    assert dial.coefficients.tolist() == [-3, -1, 0, 1, 3]
    assert dial.baseline == pytest.approx(measure(0), abs=1e-5)
    expected = [measure(c) - measure(0) for c in (-3, -1, 0, 1, 3)]
    assert dial.effect.tolist() == pytest.approx(expected, abs=2e-5)
    assert (dial.latent_pos, dial.latent_neg) == ((2, 2) if latent == 2 else (2, 5))


@pytest.mark.parametrize(
    ("effect", "monotone", "sign_changing", "symmetry"),
    [
        ([-2.0, -1, 0, 1, 2], True, True, 1.0),
        ([2.0, 1, 0, 1, 2], False, False, 0.0),
        ([-1.0, 1, 0, 1, 3], False, False, 4 / 8),  # odd: 0 + 4, even: 2 + 2
    ],
)
def test_verdicts_by_hand(
    effect: list[float], monotone: bool, sign_changing: bool, symmetry: float
) -> None:
    provenance = Provenance.of(small_sae(signed=True), 1)
    c, e = torch.tensor([-2.0, -1, 0, 1, 2]), torch.tensor(effect)
    dial = PolarityDial(provenance, c, e, 0.0, "loss", 0, 0, -1.0)
    assert (dial.monotone, dial.sign_changing) == (monotone, sign_changing)
    assert dial.symmetry == pytest.approx(symmetry)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"latent": 6}, "latents"),
        ({"latent": 0}, "latent"),
        ({"coefficients": [0, 1]}, "coefficients"),
        ({"coefficients": []}, "coefficients"),
        ({"hook_name": "transformer.h.9.mlp"}, "hook_name"),
        ({"hook_name": "lm_head"}, "lm_head"),
    ],
)
def test_bad_input_names_its_field(model: Any, changed: dict[str, Any], field: str) -> None:
    sae = small_sae(signed=True)
    sae.W_dec.data[0] = 0
    arguments = {"latent": 1, "tokens": TOKENS, "coefficients": [1], **changed}
    sae.cfg.metadata.hook_name = arguments.pop("hook_name", HOOK)
    with pytest.raises(ValueError, match=field):
        polarity_dial(model, sae, **arguments)
