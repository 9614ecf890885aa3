"""Compares a run with its baselines: cases, figures, the report.

Only `train` itself and the command line import it.
"""
