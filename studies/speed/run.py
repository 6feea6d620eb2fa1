"""Time of a training step beside SAELens's own SAEs and beside the matrix products alone.

    python studies/speed/run.py                 # prints the ratios, about 10 minutes on two cores
    python studies/speed/run.py --device cuda
    python studies/speed/run.py --write         # into result.json beside this file too

Random inputs and decoders, thresholds set for the L0 asked for, one process, float32, medians of
runs that take turns. A step is SAELens's own ``SAETrainer.step``, Adam and bookkeeping included.
"W" is the width of the signed SAEs; the plain ones run at the widths named. ", dense" has a hook on
the SAE, with which all latents are computed. TopK runs without rescale_acts_by_decoder_norm: its
backward fails with sparse activations. "dense floor" is the seven products of an SA-GSAE step and
Adam, "sparse floor" the encoder's product and Adam. Name other sizes by --sizes d:W:batch:L0.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # studies/ is no installed package

import torch
from rich.console import Console
from rich.markdown import Markdown
from sae_lens import SAETrainer, TrainingSAE
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from torch import Tensor

import sae_lens_signaware  # noqa: F401  # registers the signed architectures
from studies.common import measured_with, read_result, write_result
from studies.speed.page import name_of, ratios_table

HERE = Path(__file__).parent
SIZES = ("576:2304:1024:64", "576:16384:1024:64")
WARM_UP = 2
"""Rounds that are not counted: allocations and autotuning happen in those."""
SPARSE_TOPK = {"use_sparse_activations": True, "rescale_acts_by_decoder_norm": False}
SAES: dict[str, dict[str, Any]] = {  # "ARCHITECTURE WIDTH" -> its own fields
    "sa_gsae W": {},
    "sa_gsae W, dense": {},
    "bi_jumprelu W": {},
    "bi_jumprelu W, dense": {},
    "bi_batchtopk W": {},
    "bi_matryoshka_batchtopk W": {},
    "bi_topk W": {},
    "batchtopk W": {},
    "matryoshka_batchtopk W": {},
    "gated W": {},
    "gated 2W": {},
    "jumprelu W": {},
    "jumprelu 2W": {},
    "topk W, sparse": SPARSE_TOPK,
    "abstopk W": {},
    "batchtopk 2W": {},
}


def make_sae(name: str, d_in: int, W: int, l0: int, x: Tensor) -> TrainingSAE[Any]:
    """Random unit directions; what decides on firing set so that about ``l0`` latents do."""
    architecture, width = name.split(",")[0].split()
    d_sae = 2 * W if width == "2W" else W
    fields: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, **SAES[name]}
    if "topk" in architecture:
        fields["k"] = l0
    if architecture == "bi_jumprelu":
        fields["target_l0"] = l0
    if "matryoshka" in architecture:
        fields["matryoshka_widths"] = [d_sae // 8, d_sae // 4, d_sae // 2, d_sae]
    torch.manual_seed(0)
    cfg = get_sae_training_class(architecture)[1](**fields)
    sae: Any = TrainingSAE.from_dict(cfg.to_dict())
    with torch.no_grad():
        sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn_like(sae.W_dec), dim=1))
        sae.W_enc.copy_(sae.W_dec.T)
        pre = (x[:256].cpu() @ sae.W_enc).flatten()
        pre = pre.abs() if architecture == "sa_gsae" else pre
        at = pre.kthvalue(int(len(pre) * (1 - l0 / d_sae))).values
        if hasattr(sae, "b_gate"):
            sae.b_gate.fill_(-at)
        elif hasattr(sae, "log_threshold"):
            sae.log_threshold.fill_(at.log())
        elif architecture in ("sa_gsae", "jumprelu"):  # bi_jumprelu sets its own
            sae.threshold.fill_(at)
    if name.endswith(", dense"):
        sae.hook_sae_acts_post.add_hook(lambda tensor, hook: None)
    return sae.to(x.device)


def make_trainer(sae: Any, batch: int) -> SAETrainer[Any, Any]:
    """With a learning rate at which weights, and so L0, stay where they are."""
    cfg = SAETrainerConfig(
        total_training_samples=10**12,
        train_batch_size_samples=batch,
        lr=1e-12,
        lr_end=1e-12,
        device=str(sae.device),
    )
    return SAETrainer(cfg, sae, iter(()))


def floors(x: Tensor, W: int, l0: int) -> dict[str, Callable[[], object]]:
    """The products of a step of width ``W`` and Adam; the encoder's product and Adam."""
    n, d_in = x.shape
    z = (torch.randn(n, W) * (torch.rand(n, W) < l0 / W)).to(x)
    W_enc, W_dec = torch.randn(d_in, W).to(x), torch.randn(W, d_in).to(x)
    params = [torch.nn.Parameter(p.clone()) for p in (W_enc, W_dec, W_dec[0], *W_dec.T[:3])]
    for p in params:
        p.grad = torch.ones_like(p)
    adam = torch.optim.Adam(params, lr=1e-12)

    def dense() -> None:
        x @ W_enc
        for _ in range(2):  # both decoder products, and the gradients of z and v
            z @ W_dec
            x @ W_dec.T
        for _ in range(2):  # the gradients of W_enc and W_dec
            x.T @ z
        adam.step()

    def sparse() -> None:
        x @ W_enc
        adam.step()

    return {"dense floor": dense, "sparse floor": sparse}


def milliseconds(run: Callable[[], object], device: torch.device) -> float:
    """Time of a call, from an idle device until it is idle again."""
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return 1000 * (time.perf_counter() - start)


def wait(device: torch.device) -> None:
    """Return when all that was asked of the device is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def measure(size: str, n: int, names: Sequence[str], device: torch.device) -> dict[str, Any]:
    """Median milliseconds of a step; the SAEs take turns, so that noise meets all of them."""
    d_in, W, batch, l0 = map(int, size.split(":"))
    x = torch.randn(batch, d_in, generator=torch.Generator().manual_seed(1)).to(device)
    steps, reached = floors(x, W, l0), {}
    for name in names:
        trainer = make_trainer(make_sae(name, d_in, W, l0, x), batch)
        out = trainer.step(x).feature_acts.to_dense()
        reached[name] = round((out != 0).sum().item() / batch, 1)
        steps[name] = lambda trainer=trainer: trainer.step(x)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(n + WARM_UP):
        for name, step in steps.items():
            times[name].append(milliseconds(step, device))
    step_ms = {name: round(statistics.median(t[WARM_UP:]), 2) for name, t in times.items()}
    return {"size": size, "l0": reached, "step_ms": step_ms}


def report(result: dict[str, Any]) -> str:
    """Every step's time, and over both floors, as a table."""
    steps = result["step_ms"]
    lines = [f"**d_in:W:batch:L0 = {result['size']}**", "", "| | ms | / dense floor | / sparse |"]
    lines.append("| --- | ---: | ---: | ---: |")
    for name, ms in steps.items():
        ratios = (f"{ms / steps[floor]:.2f}" for floor in ("dense floor", "sparse floor"))
        lines.append(f"| {name_of(name)} | {ms:.1f} | {' | '.join(ratios)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=SIZES, help="d_in:W:batch:L0")
    parser.add_argument("--only", nargs="*", choices=SAES, help="names of SAEs; default all")
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--device", default="cpu", help="such as cuda; default cpu")
    parser.add_argument("--write", action="store_true", help="put the sizes into result.json")
    args = parser.parse_args()
    device, console = torch.device(args.device), Console(width=100)
    # elsewhere than on a CPU every step computes all latents
    names = args.only or [n for n in SAES if device.type == "cpu" or ", dense" not in n]
    sizes = [measure(size, args.runs, names, device) for size in args.sizes]
    for size in sizes:
        console.print(Markdown(report(size)))
    console.print(Markdown(ratios_table(sizes)))
    if args.write:
        about = measured_with() | {"device": str(device)}
        write_result(read_result(HERE) | {"machine": about, "sizes": sizes}, HERE)


if __name__ == "__main__":
    main()
