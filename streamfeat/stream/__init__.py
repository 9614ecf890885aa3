"""Who reads which window in which order, and the batches that come of it.

The door of threads. `live`, `export` and `train` import it. It writes nothing.
"""
