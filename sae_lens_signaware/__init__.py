"""Sign-aware sparse autoencoders for SAELens. Importing the package registers its architectures."""
# ruff: noqa: F403, F405 - __all__ says which names of the homes are here

import importlib
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_lens_signaware.evaluation import *
    from sae_lens_signaware.hub import load_sae, push
    from sae_lens_signaware.report import write_report
    from sae_lens_signaware.saes import *
    from sae_lens_signaware.training.cached import train_on_cache

__version__ = "0.3.0"

__all__ = [
    "BiBatchTopKTrainingSAE",
    "BiBatchTopKTrainingSAEConfig",
    "BiJumpReLUSAE",
    "BiJumpReLUSAEConfig",
    "BiJumpReLUTrainingSAE",
    "BiJumpReLUTrainingSAEConfig",
    "BiMatryoshkaBatchTopKTrainingSAE",
    "BiMatryoshkaBatchTopKTrainingSAEConfig",
    "BiTopKSAE",
    "BiTopKSAEConfig",
    "BiTopKTrainingSAE",
    "BiTopKTrainingSAEConfig",
    "SAGatedSAE",
    "SAGatedSAEConfig",
    "SAGatedTrainingSAE",
    "SAGatedTrainingSAEConfig",
    "analyze_sae",
    "antipodal_audit",
    "bipolar_census",
    "bipolar_evals",
    "load_sae",
    "measure_quality",
    "merge_antipodal",
    "polarity_dial",
    "push",
    "signed_latents",
    "split_polarities",
    "top_examples",
    "train_on_cache",
    "write_report",
]


def __getattr__(name: str) -> Any:
    # A name loads when it is used (PEP 562), so that `import sae_lens_signaware` stays light.
    if name in __all__:
        for home in ("saes", "evaluation", "hub", "training.cached", "report"):
            module = importlib.import_module(f"{__name__}.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Registration needs torch and sae_lens, which take seconds. Our own commands register when they
# run, so that --help does not wait.
_program = sys.argv[0] if sys.argv and sys.argv[0] != "-m" else " ".join(sys.orig_argv[:3])
if PurePath(_program).stem != "sae-lens-signaware" and not _program.endswith(f"-m {__name__}"):
    importlib.import_module(f"{__name__}.saes")
