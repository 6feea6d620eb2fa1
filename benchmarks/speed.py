"""Training step, encode and decode beside SAELens's own SAEs and beside the matrix products alone.

    python benchmarks/speed.py --json results/speed.json

Random inputs and decoders, thresholds set for the L0 asked for, one process, float32, medians of
runs that take turns. A step is SAELens's own ``SAETrainer.step``, Adam and bookkeeping included.
"W" is the width of the signed SAEs; the plain ones run at the widths named. encode_sparse gives
sparse latents, and decode takes them. TopK runs without rescale_acts_by_decoder_norm: its backward
fails with sparse activations (torch 2.13).

Floors: "dense floor" is the seven products of an SA-GSAE step and Adam, "sparse floor" the
encoder's product and Adam. Memory: peak of resident memory over that with the SAE built, of forward
and backward, each SAE in a process of its own. Name other sizes with --sizes d:W:batch:L0 ... About
10 minutes on two cores.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from evaluation import machine, peak_mib
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sae_lens import (
    AbsTopKTrainingSAEConfig,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    SAETrainer,
    TopKTrainingSAEConfig,
    TrainingSAE,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor

from sae_lens_signaware import BiJumpReLUTrainingSAEConfig, SAGatedTrainingSAEConfig
from sae_lens_signaware.files import write_json
from sae_lens_signaware.saes.base import SignedSAEMixin

SIZES = ("576:2304:1024:64", "576:16384:1024:64")

# name -> (width in W, config, its own fields)
SAES: dict[str, tuple[int, type, dict[str, Any]]] = {
    "sa_gsae W": (1, SAGatedTrainingSAEConfig, {}),
    "sa_gsae W, dense": (1, SAGatedTrainingSAEConfig, {"use_sparse_activations": False}),
    "sa_gsae W, compiled": (1, SAGatedTrainingSAEConfig, {}),
    "sa_gsae W, dense, compiled": (1, SAGatedTrainingSAEConfig, {"use_sparse_activations": False}),
    "bi_jumprelu W": (1, BiJumpReLUTrainingSAEConfig, {}),
    "bi_jumprelu W, dense": (1, BiJumpReLUTrainingSAEConfig, {"use_sparse_activations": False}),
    "gated W": (1, GatedTrainingSAEConfig, {}),
    "gated 2W": (2, GatedTrainingSAEConfig, {}),
    "jumprelu 2W": (2, JumpReLUTrainingSAEConfig, {}),
    "topk W, sparse": (
        1,
        TopKTrainingSAEConfig,
        {"use_sparse_activations": True, "rescale_acts_by_decoder_norm": False},
    ),
    "abstopk W": (1, AbsTopKTrainingSAEConfig, {}),
    "batchtopk 2W": (2, BatchTopKTrainingSAEConfig, {}),
}


def make_sae(name: str, d_in: int, W: int, l0: int, x: Tensor) -> TrainingSAE[Any]:
    """Random unit directions; whatever decides on firing set so that about ``l0`` latents do."""
    factor, config, fields = SAES[name]
    if "topk" in name:
        fields = {**fields, "k": l0}
    torch.manual_seed(0)
    cfg = config(d_in=d_in, d_sae=factor * W, **fields)
    sae: Any = TrainingSAE.from_dict(cfg.to_dict())
    with torch.no_grad():
        sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn_like(sae.W_dec), dim=1))
        sae.W_enc.copy_(sae.W_dec.T)
        pre = (x[:256] @ sae.W_enc).flatten()
        pre = pre.abs() if name.startswith(("sa_gsae", "bi_jumprelu")) else pre
        at = pre.kthvalue(int(len(pre) * (1 - l0 / cfg.d_sae))).values
        if hasattr(sae, "b_gate"):
            sae.b_gate.fill_(-at)
        elif hasattr(sae, "log_threshold"):
            sae.log_threshold.fill_(at.log())
        elif "topk" not in name:
            sae.threshold.fill_(at)
    return sae


def make_trainer(sae: Any) -> SAETrainer[Any, Any]:
    """With a learning rate at which weights, and so L0, stay where they are."""
    cfg = SAETrainerConfig(
        total_training_samples=10**12, train_batch_size_samples=1024, lr=1e-12, lr_end=1e-12
    )
    return SAETrainer(cfg, sae, iter(()))


def floors(d_in: int, W: int, x: Tensor, l0: int) -> dict[str, Callable[[], object]]:
    """The products of a step of width W, and Adam on its parameters, with nothing around them."""
    W_enc, W_dec = torch.randn(d_in, W), torch.randn(W, d_in)
    z = torch.randn(len(x), W) * (torch.rand(len(x), W) < l0 / W)
    params = [torch.nn.Parameter(p.clone()) for p in (W_enc, W_dec, W_dec[0], *W_dec[:3].T[:3])]
    for p in params:
        p.grad = torch.ones_like(p)
    adam = torch.optim.Adam(params, lr=1e-12)
    token, latent = z.nonzero(as_tuple=True)
    offsets = (z != 0).sum(1).cumsum(0) - (z != 0).sum(1)
    values = z[token, latent]

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

    def bags() -> None:
        torch.nn.functional.embedding_bag(
            latent, W_dec, offsets, mode="sum", per_sample_weights=values
        )

    return {
        "dense floor": dense,
        "sparse floor": sparse,
        "encoder product": lambda: x @ W_enc,
        "decoder product": lambda: z @ W_dec,
        "decoder bags": bags,
    }


def medians(runs: dict[str, Callable[[], object]], n: int, what: str) -> dict[str, float]:
    """Milliseconds; the runs take turns, so that noise of the machine meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in track(range(n + 2), description=what):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(t[2:]) for name, t in times.items()}


def measure(size: str, n: int, only: list[str] | None) -> dict[str, Any]:
    d_in, W, batch, l0 = map(int, size.split(":"))
    x = torch.randn(batch, d_in, generator=torch.Generator().manual_seed(1))
    chosen = only or list(SAES)
    floor = floors(d_in, W, x, l0)
    steps: dict[str, Callable[[], object]] = {
        name: floor[name] for name in ("dense floor", "sparse floor")
    }
    encodes: dict[str, Callable[[], object]] = {"encoder product": floor["encoder product"]}
    decodes: dict[str, Callable[[], object]] = {
        name: floor[name] for name in ("decoder product", "decoder bags")
    }
    reached = {}
    for name in chosen:
        sae: Any = make_sae(name, d_in, W, l0, x)
        if "compiled" in name:  # as compile_sae=True has SAELens do
            sae.training_forward_pass = torch.compile(sae.training_forward_pass)
        trainer = make_trainer(sae)
        reached[name] = trainer.step(x).feature_acts.to_dense().bool().sum().item() / batch
        steps[name] = lambda trainer=trainer: trainer.step(x)
        if "," in name:  # how a training computes does not concern what is saved
            continue
        with torch.no_grad():
            z = trainer.sae.encode(x)
        encodes[name] = lambda sae=trainer.sae: sae.encode(x)
        decodes[name] = lambda sae=trainer.sae, z=z: sae.decode(z)
        if isinstance(trainer.sae, SignedSAEMixin):
            coo = trainer.sae.encode_sparse(x)
            encodes[f"{name}, encode_sparse"] = lambda sae=trainer.sae: sae.encode_sparse(x)
            decodes[f"{name}, encode_sparse"] = lambda sae=trainer.sae, z=coo: sae.decode(z)
    result = {"size": size, "l0": reached, "step_ms": medians(steps, n, f"{size} step")}
    with torch.no_grad():
        result["encode_ms"] = medians(encodes, n, f"{size} encode")
        result["decode_ms"] = medians(decodes, n, f"{size} decode")
    result["memory_mib"] = {
        name: json.loads(
            subprocess.check_output([sys.executable, __file__, "--memory", name, "--sizes", size])
        )
        for name in chosen
        if "compiled" not in name
    }
    return result


def memory(name: str, size: str) -> float:
    """MiB that forward and backward of one batch add to the process at their peak."""
    d_in, W, batch, l0 = map(int, size.split(":"))
    x = torch.randn(batch, d_in, generator=torch.Generator().manual_seed(1))
    sae: Any = make_sae(name, d_in, W, l0, x)
    # what has been freed would hide part of the peak
    held = torch.ones(int(peak_mib() - now_mib() + 1) * 2**18)
    before = now_mib()
    step = TrainStepInput(
        sae_in=x,
        coefficients={"l1": 1.0, "l0": 1.0},
        dead_neuron_mask=None,
        n_training_steps=0,
        is_logging_step=False,
    )
    sae.training_forward_pass(step).loss.backward()
    del held
    return peak_mib() - before


def now_mib() -> float:
    """Resident memory of this process, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def table(result: dict[str, Any]) -> Table:
    out = Table(title=f"d_in:W:batch:L0 = {result['size']}", title_justify="left")
    for column in (
        "",
        "step ms",
        "/ dense floor",
        "/ sparse floor",
        "encode ms",
        "decode ms",
        "MiB",
    ):
        out.add_column(column, justify="left" if not column else "right")
    steps = result["step_ms"]
    names = dict.fromkeys([*steps, *result["encode_ms"], *result["decode_ms"]])
    for name in names:
        row = [name]
        row.append(f"{steps[name]:.1f}" if name in steps else "")
        for floor in ("dense floor", "sparse floor"):
            row.append(f"{steps[name] / steps[floor]:.2f}" if name in steps else "")
        for kind in ("encode_ms", "decode_ms", "memory_mib"):
            row.append(f"{result[kind][name]:.1f}" if name in result[kind] else "")
        out.add_row(*row)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=SIZES, help="d_in:W:batch:L0")
    parser.add_argument("--only", nargs="*", choices=SAES, help="names of SAEs; default all")
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--json", type=Path, default=Path("results/speed.json"))
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(memory(args.memory, args.sizes[0]))
        return
    results = [measure(size, args.runs, args.only) for size in args.sizes]
    for result in results:
        Console(width=110).print(table(result))
    command = "python " + shlex.join(sys.argv)
    write_json({"command": command, "machine": machine(), "sizes": results}, args.json)


if __name__ == "__main__":
    main()
