"""Base of the two trackers of the WORLD vocoder."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from modules.f0 import F0Predictor
from modules.f0.contour import resize_linear


class World(F0Predictor):
    """A tracker, refined by StoneMask (M. Morise et al., "WORLD", 2016), through pyworld."""

    def contour(self, audio: np.ndarray, frames: int) -> np.ndarray:
        import pyworld

        if len(audio) < self.hop_length or not audio.any():
            return np.zeros(frames)
        sound = audio.astype(np.float64)
        f0, times = self.track(sound, 1000 * self.hop_length / self.sampling_rate)
        f0 = pyworld.stonemask(sound, f0, times, self.sampling_rate)
        return resize_linear(self.rounded(f0), frames)

    @abstractmethod
    def track(self, sound: np.ndarray, frame_period: float) -> tuple[np.ndarray, np.ndarray]:
        """Return F0 (Hz) and times (seconds) of ``(L,)`` float64, one frame every ``frame_period`` milliseconds."""

    def rounded(self, f0: np.ndarray) -> np.ndarray:
        """Round F0 to the precision of the published curves."""
        return f0
