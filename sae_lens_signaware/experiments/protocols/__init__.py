"""Protocols A to C and E: dial, anomalies, antipodal pairs, a share of two-sided features.

The names of A to C are those of arXiv 2605.28149's appendix; the details are this package's own.
Protocol D, natural opposites, is :mod:`sae_lens_signaware.experiments.opposites`.
"""

from sae_lens_signaware.experiments.pipeline import torch_threads
from sae_lens_signaware.experiments.protocols import anomaly, consolidation, dial, two_sided
from sae_lens_signaware.experiments.protocols.config import (
    AnomalyConfig,
    ConsolidationConfig,
    DialConfig,
    ProtocolConfig,
    TwoSidedConfig,
    load_protocol_config,
)
from sae_lens_signaware.experiments.protocols.result import ProtocolResult
from sae_lens_signaware.experiments.protocols.saes import candidates_of
from sae_lens_signaware.experiments.protocols.training import Advance

__all__ = [
    "ProtocolConfig",
    "ProtocolResult",
    "load_protocol_config",
    "n_trainings",
    "result_filename",
    "run_protocol",
]


def n_trainings(config: ProtocolConfig) -> int:
    """Return the number of SAEs that :func:`run_protocol` trains."""
    # as many at each L0; target_l0 itself may be none of them
    candidates = candidates_of(config.saes, config.target_l0s[0], config.d_in)
    worlds = config.n_worlds * len(config.target_l0s)
    return worlds * len(config.seeds) * sum(map(len, candidates.values()))


def result_filename(config: ProtocolConfig) -> str:
    """Return the name of the file of the result, such as ``protocol-a.json``."""
    return f"protocol-{config.protocol}.json"


def run_protocol(
    config: ProtocolConfig, command: str, advance: Advance = lambda name: None
) -> ProtocolResult:
    """Draw the worlds, train the SAEs and measure them.

    Args:
        command: written into the result.
        advance: called with an SAE's name after each training.
    """
    with torch_threads(config.threads):
        return _run(config, command, advance)


def _run(config: ProtocolConfig, command: str, advance: Advance) -> ProtocolResult:
    if isinstance(config, DialConfig):
        return dial.run(config, command, advance)
    if isinstance(config, AnomalyConfig):
        return anomaly.run(config, command, advance)
    if isinstance(config, TwoSidedConfig):
        return two_sided.run(config, command, advance)
    assert isinstance(config, ConsolidationConfig)
    return consolidation.run(config, command, advance)
