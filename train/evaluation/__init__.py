"""A run beside its baselines: cases, figures, the report.

The top of the trainer: only `train` itself and the command line import it.
"""
