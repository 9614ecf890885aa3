"""The order in which ranks read windows, and the batches made of them.

Only this folder uses threads. `live`, `export` and `train` import it. It writes no files.
"""
