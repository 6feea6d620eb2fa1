"""The result of a protocol, from the measures of every seed."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Generic, TypeVar

from sae_lens_signaware.experiments.protocols.config import ProtocolConfig
from sae_lens_signaware.experiments.protocols.result import ProtocolResult, TableValue, versions
from sae_lens_signaware.experiments.protocols.training import Trained

T = TypeVar("T")


@dataclasses.dataclass
class Collected(Generic[T]):
    """Measures by SAE, one for each run.

    Attributes:
        measures: name -> measures in the order of the runs.
        sparsities: name -> what set the sparsity of the runs that counted.
    """

    measures: dict[str, list[T]] = dataclasses.field(default_factory=dict)
    sparsities: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def add(self, trained: Trained, measure: T) -> None:
        """Add one run of an SAE."""
        self.measures.setdefault(trained.name, []).append(measure)
        self.sparsities.setdefault(trained.name, []).append(trained.sparsity)


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
    sparsities: Mapping[str, list[str]],
    command: str,
) -> ProtocolResult:
    """Make the table, with the notes that hold for all protocols."""
    training = config.training
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
        "The protocol is ours."
        if config.protocol == "e"
        else "The protocol's name is that of arXiv 2605.28149; its details are ours.",
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
