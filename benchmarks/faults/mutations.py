"""Mutations of cfg.json that the fuzzer tries (weight_mutations.py has those of the weights).

A mutator changes one file of a folder. What must come of it is part of the case:

same    it loads, and its output is that of the unmutated SAE
means   it loads as what the changed file says
refuse  it must not load
either  bytes were changed at random: it must not load, or load as what the file now says
"""

import json
import math
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sae_lens.constants import SAE_CFG_FILENAME as CFG
from sae_lens.registry import SAE_CLASS_REGISTRY

Expectation = Literal["same", "means", "refuse", "either"]


@dataclass(frozen=True)
class Case:
    """One mutation: its row in the table, its name, what must come of it, and the mutator.

    ``fields``: what an error of the package must name. ``training_only``: an inference SAE has no
    such field, so that SAELens drops it.
    """

    kind: str
    name: str
    expect: Expectation
    apply: Callable[[Path], object]
    fields: tuple[str, ...] = ()
    training_only: bool = False


# Values of every JSON type, in and out of every range, and some that Python takes for equal.
POOL: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 16, 16.0, 0.5, -0.5, 1e300, 10**30, 10**400),
    *(math.nan, math.inf, -math.inf, "", "x", "16", "true", "none", "full", "step", [], [1], {}),
    *({"a": 1}, [[[]]], "\x00\n\u202e", "long " * 50_000),
)
FAR_SIZES = (2**31, 2**62, 2**63, 2**64 + 16)


def _number(v: Any) -> bool:
    return isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= 1e308


def _integer(v: Any) -> bool:
    return isinstance(v, int) and _number(v)


def _one_of(*names: Any) -> Callable[[Any], bool]:
    return lambda v: type(v) is str and v in names


def _boolean(v: Any) -> bool:
    return isinstance(v, bool)


def _nothing(_: Any) -> bool:
    return False  # the weights have the size that stands there


def _count_from(low: int) -> Callable[[Any], bool]:
    return lambda v: _integer(v) and v >= low


def _at_least_0(v: Any) -> bool:
    return _number(v) and v >= 0


def _threshold(v: Any) -> bool:
    return _at_least_0(v) and v < 3.5e38  # of 32 bits


def _above_0(v: Any) -> bool:
    return _number(v) and v > 0


def _widths(v: Any) -> bool:
    """Nested widths of 24 latents."""
    return (
        isinstance(v, list) and all(map(_integer, v)) and v == sorted({*v} & {*range(1, 25)}) != []
    )


# What each field of a cfg.json may hold, by its documentation. The package's checks are not used.
ACCEPTS: dict[str, Callable[[Any], bool]] = {
    "d_in": _nothing,
    "d_sae": _nothing,
    "polarity_tying": _nothing,
    "dtype": _one_of("float32", "float64", "float16", "bfloat16", "torch.float32"),
    "device": lambda v: True,  # the loader's argument overrides it
    "apply_b_dec_to_input": _boolean,
    "two_sided": _boolean,
    "normalize_activations": _one_of("none", "expected_average_only_in", "layer_norm"),
    "reshape_activations": _one_of("none", "hook_z"),
    "format_version": lambda v: _integer(v) and v in (1, 2),
    "l1_coefficient": _above_0,  # the training SAEs here have a target_l0
    "l0_coefficient": _above_0,
    "l1_warm_up_steps": _count_from(0),
    "l0_warm_up_steps": _count_from(0),
    "target_l0": lambda v: v is None or (_number(v) and 0 < v <= 24),
    "target_l0_rate": _above_0,
    "aux_coefficient": _at_least_0,
    "auxk_coefficient": _at_least_0,
    "aux_loss_coefficient": _at_least_0,
    "k": lambda v: _number(v) and 0 < v <= 24,
    "topk_threshold_lr": lambda v: _number(v) and 0 < v <= 1,
    "rescale_acts_by_decoder_norm": _boolean,
    "matryoshka_widths": _widths,
    "use_matryoshka_aux_loss": _boolean,
    "detach_decoder": _boolean,
    "detach_norm": _boolean,
    "threshold_init": _threshold,
    "jumprelu_init_threshold": _threshold,
    "jumprelu_bandwidth": _above_0,
    "jumprelu_sparsity_loss_mode": _one_of("step", "tanh", "quadratic"),
    "jumprelu_tanh_scale": _number,
    "jumprelu_ste_to_input": _boolean,
    "pre_act_loss_coefficient": lambda v: v is None or _number(v),
    "decoder_init_norm": lambda v: v is None or _number(v),
    "dead_threshold_reset": _boolean,
    "threshold_reset_interval": _count_from(1),
    "use_sparse_activations": _boolean,
}
INFERENCE_FIELDS = (
    *("d_in", "d_sae", "polarity_tying", "dtype", "device", "apply_b_dec_to_input", "two_sided"),
    *("normalize_activations", "reshape_activations", "format_version"),
)
MORE_VALUES: dict[str, tuple[Any, ...]] = {
    "d_in": FAR_SIZES,
    "d_sae": FAR_SIZES,
    "polarity_tying": ("radii", "Full"),
    "dtype": ("float64", "float16", "bfloat16", "torch.float32", "int8", "complex64", "float33"),
    "normalize_activations": ("layer_norm", "expected_average_only_in", "layernorm"),
    "reshape_activations": ("hook_z", "hook_q"),
    "format_version": (3, 999, "1", 1.0),
    "threshold_reset_interval": (500,),
    "jumprelu_sparsity_loss_mode": ("tanh", "quadratic"),
}


def edit_cfg(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        cfg = json.loads((folder / CFG).read_text())
        change(cfg)
        (folder / CFG).write_text(json.dumps(cfg))

    return apply


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "10**400"
    return text if len(text) < 40 else text[:37] + "..."


def value_cases(cfg: dict[str, Any]) -> Iterator[Case]:
    """Every field with every value of the pool."""
    for field in sorted(set(cfg) & set(ACCEPTS)):
        for value in (*POOL, *MORE_VALUES.get(field, ())):
            same_value = type(value) is type(cfg[field]) and value == cfg[field]
            ok = same_value or ACCEPTS[field](value)
            if field == "two_sided" and value is False:
                # a - side that is never active has nothing to untie
                ok = cfg["polarity_tying"] == "full"
            kind = "value of the right type" if ok else "wrong type or value"
            if field == "format_version":
                kind = "format_version"
            yield Case(
                f"cfg.json: {kind}",
                f"{field} = {_short(value)}",
                "means" if ok else "refuse",
                edit_cfg(lambda c, f=field, v=value: c.update({f: v})),
                (field,),
                training_only=field not in INFERENCE_FIELDS,
            )


REQUIRED = ("d_in", "d_sae", "dtype", "architecture")  # the rest has defaults
OTHER_ARCHITECTURES: tuple[Any, ...] = (
    *("standard", "gated", "jumprelu", "topk", "batchtopk", "no_such", "SA_GSAE", "", None, 3),
    *(["sa_gsae"], {"sa_gsae": 1}),
)


def key_cases(cfg: dict[str, Any], rng: random.Random) -> Iterator[Case]:
    """Keys missing, misspelt (SAELens drops unknown ones, so the default holds) and added."""
    for field in sorted(cfg):
        training_only = field in ACCEPTS and field not in INFERENCE_FIELDS
        # a width list has no default, and k's is more than these SAEs have latents
        refuse = field in (*REQUIRED, "matryoshka_widths", "k")
        if field == "polarity_tying":
            refuse = cfg[field] != "full"
        expect: Expectation = "refuse" if refuse else "means"
        if field == "metadata" and cfg["architecture"] not in SAE_CLASS_REGISTRY:
            expect = "either"  # SAELens takes it for one of before version 6, as below
        named = (field,) if field == "polarity_tying" else ()  # the shapes that it fixes are off
        typo = field[:-1] + rng.choice("xyz")
        for kind, new in (("key missing", None), ("key misspelt", typo)):
            change = edit_cfg(
                lambda c, f=field, t=new: c.update({t: c.pop(f)} if t else (c.pop(f), {})[1])
            )
            yield Case(f"cfg.json: {kind}", new or field, expect, change, named, training_only)
    for key, value in (
        ("n_latents", 32),
        ("", ""),
        ("finetuning_scaling_factor", True),
        ("x" * 9999, [1]),
    ):
        change = edit_cfg(lambda c, k=key, v=value: c.update({k: v}))
        yield Case("cfg.json: key added", key[:40], "same", change)


def architecture_cases(strangers: Sequence[str]) -> Iterator[Case]:
    """Architectures that do not fit these weights; ``strangers`` are the signed ones."""
    for value in (*OTHER_ARCHITECTURES, *strangers):
        yield Case(
            "cfg.json: other architecture",
            _short(value),
            "refuse",
            edit_cfg(lambda c, v=value: c.update(architecture=v)),
        )


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def metadata_cases(is_saved_as_itself: bool) -> Iterator[Case]:
    """SAELens's metadata: free in its content, but a mapping, with a version that parses.

    Args:
        is_saved_as_itself: whether the architecture has an inference SAE of its own name. SAELens
            looks for one where the version is before 6, which had no others.
    """
    for value in (None, [], [1], "x", 1, True):
        yield Case(
            "cfg.json: metadata",
            _short(value),
            "refuse",
            edit_cfg(lambda c, v=value: c.update(metadata=v)),
        )
    for version in ("garbage", 6, [1], {"a": 1}):
        yield Case(
            "cfg.json: metadata", f"sae_lens_version {version!r}", "refuse",
            edit_cfg(lambda c, v=version: c["metadata"].update(sae_lens_version=v)),
        )  # fmt: skip
    for name, more in (
        ("future version", {"sae_lens_version": "99.0"}),
        ("before SAELens 6", {"sae_lens_version": "5.0"}),
        ("odd values", {"hook_name": [1], "model_name": 3, "dataset_path": {"a": math.nan}}),
        ("nested 200 deep", {"a": nested(200)}),
        ("nested 600 deep", {"a": nested(600)}),  # too deep for a copy by Python
    ):
        is_either = "600" in name or ("before" in name and not is_saved_as_itself)
        expect: Expectation = "either" if is_either else "same"
        change = edit_cfg(lambda c, m=more: c["metadata"].update(m))
        yield Case("cfg.json: metadata", name, expect, change)
    for name in ("to_dict", "items", "__class__"):
        yield Case(
            "cfg.json: metadata", f"a key {name!r}", "refuse",
            edit_cfg(lambda c, n=name: c["metadata"].update({n: 1})),
        )  # fmt: skip


def edit_bytes(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))


def flipped(data: bytes, seed: int, low: int, high: int) -> bytes:
    rng = random.Random(seed)
    out = bytearray(data)
    out[rng.randrange(low, min(high, len(data)))] ^= 1 << rng.randrange(8)
    return bytes(out)


def text_cases(rng: random.Random, n_random: int) -> Iterator[Case]:
    """cfg.json as bytes: not JSON, not text, cut, flipped, nested, of another shape."""
    whole: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda b: b"",
        "zeros": lambda b: bytes(len(b)),
        "YAML": lambda b: b"d_in: 16\nd_sae: 24\n",
        "HTML": lambda b: b"<!doctype html><title>404</title>",
        "a Git LFS pointer": lambda b: b"version https://git-lfs.github.com/spec/v1\nsize 9\n",
        "UTF-16": lambda b: b.decode().encode("utf-16"),
        "not UTF-8": lambda b: b[:-1] + b',"\xff":1}',
        "a byte order mark": lambda b: b"\xef\xbb\xbf" + b,
        "more after it": lambda b: b + b"{}",
        "a pickle": lambda b: pickle.dumps({"d_in": 16}),
        **{f"{top} at the top": lambda b, t=top: t.encode() for top in ("[]", '"x"', "1", "null")},
        **{f"nested {n:,} deep": lambda b, n=n: b"[" * n for n in (900, 100_000)},
        "objects nested 100,000 deep": lambda b: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    }
    for name, change in whole.items():
        yield Case(
            "cfg.json: not JSON, or of another shape", name, "refuse", edit_bytes(CFG, change)
        )
    yield Case(
        "cfg.json: not JSON, or of another shape",
        "blanks around it",
        "same",
        edit_bytes(CFG, lambda b: b" \n" + b + b"\n"),
    )
    for _ in range(n_random):
        share, seed = rng.random(), rng.getrandbits(32)
        yield Case(
            "cfg.json: cut",
            f"at {share:.3f}",
            "refuse",
            edit_bytes(CFG, lambda b, s=share: b[: int(s * (len(b) - 1))]),
        )
        yield Case(
            "cfg.json: a bit flipped",
            f"seed {seed}",
            "either",
            edit_bytes(CFG, lambda b, s=seed: flipped(b, s, 0, len(b))),
        )
