"""Packings that are written while a run trains on them, within a bound of disk.

`train` and the command line import it. It writes below OUT/live; it has a thread that gives signs of life.
"""
