"""Every function that Numba compiles, and nothing else.

The door of Numba. Kernels take arrays that the caller has allocated and checked; they touch no file.
"""
