"""From files of any kind to batches of clean events.

The door of DuckDB and of the readers of Arrow. `builder` imports it, and `train` for histories that are asked about.
"""
