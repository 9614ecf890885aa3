"""Live training: packings are written while a run trains on them, with limited disk space.

`train` and the command line import it. It writes below OUT/live and has one thread, which gives signs of life.
"""
