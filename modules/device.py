"""Device, mixed precision and loss scaling."""

from __future__ import annotations

import numpy as np
import torch

from modules.console import UserError


def pick_device(name: str | None = None) -> torch.device:
    """Return the device ``name`` (``cpu``, ``cuda``, ``cuda:1``, ``mps``), or the best available for None or "auto".

    A CUDA device with a number becomes the current one. For a CPU, denormal numbers are flushed to zero from now on,
    also in threads that start later: gradients of a trained network hold many, and a CPU is many times slower on them
    (benchmarks/denormals.py). Raises UserError when the name is unknown or this machine has no such device.
    """
    device = _device_called(name)
    if device.type == "cpu":
        np.finfo(np.float32), np.finfo(np.float64)  # before the next line, after which NumPy 1 warns here
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
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        raise UserError(f"the device '{name}' is not available: this PyTorch ({torch.__version__}) sees no such device")
    if device.type == "cuda" and device.index is not None:
        if device.index >= torch.cuda.device_count():
            raise UserError(f"the device '{name}' is not available: there are {torch.cuda.device_count()} CUDA devices")
        torch.cuda.set_device(device)  # PyTorch does some work on the current device, by default the first
    return device


def autocast(device: torch.device, half_type: str) -> torch.autocast:
    """Return a mixed-precision context for a forward pass; ``half_type`` is "fp16" or "bf16".

    Raises UserError for fp16 on a CPU, where gradients cannot be scaled.
    """
    if half_type == "fp16" and device.type == "cpu":
        raise UserError("train.half_type fp16 needs a GPU; on a CPU set it to bf16, or train.fp16_run to false")
    return torch.autocast(device.type, dtype={"fp16": torch.float16, "bf16": torch.bfloat16}[half_type])


def without_autocast(device: torch.device) -> torch.autocast:
    """Return a context that disables autocast, for single precision."""
    return torch.autocast(device.type, enabled=False)


def allow_tf32(device: torch.device) -> None:
    """Allow TF32 (10-bit mantissas) in float32 matrix products and convolutions on a CUDA device."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True


def update_scale(scaler) -> None:
    """Update a GradScaler at the end of a step and keep its scale at 1 or more: each skipped step halves it, and a clip
    that always gives non-finite gradients would shrink it until all gradients are zero."""
    scaler.update()
    if scaler.is_enabled():
        scaler._scale.clamp_(min=1)


def grad_scaler(device: torch.device, *, enabled: bool):
    """Return the loss scaler of fp16 training, a pass-through when not ``enabled`` (bf16 needs none)."""
    return torch.amp.GradScaler(device.type, enabled=enabled)
