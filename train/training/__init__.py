"""The training loop and what it holds.

Only `evaluation`, `train` itself and the command line import it.
"""
