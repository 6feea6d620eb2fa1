"""An architecture of a user that finds its active latents by itself."""

from typing import Any

import pytest
import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware import saes
from tests import test_own_architectures
from tests.support.training import step_input
from tests.test_own_architectures import (
    D_IN,
    D_SAE,
    Config,
    Own,
    OwnSAE,
    Training,
    TrainingConfig,
    training,
)

registered = test_own_architectures.registered  # the fixture that registers, for this file too


class Found(Own):
    """Finds its active latents by itself, the last ones first."""

    n_found = 1

    def _activate(self, pre: Tensor, latents: saes.Latents) -> Tensor:
        if isinstance(latents, saes.ActiveLatents):
            return pre * self.gain.to(pre.dtype)
        return super()._activate(pre, latents)

    def _find_active(self, x_c: Tensor, margin: float) -> tuple[saes.ActiveLatents, Tensor]:
        pre = x_c @ self.W_enc
        latent = pre.abs().topk(self.cfg.k, dim=-1).indices.T.flip(0).repeat(self.n_found, 1)
        token = torch.arange(len(x_c)).expand_as(latent)
        values = pre[token, latent]
        shape = len(x_c), self.cfg.d_sae
        return saes.ActiveLatents(token.reshape(-1), latent.reshape(-1), *shape), values.view(-1)


class FoundSAE(Found, SAE[Config]): ...


def test_what_an_architecture_finds_is_put_in_order_and_gives_way_to_hooks() -> None:
    torch.manual_seed(0)
    sae, x = FoundSAE(Config(d_in=D_IN, d_sae=D_SAE)), torch.randn(9, D_IN)
    dense = OwnSAE(sae.cfg)
    dense.load_state_dict(sae.state_dict())
    with torch.no_grad():
        assert sae._active_of(sae.process_sae_in(x), 0.0) is not None
        torch.testing.assert_close(sae(x), dense(x))
        torch.testing.assert_close(sae.decode(sae.encode_sparse(x)), dense(x))
        zeros = [("hook_sae_acts_pre", lambda pre, hook: torch.zeros_like(pre))]
        torch.testing.assert_close(sae.run_with_hooks(x, fwd_hooks=zeros), sae.b_dec.expand(9, -1))
        sae.n_found = 2
        with pytest.raises(ValueError, match=r"^latent \d+ of token 0 is twice among the active"):
            sae.encode(x)
        # a tenth of all latents is the most for which they are worth while
        sae.n_found, sae.cfg.k = 1, 21
        assert sae._active_of(sae.process_sae_in(x), 0.0) is None


def test_a_step_over_what_an_architecture_finds_is_that_over_all_latents() -> None:
    class FoundTraining(Found, Training): ...

    def step(sae: Any) -> Any:
        out = sae.training_forward_pass(step_input(torch.randn(9, D_IN)))
        out.loss.backward()
        return out

    sae, dense = FoundTraining(TrainingConfig(d_in=D_IN, d_sae=D_SAE)), training()
    dense.load_state_dict(sae.state_dict())
    torch.manual_seed(1)
    found = step(sae)
    torch.manual_seed(1)
    everything = step(dense)
    assert found.feature_acts.is_sparse
    torch.testing.assert_close(found.feature_acts.to_dense(), everything.feature_acts)
    torch.testing.assert_close(found.loss, everything.loss)
    for name, param in dense.named_parameters():
        torch.testing.assert_close(sae.get_parameter(name).grad, param.grad, msg=name)
