"""Sign-aware sparse autoencoders for SAELens. Importing the package registers its architectures."""

import importlib
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_lens_signaware.checks import ConfigError as ConfigError
    from sae_lens_signaware.checks import InvalidInputError as InvalidInputError
    from sae_lens_signaware.evaluation import AntipodalAudit as AntipodalAudit
    from sae_lens_signaware.evaluation import BipolarCensus as BipolarCensus
    from sae_lens_signaware.evaluation import LabelledTexts as LabelledTexts
    from sae_lens_signaware.evaluation import PolarityCalibration as PolarityCalibration
    from sae_lens_signaware.evaluation import PolarityDial as PolarityDial
    from sae_lens_signaware.evaluation import SAEQuality as SAEQuality
    from sae_lens_signaware.evaluation import SideOpposition as SideOpposition
    from sae_lens_signaware.evaluation import SignedEvaluator as SignedEvaluator
    from sae_lens_signaware.evaluation import SignedLatents as SignedLatents
    from sae_lens_signaware.evaluation import SparseProbes as SparseProbes
    from sae_lens_signaware.evaluation import TextActivations as TextActivations
    from sae_lens_signaware.evaluation import TopExamples as TopExamples
    from sae_lens_signaware.evaluation import activations_store as activations_store
    from sae_lens_signaware.evaluation import add_loss_recovered as add_loss_recovered
    from sae_lens_signaware.evaluation import analyze_sae as analyze_sae
    from sae_lens_signaware.evaluation import antipodal_audit as antipodal_audit
    from sae_lens_signaware.evaluation import bipolar_census as bipolar_census
    from sae_lens_signaware.evaluation import bipolar_evals as bipolar_evals
    from sae_lens_signaware.evaluation import measure_quality as measure_quality
    from sae_lens_signaware.evaluation import merge_antipodal as merge_antipodal
    from sae_lens_signaware.evaluation import nearest_antipodal_pair as nearest_antipodal_pair
    from sae_lens_signaware.evaluation import polarity_calibration as polarity_calibration
    from sae_lens_signaware.evaluation import polarity_dial as polarity_dial
    from sae_lens_signaware.evaluation import probe as probe
    from sae_lens_signaware.evaluation import read_labelled_texts as read_labelled_texts
    from sae_lens_signaware.evaluation import side_opposition as side_opposition
    from sae_lens_signaware.evaluation import signed_latents as signed_latents
    from sae_lens_signaware.evaluation import text_activations as text_activations
    from sae_lens_signaware.evaluation import top_examples as top_examples
    from sae_lens_signaware.evaluation import top_logits as top_logits
    from sae_lens_signaware.evaluation import write_measurement as write_measurement
    from sae_lens_signaware.evaluation import write_split as write_split
    from sae_lens_signaware.experiments import compare_frontiers as compare_frontiers
    from sae_lens_signaware.experiments import load_demo_model as load_demo_model
    from sae_lens_signaware.experiments import load_protocol_config as load_protocol_config
    from sae_lens_signaware.experiments import load_sweep_config as load_sweep_config
    from sae_lens_signaware.experiments import run_local as run_local
    from sae_lens_signaware.experiments import run_protocol as run_protocol
    from sae_lens_signaware.experiments import run_ray as run_ray
    from sae_lens_signaware.experiments import summarise as summarise
    from sae_lens_signaware.hub import load_sae_reference as load_sae_reference
    from sae_lens_signaware.hub import push as push
    from sae_lens_signaware.report import write_latent_figure as write_latent_figure
    from sae_lens_signaware.report import write_report as write_report
    from sae_lens_signaware.saes import BiBatchTopKTrainingSAE as BiBatchTopKTrainingSAE
    from sae_lens_signaware.saes import BiBatchTopKTrainingSAEConfig as BiBatchTopKTrainingSAEConfig
    from sae_lens_signaware.saes import BiJumpReLUSAE as BiJumpReLUSAE
    from sae_lens_signaware.saes import BiJumpReLUSAEConfig as BiJumpReLUSAEConfig
    from sae_lens_signaware.saes import BiJumpReLUTrainingSAE as BiJumpReLUTrainingSAE
    from sae_lens_signaware.saes import BiJumpReLUTrainingSAEConfig as BiJumpReLUTrainingSAEConfig
    from sae_lens_signaware.saes import (
        BiMatryoshkaBatchTopKTrainingSAE as BiMatryoshkaBatchTopKTrainingSAE,
    )
    from sae_lens_signaware.saes import (
        BiMatryoshkaBatchTopKTrainingSAEConfig as BiMatryoshkaBatchTopKTrainingSAEConfig,
    )
    from sae_lens_signaware.saes import BiTopKSAE as BiTopKSAE
    from sae_lens_signaware.saes import BiTopKSAEConfig as BiTopKSAEConfig
    from sae_lens_signaware.saes import BiTopKTrainingSAE as BiTopKTrainingSAE
    from sae_lens_signaware.saes import BiTopKTrainingSAEConfig as BiTopKTrainingSAEConfig
    from sae_lens_signaware.saes import SAGatedSAE as SAGatedSAE
    from sae_lens_signaware.saes import SAGatedSAEConfig as SAGatedSAEConfig
    from sae_lens_signaware.saes import SAGatedTrainingSAE as SAGatedTrainingSAE
    from sae_lens_signaware.saes import SAGatedTrainingSAEConfig as SAGatedTrainingSAEConfig
    from sae_lens_signaware.saes import register as register
    from sae_lens_signaware.saes import split_polarities as split_polarities
    from sae_lens_signaware.training import SignawareTrainingRunner as SignawareTrainingRunner
    from sae_lens_signaware.training import load_runner_config as load_runner_config
    from sae_lens_signaware.training import train_and_measure as train_and_measure
    from sae_lens_signaware.training import train_on_cache as train_on_cache

__version__ = "0.2.0"

# Where each public name lives. A name loads when it is used (PEP 562): `import` stays light, and a
# module that moves breaks nobody. The block above says the same to type checkers.
_HOMES = {
    "checks": ("ConfigError", "InvalidInputError"),
    "evaluation": (
        "AntipodalAudit",
        "BipolarCensus",
        "LabelledTexts",
        "PolarityCalibration",
        "PolarityDial",
        "SAEQuality",
        "SideOpposition",
        "SignedEvaluator",
        "SignedLatents",
        "SparseProbes",
        "TextActivations",
        "TopExamples",
        "activations_store",
        "add_loss_recovered",
        "analyze_sae",
        "antipodal_audit",
        "bipolar_census",
        "bipolar_evals",
        "measure_quality",
        "merge_antipodal",
        "nearest_antipodal_pair",
        "polarity_calibration",
        "polarity_dial",
        "probe",
        "read_labelled_texts",
        "side_opposition",
        "signed_latents",
        "text_activations",
        "top_examples",
        "top_logits",
        "write_measurement",
        "write_split",
    ),
    "experiments": (
        "compare_frontiers",
        "load_demo_model",
        "load_protocol_config",
        "load_sweep_config",
        "run_local",
        "run_protocol",
        "run_ray",
        "summarise",
    ),
    "hub": ("load_sae_reference", "push"),
    "report": ("write_latent_figure", "write_report"),
    "saes": (
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
        "register",
        "split_polarities",
    ),
    "training": (
        "SignawareTrainingRunner",
        "load_runner_config",
        "train_and_measure",
        "train_on_cache",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# a type checker wants the names written out, as the block above has them
__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({"__version__", *_HOME_OF, *_HOMES})


def _is_own_command_line() -> bool:
    """Whether this process is ``sae-lens-signaware`` or ``python -m sae_lens_signaware``."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # what Python puts there while it looks for the module to run
        return sys.orig_argv[-len(sys.argv)] == __name__
    return PurePath(program).stem == "sae-lens-signaware"


# Registration needs torch and sae_lens, which take seconds. Each of our own commands registers when
# it runs, so that --help and --version do not wait.
if not _is_own_command_line():
    importlib.import_module(f"{__name__}.saes")
