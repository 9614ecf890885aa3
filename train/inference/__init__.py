"""Predictions of a trained model: states, probabilities, ratings, lists.

It reads runs. `training` and `evaluation` may import it.
"""
