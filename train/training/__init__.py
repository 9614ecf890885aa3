"""The training loop and its parts.

Only `evaluation`, `train` itself and the command line import it.
"""
