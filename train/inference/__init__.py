"""A trained model, asked: states, probabilities, ratings, lists.

Reads runs; `training` and `evaluation` may import it.
"""
