"""Measures of signed SAEs, and of any SAE of SAELens (docs/evaluate.md)."""

from sae_lens_signaware.evaluation.audit import antipodal_audit
from sae_lens_signaware.evaluation.dial import polarity_dial
from sae_lens_signaware.evaluation.evals import SignedEvaluator, bipolar_evals
from sae_lens_signaware.evaluation.examples import signed_latents, top_examples
from sae_lens_signaware.evaluation.measures import (
    add_loss_recovered,
    analyze_sae,
    bipolar_census,
    measure_quality,
)
from sae_lens_signaware.evaluation.merge import merge_antipodal
from sae_lens_signaware.evaluation.probe import probe
from sae_lens_signaware.evaluation.saved import save_and_measure, write_measurement, write_split
from sae_lens_signaware.evaluation.texts import read_labelled_texts, text_activations

__all__ = [
    "SignedEvaluator",
    "add_loss_recovered",
    "analyze_sae",
    "antipodal_audit",
    "bipolar_census",
    "bipolar_evals",
    "measure_quality",
    "merge_antipodal",
    "polarity_dial",
    "probe",
    "read_labelled_texts",
    "save_and_measure",
    "signed_latents",
    "text_activations",
    "top_examples",
    "write_measurement",
    "write_split",
]
