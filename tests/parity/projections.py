"""An array in 65 numbers: its norm, and its projections on 64 vectors of random signs.

Two arrays can be compared by them: if s is a vector of independent random signs, the mean of (s·e)² is |e|² for every
error e, so the norm of the 64 projections of the error over √64 estimates the error's norm. The estimate's standard
deviation is 9 % for any e that is not concentrated on a few elements, and less otherwise. Projections on signs are the
AMS sketch (N. Alon, Y. Matias, M. Szegedy, "The space complexity of approximating the frequency moments", 1996).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COUNT = 64
SEED = 1  # of the signs, the same for every array
BLOCK = 1 << 15  # elements whose signs are in memory at once


@dataclass(frozen=True)
class Projections:
    """``values`` are the 64 projections of an array of this shape and L2 norm."""

    shape: tuple[int, ...]
    norm: float
    values: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray) -> Projections:
        """Raises ValueError for an array with NaN or infinity, whose places no projection tells."""
        if not np.isfinite(array).all():
            raise ValueError("an array with NaN or infinity must be stored whole")
        return cls(array.shape, float(np.linalg.norm(array.astype(np.float64))), project(array))

    def relative_error(self, array: np.ndarray) -> float:
        """The estimated L2 norm of ``array`` minus the original, over the original's; infinite for another shape."""
        if array.shape != self.shape:
            return np.inf
        return float(np.linalg.norm(project(array) - self.values) / np.sqrt(COUNT) / (self.norm + 1e-12))


def project(array: np.ndarray) -> np.ndarray:
    """The projections (64,) of an array of any shape, in float64.

    Bit k of the i-th word that PCG64 gives is the sign of element i in vector k. NumPy keeps the words of a bit
    generator the same in all versions.
    """
    values, words, total = array.reshape(-1), np.random.PCG64(SEED), np.zeros(COUNT)
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK].astype(np.float64)
        octets = words.random_raw(len(block)).astype("<u8").view(np.uint8).reshape(-1, COUNT // 8)
        total += 2 * (block @ np.unpackbits(octets, axis=1, bitorder="little")) - block.sum()
    return total
