"""Paired comparison of two conversions of the same clips, by the bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95  # of the intervals
# With fewer pairs even differences of equal sign occur by chance more often than once in 20 (2 * 0.5**6 = 0.03).
LEAST_PAIRS = 6


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the mean differs from 0 beyond chance: enough values, and 0 is outside of the interval."""
        return self.count >= LEAST_PAIRS and not self.low <= 0 <= self.high


def interval(values: np.ndarray | list[float], level: float = LEVEL, seed: int = 0) -> Interval | None:
    """Return the mean of (N,) values and its percentile interval (B. Efron, "Bootstrap methods", 1979).

    Clips are drawn with replacement, 10000 times. None for no value; for one value the interval is the value.
    """
    array = np.asarray(values, np.float64)
    if not len(array):
        return None
    picks = np.random.default_rng(seed).integers(len(array), size=(RESAMPLES, len(array)))
    low, high = np.quantile(array[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(array.mean()), float(low), float(high), len(array))


def paired_difference(
    first: list[dict[str, float]], second: list[dict[str, float]], key: str, comparisons: int = 1
) -> Interval | None:
    """Return the interval of second minus first, over the clips for which both have the figure ``key``.

    With several ``comparisons`` the interval is wider (Bonferroni), so that one false claim in all of them has a chance
    of 5 %. None if no clip has both.
    """
    differences = [b[key] - a[key] for a, b in zip(first, second, strict=True) if key in a and key in b]
    return interval(differences, 1 - (1 - LEVEL) / comparisons)
