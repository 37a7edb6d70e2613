"""Overlapping windows over a sequence that is too long to be processed at once."""

from __future__ import annotations

import math
from typing import NamedTuple


class Window(NamedTuple):
    """Process the frames ``first`` to ``last`` and keep those in ``kept``, a slice of the result."""

    first: int
    last: int
    kept: slice


def plan_windows(frames: int, longest: float, context: int) -> list[Window]:
    """Cut ``frames`` into equal parts of at most ``longest``, each processed with ``context`` frames on both sides."""
    count = max(1, -(-frames // max(1, math.floor(min(longest, frames)))))
    borders = [frames * part // count for part in range(count + 1)]
    windows = []
    for start, end in zip(borders, borders[1:], strict=False):
        first, last = max(0, start - context), min(frames, end + context)
        windows.append(Window(first, last, slice(start - first, end - first)))
    return windows
