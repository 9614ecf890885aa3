"""Every function that Numba compiles, and nothing else.

The door of Numba. Kernels take arrays that the caller has allocated and checked; they touch no file.
"""

from numba.core.config import reload_config

from streamfeat.kernel_cache import find_cache

find_cache()  # before any kernel: without a folder to write, Numba refuses to import them
reload_config()
