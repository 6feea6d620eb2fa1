"""The formulas of the design, written slowly: per token and latent, nothing from the package.

Scalars are 0-d tensors, so that autograd differentiates them; what decides a branch is a float.
"""

import torch
from torch import Tensor


def side(row: Tensor, i: int, sign: float) -> Tensor:
    """Value of latent i and a side: row 0 is of the + side, row -1 of the - side."""
    return row[0, i] if sign > 0 else row[-1, i]


def gated(pi: Tensor, t: Tensor, r: Tensor, b: Tensor, i: int, two_sided: bool) -> Tensor:
    """z = g_+ m_+ - g_- m_-, g_s = 1[u_s > t_s], m_s = relu(exp(r_s) u_s + b_s)."""
    z = 0.0 * pi
    for sign in (1.0, -1.0) if two_sided else (1.0,):
        u = sign * pi
        if u.item() > side(t, i, sign).item():
            z = z + sign * torch.relu(torch.exp(side(r, i, sign)) * u + side(b, i, sign))
    return z


def gate_path(pi: Tensor, t: Tensor, i: int, two_sided: bool) -> Tensor:
    """v = relu(pi - t_+) - relu(-pi - t_-)."""
    v = torch.relu(pi - side(t, i, 1.0))
    return v - torch.relu(-pi - side(t, i, -1.0)) if two_sided else v


def sized(h: Tensor, b_mag: Tensor, i: int, two_sided: bool) -> Tensor:
    """u = sign(h) relu(|h| + b_mag); one-sided relu(h + b_mag)."""
    if not two_sided:
        return torch.relu(h + b_mag[0, i])
    if h.item() == 0:
        return 0.0 * h
    return (1.0 if h.item() > 0 else -1.0) * torch.relu(h.abs() + b_mag[0, i])


def n_open(h: float, t: Tensor, i: int, two_sided: bool) -> int:
    """1[h > t_+] + 1[h < -t_-]; one-sided the first."""
    return int(h > side(t, i, 1.0).item()) + int(two_sided and -h > side(t, i, -1.0).item())


def largest(sizes: list[float], k: int) -> set[int]:
    """Places of the k largest."""
    return set(sorted(range(len(sizes)), key=lambda j: -sizes[j])[:k])


class Reference:
    """What an SAE with the parameters ``p`` makes of ``x`` (n, d_in), by tokens and latents.

    ``cfg`` is its config, for training or for inference; ``pre``, ``z`` are lists of lists of
    scalars, ``output`` a list of (d_in,) vectors.
    """

    def __init__(self, cfg, p: dict[str, Tensor], x: Tensor, topk_threshold: float | None = None):
        self.cfg, self.p, self.x = cfg, p, x
        self.kind, self.latents = cfg.architecture(), range(cfg.d_sae)
        rescales = getattr(cfg, "rescale_acts_by_decoder_norm", False)
        self.n = [row.norm().item() if rescales else 1.0 for row in p["W_dec"]]
        self.pre = [[self._pre(token, i) for i in self.latents] for token in x]
        self.z = self._latents(topk_threshold)
        self.output = [self.decode(z) for z in self.z]

    def _pre(self, token: Tensor, i: int) -> Tensor:
        x_c = token - self.p["b_dec"] if self.cfg.apply_b_dec_to_input else token
        h = (x_c * self.p["W_enc"][:, i]).sum()
        return h + self.p["b_enc"][i] if "b_enc" in self.p else h

    def _latents(self, topk_threshold: float | None) -> list[list[Tensor]]:
        p = self.p
        if self.kind == "sa_gsae":
            rows, two_sided = (p["threshold"], p["r_mag"], p["b_mag"]), self.cfg.two_sided
            return [[gated(h, *rows, i, two_sided) for i, h in enumerate(hs)] for hs in self.pre]
        u = [[self._ungated(h, i) for i, h in enumerate(hs)] for hs in self.pre]
        if self.kind == "bi_jumprelu":
            t = p["threshold"]
            return [
                [
                    u * (n_open(h.item(), t, i, self.cfg.two_sided) > 0)
                    for i, (u, h) in enumerate(zip(us, hs, strict=True))
                ]
                for us, hs in zip(u, self.pre, strict=True)
            ]
        if self.kind == "bi_topk":
            kept = [largest([v.abs().item() for v in us], int(self.cfg.k)) for us in u]
            return [[v * (i in kept[t]) for i, v in enumerate(us)] for t, us in enumerate(u)]
        flat = [v.abs().item() for us in u for v in us]
        kept = largest(flat, int(self.cfg.k * len(self.x)))
        width = len(self.latents)
        return [[v * (t * width + i in kept) for i, v in enumerate(us)] for t, us in enumerate(u)]

    def decode(self, z: list[Tensor], width: int | None = None) -> Tensor:
        """(d_in,) of the latents of one token, or of the first ``width`` of them."""
        out = self.p["b_dec"]
        for i in range(len(z) if width is None else width):
            out = out + z[i] / self.n[i] * self.p["W_dec"][i]
        return out

    def mean_square(self, outputs: list[Tensor]) -> Tensor:
        """Mean over tokens of ||x - x^||^2."""
        return sum(((x - o) ** 2).sum() for x, o in zip(self.x, outputs, strict=True)) / len(self.x)

    def losses(self, l1_coefficient: float, dead: Tensor | None = None) -> dict[str, Tensor]:
        """Every loss of a training step, by its name in the logs."""
        cfg, p = self.cfg, self.p
        losses = {"mse_loss": self.mean_square(self.output)}
        if self.kind == "sa_gsae":
            norm = [row.norm().item() for row in p["W_dec"]]
            t = p["threshold"]
            v = [[gate_path(h, t, i, cfg.two_sided) for i, h in enumerate(hs)] for hs in self.pre]
            l1 = sum(v_i.abs() * norm[i] for vs in v for i, v_i in enumerate(vs))
            losses["l1_loss"] = l1_coefficient * l1 / len(self.x)
            W_dec, b_dec = p["W_dec"].detach(), p["b_dec"].detach()
            outputs = [sum(v_i * W_dec[i] for i, v_i in enumerate(vs)) + b_dec for vs in v]
            aux = cfg.aux_coefficient * self.mean_square(outputs)
            losses["auxiliary_reconstruction_loss"] = aux
        if self.kind == "bi_jumprelu":
            t, two_sided = p["threshold"], cfg.two_sided
            n = sum(n_open(h.item(), t, i, two_sided) for hs in self.pre for i, h in enumerate(hs))
            losses["l0_loss"] = self.l0_weight() * torch.tensor(float(n), dtype=self.x.dtype)
        for width in getattr(cfg, "matryoshka_widths", [])[:-1]:
            outputs = [self.decode(z, width) for z in self.z]
            losses[f"inner_mse_loss_{width}"] = self.mean_square(outputs)
        if dead is not None:
            losses |= self._auxk(dead)
        return losses

    def l0_weight(self) -> Tensor:
        """Weight of L0: half of the mean square of what a latent writes at its threshold."""
        t, W_dec = self.p["threshold"].detach(), self.p["W_dec"].detach()
        squares = [
            (t[side, i] * row.norm()) ** 2 for side in range(len(t)) for i, row in enumerate(W_dec)
        ]
        return 0.5 * sum(squares) / len(squares) / len(self.x)

    def _auxk(self, dead: Tensor) -> dict[str, Tensor]:
        cfg = self.cfg
        if self.kind in ("sa_gsae", "bi_jumprelu"):
            loss = self._auxk_of(dead, self.output)
            return {"auxk_loss": cfg.auxk_coefficient * loss}
        if getattr(cfg, "use_matryoshka_aux_loss", False):
            loss, start = 0.0, 0
            for width in cfg.matryoshka_widths:
                inside = dead & (torch.arange(len(dead)) >= start)
                inside &= torch.arange(len(dead)) < width
                outputs = [self.decode(z, width) for z in self.z]
                loss, start = loss + self._auxk_of(inside, outputs), width
        else:
            loss = self._auxk_of(dead, self.output)
        return {"auxiliary_reconstruction_loss": cfg.aux_loss_coefficient * loss}

    def _auxk_of(self, dead: Tensor, outputs: list[Tensor]) -> Tensor:
        # min(n_dead / k, 1) mean ||x - x^ - e^||^2 by the k of largest ungated size
        k, n_dead = max(1, self.cfg.d_in // 2), int(dead.sum())
        total = torch.zeros((), dtype=self.x.dtype)
        for token, hs, output in zip(self.x, self.pre, outputs, strict=True):
            acts = {i: self._ungated(h, i) for i, h in enumerate(hs) if dead[i]}
            left = (token - output).detach()
            for i in sorted(acts, key=lambda i: -acts[i].abs().item())[:k]:
                left = left - acts[i] / self.n[i] * self.p["W_dec"][i]
            total = total + (left**2).sum() / len(self.x)
        return min(n_dead / k, 1.0) * total

    def _ungated(self, h: Tensor, i: int) -> Tensor:
        p = self.p
        if self.kind == "sa_gsae":
            no_threshold = torch.zeros_like(p["threshold"])
            return gated(h, no_threshold, p["r_mag"], p["b_mag"], i, self.cfg.two_sided)
        b_mag = p["b_mag"].clamp(max=0.0) if self.kind == "bi_topk" else p["b_mag"]
        return self.n[i] * sized(h, b_mag, i, self.cfg.two_sided)


def threshold_gradients(
    h: list[list[Tensor]],
    t: Tensor,
    b_mag: Tensor,
    e: float,
    grad_z: Tensor,
    grad_step: Tensor,
    two_sided: bool = True,
) -> Tensor:
    """(P, H) straight-through gradient of thresholds, of gradients to z and to the L0 step (B, H).

    dz/dt_+ = -(j_+ / e) K((h - t_+) / e), dz/dt_- = +(j_- / e) K((-h - t_-) / e), with
    j_s = relu(t_s + b_mag); ds/dt_s = -(1 / e) K(...); K is 1 inside of (-1/2, 1/2), else 0.
    """
    out = torch.zeros_like(t)
    for n, hs in enumerate(h):
        for i, pre in enumerate(hs):
            for sign, row in ((1.0, 0), (-1.0, -1)) if two_sided else ((1.0, 0),):
                at = side(t, i, sign).item()
                if abs(sign * pre.item() - at) < e / 2:
                    jump = max(at + b_mag[0, i].item(), 0.0)
                    out[row, i] -= (sign * jump * grad_z[n, i] + grad_step[n, i]) / e
    return out
