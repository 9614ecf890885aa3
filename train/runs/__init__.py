"""The folder of a run on disk: its lock, configuration, checkpoints and metrics.

In the trainer, only this folder and `training/bad_steps.py` write into it.
"""
