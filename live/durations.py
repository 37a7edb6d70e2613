"""Statistics of the newest durations."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import numpy as np

KEPT = 1024  # newest durations of which statistics are computed


class Durations:
    """The newest durations in seconds; memory does not grow."""

    def __init__(self, kept: int = KEPT):
        self.count = 0
        self._seconds = np.zeros(kept)

    def add(self, seconds: float) -> None:
        """Add a duration; the oldest is forgotten."""
        self._seconds[self.count % len(self._seconds)] = seconds
        self.count += 1

    def newest(self, count: int = KEPT) -> np.ndarray:
        """Return up to ``count`` of the newest durations, in no order."""
        count = min(count, self.count, len(self._seconds))
        return self._seconds[np.arange(self.count - count, self.count) % len(self._seconds)]

    def percentile(self, percent: float) -> float:
        """Return a percentile in seconds; 0 without durations."""
        return float(np.percentile(self.newest(), percent)) if self.count else 0.0

    @property
    def longest(self) -> float:
        """The longest of the newest durations, in seconds."""
        return float(self.newest().max(initial=0.0))


class StageDurations:
    """Durations of named stages, by ``clock``. On a GPU the last stage of a block includes waiting for the others."""

    def __init__(self, *names: str):
        self.stages, self.clock = {name: Durations() for name in names}, time.perf_counter

    def clear(self) -> None:
        """Forget all durations."""
        self.stages = {name: Durations() for name in self.stages}

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the duration of the block of code to a stage."""
        start = self.clock()
        yield
        self.stages[name].add(self.clock() - start)
