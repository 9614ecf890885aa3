"""The layout on disk: writes files whole, commits, reads and verifies them.

Only this folder uses Zarr, codecs and the file system's calls. All higher folders import it; it knows no task and no
process.
"""
