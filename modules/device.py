"""Where the arithmetic happens: device, half precision, threads."""

from __future__ import annotations

import numpy as np
import torch

from modules.console import UserError


def pick_device(name: str | None = None) -> torch.device:
    """The device called ``name`` (``cpu``, ``cuda``, ``cuda:1``, ``mps``), or the best there is when None or "auto".

    A CUDA device with a number becomes the current one. On a CPU denormal numbers count as zero from here on, also in
    threads that begin later: the gradients of a trained network have many, and a CPU takes many times as long for each
    (benchmarks/denormals.py). Raises UserError when the name is unknown or this machine has no such device.
    """
    device = _device_called(name)
    if device.type == "cpu":
        np.finfo(np.float32), np.finfo(np.float64)  # which NumPy 1 examines at first use, with a warning if done later
        torch.set_flush_denormal(True)
    return device


def _device_called(name: str | None) -> torch.device:
    if name in (None, "", "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"the device '{name}' is not a device; use cpu, cuda, cuda:0 or mps") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False):
        raise UserError(f"the device '{name}' is not available: this PyTorch ({torch.__version__}) sees no such device")
    if device.type == "cuda" and device.index is not None:
        if device.index >= torch.cuda.device_count():
            raise UserError(f"the device '{name}' is not available: there are {torch.cuda.device_count()} CUDA devices")
        torch.cuda.set_device(device)  # some of PyTorch's own work is done on the current one, which would be the first
    return device


def autocast(device: torch.device, half_type: str) -> torch.autocast:
    """Mixed precision for a forward pass; ``half_type`` is "fp16" or "bf16".

    Raises UserError for fp16 on a CPU, where gradients cannot be scaled.
    """
    if half_type == "fp16" and device.type == "cpu":
        raise UserError("train.half_type fp16 needs a GPU; on a CPU set it to bf16, or train.fp16_run to false")
    return torch.autocast(device.type, dtype={"fp16": torch.float16, "bf16": torch.bfloat16}[half_type])


def without_autocast(device: torch.device) -> torch.autocast:
    """Single precision inside autocast too."""
    return torch.autocast(device.type, enabled=False)


def allow_tf32(device: torch.device) -> None:
    """Let products of float32 matrices on a CUDA device round their factors to 10 bits, as its convolutions may."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True


def update_scale(scaler) -> None:
    """End a step of a GradScaler. Its scale never goes below 1: each step that is skipped halves it, which a clip that
    is never finite would go on doing until every gradient is zero."""
    scaler.update()
    if scaler.is_enabled():
        scaler._scale.clamp_(min=1)


def grad_scaler(device: torch.device, *, enabled: bool):
    """The loss scaler of fp16 training, a pass-through when not ``enabled`` (bf16 needs none)."""
    return torch.amp.GradScaler(device.type, enabled=enabled)
