"""Agreement of two sounds in F0 and voicing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modules.f0 import F0_MAX, F0_MIN, F0Predictor

LEAST_FRAMES = 10  # voiced in both sounds; with fewer their pitches are not compared


@dataclass(frozen=True, eq=False)
class Contour:
    """F0 of a sound, one value a frame.

    Attributes:
        f0: Hz (T,).
        voiced: bool (T,).
        periodicity: 0 to 1 (T,), the autocorrelation at the likeliest period; None for a curve that was not measured.
    """

    f0: np.ndarray
    voiced: np.ndarray
    periodicity: np.ndarray | None = None

    def shifted(self, semitones: float) -> Contour:
        """Return the contour with F0 moved by ``semitones``."""
        return Contour(self.f0 * 2 ** (semitones / 12), self.voiced, self.periodicity)


def track(audio: np.ndarray, predictor: F0Predictor) -> Contour:
    """Measure the contour of (L,) samples at the predictor's rate, a frame every ``predictor.hop_length`` samples."""
    f0, uv = predictor(np.asarray(audio, np.float32))
    return Contour(f0, uv > 0, periodicity(audio, predictor.sampling_rate, predictor.hop_length)[: len(f0)])


def periodicity(audio: np.ndarray, sampling_rate: int, hop_length: int) -> np.ndarray:
    """Compute the autocorrelation at the likeliest period from 50 to 1100 Hz, (L // hop_length,), 0 to 1.

    P. Boersma, "Accurate short-term analysis of the fundamental frequency" (1993), through parselmouth. It needs no
    network, so it is independent of the features of a conversion. Sounds under 60 ms have zeros.
    """
    import parselmouth

    strength = np.zeros(len(audio) // hop_length)
    if len(audio) <= 3 / F0_MIN * sampling_rate:
        return strength
    step = hop_length / sampling_rate
    pitch = parselmouth.Sound(np.asarray(audio, np.float64), sampling_rate).to_pitch_ac(
        time_step=step, pitch_floor=F0_MIN, pitch_ceiling=F0_MAX, voicing_threshold=0.0, silence_threshold=0.0
    )
    first = round(pitch.xs()[0] / step)
    measured = pitch.selected_array["strength"][: len(strength) - first]
    strength[first : first + len(measured)] = np.clip(measured, 0, 1)
    return strength


def compare(made: Contour, real: Contour) -> dict[str, float]:
    """Return the figures of a contour against the one that it should have, over their common frames.

    ``f0_correlation``: Pearson's, of ln F0; ``f0_cents``: RMSE in cents; ``f0_median_cents``: median absolute
    difference, which single octave errors do not change. All three are over the frames voiced in both, and left out if
    these are fewer than ten; the first also for a constant pitch. ``vuv_f1``: F1 score of the voiced frames.
    ``periodicity_error``: RMSE over the frames voiced in either. RMSE in cents and F1 are as in Morrison et al.,
    "Chunked autoregressive GAN for conditional waveform synthesis" (2022); its periodicity comes from a network and is
    compared over all frames.
    """
    frames = min(len(made.f0), len(real.f0))
    voiced_made, voiced_real = made.voiced[:frames], real.voiced[:frames]
    both, either = voiced_made & voiced_real, voiced_made | voiced_real
    figures = {}
    if both.sum() >= LEAST_FRAMES:
        logs = [np.log(contour.f0[:frames][both].astype(np.float64)) for contour in (made, real)]
        cents = 1200 / np.log(2) * (logs[0] - logs[1])
        if min(log.std() for log in logs) > 1e-6:
            figures["f0_correlation"] = float(np.corrcoef(*logs)[0, 1])
        figures["f0_cents"] = float(np.sqrt(np.mean(cents**2)))
        figures["f0_median_cents"] = float(np.median(np.abs(cents)))
    if either.any():
        figures["vuv_f1"] = float(2 * both.sum() / (voiced_made.sum() + voiced_real.sum()))
        if made.periodicity is not None and real.periodicity is not None:
            difference = made.periodicity[:frames][either] - real.periodicity[:frames][either]
            figures["periodicity_error"] = float(np.sqrt(np.mean(difference**2)))
    return figures


def key_difference(made: Contour, real: Contour) -> float | None:
    """Return by how many semitones F0 is above the other's in the median, or None if too few frames are voiced."""
    frames = min(len(made.f0), len(real.f0))
    both = made.voiced[:frames] & real.voiced[:frames]
    if both.sum() < LEAST_FRAMES:
        return None
    return float(12 * np.median(np.log2(made.f0[:frames][both] / real.f0[:frames][both])))
