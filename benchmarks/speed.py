"""Training step, encode and decode beside SAELens's own SAEs and beside the matrix products alone.

    python benchmarks/speed.py
    python benchmarks/speed.py --device cuda

Random inputs and decoders, thresholds set for the L0 asked for, one process, float32, medians of
runs that take turns. A step is SAELens's own ``SAETrainer.step``, Adam and bookkeeping included.
"W" is the width of the signed SAEs; the plain ones run at the widths named. encode_sparse gives
sparse latents, and decode takes them. TopK runs without rescale_acts_by_decoder_norm: its backward
fails with sparse activations (torch 2.13).

Floors: "dense floor" is the seven products of an SA-GSAE step and Adam, "sparse floor" the
encoder's product and Adam. Memory: peak of resident memory over that with the SAE built, of forward
and backward, each SAE in a process of its own. Name other sizes with --sizes d:W:batch:L0 ... About
10 minutes on two cores, into results/speed.json.

On another --device each time ends when the device is idle again, and memory is the card's. All
steps compute with all latents there, so the rows ", dense", which would be the same, are left out.
The results go to a file named by the card and the day.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from devices import added_mib, card, card_name, checked_device, milliseconds, results_file
from evaluation import machine, peak_mib
from floors import decode_floors, encode_floors, step_floors
from own_command import own_command
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sae_lens import (
    AbsTopKTrainingSAEConfig,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAEConfig,
    SAETrainer,
    TopKTrainingSAEConfig,
    TrainingSAE,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor

from sae_lens_signaware import (
    BiBatchTopKTrainingSAEConfig,
    BiJumpReLUTrainingSAEConfig,
    BiMatryoshkaBatchTopKTrainingSAEConfig,
    BiTopKTrainingSAEConfig,
    SAGatedTrainingSAEConfig,
)
from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.files import write_json
from sae_lens_signaware.saes.base import SignedSAEMixin

WARM_UP = 2
"""Rounds that are not counted: allocations, compilation and autotuning happen in those."""

SIZES = ("576:2304:1024:64", "576:16384:1024:64")

# name -> (width in W, config, its own fields)
SAES: dict[str, tuple[int, type, dict[str, Any]]] = {
    "sa_gsae W": (1, SAGatedTrainingSAEConfig, {}),
    "sa_gsae W, dense": (1, SAGatedTrainingSAEConfig, {"use_sparse_activations": False}),
    "sa_gsae W, compiled": (1, SAGatedTrainingSAEConfig, {}),
    "sa_gsae W, dense, compiled": (1, SAGatedTrainingSAEConfig, {"use_sparse_activations": False}),
    # without its initial bias, as the thresholds here are of pre-activations without one
    "bi_jumprelu W": (1, BiJumpReLUTrainingSAEConfig, {"minus_bias_init": 0.0}),
    "bi_jumprelu W, dense": (
        1,
        BiJumpReLUTrainingSAEConfig,
        {"minus_bias_init": 0.0, "use_sparse_activations": False},
    ),
    "bi_batchtopk W": (1, BiBatchTopKTrainingSAEConfig, {}),
    "bi_matryoshka_batchtopk W": (1, BiMatryoshkaBatchTopKTrainingSAEConfig, {}),
    "bi_topk W": (1, BiTopKTrainingSAEConfig, {}),
    "batchtopk W": (1, BatchTopKTrainingSAEConfig, {}),
    "matryoshka_batchtopk W": (1, MatryoshkaBatchTopKTrainingSAEConfig, {}),
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


def names_on(device: torch.device) -> list[str]:
    """The SAEs that are measured there by default."""
    return [name for name in SAES if device.type == "cpu" or ", dense" not in name]


def make_batch(d_in: int, n: int, device: torch.device) -> Tensor:
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(1)).to(device)


def make_sae(name: str, d_in: int, W: int, l0: int, x: Tensor) -> TrainingSAE[Any]:
    """Random unit directions; whatever decides on firing set so that about ``l0`` latents do.

    The same weights on every device: that of ``x``.
    """
    factor, config, fields = SAES[name]
    d_sae = factor * W
    if "topk" in name:
        fields = {**fields, "k": l0}
    if "matryoshka" in name:
        fields["matryoshka_widths"] = [d_sae // 8, d_sae // 4, d_sae // 2, d_sae]
    torch.manual_seed(0)
    cfg = config(d_in=d_in, d_sae=d_sae, **fields)
    sae: Any = TrainingSAE.from_dict(cfg.to_dict())
    with torch.no_grad():
        sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn_like(sae.W_dec), dim=1))
        sae.W_enc.copy_(sae.W_dec.T)
        pre = (x[:256].cpu() @ sae.W_enc).flatten()
        pre = pre.abs() if name.startswith(("sa_gsae", "bi_jumprelu")) else pre
        at = pre.kthvalue(int(len(pre) * (1 - l0 / cfg.d_sae))).values
        if hasattr(sae, "b_gate"):
            sae.b_gate.fill_(-at)
        elif hasattr(sae, "log_threshold"):
            sae.log_threshold.fill_(at.log())
        elif "topk" not in name:
            sae.threshold.fill_(at)
    return sae.to(x.device)


def make_trainer(sae: Any) -> SAETrainer[Any, Any]:
    """With a learning rate at which weights, and so L0, stay where they are."""
    cfg = SAETrainerConfig(
        total_training_samples=10**12,
        train_batch_size_samples=1024,
        lr=1e-12,
        lr_end=1e-12,
        device=str(sae.device),
    )
    return SAETrainer(cfg, sae, iter(()))


def medians(
    runs: dict[str, Callable[[], object]], n: int, what: str, device: torch.device
) -> dict[str, float]:
    """Milliseconds; the runs take turns, so that noise of the machine meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in track(range(n + WARM_UP), description=what):
        for name, run in runs.items():
            times[name].append(milliseconds(run, device))
    return {name: statistics.median(t[WARM_UP:]) for name, t in times.items()}


def measure(size: str, n: int, only: list[str] | None, device: torch.device) -> dict[str, Any]:
    d_in, W, batch, l0 = map(int, size.split(":"))
    x = make_batch(d_in, batch, device)
    chosen = only or names_on(device)
    steps, encodes, decodes = step_floors(x, W, l0), encode_floors(x, W), decode_floors(x, W, l0)
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
    result = {"size": size, "l0": reached, "step_ms": medians(steps, n, f"{size} step", device)}
    with torch.no_grad():
        result["encode_ms"] = medians(encodes, n, f"{size} encode", device)
        result["decode_ms"] = medians(decodes, n, f"{size} decode", device)
    added = {name: memory(name, size, device) for name in chosen if "compiled" not in name}
    result["memory_mib"] = {name: mib for name, mib in added.items() if mib is not None}
    return result


def memory(name: str, size: str, device: torch.device) -> float | None:
    """MiB that forward and backward of one batch add at their peak; None where torch can't say."""
    if device.type != "cpu":
        return added_mib(forward_and_backward(name, size, device), device)
    command = [sys.executable, __file__, "--memory", name, "--sizes", size]
    return json.loads(subprocess.check_output(command))


def memory_of_process(name: str, size: str) -> float:
    """MiB that forward and backward of one batch add to this process at their peak."""
    run = forward_and_backward(name, size, torch.device("cpu"))
    # what has been freed would hide part of the peak
    held = torch.ones(int(peak_mib() - now_mib() + 1) * 2**18)
    before = now_mib()
    run()
    del held
    return peak_mib() - before


def forward_and_backward(name: str, size: str, device: torch.device) -> Callable[[], None]:
    """Both passes of one batch; a call frees its gradients at the end."""
    d_in, W, batch, l0 = map(int, size.split(":"))
    x = make_batch(d_in, batch, device)
    sae: Any = make_sae(name, d_in, W, l0, x)
    step = TrainStepInput(
        sae_in=x,
        coefficients={"l1": 1.0, "l0": 1.0},
        dead_neuron_mask=None,
        n_training_steps=0,
        is_logging_step=False,
    )

    def run() -> None:
        sae.training_forward_pass(step).loss.backward()
        sae.zero_grad()

    return run


def now_mib() -> float:
    """Resident memory of this process, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def shown(value: float) -> str:
    """At least three digits that count: a card's times are short."""
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


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
        row.append(shown(steps[name]) if name in steps else "")
        for floor in ("dense floor", "sparse floor"):
            row.append(f"{steps[name] / steps[floor]:.2f}" if name in steps else "")
        for kind in ("encode_ms", "decode_ms", "memory_mib"):
            row.append(shown(result[kind][name]) if name in result[kind] else "")
        out.add_row(*row)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=SIZES, help="d_in:W:batch:L0")
    parser.add_argument("--only", nargs="*", choices=SAES, help="names of SAEs; default all")
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--device", default="cpu", help="such as cuda; default cpu")
    parser.add_argument("--json", type=Path, help="default: by the device, below results/")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(memory_of_process(args.memory, args.sizes[0]))
        return
    try:
        device = checked_device(args.device)
    except InvalidInputError as error:
        parser.exit(2, f"{error}\n")
    name = None if device.type == "cpu" else card_name(device)
    path = args.json or results_file("speed", name, date.today())
    results = [measure(size, args.runs, args.only, device) for size in args.sizes]
    for result in results:
        Console(width=110).print(table(result))
    command = own_command()
    where = machine() | card(device)
    write_json({"command": command, "machine": where, "sizes": results}, path)


if __name__ == "__main__":
    main()
