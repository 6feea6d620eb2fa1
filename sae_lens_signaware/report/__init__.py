"""Report: one self-contained HTML page of a sweep's results; nothing is measured here."""

from sae_lens_signaware.report.page import write_report

__all__ = ["write_report"]
