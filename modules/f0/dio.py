"""WORLD's DIO: the fastest, for clean voices."""

from __future__ import annotations

import numpy as np

from modules.f0 import F0_MAX, F0_MIN
from modules.f0.world import World


class Dio(World):
    """M. Morise, H. Kawahara, H. Katayose, "Fast and reliable F0 estimation method based on the period extraction of
    vocal fold vibration of singing voice and speech" (2009)."""

    def track(self, sound: np.ndarray, frame_period: float) -> tuple[np.ndarray, np.ndarray]:
        import pyworld

        return pyworld.dio(sound, self.sampling_rate, F0_MIN, F0_MAX, frame_period=frame_period)

    def rounded(self, f0: np.ndarray) -> np.ndarray:
        """Round to 0.1 Hz."""
        return np.round(f0, 1)
