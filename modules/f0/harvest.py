"""WORLD's Harvest: slower than DIO, with fewer gaps."""

from __future__ import annotations

import numpy as np

from modules.f0 import F0_MAX, F0_MIN
from modules.f0.world import World


class Harvest(World):
    """M. Morise, "Harvest: a high-performance fundamental frequency estimator from speech signals" (2017)."""

    def track(self, sound: np.ndarray, frame_period: float) -> tuple[np.ndarray, np.ndarray]:
        import pyworld

        return pyworld.harvest(sound, self.sampling_rate, F0_MIN, F0_MAX, frame_period=frame_period)
