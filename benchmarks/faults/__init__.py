"""Broken files of SAEs, and faults while one trains: what benchmarks/robustness.py runs."""
