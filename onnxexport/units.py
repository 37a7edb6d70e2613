"""Assigns content units to frames by the index that hosts pass to a graph."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def expand_units(units: Tensor, mel2ph: Tensor) -> Tensor:
    """Expand units (1, N, C) to frames (1, T, C); ``mel2ph`` (1, T) counts units from 1, and 0 is a unit of zeros."""
    return F.pad(units, (0, 0, 1, 0))[:, mel2ph[0]]
