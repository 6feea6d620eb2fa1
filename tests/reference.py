"""The formulas of the design, written slowly, with nothing from the package.

They loop over tokens and latents, and compute with scalars of Python or 0-d tensors. Autograd
differentiates them, so that gradients are checked too.
"""

import torch
from torch import Tensor


def sides(param: Tensor, i: int) -> tuple[Tensor, Tensor]:
    """(+, -) value of latent i: "row 0" and "row -1"."""
    return param[0, i], param[-1, i]


def sa_gsae_latent(
    pi: Tensor, threshold: Tensor, r_mag: Tensor, b_mag: Tensor, i: int, two_sided: bool
) -> Tensor:
    """z = g+ m+ - g- m-,  g_s = 1[u_s > threshold_s],  m_s = relu(exp(r_s) u_s + b_s)."""
    z = torch.zeros((), dtype=pi.dtype)
    for sign, u, side in ((1.0, pi, 0), (-1.0, -pi, 1)):
        if side == 1 and not two_sided:
            continue
        t, r, b = (sides(p, i)[side] for p in (threshold, r_mag, b_mag))
        gate = 1.0 if u.item() > t.item() else 0.0
        m = torch.relu(torch.exp(r) * u + b)
        z = z + sign * gate * m
    return z


def sa_gsae_forward(x: Tensor, p: dict[str, Tensor], two_sided: bool) -> dict[str, Tensor]:
    """pi, z, v (B, H) and x^ (B, d); x is centred by b_dec."""
    batch, d_sae = x.shape[0], p["W_dec"].shape[0]
    pi_rows, z_rows, v_rows = [], [], []
    for n in range(batch):
        x_c = x[n] - p["b_dec"]
        pis = [(x_c * p["W_enc"][:, i]).sum() for i in range(d_sae)]
        zs, vs = [], []
        for i, pi in enumerate(pis):
            zs.append(sa_gsae_latent(pi, p["threshold"], p["r_mag"], p["b_mag"], i, two_sided))
            t_plus, t_minus = sides(p["threshold"], i)
            v = torch.relu(pi - t_plus)
            if two_sided:
                v = v - torch.relu(-pi - t_minus)
            vs.append(v)
        pi_rows.append(torch.stack(pis))
        z_rows.append(torch.stack(zs))
        v_rows.append(torch.stack(vs))
    z = torch.stack(z_rows)
    return {
        "pi": torch.stack(pi_rows),
        "z": z,
        "v": torch.stack(v_rows),
        "x_hat": torch.stack(
            [sum(z[n, i] * p["W_dec"][i] for i in range(d_sae)) + p["b_dec"] for n in range(batch)]
        ),
    }


def sa_gsae_losses(
    x: Tensor,
    p: dict[str, Tensor],
    l1: float,
    aux_coefficient: float,
    two_sided: bool,
    detach_decoder: bool,
    detach_norm: bool,
    sparsity_penalty: str = "l1",
) -> dict[str, Tensor]:
    """The three terms of L, each a mean over the batch."""
    out = sa_gsae_forward(x, p, two_sided)
    batch, d_sae = out["v"].shape
    W, b = p["W_dec"], p["b_dec"]
    W_aux, b_aux = (W.detach(), b.detach()) if detach_decoder else (W, b)
    mse = torch.zeros((), dtype=x.dtype)
    sizes: list[Tensor] = []
    aux = torch.zeros((), dtype=x.dtype)
    for n in range(batch):
        mse = mse + ((x[n] - out["x_hat"][n]) ** 2).sum() / batch
        recons = b_aux
        for i in range(d_sae):
            norm = (W[i] ** 2).sum().sqrt()
            if detach_norm:
                norm = norm.detach()
            sizes.append(out["v"][n, i].abs() * norm)
            recons = recons + out["v"][n, i] * W_aux[i]
        aux = aux + ((x[n] - recons) ** 2).sum() / batch
    if sparsity_penalty == "log_sum":
        is_open = [size.item() for size in sizes if size.item() > 0]
        c = sum(is_open) / len(is_open) if is_open else 1.0
        sizes = [c * torch.log(1 + size / c) for size in sizes]
    losses = {"mse_loss": mse, f"{sparsity_penalty}_loss": l1 * sum(sizes) / batch}
    if aux_coefficient:
        losses["auxiliary_reconstruction_loss"] = aux_coefficient * aux
    return losses


def auxk_loss(
    x: Tensor,
    x_hat: Tensor,
    p: dict[str, Tensor],
    dead: Tensor,
    two_sided: bool,
    by_norm: bool = False,
    aux_k: int | None = None,
) -> Tensor:
    """min(n_dead / k, 1) * mean ||x - x^ - z~ W_dec||^2, k = aux_k or half of d_in.

    z~ holds the k largest ungated latents among the dead, or those of the largest |z~| ||W_dec,i||.
    """
    batch, d_in = x.shape
    k = max(1, d_in // 2) if aux_k is None else aux_k
    total = torch.zeros((), dtype=x.dtype)
    for n in range(batch):
        x_c = x[n] - p["b_dec"]
        ungated: dict[int, Tensor] = {}
        for i in range(len(dead)):
            if not dead[i]:
                continue
            pre = (x_c * p["W_enc"][:, i]).sum()
            if "r_mag" in p:
                open_gate = torch.zeros_like(p["threshold"])
                rows = open_gate, p["r_mag"], p["b_mag"]
                ungated[i] = sa_gsae_latent(pre, *rows, i, two_sided)
            else:
                ungated[i] = shifted(pre + p["b_enc"][i], p["b_mag"], i)
        weight = [row.norm().item() if by_norm else 1.0 for row in p["W_dec"]]
        largest = sorted(ungated, key=lambda i: -abs(ungated[i].item()) * weight[i])[:k]
        left = x[n] - x_hat[n]
        for i in largest:
            left = left - ungated[i] * p["W_dec"][i]
        total = total + (left**2).sum() / batch
    return min(int(dead.sum()) / k, 1.0) * total


def shifted(h: Tensor, b_mag: Tensor, i: int) -> Tensor:
    """sign(h) relu(|h| + b_mag of that side) of latent i."""
    b_plus, b_minus = sides(b_mag, i)
    return torch.relu(h + b_plus) if h.item() > 0 else -torch.relu(-h + b_minus)


def bi_jumprelu_forward(x: Tensor, p: dict[str, Tensor]) -> dict[str, Tensor]:
    """h, open, z (B, H) and x^ (B, d); z's gradient to h and b_mag is the open gate's."""
    batch, d_sae = x.shape[0], p["W_dec"].shape[0]
    h_rows, z_rows, open_rows = [], [], []
    for n in range(batch):
        x_c = x[n] - p["b_dec"]
        hs = [(x_c * p["W_enc"][:, i]).sum() + p["b_enc"][i] for i in range(d_sae)]
        zs, opens = [], []
        for i, h in enumerate(hs):
            t_plus, t_minus = sides(p["threshold"], i)
            n_open = (1.0 if h.item() > t_plus.item() else 0.0) + (
                1.0 if h.item() < -t_minus.item() else 0.0
            )
            zs.append(shifted(h, p["b_mag"], i) * n_open)
            opens.append(n_open)
        h_rows.append(torch.stack(hs))
        z_rows.append(torch.stack(zs))
        open_rows.append(opens)
    z = torch.stack(z_rows)
    return {
        "h": torch.stack(h_rows),
        "open": torch.tensor(open_rows, dtype=x.dtype),
        "z": z,
        "x_hat": torch.stack(
            [sum(z[n, i] * p["W_dec"][i] for i in range(d_sae)) + p["b_dec"] for n in range(batch)]
        ),
    }


def bi_topk_forward(x: Tensor, p: dict[str, Tensor], k: int, by_norm: bool) -> dict[str, Tensor]:
    """z (B, H), in units of unit decoder rows where ``by_norm``, and x^ (B, d)."""
    weight = [row.norm().item() if by_norm else 1.0 for row in p["W_dec"]]
    z_rows, x_hat_rows = [], []
    for token in x:
        x_c = token - p["b_dec"]
        u = [
            shifted((x_c * p["W_enc"][:, i]).sum() + p["b_enc"][i], p["b_mag"], i)
            for i in range(len(weight))
        ]
        kept = sorted(range(len(u)), key=lambda i: -abs(u[i].item()) * weight[i])[:k]
        zero = torch.zeros((), dtype=x.dtype)
        z_rows.append(torch.stack([u[i] * weight[i] if i in kept else zero for i in range(len(u))]))
        x_hat_rows.append(sum(u[i] * p["W_dec"][i] for i in kept) + p["b_dec"])
    return {"z": torch.stack(z_rows), "x_hat": torch.stack(x_hat_rows)}


def K(x: float) -> float:
    return 1.0 if -0.5 < x < 0.5 else 0.0


def ste_threshold_gradients(
    h: Tensor, threshold: Tensor, b_mag: Tensor, e: float, grad_z: Tensor, grad_step: Tensor
) -> Tensor:
    """(P, H) gradient to threshold, given the gradients to z and to the L0 step, both (B, H)."""
    out = torch.zeros_like(threshold)
    for n in range(h.shape[0]):
        for i in range(h.shape[1]):
            t_plus, t_minus = (t.item() for t in sides(threshold, i))
            k_plus = K((h[n, i].item() - t_plus) / e)
            k_minus = K((-h[n, i].item() - t_minus) / e)
            b_plus, b_minus = (b.item() for b in sides(b_mag, i))
            dz_plus = -max(t_plus + b_plus, 0.0) / e * k_plus
            dz_minus = max(t_minus + b_minus, 0.0) / e * k_minus
            ds_plus, ds_minus = -k_plus / e, -k_minus / e
            out[0, i] += dz_plus * grad_z[n, i] + ds_plus * grad_step[n, i]
            out[-1, i] += dz_minus * grad_z[n, i] + ds_minus * grad_step[n, i]
    return out
