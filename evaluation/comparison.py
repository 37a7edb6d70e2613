"""Paired comparison of two conversions of the same clips, by the bootstrap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95  # of the intervals
LEAST_VALUES = 6  # fewer have no interval: even equal signs occur by chance more often than once in 20 (2 * 0.5**5)


@dataclass(frozen=True)
class Interval:
    """A mean and its interval, which is infinite for fewer than six values."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def is_known(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def excludes_zero(self) -> bool:
        """Whether the mean differs from 0 beyond chance."""
        return not self.low <= 0 <= self.high


def interval(values: np.ndarray | list[float], level: float = LEVEL, seed: int = 0) -> Interval | None:
    """Return the mean of (N,) values and its bootstrap-t interval; None for no value.

    P. Hall, "Theoretical comparison of bootstrap confidence intervals" (1988): values are drawn with replacement 10000
    times, and each draw's error is divided by its own standard error. For few clips it covers the mean as often as it
    says; the percentile interval is too narrow then.
    """
    array = np.asarray(values, np.float64)
    count = len(array)
    if not count:
        return None
    mean, error = float(array.mean()), float(array.std(ddof=1) / math.sqrt(count)) if count > 1 else 0.0
    if count < LEAST_VALUES:
        return Interval(mean, -math.inf, math.inf, count)
    if error <= 1e-12 * np.abs(array).max():
        return Interval(mean, mean, mean, count)
    picks = array[np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))]
    errors = picks.std(axis=1, ddof=1) / math.sqrt(count)
    deviations = picks.mean(axis=1) - mean
    studentized = np.divide(deviations, errors, out=np.copysign(np.inf, deviations), where=errors > 1e-6 * error)
    low, high = np.quantile(studentized, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return Interval(mean, mean - float(high) * error, mean - float(low) * error, count)


def paired_difference(
    first: list[dict[str, float]], second: list[dict[str, float]], key: str, comparisons: int = 1
) -> Interval | None:
    """Return the interval of second minus first, over the clips for which both have the figure ``key``.

    With several ``comparisons`` the interval is wider (Bonferroni), so that one false claim in all of them has a chance
    of 5 %. None if no clip has both.
    """
    differences = [b[key] - a[key] for a, b in zip(first, second, strict=True) if key in a and key in b]
    return interval(differences, 1 - (1 - LEVEL) / comparisons)
