"""Every function that Numba compiles, and nothing else.

Only this folder imports Numba. Kernels take arrays that the caller has allocated and checked; they touch no file.
"""

from numba.core.config import reload_config

from streamfeat.kernel_cache import find_cache

find_cache()  # must run before any kernel is imported: Numba raises an error without a writable cache folder
reload_config()
