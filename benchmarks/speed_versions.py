"""Steps, encode and decode of another checkout of this repository beside those of this one.

    git worktree add /tmp/before bb9b025
    python benchmarks/speed_versions.py /tmp/before --json results/speed_versions.json

Each checkout runs in a process of its own, with the SAEs of its own benchmarks/speed.py. The two
take turns, measurement by measurement, so that noise of the machine meets both. A ratio above 1
says that this checkout is slower. About 4 minutes on two cores.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
SIZES = ("576:2304:1024:64", "576:16384:1024:64")
NAMES = ("sa_gsae W", "sa_gsae W, dense", "bi_jumprelu W", "bi_jumprelu W, dense")


def work(checkout: Path, size: str) -> None:
    """Answer each line of standard input, the name of a measurement, with its milliseconds."""
    sys.path[:0] = [str(checkout), str(checkout / "benchmarks")]
    import speed  # of that checkout
    import torch

    import sae_lens_signaware

    if not Path(sae_lens_signaware.__file__).is_relative_to(checkout):
        raise RuntimeError(f"{sae_lens_signaware.__file__} is not in {checkout}")
    d_in, W, batch, l0 = map(int, size.split(":"))
    x = torch.randn(batch, d_in, generator=torch.Generator().manual_seed(1))
    runs: dict[str, Callable[[], object]] = {}
    for name in NAMES:
        sae: Any = speed.make_sae(name, d_in, W, l0, x)
        trainer = speed.make_trainer(sae)
        runs[f"{name}: step"] = lambda trainer=trainer: trainer.step(x)
        if "," in name:  # how a training computes does not concern what is saved
            continue
        with torch.no_grad():
            z = sae.encode(x)
        runs[f"{name}: encode"] = torch.no_grad()(lambda sae=sae: sae.encode(x))
        runs[f"{name}: encode_sparse"] = lambda sae=sae: sae.encode_sparse(x)
        runs[f"{name}: decode"] = torch.no_grad()(lambda sae=sae, z=z: sae.decode(z))
    for run in runs.values():
        run(), run()
    print(json.dumps(list(runs)), flush=True)
    for line in sys.stdin:
        run = runs[line.strip()]
        start = time.perf_counter()
        run()
        print(1000 * (time.perf_counter() - start), flush=True)


def compare(before: Path, size: str, n: int) -> dict[str, dict[str, float]]:
    """Measurement -> medians in milliseconds of both checkouts, and the median of paired ratios."""
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(checkout), "--work", size],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for checkout in (before.resolve(), HERE)
    ]
    ask: list[Callable[[str], float]] = []
    for worker in workers:
        assert worker.stdin is not None
        assert worker.stdout is not None

        def answer(name: str, stdin: Any = worker.stdin, stdout: Any = worker.stdout) -> float:
            stdin.write(name + "\n")
            stdin.flush()
            return float(stdout.readline())

        ask.append(answer)
    names = [json.loads(worker.stdout.readline()) for worker in workers if worker.stdout]
    assert names[0] == names[1]
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names[0]}
    for i in range(n):
        for name in names[0]:
            for which in (0, 1) if i % 2 else (1, 0):
                times[name][which].append(ask[which](name))
    for worker in workers:
        worker.communicate()
    return {
        name: {
            "before_ms": statistics.median(a),
            "after_ms": statistics.median(b),
            "ratio": statistics.median(y / x for x, y in zip(a, b, strict=True)),
        }
        for name, (a, b) in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--sizes", nargs="*", default=SIZES, help="d_in:W:batch:L0")
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.before, args.work)
        return
    from evaluation import machine
    from own_command import own_command

    from sae_lens_signaware.files import write_json

    results = {size: compare(args.before, size, args.runs) for size in args.sizes}
    for size, rows in results.items():
        print(f"d_in:W:batch:L0 = {size}")
        for name, row in rows.items():
            before, after = row["before_ms"], row["after_ms"]
            print(f"  {name:32s} {before:8.1f} {after:8.1f} ms  {row['ratio']:.3f}")
    if args.json:
        command = own_command()
        commits = [
            subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folder, text=True).strip()
            for folder in (args.before, HERE)
        ]
        values = {"command": command, "commits": commits, "machine": machine(), "sizes": results}
        write_json(values, args.json)


if __name__ == "__main__":
    main()
