"""Simple systems that a model is compared with: popularity, pairs of items, EASE, biases and factors.

They are fitted on training events; their settings are chosen by a measure that the caller gives. No file is touched.
"""
