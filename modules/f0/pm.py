"""Praat's autocorrelation method."""

from __future__ import annotations

import numpy as np

from modules.f0 import F0_MAX, F0_MIN, F0Predictor

VOICING_THRESHOLD = 0.6
PERIODS_IN_WINDOW = 3  # Praat's analysis window in periods of the lowest F0; Praat rejects shorter audio


class Praat(F0Predictor):
    """P. Boersma, "Accurate short-term analysis of the fundamental frequency" (1993), through parselmouth."""

    octave_cost = 0.01  # Praat's default; bonus of a candidate per octave

    def contour(self, audio: np.ndarray, frames: int) -> np.ndarray:
        import parselmouth

        if len(audio) <= PERIODS_IN_WINDOW / F0_MIN * self.sampling_rate:
            return np.zeros(frames)
        sound = parselmouth.Sound(audio.astype(np.float64), self.sampling_rate)
        pitch = sound.to_pitch_ac(
            time_step=self.hop_length / self.sampling_rate,
            voicing_threshold=VOICING_THRESHOLD,
            pitch_floor=F0_MIN,
            pitch_ceiling=F0_MAX,
            octave_cost=self.octave_cost,
        )
        return _centred(pitch.selected_array["frequency"], frames)


def _centred(f0: np.ndarray, frames: int) -> np.ndarray:
    """Pad with zeros or cut on both sides to ``(frames,)``: Praat has no frames within half a window of an end."""
    missing = frames - len(f0)
    left = -(-missing // 2)
    if missing < 0:
        return f0[-left : -left + frames]
    return np.pad(f0, (left, missing - left))
