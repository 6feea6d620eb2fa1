"""Measures of signed SAEs (docs/measures.md)."""

from sae_lens_signaware.evaluation.activations_of_texts import TextActivations, text_activations
from sae_lens_signaware.evaluation.analysis import Analysis, analyze_sae
from sae_lens_signaware.evaluation.audit import AntipodalAudit, antipodal_audit
from sae_lens_signaware.evaluation.calibration import PolarityCalibration, polarity_calibration
from sae_lens_signaware.evaluation.census import BipolarCensus, bipolar_census
from sae_lens_signaware.evaluation.dial import PolarityDial, nearest_antipodal_pair, polarity_dial
from sae_lens_signaware.evaluation.evals import bipolar_evals
from sae_lens_signaware.evaluation.evaluator import SignedEvaluator
from sae_lens_signaware.evaluation.examples import TopExamples, top_examples
from sae_lens_signaware.evaluation.labelled_texts import LabelledTexts, read_labelled_texts
from sae_lens_signaware.evaluation.logits import top_logits
from sae_lens_signaware.evaluation.merge import merge_antipodal
from sae_lens_signaware.evaluation.opposition import SideOpposition, side_opposition
from sae_lens_signaware.evaluation.probe_results import SparseProbes
from sae_lens_signaware.evaluation.probes import probe
from sae_lens_signaware.evaluation.quality import SAEQuality, add_loss_recovered, measure_quality
from sae_lens_signaware.evaluation.saved import load_sae, write_measurement, write_split
from sae_lens_signaware.evaluation.stores import activations_store
from sae_lens_signaware.evaluation.text import SignedLatents, signed_latents

__all__ = [
    "Analysis",
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
    "load_sae",
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
]
