"""Measures the peak memory of a piece of work, and limits it, so that a lack of memory is an error.

Without the limit, off CUDA, the system would kill the process.
"""

import contextlib
import ctypes
import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from streamfeat.workers.process import peak_memory


def held_bytes(device: torch.device) -> int:
    """Bytes that this process holds now, of the GPU or of the machine; 0 if the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def give_back(device: torch.device) -> None:
    """Returns freed memory to the system. glibc and torch would keep it, and a later measurement would count it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def start_peak(device: torch.device) -> None:
    """Starts a new measurement of the peak. If that is not allowed, the peak is that since the process began."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to what is resident now


def peak_bytes(device: torch.device) -> int:
    """The most bytes that this process held since `start_peak`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()


def data_limit(device: torch.device, num_bytes: int) -> int | None:
    """The limit for `within` that allows `num_bytes` more than the process holds now.

    None on CUDA, which raises an error of its own, and on systems that are not Linux, which cannot count this.
    """
    if device.type == "cuda":
        return None
    try:
        found = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    # Each thread that starts meanwhile reserves a stack of 8 MB but uses little of it.
    return int(found[1]) * 1024 + max(num_bytes, 0) + torch.get_num_threads() * 2**23 if found else None


@contextlib.contextmanager
def within(limit: int | None) -> Iterator[None]:
    """Inside, an allocation raises an error if the process would hold more than `limit` (from `data_limit`)."""
    if limit is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [value for value in (limit, soft, hard) if value != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
