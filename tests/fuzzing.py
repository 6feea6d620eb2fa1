"""Judge of the fuzzer: load a mutated folder in one of the ways a user does, and say what came of it.

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
from sae_lens_signaware.saes import base
from tests.mutations import CFG, INFERENCE_FIELDS, Case
from tests.support.saes import D_IN, VARIANTS, make_sae, make_training_sae
from tests.weight_mutations import WEIGHTS, all_cases

OUTCOMES = ("right", "ours", "saelens", "saelens_long", "bad")
MAX_LINE = 600
PACKAGE = str(Path(base.__file__).parent)
SECONDS_PER_LOAD = 30
# The second field is whether both sides open: "two_sided" is a meaning of its own.
SUBJECTS = [(a, t, True) for a, t in VARIANTS] + [("sa_gsae", "full", False)]


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
    folder: Path
    training: bool

    @property
    def loaders(self) -> tuple[str, ...]:
        return ("TrainingSAE", "SAE", "resume") if self.training else ("SAE", "split", "audit")


def write_subjects(root: Path) -> list[Subject]:
    """Every architecture with every tying, each for inference and for training."""
    subjects = []
    for architecture, tying, two_sided in SUBJECTS:
        extra = {} if two_sided else {"two_sided": False}
        name = f"{architecture}-{tying}" + ("" if two_sided else "-one-sided")
        make_sae(architecture, tying, **extra).save_model(root / name)
        make_training_sae(architecture, tying, target_l0=5.0, **extra).save_model(
            root / f"{name}-training"
        )
        subjects += [
            Subject(name, root / name, False),
            Subject(f"{name}-training", root / f"{name}-training", True),
        ]
    return subjects


def cases_of(
    subject: Subject, subjects: list[Subject], seed: int, n_random: int, n_values: int
) -> list[Case]:
    """All cases of ``subject``; the weights of every other kind of SAE among them."""
    mine = {k: v.shape for k, v in load_file(subject.folder / WEIGHTS).items()}
    others = {
        s.name: s.folder
        for s in subjects
        if s.training == subject.training
        and {k: v.shape for k, v in load_file(s.folder / WEIGHTS).items()} != mine
    }
    return all_cases(subject.folder, others, seed, n_random, n_values)


def meaning(folder: Path, training: bool) -> Any:
    """The SAE that the files describe, built without any loader: JSON, defaults, tensors as they are."""
    cfg = json.loads((folder / CFG).read_text())
    registry: Any = SAE_TRAINING_CLASS_REGISTRY if training else SAE_CLASS_REGISTRY
    sae_class, config_class = registry[cfg["architecture"]]
    known = {f.name for f in dataclasses.fields(config_class)} - {"metadata", "device"}
    sae = sae_class(config_class(**{k: v for k, v in cfg.items() if k in known}))
    tensors = load_file(folder / WEIGHTS)
    for name, param in sae.named_parameters():
        assert tensors[name].shape == param.shape
        param.data.copy_(tensors[name].to(sae.dtype))
        assert name == "threshold" or param.isfinite().all()
    # in training the next step does so first; inference files hold none below 0
    sae.threshold.data.clamp_(min=0.0)
    return sae


def same_sae(loaded: Any, wanted: Any, names: set[str]) -> bool:
    """Equal output, bit for bit, and equal fields."""
    if isinstance(loaded, TrainingSAE):
        loaded.threshold.data.clamp_(min=0.0)  # type: ignore[union-attr,operator]
    fields = {f.name for f in dataclasses.fields(wanted.cfg)} - {"metadata", "device", "dtype"}
    return (
        loaded.dtype == wanted.dtype
        and all(getattr(loaded.cfg, f) == getattr(wanted.cfg, f) for f in fields & names)
        and torch.equal(output_of(loaded).nan_to_num(), output_of(wanted).nan_to_num())
    )


def _fields_read(folder: Path, loaded: Any) -> set[str]:
    """SAELens takes a config without a version for one of before 6.0, and drops the fields of training."""
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
    frames = traceback.extract_tb(error.__traceback__)
    if any(frame.filename.startswith(PACKAGE) for frame in frames):
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
    """``split`` and ``audit``: exit code 2 and one line, or the right result; nothing left behind."""
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
    got, wanted = output_of(plain).double(), output_of(signed).double()
    scale = wanted.abs().max().item() or 1.0
    off = (got - wanted).abs().max().item() / scale
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
        case = dataclasses.replace(case, expect="means")  # a side that never opens
    judge = judge_cli if loader in ("split", "audit") else judge_python
    outcome, reason = judge(folder, case, loader, subject)
    left = sorted(p.name for p in work.iterdir() if p.name not in ("sae", "out"))
    partial = (work / "out").exists() and outcome == "ours"
    if left or partial or sorted(p.name for p in folder.iterdir()) != before:
        return "bad", f"files left behind: {left}"
    return outcome, reason


def loaders_for(case: Case, subject: Subject, index: int) -> list[str]:
    """The first way to load it always, the others at every third case; none that cannot reach it."""
    loaders = list(subject.loaders)
    if case.training_only:
        return [n for n in loaders if n == "TrainingSAE"]
    if "resume" in loaders and case.kind.startswith(("cfg.json", "swapped", "two")):
        loaders.remove("resume")  # it reads the weights alone
    if "resume" in loaders and (case.name.startswith(CFG)):
        loaders.remove("resume")
    return [loaders[0], *(n for k, n in enumerate(loaders[1:]) if (index + k) % 3 == 0)]
