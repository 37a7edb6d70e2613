"""modules/memory.py: peak and free memory as the system reports them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modules import memory
from modules.memory import free_memory, is_lack_of_memory, peak_memory

CPU, ROOT = torch.device("cpu"), Path(__file__).parents[1]


def test_the_peak_grows_with_allocations_and_stays_after_they_are_freed():
    if peak_memory(CPU) is None:
        pytest.skip("this system does not report it")
    program = """
import numpy as np, torch
from modules.memory import peak_memory
cpu = torch.device("cpu")
before = peak_memory(cpu)
room = np.ones(2**29 // 8)
taken = peak_memory(cpu)
del room
print(before, taken, peak_memory(cpu))
"""
    # A separate process, because other tests raise the peak by gigabytes. Its parent's peak of two gigabytes must not
    # count as its own.
    parent = "import subprocess as s, sys, numpy; numpy.ones(2**31 // 8); s.run([sys.executable, '-c', sys.argv[1]])"
    command = [sys.executable, "-c", parent, program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    before, taken, after = map(float, done.stdout.split())
    assert before + 0.4 < taken < before + 0.6 and after == pytest.approx(taken, abs=0.01)
    assert before < 1.5 or sys.platform != "linux"


def test_a_lack_of_memory_is_recognised_by_the_libraries_messages():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**55)  # more than a processor can address
    messages = (
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "MPS backend out of memory (MPS allocated: 8.00 GB)",
        "unable to mmap 400 bytes from file <G_0.pth>: Cannot allocate memory (12)",
        "could not create a primitive descriptor",
    )
    lacks = refused.value, torch.cuda.OutOfMemoryError("any words"), MemoryError(), *map(RuntimeError, messages)
    for error in lacks:
        assert is_lack_of_memory(error), error
    for words in ("CUDA error: an illegal memory access was encountered", "unsupported memory format option"):
        assert not is_lack_of_memory(RuntimeError(words)), words


@pytest.mark.parametrize("kind", [0, 1])
def test_a_containers_limit_counts_if_it_is_lower(tmp_path, monkeypatch, kind):
    machine = free_memory(CPU)
    if machine is None:
        pytest.skip("this system does not report it")
    usage = ["anon 1073741824\nfile 99999999999\n", "cache 99999999999\nrss 1\ntotal_rss 1073741824\n"][kind]
    (tmp_path / "limit").write_text("1610612736\n", encoding="ascii")
    (tmp_path / "stat").write_text(usage, encoding="ascii")
    files = (str(tmp_path / "limit"), str(tmp_path / "stat"), memory.CONTAINERS[kind][2])
    monkeypatch.setattr(memory, "CONTAINERS", [("none", "none", ""), files])
    assert free_memory(CPU) == 0.5, "what is cached files' is free"
    (tmp_path / "limit").write_text("max\n", encoding="ascii")
    assert free_memory(CPU) > 0.5 or machine < 0.6
