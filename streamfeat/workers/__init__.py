"""Processes that are supervised: one that dies or hangs is named, and its task goes to another one.

The door of multiprocessing. `builder`, `export` and `live` import it. It knows no task and no file.
"""
