"""Every architecture computes what it computed when its values were frozen (tests/golden)."""

import pytest
import torch
from safetensors.torch import load_file

import sae_lens_signaware.saes  # noqa: F401  # registers the architectures
from tests.golden import FILE, VARIANTS, record

FROZEN = load_file(FILE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_give_the_frozen_values(variant):
    found = record(variant)
    frozen = {name: t for name, t in FROZEN.items() if name.startswith(f"{variant}/")}
    assert found.keys() == frozen.keys()
    for name, tensor in frozen.items():
        torch.testing.assert_close(found[name].float(), tensor, atol=2e-5, rtol=1e-4, msg=name)
