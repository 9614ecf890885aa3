"""From histories to windows: what builder, live training and repair share.

Reads `histories.zarr` and `users.parquet`, writes shards of windows; the layout is arithmetic.
"""
