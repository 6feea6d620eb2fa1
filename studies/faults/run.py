"""Mutate saved SAEs, kill trainings and poison batches, and count what comes of it (some minutes).

    python studies/faults/run.py [--seed N]

A mutated folder must load as what its files say, or be refused. A training on cached activations
that is killed must end bit for bit where an undisturbed one does, and one that meets a NaN must stop.
Results go to result.json beside this file, or to --out. Exit code 1 where a fault was not caught.
"""

import argparse
import json
import math
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))  # studies/ is no installed package

import torch
from sae_lens import SAE, TrainingSAE
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.hub import load_sae
from sae_lens_signaware.training.cached import train_on_cache
from studies.common import ROOT, measured_with, write_result

HERE = Path(__file__).parent
CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
D_IN, D_SAE, N_STEPS, BATCH = 16, 24, 120, 64
SAES: dict[str, dict[str, Any]] = {
    "sa_gsae": {"target_l0": 5.0},
    "bi_jumprelu": {"target_l0": 5.0},
    "bi_batchtopk": {"k": 5},
    "bi_matryoshka_batchtopk": {"k": 5, "matryoshka_widths": [6, 24]},
    "bi_topk": {"k": 5},
}
FIELDS = ("d_in", "d_sae", "dtype", "polarity_tying", "k")
"""Fields of cfg.json that fix shapes, types or what is kept."""
WRONG: tuple[Any, ...] = (None, -1, 0.5, 10**30, math.nan, "x", [], {}, "long " * 9999)
"""Values that none of them may hold, but for a fraction as ``k`` of a mean."""


class Case(NamedTuple):
    """A mutation of a folder, and what must come of it.

    ``same``: it loads with the output of before. ``refuse``: it must not load. ``any``: it must not
    load, or load with a finite output.
    """

    kind: str
    name: str
    expect: Literal["same", "refuse", "any"]
    apply: Callable[[Path], object]


def config_of(architecture: str) -> Any:
    """A small training config."""
    fields = {"d_in": D_IN, "d_sae": D_SAE, **SAES[architecture]}
    return get_sae_training_class(architecture)[1](**fields)


def save_small(architecture: str, folder: Path) -> None:
    """Save an inference SAE with random weights, both of whose sides are active."""
    torch.manual_seed(0)
    sae = TrainingSAE.from_dict(config_of(architecture).to_dict())
    for name, parameter in sae.named_parameters():
        noise = 0.3 * torch.randn_like(parameter)
        parameter.data = noise.abs() if "threshold" in name else noise
    sae.save_inference_model(folder)


def edit_cfg(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A mutator of the fields of cfg.json."""

    def apply(folder: Path) -> None:
        cfg = json.loads((folder / CFG).read_text())
        change(cfg)
        (folder / CFG).write_text(json.dumps(cfg))

    return apply


def edit_tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    """A mutator of the tensors."""

    def apply(folder: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
        change(tensors)
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / WEIGHTS)

    return apply


def edit_bytes(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """A mutator of a file's bytes."""
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))


def cases_of(folder: Path, rng: random.Random, n_random: int) -> Iterator[Case]:
    """All mutations of a saved SAE."""
    cfg, tensors = json.loads((folder / CFG).read_text()), load_file(folder / WEIGHTS)
    for field in sorted({*FIELDS} & {*cfg}):
        for value in WRONG:
            change = edit_cfg(lambda c, f=field, v=value: c.update({f: v}))
            expect = "any" if (field, value) == ("k", 0.5) else "refuse"
            yield Case("cfg.json: value", f"{field} = {value!r:.30}", expect, change)
    for field in ("d_in", "d_sae", "architecture", "dtype"):
        yield Case("cfg.json: key missing", field, "refuse", edit_cfg(lambda c, f=field: c.pop(f)))
    yield Case(
        "cfg.json: key added", "n_latents", "same", edit_cfg(lambda c: c.update(n_latents=3))
    )
    for name in ("no_such", "", None, 3, ["sa_gsae"]):
        change = edit_cfg(lambda c, n=name: c.update(architecture=n))
        yield Case("cfg.json: architecture", repr(name), "refuse", change)
    texts = {"empty": b"", "HTML": b"<!doctype html>", "a list": b"[]", "nested": b"[" * 100_000}
    for name, text in texts.items():
        yield Case("cfg.json: not JSON", name, "refuse", edit_bytes(CFG, lambda b, t=text: t))
    for name in tensors:
        yield Case("weights: missing", name, "refuse", edit_tensors(lambda t, n=name: t.pop(n)))
        for what, change in (
            ("one more", lambda x: torch.cat([x, x[..., -1:]], dim=-1)),
            ("flat", lambda x: x.flatten()[1:]),
        ):
            edit = edit_tensors(lambda t, n=name, c=change: t.update({n: c(t[n])}))
            yield Case("weights: shape", f"{name}, {what}", "refuse", edit)
        poison = edit_tensors(lambda t, n=name: t[n].view(-1)[:1].fill_(math.nan))
        yield Case("weights: NaN", name, "refuse", poison)
    yield Case(
        "weights: not safetensors", "zeros", "refuse", edit_bytes(WEIGHTS, lambda b: bytes(99))
    )
    for i in range(n_random):
        share = rng.random()
        cut = edit_bytes(WEIGHTS, lambda b, s=share: b[: int(s * (len(b) - 1))])
        yield Case("weights: cut", f"at {share:.3f}", "refuse", cut)
        for file in (CFG, WEIGHTS):
            at = rng.random()
            flip = edit_bytes(file, lambda b, a=at: _flipped(b, int(a * 8 * len(b))))
            yield Case(f"{file}: a bit flipped", str(i), "any", flip)


def _flipped(data: bytes, bit: int) -> bytes:
    at = bit // 8
    return data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]


def outcome_of(case: Case, whole: Path, work: Path, x: Tensor) -> str:
    """Mutate a copy, load it, and judge.

    Returns:
        "right", "refused in one line" by this package, "refused by a library", "loads with NaN or
        inf", or "BAD: " and why.
    """
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(whole, work)
    case.apply(work)
    try:
        sae = load_sae(str(work))
        out = sae(x)
    except InvalidInputError as error:
        if case.expect == "same":
            return f"BAD: refused though right: {error}"
        return "refused in one line" if "\n" not in str(error) else f"BAD: many lines: {error}"
    except Exception as error:
        return f"BAD: {error}" if case.expect == "same" else "refused by a library"
    if case.expect == "same":
        return "right" if torch.equal(out, SAE.load_from_disk(whole)(x)) else "BAD: another output"
    if not all(parameter.isfinite().all() for parameter in sae.parameters()):
        return "loads with NaN or inf"
    return "right" if case.expect == "any" else "BAD: loaded though wrong"


# --- trainings


def train(architecture: str, folder: Path, poison: bool = False) -> TrainingSAE[Any]:
    """Train on cached activations, from a checkpoint below ``folder`` if there is one; save."""
    trainer = SAETrainerConfig(
        total_training_samples=N_STEPS * BATCH,
        train_batch_size_samples=BATCH,
        lr=3e-3,
        lr_end=3e-3,
        dead_feature_window=5,
        n_batches_for_norm_estimate=4,
    )
    activations = torch.randn(1000, D_IN, generator=torch.Generator().manual_seed(1)) + 0.5
    if poison:
        activations[:] = activations * 1e38
    checkpoint = folder / "checkpoint"
    sae = train_on_cache(config_of(architecture), trainer, activations, 1, checkpoint)
    sae.save_model(folder / "sae")
    return sae


def killed_training(architecture: str, folder: Path, rng: random.Random, n: int) -> str:
    """Kill a training n times at random points, resume it, and compare with an undisturbed one."""
    whole = train(architecture, folder / "whole").state_dict()
    for _ in range(n):
        command = [sys.executable, __file__, "--train", architecture, str(folder / "killed")]
        child = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert child.stdout is not None
        child.stdout.readline()  # it has imported what it needs
        time.sleep(rng.uniform(0, 1.0))
        child.send_signal(rng.choice((signal.SIGKILL, signal.SIGTERM)))
        child.wait()
    state = train(architecture, folder / "killed").state_dict()
    same = all(torch.equal(value, state[name]) for name, value in whole.items())
    return "right" if same else "BAD: it ends elsewhere"


def poisoned_training(architecture: str, folder: Path) -> str:
    """Train where the loss is not finite; the training must stop and say so."""
    try:
        train(architecture, folder, poison=True)
    except InvalidInputError as error:
        return "refused in one line" if "\n" not in str(error) else f"BAD: many lines: {error}"
    except RuntimeError:
        return "refused by a library"
    return "BAD: trained on"


def run(seed: int, n_random: int, n_kills: int) -> tuple[list[list[Any]], list[str]]:
    """Rows of kind, outcome and count, and a line for each fault that was not caught."""
    rng, counts, bad = random.Random(seed), Counter[tuple[str, str]](), []

    def count(kind: str, name: str, outcome: str) -> None:
        counts[kind, "BAD" if outcome.startswith("BAD") else outcome] += 1
        if outcome.startswith("BAD"):
            bad.append(f"{kind}, {name}: {outcome}")

    x = torch.randn(8, D_IN, generator=torch.Generator().manual_seed(2))
    with tempfile.TemporaryDirectory() as root:
        for architecture in SAES:
            whole = Path(root) / architecture
            save_small(architecture, whole)
            for case in cases_of(whole, rng, n_random):
                outcome = outcome_of(case, whole, Path(root) / "mutated", x)
                count(case.kind, f"{architecture}: {case.name}", outcome)
            place = Path(root) / f"{architecture}-trained"
            if n_kills:
                outcome = killed_training(architecture, place, rng, n_kills)
                count("training killed and resumed", architecture, outcome)
            outcome = poisoned_training(architecture, place / "poisoned")
            count("training on values that overflow", architecture, outcome)
    return [[kind, outcome, n] for (kind, outcome), n in sorted(counts.items())], bad


def main() -> None:
    """Run all faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random", type=int, default=10, help="random mutations of a kind")
    parser.add_argument("--kills", type=int, default=2, help="of each architecture's training")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of result.json")
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.train:
        print("ready", flush=True)
        train(args.train[0], Path(args.train[1]))
        return
    rows, bad = run(args.seed, args.random, args.kills)
    about = {"measured_with": measured_with(), "seed": args.seed}
    write_result(about | {"columns": ["kind", "outcome", "n"], "rows": rows}, args.out)
    print("\n".join(bad) or "every fault was caught")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
