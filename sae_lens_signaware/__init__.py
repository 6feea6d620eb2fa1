"""Sign-aware sparse autoencoders for SAELens. Importing this package registers both architectures."""

import importlib
from typing import TYPE_CHECKING, Any

from sae_lens_signaware._registration import register
from sae_lens_signaware.bi_jumprelu import (
    BiJumpReLUSAE,
    BiJumpReLUSAEConfig,
    BiJumpReLUTrainingSAE,
    BiJumpReLUTrainingSAEConfig,
)
from sae_lens_signaware.conversion import split_polarities
from sae_lens_signaware.sa_gsae import (
    SAGatedSAE,
    SAGatedSAEConfig,
    SAGatedTrainingSAE,
    SAGatedTrainingSAEConfig,
)

if TYPE_CHECKING:
    from sae_lens_signaware.evaluation import (
        AntipodalAudit,
        BipolarCensus,
        PolarityCalibration,
        PolarityDial,
        SignedEvaluator,
        TopExamples,
        antipodal_audit,
        bipolar_census,
        bipolar_evals,
        merge_antipodal,
        polarity_calibration,
        polarity_dial,
        top_examples,
    )

__version__ = "0.1.0"

# The evaluation package loads when one of its names is used (PEP 562), so that `import` stays light.
_FROM_EVALUATION = (
    "AntipodalAudit",
    "BipolarCensus",
    "PolarityCalibration",
    "PolarityDial",
    "SignedEvaluator",
    "TopExamples",
    "antipodal_audit",
    "bipolar_census",
    "bipolar_evals",
    "merge_antipodal",
    "polarity_calibration",
    "polarity_dial",
    "top_examples",
)

__all__ = [
    "AntipodalAudit",
    "BiJumpReLUSAE",
    "BiJumpReLUSAEConfig",
    "BiJumpReLUTrainingSAE",
    "BiJumpReLUTrainingSAEConfig",
    "BipolarCensus",
    "PolarityCalibration",
    "PolarityDial",
    "SAGatedSAE",
    "SAGatedSAEConfig",
    "SAGatedTrainingSAE",
    "SAGatedTrainingSAEConfig",
    "SignedEvaluator",
    "TopExamples",
    "antipodal_audit",
    "bipolar_census",
    "bipolar_evals",
    "merge_antipodal",
    "polarity_calibration",
    "polarity_dial",
    "split_polarities",
    "top_examples",
]


def __getattr__(name: str) -> Any:
    if name in _FROM_EVALUATION:
        return getattr(importlib.import_module("sae_lens_signaware.evaluation"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register(SAGatedSAE, SAGatedSAEConfig, SAGatedTrainingSAE, SAGatedTrainingSAEConfig)
register(
    BiJumpReLUSAE,
    BiJumpReLUSAEConfig,
    BiJumpReLUTrainingSAE,
    BiJumpReLUTrainingSAEConfig,
)
