"""Measures of a converted song whose notes are known. The demo's goals use them (demonstration/report.py)."""

from __future__ import annotations

import numpy as np


def f0_correlation(f0: np.ndarray, voiced: np.ndarray, true_f0: np.ndarray, true_voiced: np.ndarray) -> float:
    """Return the Pearson correlation of two contours in Hz (T,) over the frames voiced in both; 0 for less than two."""
    both = np.asarray(voiced, bool) & np.asarray(true_voiced, bool)
    if both.sum() < 2:
        return 0.0
    return float(np.corrcoef(np.asarray(f0)[both], np.asarray(true_f0)[both])[0, 1])


def voicing_error(voiced: np.ndarray, true_voiced: np.ndarray) -> float:
    """Return the share of all frames (T,), rests included, whose voicing decision is wrong."""
    return float(np.mean(np.asarray(voiced, bool) != np.asarray(true_voiced, bool)))
