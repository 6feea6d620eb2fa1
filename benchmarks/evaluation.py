"""Cost of the measures: of census and calibration beside encode and decode alone, and of the audit.

    python benchmarks/evaluation.py --json results/evaluation_benchmark.json

Streaming: an SA-GSAE of d_in 576, d_sae 4,608 on synthetic activations of L0 near 64. Each way
takes 10 million tokens, in alternating blocks of one process, so that noise of the machine meets
all of them. "analyze" is census, calibration and R2; "encode_sparse_decode" is encode and decode
without a dense matrix of latents. Peak memory is that of the process after encode and decode alone,
and again at the end.

Audit: random dictionaries with planted antipodal pairs, each in a process of its own.

About 40 minutes on two cores.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sae_lens
import torch
from own_command import own_command
from rich.progress import track
from sae_lens import SAE, TopKSAE, TopKSAEConfig
from torch import Tensor

from sae_lens_signaware import SAGatedSAE, SAGatedSAEConfig, antipodal_audit
from sae_lens_signaware.evaluation import analyze_sae
from sae_lens_signaware.files import write_json

D_IN, D_SAE, L0 = 576, 4608, 64
POOL, BATCH = 65_536, 2048
MIB = 2**20


def peak_mib() -> float:
    """Peak resident memory of this process so far, MiB."""
    # not ru_maxrss: a child inherits its parent's
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / MIB


def synthetic_sae() -> SAGatedSAE:
    """Random unit directions, tied encoder, and thresholds that give random data an L0 near 64."""
    torch.manual_seed(0)
    sae = SAGatedSAE(SAGatedSAEConfig(d_in=D_IN, d_sae=D_SAE, apply_b_dec_to_input=False))
    with torch.no_grad():
        sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(D_SAE, D_IN), dim=1))
        sae.W_enc.copy_(sae.W_dec.T)
        x = torch.randn(4096, D_IN)
        pi = (x @ sae.W_enc).abs().flatten()
        sae.threshold.fill_(pi.kthvalue(int(len(pi) * (1 - L0 / D_SAE))).values.item())
    return sae


@torch.no_grad()
def encode_decode(
    sae: SAE[Any], batches: Iterator[Tensor], encode: Callable[[Tensor], Tensor] | None = None
) -> None:
    """Encode and decode all batches, with another encoder than the SAE's own if one is given."""
    for batch in batches:
        sae.decode((encode or sae.encode)(batch))


def streaming(n_tokens: int, block: int) -> dict[str, Any]:
    """Time and memory of the three ways, in this process."""
    sae = synthetic_sae()
    pool = torch.randn(POOL, D_IN, generator=torch.Generator().manual_seed(1))

    def batches() -> Iterator[Tensor]:
        for i in range(block // BATCH):
            start = i * BATCH % POOL
            yield pool[start : start + BATCH]

    for _ in range(2):
        encode_decode(sae, batches())
    alone_mib = peak_mib()
    times: dict[str, list[float]] = {"encode_decode": [], "encode_sparse_decode": [], "analyze": []}
    analysis = None
    for _ in track(range(-(-n_tokens // block)), description="Streaming"):
        marks = [time.perf_counter()]
        encode_decode(sae, batches())
        marks.append(time.perf_counter())
        encode_decode(sae, batches(), sae.encode_sparse)
        marks.append(time.perf_counter())
        analysis = analyze_sae(sae, batches())
        marks.append(time.perf_counter())
        for name, start, end in zip(times, marks, marks[1:], strict=False):
            times[name].append(end - start)
    assert analysis is not None
    total = {k: sum(v) for k, v in times.items()}
    return {
        "d_in": D_IN,
        "d_sae": D_SAE,
        "l0": analysis.census.l0,
        "n_tokens_each": len(times["analyze"]) * (block // BATCH) * BATCH,
        "batch": BATCH,
        "seconds": total,
        "ratio_of_totals": total["analyze"] / total["encode_decode"],
        "ratio_of_totals_to_sparse": total["analyze"] / total["encode_sparse_decode"],
        "median_of_block_ratios": statistics.median(
            a / b for a, b in zip(times["analyze"], times["encode_decode"], strict=True)
        ),
        "peak_mib_encode_decode": alone_mib,
        "peak_mib_with_analyze": peak_mib(),
        "peak_mib_added": peak_mib() - alone_mib,
    }


def audit(d_sae: int) -> dict[str, Any]:
    """Time and memory of the exact search, in this process."""
    torch.manual_seed(0)
    sae = TopKSAE(TopKSAEConfig(d_in=D_IN, d_sae=d_sae, k=L0))
    n_planted = d_sae // 100
    with torch.no_grad():
        sae.W_dec.copy_(torch.randn(d_sae, D_IN))
        sae.W_dec[-n_planted:] = -2 * sae.W_dec[:n_planted]
    before = peak_mib()
    start = time.perf_counter()
    pairs = antipodal_audit(sae)
    seconds = time.perf_counter() - start
    exact = torch.equal(
        pairs.latent_b - pairs.latent_a, torch.full((n_planted,), d_sae - n_planted)
    )
    return {
        "d_in": D_IN,
        "d_sae": d_sae,
        "n_planted_pairs": n_planted,
        "found_exactly_these": exact,
        "seconds": seconds,
        "peak_mib_added": peak_mib() - before,
        "full_matrix_mib": d_sae**2 * 4 / MIB,
    }


def machine() -> dict[str, Any]:
    """The machine and the versions that the figures depend on."""
    cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return {
        "cpu": cpu[0].split(": ")[1] if cpu else platform.processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch_version": torch.__version__,
        "sae_lens_version": sae_lens.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path, default=Path("results/evaluation_benchmark.json"))
    parser.add_argument("--audit", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.audit:
        print(json.dumps(audit(args.audit)))
        return
    audits = [
        json.loads(subprocess.check_output([sys.executable, __file__, "--audit", str(d_sae)]))
        for d_sae in (16_384, 65_536)
    ]
    result = {
        "command": own_command(),
        "machine": machine(),
        "streaming": streaming(args.tokens, min(args.tokens, 204_800)),
        "audit": audits,
    }
    write_json(result, args.json)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
