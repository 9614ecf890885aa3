"""Simple systems that a model is compared with: popularity, pairs of items, biases and factors.

Fitted on training events alone; needs no torch.
"""
