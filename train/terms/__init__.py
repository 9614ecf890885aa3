"""Tables of a run's training events, which the model uses beside the arrays of a batch.

Rank 0 builds them before the first step. They lie in the run, so that everything that uses the model has the same.
"""
