"""Measures of signed SAEs (design section 6)."""
