"""modules/device.py: choice of the device, denormals, autocast."""

import pytest
import torch

from modules.console import UserError
from modules.device import autocast, pick_device, without_autocast


def test_a_gpu_with_a_number_becomes_the_current_one(monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert pick_device("cuda") == torch.device("cuda") and pick_device("cpu") == torch.device("cpu")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="'cuda:2' is not available: there are 2 CUDA devices"):
        pick_device("cuda:2")
    assert current == [torch.device("cuda:1")]


def test_on_a_cpu_denormal_numbers_count_as_zero():
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor has no such mode")
    tiny = torch.tensor([1e-30])
    assert (tiny * 1e-10).any()
    pick_device("cpu")
    assert not (tiny * 1e-10).any() and (tiny * 1e-5).any()


def test_single_precision_is_kept_inside_autocast():
    cpu = torch.device("cpu")
    with autocast(cpu, "bf16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        with without_autocast(cpu):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
