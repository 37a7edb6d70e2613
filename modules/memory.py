"""How much memory a training run has taken, and how much there is to take: a GPU's own, or else the machine's."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

import torch

GIB = 2**30

# How a CUDA device and its libraries, an MPS device, a CPU and oneDNN say that memory is missing.
NO_MEMORY = re.compile(
    "out of memory|ALLOC(ATION)?_FAILED|(not enough|can't allocate|Cannot allocate) memory|could not create a primitive"
)

# Where a container says how much it may have, and what it has that cannot be dropped: cgroups of version 2, then 1.
CONTAINERS = [
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat", r"^anon (\d+)"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.stat", r"^total_rss (\d+)"),
]


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is missing, of a device or of the machine."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error)))


def peak_memory(device: torch.device) -> float | None:
    """The most memory that this process has held so far, GiB; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / GIB
    with contextlib.suppress(OSError):  # Linux, where the usage of resources begins with the peak of the parent
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")  # a name cut anywhere
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(found[1]) * 1024 / GIB
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def free_memory(device: torch.device) -> float | None:
    """How much memory this process could still get, GiB; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / GIB
    with contextlib.suppress(OSError):  # there is such a file on Linux alone
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        available = int(re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024
        return min([available, *_left_to_containers()]) / GIB
    return None


def _left_to_containers() -> list[int]:
    left = []
    for limit, usage, pattern in CONTAINERS:
        with contextlib.suppress(OSError, ValueError):  # no container of this kind, or one without a limit ("max")
            used = re.search(pattern, Path(usage).read_text(encoding="ascii"), re.MULTILINE)
            left.append(int(Path(limit).read_text(encoding="ascii")) - int(used[1] if used else 0))
    return left
