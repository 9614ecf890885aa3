"""Reads files of any kind as batches of clean events.

Only this folder uses DuckDB and Arrow's readers. `builder` imports it, and `train` for the histories of `recommend`.
"""
