"""Agreement of two sounds in time: loudness envelope, lag and length.

Sounds are mono float arrays (L,), both at one rate in Hz.
"""

from __future__ import annotations

import numpy as np
from scipy import signal

from modules.audio.loudness import frame_rms

HOP_LENGTH = 512
FLOOR_DB = -50.0  # floor of the envelopes, relative to their loudest frame
FINE_RATE = 2000  # Hz, of the envelopes from which the lag is found
LONGEST_LAG = 0.5  # seconds


def envelope_correlation(audio: np.ndarray, source: np.ndarray) -> float:
    """Return Pearson's correlation of the two loudness envelopes in dB, each above -50 dB of its loudest frame.

    A gain has no effect. 0 if one of the envelopes is constant.
    """
    first, second = (_decibels(frame_rms(np.asarray(sound, np.float32), 2048, HOP_LENGTH)) for sound in (audio, source))
    frames = min(len(first), len(second))
    first, second = first[:frames], second[:frames]
    if min(first.std(), second.std()) < 1e-6:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _decibels(rms: np.ndarray) -> np.ndarray:
    return 20 * np.log10(np.maximum(rms / max(rms.max(), 1e-10), 10 ** (FLOOR_DB / 20)))


def lag(audio: np.ndarray, source: np.ndarray, sampling_rate: int) -> float:
    """Return by how many seconds the sound is later than the source, at most half a second.

    It is the shift with the greatest correlation of the two envelopes (RMS at 2 kHz), interpolated by a parabola.
    """
    hop = max(1, round(sampling_rate / FINE_RATE))
    first, second = (frame_rms(np.asarray(sound, np.float32), 8 * hop, hop) for sound in (audio, source))
    first, second = first - first.mean(), second - second.mean()
    correlation = signal.correlate(first, second, mode="full", method="fft")
    centre, reach = len(second) - 1, round(LONGEST_LAG * sampling_rate / hop)
    low, high = max(centre - reach, 0), min(centre + reach + 1, len(correlation))
    best = low + int(np.argmax(correlation[low:high]))
    return (best - centre + _vertex(correlation, best)) * hop / sampling_rate


def _vertex(values: np.ndarray, index: int) -> float:
    """Return the offset, -0.5 to 0.5, of the vertex of the parabola through three values around a maximum."""
    if not 0 < index < len(values) - 1:
        return 0.0
    left, middle, right = values[index - 1 : index + 2]
    curvature = left - 2 * middle + right
    return float(np.clip((left - right) / (2 * curvature), -0.5, 0.5)) if curvature < 0 else 0.0
