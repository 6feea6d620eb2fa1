"""The mutations of sae_weights.safetensors, and the list of all cases (see mutations.py)."""

import json
import os
import pickle
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from sae_lens.constants import SAE_WEIGHTS_FILENAME as WEIGHTS
from sae_lens.registry import SAE_CLASS_REGISTRY
from safetensors.torch import load_file, save
from torch import Tensor

from .mutations import (
    CFG,
    Case,
    architecture_cases,
    edit_bytes,
    flipped,
    key_cases,
    metadata_cases,
    text_cases,
    value_cases,
)

# State of a training SAE that an inference SAE does not need.
TRAINING_STATE = (
    "l0_control",
    "n_threshold_resets",
    "tokens_since_active",
    "topk_threshold",  # twice in a file, the second time as bytes: one of them may be missing
    "topk_threshold_bytes",
)


class Payload:
    """Unpickling this makes the file that it names: a pickle that is loaded leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def edit_tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        (folder / WEIGHTS).write_bytes(save({k: v.contiguous() for k, v in tensors.items()}))

    return apply


def edit_header(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + size :]

    return apply


RESHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "flat": lambda t: t.flatten() if t.ndim > 1 else t[None],
    "a column more": lambda t: torch.cat([t, t[..., :1]], -1),
    "a column less": lambda t: t[..., :-1],
    "a row more": lambda t: torch.cat([t, t[:1]], 0),
    "of another rank": lambda t: t[None, None],
    "empty": lambda t: t[..., :0],
    "a scalar": lambda t: t.flatten()[0],
}
FLOATS = (torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (torch.int64, torch.int8, torch.uint8, torch.bool)


def _set(name: str, position: float, value: float) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        flat = tensors[name].flatten()
        flat[int(position * flat.numel())] = value
        tensors[name] = flat.view(tensors[name].shape)

    return change


def tensor_cases(tensors: dict[str, Tensor], rng: random.Random) -> Iterator[Case]:
    """Whole tensors: missing, renamed, added, of another shape or dtype, not finite, negative."""
    for name, tensor in sorted(tensors.items()):
        state = name in TRAINING_STATE
        yield Case(
            "weights: tensor missing", name, "same" if state else "refuse",
            edit_tensors(lambda t, n=name: t.pop(n)), (name,),
        )  # fmt: skip
        yield Case(
            "weights: tensor renamed", name, "refuse",
            edit_tensors(lambda t, n=name: t.update({n + "_": t.pop(n)})), (name,),
        )  # fmt: skip
        if tensor.ndim == 0 or state:
            continue
        for how, reshape in RESHAPES.items():
            yield Case(
                "weights: wrong shape", f"{name} {how}", "refuse",
                edit_tensors(lambda t, n=name, r=reshape: t.update({n: r(t[n])})), (name,),
            )  # fmt: skip
        for value in (float("nan"), float("inf"), float("-inf")):
            yield Case(
                "weights: NaN or inf", f"{name} {value}", "refuse",
                edit_tensors(_set(name, rng.random(), value)), (name,),
            )  # fmt: skip
        for dtype in (*FLOATS, *INTEGERS):
            yield Case(
                "weights: other dtype", f"{name} {dtype}", "means",
                edit_tensors(lambda t, n=name, d=dtype: t.update({n: t[n].to(d)})), (name,),
            )  # fmt: skip
    for value in (-1e-9, -0.5, -1e30) if "threshold" in tensors else ():
        yield Case(
            "weights: threshold below 0", f"{value}", "refuse",
            edit_tensors(_set("threshold", rng.random(), value)), ("threshold",),
        )  # fmt: skip
    for name in ("b_gate", "scaling", "W_dec.weight", ""):
        yield Case(
            "weights: tensor added", name, "refuse",
            edit_tensors(lambda t, n=name: t.update({n: torch.zeros(2)})), (),
        )  # fmt: skip


def file_cases(rng: random.Random, n_random: int, others: dict[str, Path]) -> Iterator[Case]:
    """The file as bytes: cut, flipped, with a lying header, or another file in its place."""

    def case(
        kind: str, name: str, change: Callable[[bytes], bytes], expect: Any = "refuse"
    ) -> Case:
        return Case(f"weights: {kind}", name, expect, edit_bytes(WEIGHTS, change))

    for size in (0, 1, 7, 9, 2**31, 2**40, 2**63, 2**64 - 1):
        yield case(
            "lying header", f"says {size} bytes", lambda b, s=size: struct.pack("<Q", s) + b[8:]
        )
    yield Case("weights: lying header", "of 120 MB", "refuse", _huge_header)
    lies: dict[str, Callable[[dict[str, Any]], Any]] = {
        "F64": lambda h: h["W_enc"].update(dtype="F64"),
        "an unknown dtype": lambda h: h["W_enc"].update(dtype="F99"),
        "a huge shape": lambda h: h["W_enc"].update(shape=[2**62, 4]),
        "a negative shape": lambda h: h["W_enc"].update(shape=[-16, -24]),
        "another shape": lambda h: h["W_enc"].update(shape=[16, 12]),
        "offsets that overlap": lambda h: h["W_enc"].update(
            data_offsets=h["W_dec"]["data_offsets"]
        ),
        "offsets beyond the end": lambda h: h["W_enc"].update(data_offsets=[0, 2**50]),
        "offsets backwards": lambda h: h["W_enc"].update(
            data_offsets=h["W_enc"]["data_offsets"][::-1]
        ),
        "no offsets": lambda h: h["W_enc"].pop("data_offsets"),
        "metadata that is no text": lambda h: h.update(__metadata__={"a": 1}),
        "nested 5,000 deep": lambda h: h.update(__metadata__={"a": "[" * 5000}) and None,
    }
    for name, lie in lies.items():
        expect = "same" if name.startswith("nested") else "refuse"
        yield case("lying header", name, edit_header(lie), expect)
    yield case(
        "lying header", "deeply nested JSON", lambda b: struct.pack("<Q", 20_000) + b"[" * 20_000
    )
    yield Case(
        "weights: other file",
        "cfg.json",
        "refuse",
        edit_bytes(WEIGHTS, lambda b: b'{"d_in": 16}' * 9),
    )
    for name, other in others.items():
        yield case(
            "other file", f"weights of {name}", lambda b, o=other: (o / WEIGHTS).read_bytes()
        )
    for name, data in {
        "empty": b"",
        "text": b"404: Not Found\n",
        "zeros": bytes(4096),
        "a pickle": pickle.dumps(Payload(Path("executed"))),
    }.items():
        yield case("other file", name, lambda b, d=data: d)
    yield Case("swapped files", "cfg.json and weights", "refuse", _swap)
    for file in (CFG, WEIGHTS):
        yield Case(
            "file missing, or a folder",
            f"{file} missing",
            "refuse",
            lambda f, n=file: (f / n).unlink(),
        )
        yield Case(
            "file missing, or a folder",
            f"{file} a folder",
            "refuse",
            lambda f, n=file: _folder(f / n),
        )
    for _ in range(n_random):
        share, seed = rng.random(), rng.getrandbits(32)
        yield case("cut", f"at {share:.3f}", lambda b, s=share: b[: int(s * len(b))])
        yield case(
            "a bit flipped in the header",
            f"seed {seed}",
            lambda b, s=seed: flipped(b, s, 0, 500),
            "either",
        )
        yield case(
            "a bit flipped in the data",
            f"seed {seed}",
            lambda b, s=seed: flipped(b, s, 700, len(b)),
            "either",
        )


def _huge_header(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 120_000_000))
    os.truncate(folder / WEIGHTS, 120_000_100)  # sparse: takes no room


def _swap(folder: Path) -> None:
    cfg, weights = (folder / CFG).read_bytes(), (folder / WEIGHTS).read_bytes()
    (folder / CFG).write_bytes(weights)
    (folder / WEIGHTS).write_bytes(cfg)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _both(a: Case, b: Case, folder: Path) -> None:
    a.apply(folder)
    b.apply(folder)


def _subject(case: Case) -> str:
    """The key or tensor that it changes, whether set, taken away or misspelt in its last letter."""
    return case.name.split(" ")[0][:-1]


def pair_cases(singles: list[Case], rng: random.Random, n: int) -> Iterator[Case]:
    """Pairs of mutations of cfg.json and of tensors, both in one folder."""
    kinds = (
        "cfg.json: value",
        "cfg.json: wrong",
        "cfg.json: key",
        "weights: NaN",
        "weights: other dtype",
    )
    structured = [c for c in singles if c.kind.startswith(kinds) and c.name != "threshold inf"]
    for _ in range(n):
        a, b = rng.sample(structured, 2)
        if a.training_only != b.training_only or _subject(a) == _subject(b):
            continue
        refuse = "refuse" in (a.expect, b.expect)
        yield Case(
            "two at once", f"{a.name}; {b.name}", "refuse" if refuse else "either",
            lambda f, a=a, b=b: _both(a, b, f),
            tuple(field for c in (a, b) if c.expect == "refuse" for field in c.fields),
            a.training_only,
        )  # fmt: skip


def all_cases(
    base: Path,
    others: dict[str, Path],
    strangers: Sequence[str],
    seed: int,
    n_random: int,
    n_values: int,
) -> list[Case]:
    """All cases for the SAE in ``base``.

    Args:
        others: the folders of SAEs with other weights, by name.
        strangers: the signed architectures that do not fit the weights of ``base``.
        n_random: the number of cases of each kind of random damage.
        n_values: the number of wrong values of fields.
    """
    rng = random.Random(seed)
    cfg, tensors = json.loads((base / CFG).read_text()), load_file(base / WEIGHTS)
    values = list(value_cases(cfg))
    singles = [
        *rng.sample(values, min(n_values, len(values))),
        *key_cases(cfg, rng),
        *architecture_cases(strangers),
        *metadata_cases(cfg["architecture"] in SAE_CLASS_REGISTRY),
        *text_cases(rng, n_random),
        *tensor_cases(tensors, rng),
        *file_cases(rng, n_random, others),
    ]
    return [*singles, *pair_cases(singles, rng, n_random)]
