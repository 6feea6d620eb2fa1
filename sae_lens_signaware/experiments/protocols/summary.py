"""The result of a protocol, from the measures of every seed."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.evaluation.results import versions
from sae_lens_signaware.experiments.protocols.config import ProtocolConfig
from sae_lens_signaware.experiments.protocols.result import ProtocolResult, TableValue
from sae_lens_signaware.experiments.protocols.saes import candidates_of
from sae_lens_signaware.experiments.protocols.training import Advance, train_all

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Prepared(Generic[T]):
    """The world of one seed, drawn.

    Attributes:
        train: (n_train, d_in) activations that every SAE is trained on.
        heldout: (n_heldout, d_in), of which L0, R² and the dead share are.
        measure: what the protocol asks of an SAE.
    """

    train: Tensor
    heldout: Tensor
    measure: Callable[[SAE[Any]], T]


@dataclasses.dataclass
class Collected(Generic[T]):
    """Measures by SAE, one for each run.

    Attributes:
        measures: name -> quality and measure in the order of the runs.
        sparsities: name -> what set the sparsity of the runs that counted.
        failures: a line for each training that failed.
    """

    measures: dict[str, list[tuple[SAEQuality, T]]] = dataclasses.field(default_factory=dict)
    sparsities: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    failures: list[str] = dataclasses.field(default_factory=list)


def collect(
    config: ProtocolConfig,
    target_l0: float,
    prepare: Callable[[int], Prepared[T]],
    advance: Advance,
) -> Collected[T]:
    """Train and measure every SAE on the world of every seed.

    Args:
        target_l0: that the SAEs are asked for.
        prepare: a seed -> its world.

    Raises:
        FailedTraining: every training of an SAE failed on the world of a seed.
    """
    candidates = candidates_of(config.saes, target_l0, config.d_in)
    collected: Collected[T] = Collected()
    for seed in config.seeds:
        world = prepare(seed)
        runs = train_all(candidates, config.training, target_l0, world.train, seed, advance)
        for run in runs:
            measured = run.quality(world.heldout), world.measure(run.sae)
            collected.measures.setdefault(run.name, []).append(measured)
            collected.sparsities.setdefault(run.name, []).append(run.sparsity)
            collected.failures += run.failures
    return collected


def _seeds(config: ProtocolConfig) -> str:
    n = len(config.seeds)
    return f"{n} seed" + ("" if n == 1 else "s")


def _listed(l0s: list[float]) -> str:
    return ", ".join(f"{l0:g}" for l0 in l0s)


def make_result(
    config: ProtocolConfig,
    *,
    title: str,
    question: str,
    columns: list[str],
    rows: list[list[TableValue]],
    notes: list[str],
    collected: Sequence[Collected[T]],
    command: str,
) -> ProtocolResult:
    """Make the table, with the notes that hold for all protocols.

    Args:
        collected: one for each world.
    """
    training = config.training
    sparsities: dict[str, list[str]] = {}
    for of_world in collected:
        for name, used in of_world.sparsities.items():
            sparsities.setdefault(name, []).extend(used)
    counted = "; ".join(f"{name}: {_times(used)}" for name, used in sparsities.items())
    shared = [
        f"Means over {_seeds(config)}; ± is the sample's standard deviation. Every seed "
        "has its own world and initial weights.",
        f"All SAEs of a seed see the same batches in the same order: {training.n_steps} steps of "
        f"{training.batch_size}, learning rate {training.lr:g}, inputs scaled to a mean norm of "
        f"sqrt(d_in). Measured on {training.n_heldout} held-out samples.",
        f"Sparsity by one rule: L0 {_listed(config.target_l0s)} is asked for, by target_l0 or k "
        "where the architecture has it. Of the others every coefficient of the config is trained, "
        "and the run whose L0 on training samples is nearest in log counts. Runs by what set their "
        f"sparsity: {counted}.",
        *(f"Failed: {line}" for of_world in collected for line in of_world.failures),
        config.origin,
    ]
    return ProtocolResult(
        title=title,
        question=question,
        columns=columns,
        rows=rows,
        notes=[*notes, *shared],
        command=command,
        versions=versions(),
        config=config.model_dump(mode="json"),
    )


def _times(used: list[str]) -> str:
    return ", ".join(f"{sparsity} ({n})" for sparsity, n in Counter(used).items())
