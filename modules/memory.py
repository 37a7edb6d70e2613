"""Peak and free memory of the GPU, or of the machine for other devices."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

import torch

GIB = 2**30

# Messages of CUDA and its libraries, MPS, the CPU and oneDNN when memory is exhausted.
NO_MEMORY = re.compile(
    "out of memory|ALLOC(ATION)?_FAILED|(not enough|can't allocate|Cannot allocate) memory|could not create a primitive"
)

# A container's memory limit, its usage file, and the usage that cannot be dropped: cgroups version 2, then 1.
CONTAINERS = [
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat", r"^anon (\d+)"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.stat", r"^total_rss (\d+)"),
]


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory of a device or the machine is exhausted."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error)))


def peak_memory(device: torch.device) -> float | None:
    """Return the peak memory of this process in GiB; None if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / GIB
    with contextlib.suppress(OSError):  # Linux, where ru_maxrss starts with the parent's peak
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")  # a name may be cut
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(found[1]) * 1024 / GIB
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def free_memory(device: torch.device) -> float | None:
    """Return the memory that this process can still allocate in GiB; None if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / GIB
    with contextlib.suppress(OSError):  # the file exists only on Linux
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        available = int(re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024
        return min([available, *_left_to_containers()]) / GIB
    return None


def _left_to_containers() -> list[int]:
    left = []
    for limit, usage, pattern in CONTAINERS:
        with contextlib.suppress(OSError, ValueError):  # no such container, or no limit ("max")
            used = re.search(pattern, Path(usage).read_text(encoding="ascii"), re.MULTILINE)
            left.append(int(Path(limit).read_text(encoding="ascii")) - int(used[1] if used else 0))
    return left
