"""Labelled texts of natural opposites, as CSV files for ``sae-lens-signaware probe``."""

from sae_lens_signaware.experiments.opposites.rated import fetch_sdist, rated_texts
from sae_lens_signaware.experiments.opposites.templates import OPPOSITES, template_texts
from sae_lens_signaware.experiments.opposites.write import write_opposites

__all__ = ["OPPOSITES", "fetch_sdist", "rated_texts", "template_texts", "write_opposites"]
