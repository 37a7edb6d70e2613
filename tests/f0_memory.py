"""Print the memory that each F0 predictor takes per second of sound, as JSON: key -> bytes. Linux only.

The networks have random weights of the published size. CREPE's network is replaced by zeros: it sees at most BATCH
frames at once, whatever the length of the sound.

    python -m tests.f0_memory [KEY ...]
"""

import ctypes
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import torch

from modules.f0 import F0_PREDICTORS, F0Predictor, build_f0_predictor, crepe, rmvpe
from modules.f0.rmvpe_network import RmvpeNetwork

SHORT, LONG = 1, 4  # seconds
RATE = 44100


def status(name: str) -> int:
    """Read a value of /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024


def sound(seconds: float) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.3 * np.sign(np.sin(2 * np.pi * 220 * time))).astype(np.float32)


def bytes_per_second(key: str) -> float:
    """Return how much the peak memory grows from SHORT to LONG, per second of sound."""
    if key == "rmvpe":
        network = RmvpeNetwork().eval().fold()
        rmvpe.load_network = lambda *_: network
    if key == "crepe":
        crepe._network = lambda *_: lambda windows: torch.zeros(len(windows), 360)
    row = F0_PREDICTORS[key]
    predictor = row.load()(RATE, 512) if key == "rmvpe" else build_f0_predictor(key)
    predictor(sound(SHORT))  # loads what the first use loads
    growth = [peak_growth(predictor, sound(seconds)) for seconds in (SHORT, LONG)]
    return (growth[1] - growth[0]) / (LONG - SHORT)


def peak_growth(predictor: F0Predictor, audio: np.ndarray) -> int:
    """Return by how many bytes the memory of the process grows, at its peak, during a prediction."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory that the process keeps would hide growth
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
    before = status("VmRSS")
    predictor(audio)
    return status("VmHWM") - before


def in_child(key: str) -> int:
    """Measure in a forked process, which starts without the memory of other predictors."""
    receive, send = os.pipe()
    if os.fork() == 0:
        os.write(send, str(round(bytes_per_second(key))).encode())
        os._exit(0)
    os.close(send)
    with open(receive, encoding="ascii") as pipe:
        return int(pipe.read())


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({key: in_child(key) for key in sys.argv[1:] or F0_PREDICTORS}))
