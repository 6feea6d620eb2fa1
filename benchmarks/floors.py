"""Products and Adam alone, with nothing around them: what steps, encode and decode could cost."""

from collections.abc import Callable

import torch
from torch import Tensor

Runs = dict[str, Callable[[], object]]


def step_floors(x: Tensor, W: int, l0: int) -> Runs:
    """The products of a step of width ``W`` and Adam; the encoder's product and Adam."""
    W_enc, W_dec, z = _weights(x, W, l0)
    params = [torch.nn.Parameter(p.clone()) for p in (W_enc, W_dec, W_dec[0], *W_dec.T[:3])]
    for p in params:
        p.grad = torch.ones_like(p)
    adam = torch.optim.Adam(params, lr=1e-12)

    def dense() -> None:
        x @ W_enc
        for _ in range(2):  # both decoder products, and z's and v's gradients
            z @ W_dec
            x @ W_dec.T
        for _ in range(2):  # W_enc's and W_dec's gradients
            x.T @ z
        adam.step()

    def sparse() -> None:
        x @ W_enc
        adam.step()

    return {"dense floor": dense, "sparse floor": sparse}


def encode_floors(x: Tensor, W: int) -> Runs:
    """The encoder's product."""
    W_enc, _, _ = _weights(x, W, 0)
    return {"encoder product": lambda: x @ W_enc}


def decode_floors(x: Tensor, W: int, l0: int) -> Runs:
    """The decoder's product, and torch's own of the active latents: bags on a CPU, else CSR."""
    _, W_dec, z = _weights(x, W, l0)
    runs: Runs = {"decoder product": lambda: z @ W_dec}
    if x.device.type != "cpu":
        csr = z.to_sparse_csr()
        return runs | {"decoder CSR": lambda: torch.sparse.mm(csr, W_dec)}
    token, latent = z.nonzero(as_tuple=True)
    offsets = (z != 0).sum(1).cumsum(0) - (z != 0).sum(1)
    values = z[token, latent]

    def bags() -> Tensor:
        return torch.nn.functional.embedding_bag(
            latent, W_dec, offsets, mode="sum", per_sample_weights=values
        )

    return runs | {"decoder bags": bags}


def _weights(x: Tensor, W: int, l0: int) -> tuple[Tensor, Tensor, Tensor]:
    # W_enc (d_in, W), W_dec (W, d_in), and z (n_tokens, W) with about l0 active latents a token
    n, d_in = x.shape
    z = torch.randn(n, W) * (torch.rand(n, W) < l0 / W)
    return torch.randn(d_in, W).to(x), torch.randn(W, d_in).to(x), z.to(x)
