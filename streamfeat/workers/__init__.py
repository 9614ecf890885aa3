"""Supervised processes: if one dies or hangs, a message names it and another process does its task.

Only this folder uses multiprocessing. `builder`, `export` and `live` import it. It knows no task and no file.
"""
