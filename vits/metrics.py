"""Distances of a converted clip from its recording, in timbre, pitch and voicing."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

MIN_VOICED_FRAMES = 10  # voiced in both sounds; with fewer their pitches are not compared

Curve = tuple[NDArray[np.float32], NDArray[np.float32]]  # f0 (T,) in Hz, uv (T,): 1 where voiced


@dataclass(frozen=True)
class Metrics:
    """Means over the validation clips, each generated with its own pitch and, with loudness embedding, loudness.

    ``mel_distance``: mean absolute difference of the log mel spectrograms (natural logarithm); lower is better.
    ``f0_correlation``: Pearson's, of log F0 where both sounds are voiced; NaN if no clip has enough such frames.
    ``vuv_error``: the share of frames that are voiced in only one of the two sounds, 0 to 1.
    """

    mel_distance: float
    f0_correlation: float
    vuv_error: float

    @classmethod
    def mean(cls, clips: list[Metrics]) -> Metrics:
        """Average over the clips. The F0 correlation skips clips where it is NaN."""
        distance, correlation, error = np.array([astuple(clip) for clip in clips]).T
        known = correlation[~np.isnan(correlation)]
        return cls(float(distance.mean()), float(known.mean()) if len(known) else float("nan"), float(error.mean()))

    def __str__(self) -> str:
        return (
            f"mel distance {self.mel_distance:.4f}, F0 correlation {self.f0_correlation:.4f}, "
            f"V/UV error {self.vuv_error:.2%}"
        )


def compare_pitch(made: Curve, real: Curve) -> tuple[float, float]:
    """Return the correlation of two curves' log F0 where both are voiced (NaN if unknown), and their V/UV error."""
    voiced_made, voiced_real = made[1] > 0, real[1] > 0
    error = float((voiced_made != voiced_real).mean()) if len(voiced_real) else float("nan")
    both = voiced_made & voiced_real
    if both.sum() < MIN_VOICED_FRAMES:
        return float("nan"), error
    curves = np.log(made[0][both].astype(np.float64)), np.log(real[0][both].astype(np.float64))
    if min(curve.std() for curve in curves) < 1e-6:  # the correlation of a constant pitch is undefined
        return float("nan"), error
    return float(np.corrcoef(*curves)[0, 1]), error
