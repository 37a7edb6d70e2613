"""The precision in which a conversion computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modules.console import UserError

if TYPE_CHECKING:  # scripts show their help without torch
    import torch

PRECISIONS = ("auto", "fp32", "fp16", "bf16")


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type in which conversion computes; ``precision`` is one of PRECISIONS.

    "auto" is the fastest whose error is inaudible (benchmarks/README.md): fp16 on CUDA, bf16 on a CPU with AMX, whose
    products are many times as fast, else fp32; AVX-512's bf16 is slower than float32 in the frequency domain. Raises
    UserError for an unknown precision, and for fp16 on a CPU.
    """
    import torch

    if precision not in PRECISIONS:
        raise UserError(f"the precision '{precision}' is unknown; use {', '.join(PRECISIONS)}")
    if precision == "auto":
        has_amx = device.type == "cpu" and getattr(torch.cpu, "_is_amx_tile_supported", bool)()
        precision = {"cuda": "fp16", "cpu": "bf16" if has_amx else "fp32"}.get(device.type, "fp32")
    if precision == "fp16" and device.type == "cpu":
        raise UserError("fp16 needs a GPU; on a CPU use bf16, fp32 or auto")
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
