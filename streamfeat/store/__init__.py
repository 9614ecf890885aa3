"""The layout on disk: write whole, commit, read, verify.

The door of Zarr, of codecs and of the file system. Everything above imports it; it knows no task and no process.
"""
