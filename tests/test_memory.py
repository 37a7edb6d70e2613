"""modules/memory.py: what a process has taken and can take, by what the system says."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modules import memory
from modules.memory import free_memory, is_lack_of_memory, peak_memory

CPU, ROOT = torch.device("cpu"), Path(__file__).parents[1]


def test_the_peak_grows_with_what_is_taken_and_stays_when_it_is_given_back():
    if peak_memory(CPU) is None:
        pytest.skip("this system does not tell")
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
    # A process of its own: one that has run other tests has a peak that takes gigabytes to exceed. Its parent has one
    # of two gigabytes, which is not its own.
    parent = "import subprocess as s, sys, numpy; numpy.ones(2**31 // 8); s.run([sys.executable, '-c', sys.argv[1]])"
    command = [sys.executable, "-c", parent, program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    before, taken, after = map(float, done.stdout.split())
    assert before + 0.4 < taken < before + 0.6 and after == pytest.approx(taken, abs=0.01)
    assert before < 1.5 or sys.platform != "linux"


def test_a_lack_of_memory_is_told_from_other_errors_by_what_libraries_say():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**55)  # more than a processor can address
    sayings = (
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "MPS backend out of memory (MPS allocated: 8.00 GB)",
        "unable to mmap 400 bytes from file <G_0.pth>: Cannot allocate memory (12)",
        "could not create a primitive descriptor",
    )
    lacks = refused.value, torch.cuda.OutOfMemoryError("any words"), MemoryError(), *map(RuntimeError, sayings)
    for error in lacks:
        assert is_lack_of_memory(error), error
    for words in ("CUDA error: an illegal memory access was encountered", "unsupported memory format option"):
        assert not is_lack_of_memory(RuntimeError(words)), words


@pytest.mark.parametrize("kind", [0, 1])
def test_a_containers_limit_counts_where_it_is_the_narrower(tmp_path, monkeypatch, kind):
    machine = free_memory(CPU)
    if machine is None:
        pytest.skip("this system does not tell")
    usage = ["anon 1073741824\nfile 99999999999\n", "cache 99999999999\nrss 1\ntotal_rss 1073741824\n"][kind]
    (tmp_path / "limit").write_text("1610612736\n", encoding="ascii")
    (tmp_path / "stat").write_text(usage, encoding="ascii")
    files = (str(tmp_path / "limit"), str(tmp_path / "stat"), memory.CONTAINERS[kind][2])
    monkeypatch.setattr(memory, "CONTAINERS", [("none", "none", ""), files])
    assert free_memory(CPU) == 0.5, "what is cached files' is free"
    (tmp_path / "limit").write_text("max\n", encoding="ascii")
    assert free_memory(CPU) > 0.5 or machine < 0.6
