"""The judge of the fuzzer: loads a mutated folder as a user does, and says what came of it.

right         loads, and the output is that of the unmutated SAE, or what the changed file means
ours          one clear line of this package that names the field
saelens       one line of SAELens, safetensors or json, raised before this package is reached
saelens_long  the same, of several lines
bad           anything else: loads wrong, hangs, leaves files, raises in the middle of this package
"""

import contextlib
import dataclasses
import json
import shutil
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version
from sae_lens import SAE, TrainingSAE
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.cli import app
from sae_lens_signaware.saes import SignedTrainingSAEConfig, base

from .mutations import CFG, INFERENCE_FIELDS, Case
from .small import (
    ARCHITECTURES,
    D_IN,
    TRAINING_CONFIGS,
    VARIANTS,
    asking_for,
    make_sae,
    make_training_sae,
)
from .weight_mutations import WEIGHTS, all_cases

OUTCOMES = ("right", "ours", "saelens", "saelens_long", "bad")
MAX_LINE = 600
PACKAGE = str(Path(base.__file__).parent)
SECONDS_PER_LOAD = 30
# Every variant, and one with a single side for each architecture that has the field.
SUBJECTS: list[tuple[str, str, dict[str, bool]]] = [
    *((architecture, tying, {}) for architecture, tying in VARIANTS),
    *(
        (architecture, "full", {"two_sided": False})
        for architecture, config_class in TRAINING_CONFIGS.items()
        if "two_sided" in {f.name for f in dataclasses.fields(config_class)}
    ),
]


class Hang(BaseException):
    """A load took longer than SECONDS_PER_LOAD; no ``except Exception`` may swallow it."""


@contextlib.contextmanager
def time_limit(seconds: int = SECONDS_PER_LOAD) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Hang

    # of processor time: a busy machine is no hang
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def x_batch() -> Tensor:
    return torch.randn(32, D_IN, generator=torch.Generator().manual_seed(11))


@torch.no_grad()
def output_of(sae: Any) -> Tensor:
    x = x_batch().to(sae.dtype)
    by_head = sae.cfg.reshape_activations == "hook_z" and not isinstance(sae, TrainingSAE)
    return sae(x.view(32, 4, D_IN // 4) if by_head else x).flatten()


@dataclass(frozen=True)
class Subject:
    """A saved SAE to mutate: an inference SAE, or a training one as a checkpoint has it."""

    name: str
    architecture: str
    folder: Path
    training: bool

    @property
    def loaders(self) -> tuple[str, ...]:
        if not self.training:
            return ("SAE", "split", "audit")
        # what is saved as another architecture has no inference SAE of its own name
        is_inference = self.architecture in SAE_CLASS_REGISTRY
        return ("TrainingSAE", "SAE", "resume") if is_inference else ("TrainingSAE", "resume")


def write_subjects(root: Path) -> list[Subject]:
    """Every architecture with every tying, each for inference and for training."""
    subjects = []
    for architecture, tying, extra in SUBJECTS:
        name = f"{architecture}-{tying}" + ("-one-sided" if extra else "")
        sae = make_sae(architecture, tying, **extra)
        trained = make_training_sae(architecture, tying, **asking_for(architecture, 5.0), **extra)
        for subject, saved in (
            (Subject(name, architecture, root / name, False), sae),
            (Subject(f"{name}-training", architecture, root / f"{name}-training", True), trained),
        ):
            saved.save_model(subject.folder)
            subjects.append(subject)
    return subjects


def shapes_of(subject: Subject) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in load_file(subject.folder / WEIGHTS).items()}


def cases_of(
    subject: Subject, subjects: list[Subject], seed: int, n_random: int, n_values: int
) -> list[Case]:
    """All cases of ``subject``; the weights of every other kind of SAE among them."""
    mine = shapes_of(subject)
    same_kind = [s for s in subjects if s.training == subject.training]
    others = {s.name: s.folder for s in same_kind if shapes_of(s) != mine}
    fitting = {s.architecture for s in same_kind if shapes_of(s) == mine}
    strangers = [a for a in ARCHITECTURES if a not in fitting]
    return all_cases(subject.folder, others, strangers, seed, n_random, n_values)


def meaning(folder: Path, training: bool) -> Any:
    """Build the SAE that the files describe, without any loader: JSON, defaults, tensors."""
    cfg = json.loads((folder / CFG).read_text())
    registry: Any = SAE_TRAINING_CLASS_REGISTRY if training else SAE_CLASS_REGISTRY
    sae_class, config_class = registry[cfg["architecture"]]
    known = {f.name for f in dataclasses.fields(config_class)} - {"metadata", "device"}
    is_older = "auxk_coefficient" in cfg and "dead_after_tokens" not in cfg
    if is_older and issubclass(config_class, SignedTrainingSAEConfig):
        # as version 0.1.0 writes it, which had no such fields
        before = {"dead_after_tokens": None, "dead_threshold_decay": 0.0, "minus_bias_init": 0.0}
        cfg = before | cfg
    sae = sae_class(config_class(**{k: v for k, v in cfg.items() if k in known}))
    tensors = load_file(folder / WEIGHTS)
    for name, param in sae.named_parameters():
        assert tensors[name].shape == param.shape
        param.data.copy_(tensors[name].to(sae.dtype))
        assert name == "threshold" or param.isfinite().all()
    clamp(sae)
    return sae


def clamp(sae: Any) -> None:
    """Bring trained thresholds to 0: a next step does so first, and inference files hold none."""
    if hasattr(sae, "threshold"):
        sae.threshold.data.clamp_(min=0.0)


def same_sae(loaded: Any, expected: Any, names: set[str]) -> bool:
    """Equal output, bit for bit, and equal fields."""
    if isinstance(loaded, TrainingSAE):
        clamp(loaded)
    fields = {f.name for f in dataclasses.fields(expected.cfg)} - {"metadata", "device", "dtype"}
    return (
        loaded.dtype == expected.dtype
        and all(getattr(loaded.cfg, f) == getattr(expected.cfg, f) for f in fields & names)
        and torch.equal(output_of(loaded).nan_to_num(), output_of(expected).nan_to_num())
    )


def _fields_read(folder: Path, loaded: Any) -> set[str]:
    """The fields that count.

    SAELens takes a config without a version for one of before 6.0, and drops the training fields.
    """
    version = (json.loads((folder / CFG).read_text()).get("metadata") or {}).get("sae_lens_version")
    everything = {f.name for f in dataclasses.fields(loaded.cfg)}
    return everything if version and Version(version) >= Version("6.0") else set(INFERENCE_FIELDS)


def load(folder: Path, loader: str, whole: Path) -> Any:
    if loader == "SAE":
        return SAE.load_from_disk(folder)
    if loader == "TrainingSAE":
        return TrainingSAE.load_from_disk(folder)
    sae: Any = TrainingSAE.load_from_disk(whole)
    sae.load_weights_from_checkpoint(folder)
    return sae


def judge_error(error: BaseException, case: Case) -> tuple[str, str]:
    """Outcome and reason for what a loader of SAELens raised."""
    text = str(error)
    reason = f"{type(error).__name__}: {text[:300]}"
    if isinstance(error, Hang):
        return "bad", f"no end after {SECONDS_PER_LOAD} s"
    if case.expect in ("same", "means"):
        return "bad", f"refused though valid: {reason}"
    one_line = 0 < len(text) <= MAX_LINE and "\n" not in text
    if isinstance(error, InvalidInputError):
        named = not case.fields or any(field in text for field in case.fields)
        return ("ours", "") if one_line and named else ("bad", f"unclear: {reason}")
    *frames, innermost = traceback.extract_tb(error.__traceback__)
    # the package's from_dict adds fields and hands on to SAELens's
    ours = [innermost, *(frame for frame in frames if frame.name != "from_dict")]
    if any(frame.filename.startswith(PACKAGE) for frame in ours):
        return "bad", f"raised inside the package: {reason}"
    return ("saelens" if one_line else "saelens_long"), reason


def judge_loaded(
    loaded: Any, folder: Path, source: Path, case: Case, training: bool
) -> tuple[str, str]:
    """``source``: where the files stand that say what is right."""
    if case.expect == "refuse":
        return "bad", "loaded though wrong"
    try:
        reference, fields = meaning(source, training), _fields_read(folder, loaded)
    except Exception as error:
        return "bad", f"loaded, though the files mean nothing: {type(error).__name__}: {error}"
    if not same_sae(loaded, reference, fields):
        return "bad", "loaded, with another output or config than the files mean"
    return "right", ""


def judge_python(folder: Path, case: Case, loader: str, subject: Subject) -> tuple[str, str]:
    """SAELens's own loaders."""
    try:
        with time_limit():
            loaded = load(folder, loader, subject.folder)
    except (Exception, Hang) as error:
        return judge_error(error, case)
    source = subject.folder if case.expect == "same" else folder
    return judge_loaded(loaded, folder, source, case, training=loader != "SAE")


def judge_cli(folder: Path, case: Case, command: str, subject: Subject) -> tuple[str, str]:
    """Judge ``split`` and ``audit``: exit code 2 and one line, or the right result."""
    out = folder.parent / "out"
    args = [command, str(folder), *([str(out)] if command == "split" else [])]
    try:
        with time_limit():
            result = CliRunner().invoke(app, args)
    except Hang as error:
        return judge_error(error, case)
    lines = result.stderr.strip().splitlines()
    if result.exit_code == 0:
        if case.expect == "refuse":
            return "bad", "accepted though wrong"
        source = subject.folder if case.expect == "same" else folder
        return _judge_split(out, source) if command == "split" else ("right", "")
    if (
        result.exit_code != 2
        or len(lines) != 1
        or "Traceback" in result.stderr
        or len(lines[0]) > MAX_LINE
    ):
        return "bad", f"exit code {result.exit_code}, {len(lines)} lines, {result.exception!r:.300}"
    if case.expect in ("same", "means"):
        return "bad", f"refused though valid: {lines[0]}"
    return "ours", ""


def _judge_split(out: Path, source: Path) -> tuple[str, str]:
    plain = SAE.load_from_disk(out)
    try:
        signed = meaning(source, training=False)
    except Exception as error:
        return "bad", f"accepted, though the files mean nothing: {type(error).__name__}: {error}"
    got, expected = output_of(plain).double(), output_of(signed).double()
    scale = expected.abs().max().item() or 1.0
    off = (got - expected).abs().max().item() / scale
    # a flipped bit makes a weight of 1e38, and sums of such have no digits left
    tame = all(p.abs().max() < 1e3 for n, p in signed.named_parameters() if n != "threshold")
    if tame and not off <= 100 * torch.finfo(signed.dtype).eps:
        return "bad", f"the plain twin is off by {off:.1e} of the largest output"
    return "right", ""


def run_case(case: Case, subject: Subject, loader: str, work: Path) -> tuple[str, str]:
    """Mutate a copy of the subject, load it, judge; also that nothing else has appeared."""
    folder = work / "sae"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(subject.folder, folder)
    case.apply(folder)
    before = sorted(p.name for p in folder.iterdir())
    if subject.training and case.kind == "weights: threshold below 0":
        # an optimiser step after the last clamp leaves such; the next step, or inference, clamps
        case = dataclasses.replace(case, expect="means")
    if loader in ("SAE", "split", "audit") and case.name == "threshold inf":
        case = dataclasses.replace(case, expect="means")  # a side that is never active
    judge = judge_cli if loader in ("split", "audit") else judge_python
    outcome, reason = judge(folder, case, loader, subject)
    left = sorted(p.name for p in work.iterdir() if p.name not in ("sae", "out"))
    partial = (work / "out").exists() and outcome == "ours"
    if left or partial or sorted(p.name for p in folder.iterdir()) != before:
        return "bad", f"files left behind: {left}"
    return outcome, reason


def loaders_for(case: Case, subject: Subject, index: int) -> list[str]:
    """The ways to load it: the first always, the others at every third case.

    A way that does not read what the case changes is left out.
    """
    loaders = list(subject.loaders)
    if case.training_only:
        return [n for n in loaders if n == "TrainingSAE"]
    if "resume" in loaders and case.kind.startswith(("cfg.json", "swapped", "two")):
        loaders.remove("resume")  # it reads the weights alone
    if "resume" in loaders and (case.name.startswith(CFG)):
        loaders.remove("resume")
    return [loaders[0], *(n for k, n in enumerate(loaders[1:]) if (index + k) % 3 == 0)]
