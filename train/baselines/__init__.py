"""Simple systems that a model is compared with: popularity, pairs of items, biases and factors.

They are fitted on training events only and need no torch.
"""
