"""How hosts bring content units to frames: by an index that the graph follows."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def expand_units(units: Tensor, mel2ph: Tensor) -> Tensor:
    """Units (1, N, C) to frames (1, T, C), by the number of each frame's unit (1, T), from 1; 0 is a unit of zeros."""
    return F.pad(units, (0, 0, 1, 0))[:, mel2ph[0]]
