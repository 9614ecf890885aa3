"""How much memory is still available to this process: on the GPU, or in the machine and the container."""

import os
from pathlib import Path

import torch

# For each version of cgroups: the folder below /sys/fs/cgroup, the file with the limit, the file with the use, and the
# key of memory.stat for memory that the system can reclaim.
_CGROUPS = {
    "v2": ("", "memory.max", "memory.current", "inactive_file"),
    "v1": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def available_bytes(device: torch.device, root: Path = Path("/")) -> int:
    """Bytes that this process can still take: on the GPU, or its share of the machine's and the container's.

    root: the folder that holds proc and sys.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [_meminfo(root / "proc/meminfo"), *_cgroup_limits(root)]
    return min((limit for limit in limits if limit is not None), default=2**62) // local_ranks()


def local_ranks() -> int:
    """Number of ranks on this machine, from torchrun's environment variable."""
    text = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, int(text)) if text.isdecimal() else 1


def _meminfo(file: Path) -> int | None:
    """`MemAvailable` in bytes; None if the system does not tell."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup_limits(root: Path) -> list[int]:
    """The bytes that remain within each limit: that of the process's group, and those of the groups above it."""
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    left = []
    for _, controllers, path in groups:
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, *names = _CGROUPS["v1" if controllers else "v2"]
        parts = Path(path.strip("/")).parts
        # In a container the path may be the host's. Then only some of the folders above exist.
        for depth in range(len(parts) + 1):
            left.append(_left_of(root.joinpath("sys/fs/cgroup", folder, *parts[:depth]), *names))
    return [limit for limit in left if limit is not None]


def _left_of(group: Path, limit: str, use: str, reclaimable: str) -> int | None:
    """Bytes that remain within a group's limit; None if it has no limit."""
    try:
        most, used = (group / limit).read_text().strip(), int((group / use).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if not most.isdecimal():
        return None
    return max(0, int(most) - used + int(stat.get(reclaimable, 0)))
