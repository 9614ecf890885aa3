"""Makes windows of histories, for builds, live training and repair.

It reads `histories.zarr` and `users.parquet` and writes shards of windows. The layout is computed, not stored.
"""
