"""Models as SAELens hooks them: logits of one position of each row, and errors of their loading."""

from typing import Any

import pytest
import torch
from sae_lens.load_model import HookedProxyLM
from torch import Tensor

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.evaluation import models
from sae_lens_signaware.evaluation.prompts import hooked_activations
from sae_lens_signaware.training.hooks import naming_what_is_missing
from tests.support.models import HOOK, hooked_transformer, prompt_ids, tiny_gpt2, tiny_tokenizer

PROXY_HOOK = "transformer.h.0.mlp"


def of_transformers() -> HookedProxyLM:
    return HookedProxyLM(tiny_gpt2().eval(), tiny_tokenizer(), [PROXY_HOOK])


@pytest.mark.parametrize(
    ("make", "hook", "keeps"),
    [
        (hooked_transformer, HOOK, True),
        (of_transformers, PROXY_HOOK, True),
        (of_transformers, PROXY_HOOK, False),  # as a model of an older transformers is
    ],
)
@torch.no_grad()
def test_logits_after_a_position_of_each_row(
    make: Any, hook: str, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not keeps:
        monkeypatch.setattr(models, "_keeps_logits", lambda model: False)
    model, rows = make(), prompt_ids(5)
    last = rows.shape[1] - 1
    at = torch.tensor([2, 0, 2, last, 1])

    def write(x: Tensor, hook: Any) -> Tensor:
        x = x.clone()
        x[torch.arange(5), at, 0] += 3.0  # a layer norm would take off a constant
        return x

    found = models.logits_after(model, rows, at, [(hook, write)])
    logits = model.run_with_hooks(rows, prepend_bos=False, fwd_hooks=[(hook, write)])
    torch.testing.assert_close(found, logits[torch.arange(5), at])
    # the hook has an effect there, and is gone afterwards
    plain = models.logits_after(model, rows, at, [])
    assert (found - plain).abs().amax(1).min() > 1e-3
    torch.testing.assert_close(plain, model(rows, prepend_bos=False)[torch.arange(5), at])


@torch.no_grad()
def test_a_model_of_transformers_computes_the_logits_of_these_positions_alone() -> None:
    seen: list[torch.Size] = []
    model, rows = of_transformers(), prompt_ids(3)
    head = model.model.get_submodule("lm_head")
    head.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    models.logits_after(model, rows, torch.tensor([1, 3, 1]), [])
    assert [tuple(shape) for shape in seen] == [(3, 2, 64)]


@pytest.mark.parametrize(
    "measure",
    [
        lambda model, ids: models.logits_after(model, ids, torch.tensor([2, 3]), []),
        lambda model, ids: hooked_activations(model, ids, [(PROXY_HOOK, None)])[0],
    ],
    ids=["logits", "activations"],
)
def test_tokens_come_to_the_device_of_a_model_of_transformers(measure: Any) -> None:
    model, devices = of_transformers().to("meta"), []
    embedding = model.model.get_input_embeddings()
    embedding.register_forward_pre_hook(lambda _, args: devices.append(args[0].device.type))
    assert measure(model, prompt_ids(2)).device.type == "meta"  # which stands for a GPU
    assert devices == ["meta"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("mamba-lens must be installed to work"), r"^model_class_name: mamba-lens must"),
        (
            RuntimeError("You set `ignore_mismatched_sizes` to `False`, thus"),
            r"^model_name: the weights do not fit its config\.json: You set",
        ),
    ],
)
def test_what_a_library_says_of_a_model_is_one_line(error: Exception, line: str) -> None:
    with pytest.raises(ConfigError, match=line), naming_what_is_missing("m", "HookedMamba", {}):
        raise error


def test_a_defect_is_not_blamed_on_keyword_arguments_that_are_not_there() -> None:
    error = AttributeError("module 'torch' has no attribute 'fp16'")
    with (
        pytest.raises(ConfigError, match=r"^model_from_pretrained_kwargs: module 'torch' has no"),
        naming_what_is_missing("m", "AutoModelForCausalLM", {"dtype": "fp16"}),
    ):
        raise error
    with pytest.raises(AttributeError), naming_what_is_missing("m", "AutoModelForCausalLM", {}):
        raise error
